"""Sine and cosine of large angles, and the rotation of pairs, with and without jit, in float32 and bfloat16."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from one_sentence import raises_one_sentence

from siren_rope_jax.ops.rotary import apply_rotary, rotate_pairs, sincos

VARIANTS = {"eager": lambda function, **options: function, "jit": jax.jit}
variant = pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
interleaving = pytest.mark.parametrize("interleaved", [False, True], ids=["half_split", "interleaved"])
# Relative to the norm of a pair. float32: sine and cosine are right to 2e-7, and the two products round. bfloat16:
# the rotation is computed in float32 and rounded once to 8 bits, by up to 2^-8 of the result.
TOLERANCE = {"float32": 6e-7, "bfloat16": 2**-8 + 6e-7}
dtypes = pytest.mark.parametrize("dtype", TOLERANCE)


def angles_up_to(limit, count, seed=0):
    """Random angles, and those around multiples of pi/2, where the reduction of the argument is hardest."""
    generator = np.random.default_rng(seed)
    multiples = generator.integers(0, int(limit * 2 / np.pi), count) * (np.pi / 2)
    multiples = multiples.astype(np.float32)
    below, above = (np.nextafter(multiples, np.float32(side)) for side in (0, limit))
    x = np.concatenate([generator.uniform(0, limit, count).astype(np.float32), multiples, below, above])
    return np.concatenate([x, -x, np.float32([0.0, limit, -limit])])


def sincos_error(angles, variant):
    sin, cos = variant(sincos)(jnp.asarray(angles))
    chex.assert_type([sin, cos], jnp.float32)
    exact = np.float64(angles)
    return max(np.abs(sin - np.sin(exact)).max(), np.abs(cos - np.cos(exact)).max())


@variant
def test_sincos_keeps_2e_7_up_to_2_to_the_20(variant):
    angles = np.concatenate([angles_up_to(limit, 20_000) for limit in (7.0, 1000.0, 2.0**20)])
    assert sincos_error(angles, variant) < 2e-7


def test_sincos_degrades_gracefully_up_to_2_to_the_24():
    errors = [sincos_error(angles_up_to(2.0**power, 20_000), jax.jit) for power in (21, 22, 23, 24)]
    assert max(errors) < 1e-3  # the spacing of float32 is 0.125 to 1 there


@variant
def test_sincos_is_nan_where_an_angle_means_nothing(variant):
    meaningless = jnp.asarray([2.0**24 + 2, -(2.0**24) - 2, 1e30, jnp.inf, -jnp.inf, jnp.nan])
    sin, cos = variant(sincos)(meaningless)
    assert np.isnan(sin).all()
    assert np.isnan(cos).all()
    chex.assert_tree_all_finite(variant(sincos)(jnp.asarray([2.0**24, -(2.0**24)])))


@variant
def test_gradients_of_sincos_are_cosine_and_minus_sine_to_any_order(variant):
    x = jnp.asarray([-1000.5, -3.0, 0.0, 0.5, 2.0, 777.0])
    exact = np.float64(x)
    for part, derivatives in enumerate(
        [(np.cos(exact), -np.sin(exact), -np.cos(exact)), (-np.sin(exact), -np.cos(exact), np.sin(exact))]
    ):

        def function(angle, part=part):
            return sincos(angle)[part]

        for derivative in derivatives:
            function = jax.grad(function)
            chex.assert_trees_all_close(variant(jax.vmap(function))(x), derivative, rtol=0, atol=3e-7)


def test_sincos_under_vmap_is_sincos_of_the_whole_array():
    x = jnp.linspace(-50.0, 50.0, 24).reshape(2, 3, 4)
    whole = jax.jit(sincos)(x)
    for mapped in (jax.vmap(jax.vmap(sincos)), jax.vmap(sincos, in_axes=2, out_axes=2)):
        chex.assert_trees_all_equal(jax.jit(mapped)(x), whole, strict=True)


def test_sincos_of_bfloat16_angles_is_float32():
    sin, cos = sincos(jnp.asarray([1.0, 100.0], jnp.bfloat16))
    chex.assert_type([sin, cos], jnp.float32)
    chex.assert_trees_all_close(sin, np.sin([1.0, 100.0]), rtol=0, atol=2e-7)


def random_case(seed, batch, length, heads, pairs, dtype, *, per_head):
    generator = np.random.default_rng(seed)
    x = jnp.asarray(generator.normal(size=(batch, length, heads, 2 * pairs)), dtype)
    shape = (batch, length, heads, pairs) if per_head else (batch, length, pairs)
    return x, jnp.asarray(generator.uniform(-1000, 1000, shape), jnp.float32)


def pair_norms(x, interleaved):
    x = np.asarray(x, np.float64)
    first, second = (x[..., 0::2], x[..., 1::2]) if interleaved else np.split(x, 2, axis=-1)
    norms = np.hypot(first, second)
    return np.repeat(norms, 2, axis=-1) if interleaved else np.concatenate([norms, norms], axis=-1)


def check_rotation(x, angles, interleaved, variant):
    rotated = variant(apply_rotary, static_argnames="interleaved")(x, angles, interleaved=interleaved)
    chex.assert_trees_all_equal_shapes_and_dtypes(rotated, x)
    per_head = angles if angles.ndim == 4 else np.broadcast_to(angles[:, :, None], (*x.shape[:3], x.shape[3] // 2))
    error = np.abs(np.float64(rotated) - reference.rotate(np.float64(x), per_head, interleaved))
    assert (error <= TOLERANCE[x.dtype.name] * pair_norms(x, interleaved)).all()


@variant
@interleaving
@dtypes
@pytest.mark.parametrize("per_head", [False, True], ids=["shared", "per_head"])
def test_rotation_is_the_complex_product_with_exp_i_angle(variant, interleaved, dtype, per_head):
    x, angles = random_case(0, 2, 5, 3, 4, dtype, per_head=per_head)
    check_rotation(x, angles, interleaved, variant)


@settings(deadline=None, max_examples=8)
@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 3), st.integers(1, 4)),
    st.sampled_from(sorted(TOLERANCE)),
    st.booleans(),
    st.booleans(),
)
def test_rotation_is_the_complex_product_for_every_shape(seed, shape, dtype, per_head, interleaved):
    check_rotation(*random_case(seed, *shape, dtype, per_head=per_head), interleaved, jax.jit)


@variant
@interleaving
@dtypes
def test_rotation_keeps_the_norm_of_every_pair(variant, interleaved, dtype):
    x, angles = random_case(1, 2, 8, 2, 4, dtype, per_head=False)
    rotated = variant(apply_rotary, static_argnames="interleaved")(x, angles, interleaved=interleaved)
    before, after = pair_norms(x, interleaved), pair_norms(rotated, interleaved)
    chex.assert_trees_all_close(after, before, rtol=2 * TOLERANCE[dtype])


@variant
@interleaving
@dtypes
def test_zero_angle_changes_nothing(variant, interleaved, dtype):
    x, angles = random_case(2, 2, 3, 2, 4, dtype, per_head=False)
    rotated = variant(apply_rotary, static_argnames="interleaved")(x, 0 * angles, interleaved=interleaved)
    chex.assert_trees_all_equal(rotated, x, strict=True)


@variant
@interleaving
@dtypes
def test_one_angle_added_to_all_queries_and_keys_leaves_the_logits(variant, interleaved, dtype):
    generator = np.random.default_rng(3)
    query, key = (jnp.asarray(generator.normal(size=(2, 6, 2, 8)), dtype) for _ in range(2))
    # Multiples of 2^-12 below 2^11 add without rounding, so that the logits may differ by the rotation's error alone.
    angles = jnp.asarray(generator.integers(-(2**18), 2**18, (2, 6, 4)) / 2**12, jnp.float32)
    shift = jnp.asarray(generator.integers(-(2**20), 2**20, 4) / 2**12, jnp.float32)
    rotate = variant(apply_rotary, static_argnames="interleaved")

    def logits(angles):
        rotated = (np.float64(rotate(x, angles, interleaved=interleaved)) for x in (query, key))
        return np.einsum("bind,bjnd->bnij", *rotated)

    norms = (np.linalg.norm(np.float64(x), axis=-1).max() for x in (query, key))
    largest = np.prod(list(norms))
    assert np.abs(logits(angles) - logits(0 * angles)).max() > 0.1 * largest
    assert np.abs(logits(angles + shift) - logits(angles)).max() < 4 * TOLERANCE[dtype] * largest


def test_gradient_of_x_turns_back_and_that_of_the_angle_is_a_right_angle_ahead():
    x, angles = random_case(4, 1, 3, 2, 2, "float32", per_head=False)
    cotangent = jnp.asarray(np.random.default_rng(5).normal(size=x.shape), jnp.float32)
    rotated, pull_back = jax.vjp(apply_rotary, x, angles)
    of_x, of_angles = pull_back(cotangent)
    # The transposed rotation turns back; turning a pair by d moves it by d times itself turned by a right angle.
    quarter = jnp.concatenate([-rotated[..., 2:], rotated[..., :2]], axis=-1)
    per_pair = (cotangent * quarter).reshape(1, 3, 2, 2, 2).sum(axis=(2, 3))
    chex.assert_trees_all_close((of_x, of_angles), (apply_rotary(cotangent, -angles), per_pair), rtol=0, atol=3e-6)


def test_sine_and_cosine_shared_by_layers_rotate_as_the_angles_do():
    x, angles = random_case(6, 2, 3, 2, 4, "float32", per_head=True)
    sin, cos = sincos(angles)
    chex.assert_trees_all_equal(rotate_pairs(x, sin, cos), apply_rotary(x, angles), strict=True)


@pytest.mark.parametrize(
    ("x_shape", "angle_shape", "parts"),
    [
        ((1, 2, 1, 5), (1, 2, 2), ("head dimension", "twice", "5", "2 angles")),
        ((1, 2, 1, 4), (1, 2, 4), ("head dimension", "twice", "4")),
        ((1, 2, 1, 4), (1, 3, 2), ("[B, S]", "(1, 2, 1)", "(1, 3, 2)")),
        ((1, 2, 3, 4), (1, 2, 2, 2), ("[B, S]", "(1, 2, 2, 2)")),
        ((1, 2, 3, 4), (1, 2), ("[B, S]", "(1, 2)")),
    ],
)
def test_angles_that_do_not_fit_are_refused_in_one_sentence(x_shape, angle_shape, parts):
    with raises_one_sentence(*parts):
        apply_rotary(jnp.zeros(x_shape), jnp.zeros(angle_shape))


def test_sine_and_cosine_of_two_shapes_are_refused_in_one_sentence():
    with raises_one_sentence("angles", "(1, 2, 2)", "(1, 2, 1)"):
        rotate_pairs(jnp.zeros((1, 2, 1, 4)), jnp.zeros((1, 2, 2)), jnp.zeros((1, 2, 1)))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_angles_of_too_few_bits_are_refused_in_one_sentence(dtype):
    with raises_one_sentence("angles must be float32", dtype):
        apply_rotary(jnp.zeros((1, 2, 1, 4)), jnp.zeros((1, 2, 2), dtype))
