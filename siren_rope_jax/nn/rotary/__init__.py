"""Rotations of queries and keys by position, time and metadata: one file per source, and the registry of kinds."""

import dataclasses
from typing import Any

from flax import nnx

from siren_rope_jax.nn.rotary.axes import AxesRotary, AxesSettings
from siren_rope_jax.nn.rotary.base import RotarySource, SharedSettings, SourceInputs
from siren_rope_jax.nn.rotary.lie import LieRotary, LieSettings
from siren_rope_jax.nn.rotary.none import NoRotation
from siren_rope_jax.nn.rotary.ordinal import OrdinalRotary
from siren_rope_jax.nn.rotary.pope import PopeRotary
from siren_rope_jax.nn.rotary.rote import RoteRotary
from siren_rope_jax.nn.rotary.scaling import ScalingConfig
from siren_rope_jax.nn.rotary.selective import SelectiveRotary, SelectiveSettings
from siren_rope_jax.nn.rotary.siren import SirenRotary, SirenSettings
from siren_rope_jax.nn.rotary.time_order import TimeOrderRotary, TimeOrderSettings
from siren_rope_jax.nn.rotary.time_scales import TimeScalesRotary, TimeScalesSettings
from siren_rope_jax.settings import check_kind

__all__ = [
    "ROTARIES",
    "AxesSettings",
    "LieSettings",
    "RotaryConfig",
    "ScalingConfig",
    "SelectiveSettings",
    "SirenRotary",
    "SirenSettings",
    "SourceInputs",
    "TimeOrderSettings",
    "TimeScalesSettings",
    "make_rotary",
]

ROTARIES: dict[str, type[RotarySource]] = {
    "none": NoRotation,
    "ordinal": OrdinalRotary,
    "time_order": TimeOrderRotary,
    "siren": SirenRotary,
    "lie": LieRotary,
    "rote": RoteRotary,
    "time_scales": TimeScalesRotary,
    "axes": AxesRotary,
    "pope": PopeRotary,
    "selective": SelectiveRotary,
}


@dataclasses.dataclass(frozen=True)
class RotaryConfig(SharedSettings):
    """Kind of the rotary source, the settings that sources share, and the settings of each kind."""

    kind: str = "siren"
    """Kind: none, ordinal (RoPE), time_order (TO-RoPE), siren (SIREN-RoPE), lie (LieRE: learned block rotations),
    rote (RoTE: complex factors of year, month and day), time_scales (CADET: time on a ladder of scales), axes
    (position, hour, weekday and date on pairs of their own), pope (PoPE: positions as directions), or selective
    (Selective RoPE: steps by content)."""
    time_order: TimeOrderSettings = dataclasses.field(default_factory=TimeOrderSettings)
    """Settings of TO-RoPE; read only with kind time_order."""
    siren: SirenSettings = dataclasses.field(default_factory=SirenSettings)
    """Settings of SIREN-RoPE; read only with kind siren."""
    lie: LieSettings = dataclasses.field(default_factory=LieSettings)
    """Settings of LieRE; read only with kind lie."""
    time_scales: TimeScalesSettings = dataclasses.field(default_factory=TimeScalesSettings)
    """Settings of the ladder of time scales; read only with kind time_scales."""
    axes: AxesSettings = dataclasses.field(default_factory=AxesSettings)
    """Settings of the rotation by several axes; read only with kind axes."""
    selective: SelectiveSettings = dataclasses.field(default_factory=SelectiveSettings)
    """Settings of Selective RoPE; read only with kind selective."""

    def __post_init__(self) -> None:
        super().__post_init__()
        # The encoding "sinusoidal" reads the base with any rotation: the model knows whether it is there.
        check_kind(self, "rotary", {kind: source.reads | {"base"} for kind, source in ROTARIES.items()})

    @property
    def source(self) -> type[RotarySource]:
        """Class of the configured kind."""
        return ROTARIES[self.kind]

    @property
    def own(self) -> Any:
        """Settings of the configured kind alone; None if it has none."""
        return getattr(self, self.kind, None)


def make_rotary(config: RotaryConfig, inputs: SourceInputs, rngs: nnx.Rngs) -> RotarySource:
    """Builds the configured rotary source.

    Args:
      config: kind and its settings.
      inputs: sizes of the model and of its inputs.
      rngs: stream "params".

    Returns:
      A module called as `rotary(events, metadata, token)`, which returns the rotations of the blocks and of the action
      attention, or None if nothing rotates.

    Raises:
      ValueError: if a setting does not fit the heads or the scaling method.
    """
    return config.source(config, config.own, inputs, rngs)
