"""PoPE: directions of the features by position, magnitudes by content."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32

from siren_rope_jax.batch import Events
from siren_rope_jax.nn.rotary.base import Axis, Heads, RotarySource, SharedSettings, SourceInputs
from siren_rope_jax.ops.angles import ordinal_angles
from siren_rope_jax.ops.frequencies import inverse_frequencies
from siren_rope_jax.ops.pope import polar_features


class PolarDirections(NamedTuple):
    """Directions of the features of queries and keys, which get twice as wide."""

    query: Float32[Array, "B S H"]
    key: Float32[Array, "B S M H"]

    def __call__(self, query: Heads, key: Heads) -> tuple[Float[Array, "B S _ W"], Float[Array, "B S _ W"]]:
        """Returns queries and keys of these directions."""
        return polar_features(query, self.query), polar_features(key, self.key)


class PopeRotary(RotarySource):
    """PoPE by positions, with learned offsets of each key head's features that start at 0. Source: arXiv 2509.10534."""

    reads = frozenset({"base"})
    widens = True

    def __init__(self, config: SharedSettings, settings: None, inputs: SourceInputs, rngs: nnx.Rngs):
        """Starts the offsets at 0."""
        super().__init__(config, settings, inputs, rngs)
        self.offsets = nnx.Param(jnp.zeros((inputs.key_heads, inputs.head_dim), jnp.float32))

    @classmethod
    def unbounded(cls, config: SharedSettings, settings: Any) -> set[Axis]:
        """Returns positions."""
        return {"positions"}

    def __call__(
        self, events: Events, metadata: Float[Array, "B S F"], token: Float[Array, "B S D"]
    ) -> tuple[PolarDirections, PolarDirections]:
        """Returns the same directions for the blocks and the action attention."""
        angles = ordinal_angles(events.position, inverse_frequencies(2 * self.head_dim, base=self.config.base))
        directions = PolarDirections(angles, angles[:, :, None] + self.offsets[...])
        return directions, directions
