"""Attention without rotation."""

from jaxtyping import Array, Float

from siren_rope_jax.batch import Events
from siren_rope_jax.nn.rotary.base import RotarySource


class NoRotation(RotarySource):
    """No rotation: queries and keys stay as they are."""

    reads = frozenset()

    def __call__(self, events: Events, metadata: Float[Array, "B S F"], token: Float[Array, "B S D"]) -> None:
        """Returns no rotations."""
        return None
