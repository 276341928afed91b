"""Biases by the time between two events: decays and damped waves."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32, Integer

from siren_rope_jax.batch import Events
from siren_rope_jax.nn.bias.base import AttentionBias, BiasInputs, Terms
from siren_rope_jax.ops.bias import alibi_slopes
from siren_rope_jax.ops.calendar import PERIODS
from siren_rope_jax.ops.time_bias import periodic_bias, time_decay_bias
from siren_rope_jax.settings import check_settings

_STRETCHED_RATE, _STRETCHED_EXPONENT = 0.25, 0.5  # the source's rates for music and films are .1 and .2, learned or not


@dataclasses.dataclass(frozen=True)
class TimeDecaySettings:
    """Settings of the decay with time."""

    shape: Literal["exponential", "power", "stretched"] = "power"
    """Shape: -r x, -r ln(1 + x), or h exp(-r x^b), where x is the time between two events."""
    days: float = 1.0
    """Unit of the time between two events."""

    def __post_init__(self) -> None:
        check_settings(self, days="(0, inf)")


class TimeDecayBias(AttentionBias):
    """Logits fall with the time between two events, by learned numbers of each head and layer.

    Source: the decay of FuXi-beta and FuXi-gamma, added to the logits.
    """

    settings: TimeDecaySettings

    def __init__(self, settings: TimeDecaySettings, inputs: BiasInputs, rngs: nnx.Rngs):
        """Starts the rates at ALiBi's slopes; of the shape "stretched" the heights, and with them the bias, at 0."""
        super().__init__(settings, inputs, rngs)
        stretched = settings.shape == "stretched"
        rates = jnp.full(self.heads, _STRETCHED_RATE) if stretched else alibi_slopes(self.heads)
        self.rates = nnx.Param(_before_softplus(rates))
        self.heights = nnx.Param(jnp.zeros(self.heads, jnp.float32)) if stretched else None
        exponents = _before_softplus(jnp.full(self.heads, _STRETCHED_EXPONENT))
        self.exponents = nnx.Param(exponents) if stretched else None

    def __call__(self, events: Events, x: Float[Array, "B S D"], times: Integer[Array, "B S"] | None) -> Terms:
        """Returns the bias."""
        own = {}
        if self.heights is not None and self.exponents is not None:
            own = {"heights": self.heights[...], "exponents": jax.nn.softplus(self.exponents[...])}
        rates, settings = jax.nn.softplus(self.rates[...]), self.settings
        return time_decay_bias(events.elapsed_seconds, rates, shape=settings.shape, days=settings.days, **own), None


@dataclasses.dataclass(frozen=True)
class PeriodicSettings:
    """Settings of the damped waves of time."""

    periods: tuple[Literal["day", "week", "year"], ...] = ("day", "week")
    """Periods of the waves."""
    damping: float = 0.05
    """Initial damping: after one period exp(-2 pi damping) of a wave is left."""

    def __post_init__(self) -> None:
        check_settings(self, damping="(0, inf)")
        if not self.periods or len(set(self.periods)) != len(self.periods):
            raise ValueError(f"periods must each be given once, and at least one, but are {self.periods}")


class PeriodicBias(AttentionBias):
    """Logits gain damped waves of the time between two events, by learned numbers of each head and layer.

    Source: the temporal channel of FuXi-Linear, added to the logits.
    """

    settings: PeriodicSettings

    def __init__(self, settings: PeriodicSettings, inputs: BiasInputs, rngs: nnx.Rngs):
        """Starts the waves at 0, so that every variant starts from the same attention."""
        super().__init__(settings, inputs, rngs)
        shape = (len(settings.periods), self.heads)
        self.cosines, self.sines = (nnx.Param(jnp.zeros(shape, jnp.float32)) for _ in range(2))
        self.damping = nnx.Param(_before_softplus(jnp.full(shape[0], settings.damping)))

    def __call__(self, events: Events, x: Float[Array, "B S D"], times: Integer[Array, "B S"] | None) -> Terms:
        """Returns the bias."""
        tables = self.cosines[...], self.sines[...], jax.nn.softplus(self.damping[...])
        periods = [PERIODS[name] for name in self.settings.periods]
        return periodic_bias(events.elapsed_seconds, *tables, periods=periods), None


def _before_softplus(x: Float[Array, " N"]) -> Float32[Array, " N"]:
    """Returns what softplus makes positive numbers of."""
    return (x + jnp.log(-jnp.expm1(-x))).astype(jnp.float32)
