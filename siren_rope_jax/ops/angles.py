"""Rotation angles, in radians, from positions, time, metadata and content: plain arrays that add and concatenate.

A source has no function of its own if another one covers it: semantic rotation is `siren_apply` on metadata, learned
frequencies are `ordinal_angles` with learned numbers, and a split by dimension is a weight of 0 or 1.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Num

from siren_rope_jax.ops.arguments import (
    check_arrays,
    check_flags,
    check_numbers,
    count,
    described,
    device_floats,
    number,
    of_rank,
)
from siren_rope_jax.ops.siren import Branches, SirenParams, siren_apply

# One number, one a pair, one a head (and pair): [], [R], [N, 1] or [N, R].
PerPair = float | Float[Array, ""] | Float[Array, " R"] | Float[Array, "N #R"]


def ordinal_angles(positions: Num[Array, "*batch"], frequencies: Float[Array, " R"]) -> Float32[Array, "*batch R"]:
    """Computes the angles of ordinary RoPE, p theta_j.

    Args:
      positions: ordinal position of each event; only differences matter.
      frequencies: radians per position of each rotary pair (`inverse_frequencies`). Learned ones of 16 bits are taken
        as they are; others should not be cut to them, as the error grows with the position.

    Returns:
      Angles in radians, float32.

    Raises:
      ValueError: if the positions are not integers or floats of at least 32 bits, or `frequencies` is no
        one-dimensional array.

    Source: Su et al. 2021, eq. 15.
    """
    check_arrays(frequencies=frequencies)
    if frequencies.ndim != 1:
        raise ValueError(f"frequencies must be one-dimensional, but has shape {frequencies.shape}")
    positions = device_floats("positions", positions)[..., None]
    return positions * of_rank(frequencies.astype(jnp.float32), positions.ndim)


def time_order_angles(
    positions: Num[Array, "*batch"],
    elapsed_days: Float[Array, "*batch"],
    frequencies: Float[Array, " R"],
    *,
    time_frequencies: Float[Array, " R"] | None = None,
    position_scale: PerPair = 1.0,
    time_scale: PerPair = 0.01,
) -> Float32[Array, "*batch R"] | Float32[Array, "*batch N R"]:
    """Computes the angles of TO-RoPE: order and time share the rotary pairs.

    Early fusion weighs both on every pair; weights of 0 and 1 per pair split them by dimension, and per head
    ([N, 1]) by head.

    Args:
      positions: ordinal position of each event.
      elapsed_days: days since any fixed moment; take the difference in integers before it becomes a float.
      frequencies: radians per position of each rotary pair.
      time_frequencies: radians of each pair per day times `time_scale`; `frequencies` if not given. To extend the
        time axis, `scaled_frequencies` with its lengths in days times `time_scale`.
      position_scale: weight of the position, (1 - l) a_p in the source; one number, one per pair, or [N, 1] or [N, R].
      time_scale: positions per day, l a_t in the source; one number, or in the same shapes.

    Returns:
      position_scale p theta_j + time_scale days theta_j in radians, float32; one set per head if a scale is.

    Raises:
      ValueError: if positions and days differ in shape, frequencies is not one-dimensional, the time frequencies are
        not as many, a scale fits neither pairs nor heads, or the scales are of different numbers of heads.

    Source: Wei et al. 2025 (arXiv 2510.20455); the defaults are those of Cheng, Sun, Lu 2026.
    """
    if jnp.shape(positions) != jnp.shape(elapsed_days):
        raise ValueError(
            "positions and elapsed_days must have one shape, "
            f"but have {jnp.shape(positions)} and {jnp.shape(elapsed_days)}"
        )
    order = _scaled(ordinal_angles(positions, frequencies), position_scale, "position_scale")
    time_frequencies = frequencies if time_frequencies is None else time_frequencies
    check_arrays(time_frequencies=time_frequencies)
    if time_frequencies.shape != frequencies.shape:
        raise ValueError(f"time_frequencies must have shape {frequencies.shape}, but have {time_frequencies.shape}")
    time = _scaled(
        ordinal_angles(device_floats("elapsed_days", elapsed_days), time_frequencies), time_scale, "time_scale"
    )
    return _sum(order, time, batch_axes=jnp.ndim(positions))


def siren_rope_angles(
    positions: Int[Array, "*batch"] | Float[Array, "*batch"],
    features: Float[Array, "*batch F"],
    frequencies: Float[Array, " R"],
    params: SirenParams | Branches,
    *,
    scale: PerPair,
    gate: PerPair,
    omega0: float | None = None,
) -> Float32[Array, "*batch R"] | Float32[Array, "*batch N R"]:
    """Computes the angles of SIREN-RoPE: a learned function of time, plus the gated ordinal angle.

    Args:
      positions: ordinal position of each event.
      features: time features (`calendar_features`) or some of them, and metadata where the network takes it.
      frequencies: radians per position of each rotary pair.
      params: angle network with R outputs (`siren_init`), or its branches alone.
      scale: learned factor of each pair, omega_j, or of each head's pairs, [N, R]; the paper starts it at pi.
      gate: learned factor of the ordinal angle, lambda, or one of each head, [N, 1]; the paper starts it at 1.
      omega0: frequency of the sine layers; needed with branches alone, since other parameters carry theirs.

    Returns:
      f(features)_j scale_j + p theta_j gate, in radians, float32; one set per head if scale or gate is.

    Raises:
      ValueError: if positions do not fit the features, the network does not have R outputs, a scale fits neither
        pairs nor heads, or scale and gate are of different numbers of heads.

    Source: Cheng, Sun, Lu 2026 (arXiv 2604.24717), eq. 1.
    """
    check_arrays(features=features, frequencies=frequencies)
    if jnp.shape(positions) != features.shape[:-1]:
        raise ValueError(
            "features must have the shape of positions plus one axis, "
            f"but have {features.shape} and {jnp.shape(positions)}"
        )
    learned = siren_apply(params, features, omega0=omega0)
    if learned.shape[-1:] != frequencies.shape:
        raise ValueError(
            f"the angle network must have one output per frequency, {frequencies.shape}, but has {learned.shape[-1]}"
        )
    order = _scaled(ordinal_angles(positions, frequencies), gate, "gate")
    return _sum(_scaled(learned, scale, "scale"), order, batch_axes=jnp.ndim(positions))


def content_angles(
    x: Float[Array, "*batch D"], kernel: Float[Array, "D R"] | Float[Array, "D N R"], *, bound: float = np.pi
) -> Float32[Array, "*batch R"] | Float32[Array, "*batch N R"]:
    """Computes angles from the token itself, to be added to those of another source.

    Args:
      x: representation of each event.
      kernel: learned projection, [D, R], or [D, N, R] for one set per head; a start of 0 adds nothing.
      bound: largest angle in radians, so that content never turns a pair by more.

    Returns:
      bound tanh(x kernel), in radians, float32.

    Raises:
      ValueError: if the kernel does not fit `x`, or the bound is not positive.

    Source: content-conditioned rotation as in Cheng, Sun, Lu 2026, section 4.3, with the token in place of metadata.
    """
    check_arrays(x=x, kernel=kernel)
    if not x.ndim:
        raise ValueError("x must have shape [..., D], but is one number")
    if kernel.ndim not in (2, 3) or kernel.shape[0] != x.shape[-1]:
        raise ValueError(f"kernel must have shape [{x.shape[-1]}, R] or [{x.shape[-1]}, N, R], but has {kernel.shape}")
    bound = number("bound", bound, above=0)
    # In full float32: a GPU or TPU would otherwise round the factors, and with them the angles, to 8 to 11 bits.
    projected = jnp.tensordot(
        x.astype(jnp.float32), kernel.astype(jnp.float32), axes=1, precision=jax.lax.Precision.HIGHEST
    )
    return bound * jnp.tanh(projected)


def section_angles(
    angles: Sequence[Float[Array, "*batch R"]], sections: Sequence[int], *, interleaved: bool = False
) -> Float32[Array, "*batch R"]:
    """Takes the angle of each rotary pair from one of several axes, such as time, row and column of a patch.

        of_axes = [ordinal_angles(p, scaled.frequencies) for p in (time, row, column)]
        angles = section_angles(of_axes, scaled.mrope_section, interleaved=scaled.mrope_interleaved)

    Args:
      angles: those of each axis for all R pairs.
      sections: number of pairs that turn by each axis, R together.
      interleaved: pairs go to the axes in turn, as in Qwen3-VL: pair j to axis a > 0 if j mod A is a and j is below
        A times the section of a; else to the first. Otherwise one section follows the other, as in Qwen2-VL.

    Returns:
      The angles in the shape of one axis, float32.

    Raises:
      ValueError: if the angles are less than float32, their shapes differ, there is not one section for each, the
        sections do not share out all pairs, or pairs in turn cannot be shared out so.

    Source: Qwen2-VL (arXiv 2409.12191) and Qwen3-VL, in Hugging Face transformers 5.24.
    """
    if isinstance(angles, jax.Array | np.ndarray) or not isinstance(angles, Sequence) or not angles:
        raise ValueError(f"angles must be a sequence of arrays, one for each axis, but is {described(type(angles))}")
    check_arrays(**{f"angles[{axis}]": x for axis, x in enumerate(angles)})
    if any(x.dtype not in (jnp.float32, jnp.float64) for x in angles):
        raise ValueError(f"angles must be float32, but are {sorted({str(x.dtype) for x in angles})}")
    if not angles[0].ndim or any(x.shape != angles[0].shape for x in angles):
        raise ValueError(f"angles must have one shape [..., R] on all axes, but have {[x.shape for x in angles]}")
    if isinstance(sections, str) or not isinstance(sections, Sequence):
        raise ValueError(f"sections must be a sequence of whole numbers, but is {described(sections)}")
    check_flags(interleaved=interleaved)
    counts, pairs, axes = [count("a section", n, least=0) for n in sections], angles[0].shape[-1], len(angles)
    if len(counts) != axes or sum(counts) != pairs:
        raise ValueError(f"sections must share out the {pairs} pairs among {axes} axes, but are {described(counts)}")
    of_pairs = np.repeat(np.arange(axes), counts)
    if interleaved:
        places, limits = np.arange(pairs), axes * np.asarray(counts)
        in_turn = places % axes
        of_pairs = np.where(places < limits[in_turn], in_turn, 0)
        if np.bincount(of_pairs, minlength=axes).tolist() != counts:
            raise ValueError(
                f"sections must leave the first axis the pairs that the others do not take in turn, but are {counts}"
            )
    result, *others = (jnp.asarray(x).astype(jnp.float32) for x in angles)
    for axis, of_axis in enumerate(others, start=1):
        result = jnp.where(of_rank(of_pairs == axis, result.ndim), of_axis, result)
    return result


def _scaled(angles: Float32[Array, "*batch R"], scale: PerPair, name: str) -> Float32[Array, "..."]:
    """Multiplies angles by a scale, with an axis of heads before the pairs if the scale has one."""
    check_numbers(**{name: scale})
    shape, pairs = jnp.shape(scale), angles.shape[-1]
    if len(shape) > 2 or (shape[-1:] not in ((), (pairs,)) and not (len(shape) == 2 and shape[-1] == 1)):
        raise ValueError(f"{name} must have shape [], [{pairs}], [N, 1] or [N, {pairs}], but has {shape}")
    angles = angles[..., None, :] if len(shape) == 2 else angles
    # A Python number stays one, which takes the type of the angles.
    factor = of_rank(scale, angles.ndim).astype(jnp.float32) if isinstance(scale, jax.Array | np.ndarray) else scale
    return (angles * factor).astype(jnp.float32)


def _sum(
    a: Float32[Array, "..."], b: Float32[Array, "..."], *, batch_axes: int
) -> Float32[Array, "*batch R"] | Float32[Array, "*batch N R"]:
    """Adds two arrays of angles, only one of which may have an axis of heads."""
    if a.ndim != b.ndim:
        a, b = (x[..., None, :] if x.ndim == batch_axes + 1 else x for x in (a, b))
    elif a.ndim > batch_axes + 1 and a.shape[-2] != b.shape[-2] and 1 not in (a.shape[-2], b.shape[-2]):
        raise ValueError(f"both scales must have one number of heads, but have {a.shape[-2]} and {b.shape[-2]}")
    return a + b
