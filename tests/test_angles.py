"""Angles of ordinal RoPE, TO-RoPE and SIREN-RoPE, and what each reduces to."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from one_sentence import raises_one_sentence

from siren_rope_jax.ops import (
    apply_rotary,
    calendar_features,
    inverse_frequencies,
    ordinal_angles,
    siren_init,
    siren_rope_angles,
    time_order_angles,
)

FREQUENCIES = inverse_frequencies(8)
THETA = reference.inverse_frequencies(8, 10_000.0)
POSITIONS = jnp.asarray(np.tile(np.arange(12), (2, 1)), jnp.int32)
DAYS = jnp.asarray(np.sort(np.random.default_rng(0).integers(0, 16 * 400, (2, 12)), axis=1) / 16, jnp.float32)
variant = pytest.mark.parametrize("variant", [lambda function: function, jax.jit], ids=["eager", "jit"])


def siren_case():
    generator = np.random.default_rng(1)
    second = jnp.asarray(generator.integers(0, 86_400, (2, 12)), jnp.int32)
    features = calendar_features(DAYS.astype(jnp.int32), second, start_day=0, span_days=400.0)
    return siren_init(jax.random.key(0), 5, 4, width=16), features


@variant
def test_ordinal_angles_are_position_times_frequency(variant):
    positions = jnp.asarray([0, 1, 2, 4095, 100_000], jnp.int32)
    result = variant(ordinal_angles)(positions, FREQUENCIES)
    chex.assert_type(result, jnp.float32)
    chex.assert_trees_all_close(result, np.outer(positions, THETA), rtol=2e-7)


def test_positions_may_be_fractions_of_any_shape():
    positions = jnp.asarray([[[0.5, -2.25]]])
    result = ordinal_angles(positions, FREQUENCIES)
    chex.assert_trees_all_close(result, np.asarray(positions)[..., None] * THETA, rtol=2e-7)


@variant
def test_time_order_angles_mix_order_and_days_on_every_pair(variant):
    result = variant(time_order_angles)(POSITIONS, DAYS, FREQUENCIES, position_scale=0.7, time_scale=0.03)
    chex.assert_type(result, jnp.float32)
    expected = (0.7 * np.float64(POSITIONS) + 0.03 * np.float64(DAYS))[..., None] * THETA
    chex.assert_trees_all_close(result, expected, rtol=5e-7)


def test_scales_per_pair_split_order_and_time_by_dimension():
    order_only = jnp.asarray([1.0, 1.0, 0.0, 0.0])
    result = time_order_angles(POSITIONS, DAYS, FREQUENCIES, position_scale=order_only, time_scale=1 - order_only)
    chex.assert_trees_all_equal(result[..., :2], ordinal_angles(POSITIONS, FREQUENCIES)[..., :2], strict=True)
    chex.assert_trees_all_equal(result[..., 2:], ordinal_angles(DAYS, FREQUENCIES)[..., 2:], strict=True)


def test_time_order_with_time_scale_zero_is_ordinal_rope():
    result = time_order_angles(POSITIONS, DAYS, FREQUENCIES, time_scale=0.0)
    chex.assert_trees_all_equal(result, ordinal_angles(POSITIONS, FREQUENCIES), strict=True)


@variant
def test_siren_rope_with_scale_zero_and_gate_one_is_ordinal_rope(variant):
    params, features = siren_case()
    result = variant(siren_rope_angles)(POSITIONS, features, FREQUENCIES, params, scale=0.0, gate=1.0)
    chex.assert_trees_all_equal(result, ordinal_angles(POSITIONS, FREQUENCIES), strict=True)


@variant
def test_siren_rope_equals_its_equation_in_float64(variant):
    params, features = siren_case()
    scale = jnp.asarray([math.pi, 1.0, -2.0, 0.5], jnp.float32)
    result = variant(siren_rope_angles)(POSITIONS, features, FREQUENCIES, params, scale=scale, gate=jnp.asarray(0.044))
    chex.assert_type(result, jnp.float32)
    learned = reference.siren(params, features, 10.0) * np.float64(scale)
    expected = learned + 0.044 * np.float64(POSITIONS)[..., None] * THETA
    chex.assert_trees_all_close(result, expected, rtol=0, atol=1e-5)


def test_siren_rope_without_gate_ignores_the_order():
    params, features = siren_case()
    angles = [
        siren_rope_angles(positions, features, FREQUENCIES, params, scale=math.pi, gate=0.0)
        for positions in (POSITIONS, POSITIONS[:, ::-1])
    ]
    chex.assert_trees_all_equal(*angles, strict=True)


def test_gate_scale_and_network_are_trained_through_the_angles():
    params, features = siren_case()

    def total(params, scale, gate):
        angles = siren_rope_angles(POSITIONS, features, FREQUENCIES, params, scale=scale, gate=gate)
        return jnp.sum(jnp.sin(angles))

    gradients = jax.jit(jax.grad(total, argnums=(0, 1, 2)))(params, jnp.full(4, math.pi), jnp.asarray(1.0))
    chex.assert_tree_all_finite(gradients)
    for gradient in jax.tree.leaves(gradients):
        assert np.abs(gradient).max() > 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_new_values_and_outputs_fed_back_compile_nothing_anew(dtype):
    chex.clear_trace_counter()
    ordinal, time_order, siren, rotate = (
        jax.jit(chex.assert_max_traces(op, n=1))
        for op in (ordinal_angles, time_order_angles, siren_rope_angles, apply_rotary)
    )
    params, features = siren_case()
    x = jnp.ones((2, 12, 2, 8), dtype)
    for call in range(3):
        positions, scale = POSITIONS + call, 0.5 * call
        x = rotate(x, ordinal(positions, FREQUENCIES))
        x = rotate(x, time_order(positions, DAYS + call, FREQUENCIES, time_scale=scale))
        x = rotate(x, siren(positions, features + call, FREQUENCIES, params, scale=scale, gate=scale))
    with pytest.raises(AssertionError, match="'apply_rotary' is traced > 1 times"):
        rotate(x[:, :6], ordinal(POSITIONS, FREQUENCIES)[:, :6])


def rotated_logits(angles):
    generator = np.random.default_rng(2)
    query, key = (jnp.asarray(generator.normal(size=(2, 12, 2, 8)), jnp.float32) for _ in range(2))
    rotated = (np.float64(apply_rotary(x, angles)) for x in (query, key))
    return np.einsum("bind,bjnd->bnij", *rotated)


def test_moving_all_times_of_time_order_by_a_constant_leaves_the_logits():
    at_home = rotated_logits(time_order_angles(POSITIONS, DAYS, FREQUENCIES))
    moved = rotated_logits(time_order_angles(POSITIONS, DAYS + 1234, FREQUENCIES))
    stretched = rotated_logits(time_order_angles(POSITIONS, 2 * DAYS, FREQUENCIES))
    # Angles of up to 30 radians are rounded to 2e-6; queries and keys have norms of about 3.
    assert np.abs(moved - at_home).max() < 5e-5
    assert np.abs(stretched - at_home).max() > 0.5


def test_moving_all_positions_of_any_source_by_a_constant_leaves_the_logits():
    params, features = siren_case()
    sources = {
        "ordinal": lambda positions: ordinal_angles(positions, FREQUENCIES),
        "time_order": lambda positions: time_order_angles(positions, DAYS, FREQUENCIES),
        "siren": lambda positions: siren_rope_angles(positions, features, FREQUENCIES, params, scale=math.pi, gate=1.0),
    }
    for source in sources.values():
        moved, at_home = rotated_logits(source(POSITIONS + 100)), rotated_logits(source(POSITIONS))
        # Angles of up to 112 radians are rounded to 8e-6.
        assert np.abs(moved - at_home).max() < 2e-4


def test_frequencies_of_two_dimensions_are_refused_in_one_sentence():
    with raises_one_sentence("frequencies", "one-dimensional", "(1, 4)"):
        ordinal_angles(POSITIONS, FREQUENCIES[None])
    with raises_one_sentence("frequencies", "one-dimensional", "(1, 4)"):
        time_order_angles(POSITIONS, DAYS, FREQUENCIES[None])


def test_days_that_do_not_fit_the_positions_are_refused_in_one_sentence():
    with raises_one_sentence("positions and elapsed_days", "(2, 12)", "(2, 11)"):
        time_order_angles(POSITIONS, DAYS[:, :-1], FREQUENCIES)


def test_features_that_do_not_fit_the_positions_are_refused_in_one_sentence():
    params, features = siren_case()
    with raises_one_sentence("features", "shape of positions", "(2, 12)", "(2, 11, 5)"):
        siren_rope_angles(POSITIONS, features[:, :-1], FREQUENCIES, params, scale=1.0, gate=1.0)


def test_network_with_too_few_outputs_is_refused_in_one_sentence():
    params, features = siren_case()
    with raises_one_sentence("angle network", "one output per frequency", "(8,)", "4"):
        siren_rope_angles(POSITIONS, features, inverse_frequencies(16), params, scale=1.0, gate=1.0)
