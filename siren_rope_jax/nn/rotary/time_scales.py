"""Rotation by time alone, on a ladder of time scales."""

import dataclasses

from flax import nnx
from jaxtyping import Array, Float

from siren_rope_jax.batch import Events
from siren_rope_jax.nn.rotary.base import Angles, AngleSource, Axis, SharedSettings, SourceInputs
from siren_rope_jax.ops.calendar import SECONDS_PER_DAY
from siren_rope_jax.ops.cycles import cycle_angles, time_scale_periods
from siren_rope_jax.settings import check_settings

_MOST_DAYS = (2**31 - 1) // SECONDS_PER_DAY


@dataclasses.dataclass(frozen=True)
class TimeScalesSettings:
    """Settings of the ladder of time scales."""

    shortest_seconds: float = 60.0
    """Period that the fastest pair comes close to."""
    longest_days: float | None = None
    """Period of the slowest pair; twice the training span if not given, so that it never makes half a turn."""

    def __post_init__(self) -> None:
        check_settings(self, shortest_seconds="[2, inf)", longest_days=f"(0, {_MOST_DAYS}]")


class TimeScalesRotary(AngleSource):
    """Angles of the time between events in place of positions, from minutes to the training span.

    Source: CADET (arXiv 2602.11410), whose constants are not known to us.
    """

    settings: TimeScalesSettings
    reads = frozenset({"partial", "content_bound"})

    def __init__(self, config: SharedSettings, settings: TimeScalesSettings, inputs: SourceInputs, rngs: nnx.Rngs):
        """Computes the periods.

        Raises:
          ValueError: if the shortest is not below the longest, or `partial` leaves less than one pair.
        """
        super().__init__(config, settings, inputs, rngs)
        longest = settings.longest_days or min(2 * self.spec.span_days, _MOST_DAYS)
        scales = {"shortest": settings.shortest_seconds, "longest": longest * SECONDS_PER_DAY}
        try:
            self.periods = time_scale_periods(self.rotated // 2, **scales)
        except ValueError as error:
            raise ValueError(f"time_scales, in seconds: {error}") from None

    @classmethod
    def unbounded(cls, config: SharedSettings, settings: TimeScalesSettings) -> set[Axis]:
        """Returns nothing: only the time between two events matters, which the training span bounds."""
        return set()

    def angles(self, events: Events, metadata: Float[Array, "B S F"]) -> tuple[Angles, Angles]:
        """Returns the same angles for the blocks and the action attention."""
        angles = cycle_angles(events.elapsed_seconds, self.periods)
        return angles, angles
