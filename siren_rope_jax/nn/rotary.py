"""Sources of rotary angles as modules, all with one call signature: events, metadata -> (block, action) angles."""

import dataclasses
import math
from typing import Literal, assert_never

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32

from siren_rope_jax.nn.features import Events, InputSpec
from siren_rope_jax.ops.angles import ordinal_angles, siren_rope_angles, time_order_angles
from siren_rope_jax.ops.calendar import SECONDS_PER_DAY, calendar_features
from siren_rope_jax.ops.frequencies import inverse_frequencies
from siren_rope_jax.ops.siren import siren_init
from siren_rope_jax.settings import check_settings

Angles = Float32[Array, "B S R"]


@dataclasses.dataclass(frozen=True)
class RotaryConfig:
    """Which angles rotate queries and keys."""

    kind: Literal["none", "ordinal", "time_order", "siren"] = "siren"
    """none, ordinal RoPE, TO-RoPE or SIREN-RoPE."""
    base: float = 10_000.0
    """Base of the ordinal frequencies, the same for every kind."""
    time_scale: float = 0.01
    """TO-RoPE: positions that a day is worth."""
    width: int = 64
    """SIREN-RoPE: units of each hidden layer of the angle network."""
    hidden_layers: int = 2
    """SIREN-RoPE: hidden layers of each branch."""
    omega0: float = 10.0
    """SIREN-RoPE: frequency of the sine layers."""
    branches: tuple[Literal["sine", "relu"], ...] = ("sine", "relu")
    """SIREN-RoPE: branches of the angle network."""
    initial_scale: float = math.pi
    """SIREN-RoPE: start of the learned factor of each pair's angle."""
    clamp_time: bool = True
    """SIREN-RoPE: hold the long-range time offset at its bounds outside the training span."""
    metadata: tuple[str, ...] = ()
    """SIREN-RoPE: id or dense columns that the angle network takes beside the time features."""
    separate_action_network: bool = False
    """SIREN-RoPE: a second angle network for the final action attention, as in the authors' code."""

    def __post_init__(self) -> None:
        check_settings(
            self,
            base="(1, inf)",
            time_scale="(-inf, inf)",
            width="[1, inf)",
            hidden_layers="[1, inf)",
            omega0="(0, inf)",
            initial_scale="(-inf, inf)",
        )
        if not self.branches or len(set(self.branches)) != len(self.branches):
            raise ValueError(f'branches must be "sine", "relu" or both, but are {self.branches}')


class NoRotation(nnx.Module):
    """Leaves queries and keys as they are: attention without any position."""

    def __call__(self, events: Events, metadata: Float[Array, "B S M"]) -> None:
        """Returns no angles."""
        return None


class OrdinalRotary(nnx.Module):
    """Ordinary RoPE. Source: Su et al. 2021."""

    def __init__(self, config: RotaryConfig, head_dim: int):
        """Takes the base from `config`."""
        self.config, self.head_dim = config, head_dim

    def __call__(self, events: Events, metadata: Float[Array, "B S M"]) -> tuple[Angles, Angles]:
        """Returns the same angles for the blocks and the action attention."""
        angles = ordinal_angles(events.position, inverse_frequencies(self.head_dim, base=self.config.base))
        return angles, angles


class TimeOrderRotary(nnx.Module):
    """TO-RoPE by early fusion. Source: Wei et al. 2025 (arXiv 2510.20455)."""

    def __init__(self, config: RotaryConfig, head_dim: int):
        """Takes base and time scale from `config`."""
        self.config, self.head_dim = config, head_dim

    def __call__(self, events: Events, metadata: Float[Array, "B S M"]) -> tuple[Angles, Angles]:
        """Returns the same angles for the blocks and the action attention."""
        angles = time_order_angles(
            events.position,
            events.elapsed.astype(jnp.float32) / SECONDS_PER_DAY,
            inverse_frequencies(self.head_dim, base=self.config.base),
            time_scale=self.config.time_scale,
        )
        return angles, angles


class SirenRotary(nnx.Module):
    """SIREN-RoPE. Source: Cheng, Sun, Lu 2026 (arXiv 2604.24717), eq. 1."""

    def __init__(self, config: RotaryConfig, head_dim: int, spec: InputSpec, metadata_features: int, *, rngs: nnx.Rngs):
        """Draws the angle network, or two, from the stream "params"; the gate starts at 1."""
        self.config, self.head_dim, self.spec = config, head_dim, spec
        networks = 2 if config.separate_action_network else 1
        self.networks = nnx.List(
            nnx.Param(
                siren_init(
                    rngs.params(),
                    5 + metadata_features,
                    head_dim // 2,
                    width=config.width,
                    hidden_layers=config.hidden_layers,
                    omega0=config.omega0,
                    branches=config.branches,
                )
            )
            for _ in range(networks)
        )
        self.scale = nnx.Param(jnp.full(head_dim // 2, config.initial_scale, jnp.float32))
        self.gate = nnx.Param(jnp.ones((), jnp.float32))

    def __call__(self, events: Events, metadata: Float[Array, "B S M"]) -> tuple[Angles, Angles]:
        """Returns the angles of the blocks and of the action attention."""
        calendar = calendar_features(
            events.day,
            events.second,
            start_day=self.spec.start_day,
            span_days=self.spec.span_days,
            clamp=self.config.clamp_time,
        )
        angles = [
            siren_rope_angles(
                events.position,
                jnp.concatenate([calendar, metadata.astype(jnp.float32)], axis=-1),
                inverse_frequencies(self.head_dim, base=self.config.base),
                network.get_value(),
                scale=self.scale[...],
                gate=self.gate[...],
                omega0=self.config.omega0,
            )
            for network in self.networks
        ]
        return angles[0], angles[-1]


Rotary = NoRotation | OrdinalRotary | TimeOrderRotary | SirenRotary


def make_rotary(
    config: RotaryConfig, head_dim: int, spec: InputSpec, *, metadata_features: int = 0, rngs: nnx.Rngs
) -> Rotary:
    """Builds the angle source that the configuration names.

    Args:
      config: kind and its settings.
      head_dim: dimensions of each attention head, even.
      spec: the calendar span of the training data.
      metadata_features: width of the metadata that the angle network takes.
      rngs: stream "params".

    Returns:
      A module called as `rotary(events, metadata)`, giving angles for the blocks and for the action attention, or
      None where nothing rotates.
    """
    match config.kind:
        case "none":
            return NoRotation()
        case "ordinal":
            return OrdinalRotary(config, head_dim)
        case "time_order":
            return TimeOrderRotary(config, head_dim)
        case "siren":
            return SirenRotary(config, head_dim, spec, metadata_features, rngs=rngs)
        case _:
            assert_never(config.kind)
