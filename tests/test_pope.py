"""PoPE and temperature by length: against float64, and what they promise."""

import math

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


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.slow
@variant
@pytest.mark.parametrize("groups", [None, 1, 2, 4])
def test_scores_are_products_of_softplus_times_the_cosine_of_the_angle_between(variant, groups):
    query, key = normal(2, 2, 5, 4, 3)
    of_heads = () if groups is None else (groups,)
    of_query, of_key = 3 * normal(2, 2, 5, *of_heads, 3, seed=1)
    weights = normal(2, 4, 5, 5, seed=2)

    def loss(arrays):
        query, key, *angles = arrays
        query, key = (ops.polar_features(x, of) for x, of in zip((query, key), angles, strict=True))
        chex.assert_shape((query, key), (2, 5, 4, 6))
        scores = jnp.einsum("bqnh,bknh->bnqk", query, key)
        return jnp.sum(scores * weights), scores

    arrays = [jnp.asarray(x, jnp.float32) for x in (query, key, of_query, of_key)]
    (_, scores), gradients = variant(jax.value_and_grad(loss, has_aux=True))(arrays)
    magnitude, sigmoid = [np.log1p(np.exp(x)) for x in (query, key)], [1 / (1 + np.exp(-x)) for x in (query, key)]
    per_head = [np.repeat(a if groups else a[:, :, None], 4 // (groups or 1), axis=2) for a in (of_query, of_key)]
    product = magnitude[0][:, :, None] * magnitude[1][:, None]
    apart = per_head[0][:, :, None] - per_head[1][:, None]
    chex.assert_trees_all_close(scores, np.moveaxis((product * np.cos(apart)).sum(-1), -1, 1), rtol=1e-4, atol=1e-4)
    back = np.moveaxis(weights, 1, -1)[..., None]
    by_angle = -back * product * np.sin(apart)
    by_heads = [by_angle.sum(2), -by_angle.sum(1)]
    by_groups = [x.reshape(2, 5, groups or 1, -1, 3).sum(3).reshape(of_query.shape) for x in by_heads]
    by_query = (back * magnitude[1][:, None] * np.cos(apart)).sum(2) * sigmoid[0]
    by_key = (back * magnitude[0][:, :, None] * np.cos(apart)).sum(1) * sigmoid[1]
    chex.assert_trees_all_close(gradients, [by_query, by_key, *by_groups], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_the_length_of_each_complex_number_does_not_depend_on_its_angle():
    x, angles = jnp.asarray(normal(1, 5, 2, 3), jnp.float32), jnp.asarray(50 * normal(1, 5, 3), jnp.float32)
    real, imaginary = np.split(np.asarray(ops.polar_features(x, angles)), 2, axis=-1)
    chex.assert_trees_all_close(np.hypot(real, imaginary), np.log1p(np.exp(np.float64(x))), rtol=1e-5)


def test_the_type_of_queries_stays_and_magnitudes_are_float32_within():
    x = jnp.asarray(normal(1, 5, 2, 3), jnp.bfloat16)
    angles = jnp.asarray(normal(1, 5, 3), jnp.float32)
    found = ops.polar_features(x, angles)
    chex.assert_type(found, jnp.bfloat16)
    chex.assert_trees_all_equal(found, ops.polar_features(x.astype(jnp.float32), angles).astype(jnp.bfloat16))


@pytest.mark.slow
@variant
@settings(max_examples=8)
@given(length=st.floats(1.5, 1e6))
def test_queries_grow_with_the_logarithm_of_what_they_see(variant, length):
    counts = np.array([0, 1, 2, 3, 64, 10**6])
    found = variant(lambda n: ops.length_temperature(n, length))(jnp.asarray(counts, jnp.int32))
    expected = np.log(np.maximum(counts, 1)) / math.log(length)
    chex.assert_trees_all_close(found, expected, rtol=1e-6, atol=1e-7)


def test_at_the_trained_length_a_temperature_by_length_changes_nothing():
    assert abs(float(ops.length_temperature(jnp.asarray(50), 50)) - 1) < 1e-6


X, ANGLES = jnp.ones((1, 5, 2, 3)), jnp.ones((1, 5, 3))


@pytest.mark.parametrize(
    ("build", "parts"),
    [
        (lambda: ops.polar_features(X, ANGLES[..., :2]), ("angles must be one for each of the features", "(1, 5, 2)")),
        (lambda: ops.polar_features(X, ANGLES.astype(jnp.bfloat16)), ("angles must be float32", "bfloat16")),
        (lambda: ops.polar_features(X, ANGLES[:, :4]), ("angles must have the [..., S]", "(1, 5, 2)", "(1, 4, 3)")),
        (lambda: ops.length_temperature(jnp.ones(2, jnp.int32), 1), ("trained_length", "above 1", "1")),
        (lambda: ops.length_temperature(jnp.ones(2, jnp.bfloat16), 2), ("counts", "at least 32 bits", "bfloat16")),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(build, parts):
    with raises_one_sentence(*parts):
        build()
