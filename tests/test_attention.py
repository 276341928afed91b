"""Strictly causal attention over packed segments: against float64, and who depends on whom for every angle source."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from one_sentence import raises_one_sentence

from siren_rope_jax.ops import (
    apply_rotary,
    calendar_features,
    inverse_frequencies,
    ordinal_angles,
    siren_init,
    siren_rope_angles,
    strictly_causal_attention,
    time_order_angles,
)

BATCH, LENGTH, HEADS, WIDTH, VALUE_WIDTH = 2, 8, 2, 4, 3
SCALE = WIDTH**-0.5
layouts = arrays.arrays(np.int32, (BATCH, LENGTH), elements=st.integers(0, 3))
clocks = arrays.arrays(np.int32, (BATCH, LENGTH), elements=st.integers(0, 4)).map(lambda x: np.sort(x, axis=1))
PACKED = np.array([[1, 1, 1, 2, 2, 3, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1]], np.int32)
PADDING_INSIDE = np.array([[1, 1, 0, 1, 0, 2, 2, 2], [0, 0, 5, 5, 0, 5, 0, 7]], np.int32)
PADDING_ONLY = np.zeros((BATCH, LENGTH), np.int32)
SINGLES = np.array([[1, 2, 3, 4, 5, 6, 7, 8], [8, 7, 6, 5, 4, 3, 2, 1]], np.int32)


def random_inputs(seed=0, dtype=jnp.float32, length=LENGTH):
    generator = np.random.default_rng(seed)
    shapes = [(BATCH, length, HEADS, WIDTH)] * 2 + [(BATCH, length, HEADS, VALUE_WIDTH), (HEADS, VALUE_WIDTH)]
    return [jnp.asarray(generator.normal(size=shape), dtype) for shape in shapes]


def value_and_gradients(query, key, value, no_history, segment_ids, cotangent, times=None):
    def attend(query, key, value, no_history):
        return strictly_causal_attention(query, key, value, segment_ids=segment_ids, no_history=no_history, times=times)

    result, pull_back = jax.vjp(attend, query, key, value, no_history)
    return result, pull_back(cotangent)


jitted = jax.jit(value_and_gradients)


def check_against_float64(inputs, segment_ids, times=None, *, function=jitted, atol=2e-6):
    shape = inputs[2].shape
    cotangent = jnp.asarray(np.random.default_rng(1).normal(size=shape), inputs[2].dtype)
    result, gradients = function(
        *inputs, jnp.asarray(segment_ids), cotangent, None if times is None else jnp.asarray(times)
    )
    exact, exact_gradients = reference.attention(
        *inputs[:3], segment_ids, inputs[3], SCALE, times, cotangent=np.float64(cotangent)
    )
    chex.assert_type(result, inputs[2].dtype)
    chex.assert_trees_all_close(result, exact, rtol=0, atol=atol)
    chex.assert_trees_all_close(gradients, tuple(exact_gradients), atol=2 * atol, rtol=2 * atol)


@settings(deadline=None, max_examples=40)
@given(layouts, st.integers(0, 2**32 - 1))
@example(PACKED, 0)
@example(PADDING_INSIDE, 0)
@example(PADDING_ONLY, 0)
@example(SINGLES, 0)
def test_values_and_gradients_equal_float64_for_any_layout(segment_ids, seed):
    check_against_float64(random_inputs(seed), segment_ids)


@settings(deadline=None, max_examples=40)
@given(layouts, clocks)
@example(np.ones((BATCH, LENGTH), np.int32), np.zeros((BATCH, LENGTH), np.int32))
def test_values_and_gradients_with_ties_equal_float64_for_any_layout(segment_ids, times):
    check_against_float64(random_inputs(), segment_ids, times)


@pytest.mark.parametrize("segment_ids", [PACKED, PADDING_INSIDE, PADDING_ONLY])
def test_without_jit_values_and_gradients_are_the_same(segment_ids):
    check_against_float64(random_inputs(), segment_ids, function=value_and_gradients)


@pytest.mark.parametrize("segment", [0, 1])
def test_a_row_of_one_event_gives_no_history(segment):
    inputs = random_inputs(length=1)
    segment_ids = np.full((BATCH, 1), segment, np.int32)
    check_against_float64(inputs, segment_ids)
    result, _ = jitted(*inputs, jnp.asarray(segment_ids), jnp.ones_like(inputs[2]))
    chex.assert_trees_all_equal(result, np.broadcast_to(inputs[3], result.shape), strict=True)


def test_scale_is_the_factor_of_the_logits():
    query, key, value, no_history = random_inputs()
    segment_ids = jnp.asarray(PACKED)
    result = strictly_causal_attention(query, key, value, segment_ids=segment_ids, no_history=no_history, scale=0.025)
    exact = reference.attention(query, key, value, PACKED, no_history, 0.025)
    chex.assert_trees_all_close(result, exact, rtol=0, atol=2e-6)
    even = strictly_causal_attention(query, key, value, segment_ids=segment_ids, no_history=no_history, scale=0.0)
    chex.assert_trees_all_close(even[1, 5], value[1, :5].mean(axis=0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("segment_ids", [PACKED, PADDING_INSIDE, PADDING_ONLY])
def test_logits_of_ten_thousand_stay_finite(dtype, segment_ids):
    query, key, value, no_history = random_inputs(dtype=dtype)
    inputs = [200 * query, 200 * key, value, no_history]
    logits = SCALE * jnp.einsum("bind,bjnd->bnij", *(x.astype(jnp.float32) for x in inputs[:2]))
    assert jnp.abs(logits).max() > 1e4
    result, gradients = jitted(*inputs, jnp.asarray(segment_ids), jnp.ones_like(value))
    chex.assert_tree_all_finite((result, gradients))
    # The largest logit takes all the weight: a logit's rounding by 1e-3 moves a weight by less than that.
    exact = reference.attention(*inputs[:3], segment_ids, no_history, SCALE)
    chex.assert_trees_all_close(result, exact, rtol=0, atol=2e-2 if dtype == "bfloat16" else 5e-3)


@pytest.mark.parametrize("segment_ids", [PACKED, PADDING_INSIDE, PADDING_ONLY, SINGLES])
def test_bfloat16_equals_float64_to_its_precision(segment_ids):
    # Weights and results carry 8 bits, 2^-8 = .004 each; gradients pass through a few such roundings.
    check_against_float64(random_inputs(dtype=jnp.bfloat16), segment_ids, atol=0.02)


def test_events_of_one_time_do_not_see_each_other():
    query, key, value, no_history = random_inputs()
    segment_ids = jnp.ones((BATCH, LENGTH), jnp.int32)
    times = jnp.asarray([[5, 5, 5, 9, 9, 9, 9, 12]] * BATCH, jnp.int32)

    def attend(value):
        return strictly_causal_attention(
            query, key, value, segment_ids=segment_ids, no_history=no_history, times=times
        )[0]

    chex.assert_trees_all_equal(attend(value)[:3], np.broadcast_to(no_history, (3, HEADS, VALUE_WIDTH)), strict=True)
    depends = np.abs(jax.jit(jax.jacrev(attend))(value)[:, :, :, 0]).max(axis=(1, 2, 4, 5)) > 0
    chex.assert_trees_all_equal(depends, np.asarray(times)[0][:, None] > np.asarray(times)[0][None, :], strict=True)


SIREN = siren_init(jax.random.key(0), 5, WIDTH // 2, width=8)


def angles_of(source, positions, days, features):
    """Angles of each source as a function of what an event knows of itself; None rotates nothing."""
    frequencies = inverse_frequencies(WIDTH)
    match source:
        case "none":
            return None
        case "ordinal":
            return ordinal_angles(positions, frequencies)
        case "time_order":
            return time_order_angles(positions, days, frequencies)
        case "siren":
            return siren_rope_angles(positions, features, frequencies, SIREN, scale=math.pi, gate=1.0)


def attend_rotated(source, tokens, segment_ids):
    """One attention whose queries, keys, values and angles all come from the tokens of their own event."""
    query, key, value = (jnp.asarray(tokens[name]) for name in ("query", "key", "value"))
    angles = angles_of(source, tokens["position"], tokens["days"], tokens["features"])
    if angles is not None:
        query, key = apply_rotary(query, angles), apply_rotary(key, angles)
    no_history = jnp.full(value.shape[2:], 0.5)
    return strictly_causal_attention(query, key, value, segment_ids=segment_ids, no_history=no_history)


attend_jitted = jax.jit(attend_rotated, static_argnums=0)


def random_tokens(segment_ids):
    """Packed events whose positions ascend from 0 in each segment."""
    generator = np.random.default_rng(4)
    query, key, value, _ = random_inputs(4)
    position = [[sum(row[:i] == row[i]) for i in range(LENGTH)] for row in np.asarray(segment_ids)]
    days = np.sort(generator.integers(0, 300, (BATCH, LENGTH)), axis=1)
    second = generator.integers(0, 86_400, (BATCH, LENGTH))
    features = calendar_features(
        jnp.asarray(days, jnp.int32), jnp.asarray(second, jnp.int32), start_day=0, span_days=300.0
    )
    return {
        "query": query,
        "key": key,
        "value": value,
        "position": jnp.asarray(position, jnp.float32),
        "days": jnp.asarray(days + second / 86_400, jnp.float32),
        "features": features,
    }


SOURCES = {
    "none": set(),
    "ordinal": {"position"},
    "time_order": {"position", "days"},
    "siren": {"position", "features"},
}


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("source", SOURCES)
def test_output_depends_on_nothing_but_earlier_events_of_its_segment_and_itself(source, jit):
    """Gradients say so for each pair of events: values of strictly earlier ones alone; of its own, query and angle."""
    segment_ids = jnp.asarray(np.array([[1, 1, 1, 1, 2, 2, 2, 0]] * BATCH), jnp.int32)
    row = np.asarray(segment_ids)[0]
    earlier = np.array([[j < i and row[j] == row[i] and row[i] != 0 for j in range(LENGTH)] for i in range(LENGTH)])
    # With a single event in sight the softmax is 1 whatever the angle, so that only its value counts.
    chooses = earlier.sum(axis=1, keepdims=True) > 1
    own = np.eye(LENGTH, dtype=bool) & chooses
    jacobian = jax.jacrev(lambda tokens: attend_rotated(source, tokens, segment_ids)[0])
    jacobians = (jax.jit(jacobian) if jit else jacobian)(random_tokens(segment_ids))
    for name, gradient in jacobians.items():
        per_event = np.moveaxis(np.abs(np.asarray(gradient))[:, :, :, 0], 3, 1)
        depends = per_event.reshape(LENGTH, LENGTH, -1).max(axis=-1)
        expected = {"value": earlier, "key": earlier & chooses, "query": own}.get(
            name, (earlier & chooses) | own if name in SOURCES[source] else np.zeros_like(own)
        )
        assert (depends[~expected] == 0).all(), name
        assert (depends[expected] > 0).all(), name


@pytest.mark.parametrize("source", SOURCES)
def test_packed_row_equals_its_sequences_run_alone(source):
    tokens = random_tokens(PACKED)
    packed = attend_jitted(source, tokens, jnp.asarray(PACKED))
    for segment, start, stop in ((1, 0, 3), (2, 3, 5), (3, 5, 6)):
        alone = {name: jnp.roll(token, -start, axis=1) for name, token in tokens.items()}
        alone_ids = np.where(np.arange(LENGTH) < stop - start, segment, 0)
        result = attend_jitted(source, alone, jnp.asarray(np.tile(alone_ids, (BATCH, 1)), jnp.int32))
        chex.assert_trees_all_close(result[0, : stop - start], packed[0, start:stop], rtol=0, atol=1e-6)


@pytest.mark.parametrize("source", SOURCES)
def test_prefix_scores_as_it_does_inside_the_longer_history(source):
    segment_ids = jnp.ones((BATCH, LENGTH), jnp.int32)
    tokens = random_tokens(segment_ids)
    whole = attend_jitted(source, tokens, segment_ids)
    prefix = {name: token[:, :5] for name, token in tokens.items()}
    alone = attend_jitted(source, prefix, segment_ids[:, :5])
    chex.assert_trees_all_close(alone, whole[:, :5], rtol=0, atol=1e-6)


def test_what_padding_holds_does_not_matter():
    segment_ids = jnp.asarray(PADDING_INSIDE)
    query, key, value, no_history = random_inputs()
    padding = (segment_ids == 0)[:, :, None, None]
    results = [
        strictly_causal_attention(
            *(jnp.where(padding, filling, x) for x in (query, key, value)),
            segment_ids=segment_ids,
            no_history=no_history,
        )
        for filling in (0.0, 1e4)
    ]
    chex.assert_trees_all_equal(*results, strict=True)
    chex.assert_trees_all_equal(results[0][0, 2], no_history, strict=True)


ZEROS = {
    "query": np.zeros((1, 3, 2, 4), np.float32),
    "key": np.zeros((1, 3, 2, 4), np.float32),
    "value": np.zeros((1, 3, 2, 5), np.float32),
    "segment_ids": np.ones((1, 3), np.int32),
    "no_history": np.zeros((2, 5), np.float32),
}


@pytest.mark.parametrize(
    ("wrong", "parts"),
    [
        ({"key": np.zeros((1, 4, 2, 4))}, ("query, key and value", "(1, 3, 2, 4)", "(1, 4, 2, 4)")),
        ({"value": np.zeros((1, 3, 1, 5))}, ("query, key and value", "(1, 3, 1, 5)")),
        ({name: np.zeros((1, 3, 8)) for name in ("query", "key", "value")}, ("[B, S, N, H]", "(1, 3, 8)")),
        ({"segment_ids": np.ones((1, 2), np.int32)}, ("segment_ids", "(1, 3)", "(1, 2)")),
        ({"no_history": np.zeros((2, 4))}, ("no_history", "(2, 5)", "(2, 4)")),
        ({"times": np.zeros((1, 2), np.int32)}, ("times", "(1, 3)", "(1, 2)")),
        ({"times": np.zeros((1, 3), np.float32)}, ("times", "integers", "float32")),
    ],
)
def test_arrays_that_do_not_fit_are_refused_in_one_sentence(wrong, parts):
    arguments = {name: jnp.asarray(array) for name, array in (ZEROS | wrong).items()}
    with raises_one_sentence(*parts):
        strictly_causal_attention(arguments.pop("query"), arguments.pop("key"), arguments.pop("value"), **arguments)
