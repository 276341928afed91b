"""Ordinal RoPE."""

from jaxtyping import Array, Float

from siren_rope_jax.batch import Events
from siren_rope_jax.nn.rotary.base import Angles, AngleSource
from siren_rope_jax.ops.angles import ordinal_angles


class OrdinalRotary(AngleSource):
    """Angles of the positions alone. Source: Su et al. 2021."""

    def angles(self, events: Events, metadata: Float[Array, "B S F"]) -> tuple[Angles, Angles]:
        """Returns the same angles for the blocks and the action attention."""
        angles = ordinal_angles(events.position, self.frequencies())
        return angles, angles
