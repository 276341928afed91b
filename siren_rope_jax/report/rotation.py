"""The rotation that a trained SIREN-RoPE has learned: its angles over hours, days and weeks."""

import jax.numpy as jnp
import numpy as np
import scipy.signal
from jaxtyping import Float, Float32, Int

from siren_rope_jax.nn.features import InputSpec
from siren_rope_jax.nn.rotary import SirenRotary
from siren_rope_jax.ops.calendar import SECONDS_PER_DAY
from siren_rope_jax.ops.siren import siren_apply

SECONDS_PER_HOUR = 3_600
_STEP = 300  # seconds
_WEEK = 7
_MONDAY = 4  # days after 1970-01-01, a Thursday


def time_angles(rotary: SirenRotary, spec: InputSpec, seconds: Int[np.ndarray, " T"]) -> Float32[np.ndarray, "T R"]:
    """Computes the learned angles of chosen moments, without the ordinal part.

    Args:
      rotary: trained without metadata.
      spec: calendar span of the training data.
      seconds: local seconds since the start of the training span.

    Returns:
      Angles in radians; with scales per head, the angles of all heads, one head after the other.

    Raises:
      ValueError: if the angle network takes metadata too.
    """
    if rotary.settings.metadata:
        raise ValueError(f"the angles must depend on time alone, but depend on {rotary.settings.metadata} too")
    day, second = np.divmod(seconds, SECONDS_PER_DAY)
    features = rotary.time_features(jnp.asarray(day + spec.start_day, jnp.int32), jnp.asarray(second, jnp.int32))
    learned = siren_apply(rotary.angle_networks()[0], features, omega0=rotary.settings.omega0)
    per_head = learned[:, None] * rotary.scale[...]  # a scale that all heads share counts as one head
    return np.asarray(per_head).reshape(len(seconds), -1)


def mean_cosine(rotary: SirenRotary, spec: InputSpec, lag_hours: Int[np.ndarray, " L"]) -> Float[np.ndarray, " L"]:
    """Averages the cosine of the learned angle difference over pairs and over every hour of the training span.

    1 means that the rotation does not distinguish two moments, whatever the hour; 0, that they are unrelated.

    Args:
      rotary: trained without metadata.
      spec: calendar span of the training data.
      lag_hours: non-negative lags, shorter than the span.

    Returns:
      The mean cosine at each lag.

    Raises:
      ValueError: if a lag is negative or not shorter than the span.
    """
    hours = int(spec.span_days * 24)
    if lag_hours.min() < 0 or lag_hours.max() >= hours:
        raise ValueError(f"lags must be at least 0 and below {hours} hours, but run to {lag_hours.max()}")
    angles = time_angles(rotary, spec, np.arange(hours) * SECONDS_PER_HOUR)
    return np.array([np.cos(angles[lag:] - angles[: hours - lag]).mean() for lag in lag_hours.tolist()])


def fast_share(rotary: SirenRotary, spec: InputSpec, *, cycles_per_day: float = 4.0) -> float:
    """Computes how much of the learned angles is noise to a calendar: the share of their variance at high frequencies.

    Args:
      rotary: trained without metadata.
      spec: calendar span of the training data.
      cycles_per_day: frequencies above this one count as high; the fourth harmonic of the day is not above 4.

    Returns:
      Share of the variance of all pairs together over a week in the middle of the training span, less the line that
      fits each pair best; 0 if no angle changes.

    Raises:
      ValueError: if the angle network takes metadata too.
    """
    angles = scipy.signal.detrend(time_angles(rotary, spec, middle_week(spec)).astype(np.float64), axis=0)
    power = (np.abs(np.fft.rfft(angles, axis=0)) ** 2).sum(axis=1)[1:]
    total = power.sum()
    return float(power[int(cycles_per_day * _WEEK) :].sum() / total) if total > 0 else 0.0


def middle_week(spec: InputSpec) -> Int[np.ndarray, " T"]:
    """Returns every fifth minute of a week, Monday on, in the middle of the training span, as seconds since its start.

    Hours alone would draw what turns faster than twelve times a day as something slow.
    """
    middle = spec.start_day + int(spec.span_days / 2)
    monday = middle - (middle - _MONDAY) % _WEEK - spec.start_day
    return monday * SECONDS_PER_DAY + np.arange(0, _WEEK * SECONDS_PER_DAY, _STEP)
