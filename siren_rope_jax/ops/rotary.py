"""Sine and cosine of the angles, and the rotation of feature pairs by them."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

# pi/2 as a sum: three pieces of 12 bits, so that 12 bits of a multiple times each piece is exact in float32.
_HALF_PI = tuple(
    np.float32(float.fromhex(piece)) for piece in ("0x1.922p+0", "-0x1.2aep-18", "-0x1.deap-31", "0x1.184698p-44")
)
_LARGEST_ANGLE = np.float32(2**24)


@jax.custom_jvp
def sincos(angles: Float[Array, "*shape"]) -> tuple[Float32[Array, "*shape"], Float32[Array, "*shape"]]:
    """Computes sine and cosine together, several times faster than one after the other on a CPU.

    Args:
      angles: radians.

    Returns:
      (sin, cos), float32, each within 2e-7 for |angle| <= 2^20; up to 2^24 the error stays below float32's own
      spacing there; NaN beyond, where neighbouring float32 angles are more than a radian apart.

    Source: Cody and Waite 1980, argument reduction; minimax polynomials on [-pi/4, pi/4] of Cephes (Moshier).
    """
    x = jnp.asarray(angles).astype(jnp.float32)
    multiple = jnp.round(x * np.float32(2 / np.pi))
    high = jnp.round(multiple * np.float32(2**-12)) * np.float32(2**12)
    low = multiple - high
    for piece in _HALF_PI:
        x = (x - high * piece) - low * piece
    square = x * x
    sin = x + x * square * (-1.6666654611e-1 + square * (8.3321608736e-3 + square * -1.9515295891e-4))
    cos = 1 + square * (
        -0.5 + square * (4.166664568298827e-2 + square * (-1.388731625493765e-3 + square * 2.443315711809948e-5))
    )
    quadrant = multiple.astype(jnp.int32) & 3
    odd = quadrant & 1 == 1
    sin, cos = jnp.where(odd, cos, sin), jnp.where(odd, sin, cos)
    sin = jnp.where(quadrant >= 2, -sin, sin)
    cos = jnp.where((quadrant == 1) | (quadrant == 2), -cos, cos)
    meaningful = jnp.abs(angles) <= _LARGEST_ANGLE
    return jnp.where(meaningful, sin, jnp.nan), jnp.where(meaningful, cos, jnp.nan)


@sincos.defjvp
def _sincos_jvp(primals, tangents):  # type: ignore[no-untyped-def]
    (angles,), (tangent,) = primals, tangents
    sin, cos = sincos(angles)
    tangent = tangent.astype(jnp.float32)
    return (sin, cos), (cos * tangent, -sin * tangent)


def rotate_pairs(
    x: Float[Array, "B S N H"],
    sin: Float[Array, "B S R"] | Float[Array, "B S N R"],
    cos: Float[Array, "B S R"] | Float[Array, "B S N R"],
    *,
    interleaved: bool = False,
) -> Float[Array, "B S N H"]:
    """Rotates each feature pair of `x` by an angle whose sine and cosine are known.

    The form for several layers that share their angles: `sincos` once, `rotate_pairs` in every layer.

    Args:
      x: queries or keys; H == 2 R.
      sin: sine of the angles, shared by all heads or one set per head.
      cos: cosine of the angles, in the same shape.
      interleaved: pair (2j, 2j + 1), as in the authors' and other PyTorch weights, instead of (j, j + R).

    Returns:
      Rotated array in the dtype of `x`; the norm of every pair is preserved.

    Raises:
      ValueError: if H is odd or does not match R, or the batch axes do not match.

    Source: Su et al. 2021, eq. 34.
    """
    if x.shape[-1] != 2 * sin.shape[-1]:
        raise ValueError(
            f"the head dimension must be twice the number of angles, but is {x.shape[-1]} for {sin.shape[-1]} angles"
        )
    if sin.shape != cos.shape or sin.shape[:-1] not in (x.shape[:2], x.shape[:3]):
        raise ValueError(
            f"angles must have the [B, S] or [B, S, N] of x, {x.shape[:3]}, and then R, "
            f"but have shapes {sin.shape} and {cos.shape}"
        )
    if sin.ndim == 3:
        sin, cos = sin[:, :, None], cos[:, :, None]
    wide = x.astype(jnp.float32)
    if interleaved:
        first, second = wide[..., 0::2], wide[..., 1::2]
    else:
        first, second = jnp.split(wide, 2, axis=-1)
    real, imaginary = first * cos - second * sin, first * sin + second * cos
    if interleaved:
        rotated = jnp.stack([real, imaginary], axis=-1).reshape(x.shape)
    else:
        rotated = jnp.concatenate([real, imaginary], axis=-1)
    return rotated.astype(x.dtype)


def apply_rotary(
    x: Float[Array, "B S N H"],
    angles: Float[Array, "B S R"] | Float[Array, "B S N R"],
    *,
    interleaved: bool = False,
) -> Float[Array, "B S N H"]:
    """Rotates each feature pair of `x`, seen as a complex number, by its angle.

    Args:
      x: queries or keys; H == 2 R.
      angles: radians, float32, shared by all heads or one set per head.
      interleaved: pair (2j, 2j + 1), as in the authors' and other PyTorch weights, instead of (j, j + R).

    Returns:
      Rotated array in the dtype of `x`; the norm of every pair is preserved.

    Raises:
      ValueError: if H is odd or does not match R, the batch axes do not match, or `angles` is less than
        float32 (bfloat16 holds an angle of 100 only to 0.5 radians).

    Source: Su et al. 2021, eq. 34.
    """
    if angles.dtype not in (jnp.float32, jnp.float64):
        raise ValueError(f"angles must be float32, but are {angles.dtype}")
    return rotate_pairs(x, *sincos(angles), interleaved=interleaved)
