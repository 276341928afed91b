"""How much of the learned angles is noise to a calendar: their variance at high frequencies."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from siren_rope_jax.nn.features import InputSpec
from siren_rope_jax.ops.calendar import SECONDS_PER_DAY

_STEP = 300  # seconds
_WEEK = 7
_MONDAY = 4  # days after 1970-01-01, a Thursday
_ROUNDING = 1e-5  # radians


def middle_week(spec: InputSpec) -> Int[np.ndarray, " T"]:
    """Returns every fifth minute of a week, Monday on, in the middle of the training span, as seconds since its start.

    Hours alone would draw what turns faster than twelve times a day as something slow.
    """
    middle = spec.start_day + int(spec.span_days / 2)
    monday = middle - (middle - _MONDAY) % _WEEK - spec.start_day
    return monday * SECONDS_PER_DAY + np.arange(0, _WEEK * SECONDS_PER_DAY, _STEP)


def fast_share_of_week(angles: Float[jax.Array | np.ndarray, "T R"], *, cycles_per_day: float = 4.0) -> Any:
    """Computes the share of the variance of a week's angles at high frequencies.

    Args:
      angles: continuous angles in radians at equally spaced moments of one week. NumPy's are computed with in float64,
        which angles that grow over many turns need.
      cycles_per_day: frequencies above this one count as high; the fourth harmonic of the day is not above 4.

    Returns:
      A number: share of the variance of all pairs together, less the line that fits each pair best; 0 if no more than
      rounding is left.
    """
    xp: Any = jnp if isinstance(angles, jax.Array) else np
    moments = xp.linspace(-1.0, 1.0, len(angles))[:, None]
    centred = angles - angles.mean(axis=0)
    left = centred - moments * ((moments * centred).sum(axis=0) / (moments**2).sum())
    power = (xp.abs(xp.fft.rfft(left, axis=0)) ** 2).sum(axis=1)[1:]
    share = power[int(cycles_per_day * _WEEK) :].sum() / xp.maximum(power.sum(), xp.finfo(power.dtype).tiny)
    return xp.where(left.std() < _ROUNDING, 0.0, share)[()]
