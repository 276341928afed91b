"""LieRE: rotation of blocks of features by learned orthogonal matrices, instead of fixed pairs."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32

from siren_rope_jax.batch import Events
from siren_rope_jax.nn.rotary.base import Axis, Heads, RotarySource, SharedSettings, SourceInputs
from siren_rope_jax.ops.calendar import elapsed_days
from siren_rope_jax.ops.lie import lie_rotations, planar_generators, rotate_blocks
from siren_rope_jax.settings import check_settings


@dataclasses.dataclass(frozen=True)
class LieSettings:
    """Settings of LieRE."""

    block_size: int = 8
    """Number of features in a block, even; 2 is planar RoPE with learned frequencies."""
    time_scale: float = 0.01
    """Positions per day: the factor of the time axis."""

    def __post_init__(self) -> None:
        check_settings(self, block_size="[2, inf)", time_scale="(-inf, inf)")


class BlockRotation(NamedTuple):
    """Rotation of blocks of features by orthogonal matrices."""

    matrices: Float32[Array, "B S G b b"]

    def __call__(self, query: Heads, key: Heads) -> tuple[Heads, Heads]:
        """Returns rotated queries and keys."""

        def rotate(x: Heads) -> Heads:
            turned = self.matrices.shape[-3] * self.matrices.shape[-1]
            return jnp.concatenate([rotate_blocks(x[..., :turned], self.matrices), x[..., turned:]], axis=-1)

        return rotate(query), rotate(key)


class LieRotary(RotarySource):
    """Learned rotations of blocks of features by position and time, which start as ordinal RoPE.

    Source: Ostmeier et al. 2024 (arXiv 2406.10322).
    """

    settings: LieSettings
    reads = frozenset({"base", "partial", "scaling"})

    def __init__(self, config: SharedSettings, settings: LieSettings, inputs: SourceInputs, rngs: nnx.Rngs):
        """Initialises the generators: those of position to planar RoPE, those of time to 0.

        Raises:
          ValueError: if the blocks do not divide the rotated features, or the scaling does not fit its method.
        """
        super().__init__(config, settings, inputs, rngs)
        if settings.block_size % 2 or self.rotated % settings.block_size:
            raise ValueError(
                f"block_size must be even and divide the {self.rotated} rotated features of a head, "
                f"but is {settings.block_size}"
            )
        scaled = config.scaling.frequencies("scaling", self.rotated, config.base, self.spec.window)
        self.attention_factor = scaled.attention_factor
        planar = planar_generators(scaled.frequencies, settings.block_size)
        self.generators = nnx.Param(jnp.stack([planar, jnp.zeros_like(planar)]))

    @classmethod
    def unbounded(cls, config: SharedSettings, settings: LieSettings) -> set[Axis]:
        """Returns times, and also positions if they have no scaling."""
        return {"positions", "times"} if config.scaling.rope_type == "default" else {"times"}

    def __call__(
        self, events: Events, metadata: Float[Array, "B S F"], token: Float[Array, "B S D"]
    ) -> tuple[BlockRotation, BlockRotation]:
        """Returns the same rotation for the blocks and the action attention."""
        days = elapsed_days(events.elapsed_seconds)
        coordinates = jnp.stack([events.position.astype(jnp.float32), days * self.settings.time_scale], axis=-1)
        rotation = BlockRotation(lie_rotations(coordinates, self.generators[...]) * self.attention_factor)
        return rotation, rotation
