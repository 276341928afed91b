"""Biases by relative positions, and by log-time beside them: ALiBi, T5, HSTU."""

import dataclasses

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Integer

from siren_rope_jax.batch import Events
from siren_rope_jax.nn.bias.base import AttentionBias, BiasInputs, Terms
from siren_rope_jax.ops.bias import alibi_bias, alibi_slopes, hstu_bias, t5_bias
from siren_rope_jax.settings import check_settings

_TIME_BUCKETS = 129  # buckets of log-time, as in the source


class AlibiBias(AttentionBias):
    """ALiBi: logits fall with the distance, with a fixed slope for each head. Source: Press et al. 2022."""

    def __call__(self, events: Events, x: Float[Array, "B S D"], times: Integer[Array, "B S"] | None) -> Terms:
        """Returns the bias."""
        return alibi_bias(events.position, alibi_slopes(self.heads)), None


@dataclasses.dataclass(frozen=True)
class T5Settings:
    """Settings of T5's relative positions."""

    buckets: int = 32
    """Number of distance buckets."""
    max_distance: int = 128
    """Distance from which on all distances share one bucket."""

    def __post_init__(self) -> None:
        check_settings(self, buckets="[2, 65536]", max_distance="[2, 1000000]")
        if self.max_distance <= self.buckets // 2:
            raise ValueError(
                f"max_distance must exceed half the buckets, {self.buckets // 2}, but is {self.max_distance}"
            )


class T5Bias(AttentionBias):
    """T5: one learned number per distance bucket, head and layer. Source: Raffel et al. 2020."""

    settings: T5Settings

    def __init__(self, settings: T5Settings, inputs: BiasInputs, rngs: nnx.Rngs):
        """Initialises the table to 0, so that every variant starts from the same attention."""
        super().__init__(settings, inputs, rngs)
        self.table = nnx.Param(jnp.zeros((settings.buckets, inputs.heads), jnp.float32))

    def __call__(self, events: Events, x: Float[Array, "B S D"], times: Integer[Array, "B S"] | None) -> Terms:
        """Returns the bias."""
        return t5_bias(events.position, self.table[...], max_distance=self.settings.max_distance), None


class HstuBias(AttentionBias):
    """HSTU: one learned number per distance and per bucket of log-time, in every layer, shared by the heads.

    Source: Zhai et al. 2024.
    """

    def __init__(self, settings: None, inputs: BiasInputs, rngs: nnx.Rngs):
        """Initialises both tables to 0; distances beyond the training window share the last entry."""
        super().__init__(settings, inputs, rngs)
        self.positions = nnx.Param(jnp.zeros(inputs.spec.window, jnp.float32))
        self.times = nnx.Param(jnp.zeros(_TIME_BUCKETS, jnp.float32))

    def __call__(self, events: Events, x: Float[Array, "B S D"], times: Integer[Array, "B S"] | None) -> Terms:
        """Returns the bias; a query's time is that of its own event, which is known when the event is scored."""
        return hstu_bias(events.position, events.elapsed_seconds, self.positions[...], self.times[...]), None
