"""Rotation angles, in radians, from positions, time and the angle network: plain arrays that add and concatenate."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int, Num

from siren_rope_jax.ops.siren import SirenParams, siren_apply

PerPair = float | Float[Array, ""] | Float[Array, " R"]


def ordinal_angles(positions: Num[Array, "*batch"], frequencies: Float[Array, " R"]) -> Float32[Array, "*batch R"]:
    """Computes the angles of ordinary RoPE, p theta_j.

    Args:
      positions: ordinal position of each event; only differences matter.
      frequencies: radians per position of each rotary pair (`inverse_frequencies`).

    Returns:
      Angles in radians, float32.

    Raises:
      ValueError: if `frequencies` is not one-dimensional.

    Source: Su et al. 2021, eq. 15.
    """
    if frequencies.ndim != 1:
        raise ValueError(f"frequencies must be one-dimensional, but has shape {frequencies.shape}")
    return jnp.asarray(positions).astype(jnp.float32)[..., None] * frequencies.astype(jnp.float32)


def time_order_angles(
    positions: Num[Array, "*batch"],
    elapsed_days: Float[Array, "*batch"],
    frequencies: Float[Array, " R"],
    *,
    position_scale: PerPair = 1.0,
    time_scale: PerPair = 0.01,
) -> Float32[Array, "*batch R"]:
    """Computes the angles of TO-RoPE by early fusion: order and time share every rotary pair.

    Args:
      positions: ordinal position of each event.
      elapsed_days: days since any fixed moment; take the difference in integers before it becomes a float.
      frequencies: radians per position of each rotary pair.
      position_scale: weight of the position, (1 - l) a_p in the source; one number or one per pair.
      time_scale: positions that a day is worth, l a_t in the source; one number or one per pair.

    Returns:
      (position_scale p + time_scale days) theta_j in radians, float32.

    Raises:
      ValueError: if positions and days differ in shape, or frequencies is not one-dimensional.

    Source: Wei et al. 2025 (arXiv 2510.20455), early fusion; the defaults are those of Cheng, Sun, Lu 2026.
    """
    if positions.shape != elapsed_days.shape:
        raise ValueError(
            f"positions and elapsed_days must have one shape, but have {positions.shape} and {elapsed_days.shape}"
        )
    order = ordinal_angles(positions, frequencies) * position_scale
    return order + ordinal_angles(elapsed_days, frequencies) * time_scale


def siren_rope_angles(
    positions: Int[Array, "*batch"] | Float[Array, "*batch"],
    features: Float[Array, "*batch F"],
    frequencies: Float[Array, " R"],
    params: SirenParams,
    *,
    scale: PerPair,
    gate: float | Float[Array, ""],
    omega0: float = 10.0,
) -> Float32[Array, "*batch R"]:
    """Computes the angles of SIREN-RoPE: a learned function of time, plus the gated ordinal angle.

    Args:
      positions: ordinal position of each event.
      features: time features (`calendar_features`), and metadata where the network takes it.
      frequencies: radians per position of each rotary pair.
      params: angle network with R outputs (`siren_init`).
      scale: learned factor of each pair, omega_j; the paper starts it at pi.
      gate: learned factor of the ordinal angle, lambda; the paper starts it at 1.
      omega0: frequency of the sine layers.

    Returns:
      f(features)_j scale_j + p theta_j gate, in radians, float32.

    Raises:
      ValueError: if positions do not fit the features, or the network does not have R outputs.

    Source: Cheng, Sun, Lu 2026 (arXiv 2604.24717), eq. 1.
    """
    if positions.shape != features.shape[:-1]:
        raise ValueError(
            f"features must have the shape of positions plus one axis, but have {features.shape} and {positions.shape}"
        )
    learned = siren_apply(params, features, omega0=omega0)
    if learned.shape[-1:] != frequencies.shape:
        raise ValueError(
            f"the angle network must have one output per frequency, {frequencies.shape}, but has {learned.shape[-1]}"
        )
    return learned * scale + ordinal_angles(positions, frequencies) * gate
