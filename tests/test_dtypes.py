"""Numbers of other types: widened without loss, or refused in one sentence; and JAX's strict modes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from one_sentence import as_installed, raises_one_sentence

from siren_rope_jax import ops

FIXED = {"no_history": jnp.full((1, 2), 9.0)}
SEGMENT = jnp.ones((1, 4), int)


@pytest.fixture(autouse=True)
def without_type_checks():
    """As a user has the package, who passes arrays of NumPy."""
    with as_installed():
        yield


def attend(times, key_times, segment_ids=SEGMENT[:, :1], key_segment_ids=SEGMENT):
    query, key = jnp.ones((1, 1, 1, 2)), jnp.ones((1, 4, 1, 2))
    return ops.strictly_causal_attention(
        query,
        key,
        key,
        segment_ids=segment_ids,
        times=times,
        key_segment_ids=key_segment_ids,
        key_times=key_times,
        **FIXED,
    )


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
def test_times_and_segments_of_any_integers_are_read_alike(dtype):
    times, key_times = np.array([[100]], dtype), np.array([[1, 2, 99, 100]], dtype)
    ids = np.ones((1, 4), dtype)
    np.testing.assert_array_equal(attend(times, key_times, ids[:, :1], ids), 1)
    np.testing.assert_array_equal(attend(times, np.arange(4, dtype=np.int32)[None], SEGMENT[:, :1], ids), 1)


@pytest.mark.parametrize("name", ["times", "segment_ids"])
@pytest.mark.parametrize("on_device", [False, True])
def test_unsigned_numbers_that_do_not_fit_are_refused(name, on_device):
    large = np.array([[3_000_000_000]], np.uint32)
    large = jnp.asarray(large) if on_device else large
    small = np.arange(4, dtype=np.int32)[None]
    arguments = {"times": jnp.ones((1, 1), int), "key_times": small, name: large}
    with raises_one_sentence(f"{name} must fit int32"):
        attend(**arguments)


def test_times_beyond_the_calendar_are_refused_in_every_type():
    for time in (np.array([2**64 - 1], np.uint64), np.array([2**63 - 1]), np.array([-(2**63)])):
        with raises_one_sentence("time must lie in the years 1 to 9999"):
            ops.split_unix_time(time)
    with raises_one_sentence("utc_offset must be within a day"):
        ops.split_unix_time(np.array([0]), utc_offset=np.array([-(2**63)]))
    with raises_one_sentence("time_zone must be an IANA zone"):
        ops.split_unix_time(np.array([0]), time_zone=(1, [2]))
    with raises_one_sentence('unit must be "s" or "ms"'):
        ops.split_unix_time(np.array([0]), unit=np.zeros((9, 9)))


def test_a_masked_array_is_refused_since_its_mask_would_be_dropped():
    masked = np.ma.array([[1_700_000_000, -1]], mask=[[False, True]])
    for call in (
        lambda: ops.split_unix_time(masked),
        lambda: ops.calendar_features(masked, masked, start_day=0, span_days=1.0),
        lambda: ops.ordinal_angles(masked, jnp.ones(2)),
        lambda: ops.alibi_bias(masked, jnp.ones(1)),
        lambda: ops.apply_rotary(np.ma.array(np.ones((1, 2))), jnp.ones(1)),
        lambda: attend(masked[:, :1], SEGMENT),
    ):
        with raises_one_sentence("without a mask, but is masked: fill it first"):
            call()


def test_calendar_features_saturate_at_the_end_of_any_day():
    days = np.array([2**31 - 1, -(2**31), 0], np.int32)
    for start in (-1, 2**31 - 1, -(2**31)):
        features = ops.calendar_features(days, np.zeros(3, np.int32), start_day=start, span_days=1e3)
        expected = np.clip((days.astype(np.float64) - start) * 2e-3 - 1, -1, 1)
        np.testing.assert_allclose(features[:, 4], expected, atol=1e-6)
    with raises_one_sentence("day must fit int32"):
        ops.calendar_features(np.array([4 * 10**9], np.uint32), np.array([0]), start_day=0, span_days=1.0)


def test_numbers_beside_positions_are_refused_in_16_bits():
    with raises_one_sentence("coordinates must be integers or floats of at least 32 bits"):
        ops.lie_rotations(jnp.array([[257.0]], jnp.bfloat16), jnp.ones((1, 1, 1)))


def test_sums_of_biases_and_intervals_are_known_again_by_a_compiled_function():
    positions, traces = jnp.arange(4)[None], 0

    @jax.jit
    def block(bias, intervals):
        nonlocal traces
        traces += 1
        return bias(jnp.arange(4), jnp.arange(4)).sum() + intervals(jnp.arange(4), jnp.arange(4)).sum()

    for _ in range(3):
        bias = ops.alibi_bias(positions, jnp.ones(1)) + ops.t5_bias(positions, jnp.ones((4, 1)))
        block(bias, ops.interval_buckets(positions, positions + 1, max_interval=5))
    assert traces == 1
    block(bias, ops.interval_buckets(positions, positions + 1, max_interval=6))
    assert traces == 2
    either = jax.lax.cond(jnp.asarray(True), lambda: bias, lambda: jax.tree.map(lambda x: x + 0, bias))
    np.testing.assert_array_equal(either(jnp.arange(4), jnp.arange(4)), bias(jnp.arange(4), jnp.arange(4)))


@pytest.mark.parametrize("implementation", ["plain", "chunked"])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_attention_of_one_type_needs_no_promotion(implementation, dtype):
    array = jnp.ones((1, 5, 2, 4), dtype)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        bias = ops.alibi_bias(np.arange(5, dtype=np.int8)[None], jnp.ones(2, dtype))
        found = ops.strictly_causal_attention(
            array,
            array,
            array,
            segment_ids=np.ones((1, 5), np.uint8),
            no_history=jnp.zeros((2, 4), dtype),
            bias=bias,
            implementation=implementation,
            chunk=2,
        )
    assert found.dtype == dtype
    np.testing.assert_allclose(found[:, 1:].astype(jnp.float32), 1, atol=1e-6)


def test_rotations_and_angle_networks_of_16_bits_need_no_promotion():
    angles, x = jnp.ones((3, 2)), jnp.ones((3, 1, 4), jnp.bfloat16)
    sin, cos = ops.sincos(angles)
    params = ops.siren_init(jax.random.key(0), 3, 2, width=4)
    low = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        ops.siren_apply(low, jnp.ones((5, 3)))
        ops.apply_rotary(x, angles, scale=jnp.ones(2, jnp.bfloat16))
        ops.apply_rotary(x, angles, scale=np.full(2, 2))
        ops.rotate_pairs(x, sin.astype(jnp.bfloat16), cos.astype(jnp.bfloat16), angles=angles.astype(jnp.bfloat16))


def test_a_valid_length_makes_no_nan_on_the_way():
    rope = {
        "rope_type": "longrope",
        "short_factor": [1.0, 1.0],
        "long_factor": [2.0, 3.0],
        "original_max_position_embeddings": 16,
        "rope_theta": 1e4,
    }
    with jax.debug_nans(True):
        for length in (8, 32):
            ops.frequencies_at(jnp.arange(length), 4, rope, max_position_embeddings=64)


@pytest.mark.parametrize(
    ("function", "arrays", "said"),
    [
        (lambda arrays, rows, columns: arrays, 0.5, "array 0 of bias must be an array, but is of type"),
        (lambda arrays, rows, columns: arrays, [0.5, 0.3], "array 0 of bias must be an array"),
        (lambda rows, columns: rows, jnp.ones(1), "bias must take its arrays, query slots and key"),
        (None, jnp.ones(1), "bias must be a function of query slots and key slots, but is a None"),
    ],
)
@pytest.mark.parametrize("implementation", ["plain", "chunked"])
def test_a_function_of_slots_that_is_none_is_refused(function, arrays, said, implementation):
    array = jnp.ones((1, 4, 1, 2))
    with raises_one_sentence(said):
        bias = ops.OfSlots(function, arrays, 4, 4)
        ops.strictly_causal_attention(
            array, array, array, segment_ids=SEGMENT, **FIXED, bias=bias, implementation=implementation
        )


def test_other_arguments_from_inside_jax_are_refused_in_one_sentence():
    empty = jnp.ones((1, 4, 1, 0))
    with raises_one_sentence("query, key and value must have one shape"):
        ops.strictly_causal_attention(empty, empty, empty, segment_ids=SEGMENT, no_history=jnp.ones((1, 0)))
    with raises_one_sentence("angles must be floating-point numbers, but are int32"):
        ops.rotate_pairs(jnp.ones((3, 1, 4)), jnp.ones((3, 2)), jnp.ones((3, 2)), angles=jnp.ones((3, 2), jnp.int32))
    for key in (None, 3, jnp.ones(2), jax.random.split(jax.random.key(0))):
        with raises_one_sentence("key must be one typed PRNG key"):
            ops.siren_init(key, 3, 2)
    array = jnp.ones((1, 4, 1, 2))
    with raises_one_sentence("scale must be a finite number, but is 1000"):
        ops.strictly_causal_attention(array, array, array, segment_ids=SEGMENT, **FIXED, scale=10**400)
