"""Attention biases, as modules with one call signature: events -> (bias, relative embedding)."""

import dataclasses

from flax import nnx

from siren_rope_jax.nn.bias.base import AttentionBias, BiasInputs, NoBias
from siren_rope_jax.nn.bias.forgetting import ForgettingBias, ForgettingSettings
from siren_rope_jax.nn.bias.intervals import IntervalEmbedding, TisasrecSettings
from siren_rope_jax.nn.bias.positions import AlibiBias, HstuBias, T5Bias, T5Settings
from siren_rope_jax.nn.bias.times import PeriodicBias, PeriodicSettings, TimeDecayBias, TimeDecaySettings
from siren_rope_jax.settings import check_kind

__all__ = [
    "BIASES",
    "AttentionBias",
    "BiasConfig",
    "BiasInputs",
    "ForgettingSettings",
    "NoBias",
    "PeriodicSettings",
    "T5Settings",
    "TimeDecaySettings",
    "TisasrecSettings",
    "make_bias",
]

BIASES: dict[str, type[AttentionBias]] = {
    "none": NoBias,
    "alibi": AlibiBias,
    "t5": T5Bias,
    "hstu": HstuBias,
    "time_decay": TimeDecayBias,
    "periodic": PeriodicBias,
    "forgetting": ForgettingBias,
    "tisasrec": IntervalEmbedding,
}


@dataclasses.dataclass(frozen=True)
class BiasConfig:
    """Kind of the attention bias, and its settings."""

    kind: str = "none"
    """Kind: none, alibi, t5 (relative positions), hstu (relative positions and log-time), time_decay, periodic (damped
    waves of day, week or year), forgetting (FoX: by content), or tisasrec (intervals)."""
    t5: T5Settings = dataclasses.field(default_factory=T5Settings)
    """Settings of T5; read only with kind t5."""
    time_decay: TimeDecaySettings = dataclasses.field(default_factory=TimeDecaySettings)
    """Settings of the decay with time; read only with kind time_decay."""
    periodic: PeriodicSettings = dataclasses.field(default_factory=PeriodicSettings)
    """Settings of the damped waves; read only with kind periodic."""
    forgetting: ForgettingSettings = dataclasses.field(default_factory=ForgettingSettings)
    """Settings of FoX; read only with kind forgetting."""
    tisasrec: TisasrecSettings = dataclasses.field(default_factory=TisasrecSettings)
    """Settings of TiSASRec; read only with kind tisasrec."""

    def __post_init__(self) -> None:
        check_kind(self, "bias", dict.fromkeys(BIASES, frozenset()))


def make_bias(config: BiasConfig, inputs: BiasInputs, rngs: nnx.Rngs) -> AttentionBias:
    """Builds the bias of one attention layer.

    Args:
      config: kind and its settings.
      inputs: sizes of the model and of its inputs.
      rngs: stream "params".

    Returns:
      A module called as `bias(events)`.
    """
    return BIASES[config.kind](getattr(config, config.kind, None), inputs, rngs)
