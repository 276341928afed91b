"""Rotations of queries and keys by position, time and metadata: one file a source, and the table of their kinds."""

import dataclasses
from typing import Any

from flax import nnx

from siren_rope_jax.nn.rotary.base import RotarySource, SharedSettings, SourceInputs
from siren_rope_jax.nn.rotary.lie import LieRotary, LieSettings
from siren_rope_jax.nn.rotary.none import NoRotation
from siren_rope_jax.nn.rotary.ordinal import OrdinalRotary
from siren_rope_jax.nn.rotary.scaling import ScalingConfig
from siren_rope_jax.nn.rotary.siren import SirenRotary, SirenSettings
from siren_rope_jax.nn.rotary.time_order import TimeOrderRotary, TimeOrderSettings
from siren_rope_jax.settings import check_kind

__all__ = [
    "ROTARIES",
    "LieSettings",
    "RotaryConfig",
    "ScalingConfig",
    "SirenRotary",
    "SirenSettings",
    "SourceInputs",
    "TimeOrderSettings",
    "make_rotary",
]

ROTARIES: dict[str, type[RotarySource]] = {
    "none": NoRotation,
    "ordinal": OrdinalRotary,
    "time_order": TimeOrderRotary,
    "siren": SirenRotary,
    "lie": LieRotary,
}


@dataclasses.dataclass(frozen=True)
class RotaryConfig(SharedSettings):
    """Which angles rotate queries and keys."""

    kind: str = "siren"
    """none, ordinal (RoPE), time_order (TO-RoPE), siren (SIREN-RoPE), or lie (LieRE: learned rotations of blocks)."""
    time_order: TimeOrderSettings = dataclasses.field(default_factory=TimeOrderSettings)
    """TO-RoPE; read with kind time_order alone."""
    siren: SirenSettings = dataclasses.field(default_factory=SirenSettings)
    """SIREN-RoPE; read with kind siren alone."""
    lie: LieSettings = dataclasses.field(default_factory=LieSettings)
    """LieRE; read with kind lie alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_kind(self, "rotary", {kind: source.reads for kind, source in ROTARIES.items()})

    @property
    def source(self) -> type[RotarySource]:
        """The class of the kind."""
        return ROTARIES[self.kind]

    @property
    def own(self) -> Any:
        """The settings that this kind alone reads; None if it has none."""
        return getattr(self, self.kind, None)


def make_rotary(config: RotaryConfig, inputs: SourceInputs, rngs: nnx.Rngs) -> RotarySource:
    """Builds the source that the configuration names.

    Args:
      config: kind and its settings.
      inputs: sizes of the model and of its inputs.
      rngs: stream "params".

    Returns:
      A module called as `rotary(events, metadata, token)`, giving the rotations of the blocks and of the action
      attention, or None where nothing rotates.

    Raises:
      ValueError: if a setting does not fit the heads or its method.
    """
    return config.source(config, config.own, inputs, rngs)
