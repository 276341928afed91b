"""Strictly causal attention over packed segments, and from requests to histories, against float64."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from attention_cases import (
    BATCH,
    BUCKETS,
    HEADS,
    LENGTH,
    OPTIONS,
    PACKED,
    PADDING_INSIDE,
    PADDING_ONLY,
    REQUEST_LAYOUT,
    REQUESTS,
    SINGLES,
    TIMES,
    WIDTHS,
    attend,
    check_against_float64,
    clocks,
    jitted,
    layout_of,
    layouts,
    options,
    random_cotangent,
    random_inputs,
    value_and_gradients,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from one_sentence import as_installed, raises_one_sentence

from siren_rope_jax.ops import (
    RelativeEmbedding,
    apply_rotary,
    inverse_frequencies,
    strictly_causal_attention,
    time_order_angles,
)

SCALE = WIDTHS[0] ** -0.5
WAYS = {"plain": {"implementation": "plain"}, "chunked": {"implementation": "chunked", "chunk": 3}}
ways = pytest.mark.parametrize("how", WAYS.values(), ids=WAYS)


@pytest.mark.slow
@ways
@options
@settings(max_examples=15)
@given(layouts, st.none() | clocks, st.integers(0, 2**32 - 1))
@example(PACKED, None, 0)
@example(PADDING_INSIDE, TIMES, 0)
@example(PADDING_ONLY, None, 0)
@example(SINGLES, TIMES, 0)
@example(np.ones((BATCH, LENGTH), np.int32), np.zeros((BATCH, LENGTH), np.int32), 0)
def test_values_and_gradients_equal_float64_for_any_layout(how, options, segment_ids, times, seed):
    """With ties or none; grouped queries as if keys and values were repeated; gradients of the tables too."""
    check_against_float64(random_inputs(seed, **options), segment_ids, times, how=how)


@pytest.mark.slow
@ways
@pytest.mark.parametrize("segment_ids", [PACKED, PADDING_ONLY])
def test_without_jit_values_and_gradients_are_the_same(how, segment_ids):
    check_against_float64(random_inputs(**OPTIONS["all"]), segment_ids, function=value_and_gradients, how=how)


@pytest.mark.slow
@ways
@pytest.mark.parametrize("options", ["plain", "all"])
@settings(max_examples=20)
@given(
    layouts,
    clocks,
    arrays.arrays(np.int32, (BATCH, REQUESTS), elements=st.integers(0, 3)),
    arrays.arrays(np.int32, (BATCH, REQUESTS), elements=st.integers(0, 5)),
)
def test_requests_to_another_sequence_equal_float64_for_any_layout(
    how, options, key_segments, key_times, segments, times
):
    inputs = random_inputs(5, queries=REQUESTS, **OPTIONS[options])
    check_against_float64(inputs, segments, times, how=how, key_segment_ids=key_segments, key_times=key_times)


@pytest.mark.slow
def test_request_gets_what_its_event_would_get_at_the_end_of_the_history():
    inputs = random_inputs(6, queries=REQUESTS, groups=2)
    results = attend(inputs, REQUEST_LAYOUT)
    attend_jitted = jax.jit(attend)
    for i in range(REQUESTS):
        appended = inputs | {name: jnp.pad(inputs[name], ((0, 0), (0, 1), (0, 0), (0, 0))) for name in ("key", "value")}
        appended["query"] = jnp.tile(inputs["query"][:, i : i + 1], (1, LENGTH + 1, 1, 1))
        layout = {
            name: jnp.concatenate([REQUEST_LAYOUT[f"key_{name}"], REQUEST_LAYOUT[name][:, i : i + 1]], axis=1)
            for name in ("segment_ids", "times")
        }
        chex.assert_trees_all_close(attend_jitted(appended, layout)[:, -1], results[:, i], rtol=0, atol=1e-6)


@ways
def test_requests_to_a_history_of_no_events_get_no_history(how):
    inputs = random_inputs(queries=REQUESTS, length=0, **OPTIONS["all"])
    layout = REQUEST_LAYOUT | {name: jnp.zeros((BATCH, 0), jnp.int32) for name in ("key_segment_ids", "key_times")}
    result, gradients = jitted(inputs, layout, random_cotangent(inputs), **how)
    chex.assert_trees_all_equal(result, jnp.broadcast_to(inputs["no_history"], result.shape), strict=True)
    chex.assert_tree_all_finite(gradients)


def test_moving_requests_and_events_alike_leaves_the_result():
    """Queries rotated by the angle of the request, keys by those of the events."""
    inputs, generator = random_inputs(7, queries=REQUESTS), np.random.default_rng(8)
    frequencies = inverse_frequencies(WIDTHS[0])
    request, event = (
        [jnp.asarray(generator.integers(0, 100, (BATCH, length)), jnp.float32) for _ in range(2)]
        for length in (REQUESTS, LENGTH)
    )

    @jax.jit
    def result(request_shift, event_shift):
        sides = {"query": (request, request_shift), "key": (event, event_shift)}
        rotated = {
            name: apply_rotary(inputs[name], time_order_angles(*(x + shift for x in side), frequencies))
            for name, (side, shift) in sides.items()
        }
        return attend(inputs | rotated, REQUEST_LAYOUT)

    # Angles of up to 200 radians are rounded to 2e-5.
    chex.assert_trees_all_close(result(100.0, 100.0), result(0.0, 0.0), rtol=0, atol=2e-4)
    assert np.abs(result(1.0, 0.0) - result(0.0, 0.0)).max() > 0.05


@pytest.mark.slow
@ways
@pytest.mark.parametrize("batch", [1, BATCH])
@pytest.mark.parametrize("heads", [1, HEADS])
def test_bias_of_one_row_or_head_is_that_of_all(how, batch, heads):
    inputs, cotangent = random_inputs(9), random_cotangent(random_inputs())

    @jax.jit
    def result(bias):
        attended = strictly_causal_attention(
            **inputs, segment_ids=jnp.asarray(PACKED), bias=lambda rows, columns: bias[:, :, rows][..., columns], **how
        )
        return jnp.sum(attended * cotangent), attended

    one = jnp.asarray(np.random.default_rng(10).normal(size=(batch, heads, LENGTH, LENGTH)), jnp.float32)
    of_one, expected = (
        jax.grad(result, has_aux=True)(bias) for bias in (one, jnp.broadcast_to(one, (BATCH, HEADS, LENGTH, LENGTH)))
    )
    repeated = tuple(axis for axis, size in enumerate((batch, heads)) if size == 1)
    chex.assert_trees_all_close(of_one[1], expected[1], rtol=0, atol=1e-6)
    chex.assert_trees_all_close(of_one[0], expected[0].sum(axis=repeated, keepdims=True), rtol=0, atol=4e-6)


@pytest.mark.slow
@ways
@pytest.mark.parametrize("segment", [0, 1])
def test_a_row_of_one_event_gives_no_history(how, segment):
    inputs = random_inputs(length=1, **OPTIONS["all"])
    segment_ids = np.full((BATCH, 1), segment, np.int32)
    check_against_float64(inputs, segment_ids, how=how)
    result, _ = jitted(inputs, layout_of(segment_ids), random_cotangent(inputs), **how)
    chex.assert_trees_all_equal(result, jnp.broadcast_to(inputs["no_history"], result.shape), strict=True)


@pytest.mark.slow
def test_scale_is_the_factor_of_the_logits():
    inputs, segment_ids = random_inputs(), jnp.asarray(PACKED)
    result = strictly_causal_attention(**inputs, segment_ids=segment_ids, scale=0.025)
    chex.assert_trees_all_close(result, reference.attention(inputs, PACKED, 0.025), rtol=0, atol=2e-6)
    even = strictly_causal_attention(**inputs, segment_ids=segment_ids, scale=0.0)
    chex.assert_trees_all_close(even[1, 5], inputs["value"][1, :5].mean(axis=0), rtol=0, atol=1e-6)


@pytest.mark.slow
@ways
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("segment_ids", [PACKED, PADDING_INSIDE, PADDING_ONLY])
def test_logits_of_ten_thousand_stay_finite(how, dtype, segment_ids):
    inputs = random_inputs(dtype=dtype)
    inputs |= {name: 200 * inputs[name] for name in ("query", "key")}
    logits = SCALE * jnp.einsum("bind,bjnd->bnij", *(inputs[name].astype(jnp.float32) for name in ("query", "key")))
    assert jnp.abs(logits).max() > 1e4
    result, gradients = jitted(inputs, layout_of(segment_ids), jnp.ones_like(inputs["value"]), **how)
    chex.assert_tree_all_finite((result, gradients))
    # The largest logit takes all the weight: a logit's rounding by 1e-3 moves a weight by less than that.
    exact = reference.attention(inputs, segment_ids, SCALE)
    chex.assert_trees_all_close(result, exact, rtol=0, atol=2e-2 if dtype == "bfloat16" else 5e-3)


@pytest.mark.slow
@ways
@options
@pytest.mark.parametrize("segment_ids", [PACKED, PADDING_INSIDE])
def test_bfloat16_equals_float64_to_its_precision(how, segment_ids, options):
    # Weights and results carry 8 bits, 2^-8 = .004 each; gradients pass through a few such roundings.
    check_against_float64(random_inputs(dtype=jnp.bfloat16, **options), segment_ids, how=how, atol=0.02)


def test_events_of_one_time_do_not_see_each_other():
    inputs, times = random_inputs(), np.array([[5, 5, 5, 9, 9, 9, 9, 12]] * BATCH, np.int32)
    layout = layout_of(np.ones((BATCH, LENGTH), np.int32), times)

    def attend_to(value):
        return attend(inputs | {"value": value}, layout)[0]

    expected = jnp.broadcast_to(inputs["no_history"], (3, HEADS, WIDTHS[1]))
    chex.assert_trees_all_equal(attend_to(inputs["value"])[:3], expected, strict=True)
    depends = np.abs(jax.jit(jax.jacrev(attend_to))(inputs["value"])[:, :, :, 0]).max(axis=(1, 2, 4, 5)) > 0
    chex.assert_trees_all_equal(depends, times[0][:, None] > times[0][None, :], strict=True)


@pytest.mark.parametrize("filling", [1e4, float("nan"), float("inf")])
@ways
def test_what_padding_holds_matters_to_no_value_and_no_gradient(how, filling):
    inputs, padding = random_inputs(groups=1), (PADDING_INSIDE == 0)[:, :, None, None]
    filled, emptied = (
        jitted(
            inputs | {name: jnp.where(padding, content, inputs[name]) for name in ("query", "key", "value")},
            layout_of(PADDING_INSIDE),
            random_cotangent(inputs),
            **how,
        )
        for content in (filling, 0.0)
    )
    chex.assert_trees_all_equal(filled, emptied, strict=True)
    chex.assert_trees_all_equal(filled[0][0, 2], inputs["no_history"], strict=True)


@pytest.mark.slow
@ways
def test_arrays_of_numpy_are_taken_as_those_of_jax(how):
    inputs, layout = random_inputs(), {"segment_ids": np.int64(PACKED), "times": np.cumsum(PACKED, axis=1)}
    with as_installed():
        on_host = attend({name: np.asarray(x) for name, x in inputs.items()}, layout, **how)
    chex.assert_trees_all_close(on_host, attend(inputs, layout_of(PACKED, layout["times"])), atol=1e-6)


def floats(*shape):
    return np.zeros(shape, np.float32)


def integers(*shape):
    return np.ones(shape, np.int32)


def relative(key=(5, 2, 4), value=(5, 2, 5), buckets=(1, 3, 3), dtype=np.int32):
    return RelativeEmbedding(lambda rows, columns: jnp.zeros(buckets, dtype), floats(*key), floats(*value))


FITTING = {
    "query": floats(1, 3, 2, 4),
    "key": floats(1, 3, 2, 4),
    "value": floats(1, 3, 2, 5),
    "segment_ids": integers(1, 3),
    "no_history": floats(2, 5),
}
HISTORY = {"key": floats(1, 4, 2, 4), "value": floats(1, 4, 2, 5), "key_segment_ids": integers(1, 4)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "parts"),
    [
        ({"key": floats(1, 4, 2, 4)}, ("query, key and value", "(1, 3, 2, 4)", "(1, 4, 2, 4)")),
        ({"value": floats(1, 3, 1, 5)}, ("query, key and value", "(1, 3, 1, 5)")),
        ({name: floats(1, 3, 8) for name in ("query", "key", "value")}, ("[B, S, N, H]", "(1, 3, 8)")),
        ({"query": floats(1, 3, 3, 4)}, ("heads that divide N", "(1, 3, 3, 4)", "(1, 3, 2, 4)")),
        ({"key": floats(1, 3, 0, 4), "value": floats(1, 3, 0, 5)}, ("heads that divide N", "(1, 3, 0, 4)")),
        ({"segment_ids": integers(1, 2)}, ("segment_ids", "(1, 3)", "(1, 2)")),
        ({"no_history": floats(2, 4)}, ("no_history", "(2, 5)", "(2, 4)")),
        ({"times": integers(1, 2)}, ("times", "(1, 3)", "(1, 2)")),
        ({"times": floats(1, 3)}, ("times", "integers", "float32")),
        ({"key_times": integers(1, 3)}, ("key_times must be given with key_segment_ids",)),
        (HISTORY | {"times": integers(1, 3)}, ("times and key_times must be given with key_segment_ids",)),
        (HISTORY | {"key_times": integers(1, 4)}, ("times and key_times must be given with key_segment_ids",)),
        (HISTORY | {"key_segment_ids": integers(1, 3)}, ("key_segment_ids", "(1, 4)", "(1, 3)")),
        (HISTORY | {"times": integers(1, 3), "key_times": floats(1, 4)}, ("key_times", "integers", "float32")),
        (HISTORY | {"times": integers(1, 3), "key_times": integers(1, 3)}, ("key_times", "(1, 4)", "(1, 3)")),
        ({"query": integers(1, 3, 2, 4)}, ("query must be floating-point numbers", "int32")),
        ({"value": integers(1, 3, 2, 5)}, ("value must be floating-point numbers", "int32")),
        ({"times": np.array([[0, 1, 2**31]])}, ("times must fit int32", 2**31)),
        ({"chunk": 0}, ("chunk must be a whole number of at least 1", "0")),
        ({"implementation": "flash"}, ("implementation must be one of", "auto", "flash")),
        ({"bias": floats(1, 2, 3, 3)}, ("bias must be a function of query slots and key slots", "ndarray")),
        ({"bias": lambda rows, columns: floats(2, 3, 3)}, ("bias must return", "(1, 2, 3, 3)", "(2, 3, 3)")),
        ({"bias": lambda rows, columns: floats(1, 2, 3, 4)}, ("bias must return", "(1, 2, 3, 3)", "(1, 2, 3, 4)")),
        ({"bias": lambda rows, columns: floats(5, 2, 3, 3)}, ("bias must return", "(1, 2, 3, 3)", "(5, 2, 3, 3)")),
        ({"bias": lambda rows, columns: floats(1, 2, 3, 3) > 0}, ("bias must return an array of floating", "bool")),
        ({"bias": lambda rows, columns: 1j * floats(1, 2, 3, 3)}, ("bias must return an array of floating", "complex")),
        ({"bias": lambda rows, columns: (floats(1, 2, 3, 3),)}, ("bias must return an array of floating", "tuple")),
        ({"bias": lambda rows, columns: 0.0}, ("bias must return an array of floating", "float")),
        ({"bias": lambda rows: floats(1, 2, 3, 3)}, ("bias must take query slots and key slots", "(rows)")),
        ({"relative": [1]}, ("relative must be a RelativeEmbedding", "list")),
        ({"relative": relative()._replace(buckets=None)}, ("relative.buckets must be a function", "None")),
        ({"relative": relative()._replace(key=[1.0])}, ("relative.key must be an array", "list")),
        ({"relative": relative(key=(5, 1, 4))}, ("tables", "[T, 2, 4]", "(5, 1, 4)")),
        ({"relative": relative(value=(5, 2, 4))}, ("tables", "[T, 2, 5]", "(5, 2, 4)")),
        ({"relative": relative(value=(4, 2, 5))}, ("tables", "(5, 2, 4)", "(4, 2, 5)")),
        ({"relative": relative(buckets=(3, 3))}, ("relative.buckets", "integers of shape (1, 3, 3)", "(3, 3)")),
        ({"relative": relative(dtype=np.float32)}, ("relative.buckets", "integers", "float32")),
    ],
)
def test_arguments_that_do_not_fit_are_refused_in_one_sentence(wrong, parts):
    with raises_one_sentence(*parts):
        strictly_causal_attention(**(FITTING | wrong))


@functools.partial(jax.jit, static_argnames="implementation")
def attended_far_alone(value, lowest, implementation):
    """What events get where a bias is `lowest` but for pairs three slots apart, and how it depends on the values."""
    key = jax.random.normal(jax.random.key(0), (1, 5, 1, 2))

    def far_alone(rows, columns):
        return jnp.where(rows[:, None] - columns[None] >= 3, 0.0, lowest)[None, None]

    def attend(value):
        return strictly_causal_attention(
            key,
            key,
            value,
            segment_ids=jnp.asarray([[1, 1, 1, 1, 2]]),
            no_history=jnp.full((1, 1), -1.0),
            bias=far_alone,
            implementation=implementation,
            chunk=2,
        )[0, :, 0, 0]

    return attend(value), jax.jacrev(attend)(value)


@pytest.mark.slow
@pytest.mark.parametrize("implementation", ["plain", "chunked"])
@pytest.mark.parametrize("lowest", [-np.inf, float(np.finfo(np.float32).min), -1e30])
def test_a_bias_that_hides_all_that_an_event_may_see_never_shows_it_the_future(lowest, implementation):
    """With -inf it sees nothing; with a finite number, however low, the softmax is over what it may see."""
    value = jnp.asarray([1.0, 2.0, 4.0, 100.0, 7.0]).reshape(1, 5, 1, 1)
    attended, jacobian = attended_far_alone(value, lowest, implementation)
    second = -1.0 if lowest == -np.inf else 1.0
    chex.assert_trees_all_close(attended[jnp.asarray([0, 1, 3, 4])], jnp.asarray([-1.0, second, 1.0, -1.0]))
    chex.assert_trees_all_close(jacobian[1, 0, :, 0, 0], jnp.asarray([float(second > 0), 0, 0, 0, 0]))


@pytest.mark.slow
@ways
@pytest.mark.parametrize("name", ["query", "key", "value"])
def test_a_nan_of_an_event_shows_in_all_that_see_it_and_never_as_no_history(how, name):
    inputs = random_inputs(**OPTIONS["all"])
    damaged = inputs | {name: inputs[name].at[1, 2].set(jnp.nan)}
    result, gradients = jitted(damaged, layout_of(PACKED), random_cotangent(inputs), **how)
    feeling = slice(2, 3) if name == "query" else slice(3, None)
    assert np.isnan(np.asarray(result[1, feeling])).all()
    assert np.isnan(np.asarray(gradients["query"][1, feeling])).all()
    whole = attend(inputs, layout_of(PACKED), **how)
    chex.assert_trees_all_close(result[0], whole[0], rtol=0, atol=2e-6)  # another row
    chex.assert_trees_all_equal(result[1, 0], inputs["no_history"], strict=True)


@pytest.mark.slow
@ways
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_logits_that_overflow_are_nan_and_never_no_history(how, sign):
    inputs = random_inputs()
    inputs |= {"query": jnp.full_like(inputs["query"], 1e30), "key": jnp.full_like(inputs["key"], sign * 1e30)}
    result, gradients = jitted(inputs, layout_of(PACKED), random_cotangent(inputs), **how)
    sees = np.asarray([[0, 1, 1, 0, 1, 0, 0, 0], [0, 1, 1, 1, 1, 1, 1, 1]], bool)
    chex.assert_trees_all_equal(np.isnan(result), np.broadcast_to(sees[..., None, None], result.shape))
    chex.assert_trees_all_equal(
        np.isnan(gradients["query"]), np.broadcast_to(sees[..., None, None], inputs["query"].shape)
    )


@pytest.mark.slow
@pytest.mark.parametrize("lowest", [-np.inf, -3e38])
@ways
def test_an_event_whose_logit_alone_overflows_shows_in_all_that_see_it(how, lowest):
    """Its weight would be 0, as if it had never happened."""
    inputs = random_inputs() | {"query": jnp.full((2, 8, 4, 4), 9.0)}
    inputs["key"] = inputs["key"].at[1, 2].set(lowest)
    result, gradients = jitted(inputs, layout_of(PACKED), random_cotangent(inputs), **how)
    shows = np.zeros((2, 8, 1, 1), bool)
    shows[1, 3:] = True
    chex.assert_trees_all_equal(np.isnan(result), np.broadcast_to(shows, result.shape))
    assert np.isnan(gradients["query"][1, 3:]).all()
    assert np.isnan(gradients["key"][1, 2]).all()


@pytest.mark.slow
@pytest.mark.parametrize("bucket", [-1, BUCKETS, 2**31 - 1, -(2**31)])
@ways
def test_a_relation_without_an_embedding_is_nan(how, bucket):
    inputs = random_inputs(relative=True)

    def buckets(rows, columns):
        known = jnp.zeros((2, rows.size, columns.size), int)
        return jnp.where((rows == 4)[:, None] & (columns == 1), bucket, known)

    result = strictly_causal_attention(
        *(inputs[name] for name in ("query", "key", "value")),
        segment_ids=jnp.asarray(PACKED),
        no_history=inputs["no_history"],
        relative=RelativeEmbedding(buckets, inputs["relative_key"], inputs["relative_value"]),
        **how,
    )
    shows = np.zeros((2, 8, 1, 1), bool)
    shows[1, 4] = True
    chex.assert_trees_all_equal(np.isnan(result), np.broadcast_to(shows, result.shape))


@pytest.mark.parametrize("name", ["segment_ids", "key_segment_ids"])
def test_segments_that_are_no_integers_are_refused_in_one_sentence_by_every_implementation(name):
    x, ids, time = jnp.zeros((1, 2, 1, 2)), jnp.ones((1, 2), int), jnp.zeros((1, 2), int)
    arguments = {"segment_ids": ids, "times": time, "key_segment_ids": ids, "key_times": time}
    arguments |= {name: ids.astype(bool), "no_history": jnp.zeros((1, 2))}
    for implementation in ("auto", "plain", "chunked"):
        with as_installed(), raises_one_sentence(f"{name} must be integers", "bool"):
            strictly_causal_attention(x, x, x, implementation=implementation, **arguments)
