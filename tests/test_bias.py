"""Attention biases and intervals: values and gradients against plain loops, and buckets exact at every edge."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from one_sentence import as_installed, raises_one_sentence

from siren_rope_jax.ops.attention import RelativeEmbedding, strictly_causal_attention
from siren_rope_jax.ops.bias import (
    alibi_bias,
    alibi_slopes,
    hstu_bias,
    log_time_buckets,
    t5_bias,
    t5_buckets,
)
from siren_rope_jax.ops.intervals import interval_buckets

variant = pytest.mark.parametrize("variant", [lambda function: function, jax.jit], ids=["eager", "jit"])
LARGEST = 2**31 - 1
BUCKETS, MAX_DISTANCE = 8, 12  # of T5's table here: small, so that short rows reach every bucket


def reference_t5_bucket(distance, buckets, max_distance):
    exact = buckets // 2
    if distance < exact:
        return max(distance, 0)
    log = math.log(distance / exact) / math.log(max_distance / exact)
    return min(exact + math.floor(log * (buckets - exact)), buckets - 1)


def reference_log_time_bucket(seconds, buckets):
    return min(math.floor(math.log(max(abs(int(seconds)), 1)) / 0.301), buckets - 1)


def reference_bias(query, key, entries, cotangent):
    """A bias that adds up weight * parameter[index] over `entries`, and the gradients of the parameters."""
    result, gradients = np.zeros(cotangent.shape), {}
    query, key = ([np.asarray(x).tolist() for x in side] for side in (query, key))
    for row, n, i, j in np.ndindex(*cotangent.shape):
        for name, parameter, index, weight in entries(n, *(x[row][i] for x in query), *(x[row][j] for x in key)):
            result[row, n, i, j] += weight * np.float64(parameter[index])
            gradients.setdefault(name, np.zeros(parameter.shape))[index] += weight * cotangent[row, n, i, j]
    return result, gradients


def alibi_entries(parameters, n, p_query, _, p_key, __):
    yield "slopes", parameters["slopes"], (n,), -(p_query - p_key)


def t5_entries(parameters, n, p_query, _, p_key, __):
    yield "table", parameters["table"], (reference_t5_bucket(p_query - p_key, BUCKETS, MAX_DISTANCE), n), 1


def hstu_entries(parameters, _, p_query, t_query, p_key, t_key):
    by_position, by_time = parameters["position_table"], parameters["time_table"]
    yield "position_table", by_position, (max(min(p_query - p_key, by_position.size - 1), 0),), 1
    yield "time_table", by_time, (reference_log_time_bucket(t_query - t_key, by_time.size),), 1


def alibi(parameters, rows, key_rows=None):
    return alibi_bias(rows[0], **parameters, key_positions=key_rows and key_rows[0])


def t5(parameters, rows, key_rows=None):
    return t5_bias(rows[0], **parameters, max_distance=MAX_DISTANCE, key_positions=key_rows and key_rows[0])


def hstu(parameters, rows, key_rows=None):
    key_positions, key_times = key_rows or (None, None)
    return hstu_bias(*rows, **parameters, key_positions=key_positions, key_times=key_times)


MAKERS = {"alibi": (alibi, alibi_entries), "t5": (t5, t5_entries), "hstu": (hstu, hstu_entries)}
makers = pytest.mark.parametrize("name", MAKERS)


def layout(seed, batch, length):
    """Positions and times of packed segments, and their ids: some end in padding, some events share a time."""
    generator = np.random.default_rng(seed)
    positions, times, segment_ids = np.zeros((3, batch, length), np.int32)
    for row in range(batch):
        start, segment = 0, 1
        while start < length:
            end = min(start + int(generator.integers(1, 12)), length)
            positions[row, start:end] = np.arange(end - start)
            steps = generator.choice([0, 1, 7, 60, 3_600, 86_400, 3_000_000], end - start)
            times[row, start:end] = generator.integers(1_600_000_000, 1_700_000_000) + np.cumsum(steps)
            segment_ids[row, start:end] = 0 if end == length and generator.random() < 0.5 else segment
            start, segment = end, segment + 1
    return tuple(jnp.asarray(x) for x in (positions, times, segment_ids))


def parameters_of(name, seed=0, heads=3):
    shapes = {
        "alibi": {"slopes": (heads,)},
        "t5": {"table": (BUCKETS, heads)},
        "hstu": {"position_table": (6,), "time_table": (40,)},
    }
    generator = np.random.default_rng(seed)
    return {key: jnp.asarray(generator.normal(size=shape), jnp.float32) for key, shape in shapes[name].items()}


def whole(bias, length):
    return bias(jnp.arange(length), jnp.arange(length))


@functools.cache
def edge_cases(edges):
    """All integers to 10,000, and all near each edge, to 2^31 - 1."""
    near = np.asarray([math.floor(edge) + offset for edge in edges for offset in range(-3, 5)], np.int64)
    return np.unique(np.clip(np.concatenate([np.arange(10_001), near, [LARGEST - 1, LARGEST]]), 0, LARGEST))


def test_slopes_of_a_power_of_two_of_heads_are_exactly_geometric():
    chex.assert_trees_all_equal(alibi_slopes(8), np.float32([2.0**-i for i in range(1, 9)]))
    chex.assert_trees_all_equal(alibi_slopes(1), np.float32([2**-8]))
    chex.assert_trees_all_close(alibi_slopes(16), np.float32([2 ** (-i / 2) for i in range(1, 17)]), rtol=1e-7)
    chex.assert_type(alibi_slopes(8), jnp.float32)


@pytest.mark.parametrize("heads", [3, 6, 12, 20])
def test_slopes_of_other_counts_go_on_with_every_second_slope_of_the_doubled_count(heads):
    power = 2 ** math.floor(math.log2(heads))
    expected = np.concatenate([alibi_slopes(power), alibi_slopes(2 * power)[0::2][: heads - power]])
    chex.assert_trees_all_equal(alibi_slopes(heads), expected)


@pytest.mark.slow
@variant
@pytest.mark.parametrize(
    ("buckets", "max_distance"),
    [(32, 128), (32, 256), (64, 1024), (2, 2), (3, 7), (9, 5), (33, 100_000), (128, LARGEST), (400, 203)],
)
def test_t5_buckets_are_those_of_float64_at_every_edge(buckets, max_distance, variant):
    exact, steps = buckets // 2, buckets - buckets // 2
    edges = tuple(exact * (max_distance / exact) ** (k / steps) for k in range(steps + 1))
    distances = edge_cases(edges)
    function = variant(functools.partial(t5_buckets, buckets=buckets, max_distance=max_distance))
    result = function(jnp.asarray(distances, jnp.int32))
    chex.assert_type(result, jnp.int32)
    expected = [reference_t5_bucket(int(distance), buckets, max_distance) for distance in distances]
    chex.assert_trees_all_equal(result, np.int32(expected))


@pytest.mark.slow
def test_t5_buckets_of_negative_distances_are_zero():
    chex.assert_trees_all_equal(t5_buckets(jnp.asarray([-(2**31), -1000, -16, -1, 0])), np.zeros(5, np.int32))
    chex.assert_trees_all_equal(t5_buckets(jnp.asarray([-128, 127], jnp.int8)), np.int32([0, 31]))


@pytest.mark.slow
@variant
@pytest.mark.parametrize("buckets", [129, 72, 20, 1])
def test_log_time_buckets_are_those_of_float64_at_every_edge(buckets, variant):
    seconds = edge_cases(tuple(math.exp(0.301 * bucket) for bucket in range(72)))
    expected = np.int32([reference_log_time_bucket(second, buckets) for second in seconds])
    function = variant(functools.partial(log_time_buckets, buckets=buckets))
    chex.assert_trees_all_equal(function(jnp.asarray(seconds, jnp.int32)), expected)
    chex.assert_trees_all_equal(function(jnp.asarray(-seconds, jnp.int32)), expected)


@pytest.mark.slow
def test_log_time_buckets_are_exact_for_unsigned_differences_beyond_68_years():
    edges = [math.floor(math.exp(0.301 * bucket)) for bucket in range(70, 74)]
    seconds = np.asarray([edge + offset for edge in edges for offset in range(-3, 4)] + [2**31, 2**32 - 1])
    expected = np.int32([reference_log_time_bucket(second, 129) for second in seconds])
    chex.assert_trees_all_equal(log_time_buckets(jnp.asarray(seconds, jnp.uint32)), expected)
    chex.assert_trees_all_equal(log_time_buckets(jnp.asarray([-(2**31)])), np.int32([71]))


def check_values_and_gradients(name, seed, batch, length, heads, key_length, variant):
    make, entries = MAKERS[name]
    rows = layout(seed, batch, length)[:2]
    key_rows = None if key_length is None else layout(seed + 1, batch, key_length)[:2]
    parameters = parameters_of(name, seed, heads)
    slots = jnp.arange(length), jnp.arange(length if key_length is None else key_length)

    def bias_and_gradients(parameters, cotangent):
        bias, pull_back = jax.vjp(lambda parameters: make(parameters, rows, key_rows)(*slots), parameters)
        return bias, pull_back(cotangent)[0]

    shape = (batch, 1 if name == "hstu" else heads, length, slots[1].size)
    cotangent = np.random.default_rng(seed).normal(size=shape)
    result, of_parameters = variant(bias_and_gradients)(parameters, jnp.asarray(cotangent, jnp.float32))
    expected, gradients = reference_bias(
        rows, key_rows or rows, functools.partial(entries, jax.device_get(parameters)), cotangent
    )
    chex.assert_trees_all_close(result, np.float32(expected), rtol=1e-6, atol=1e-6)
    assert set(gradients) == set(parameters)
    for key, gradient in gradients.items():
        chex.assert_trees_all_close(of_parameters[key], np.float32(gradient), rtol=1e-5, atol=1e-4)


@pytest.mark.slow
@variant
@makers
@pytest.mark.parametrize("key_length", [None, 17], ids=["self", "cross"])
def test_bias_and_its_gradients_equal_plain_loops(name, key_length, variant):
    check_values_and_gradients(name, 0, 2, 20, 3, key_length, variant)


@pytest.mark.slow
@settings(max_examples=8)
@given(
    st.sampled_from(sorted(MAKERS)),
    st.integers(0, 2**32 - 2),
    st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 4)),
    st.none() | st.integers(1, 12),
)
def test_bias_and_its_gradients_equal_plain_loops_for_every_shape(name, seed, shape, key_length):
    check_values_and_gradients(name, seed, *shape, key_length, jax.jit)


@pytest.mark.slow
@makers
def test_block_of_a_bias_is_the_slice_of_the_whole(name):
    positions, times, _ = layout(1, 2, 24)
    bias = MAKERS[name][0](parameters_of(name), (positions, times))
    expected = whole(bias, 24)
    for rows, columns in (([3, 4, 5], range(24)), (range(24), [23, 0]), ([20, 2, 11], [1, 1, 7, 22])):
        rows, columns = jnp.asarray(rows), jnp.asarray(columns)
        block = jax.jit(bias)(rows, columns)
        chex.assert_trees_all_equal(block, expected[:, :, rows][:, :, :, columns], strict=True)


@pytest.mark.slow
@makers
def test_block_of_a_bias_never_builds_the_whole(name):
    positions, times, _ = layout(2, 2, 61)
    bias = MAKERS[name][0](parameters_of(name), (positions, times))
    assert "61x61" in jax.jit(bias).lower(jnp.arange(61), jnp.arange(61)).as_text()
    assert "61x61" not in jax.jit(bias).lower(jnp.arange(4), jnp.arange(61)).as_text()


@pytest.mark.slow
@makers
def test_gradients_through_checkpointed_blocks_are_those_of_the_whole(name):
    make, (positions, times, _) = MAKERS[name][0], layout(3, 2, 24)
    cotangent = jnp.asarray(np.random.default_rng(0).normal(size=(24, 2, 3, 24)), jnp.float32)

    def total(parameters, blocks):
        bias = make(parameters, (positions, times))

        @jax.checkpoint
        def one_block(rows):
            return jnp.sum(jnp.moveaxis(bias(rows, jnp.arange(24)), 2, 0) * cotangent[rows])

        return jnp.sum(jax.lax.map(one_block, jnp.arange(24).reshape(blocks, -1)))

    dense, chunked = (jax.jit(jax.grad(total), static_argnums=1)(parameters_of(name), blocks) for blocks in (1, 6))
    chex.assert_trees_all_close(chunked, dense, rtol=1e-5, atol=1e-4)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(dense))


@pytest.mark.slow
@makers
def test_one_number_added_to_all_positions_or_times_changes_no_bias(name):
    make, (positions, times, _) = MAKERS[name][0], layout(4, 2, 24)
    at_home = whole(make(parameters_of(name), (positions, times)), 24)
    moved = whole(make(parameters_of(name), (positions + 100_000, times - 1_234_567_890)), 24)
    chex.assert_trees_all_equal(moved, at_home, strict=True)


@pytest.mark.slow
@makers
def test_queries_of_another_sequence_read_their_own_positions_and_times(name):
    make, rows = MAKERS[name][0], layout(5, 2, 24)[:2]
    requests = tuple(x[:, 20:] for x in rows)
    result = make(parameters_of(name), requests, rows)(jnp.arange(4), jnp.arange(24))
    expected = whole(make(parameters_of(name), rows), 24)[:, :, 20:]
    chex.assert_trees_all_equal(result, expected, strict=True)


@pytest.mark.slow
@makers
def test_bias_of_bfloat16_parameters_and_int8_positions_is_float32(name):
    make, (_, times, _) = MAKERS[name][0], layout(6, 1, 3)
    parameters = jax.tree.map(lambda x: x.astype(jnp.bfloat16), parameters_of(name))
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), parameters)
    positions = jnp.asarray([[-100, 0, 127]], jnp.int8)
    result = whole(make(parameters, (positions, times)), 3)
    chex.assert_trees_all_equal(result, whole(make(wide, (positions.astype(jnp.int32), times)), 3), strict=True)


@pytest.mark.slow
def test_hstu_tells_the_ends_of_int32_time_apart():
    times = jnp.asarray([[-(2**31), 0, LARGEST]], jnp.int32)
    by_time = jnp.arange(129, dtype=jnp.float32)
    result = whole(hstu_bias(jnp.zeros_like(times), times, jnp.zeros(1), by_time), 3)
    expected = [[reference_log_time_bucket(a - b, 129) for b in times[0].tolist()] for a in times[0].tolist()]
    chex.assert_trees_all_equal(result[0, 0], np.float32(expected))


def reference_intervals(times, segment_ids, max_interval):
    """Intervals between events; -1 where one of the two is padding, which nobody asks for."""
    times, segment_ids = np.asarray(times, np.int64), np.asarray(segment_ids)
    result = np.full((*times.shape, times.shape[1]), -1)
    for row, i, j in np.ndindex(result.shape):
        if segment_ids[row, i] != 0 and segment_ids[row, j] != 0:
            so_far = times[row, : i + 1][segment_ids[row, : i + 1] == segment_ids[row, i]]
            gap = min((step for step in np.diff(so_far) if step), default=1)
            result[row, i, j] = min(abs(times[row, i] - times[row, j]) // gap, max_interval)
    return result


@pytest.mark.slow
@variant
@pytest.mark.parametrize("max_interval", [50, LARGEST])
def test_intervals_equal_plain_loops_with_padding_anywhere(max_interval, variant):
    _, times, segment_ids = layout(7, 3, 24)
    segment_ids = jnp.where(jnp.asarray(np.random.default_rng(8).random((3, 24)) < 0.2), 0, segment_ids)
    intervals = interval_buckets(times, segment_ids, max_interval=max_interval)
    result = variant(intervals)(jnp.arange(24), jnp.arange(24))
    chex.assert_type(result, jnp.int32)
    expected = reference_intervals(times, segment_ids, max_interval)
    chex.assert_trees_all_equal(np.where(expected < 0, -1, result), expected)
    rows, columns = np.asarray([5, 17]), np.asarray([4, 0, 16])
    block = variant(intervals)(jnp.asarray(rows), jnp.asarray(columns))
    chex.assert_trees_all_equal(block, np.asarray(result)[:, rows][:, :, columns])


def test_intervals_use_the_gaps_so_far_and_one_second_before_any():
    times = jnp.asarray([[50, 50, 170, 180, 480]])
    result = whole(interval_buckets(times, jnp.ones_like(times), max_interval=20), 5)
    expected = [[0, 0, 20, 20, 20], [0, 0, 20, 20, 20], [1, 1, 0, 0, 2], [13, 13, 1, 0, 20], [20, 20, 20, 20, 0]]
    chex.assert_trees_all_equal(result[0], np.int32(expected))


@pytest.mark.slow
@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 6, 15]))
def test_later_events_change_no_interval(seed, length):
    _, times, segment_ids = layout(seed, 2, 16)
    full = whole(interval_buckets(times, segment_ids, max_interval=64), 16)
    prefix = whole(interval_buckets(times[:, :length], segment_ids[:, :length], max_interval=64), length)
    chex.assert_trees_all_equal(prefix, np.asarray(full)[:, :length, :length])


@pytest.mark.slow
def test_packed_segments_have_the_intervals_that_each_has_alone():
    times = layout(8, 3, 8)[1]
    packed = interval_buckets(times.reshape(1, 24), jnp.repeat(jnp.asarray([[4, 1, 7]]), 8, axis=1), max_interval=64)
    alone = interval_buckets(times, jnp.ones((3, 8), jnp.int32), max_interval=64)
    diagonal = np.asarray(whole(packed, 24)).reshape(3, 8, 3, 8)[range(3), :, range(3)]
    chex.assert_trees_all_equal(diagonal, np.asarray(whole(alone, 8)))


@pytest.mark.slow
def test_one_number_added_to_all_times_changes_no_interval_even_at_the_ends_of_int32():
    _, times, segment_ids = layout(9, 2, 24)
    at_home, moved = (
        whole(interval_buckets(x, segment_ids, max_interval=64), 24) for x in (times, times - 1_234_567_890)
    )
    chex.assert_trees_all_equal(moved, at_home, strict=True)
    ends = jnp.asarray([[-(2**31), LARGEST]])
    result = whole(interval_buckets(ends, jnp.ones_like(ends), max_interval=LARGEST), 2)
    chex.assert_trees_all_equal(result[0], np.int32([[0, LARGEST], [1, 0]]))


POSITIONS, TIMES, SEGMENTS = layout(0, 2, 5)
TABLE, VECTOR = jnp.zeros((8, 3)), jnp.zeros(4)


@pytest.mark.parametrize("heads", [0, -2])
def test_too_few_heads_are_refused_in_one_sentence(heads):
    with raises_one_sentence("heads must be a whole number of at least 1", heads):
        alibi_slopes(heads)


@pytest.mark.parametrize(
    "make",
    [
        lambda positions, **keys: alibi_bias(positions, VECTOR, **keys),
        lambda positions, **keys: t5_bias(positions, TABLE, **keys),
        lambda positions, **keys: hstu_bias(
            positions, TIMES, VECTOR, VECTOR, **keys, **({"key_times": TIMES} if keys else {})
        ),
    ],
    ids=MAKERS,
)
def test_positions_that_are_no_rows_of_integers_or_do_not_fit_are_refused_in_one_sentence(make):
    with raises_one_sentence("positions must be signed integers", "float32"):
        make(POSITIONS.astype(jnp.float32))
    with raises_one_sentence("positions must be signed integers", "uint32"):
        make(POSITIONS.astype(jnp.uint32))
    with raises_one_sentence("positions must have shape [B, S]", "(5,)"):
        make(POSITIONS[0])
    with raises_one_sentence("key_positions must be signed integers", "float32"):
        make(POSITIONS, key_positions=POSITIONS.astype(jnp.float32))
    with raises_one_sentence("key_positions must have shape (2, 5)", "(1, 5)"):
        make(POSITIONS, key_positions=POSITIONS[:1])


def test_times_that_are_no_integers_or_do_not_fit_are_refused_in_one_sentence():
    with raises_one_sentence("times must be signed integers", "float32"):
        hstu_bias(POSITIONS, TIMES.astype(jnp.float32), VECTOR, VECTOR)
    with raises_one_sentence("times must have shape (2, 5)", "(2, 4)"):
        hstu_bias(POSITIONS, TIMES[:, :4], VECTOR, VECTOR)
    with raises_one_sentence("key_times must have shape (2, 3)", "(2, 5)"):
        hstu_bias(POSITIONS, TIMES, VECTOR, VECTOR, key_positions=POSITIONS[:, :3], key_times=TIMES)
    with raises_one_sentence("times must be signed integers", "float32"):
        interval_buckets(TIMES.astype(jnp.float32), SEGMENTS, max_interval=3)
    with raises_one_sentence("segment_ids must have shape (2, 5)", "(2, 4)"):
        interval_buckets(TIMES, SEGMENTS[:, :4], max_interval=3)


def test_tables_of_the_wrong_shape_are_refused_in_one_sentence():
    with raises_one_sentence("slopes", "[N]", "(8, 3)"):
        alibi_bias(POSITIONS, TABLE)
    with raises_one_sentence("table", "[M, N]", "(4,)"):
        t5_bias(POSITIONS, VECTOR)
    with raises_one_sentence("position_table", "[P]", "not be empty", "(0,)"):
        hstu_bias(POSITIONS, TIMES, jnp.zeros(0), VECTOR)
    with raises_one_sentence("time_table", "[M]", "(8, 3)"):
        hstu_bias(POSITIONS, TIMES, VECTOR, TABLE)


def test_sizes_out_of_their_range_are_refused_in_one_sentence():
    with raises_one_sentence("buckets must be a whole number of at least 2", "1"):
        t5_buckets(POSITIONS, buckets=1)
    with raises_one_sentence("buckets must be a whole number of at least 2", "1"):
        t5_bias(POSITIONS, TABLE[:1])
    with raises_one_sentence("max_distance must be a whole number of at least 17", "16"):
        t5_buckets(POSITIONS, max_distance=16)
    with raises_one_sentence("max_distance must be a whole number of at least 5", "-1"):
        t5_bias(POSITIONS, TABLE, max_distance=-1)
    with raises_one_sentence("max_distance must be a whole number of at least 17 and at most 2147483647", 2**31):
        t5_buckets(POSITIONS, max_distance=2**31)
    with raises_one_sentence("buckets must be a whole number of at least 1", "0"):
        log_time_buckets(TIMES, buckets=0)
    for max_interval in (0, 2**31):
        with raises_one_sentence("max_interval must be a whole number of at least 1", max_interval):
            interval_buckets(TIMES, SEGMENTS, max_interval=max_interval)


def test_distances_and_seconds_that_are_no_integers_are_refused_in_one_sentence():
    with raises_one_sentence("distance must be signed integers", "float32"):
        t5_buckets(jnp.zeros(3))
    with raises_one_sentence("seconds must be integers", "float32"):
        log_time_buckets(jnp.zeros(3))


@pytest.mark.slow
def test_a_bias_that_does_not_know_the_keys_of_another_sequence_is_refused_in_one_sentence():
    queries, keys = jnp.arange(5), jnp.arange(7)
    biases = [
        alibi_bias(POSITIONS, VECTOR),
        t5_bias(POSITIONS, TABLE),
        hstu_bias(POSITIONS, TIMES, VECTOR, VECTOR),
        interval_buckets(TIMES, SEGMENTS, max_interval=3),
    ]
    for bias in biases:
        with raises_one_sentence("knows 5 of 7", "key_positions and key_times"):
            bias(queries, keys)
        with raises_one_sentence("knows 5 of 7"):
            bias(keys, queries)


def test_half_a_key_side_is_refused_in_one_sentence():
    with raises_one_sentence("key_positions and key_times must be given together", "only key_times"):
        hstu_bias(POSITIONS, TIMES, VECTOR, VECTOR, key_times=TIMES)
    with raises_one_sentence("key_times and key_segment_ids must be given together", "only key_segment_ids"):
        interval_buckets(TIMES, SEGMENTS, max_interval=3, key_segment_ids=SEGMENTS)


@pytest.mark.slow
@pytest.mark.parametrize("implementation", ["auto", "plain", "chunked"])
def test_attention_refuses_biases_and_intervals_of_other_slots(implementation):
    """Such as those of a whole history for its newest query: they would read the first slot's position."""
    query, key = jnp.ones((2, 1, 3, 4)), jnp.ones((2, 5, 3, 4))
    layout = {"segment_ids": SEGMENTS[:, -1:], "times": TIMES[:, -1:] + 1}
    layout |= {"key_segment_ids": SEGMENTS, "key_times": TIMES, "no_history": jnp.zeros((3, 4))}
    attend = functools.partial(strictly_causal_attention, query, key, key, **layout, implementation=implementation)
    whole_row = {"alibi": alibi_bias(POSITIONS, VECTOR[:3]), "t5": t5_bias(POSITIONS, TABLE)}
    for bias in (*whole_row.values(), whole_row["alibi"] + whole_row["t5"]):
        with raises_one_sentence("bias must be built for the 1 queries and 5 keys", "5 and 5"):
            attend(bias=bias)
    tables = jnp.zeros((4, 3, 4)), jnp.zeros((4, 3, 4))
    with raises_one_sentence("relative.buckets must be built for the 1 queries and 5 keys", "5 and 5"):
        attend(relative=RelativeEmbedding(interval_buckets(TIMES, SEGMENTS, max_interval=3), *tables))
    fitting = t5_bias(POSITIONS[:, -1:], TABLE, key_positions=POSITIONS)
    assert attend(bias=fitting).shape == query.shape


