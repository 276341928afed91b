"""The rotation that a trained model has learned: its angles over hours, days and weeks.

Every source is asked for its rotation of chosen moments, all at position 0, so that nothing here depends on its kind.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
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
    if rotary.metadata_features:
        raise ValueError("the rotation must depend on time alone, but depends on metadata too")
    graph, state = nnx.split(rotary)
    chunk = min(_MOMENTS_AT_ONCE, max(1, _AT_ONCE // (rotary.key_heads * rotary.rotated**2)))
    padded = np.pad(seconds, (0, -len(seconds) % chunk), mode="edge")  # so that all chunks have one shape
    parts = [np.asarray(_images(graph, state, _moments(spec, part))) for part in padded.reshape(-1, chunk)]
    images = np.concatenate(parts)[: len(seconds)]
    images = images[:, :1] if (images == images[:, :1]).all() else images
    lengths = np.linalg.norm(images, axis=-1, keepdims=True)
    return images / np.where(lengths > 0, lengths, 1)


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


def time_angles(rotary: RotarySource, spec: InputSpec, seconds: Int[np.ndarray, " T"]) -> Float32[np.ndarray, "T R"]:
    """Computes the learned angles of chosen moments, without the ordinal part.

    Args:
      rotary: trained without metadata; it must turn pairs.
      spec: calendar span of the training data.
      seconds: local seconds since the start of the training span, ascending; angles are continued from each to the next
        by the shorter way round, so that steps of minutes show what hours would not.

    Returns:
      Angles in radians; with angles per head, those of all heads, one head after the other.

    Raises:
      ValueError: if the rotation depends on metadata too, or turns more than pairs.
    """
    basis = rotated_basis(rotary, spec, seconds)
    if not turns_pairs(basis):
        raise ValueError("the rotation must turn pairs to have angles, but turns larger blocks")
    pairs = basis.shape[-1] // 2
    first = np.arange(pairs)
    cos, sin = basis[:, :, first, first], basis[:, :, first, first + pairs]
    return np.unwrap(np.arctan2(sin, cos).reshape(len(seconds), -1), axis=0)


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
    basis = rotated_basis(rotary, spec, np.arange(hours) * SECONDS_PER_HOUR)
    return autocorrelation(basis.reshape(hours, -1))[lag_hours] / (basis.shape[1] * basis.shape[2])


def autocorrelation(series: Float[np.ndarray, "T D"]) -> Float64[np.ndarray, " T"]:
    """Averages the inner product of vectors a lag apart, for every lag, over all pairs that lie that far apart."""
    moments = len(series)
    series = series[:, (series != 0).any(axis=0)].astype(np.float64)
    power = np.zeros(moments + 1)
    for column in series.T:  # one at a time, to bound the memory
        power += np.abs(np.fft.rfft(column, 2 * moments)) ** 2
    return np.fft.irfft(power, 2 * moments)[:moments] / np.arange(moments, 0, -1)


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
    angles = jnp.asarray(time_angles(rotary, spec, middle_week(spec)))
    return float(fast_share_of_week(angles, cycles_per_day=cycles_per_day))
