"""Rotation of feature pairs by angles."""

import functools
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Num

from siren_rope_jax.ops.arguments import (
    check_arrays,
    check_flags,
    check_numbers,
    count,
    device_floats,
    number,
    of_rank,
)
from siren_rope_jax.ops.sincos import settled, sincos


def rotate_pairs(
    x: Float[Array, "*batch N H"],
    sin: Float[Array, "*angles R"],
    cos: Float[Array, "*angles R"],
    *,
    angles: Float[Array, "*angles R"] | None = None,
    interleaved: bool = False,
    partial: bool = False,
) -> Float[Array, "*batch N H"]:
    """Rotates each feature pair of `x` by an angle whose sine and cosine are known.

    For several layers that share their angles: call `sincos` once and `rotate_pairs` in every layer. Sine and cosine
    may carry a common factor (`attention_factor`, `xpos_scale`), which then stretches the pairs.

    Args:
      x: queries or keys, [batch axes, sequence, heads, H]; any number of batch axes, none too.
      sin: sine of the angles. With one axis less than `x` they are shared by all heads, [..., S, R]; with as many,
        [..., S, M, R], there is one set for each of M groups of neighbouring heads. Axes before may have size 1, and
        [S, R] serves any batch.
      cos: cosine of the angles, in the same shape.
      angles: the angles themselves, in the same shape. Derivatives are then taken by them instead of by sine and
        cosine, at half the cost; a common factor of sine and cosine must be a constant.
      interleaved: pair (2j, 2j + 1), as in the authors' and other PyTorch weights, instead of (j, j + R).
      partial: rotate the first 2 R features of a head and leave the others as they are.

    Returns:
      Rotated array in the dtype of `x`; the norm of every pair is preserved.

    Raises:
      ValueError: if H is odd or does not match R, the other axes do not match, or `x` is not floating-point.

    Source: Su et al. 2021, eq. 34; partial rotation as in GPT-NeoX (Black et al. 2022).
    """
    check_flags(interleaved=interleaved, partial=partial)
    check_arrays(x=x, sin=sin, cos=cos)
    if angles is not None:
        check_arrays(angles=angles)
        if not jnp.issubdtype(angles.dtype, jnp.floating):
            raise ValueError(f"angles must be floating-point numbers, but are {angles.dtype}")
    sin, cos = _for_batch(sin, x), _for_batch(cos, x)
    angles = None if angles is None else _for_batch(angles, x)
    if x.ndim < 2 or not jnp.issubdtype(x.dtype, jnp.floating) or sin.ndim < 1:
        raise ValueError(
            "x must be floating-point numbers [..., S, N, H] and the angles [..., R], "
            f"but x is {x.dtype} of shape {x.shape} and they have shape {sin.shape}"
        )
    width, pairs = x.shape[-1], sin.shape[-1]
    if width != 2 * pairs and not (partial and width > 2 * pairs):
        raise ValueError(
            f"the head dimension must be twice the number of angles{' or more' if partial else ''}, "
            f"but is {width} for {pairs} angles"
        )
    expected = x.shape[:-1] if sin.ndim == x.ndim else x.shape[:-2]
    fits = len(expected) == sin.ndim - 1 and all(
        given in (1, size) or (x.ndim == sin.ndim and axis == sin.ndim - 2 and given > 0 and size % given == 0)
        for axis, (given, size) in enumerate(zip(sin.shape[:-1], expected, strict=True))
    )
    if sin.shape != cos.shape or not fits or (angles is not None and angles.shape != sin.shape):
        shapes = [sin.shape, cos.shape] + ([] if angles is None else [angles.shape])
        raise ValueError(
            f"angles must have the [..., S] or [..., S, N] of x, {x.shape[:-1]}, and then R, "
            f"but have shapes {' and '.join(map(str, shapes))}"
        )
    turned = x[..., : 2 * pairs]
    if angles is None:
        turned = _turn(turned, sin, cos, interleaved)
    else:
        sin, cos = jax.lax.stop_gradient((sin, cos))
        turned = cast(Array, _turn_by(turned, angles, sin, cos, interleaved))
    return jnp.concatenate([turned, x[..., 2 * pairs :]], axis=-1) if width > 2 * pairs else turned