def test_the_sum_of_biases_is_the_bias_of_the_sums():
    alibi, t5 = alibi_bias(POSITIONS, VECTOR[:3] + 1), t5_bias(POSITIONS, TABLE + 2)
    chex.assert_trees_all_equal(whole(alibi + t5, 5), whole(alibi, 5) + whole(t5, 5))
    with raises_one_sentence("same queries and keys", "(5, 5)", "(4, 4)"):
        _ = alibi + t5_bias(POSITIONS[:, :4], TABLE)


def test_python_adds_biases_up_and_refuses_to_add_what_is_none_in_one_sentence():
    alibi, t5 = alibi_bias(POSITIONS, VECTOR[:3] + 1), t5_bias(POSITIONS, TABLE + 2)
    chex.assert_trees_all_equal(whole(sum([alibi, t5]), 5), whole(alibi + t5, 5))
    for other in (lambda rows, columns: 0.0, 1, None):
        with raises_one_sentence("a bias must be added to another OfSlots", type(other).__name__):
            _ = alibi + other
        with raises_one_sentence("a bias must be added to another OfSlots", type(other).__name__):
            _ = other + alibi


@pytest.mark.slow
@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1))
def test_a_request_to_a_history_has_the_intervals_of_its_event_in_it(seed):
    """For every event that it sees, with padding between events and several of one second."""
    _, times, segment_ids = layout(seed, 2, 24)
    segment_ids = jnp.where(jnp.asarray(np.random.default_rng(seed).random((2, 24)) < 0.2), 0, segment_ids)
    inside = whole(interval_buckets(times, segment_ids, max_interval=64), 24)
    asked = interval_buckets(
        times[:, ::-1], segment_ids[:, ::-1], max_interval=64, key_times=times, key_segment_ids=segment_ids
    )
    requested = whole(asked, 24)[:, ::-1]
    seen = (segment_ids[:, :, None] == segment_ids[:, None]) & (segment_ids != 0)[:, :, None]
    seen &= times[:, :, None] > times[:, None]
    chex.assert_trees_all_equal(np.where(seen, requested, -1), np.where(seen, inside, -1))


