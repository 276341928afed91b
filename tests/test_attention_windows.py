"""Attention of an event to itself, in a window with sinks, and with learned scales: against float64 in plain loops."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from attention_cases import (
    BATCH,
    HEADS,
    LENGTH,
    PACKED,
    PADDING_INSIDE,
    REQUEST_LAYOUT,
    REQUESTS,
    TIMES,
    layout_of,
    random_cotangent,
    random_inputs,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from one_sentence import raises_one_sentence

from siren_rope_jax.ops import (
    RelativeEmbedding,
    alibi_bias,
    hstu_bias,
    interval_buckets,
    strictly_causal_attention,
    t5_bias,
    visible_counts,
)
from siren_rope_jax.ops.attention import cudnn

SCATTERED = np.array([[3, -1, 3, 3, -1, 0, 3, -1], [2, 2, 5, 0, 2, 5, 5, 2]], np.int32)
UNORDERED = np.array([[5, 1, 5, 2, 0, 0, 3, 1], [4, 4, 1, 9, 2, 1, 0, 3]], np.int32)
LAYOUTS = {
    "packed": layout_of(PACKED),
    "packed, with ties": layout_of(PACKED, TIMES),
    "padding inside": layout_of(PADDING_INSIDE),
    "segments in pieces, times in no order": layout_of(SCATTERED, UNORDERED),
    "requests": REQUEST_LAYOUT,
}
HOW = {
    "itself": {"inclusive": True},
    "window": {"window": 2},
    "window of one, itself": {"window": 1, "inclusive": True},
    "window and sinks": {"window": 1, "sinks": 2},
    "window and sinks, itself": {"window": 2, "sinks": 1, "inclusive": True},
}


@jax.jit(static_argnames=("implementation", "inclusive", "window", "sinks", "hide_within"))
def attended(inputs, layout, cotangent, *, implementation, inclusive=False, window=None, sinks=0, hide_within=0):
    def result(inputs):
        return strictly_causal_attention(
            **inputs,
            **layout,
            implementation=implementation,
            chunk=3,
            inclusive=inclusive,
            window=window,
            sinks=sinks,
            hide_within=hide_within,
            times_ascend=True,
        )

    value, pull_back = jax.vjp(result, inputs)
    return value, pull_back(cotangent)[0]


def check(implementation, layout, how, *, queries=None, widths=(8, 8), scale=(0.3, 0.5, 0.2, 0.4), atol=4e-6):
    inputs = random_inputs(groups=2, queries=queries, widths=widths) | {"scale": jnp.asarray(scale, jnp.float32)}
    cotangent = random_cotangent(inputs)
    found = attended(inputs, layout, cotangent, implementation=implementation, **how)
    arrays = {name: np.asarray(x) for name, x in layout.items()}
    segment_ids, times = arrays.pop("segment_ids"), arrays.pop("times", None)
    exact, gradients = reference.attention(inputs, segment_ids, scale, times, np.float64(cotangent), **arrays, **how)
    gradients["scale"] = gradients["scale"].sum() if np.ndim(scale) == 0 else gradients["scale"]
    chex.assert_trees_all_close(found, (exact, gradients), rtol=4 * atol, atol=4 * atol)


@pytest.mark.slow
@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("implementation", ["plain", "chunked"])
def test_values_and_gradients_equal_float64(implementation, name, how):
    check(implementation, LAYOUTS[name], how, queries=REQUESTS if name == "requests" else None)


LATE = [{"hide_within": 1}, {"hide_within": 2}, {"hide_within": 3, "window": 2, "sinks": 1}, {"hide_within": 2**31 - 1}]
TIMED = [name for name, layout in LAYOUTS.items() if "times" in layout]


@pytest.mark.slow
@pytest.mark.parametrize("how", LATE)
@pytest.mark.parametrize("implementation", ["plain", "chunked", "cudnn"])
def test_events_are_seen_from_the_time_on_at_which_they_were_logged(implementation, how, monkeypatch):
    monkeypatch.setattr(cudnn, "_KERNEL", "xla")
    monkeypatch.setattr(cudnn, "_TYPES", (["float32"],))
    for name in TIMED if implementation != "cudnn" else ("packed, with ties",):
        check(implementation, LAYOUTS[name], how, queries=REQUESTS if name == "requests" else None)


def test_late_events_stay_hidden_at_the_last_time_that_there_is():
    times = jnp.asarray([[2**31 - 3, 2**31 - 2, 2**31 - 1]], jnp.int32)
    counts = visible_counts(jnp.ones((1, 3), jnp.int32), times=times, hide_within=2)
    chex.assert_trees_all_equal(counts, jnp.asarray([[0, 0, 1]]))


@pytest.mark.slow
@pytest.mark.parametrize("variant", [lambda function: function, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("how", [*HOW.values(), *LATE, {}])
def test_visible_counts_are_the_numbers_of_events_that_attention_sees(how, variant):
    for name in [*TIMED, "padding inside"] if "hide_within" not in how else TIMED:
        layout = LAYOUTS[name]
        if "in no order" in name:  # where some count that are not seen
            continue
        counts = variant(lambda layout: visible_counts(**layout, **how))(layout)
        arrays = {name: np.asarray(x) for name, x in layout.items()}
        segment_ids, times = arrays.pop("segment_ids"), arrays.pop("times", None)
        for row, i in np.ndindex(*segment_ids.shape):
            assert counts[row, i] == len(reference.sees(segment_ids, times, row, i, **arrays, **how)), (name, row, i)


@pytest.mark.slow
@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
def test_what_surrounds_cudnn_serves_windows_and_learned_scales(how, monkeypatch):
    monkeypatch.setattr(cudnn, "_KERNEL", "xla")
    monkeypatch.setattr(cudnn, "_TYPES", (["float32"],))
    for name in ("packed, with ties", "padding inside"):
        check("cudnn", LAYOUTS[name], how)


@pytest.mark.slow
@pytest.mark.parametrize("how", [how for how in HOW.values() if "sinks" not in how])
def test_splash_serves_windows_and_learned_scales(how):
    check("splash", LAYOUTS["packed"], how)


@pytest.mark.slow
def test_a_row_that_splash_cannot_window_is_nan_rather_than_wrong():
    inputs = random_inputs(widths=(8, 8))
    layout = layout_of(np.stack([PACKED[0], PADDING_INSIDE[0]]))
    given = {"implementation": "splash", "window": 2}
    result, _ = attended(inputs, layout, random_cotangent(inputs), **given)
    assert np.isfinite(result[0]).all()
    assert np.isnan(result[1]).all()


@pytest.mark.slow
@pytest.mark.parametrize("implementation", ["plain", "chunked"])
def test_one_learned_scale_serves_all_heads(implementation):
    check(implementation, LAYOUTS["packed, with ties"], {}, scale=0.3)


@pytest.mark.slow
@pytest.mark.parametrize("implementation", ["plain", "chunked", "splash"])
def test_a_window_of_the_whole_row_changes_nothing(implementation):
    inputs = random_inputs(widths=(8, 8))
    given = inputs, LAYOUTS["packed"], random_cotangent(inputs)
    whole, windowed = (attended(*given, implementation=implementation, window=window) for window in (None, LENGTH))
    chex.assert_trees_all_equal(windowed, whole)


@pytest.mark.slow
@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(0, 3), st.booleans())
def test_long_rows_of_blocks_equal_those_in_one_go(seed, window, sinks, inclusive):
    """Where most blocks lie outside the window."""
    generator = np.random.default_rng(seed)
    segment_ids = np.sort(generator.integers(0, 4, (BATCH, 40)), axis=1).astype(np.int32)
    layout = layout_of(segment_ids, np.sort(generator.integers(0, 60, (BATCH, 40)), axis=1).astype(np.int32))
    inputs = random_inputs(seed, length=40, widths=(4, 4))
    how = {"window": window, "sinks": sinks, "inclusive": inclusive}
    plain, chunked = (
        attended(inputs, layout, random_cotangent(inputs), implementation=name, **how) for name in ("plain", "chunked")
    )
    chex.assert_trees_all_close(chunked, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "parts"),
    [
        ({"window": 0}, ("window must be a whole number of at least 1", "0")),
        ({"window": 2, "sinks": -1}, ("sinks must be a whole number of at least 0", "-1")),
        ({"sinks": 2}, ("window must be given with sinks", "2")),
        ({"scale": jnp.ones(3)}, ("scale must have shape [] or [4]", "(3,)")),
        ({"scale": [1.0]}, ("scale must be a number or an array", "list")),
        ({"scale": True}, ("scale must be a number or an array", "bool")),
        ({"window": 2, "sinks": 1, "implementation": "splash"}, ("splash must get no sinks",)),
        ({"inclusive": True, "times": jnp.asarray(TIMES), "implementation": "splash"}, ("splash must get no times",)),
        ({"hide_within": 2, "times": jnp.asarray(TIMES), "implementation": "splash"}, ("splash", "no hide_within")),
        ({"hide_within": 2}, ("hide_within must be given with times", "2 without times")),
        ({"hide_within": 2, "times": jnp.asarray(TIMES), "inclusive": True}, ("hide_within", "2 with inclusive")),
        ({"hide_within": 1.5, "times": jnp.asarray(TIMES)}, ("hide_within must be a whole number", "1.5")),
    ],
)
def test_windows_and_scales_without_a_meaning_are_refused_in_one_sentence(wrong, parts):
    inputs = random_inputs(widths=(8, 8))
    with raises_one_sentence(*parts):
        strictly_causal_attention(**inputs, segment_ids=jnp.asarray(PACKED), **wrong)


def learned(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def alibi(positions, times, ids, key_positions, key_times, key_ids):
    return {"bias": alibi_bias(positions, jnp.abs(learned(0, HEADS)), key_positions=key_positions)}


def t5(positions, times, ids, key_positions, key_times, key_ids):
    return {"bias": t5_bias(positions, learned(1, 6, HEADS), max_distance=5, key_positions=key_positions)}


def hstu(positions, times, ids, key_positions, key_times, key_ids):
    tables = learned(2, 4), learned(3, 40)
    return {"bias": hstu_bias(positions, times, *tables, key_positions=key_positions, key_times=key_times)}


def both(*given):
    return {"bias": t5(*given)["bias"] + hstu(*given)["bias"]}


def tisasrec(positions, times, ids, key_positions, key_times, key_ids):
    buckets = interval_buckets(times, ids, max_interval=4, key_times=key_times, key_segment_ids=key_ids)
    return {"relative": RelativeEmbedding(buckets, learned(4, 5, HEADS, 8), learned(5, 5, HEADS, 8))}


@pytest.mark.slow
@pytest.mark.parametrize("make", [alibi, t5, hstu, both, tisasrec])
@pytest.mark.parametrize("implementation", ["plain", "chunked"])
def test_a_query_against_cached_keys_gets_what_its_event_gets_in_the_whole(implementation, make):
    inputs, ids = random_inputs(widths=(8, 8)), jnp.asarray(PACKED)
    starts = np.array([[0, 0, 0, 3, 3, 5, 6, 6], [0] * 8])
    positions = jnp.asarray(np.arange(LENGTH) - starts, jnp.int32)
    times = jnp.asarray(np.cumsum(np.random.default_rng(0).integers(1, 900, (BATCH, LENGTH)), axis=1), jnp.int32)

    @jax.jit
    def whole():
        extra = make(positions, times, ids, None, None, None)
        return strictly_causal_attention(**inputs, segment_ids=ids, implementation=implementation, chunk=3, **extra)

    @jax.jit
    def cached(slot):
        """All keys are in the cache; the time of the query hides those that have not happened."""
        one = {
            name: jax.lax.dynamic_slice_in_dim(x, slot, 1, 1)
            for name, x in {"query": inputs["query"], "positions": positions, "times": times, "ids": ids}.items()
        }
        extra = make(one["positions"], one["times"], one["ids"], positions, times, ids)
        return strictly_causal_attention(
            one["query"],
            inputs["key"],
            inputs["value"],
            no_history=inputs["no_history"],
            segment_ids=one["ids"],
            times=one["times"],
            key_segment_ids=ids,
            key_times=times,
            implementation=implementation,
            chunk=3,
            **extra,
        )

    expected = whole()
    for slot in range(LENGTH):
        chex.assert_trees_all_close(cached(slot)[:, 0], expected[:, slot], rtol=0, atol=1e-5)