def _for_batch(angles: Float[Array, "*angles R"], x: Float[Array, "*batch N H"]) -> Float[Array, "*more R"]:
    """Adds the batch axes that angles [S, R] of all examples lack."""
    return angles[(None,) * (x.ndim - 3)] if angles.ndim == 2 and x.ndim > 3 else angles


def _grouped(x: Float[Array, "*batch N H"], angles: Float[Array, "*angles R"]) -> Float[Array, "*heads H"]:
    """Adds an axis for the groups of heads that share their angles, and casts to float32."""
    x = x.astype(jnp.float32)
    groups = angles.shape[-2] if angles.ndim == x.ndim else 1
    return x.reshape(*x.shape[:-2], groups, x.shape[-2] // groups, x.shape[-1])


def _halves(
    x: Float[Array, "*shape H"], interleaved: bool
) -> tuple[Float[Array, "*shape R"], Float[Array, "*shape R"]]:
    """Splits the pairs into real and imaginary parts."""
    if interleaved:
        return x[..., 0::2], x[..., 1::2]
    real, imaginary = jnp.split(x, 2, axis=-1)
    return real, imaginary


def _joined(parts: tuple[Float[Array, "*shape R"], Float[Array, "*shape R"]], interleaved: bool) -> Array:
    """Joins real and imaginary parts, along a last axis of pairs if they are interleaved."""
    return jnp.stack(parts, axis=-1) if interleaved else jnp.concatenate(parts, axis=-1)


def _by_group(angles: Float[Array, "*angles R"], of: Array) -> Float[Array, "*groups R"]:
    """Gives numbers of the angles the axes of `_grouped` queries or keys."""
    return angles[..., None, :] if angles.ndim == of.ndim else angles[..., None, None, :]


def _over_heads(x: Float[Array, "*groups R"], shape: tuple[int, ...]) -> Float[Array, "*heads R"]:
    """Repeats by doubling: XLA:CPU fuses the transpose, a sum by halves, with what it sums, unlike one over an axis."""
    heads = shape[-2]
    power_of_two = heads & -heads or 1
    x = jnp.broadcast_to(x, (*shape[:-2], heads // power_of_two, shape[-1]))
    while x.shape[-2] < heads:
        x = jnp.concatenate([x, x], axis=-2)
    return x


def _turn(
    x: Float[Array, "*batch N H"], sin: Float[Array, "*angles R"], cos: Float[Array, "*angles R"], interleaved: bool
) -> Float[Array, "*batch N H"]:
    real, imaginary = _halves(_grouped(x, sin), interleaved)
    sin, cos = (_by_group(part.astype(jnp.float32), x) for part in (sin, cos))
    parts = real * cos - imaginary * sin, real * sin + imaginary * cos
    return _joined(parts, interleaved).reshape(x.shape).astype(x.dtype)


@jax.custom_jvp
def _of_angles(
    angles: Float[Array, "*angles R"], sin: Float[Array, "*angles R"], cos: Float[Array, "*angles R"]
) -> tuple[Float[Array, "*angles R"], Float[Array, "*angles R"]]:
    """Returns the given sine and cosine, with or without a common factor, as functions of the angles."""
    return sin, cos


@_of_angles.defjvp
def _of_angles_jvp(primals, tangents):  # type: ignore[no-untyped-def]
    sin, cos = _of_angles(*primals)
    by = tangents[0].astype(jnp.float32)
    return (sin, cos), (cos * by, -sin * by)


@functools.partial(jax.custom_jvp, nondiff_argnums=(4,))
def _turn_by(
    x: Float[Array, "*batch N H"],
    angles: Float[Array, "*angles R"],
    sin: Float[Array, "*angles R"],
    cos: Float[Array, "*angles R"],
    interleaved: bool,
) -> Float[Array, "*batch N H"]:
    return _turn(x, sin, cos, interleaved)


@_turn_by.defjvp
def _turn_by_jvp(interleaved, primals, tangents):  # type: ignore[no-untyped-def]
    x, angles, sin, cos = primals
    of_x, of_angles, _, _ = tangents
    turned = _turn_by(x, angles, sin, cos, interleaved)
    sin, cos = _of_angles(angles, sin, cos)  # for derivatives of this derivative
    # The derivative of exp(i angle) x by the angle is that of i x turned; in float32 until it is, as are its sums.
    real, imaginary = _halves(_grouped(x, angles), interleaved)
    by = _over_heads(_by_group(settled(of_angles.astype(jnp.float32), angles), x), real.shape)
    along = _joined((-imaginary * by, real * by), interleaved).reshape(x.shape)
    tangent = _turn(of_x.astype(jnp.float32) + along, sin, cos, interleaved)
    return turned, tangent.astype(x.dtype)


def apply_rotary(
    x: Float[Array, "*batch N H"],
    angles: Float[Array, "*angles R"],
    *,
    scale: float | Float[Array, "..."] = 1.0,
    interleaved: bool = False,
    partial: bool = False,
) -> Float[Array, "*batch N H"]:
    """Multiplies each feature pair of `x`, seen as a complex number, by scale exp(i angle).

    Args:
      x: queries or keys, [batch axes, sequence, heads, H]; any number of batch axes, none too.
      angles: radians, float32. With one axis less than `x` they are shared by all heads, [..., S, R]; with as many,
        [..., S, M, R], there is one set for each of M groups of neighbouring heads. Axes before may have size 1, and
        [S, R] serves any batch.
      scale: factor of the pairs; one number (`attention_factor`) or an array that broadcasts to the angles
        (`xpos_scale` for queries, its inverse for keys).
      interleaved: pair (2j, 2j + 1), as in the authors' and other PyTorch weights, instead of (j, j + R).
      partial: rotate the first 2 R features of a head and leave the others as they are.

    Returns:
      Rotated array in the dtype of `x`; with scale 1 the norm of every pair is preserved.

    Raises:
      ValueError: if H is odd or does not match R, the other axes do not match, the scale does not broadcast to the
        angles, or `angles` is less than float32 (bfloat16 holds an angle of 100 only to 0.5 radians).

    Source: Su et al. 2021, eq. 34.
    """
    check_arrays(x=x, angles=angles)
    if angles.dtype not in (jnp.float32, jnp.float64):
        raise ValueError(f"angles must be float32, but are {angles.dtype}")
    sin, cos = sincos(angles)
    check_numbers(scale=scale)
    if not (isinstance(scale, float | int) and scale == 1):
        shape = jnp.shape(scale)
        sizes = zip(shape[::-1], angles.shape[::-1], strict=False)
        if len(shape) > angles.ndim or any(given not in (1, size) for given, size in sizes):
            raise ValueError(f"scale must broadcast to the angles, {angles.shape}, but has shape {shape}")
        factor = of_rank(scale, angles.ndim).astype(jnp.float32) if isinstance(scale, jax.Array | np.ndarray) else scale
        sin, cos = sin * factor, cos * factor
    return rotate_pairs(x, sin, cos, interleaved=interleaved, partial=partial)


def xpos_scale(
    positions: Num[Array, "*batch"], pairs: int, *, gamma: float = 0.4, scale_base: float = 512.0
) -> Float32[Array, "*batch R"]:
    """Computes the decay of xPos: it stretches queries and shrinks keys, so that distant pairs count less.

    Args:
      positions: position of each event; only differences matter. The inverse overflows float32 beyond some 70 scale
        bases: count from the middle, or take a larger base.
      pairs: rotary pairs, R.
      gamma: the fastest pair decays like (gamma/(1 + gamma))^(distance/scale_base).
      scale_base: positions over which the decay acts.

    Returns:
      zeta_j^(p/scale_base) with zeta_j = (j/R + gamma)/(1 + gamma), float32: the `scale` of queries in
      `apply_rotary`; its inverse is that of keys.

    Raises:
      ValueError: if there is no pair, or gamma or the base is not positive.

    Source: Sun et al. 2022 (arXiv 2212.10554), eq. 13 and its appendix.
    """
    pairs = count("pairs", pairs)
    gamma, scale_base = number("gamma", gamma, above=0), number("scale_base", scale_base, above=0)
    positions = device_floats("positions", positions)
    log_zeta = np.log((np.arange(pairs) / pairs + gamma) / (1 + gamma))
    by_position = of_rank((log_zeta / scale_base).astype(np.float32), positions.ndim + 1)
    return jnp.exp(positions[..., None] * by_position)
