"""Rotations beyond planar pairs: block-diagonal orthogonal matrices, exp of learned skew-symmetric generators."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Num

from siren_rope_jax.ops.arguments import check_arrays, count, device_floats, of_rank
from siren_rope_jax.ops.linear import linear_call
from siren_rope_jax.ops.sincos import LARGEST_ANGLE, sincos


def lie_rotations(
    coordinates: Num[Array, "*batch C"], generators: Float[Array, "C G T"]
) -> Float32[Array, "*batch G b b"]:
    """Computes the rotation of each block of features, exp(sum_c coordinates_c A_c).

    Scores depend on differences of coordinates alone, R(x)^T R(y) = R(y - x), where the generators of a block
    commute: one coordinate, generators that are multiples of one, generators in the same planes
    (`planar_generators`), blocks of 2. Otherwise R(x)^T R(y) depends on x and y themselves, and
    equals R(y - x) only to first order in the coordinates. A rotation depends on its own event's coordinates alone,
    so a rotated key can be cached in any case. Blocks above 2 have all derivatives but reverse mode of a derivative.

    Args:
      coordinates: position, time and similar numbers of each event, of order 1, since angles are products with them.
      generators: for each coordinate and block the T = b(b-1)/2 entries above the diagonal of a skew-symmetric
        matrix, row by row; learned, or `planar_generators`.

    Returns:
      Orthogonal matrices, float32, for `rotate_blocks`. With r the norm of the T entries of the sum, which bounds every
      angle, each element is right to about 5e-7 (1 + r), and each matrix orthogonal to 2e-6 for r up to 10^4; NaN for
      r > 2^24.

    Raises:
      ValueError: if the coordinates are floats of less than 32 bits, the generators are not [C, G, T] with the C of the
        coordinates, at least 1, or T is not b(b-1)/2.

    Source: LieRE, Ostmeier et al. 2024 (arXiv 2406.10322); scaling and squaring of a Taylor polynomial.
    """
    check_arrays(coordinates=coordinates, generators=generators)
    coordinates = device_floats("coordinates", coordinates)
    if generators.ndim != 3 or coordinates.shape[-1:] != generators.shape[:1] or generators.shape[0] < 1:
        raise ValueError(
            "generators must have shape [C, G, T] for coordinates of shape [..., C], C at least 1, "
            f"but have shapes {generators.shape} and {coordinates.shape}"
        )
    entries = generators.shape[-1]
    block = (1 + math.isqrt(1 + 8 * entries)) // 2
    if entries < 1 or entries != block * (block - 1) // 2:
        raise ValueError(f"generators must have T = b(b-1)/2 entries a block (1, 3, 6, 10, ...), but have {entries}")
    generators = generators.astype(jnp.float32)
    if block == 2:
        sin, cos = sincos(_weighted_sum(coordinates[..., None, :], generators[..., 0]))
        return jnp.stack([jnp.stack([cos, sin], axis=-1), jnp.stack([-sin, cos], axis=-1)], axis=-2)
    rows, columns = np.triu_indices(block, 1)
    skew = jnp.zeros((*generators.shape[:2], block, block), jnp.float32).at[..., rows, columns].set(generators)
    skew = jnp.moveaxis(skew - jnp.swapaxes(skew, -1, -2), 1, -1)[..., None, :]
    # Matrices side by side, [..., b, b, E] with E the last batch axis times G: sums of long vectors multiply them.
    combined = _weighted_sum(jnp.atleast_2d(coordinates)[..., None, None, :, None, :], skew)
    rotations = jnp.moveaxis(_exp(combined.reshape(*combined.shape[:-2], -1)), -1, -3)
    return rotations.reshape(*coordinates.shape[:-1], generators.shape[1], block, block)


def rotate_blocks(x: Float[Array, "*batch N H"], rotations: Float[Array, "*batch G b b"]) -> Float[Array, "*batch N H"]:
    """Multiplies each block of neighbouring features of `x` by its matrix.

    Args:
      x: queries or keys; H == G b.
      rotations: from `lie_rotations`, shared by all heads.

    Returns:
      Rotated array in the dtype of `x`; the norm of every block is preserved.

    Raises:
      ValueError: if the matrices are not square or do not fit `x`, or `x` is not floating-point.

    Source: LieRE, Ostmeier et al. 2024 (arXiv 2406.10322).
    """
    check_arrays(x=x, rotations=rotations)
    if rotations.ndim < 3 or rotations.shape[-1] != rotations.shape[-2]:
        raise ValueError(f"rotations must have shape [..., G, b, b], but have {rotations.shape}")
    groups, block = rotations.shape[-3:-1]
    if x.ndim < 2 or x.shape[:-2] != rotations.shape[:-3] or x.shape[-1] != groups * block:
        raise ValueError(
            f"x must have shape [..., N, G b] for rotations of shape [..., G, b, b], "
            f"but they have {x.shape} and {rotations.shape}"
        )
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"x must be floating-point numbers, but is {x.dtype}")
    blocks = x.astype(jnp.float32).reshape(*x.shape[:-1], groups, block)
    rotated = jnp.einsum(
        "...gij,...ngj->...ngi", rotations.astype(jnp.float32), blocks, precision=jax.lax.Precision.HIGHEST
    )
    return rotated.reshape(x.shape).astype(x.dtype)


def planar_generators(frequencies: Float[Array, " R"], block: int) -> Float32[Array, "G T"]:
    """Computes the generators whose rotations are planar RoPE, with interleaved pairs.

    Args:
      frequencies: radians per unit of the coordinate of each pair (`inverse_frequencies`).
      block: features of a block, b; even.

    Returns:
      For G = 2R/b blocks the T = b(b-1)/2 entries above the diagonal, which turn the planes (2j, 2j + 1) and are 0
      elsewhere. Stack them over coordinates for `lie_rotations`.

    Raises:
      ValueError: if the block is not a positive even number, or the frequencies do not fill whole blocks.

    Source: planar RoPE, Su et al. 2021, eq. 15, as a special case of Ostmeier et al. 2024.
    """
    check_arrays(frequencies=frequencies)
    block = count("block", block, even=True)
    if frequencies.ndim != 1 or frequencies.shape[0] % (block // 2):
        raise ValueError(
            f"frequencies must be one-dimensional, with {block // 2} for each block, but have shape {frequencies.shape}"
        )
    rows, columns = np.triu_indices(block, 1)
    planes = np.flatnonzero((rows % 2 == 0) & (columns == rows + 1))
    by_block = frequencies.astype(jnp.float32).reshape(-1, block // 2)
    return jnp.zeros((by_block.shape[0], len(rows)), jnp.float32).at[:, planes].set(-by_block)


def _weighted_sum(weights: Float32[Array, "*batch C"], arrays: Float32[Array, "C *shape"]) -> Float32[Array, "..."]:
    """Computes sum_c weights_c arrays_c term by term: a TPU would round the factors of a matrix product to bfloat16."""
    rank = weights.ndim - 1
    terms = (weights[..., c] * of_rank(arrays[c], rank) for c in range(len(arrays)))
    return sum(terms, start=jnp.zeros((), jnp.float32))


@jax.custom_jvp
def _exp(skew: Float32[Array, "*batch b b E"]) -> Float32[Array, "*batch b b E"]:
    """Computes exp of skew-symmetric matrices, made orthogonal again by one step of Newton and Schulz."""
    rotation = _expm1(skew) + _identity(skew)
    return 0.5 * _product(rotation, 3 * _identity(skew) - _product(jnp.swapaxes(rotation, -3, -2), rotation))


def _expm1(a: Float32[Array, "*batch b b E"]) -> Float32[Array, "*batch b b E"]:
    """Computes exp(a) - 1, without the 1, because each squaring would double its rounding error."""
    # The norm of the entries above the diagonal bounds every angle: angles come in pairs of both signs.
    norm = jnp.sqrt(0.5 * jnp.sum(jax.lax.stop_gradient(a) ** 2, axis=(-3, -2), keepdims=True))
    a = jnp.where(norm <= LARGEST_ANGLE, a, jnp.nan)
    _, exponent = jnp.frexp(4 * norm)
    squarings = jnp.clip(exponent, 0, 27)
    a = a * jnp.exp2(-squarings.astype(jnp.float32))  # to a norm below 1/4, where 7 terms are right to 1e-8
    square = _product(a, a)
    cube = _product(square, a)
    result = a + square / 2 + cube / 6 + _product(cube, a / 24 + square / 120 + cube / 720)

    # Each matrix gets as many squarings as it needs itself, so that no event depends on another.
    return jax.lax.fori_loop(
        0, squarings.max(initial=0), lambda i, y: jnp.where(i < squarings, 2 * y + _product(y, y), y), result
    )


def _product(x: Float32[Array, "*batch b b E"], y: Float32[Array, "*batch b b E"]) -> Float32[Array, "*batch b b E"]:
    """Multiplies matrices in float32 on every device; barriers keep XLA from computing each factor b times."""
    x, y = jax.lax.optimization_barrier((x, y))
    terms = (x[..., :, k, None, :] * y[..., None, k, :, :] for k in range(x.shape[-2]))
    return jax.lax.optimization_barrier(sum(terms, start=jnp.zeros((), jnp.float32)))


def _identity(like: Float32[Array, "*batch b b E"]) -> Float32[Array, "*ones b b 1"]:
    return of_rank(jnp.eye(like.shape[-2], dtype=jnp.float32)[..., None], like.ndim)


@_exp.defjvp
def _exp_jvp(primals, tangents):  # type: ignore[no-untyped-def]
    (skew,), (along,) = primals, tangents
    # The adjoint of the derivative at A is the derivative at A^T = -A. This keeps no matrix of any squaring in memory.
    return _exp(skew), linear_call(_slope, lambda skew, cotangent: _slope(-skew, cotangent), skew, along)


def _slope(skew: Float32[Array, "*shape"], along: Float32[Array, "*shape"]) -> Float32[Array, "*shape"]:
    return jax.jvp(_expm1, (skew,), (along,))[1]
