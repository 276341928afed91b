"""Rotation by several axes, each on rotary pairs of its own: position, hour, weekday, season, date."""

import dataclasses
from typing import Literal

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from siren_rope_jax.batch import Events
from siren_rope_jax.nn.rotary.base import Angles, AngleSource, Axis, SharedSettings, SourceInputs
from siren_rope_jax.ops.angles import ordinal_angles
from siren_rope_jax.ops.calendar import CALENDAR_COLUMNS, calendar_angles
from siren_rope_jax.ops.frequencies import inverse_frequencies

AxisName = Literal["position", "day", "week", "year", "span"]


@dataclasses.dataclass(frozen=True)
class AxesSettings:
    """Settings of the rotation by several axes."""

    names: tuple[AxisName, ...] = ("position", "day", "week", "span")
    """Axes: positions, time of day, of week and of year, and place in the training span."""
    sections: tuple[int, ...] = ()
    """Rotary pairs of each axis; as equal as can be if not given, the first axes getting one more."""

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) != len(self.names):
            raise ValueError(f"names must each be given once, and at least one, but are {self.names}")
        if self.sections and (len(self.sections) != len(self.names) or min(self.sections) < 1):
            raise ValueError(f"sections must give each of {self.names} at least 1 pair, but are {self.sections}")


class AxesRotary(AngleSource):
    """Angles of one axis for each pair: cyclic axes turn whole times in their period, 1, 2, 3, ... times.

    Source: the sections of Qwen2-VL (arXiv 2409.12191), with axes of time in place of those of a picture.
    """

    settings: AxesSettings
    reads = frozenset({"base", "partial", "content_bound"})

    def __init__(self, config: SharedSettings, settings: AxesSettings, inputs: SourceInputs, rngs: nnx.Rngs):
        """Shares out the pairs.

        Raises:
          ValueError: if the sections are not all pairs, or there are fewer pairs than axes.
        """
        super().__init__(config, settings, inputs, rngs)
        pairs, axes = self.rotated // 2, len(settings.names)
        if pairs < axes or (settings.sections and sum(settings.sections) != pairs):
            given = f"{settings.names} with sections {settings.sections or 'of equal size'}"
            raise ValueError(f"axes must share out the {pairs} rotary pairs of a head, but are {given}")
        self.sections = settings.sections or tuple(pairs // axes + (axis < pairs % axes) for axis in range(axes))

    @classmethod
    def reads_base(cls, settings: AxesSettings) -> bool:
        """Returns whether positions are an axis."""
        return "position" in settings.names

    @classmethod
    def unbounded(cls, config: SharedSettings, settings: AxesSettings) -> set[Axis]:
        """Returns positions, if they are an axis; the place in the span is clamped."""
        return {"positions"} if "position" in settings.names else set()

    def angles(self, events: Events, metadata: Float[Array, "B S F"]) -> tuple[Angles, Angles]:
        """Returns the same angles for the blocks and the action attention."""
        parts = [self._axis(name, size, events) for name, size in zip(self.settings.names, self.sections, strict=True)]
        angles = jnp.concatenate(parts, axis=-1)
        return angles, angles

    def _axis(self, name: AxisName, pairs: int, events: Events) -> Float[Array, "B S R"]:
        if name == "position":
            return ordinal_angles(events.position, inverse_frequencies(2 * pairs, base=self.config.base))
        if name == "span":
            every = self.spec.time_features(events.day, events.second)
            # Half a turn over the span for the slowest pair, and twice as fast for each further one.
            place = every[..., CALENDAR_COLUMNS["span"][0]]
            return ordinal_angles(place, jnp.asarray(np.pi / 2 * 2.0 ** np.arange(pairs), jnp.float32))
        angles = calendar_angles(events.day, events.second, period=name, turns=range(1, pairs + 1))
        return angles if self.spec.calendar else jnp.zeros_like(angles)
