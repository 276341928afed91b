"""Attention biases of the time between two events: decay in three shapes, and damped waves of calendar periods."""

import dataclasses
import math
from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int

from siren_rope_jax.ops.arguments import check_arrays, count, described, number
from siren_rope_jax.ops.calendar import SECONDS_PER_DAY
from siren_rope_jax.ops.sincos import sincos
from siren_rope_jax.ops.slots import OfSlots, between, check_axes, sides_of

_SHAPES = ("exponential", "power", "stretched")
_MOST_SECONDS = 2**31 - 1


def time_decay_bias(
    times: Int[Array, "B S"],
    rates: Float[Array, " N"],
    *,
    shape: str = "exponential",
    days: float = 1.0,
    heights: Float[Array, " N"] | None = None,
    exponents: Float[Array, " N"] | None = None,
    key_times: Int[Array, "B T"] | None = None,
) -> OfSlots:
    """Makes a bias that falls with the time x = |t_query - t_key| / days between two events: [B, N, Q, K], float32.

    Args:
      times: Unix seconds of each query; the difference of any two int32 times does not overflow.
      rates: r, one per head and positive, learned or `alibi_slopes`.
      shape: "exponential", -r x; "power", -r ln(1 + x), which multiplies weights by (1 + x)^-r; or "stretched",
        h exp(-r x^b), which lifts what is recent by at most h.
      days: unit of x. Seconds would underflow: exp(-.2 x^.5) of a day is 3e-26 in seconds and .8 in days.
      heights: h of the shape "stretched", one per head.
      exponents: b of the shape "stretched", one per head and positive.
      key_times: those of the keys, if they are another sequence.

    Raises:
      ValueError: if times are not signed integers [B, S], the shape is unknown, its numbers are missing, of no use or
        not one for each rate, or days is not positive.

    Source: FuXi-beta and FuXi-gamma (arXiv 2512.12740), whose decay multiplies values; here it is added to the logits.
    """
    if not isinstance(shape, str) or shape not in _SHAPES:
        raise ValueError(f"shape must be one of {', '.join(_SHAPES)}, but is {described(shape)}")
    days = number("days", days, above=0)
    ((times, key_times),) = sides_of(times=(times, key_times))
    own = {"heights": heights, "exponents": exponents}
    for name, given in own.items():
        if (given is None) == (shape == "stretched"):
            needs = "needs" if given is None else "does not read"
            raise ValueError(
                f"the shape {shape} {needs} {name}, but they are {'missing' if given is None else 'given'}"
            )
    tables = {"rates": rates} | {name: given for name, given in own.items() if given is not None}
    check_arrays(**tables)
    for name, table in tables.items():
        check_axes(name, table, "[N]")
        if table.shape != rates.shape:
            raise ValueError(f"{name} must have the shape of rates, {rates.shape}, but have {table.shape}")
    arrays = times, key_times, tuple(map(jnp.asarray, tables.values()))
    return OfSlots(_Decay(shape, days), arrays, times.shape[1], key_times.shape[1])


@dataclasses.dataclass(frozen=True)
class _Decay:
    """Decay of a block; equal for equal settings, so that a compiled function knows it again."""

    shape: str
    days: float

    def __call__(
        self, arrays: tuple[Array, Array, tuple[Array, ...]], query_slots: Int[Array, " Q"], key_slots: Int[Array, " K"]
    ) -> Float32[Array, "B N Q K"]:
        """Computes the block."""
        times, key_times, tables = arrays
        rates, *own = (table.astype(jnp.float32)[None, :, None, None] for table in tables)
        seconds = between(times, key_times, query_slots, key_slots)[:, None]
        x = seconds.astype(jnp.float32) * (1 / (SECONDS_PER_DAY * self.days))
        if self.shape == "exponential":
            return -rates * x
        if self.shape == "power":
            return -rates * jnp.log1p(x)
        heights, exponents = own
        # The power of 0 has no derivative by its exponent: there 0^b is 0 for every b.
        positive = seconds > 0
        power = jnp.where(positive, jnp.exp(exponents * jnp.log(jnp.where(positive, x, 1.0))), 0.0)
        return heights * jnp.exp(-rates * power)


def periodic_bias(
    times: Int[Array, "B S"],
    cosines: Float[Array, "P N"],
    sines: Float[Array, "P N"],
    damping: Float[Array, " P"],
    *,
    periods: Sequence[int],
    key_times: Int[Array, "B T"] | None = None,
) -> OfSlots:
    """Makes a bias of damped waves of the time t between two events: [B, N, Q, K], float32.

    sum over the periods of exp(-g 2 pi t / P) (a cos(2 pi t / P) + b sin(2 pi t / P)): a day or a week ago may matter
    more than half a day ago, and less so the longer ago.

    Args:
      times: Unix seconds of each query; the difference of any two int32 times does not overflow.
      cosines: a, for each period and head.
      sines: b, likewise; with a it sets the phase.
      damping: g of each period, not negative; the source writes exp(-g) and starts it at .5, which leaves 1.3 % after
        one period: recurrence needs a smaller one (g = .105 leaves 52 %).
      periods: P, seconds, whole numbers. The phase is reduced in integers, exact for every difference.
      key_times: those of the keys, if they are another sequence.

    Raises:
      ValueError: if times are not signed integers [B, S], a period is no whole number of at least 2 s, or the tables do
        not fit the periods.

    Source: FuXi-Linear (arXiv 2602.23671), the temporal channel and the authors' code; there it weighs values, without
    queries and keys.
    """
    if isinstance(periods, str) or not isinstance(periods, Sequence) or not periods:
        raise ValueError(f"periods must be a sequence of seconds, but is {described(periods)}")
    seconds = tuple(count("a period", period, least=2, most=_MOST_SECONDS) for period in periods)
    ((times, key_times),) = sides_of(times=(times, key_times))
    tables = {"cosines": cosines, "sines": sines, "damping": damping}
    check_arrays(**tables)
    for name, table in tables.items():
        check_axes(name, table, "[P]" if name == "damping" else "[P, N]")
        expected = (len(seconds), *cosines.shape[1:])[: table.ndim]
        if table.shape != expected:
            raise ValueError(f"{name} must have shape {expected}, one row for each period, but have {table.shape}")
    arrays = times, key_times, *map(jnp.asarray, tables.values())
    return OfSlots(_Waves(seconds), arrays, times.shape[1], key_times.shape[1])


@dataclasses.dataclass(frozen=True)
class _Waves:
    """Waves of a block; equal for equal periods, so that a compiled function knows it again."""

    periods: tuple[int, ...]

    def __call__(
        self, arrays: tuple[Array, ...], query_slots: Int[Array, " Q"], key_slots: Int[Array, " K"]
    ) -> Float32[Array, "B N Q K"]:
        """Computes the block."""
        times, key_times, cosines, sines, damping = (
            x if jnp.issubdtype(x.dtype, jnp.integer) else x.astype(jnp.float32) for x in arrays
        )
        seconds = between(times, key_times, query_slots, key_slots)
        total = jnp.zeros((), jnp.float32)
        for k, period in enumerate(self.periods):
            turn = 2 * math.pi / period
            within = (seconds % jnp.asarray(period, seconds.dtype)).astype(jnp.float32)
            sin, cos = sincos(within * turn)
            damped = jnp.exp(-damping[k] * (seconds.astype(jnp.float32) * turn))
            waves = cosines[k][None, :, None, None] * cos[:, None] + sines[k][None, :, None, None] * sin[:, None]
            total = total + damped[:, None] * waves
        return total
