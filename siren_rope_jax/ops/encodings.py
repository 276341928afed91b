"""Encodings of position and time that are added to embeddings or serve as their features, without any rotation."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Num

from siren_rope_jax.ops.angles import ordinal_angles
from siren_rope_jax.ops.arguments import check_arrays, count, device_floats, of_rank
from siren_rope_jax.ops.frequencies import inverse_frequencies
from siren_rope_jax.ops.sincos import sincos


def sinusoidal_encoding(
    positions: Num[Array, "*batch"], width: int, *, base: float = 10_000.0
) -> Float32[Array, "*batch D"]:
    """Computes the fixed encoding of the first Transformer.

    Args:
      positions: ordinal position of each event.
      width: features of the encoding, D; even.
      base: slowest wavelength over 2 pi, in the limit of many features.

    Returns:
      sin(p theta_j) at feature 2j and cos(p theta_j) at 2j + 1, float32; the dot product of two encodings depends on
      the distance of their positions alone.

    Raises:
      ValueError: if the width is not a positive even number or base is not a finite number above 1.

    Source: Vaswani et al. 2017, section 3.5.
    """
    width = count("width", width, even=True)
    sin, cos = sincos(ordinal_angles(positions, inverse_frequencies(width, base=base)))
    return jnp.stack([sin, cos], axis=-1).reshape(*sin.shape[:-1], width)


def time2vec(
    time: Float[Array, "*batch"], frequencies: Float[Array, " F"], phases: Float[Array, " F"]
) -> Float32[Array, "*batch F"]:
    """Computes learned features of time, one linear and the others periodic.

    Args:
      time: time since any fixed moment, for example in days; take the difference in integers before it becomes a float.
      frequencies: learned, radians per unit of time; the first is the slope of the linear feature.
      phases: learned, radians; the first is the offset of the linear feature.

    Returns:
      [w_0 t + f_0, sin(w_1 t + f_1), sin(w_2 t + f_2), ...], float32.

    Raises:
      ValueError: if the time is not floating point, or frequencies and phases are not one-dimensional, of one length
        of at least 1.

    Source: Kazemi et al. 2019 (arXiv 1907.05321), eq. 1.
    """
    check_arrays(time=time, frequencies=frequencies, phases=phases)
    if not jnp.issubdtype(time.dtype, jnp.floating):
        raise ValueError(f"time must be floating point, such as days since a fixed moment, but is {time.dtype}")
    if frequencies.ndim != 1 or frequencies.shape != phases.shape or not frequencies.size:
        raise ValueError(
            "frequencies and phases must be one-dimensional and of one length of at least 1, "
            f"but have shapes {frequencies.shape} and {phases.shape}"
        )
    angles = ordinal_angles(device_floats("time", time), frequencies)
    angles += of_rank(phases.astype(jnp.float32), angles.ndim)
    return jnp.concatenate([angles[..., :1], sincos(angles[..., 1:])[0]], axis=-1)
