"""PoPE: magnitudes from content, angles from position, so that what and where do not mix."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from siren_rope_jax.ops.arguments import check_arrays
from siren_rope_jax.ops.rotary import apply_rotary


def polar_features(x: Float[Array, "*batch N H"], angles: Float[Array, "*angles H"]) -> Float[Array, "*batch N W"]:
    """Turns each feature into a complex number whose length is softplus(x) and whose direction is its angle alone.

    The score of a query and a key is then a sum of softplus(q_c) softplus(k_c) cos(angle_q,c - angle_k,c). Heads are
    twice as wide afterwards: keep the scale of the attention at 1/sqrt(H), with H the width before.

        theta = inverse_frequencies(2 * H, base=base)  # one frequency a feature
        query = polar_features(query, ordinal_angles(positions, theta))
        key = polar_features(key, ordinal_angles(positions, theta)[..., None, :] + offsets)  # offsets: learned [M, H]

    Args:
      x: queries or keys, [batch axes, sequence, heads, H]; normalise them before, not after.
      angles: radians, one for each feature: shared by all heads, [..., S, H], or one set for each of M groups of
        neighbouring heads, [..., S, M, H]. Axes before may have size 1, and [S, H] serves any batch. The source keeps
        its learned offsets of the keys in [-2 pi, 0]; being angles, they need no bounds.

    Returns:
      [real parts, imaginary parts], twice as wide as `x`, in its dtype.

    Raises:
      ValueError: if `x` is not of floats, or the angles do not fit it or are less than float32.

    Source: PoPE (arXiv 2509.10534).
    """
    check_arrays(x=x, angles=angles)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"x must be floating-point numbers, but is {x.dtype}")
    if x.shape[-1:] != angles.shape[-1:]:
        raise ValueError(f"angles must be one for each of the features of x, {x.shape}, but have shape {angles.shape}")
    magnitudes = jax.nn.softplus(x.astype(jnp.float32))
    turned = apply_rotary(jnp.concatenate([magnitudes, jnp.zeros_like(magnitudes)], axis=-1), angles)
    return turned.astype(x.dtype)
