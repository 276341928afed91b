"""Sine and cosine of large angles, the rotation of pairs and its scale, with and without jit, in every float dtype."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from one_sentence import raises_one_sentence

from siren_rope_jax.ops.frequencies import inverse_frequencies
from siren_rope_jax.ops.rotary import apply_rotary, rotate_pairs, xpos_scale
from siren_rope_jax.ops.sincos import sincos

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


@pytest.mark.slow
@variant
@interleaving
@dtypes
@pytest.mark.parametrize("per_head", [False, True], ids=["shared", "per_head"])
def test_rotation_is_the_complex_product_with_exp_i_angle(variant, interleaved, dtype, per_head):
    x, angles = random_case(0, 2, 5, 3, 4, dtype, per_head=per_head)
    check_rotation(x, angles, interleaved, variant)


@settings(max_examples=8)
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


@pytest.mark.slow
@variant
@interleaving
@dtypes
def test_zero_angle_changes_nothing(variant, interleaved, dtype):
    x, angles = random_case(2, 2, 3, 2, 4, dtype, per_head=False)
    rotated = variant(apply_rotary, static_argnames="interleaved")(x, 0 * angles, interleaved=interleaved)
    chex.assert_trees_all_equal(rotated, x, strict=True)


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(0, 3, 2, 6), (1, 3, 0, 6)], ids=["rows", "heads"])
def test_gradient_given_to_the_angles_of_none_is_zero(shape):
    x, angles = jnp.zeros(shape), jnp.ones((1, 3, 3))

    def total(angles):
        return rotate_pairs(x, *sincos(angles), angles=angles).sum()

    chex.assert_trees_all_equal(jax.grad(total)(angles), jnp.zeros_like(angles))


def test_angles_of_another_shape_than_their_sine_are_refused_in_one_sentence():
    x, sin = jnp.zeros((1, 2, 1, 4)), jnp.zeros((1, 2, 2))
    with raises_one_sentence("angles", "(1, 2, 2)", "(1, 1, 2)"):
        rotate_pairs(x, sin, sin, angles=jnp.zeros((1, 1, 2)))


@pytest.mark.slow
@pytest.mark.parametrize("batch", [(3,), (2, 3)])
def test_angles_of_slots_alone_rotate_any_batch(batch):
    generator = np.random.default_rng(0)
    x, angles = (jnp.asarray(generator.normal(size=shape), jnp.float32) for shape in ((*batch, 5, 2, 8), (5, 4)))
    of_each = jnp.broadcast_to(angles, (*batch, 5, 4))
    chex.assert_trees_all_equal(apply_rotary(x, angles), apply_rotary(x, of_each))
    sin, cos = sincos(angles)
    one, each = (
        jax.grad(lambda a: jnp.sum(rotate_pairs(x, *sincos(a), angles=a) ** 3))(given) for given in (angles, of_each)
    )
    chex.assert_trees_all_close(one, each.sum(tuple(range(len(batch)))), rtol=1e-4, atol=1e-4)
    chex.assert_trees_all_equal(rotate_pairs(x, sin, cos), apply_rotary(x, angles))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("x_shape", "angle_shape", "options", "parts"),
    [
        ((1, 2, 1, 5), (1, 2, 2), {}, ("head dimension", "twice", "5", "2 angles")),
        ((1, 2, 1, 4), (1, 2, 4), {}, ("head dimension", "twice", "4")),
        ((1, 2, 1, 6), (1, 2, 2), {}, ("head dimension", "twice", "6", "2 angles")),
        ((1, 2, 1, 6), (1, 2, 4), {"partial": True}, ("head dimension", "or more", "6", "4 angles")),
        ((1, 2, 1, 4), (1, 3, 2), {}, ("[..., S]", "(1, 2, 1)", "(1, 3, 2)")),
        ((1, 2, 3, 4), (3, 2), {}, ("[..., S]", "(1, 3, 2)")),
        ((1, 2, 3, 4), (2,), {}, ("[..., S]", "(2,)")),
        ((2, 3, 4), (1, 2, 3, 2), {}, ("[..., S]", "(1, 2, 3, 2)")),
        ((1, 2, 3, 4), (1, 2, 2, 2), {}, ("[..., S, N]", "(1, 2, 2, 2)")),
        ((1, 2, 2, 4), (1, 2, 0, 2), {}, ("[..., S, N]", "(1, 2, 0, 2)")),
        ((2, 3, 1, 8), (2, 3, 4), {"scale": jnp.ones(3)}, ("scale must broadcast to the angles", "(2, 3, 4)", "(3,)")),
        ((2, 3, 1, 8), (2, 3, 4), {"scale": jnp.ones((1, 2, 3, 4))}, ("scale must broadcast", "(1, 2, 3, 4)")),
    ],
)
def test_angles_or_scales_that_do_not_fit_are_refused_in_one_sentence(x_shape, angle_shape, options, parts):
    with raises_one_sentence(*parts):
        apply_rotary(jnp.zeros(x_shape), jnp.zeros(angle_shape), **options)


def test_sine_and_cosine_of_two_shapes_are_refused_in_one_sentence():
    with raises_one_sentence("angles", "(1, 2, 2)", "(1, 2, 1)"):
        rotate_pairs(jnp.zeros((1, 2, 1, 4)), jnp.zeros((1, 2, 2)), jnp.zeros((1, 2, 1)))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_angles_of_too_few_bits_are_refused_in_one_sentence(dtype):
    with raises_one_sentence("angles must be float32", dtype):
        apply_rotary(jnp.zeros((1, 2, 1, 4)), jnp.zeros((1, 2, 2), dtype))


# Eager, each operation would compile for itself: whatever is the same with and without jit is tested with it.
rotate = jax.jit(apply_rotary, static_argnames=("interleaved", "partial"))
BATCHES = {"none": (), "one": (2,), "three": (2, 1, 3)}


@pytest.mark.slow
@interleaving
@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_any_number_of_batch_axes_rotates_as_the_flattened_batch_does(batch, interleaved):
    generator = np.random.default_rng(7)
    x = jnp.asarray(generator.normal(size=(*batch, 5, 3, 8)), jnp.float32)
    for shape in ((5, 4), (5, 3, 4)):
        angles = jnp.asarray(generator.normal(size=(*batch, *shape)), jnp.float32)
        expected = rotate(x.reshape(-1, 5, 3, 8), angles.reshape(-1, *shape), interleaved=interleaved)
        result = rotate(x, angles, interleaved=interleaved)
        chex.assert_trees_all_close(result, expected.reshape(x.shape), rtol=0, atol=2e-6)


@pytest.mark.parametrize("shape", [(1, 6, 4), (3, 1, 4), (1, 1, 4), (1, 6, 4, 4), (3, 1, 1, 4), (1, 6, 2, 4)])
def test_angle_axes_of_one_serve_every_row_and_slot(shape):
    x, _ = random_case(8, 3, 6, 4, 4, "float32", per_head=False)
    angles = jnp.asarray(np.random.default_rng(9).normal(size=shape), jnp.float32)
    repeated = jnp.broadcast_to(angles, (3, 6, *shape[2:]))
    chex.assert_trees_all_close(rotate(x, angles), rotate(x, repeated), rtol=0, atol=2e-6)


@pytest.mark.slow
@interleaving
@pytest.mark.parametrize("partial", [False, True], ids=["whole", "partial"])
@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_angles_of_a_group_of_heads_are_those_of_each_of_its_heads(groups, partial, interleaved):
    x, angles = random_case(10, 2, 3, 6, 4, "float32", per_head=True)
    angles = angles[:, :, :groups, : 3 if partial else 4]
    options = {"interleaved": interleaved, "partial": partial}
    repeated = rotate(x, jnp.repeat(angles, 6 // groups, axis=2), **options)
    chex.assert_trees_all_close(rotate(x, angles, **options), repeated, rtol=0, atol=2e-6)
    assert groups == 1 or not jnp.allclose(rotate(x, angles[:, :, :1], **options), repeated)


def test_sequence_of_no_events_is_rotated_to_itself():
    empty = jnp.zeros((2, 0, 4, 8))
    for shape in ((2, 0, 4), (2, 0, 2, 4), (2, 0, 4, 4)):
        chex.assert_trees_all_equal(rotate(empty, jnp.zeros(shape)), empty, strict=True)


@pytest.mark.slow
@interleaving
@dtypes
@pytest.mark.parametrize("per_head", [False, True], ids=["shared", "per_head"])
def test_partial_rotation_turns_the_first_features_and_leaves_the_rest_bit_for_bit(interleaved, dtype, per_head):
    x, angles = random_case(11, 2, 3, 2, 4, dtype, per_head=per_head)
    result = rotate(x, angles[..., :3], interleaved=interleaved, partial=True)
    chex.assert_trees_all_equal(result[..., 6:], x[..., 6:], strict=True)
    # Two programs may round differently; the norms of pairs are up to 4.
    atol = 4 * TOLERANCE[dtype]
    plain = rotate(x[..., :6], angles[..., :3], interleaved=interleaved)
    chex.assert_trees_all_close(result[..., :6], plain, rtol=0, atol=atol)
    whole = [rotate(x, angles, interleaved=interleaved, partial=partial) for partial in (False, True)]
    chex.assert_trees_all_close(*whole, rtol=0, atol=atol)


SCALES = {
    "number": 1.5,
    "traced number": jnp.asarray(1.5),
    "per pair": jnp.asarray([0.5, 1.0, 2.0, 3.0]),
    "per slot": jnp.asarray([[0.5], [1.0], [2.0]]),
    "per slot and pair": jnp.arange(1.0, 25.0).reshape(2, 3, 4),
}


@interleaving
@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_scale_stretches_the_pairs_of_the_plain_rotation(scale, interleaved):
    x, angles = random_case(12, 2, 3, 2, 4, "float32", per_head=False)
    plain = rotate(x, angles, interleaved=interleaved)
    factor = np.broadcast_to(scale, angles.shape)[:, :, None]
    factor = np.repeat(factor, 2, axis=-1) if interleaved else np.concatenate([factor, factor], axis=-1)
    result = rotate(x, angles, scale=scale, interleaved=interleaved)
    # Sine and cosine are rounded once more; a sum of two products can cancel, so relative to the norm of the pair.
    assert (np.abs(result - plain * factor) <= 4e-7 * factor * pair_norms(x, interleaved)).all()


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(), (4,), (2, 3, 1), (2, 3, 4)])
def test_gradient_of_the_scale_is_the_cotangent_along_the_rotated_pair(shape):
    x, angles = random_case(13, 2, 3, 2, 4, "float32", per_head=False)
    generator = np.random.default_rng(14)
    scale = jnp.asarray(generator.uniform(0.5, 2.0, shape), jnp.float32)
    cotangent = generator.normal(size=x.shape)
    _, pull_back = jax.vjp(lambda scale: apply_rotary(x, angles, scale=scale), scale)
    per_pair = cotangent * reference.rotate(x, np.broadcast_to(np.asarray(angles)[:, :, None], (2, 3, 2, 4)))
    per_angle = per_pair.reshape(2, 3, 2, 2, 4).sum(axis=(2, 3))
    # Sum over what the scale was repeated for.
    repeated = tuple(axis for axis in range(3) if axis < 3 - len(shape) or shape[axis - 3 + len(shape)] == 1)
    expected = per_angle.sum(axis=repeated).reshape(shape)
    chex.assert_trees_all_close(pull_back(jnp.asarray(cotangent, jnp.float32))[0], expected, rtol=0, atol=2e-5)


@variant
def test_xpos_scale_is_a_power_of_the_distance_in_scale_bases(variant):
    positions = jnp.asarray([[-1000, -3, 0], [1, 512, 2048]], jnp.int32)
    for options in ({}, {"gamma": 0.1, "scale_base": 100.0}):
        result = variant(lambda positions, options=options: xpos_scale(positions, 5, **options))(positions)
        gamma, base = options.get("gamma", 0.4), options.get("scale_base", 512.0)
        expected = [
            [[((j / 5 + gamma) / (1 + gamma)) ** (p / base) for j in range(5)] for p in row]
            for row in positions.tolist()
        ]
        chex.assert_type(result, jnp.float32)
        # exp(y) is as many times less exact than float32 as y is large, and here |y| is up to 49.
        chex.assert_trees_all_close(result, np.asarray(expected), rtol=1e-5)


def xpos_logits(query, key, positions):
    """Logits of every event with every earlier or later one, for one sequence and head."""
    angles = positions[..., None] * inverse_frequencies(query.shape[-1])
    scale = xpos_scale(positions, angles.shape[-1])
    rotated = apply_rotary(query, angles, scale=scale), apply_rotary(key, angles, scale=1 / scale)
    return np.einsum("ind,jnd->ij", *(np.float64(x) for x in rotated))


@pytest.mark.slow
def test_logits_of_xpos_depend_on_the_distance_alone():
    generator = np.random.default_rng(15)
    query, key = (jnp.asarray(generator.normal(size=(6, 1, 16)), jnp.float32) for _ in range(2))
    positions = jnp.asarray([0, 1, 5, 40, 300, 700])
    at_home, moved = (xpos_logits(query, key, positions + shift) for shift in (0, 1000))
    far, near = np.tril_indices(6)  # of queries and earlier keys
    # Angles of up to 1700 radians are rounded to 6e-5; queries and keys have norms of about 4.
    chex.assert_trees_all_close(moved[far, near], at_home[far, near], rtol=0, atol=2e-3)
    assert np.abs(at_home - xpos_logits(query, key, 2 * positions)).max() > 0.5


@pytest.mark.slow
def test_logits_of_xpos_decay_with_the_distance_by_the_powers_of_its_scale():
    distance = jnp.arange(0, 2048, 64)
    ones = jnp.ones((distance.size, 1, 16))
    scale = xpos_scale(distance, 8)
    still = jnp.zeros((distance.size, 8))
    logits = jnp.einsum("ind,nd->i", apply_rotary(ones, still, scale=scale), ones[0])
    zeta = (np.arange(8) / 8 + 0.4) / 1.4
    expected = 2 * (zeta[None] ** (np.arange(0, 2048, 64)[:, None] / 512)).sum(axis=1)
    chex.assert_trees_all_close(logits, expected, rtol=1e-5)
    assert (np.diff(logits) < 0).all()
    # Turned, no logit of the same query and key exceeds that.
    turned = xpos_logits(ones, ones, distance)[:, 0]
    assert (np.abs(turned) <= expected * (1 + 1e-4)).all()


@pytest.mark.parametrize(
    ("pairs", "options", "parts"),
    [
        (0, {}, ("pairs must be a whole number of at least 1", "0")),
        (2, {"gamma": 0.0}, ("gamma must be a finite number above 0", "0.0")),
        (2, {"scale_base": float("inf")}, ("scale_base must be a finite number above 0", "inf")),
        (2, {"scale_base": float("nan")}, ("scale_base must be a finite number above 0", "nan")),
    ],
)
def test_xpos_scale_of_no_meaning_is_refused_in_one_sentence(pairs, options, parts):
    with raises_one_sentence(*parts):
        xpos_scale(jnp.arange(3), pairs, **options)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_rotated_array_keeps_its_dtype_whatever_the_dtype_of_the_scale(dtype):
    with jax.enable_x64(dtype == "float64"):
        x, angles = jnp.ones((1, 2, 1, 6), dtype), jnp.ones((1, 2, 2), dtype if dtype == "float64" else "float32")
        plain = apply_rotary(x, angles, partial=True)
        for scale in (1.0, 1, jnp.asarray(1.0), jnp.ones(2), jnp.ones(2, jnp.bfloat16)):
            rotated = apply_rotary(x, angles, scale=scale, partial=True)
            chex.assert_trees_all_equal(rotated, plain, strict=True)
            chex.assert_type(rotated, dtype)
            assert not rotated.weak_type
        # Computed in float32, half precision is rounded once at the end.
        exact = np.sin(1.0) + np.cos(1.0)
        assert abs(np.float64(plain[0, 0, 0, 2]) - exact) < max(2e-7, exact * float(jnp.finfo(dtype).eps))
        chex.assert_type(sincos(angles), jnp.float32)


@pytest.mark.slow
def test_numbers_of_python_give_results_of_a_firm_float32():
    number, angles = jnp.asarray(3.0), jnp.broadcast_to(jnp.asarray(3.0), (2, 2))
    assert number.weak_type
    assert angles.weak_type
    x = jnp.broadcast_to(number, (2, 1, 4))
    results = (
        sincos(number),
        jax.jit(sincos)(3.0),
        jax.jit(jax.grad(lambda x: sincos(x)[0]))(3.0),
        xpos_scale(number, 2),
    )
    for result in jax.tree.leaves((results, apply_rotary(x, angles), jax.jit(apply_rotary)(x, angles, scale=2.0))):
        chex.assert_type(result, jnp.float32)
    for result in jax.tree.leaves((results[:2], results[3], apply_rotary(x, angles, scale=number))):
        assert not result.weak_type
    chex.assert_trees_all_close(results[:3], ((np.sin(3.0), np.cos(3.0)),) * 2 + (np.cos(3.0),), atol=2e-7)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_new_values_of_angles_and_scale_compile_nothing_anew(dtype):
    chex.clear_trace_counter()
    rotate = jax.jit(chex.assert_max_traces(apply_rotary, n=1), static_argnames="partial")
    x, angles = random_case(16, 2, 3, 2, 4, dtype, per_head=False)
    for call in range(3):
        x = rotate(x, angles[..., :3] + call, scale=1.0 + call, partial=True)
    with pytest.raises(AssertionError, match="'apply_rotary' is traced > 1 times"):
        rotate(x, angles, scale=1.0, partial=True)


@pytest.mark.parametrize(
    ("x", "angles"),
    [
        (np.ones((1, 2, 1, 4), np.int32), np.zeros((1, 2, 2), np.float32)),
        (np.ones(4, np.float32), np.zeros(2, np.float32)),
        (np.ones((2, 1, 4), np.float32), np.zeros((), np.float32)),
    ],
)
def test_what_is_no_floating_point_query_is_refused_in_one_sentence(x, angles):
    with raises_one_sentence("x must be floating-point numbers [..., S, N, H]", x.dtype, x.shape, angles.shape):
        apply_rotary(jnp.asarray(x), jnp.asarray(angles))
