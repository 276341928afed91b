"""FoX: a gate of each event lets all that came before it fade."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Integer

from siren_rope_jax.batch import Events
from siren_rope_jax.nn.bias.base import AttentionBias, BiasInputs, Terms
from siren_rope_jax.ops.calendar import elapsed_days
from siren_rope_jax.ops.path import forgetting_bias, seconds_since


@dataclasses.dataclass(frozen=True)
class ForgettingSettings:
    """Settings of FoX."""

    of_time: bool = False
    """Whether an event makes its past fade by the days since the event before it, instead of once (ours)."""


class ForgettingBias(AttentionBias):
    """FoX: logits fade by a gate that each event sets for all that came before it. Source: arXiv 2503.02130."""

    settings: ForgettingSettings
    reads_hidden = True

    def __init__(self, settings: ForgettingSettings, inputs: BiasInputs, rngs: nnx.Rngs):
        """Starts the gates alike for all events, so that half is left after the training window, or span."""
        super().__init__(settings, inputs, rngs)
        half = max(inputs.spec.span_days, 1.0) if settings.of_time else inputs.spec.window
        gate = 0.5 ** (1 / half)
        self.kernel = nnx.Param(jnp.zeros((inputs.width, inputs.heads), jnp.float32))
        self.offset = nnx.Param(jnp.full(inputs.heads, math.log(gate / (1 - gate)), jnp.float32))

    def __call__(self, events: Events, x: Float[Array, "B S D"], times: Integer[Array, "B S"] | None) -> Terms:
        """Returns the bias."""
        log_forget = jax.nn.log_sigmoid(x.astype(jnp.float32) @ self.kernel[...] + self.offset[...])
        if self.settings.of_time:
            days = elapsed_days(seconds_since(events.elapsed_seconds, events.segment))
            log_forget *= days[..., None]
        return forgetting_bias(log_forget, events.segment, times=times), None
