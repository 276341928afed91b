"""Rotation of blocks of features by learned orthogonal matrices: pairs, and the angle of each, are no longer fixed."""

from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32

from siren_rope_jax.batch import Events
from siren_rope_jax.nn.config import RotaryConfig
from siren_rope_jax.nn.features import InputSpec
from siren_rope_jax.ops.calendar import elapsed_days
from siren_rope_jax.ops.lie import lie_rotations, planar_generators, rotate_blocks

Heads = Float[Array, "B S _ H"]  # keys may have fewer than queries


class BlockRotation(NamedTuple):
    """Turns blocks of features by orthogonal matrices."""

    matrices: Float32[Array, "B S G b b"]

    def __call__(self, query: Heads, key: Heads) -> tuple[Heads, Heads]:
        """Returns rotated queries and keys."""

        def rotate(x: Heads) -> Heads:
            turned = self.matrices.shape[-3] * self.matrices.shape[-1]
            return jnp.concatenate([rotate_blocks(x[..., :turned], self.matrices), x[..., turned:]], axis=-1)

        return rotate(query), rotate(key)


class LieRotary(nnx.Module):
    """Learned rotations of blocks of features by position and time, which start as ordinal RoPE.

    Source: Ostmeier et al. 2024 (arXiv 2406.10322).
    """

    def __init__(self, config: RotaryConfig, head_dim: int, spec: InputSpec):
        """Sets the generators: those of position to planar RoPE, those of time to 0.

        Raises:
          ValueError: if the blocks do not divide the rotated features, or the scaling does not fit its method.
        """
        self.config = config
        rotated = config.rotated(head_dim)
        if config.block_size % 2 or rotated % config.block_size:
            raise ValueError(
                f"block_size must be even and divide the {rotated} rotated features of a head, "
                f"but is {config.block_size}"
            )
        scaled = config.scaling.frequencies("scaling", rotated, config.base, spec.window)
        self.attention_factor = scaled.attention_factor
        planar = planar_generators(scaled.frequencies, config.block_size)
        self.generators = nnx.Param(jnp.stack([planar, jnp.zeros_like(planar)]))

    def __call__(
        self, events: Events, metadata: Float[Array, "B S F"], token: Float[Array, "B S D"]
    ) -> tuple[BlockRotation, BlockRotation]:
        """Returns the same rotation for the blocks and the action attention."""
        days = elapsed_days(events.elapsed_seconds)
        coordinates = jnp.stack([events.position.astype(jnp.float32), days * self.config.time_scale], axis=-1)
        rotation = BlockRotation(lie_rotations(coordinates, self.generators[...]) * self.attention_factor)
        return rotation, rotation
