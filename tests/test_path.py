"""What accumulates along a sequence: against float64 in plain loops, and free of the order within a moment."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from one_sentence import raises_one_sentence

from siren_rope_jax import ops

variant = pytest.mark.parametrize("variant", [lambda function: function, jax.jit], ids=["eager", "jit"])
SLOTS = 9
LAYOUTS = {
    "one segment": ([1] * SLOTS, None),
    "packed": ([1, 1, 1, 2, 2, 2, 2, 0, 0], None),
    "packed, with ties": ([3, 3, 3, 3, 3, 2, 2, 2, 0], [5, 5, 7, 7, 7, 7, 7, 8, 8]),
    "padding inside": ([0, 1, 0, 0, 1, 1, 2, 0, 2], [9, 1, 9, 0, 1, 4, 4, 9, 4]),
}
layouts = pytest.mark.parametrize("layout", LAYOUTS)


def rows_of(layout):
    segments, times = (None if x is None else np.array([x, x], np.int32) for x in LAYOUTS[layout])
    return segments, np.broadcast_to(np.arange(SLOTS), (2, SLOTS)) if times is None else times, times is not None


def given_rows(layout):
    segments, times, told = rows_of(layout)
    return jnp.asarray(segments), {"times": jnp.asarray(times)} if told else {}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def between(segments, times, row, key, query):
    """The events after the key up to the query: of later times than the key's and earlier ones than the query's."""
    of_segment = [i for i in range(SLOTS) if segments[row, i] == segments[row, query]]
    return [i for i in of_segment if times[row, key] < times[row, i] < times[row, query]] + [query]


def seen(segments, times, row, key, query):
    return segments[row, query] and segments[row, key] == segments[row, query] and times[row, key] < times[row, query]


@pytest.mark.slow
@variant
@layouts
def test_a_logit_fades_by_every_event_after_its_key_up_to_its_query(variant, layout):
    (segments, times, _), (ids, told), x = rows_of(layout), given_rows(layout), -np.abs(normal(2, SLOTS, 3))
    weights = np.zeros((2, 3, SLOTS, SLOTS))
    exact, by = np.zeros_like(weights), np.zeros_like(x)
    for row, query, key in np.ndindex(2, SLOTS, SLOTS):
        if seen(segments, times, row, key, query):
            weights[row, :, query, key] = normal(3, seed=query * SLOTS + key)
            for event in between(segments, times, row, key, query):
                exact[row, :, query, key] += x[row, event]
                by[row, event] += weights[row, :, query, key]

    def loss(x):
        bias = ops.forgetting_bias(x, ids, **told)(jnp.arange(SLOTS), jnp.arange(SLOTS))
        shown = jnp.where(weights != 0, bias, 0)
        return jnp.sum(shown * weights), shown

    (_, shown), gradient = variant(jax.value_and_grad(loss, has_aux=True))(jnp.asarray(x, jnp.float32))
    chex.assert_trees_all_close(shown, exact, rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_close(gradient, by, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_constant_forgetting_is_alibi():
    slopes, positions = ops.alibi_slopes(3), jnp.broadcast_to(jnp.arange(SLOTS), (2, SLOTS))
    bias = ops.forgetting_bias(jnp.broadcast_to(-slopes, (2, SLOTS, 3)), jnp.ones((2, SLOTS), jnp.int32))
    slots, causal = jnp.arange(SLOTS), np.tril(np.ones((SLOTS, SLOTS), bool), -1)
    alibi = ops.alibi_bias(positions, slopes)(slots, slots)
    chex.assert_trees_all_close(jnp.where(causal, bias(slots, slots), 0), jnp.where(causal, alibi, 0), rtol=1e-5)


@pytest.mark.slow
@variant
@layouts
def test_an_angle_sums_the_steps_of_earlier_times_and_its_own(variant, layout):
    (segments, times, _), (ids, told), x = rows_of(layout), given_rows(layout), normal(2, SLOTS, 2, 3)
    frequencies, exact, by = np.array([1.0, 0.1, 0.01]), np.zeros_like(x), np.zeros_like(x)
    for row, i in np.ndindex(2, SLOTS):
        for j in range(SLOTS):
            if (i == j and segments[row, i]) or seen(segments, times, row, j, i):
                exact[row, i] += x[row, j] * frequencies
                by[row, j] += frequencies

    def loss(x):
        angles = ops.selective_angles(x, jnp.asarray(frequencies, jnp.float32), ids, **told)
        shown = jnp.where((ids != 0)[..., None, None], angles, 0)
        return shown.sum(), shown

    (_, shown), gradient = variant(jax.value_and_grad(loss, has_aux=True))(jnp.asarray(x, jnp.float32))
    chex.assert_trees_all_close((shown, gradient), (exact, by), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_steps_of_one_are_rope():
    frequencies = ops.inverse_frequencies(8)
    angles = ops.selective_angles(jnp.ones((1, SLOTS, 4)), frequencies, jnp.ones((1, SLOTS), jnp.int32))
    chex.assert_trees_all_close(angles, ops.ordinal_angles(jnp.arange(1, SLOTS + 1)[None], frequencies), rtol=1e-6)


@pytest.mark.slow
@variant
@layouts
def test_a_convolution_reads_the_event_and_the_means_of_the_latest_earlier_times(variant, layout):
    (segments, times, _), (ids, told) = rows_of(layout), given_rows(layout)
    x, kernel, weights = normal(2, SLOTS, 3), normal(4, 3, seed=1), normal(2, SLOTS, 3, seed=2)
    exact, by = np.zeros_like(x), [np.zeros_like(x), np.zeros_like(kernel)]
    for row, i in np.ndindex(2, SLOTS):
        if segments[row, i]:
            earlier = [j for j in range(SLOTS) if seen(segments, times, row, j, i)]
            moments = sorted({times[row, j] for j in earlier}, reverse=True)
            for tap, group in enumerate([[i], *([j for j in earlier if times[row, j] == t] for t in moments)][:4]):
                exact[row, i] += kernel[tap] * x[row, group].mean(0)
                by[0][row, group] += kernel[tap] * weights[row, i] / len(group)
                by[1][tap] += x[row, group].mean(0) * weights[row, i]

    def loss(arrays):
        result = ops.causal_convolution(*arrays, ids, **told)
        shown = jnp.where((ids != 0)[..., None], result, 0)
        return jnp.sum(shown * weights), shown

    arrays = [jnp.asarray(a, jnp.float32) for a in (x, kernel)]
    (_, shown), gradients = variant(jax.value_and_grad(loss, has_aux=True))(arrays)
    chex.assert_trees_all_close((shown, gradients), (exact, by), rtol=1e-4, atol=1e-5)


@variant
@layouts
def test_the_time_since_the_event_before_is_that_to_the_latest_earlier_time(variant, layout):
    (segments, times, _), ids = rows_of(layout), given_rows(layout)[0]
    for start in (0, -(2**31), 2**31 - 10):
        found = variant(ops.seconds_since)(jnp.asarray(times + start, jnp.int32), ids)
        for row, i in np.ndindex(2, SLOTS):
            earlier = [times[row, j] for j in range(SLOTS) if seen(segments, times, row, j, i)]
            expected = times[row, i] - max(earlier) if earlier else 0
            assert not segments[row, i] or found[row, i] == expected


OPS = {
    "forgetting_bias": lambda x, ids, times: jnp.moveaxis(
        ops.forgetting_bias(x, ids, times=times)(jnp.arange(SLOTS), jnp.arange(SLOTS)), 1, -1
    ),
    "selective_angles": lambda x, ids, times: ops.selective_angles(x, jnp.ones(3), ids, times=times),
    "causal_convolution": lambda x, ids, times: ops.causal_convolution(x, jnp.ones((4, 3)), ids, times=times),
}


@pytest.mark.slow
@pytest.mark.parametrize("op", OPS)
@settings(max_examples=10)
@given(seed=st.integers(0, 2**31))
def test_nothing_crosses_from_one_segment_to_another_nor_back_in_time(op, seed):
    generator = np.random.default_rng(seed)
    ids = np.sort(generator.integers(1, 4, (1, SLOTS)))
    times = np.cumsum(generator.integers(0, 2, (1, SLOTS)), axis=1)
    x, change = normal(1, SLOTS, 3, seed=seed), int(generator.integers(SLOTS))
    spoilt = x.copy()
    spoilt[0, change] = np.nan
    of = [
        np.asarray(OPS[op](jnp.asarray(given, jnp.float32), jnp.asarray(ids), jnp.asarray(times)))[0]
        for given in (x, spoilt)
    ]
    touched = (ids[0] == ids[0, change]) & ((times[0] > times[0, change]) | (np.arange(SLOTS) == change))
    if op == "forgetting_bias":
        causal = (ids[0][:, None] == ids[0]) & (times[0][:, None] > times[0])
        of = [np.where(causal[..., None], bias, 0) for bias in of]
    assert np.isfinite(of[0]).all()
    chex.assert_trees_all_equal(of[0][~touched], of[1][~touched], strict=True)


IDS, THREE = jnp.ones((2, 4), jnp.int32), jnp.ones((2, 4, 3))


@pytest.mark.parametrize(
    ("build", "parts"),
    [
        (lambda: ops.forgetting_bias(jnp.ones((2, 4)), IDS), ("log_forget", "[B, S, N]", "(2, 4)")),
        (lambda: ops.forgetting_bias(THREE, IDS[:1]), ("segment_ids", "(2, 4)", "(1, 4)")),
        (lambda: ops.forgetting_bias(THREE, IDS.astype(jnp.uint32)), ("segment_ids", "signed integers", "uint32")),
        (lambda: ops.forgetting_bias(THREE, IDS, times=jnp.ones((2, 4))), ("times must be integers", "float32")),
        (lambda: ops.selective_angles(jnp.ones(4), jnp.ones(3), IDS), ("steps", "[B, S, R]", "(4,)")),
        (lambda: ops.selective_angles(THREE, jnp.ones(2), IDS), ("frequencies", "(3,)", "(2,)")),
        (lambda: ops.causal_convolution(THREE, jnp.ones((4, 2)), IDS), ("kernel", "[C, 3]", "(4, 2)")),
        (lambda: ops.causal_convolution(THREE[0], jnp.ones((4, 3)), IDS), ("x must have shape [B, S, F]", "(4, 3)")),
        (lambda: ops.seconds_since(IDS, IDS[0]), ("segment_ids", "(2, 4)", "(4,)")),
    ],
)
def test_paths_that_cannot_be_are_refused_in_one_sentence(build, parts):
    with raises_one_sentence(*parts):
        build()
