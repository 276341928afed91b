"""Angles of cycles of whole seconds, exact for every time: a ladder of time scales, and what calendars share."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int

from siren_rope_jax.ops.arguments import count, described, number, of_rank, signed_32


def time_scale_periods(pairs: int, *, shortest: float, longest: float) -> tuple[int, ...]:
    """Computes the periods of a ladder of time scales, longest (shortest / longest)^(j / R) for pair j of R.

    Args:
      pairs: number of rotary pairs, R.
      shortest: seconds that the last period comes close to, at least 2; two events much closer look simultaneous.
      longest: seconds of the first period; two events may be apart by half of it before they look closer again.

    Returns:
      R whole numbers of seconds, for `cycle_angles`.

    Raises:
      ValueError: if pairs is no whole number of at least 1, or the scales are not 2 <= shortest < longest < 2^31.

    Source: CADET (arXiv 2602.11410), whose frequencies are (a / longest gap) b^(j / R); a is 2 pi here, and b the ratio
    of the scales. Its constants are not known to us.
    """
    pairs = count("pairs", pairs)
    shortest, longest = number("shortest", shortest, least=2), number("longest", longest)
    if not shortest < longest < 2**31:
        raise ValueError(f"longest must be above shortest, {shortest}, and below 2^31 seconds, but is {longest}")
    return tuple(round(longest * (shortest / longest) ** (pair / pairs)) for pair in range(pairs))


def cycle_angles(seconds: Int[Array, "*batch"], periods: Sequence[int]) -> Float32[Array, "*batch R"]:
    """Computes the angle of each rotary pair in its own cycle of time, 2 pi (t mod P_j) / P_j.

    Only time between two events matters to their scores. The remainder is taken in integers: as floats, a period of a
    minute would be off by .001 radians after a day and by .1 after three months.

    Args:
      seconds: whole seconds since any moment, such as Unix time.
      periods: one of whole seconds for each pair (`time_scale_periods`).

    Returns:
      Angles in (-pi, pi], radians, float32.

    Raises:
      ValueError: if seconds are not integers that fit int32, or a period is no whole number of at least 2.

    Source: CADET (arXiv 2602.11410): rotation by time on several scales, in place of positions.
    """
    seconds = signed_32("seconds", seconds)
    if not jnp.issubdtype(seconds.dtype, jnp.integer):
        raise ValueError(f"seconds must be integers, but the dtype is {seconds.dtype}")
    if isinstance(periods, str) or not isinstance(periods, Sequence) or not periods:
        raise ValueError(f"periods must be a sequence of whole seconds, but is {described(periods)}")
    lengths = np.asarray([count("a period", period, least=2) for period in periods], np.int32)
    return cycle_phase(seconds[..., None], lengths)


def cycle_phase(since: Int[Array, "*#shape"], period: int | np.ndarray) -> Float32[Array, "*shape"]:
    """Computes angles in (-pi, pi], centred in integers first: float32 is twice as fine near 0 as near 2 pi.

    Args:
      since: whole seconds since the start of a cycle or of any earlier one.
      period: length of the cycle in seconds, an integer of 32 bits, or one for each place along the last axis.
    """
    length = jnp.asarray(period, since.dtype) if isinstance(period, int) else of_rank(period, since.ndim)
    within = since % length
    centred = jnp.where(within > length - within, within - length, within)
    return centred.astype(jnp.float32) * of_rank(np.asarray(2 * np.pi / period, np.float32), since.ndim)