@pytest.mark.slow
def test_a_request_without_earlier_events_has_intervals_of_whole_seconds():
    times = jnp.asarray([[5, 9]])
    stranger = interval_buckets(
        times, jnp.ones_like(times), max_interval=64, key_times=times[:, :1], key_segment_ids=jnp.full((1, 1), 2)
    )
    chex.assert_trees_all_equal(stranger(jnp.arange(2), jnp.arange(1)), np.int32([[[0], [4]]]))


def test_times_of_numpy_that_do_not_fit_are_refused_in_one_sentence():
    with raises_one_sentence("seconds must fit int32", 2**33):
        log_time_buckets(np.array([2**33]))
    with raises_one_sentence("times must fit int32", 1_700_000_000_000):
        hstu_bias(POSITIONS, np.full((2, 5), 1_700_000_000_000), VECTOR, VECTOR)


@pytest.mark.slow
def test_arrays_of_numpy_may_be_closed_over_under_jit():
    positions, times, segment_ids = (np.asarray(x) for x in (POSITIONS, TIMES, SEGMENTS))
    table, vector = np.ones((8, 3), np.float32), np.ones(4, np.float32)
    for make in (
        lambda: alibi_bias(positions, vector),
        lambda: t5_bias(positions, table),
        lambda: hstu_bias(positions, times, vector, vector),
        lambda: interval_buckets(times, segment_ids, max_interval=3),
    ):
        slots = jnp.arange(5)
        with as_installed():
            compiled, eager = jax.jit(lambda rows, make=make: make()(rows, rows))(slots), make()(slots, slots)
        chex.assert_trees_all_equal(compiled, eager)
