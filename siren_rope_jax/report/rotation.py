"""The rotation that a trained model has learned: its angles over hours, days and weeks.

Every source is asked for its rotation of chosen moments, all at position 0, so that nothing here depends on its kind.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft
import scipy.signal
from flax import nnx
from jaxtyping import Array, Float, Float32, Float64, Int

from siren_rope_jax.batch import Events
from siren_rope_jax.nn.features import InputSpec
from siren_rope_jax.nn.rotary.base import RotarySource
from siren_rope_jax.nn.rotary.smoothness import fast_share_of_week, middle_week
from siren_rope_jax.ops.calendar import SECONDS_PER_DAY

SECONDS_PER_HOUR = 3_600
_AT_ONCE = 2_000_000  # numbers of rotated vectors, to bound the memory
_MOMENTS_AT_ONCE = 512
_HOURS_AT_ONCE = 4_096


def rotated_basis(
    rotary: RotarySource, spec: InputSpec, seconds: Int[np.ndarray, " T"]
) -> Float32[np.ndarray, "T M P P"]:
    """Rotates each unit vector of a query at chosen moments, and brings the results to length 1.

    Args:
      rotary: trained without metadata.
      spec: calendar span of the training data.
      seconds: local seconds since the start of the training span.

    Returns:
      For each moment and each set of angles (one for all heads, or one a key head), the images of the unit vectors.

    Raises:
      ValueError: if the rotation depends on metadata too.
    """
    images = np.concatenate(list(_bases(rotary, spec, seconds)))
    return images[:, :1] if (images == images[:, :1]).all() else images


def _bases(
    rotary: RotarySource, spec: InputSpec, seconds: Int[np.ndarray, " T"]
) -> Iterator[Float32[np.ndarray, "t M P P"]]:
    """Yields the rotated basis of some moments at a time, with the sets of angles of all heads."""
    if rotary.metadata_features:
        raise ValueError("the rotation must depend on time alone, but depends on metadata too")
    graph, state = nnx.split(rotary)
    chunk = min(_MOMENTS_AT_ONCE, max(1, _AT_ONCE // (rotary.key_heads * rotary.rotated**2)))
    for start in range(0, len(seconds), chunk):
        part = seconds[start : start + chunk]
        padded = np.pad(part, (0, chunk - len(part)), mode="edge")  # so that all chunks have one shape
        images = np.asarray(_images(graph, state, _moments(spec, padded)))[: len(part)]
        lengths = np.linalg.norm(images, axis=-1, keepdims=True)
        yield images / np.where(lengths > 0, lengths, 1)


@functools.partial(jax.jit, static_argnums=0)
def _images(graph: nnx.GraphDef[RotarySource], state: nnx.State, moments: Events) -> Float32[Array, "T M P P"]:
    rotary = nnx.merge(graph, state)
    count, heads, width = moments.segment.shape[1], rotary.key_heads, rotary.rotated
    query = jnp.broadcast_to(jnp.tile(jnp.eye(width), (heads, 1)), (1, count, heads * width, width))
    rotations = rotary(moments, jnp.zeros((1, count, 0)), jnp.zeros((1, count, rotary.width)))
    turned = query if rotations is None else rotations[0](query, query[:, :, :heads])[0]
    return turned.reshape(count, heads, width, width)


def _moments(spec: InputSpec, seconds: Int[np.ndarray, " T"]) -> Events:
    """Makes one row of events at chosen moments, each alone in its segment, at position 0, without any other input."""
    day, second = np.divmod(seconds, SECONDS_PER_DAY)
    ints = {"segment": np.arange(1, len(seconds) + 1), "position": np.zeros_like(seconds), "elapsed_seconds": seconds}
    ints |= {"day": day + spec.start_day, "second": second}
    arrays: dict[str, Any] = {name: values[None].astype(np.int32) for name, values in ints.items()}
    arrays |= dict.fromkeys(("dense", "actions", "context"), np.zeros((1, len(seconds), 0), np.float32))
    arrays["ids"] = np.zeros((1, len(seconds), 0), np.int32)
    return Events(**arrays)


def turns_pairs(basis: Float32[np.ndarray, "T M P P"]) -> bool:
    """Returns whether a rotation turns the pairs (j, j + P/2) and mixes nothing else, so that angles describe it."""
    pairs = np.eye(basis.shape[-1]) + np.roll(np.eye(basis.shape[-1]), basis.shape[-1] // 2, axis=1)
    return bool((basis[..., pairs == 0] == 0).all())


def time_angles(rotary: RotarySource, spec: InputSpec, seconds: Int[np.ndarray, " T"]) -> Float64[np.ndarray, "T R"]:
    """Computes the learned angles of chosen moments, without the ordinal part.

    Args:
      rotary: trained without metadata; it must turn pairs.
      spec: calendar span of the training data.
      seconds: local seconds since the start of the training span, ascending. Angles are continued from each to the next
        over as many moments between them as keep the fastest pair below a quarter turn, so that none is taken for a
        slower one; a pair that turns half a turn a second or more cannot be followed.

    Returns:
      Angles in radians; with angles per head, those of all heads, one head after the other.

    Raises:
      ValueError: if the rotation depends on metadata too, or turns more than pairs.
    """
    first, second = (np.concatenate(list(_wrapped(rotary, spec, seconds + later))) for later in (0, 1))
    rate = np.abs(_shortest(second - first)).max()
    gaps = np.diff(seconds, append=seconds[-1] + 1)
    parts = int(np.clip(np.ceil(rate * gaps.max() / (np.pi / 2)), 1, gaps.max()))
    between = (seconds[:, None] + gaps[:, None] * np.arange(parts) // parts).ravel()
    kept, last, angle, at = [], first[0], first[0], 0
    for part in _wrapped(rotary, spec, between):
        angles = angle + _shortest(np.diff(part, axis=0, prepend=last[None])).cumsum(axis=0)
        kept.append(angles[-at % parts :: parts])
        last, angle, at = part[-1], angles[-1], at + len(part)
    found = np.concatenate(kept)
    heads = found.reshape(len(seconds), rotary.key_heads, -1)
    return heads[:, 0] if (heads == heads[:, :1]).all() else found


def _wrapped(
    rotary: RotarySource, spec: InputSpec, seconds: Int[np.ndarray, " T"]
) -> Iterator[Float64[np.ndarray, "t R"]]:
    """Yields the angles of some moments at a time, between minus and plus half a turn."""
    for basis in _bases(rotary, spec, seconds):
        if not turns_pairs(basis):
            raise ValueError("the rotation must turn pairs to have angles, but turns larger blocks")
        pairs = basis.shape[-1] // 2
        first = np.arange(pairs)
        cos, sin = (basis[:, :, first, first + shift].astype(np.float64) for shift in (0, pairs))
        yield np.arctan2(sin, cos).reshape(len(basis), -1)


def _shortest(turns: Float64[np.ndarray, "T R"]) -> Float64[np.ndarray, "T R"]:
    return (turns + np.pi) % (2 * np.pi) - np.pi


def mean_cosine(rotary: RotarySource, spec: InputSpec, lag_hours: Int[np.ndarray, " L"]) -> Float[np.ndarray, " L"]:
    """Averages the cosine between a vector rotated now and later, over vectors and every hour of the training span.

    For a rotation of pairs this is the cosine of the angle difference. 1 means that the rotation does not distinguish
    two moments, whatever the hour; 0, that they are unrelated.

    Args:
      rotary: trained without metadata.
      spec: calendar span of the training data.
      lag_hours: non-negative lags, shorter than the span.

    Returns:
      The mean cosine at each lag.

    Raises:
      ValueError: if a lag is negative or not shorter than the span, or the rotation depends on metadata too.
    """
    hours = int(spec.span_days * 24)
    if lag_hours.min() < 0 or lag_hours.max() >= hours:
        raise ValueError(f"lags must be at least 0 and below {hours} hours, but run to {lag_hours.max()}")
    longest, products = int(lag_hours.max()), 0.0
    for start in range(0, hours, _HOURS_AT_ONCE):  # to bound the memory
        now = min(_HOURS_AT_ONCE, hours - start)
        moments = np.arange(start, min(start + now + longest, hours)) * SECONDS_PER_HOUR
        basis = rotated_basis(rotary, spec, moments)
        rows = basis.shape[1] * basis.shape[2]
        products += lagged_products(basis.reshape(len(basis), -1), now, longest) / rows
    return (products / (hours - np.arange(longest + 1)))[lag_hours]


def lagged_products(series: Float[np.ndarray, "T D"], now: int, longest: int) -> Float64[np.ndarray, " L"]:
    """Sums the inner products of the first `now` vectors with those 0 to `longest` later, where there are such."""
    series = series[:, (series != 0).any(axis=0)].astype(np.float64)
    size = int(scipy.fft.next_fast_len(max(len(series), longest + 1) + now, real=True))  # type: ignore[arg-type]
    cross = np.zeros(size // 2 + 1, np.complex128)
    for column in series.T:  # one at a time, to bound the memory
        cross += np.conj(np.fft.rfft(column[:now], size)) * np.fft.rfft(column, size)
    return np.fft.irfft(cross, size)[: longest + 1]


def periodogram(values: Float[np.ndarray, " L"]) -> tuple[Float64[np.ndarray, " F"], Float64[np.ndarray, " F"]]:
    """Computes the power of hourly values at each frequency, in cycles per day, as shares of their sum.

    The straight line that fits best is taken away, and a Hann window keeps strong periods from leaking far.
    """
    frequencies, power = scipy.signal.periodogram(values, fs=24.0, window="hann", detrend="linear")
    total = power[1:].sum()
    return frequencies[1:], power[1:] / total if total > 0 else power[1:]


def fast_share(rotary: RotarySource, spec: InputSpec, *, cycles_per_day: float = 4.0) -> float:
    """Computes how much of the learned angles is noise to a calendar: the share of their variance at high frequencies.

    Args:
      rotary: trained without metadata.
      spec: calendar span of the training data.
      cycles_per_day: frequencies above this one count as high; the fourth harmonic of the day is not above 4.

    Returns:
      Share of the variance of all pairs together over a week in the middle of the training span, less the line that
      fits each pair best; 0 if no more than rounding is left.

    Raises:
      ValueError: if the rotation depends on metadata too, or turns more than pairs.
    """
    return float(fast_share_of_week(time_angles(rotary, spec, middle_week(spec)), cycles_per_day=cycles_per_day))
