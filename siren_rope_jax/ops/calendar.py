"""Exact Unix time -> (local day, second of day) on the host -> cyclic features on the device.

float32 holds a Unix time of today only to 128 s, and JAX without x64 narrows int64 to int32. So time is split on
the host, in int64, into two int32 numbers that the device can use without loss.
"""

import datetime
import warnings
import zoneinfo
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int, Integer
from numpy.typing import ArrayLike

from siren_rope_jax.ops.arguments import (
    check_flags,
    check_unmasked,
    count,
    described,
    device_floats,
    number,
    of_rank,
    signed_32,
)
from siren_rope_jax.ops.cycles import cycle_phase
from siren_rope_jax.ops.sincos import sincos

SECONDS_PER_DAY = 86_400
# The proleptic Gregorian years 1 to 9999, which is what datetime (and so zoneinfo) can represent.
_FAR = 2**30 - 1  # days
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799


def split_unix_time(
    time: ArrayLike, *, unit: str = "s", utc_offset: int | ArrayLike = 0, time_zone: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Splits Unix time into the local calendar day and the second of that day, exactly, on the host.

    Args:
      time: integers, any shape; Unix seconds or milliseconds, UTC.
      unit: "s" or "ms"; milliseconds are rounded down to the second. A warning tells of "milliseconds" that all lie
        before 1973 and look like seconds.
      utc_offset: seconds to add for local time, one number or one per event (+28800 is UTC+8).
      time_zone: IANA name such as "America/Sao_Paulo", daylight saving included; excludes `utc_offset`.

    Returns:
      (day, second): int32 arrays in the shape of `time`; day counts from 1970-01-01, 0 <= second < 86400.

    Raises:
      ValueError: if `time` or `utc_offset` is not of integers, lies outside the years 1 to 9999, the unit or the
        zone is unknown, or both a zone and an offset are given.
    """
    check_unmasked("time", time)
    check_unmasked("utc_offset", utc_offset)
    time, offset = np.asarray(time), np.asarray(utc_offset)
    if time.dtype.kind not in "iu":  # NumPy's integers include durations
        raise ValueError(f"time must be integers (floating point loses seconds), but its dtype is {time.dtype}")
    if not isinstance(unit, str) or unit not in ("s", "ms"):
        raise ValueError(f'unit must be "s" or "ms", but is {described(unit)}')
    if offset.dtype.kind not in "iu":
        raise ValueError(f"utc_offset must be integer seconds, but its dtype is {offset.dtype}")
    if time_zone is not None and np.any(offset != 0):
        raise ValueError(f"give time_zone or utc_offset, not both: time_zone is {described(time_zone)}")
    try:
        np.broadcast_to(offset, time.shape)
    except ValueError:
        raise ValueError(f"utc_offset must match time of shape {time.shape}, but has shape {offset.shape}") from None
    per_second = 1 if unit == "s" else 1000
    # As integers of Python, since uint64 may lie beyond int64.
    first, last = (int(x) // per_second for x in (time.min(), time.max())) if time.size else (0, 0)
    if unit == "ms" and first >= 10**5 and last < 10**8:
        dates = [datetime.datetime.fromtimestamp(second, datetime.UTC).date() for second in (first, last)]
        warnings.warn(
            f'times look like seconds, but unit is "ms", which puts them from {dates[0]} to {dates[1]}', stacklevel=2
        )
    day_of_slack = SECONDS_PER_DAY  # so that adding an offset stays inside the years too
    if first < _FIRST_SECOND + day_of_slack or last > _LAST_SECOND - day_of_slack:
        raise ValueError(
            f"time must lie in the years 1 to 9999, but runs from {time.min()} to {time.max()} in {unit!r}"
        )
    if np.any((offset > SECONDS_PER_DAY) | (offset < -SECONDS_PER_DAY)):
        raise ValueError(f"utc_offset must be within a day, but runs from {offset.min()} to {offset.max()} s")
    seconds = time.astype(np.int64) // per_second
    if time_zone is not None:
        offset = _zone_offsets(seconds.ravel(), time_zone).reshape(seconds.shape)
    day, second = np.divmod(seconds + offset, SECONDS_PER_DAY)
    return np.asarray(day, np.int32), np.asarray(second, np.int32)


def _zone_offsets(seconds: np.ndarray, time_zone: str) -> np.ndarray:
    """Returns the UTC offset of each time; asks zoneinfo once per UTC day, per second on days of a clock change."""
    try:
        zone = zoneinfo.ZoneInfo(time_zone if isinstance(time_zone, str) else "")
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        given = described(time_zone)
        raise ValueError(f"time_zone must be an IANA zone such as 'Europe/Paris', but is {given}") from None

    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)

    def offsets(unix_seconds: np.ndarray) -> np.ndarray:
        moments = ((epoch + datetime.timedelta(seconds=int(s))).astimezone(zone) for s in unix_seconds)
        return np.array(
            [round((moment.utcoffset() or datetime.timedelta()).total_seconds()) for moment in moments], np.int64
        )

    days, which = np.unique(seconds // SECONDS_PER_DAY, return_inverse=True)
    at_start, at_end = offsets(days * SECONDS_PER_DAY), offsets((days + 1) * SECONDS_PER_DAY - 1)
    result, changing = at_start[which], (at_start != at_end)[which]
    moments, which = np.unique(seconds[changing], return_inverse=True)
    result[changing] = offsets(moments)[which]
    return result


def elapsed_days(elapsed_seconds: Integer[Array, "*batch"]) -> Float32[Array, "*batch"]:
    """Returns whole seconds as days, the unit of every frequency of time.

    Args:
      elapsed_seconds: since any start; float32 resolves single seconds in the first 128 days.

    Raises:
      ValueError: if they are not integers or floats of at least 32 bits.
    """
    return device_floats("elapsed_seconds", elapsed_seconds) / SECONDS_PER_DAY


PERIODS = {"day": SECONDS_PER_DAY, "week": 7 * SECONDS_PER_DAY, "year": 365 * SECONDS_PER_DAY + 20_952}  # seconds
_SINCE = {
    "day": lambda day, second: second,
    "week": lambda day, second: day % 7 * SECONDS_PER_DAY + second,
    # 400 years are 146,097 days: in parts of 1/400 day, 216 s, the days since the last New Year fit into int32.
    "year": lambda day, second: (day % 146_097 * 400 % 146_097 * 216 + second) % PERIODS["year"],
}
_MOST_TURNS = 64  # times a year in seconds fits into int32

CALENDAR_COLUMNS = {"day": (0, 1), "week": (2, 3), "span": (4,)}  # of `calendar_features`


def calendar_features(
    day: Int[Array, "*batch"],
    second: Int[Array, "*batch"],
    *,
    start_day: int,
    span_days: float,
    clamp: bool = True,
) -> Float32[Array, "*batch 5"]:
    """Computes the paper's five time features, to 1e-6, for any date.

    Args:
      day: local calendar days since 1970-01-01 (`split_unix_time`).
      second: second of that day.
      start_day: day on which the training span starts.
      span_days: length of the training span, in days.
      clamp: keep the long-range offset at -1 or 1 outside the training span. An unclamped offset feeds the angle
        network inputs that it never saw, and its output drifts without bound as a deployed model ages; switch the
        clamp off for parity with the authors' weights, or to extend the time axis itself.

    Returns:
      [cos day, sin day, cos week, sin week, T~], float32. The week's phase counts from the Unix epoch, a Thursday;
      T~ runs from -1 at the start of the training span to 1 at its end. All are NaN where `second` is not within a day.

    Raises:
      ValueError: if the arrays are not integers of one shape, the span is not a positive number, the start no whole
        one, or a `second` of the host is not within a day.

    Source: Cheng, Sun, Lu 2026 (arXiv 2604.24717), section 3.2.
    """
    day, second, within = _checked(day, second)
    span_days = number("span_days", span_days, above=0)
    start_day = count("start_day", start_day, least=-(2**31))
    check_flags(clamp=clamp)
    (sin_day, cos_day), (sin_week, cos_week) = (
        sincos(cycle_phase(_SINCE[period](day, second), PERIODS[period])) for period in ("day", "week")
    )
    # Within three million years a difference fits.
    days_in = (jnp.clip(day, -_FAR, _FAR) - min(max(start_day, -_FAR), _FAR)).astype(jnp.float32)
    offset = days_in * (2 / span_days) - 1 + second.astype(jnp.float32) * (2 / (SECONDS_PER_DAY * span_days))
    offset = jnp.clip(offset, -1, 1) if clamp else offset
    features = jnp.stack([cos_day, sin_day, cos_week, sin_week, offset], axis=-1)
    return jnp.where(within[..., None], features, jnp.nan)


def calendar_angles(
    day: Int[Array, "*batch"], second: Int[Array, "*batch"], *, period: str, turns: Sequence[int]
) -> Float32[Array, "*batch R"]:
    """Computes angles that turn whole times in a calendar period, 2 pi k t / P, to 1e-6, for any date.

    Rotary pairs with these angles score two events by how far apart they are within the day, the week or the year.

    Args:
      day: local calendar days since 1970-01-01 (`split_unix_time`).
      second: second of that day.
      period: "day", "week" (from the Unix epoch, a Thursday) or "year" (the Gregorian mean of 365.2425 days, from
        1970-01-01: New Year wanders by less than two days).
      turns: k of each pair, whole numbers: any other would tear the period apart where it starts anew.

    Returns:
      Angles in (-pi, pi], radians, float32; NaN where `second` is not within a day. They are reduced in integers, so
      that those of many turns are as exact as those of one.

    Raises:
      ValueError: if the arrays are not integers of one shape, the period is unknown, a number of turns is not from 1 to
        64, or a `second` of the host is not within a day.

    Source: the rotation by cyclic axes, in whole turns, is ours; the periods are those of Cheng, Sun, Lu 2026.
    """
    day, second, within = _checked(day, second)
    if not isinstance(period, str) or period not in PERIODS:
        raise ValueError(f"period must be one of {', '.join(PERIODS)}, but is {described(period)}")
    if isinstance(turns, str) or not isinstance(turns, Sequence) or not turns:
        raise ValueError(f"turns must be a sequence of whole numbers, but is {described(turns)}")
    factors = np.asarray([count("a number of turns", k, most=_MOST_TURNS) for k in turns], np.int32)
    since = _SINCE[period](day, second)[..., None]
    angles = cycle_phase(since * of_rank(factors, since.ndim), PERIODS[period])
    return jnp.where(within[..., None], angles, jnp.nan)


def calendar_harmonics(
    day: Int[Array, "*batch"], second: Int[Array, "*batch"], *, period: str, harmonics: int
) -> Float32[Array, "*batch F"]:
    """Computes the harmonics of a calendar period, cos and sin of 2 pi k t / P for k = 1 to K, to 1e-6, for any date.

    Args:
      day: local calendar days since 1970-01-01 (`split_unix_time`).
      second: second of that day.
      period: "day", "week" (from the Unix epoch, a Thursday) or "year" (the Gregorian mean of 365.2425 days, from
        1970-01-01: New Year wanders by less than two days).
      harmonics: K, number of frequencies.

    Returns:
      [cos 1, sin 1, cos 2, sin 2, ...], float32, 2 K numbers an event; NaN where `second` is not within a day. The
      phases are reduced in integers, so that the last harmonic is as exact as the first. The first one of day and week
      is that of `calendar_features`, bit for bit.

    Raises:
      ValueError: if the arrays are not integers of one shape, the period is unknown, the number is not from 1 to 64,
        or a `second` of the host is not within a day.

    Source: Fourier features of the periods that Cheng, Sun, Lu 2026, section 3.2, name with one frequency each.
    """
    harmonics = count("harmonics", harmonics, most=_MOST_TURNS)
    sin, cos = sincos(calendar_angles(day, second, period=period, turns=range(1, harmonics + 1)))
    return jnp.stack([cos, sin], axis=-1).reshape(*sin.shape[:-1], 2 * harmonics)


def _checked(
    day: Int[Array, "*batch"], second: Int[Array, "*batch"]
) -> tuple[Int[Array, "*batch"], Int[Array, "*batch"], Bool[Array, "*batch"]]:
    """Checks local days and seconds, and returns them as integers of 32 bits, and which seconds lie within a day."""
    given = second
    day, second = signed_32("day", day), signed_32("second", second)
    if not (jnp.issubdtype(day.dtype, jnp.integer) and jnp.issubdtype(second.dtype, jnp.integer)):
        raise ValueError(f"day and second must be integers, but their dtypes are {day.dtype} and {second.dtype}")
    if day.shape != second.shape:
        raise ValueError(f"day and second must have one shape, but have {day.shape} and {second.shape}")
    if isinstance(given, np.ndarray) and ((given < 0) | (given >= SECONDS_PER_DAY)).any():
        raise ValueError(f"second must lie within a day, but runs from {given.min()} to {given.max()}")
    return day, second, (second >= 0) & (second < SECONDS_PER_DAY)
