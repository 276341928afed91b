"""Learned rotations of blocks: values and gradients against scipy in float64, and where scores are relative."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from one_sentence import raises_one_sentence

from siren_rope_jax.ops.angles import ordinal_angles
from siren_rope_jax.ops.frequencies import inverse_frequencies
from siren_rope_jax.ops.lie import lie_rotations, planar_generators, rotate_blocks
from siren_rope_jax.ops.rotary import apply_rotary

variant = pytest.mark.parametrize("variant", [lambda function: function, jax.jit], ids=["eager", "jit"])
blocks = pytest.mark.parametrize("block", [2, 3, 8])
rotations_of = jax.jit(lie_rotations)


def skew_matrix(entries, block):
    """The skew-symmetric matrix with these entries above the diagonal, row by row."""
    a, entries = np.zeros((block, block)), iter(np.asarray(entries, np.float64))
    for i in range(block):
        for j in range(i + 1, block):
            a[i, j] = next(entries)
            a[j, i] = -a[i, j]
    return a


def reference_rotations(coordinates, generators, block, cotangent=None):
    """exp of the sum of generators times coordinates; with a cotangent also the gradients of both."""
    coordinates, generators = np.asarray(coordinates, np.float64), np.asarray(generators, np.float64)
    axes, groups, entries = generators.shape
    events = coordinates.reshape(-1, axes)
    result = np.empty((len(events), groups, block, block))
    of_coordinates, of_generators = np.zeros(events.shape), np.zeros(generators.shape)
    for e, event in enumerate(events):
        for g in range(groups):
            a = skew_matrix(sum(event[c] * generators[c, g] for c in range(axes)), block)
            result[e, g] = scipy.linalg.expm(a)
            if cotangent is None:
                continue
            of_event = cotangent.reshape(result.shape)[e, g]
            for t, direction in enumerate(np.eye(entries)):
                change = scipy.linalg.expm_frechet(a, skew_matrix(direction, block), compute_expm=False)
                for c in range(axes):
                    of_generators[c, g, t] += event[c] * np.sum(of_event * change)
                    of_coordinates[e, c] += generators[c, g, t] * np.sum(of_event * change)
    result = result.reshape(*coordinates.shape[:-1], groups, block, block)
    return result if cotangent is None else (result, of_coordinates.reshape(coordinates.shape), of_generators)


def random_case(seed, batch, axes, groups, block, norm=2.0):
    generator = np.random.default_rng(seed)
    coordinates = generator.uniform(-1, 1, (*batch, axes)) * norm
    generators = generator.normal(size=(axes, groups, block * (block - 1) // 2))
    generators /= np.linalg.norm(generators, axis=-1, keepdims=True)
    return jnp.asarray(coordinates, jnp.float32), jnp.asarray(generators, jnp.float32)


def deviation_from_orthogonal(rotations):
    rotations = np.float64(rotations)
    return np.abs(np.swapaxes(rotations, -1, -2) @ rotations - np.eye(rotations.shape[-1])).max()


@pytest.mark.slow
@settings(max_examples=10)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([(), (3,), (2, 3), (2, 1, 3)]),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from([2, 3, 4, 5, 8]),
)
def test_rotations_are_the_exponential_for_every_shape(seed, batch, axes, groups, block):
    coordinates, generators = random_case(seed, batch, axes, groups, block)
    result = rotations_of(coordinates, generators)
    chex.assert_type(result, jnp.float32)
    expected = reference_rotations(coordinates, generators, block)
    chex.assert_trees_all_close(result, expected, rtol=0, atol=2e-6)


@pytest.mark.slow
@variant
@blocks
def test_values_and_gradients_are_those_of_scipy(variant, block):
    cotangent = np.random.default_rng(2).normal(size=(2, 3, 2, block, block))

    def loss(coordinates, generators):
        rotations = lie_rotations(coordinates, generators)
        return jnp.sum(rotations * jnp.asarray(cotangent, jnp.float32)), rotations

    value_and_gradients = variant(jax.value_and_grad(loss, (0, 1), has_aux=True))
    for norm in (1e-3, 0.5, 30.0, 1000.0):
        coordinates, generators = random_case(1, (2, 3), 2, 2, block, norm)
        (_, result), gradients = value_and_gradients(coordinates, generators)
        expected, *expected_gradients = reference_rotations(coordinates, generators, block, cotangent)
        # Two coordinates, each up to `norm`: an angle of r radians is rounded to 6e-8 r, several times over.
        error = 1e-6 + 5e-7 * 2 * norm
        chex.assert_trees_all_close(result, expected, rtol=0, atol=error)
        for gradient, exact in zip(gradients, expected_gradients, strict=True):
            chex.assert_trees_all_close(gradient, exact, rtol=0, atol=error * (1 + np.abs(exact).max()))


@pytest.mark.slow
@blocks
def test_matrices_stay_orthogonal_at_large_norms(block):
    for norm in (1e-6, 0.3, 30.0, 1000.0, 1e4):
        coordinates, generators = random_case(3, (20,), 1, 3, block, norm)
        assert deviation_from_orthogonal(rotations_of(coordinates, generators)) < 2e-6


@pytest.mark.slow
@blocks
def test_zero_generators_are_the_identity_with_finite_gradients(block):
    coordinates, generators = random_case(4, (2, 3), 2, 2, block)
    result = jax.jit(lie_rotations)(coordinates, 0 * generators)
    chex.assert_trees_all_equal(result, jnp.broadcast_to(jnp.eye(block), result.shape), strict=True)
    cotangent = np.random.default_rng(5).normal(size=result.shape)

    def loss(coordinates, generators):
        return jnp.sum(lie_rotations(coordinates, generators) * jnp.asarray(cotangent, jnp.float32))

    gradients = jax.jit(jax.grad(loss, (0, 1)))(coordinates, 0 * generators)
    expected = reference_rotations(coordinates, 0 * generators, block, cotangent)[1:]
    chex.assert_trees_all_close(gradients, expected, rtol=0, atol=1e-5)
    assert np.abs(gradients[1]).max() > 0.1


@pytest.mark.slow
@blocks
def test_an_event_turns_alike_whatever_stands_beside_it(block):
    coordinates, generators = random_case(6, (5,), 2, 2, block)
    beside_large = coordinates.at[1:].multiply(1000)
    alone, beside = (rotations_of(x, generators)[0] for x in (coordinates, beside_large))
    chex.assert_trees_all_equal(alone, beside, strict=True)
    beside_meaningless = rotations_of(coordinates.at[1:].multiply(1e12), generators)
    assert np.isnan(beside_meaningless[1:]).all()
    chex.assert_trees_all_equal(beside_meaningless[0], alone, strict=True)


@pytest.mark.slow
def test_vmap_remat_and_scan_give_the_whole_arrays_rotations_and_gradients():
    coordinates, generators = random_case(7, (3, 4), 2, 2, 4, 5.0)

    def loss(rotate):
        return lambda c, g: jnp.sum(jnp.sin(rotate(c, g) * jnp.arange(16.0).reshape(4, 4)))

    def scanned(coordinates, generators):
        return jax.lax.scan(lambda _, row: (None, lie_rotations(row, generators)), None, coordinates)[1]

    def gradients(rotate):
        return jax.jit(jax.value_and_grad(loss(rotate), (0, 1)))(coordinates, generators)

    expected = gradients(lie_rotations)
    for rotate in (jax.vmap(lie_rotations, in_axes=(0, None)), jax.checkpoint(lie_rotations), scanned):
        chex.assert_trees_all_close(gradients(rotate), expected, rtol=1e-5, atol=3e-4)  # of gradients up to 80


@pytest.mark.slow
@pytest.mark.parametrize("block", [2, 4, 8])
def test_planar_generators_are_ordinary_rope_with_interleaved_pairs(block):
    frequencies = inverse_frequencies(16)
    positions = jnp.asarray([[0, 1, 7, 300], [5, 6, 50, 51]], jnp.int32)
    x = jnp.asarray(np.random.default_rng(8).normal(size=(2, 4, 3, 16)), jnp.float32)

    def rotated(x, positions):
        generators = planar_generators(frequencies, block)[None]
        return rotate_blocks(x, lie_rotations(positions[..., None], generators))

    result = jax.jit(rotated)(x, positions)
    chex.assert_trees_all_equal_shapes_and_dtypes(result, x)
    expected = apply_rotary(x, ordinal_angles(positions, frequencies), interleaved=True)
    # Beyond planar pairs an angle of 300 radians goes through scaling and squaring.
    chex.assert_trees_all_close(result, expected, rtol=0, atol=3e-6 if block == 2 else 3e-4)


@pytest.mark.slow
@blocks
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_each_head_is_multiplied_by_its_blocks_and_keeps_their_norms(block, dtype):
    coordinates, generators = random_case(9, (2, 3), 1, 2, block)
    rotations = rotations_of(coordinates, generators)
    x = jnp.asarray(np.random.default_rng(10).normal(size=(2, 3, 4, 2 * block)), dtype)
    result = jax.jit(rotate_blocks)(x, rotations)
    chex.assert_trees_all_equal_shapes_and_dtypes(result, x)
    before, after = (np.float64(y).reshape(2, 3, 4, 2, block) for y in (x, result))
    expected = np.empty(before.shape)
    for index in np.ndindex(2, 3, 4, 2):
        expected[index] = np.float64(rotations[index[0], index[1], index[3]]) @ before[index]
    tolerance = 2e-6 if dtype == "float32" else 2**-8
    norms = np.linalg.norm(before, axis=-1)
    assert (np.abs(after - expected) <= tolerance * norms[..., None]).all()
    chex.assert_trees_all_close(np.linalg.norm(after, axis=-1), norms, rtol=2 * tolerance)


@pytest.mark.slow
def test_gradient_of_rotated_features_is_the_transposed_rotation_and_the_outer_product():
    coordinates, generators = random_case(11, (3,), 1, 2, 4)
    rotations = rotations_of(coordinates, generators)
    x, cotangent = (jnp.asarray(y, jnp.float32) for y in np.random.default_rng(12).normal(size=(2, 3, 2, 8)))
    of_x, of_rotations = jax.vjp(rotate_blocks, x, rotations)[1](cotangent)
    expected_x, expected_rotations = np.zeros((3, 2, 2, 4)), np.zeros((3, 2, 4, 4))
    for s, n, g in np.ndindex(3, 2, 2):
        part, pulled = np.float64(x[s, n, 4 * g : 4 * g + 4]), np.float64(cotangent[s, n, 4 * g : 4 * g + 4])
        expected_x[s, n, g] = np.float64(rotations[s, g]).T @ pulled
        expected_rotations[s, g] += np.outer(pulled, part)
    chex.assert_trees_all_close((of_x, of_rotations), (expected_x.reshape(x.shape), expected_rotations), atol=5e-6)


def deviation_from_relative(generators, coordinates):
    """Largest difference of R(x)^T R(y) and R(y - x) over all pairs of events."""
    rotations = np.float64(rotations_of(coordinates, generators))
    differences = coordinates[None] - coordinates[:, None]
    expected = np.float64(rotations_of(differences, generators))
    return np.abs(np.einsum("xgji,ygjk->xygik", rotations, rotations) - expected).max()


@pytest.mark.slow
def test_scores_are_relative_where_the_generators_commute():
    generator = np.random.default_rng(13)
    one = jnp.asarray(generator.normal(size=(1, 2, 28)) / 4, jnp.float32)
    multiples = jnp.concatenate([one, -0.5 * one, 2 * one])
    planar = jnp.stack([planar_generators(jnp.asarray(generator.normal(size=8), jnp.float32), 8) for _ in range(3)])
    blocks_of_two = jnp.asarray(generator.normal(size=(3, 4, 1)), jnp.float32)
    for generators in (one, multiples, planar, blocks_of_two):
        # Eighths below 8 subtract without rounding.
        coordinates = jnp.asarray(generator.integers(-64, 64, (6, len(generators))) / 8, jnp.float32)
        assert deviation_from_relative(generators, coordinates) < 3e-5


@pytest.mark.slow
def test_scores_are_not_relative_where_the_generators_do_not_commute():
    coordinates, generators = random_case(14, (6,), 2, 2, 4, 2.0)
    assert deviation_from_relative(generators, coordinates) > 0.3
    # To first order they are: what is left falls with the square of the coordinates.
    small = [deviation_from_relative(generators, coordinates * factor) for factor in (1 / 16, 1 / 32)]
    assert 3 < small[0] / small[1] < 5


@pytest.mark.slow
def test_arguments_that_do_not_fit_are_refused_in_one_sentence():
    for coordinates, generators in (
        ((2, 3), (2, 4, 6)),
        ((), (1, 4, 6)),
        ((2, 3), (4, 6)),
        ((2, 6), (3, 2, 6)),
        ((2, 0), (0, 4, 6)),
    ):
        with raises_one_sentence("generators must have shape [C, G, T]", coordinates, generators):
            lie_rotations(jnp.zeros(coordinates), jnp.zeros(generators))
    for entries in (0, 2, 5):
        with raises_one_sentence("T = b(b-1)/2", f"but have {entries}"):
            lie_rotations(jnp.zeros((2, 3)), jnp.zeros((3, 4, entries)))
    for x, rotations in (
        ((2, 3, 8), (2, 3, 4, 4)),
        ((2, 3, 8), (3, 2, 4, 4)),
        ((8,), (2, 4, 4)),
        ((3, 8), (2, 2, 4, 4)),
    ):
        with raises_one_sentence("x must have shape [..., N, G b]", x, rotations):
            rotate_blocks(jnp.zeros(x), jnp.zeros(rotations))
    for rotations in ((2, 2, 4, 3), (4, 4)):
        with raises_one_sentence("rotations must have shape [..., G, b, b]", rotations):
            rotate_blocks(jnp.zeros((2, 3, 8)), jnp.zeros(rotations))
    for block in (0, -2, 3):
        with raises_one_sentence("block must be a positive even number", block):
            planar_generators(jnp.zeros(4), block)
    for shape, block in (((3,), 4), ((2, 2), 4), ((4,), 6)):
        with raises_one_sentence("frequencies must be one-dimensional", block // 2, shape):
            planar_generators(jnp.zeros(shape), block)
