"""Attention biases, as modules with one call signature: events -> (bias, relative embedding)."""

import abc
import dataclasses
import math
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32, Integer

from siren_rope_jax.batch import Events
from siren_rope_jax.nn.features import InputSpec
from siren_rope_jax.ops.attention import RelativeEmbedding
from siren_rope_jax.ops.bias import (
    Bias,
    alibi_bias,
    alibi_slopes,
    hstu_bias,
    t5_bias,
)
from siren_rope_jax.ops.calendar import PERIODS, elapsed_days
from siren_rope_jax.ops.intervals import interval_buckets
from siren_rope_jax.ops.path import forgetting_bias, seconds_since
from siren_rope_jax.ops.time_bias import periodic_bias, time_decay_bias
from siren_rope_jax.settings import check_kind, check_settings

_TIME_BUCKETS = 129  # buckets of log-time, as in the source
_STRETCHED_RATE, _STRETCHED_EXPONENT = 0.25, 0.5  # the source's rates for music and films are .1 and .2, learned or not
Terms = tuple[Bias | None, RelativeEmbedding | None]


class BiasInputs(NamedTuple):
    """Sizes and inputs of the model that a bias is built for."""

    spec: InputSpec
    heads: int  # query heads
    head_dim: int
    width: int  # of what a layer attends from


class AttentionBias(nnx.Module):
    """Bias of one attention layer; each kind is one subclass with its settings, parameters and limits."""

    unbounded: ClassVar[frozenset[str]] = frozenset()
    """Inputs ("positions", "times") whose effect has no bound: beyond the trained range the model extrapolates."""
    reads_hidden: ClassVar[bool] = False
    """Whether what two events get depends on other events before the later one, seen or not."""

    def __init__(self, settings: Any, inputs: BiasInputs, rngs: nnx.Rngs):
        """Keeps settings and sizes for later calls.

        Args:
          settings: settings of this kind; None if it has none.
          inputs: sizes of the model and of its inputs.
          rngs: stream "params".
        """
        self.settings, self.heads = settings, inputs.heads

    @abc.abstractmethod
    def __call__(self, events: Events, x: Float[Array, "B S D"], times: Integer[Array, "B S"] | None) -> Terms:
        """Returns the bias and the relative embedding for `strictly_causal_attention`; either may be None.

        Args:
          events: packed rows.
          x: what the layer attends from.
          times: times that define what is visible; None if the order of the slots does.
        """


class NoBias(AttentionBias):
    """No bias: the logits depend on queries and keys alone."""

    def __call__(self, events: Events, x: Float[Array, "B S D"], times: Integer[Array, "B S"] | None) -> Terms:
        """Returns neither bias nor relative embedding."""
        return None, None


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


@dataclasses.dataclass(frozen=True)
class TisasrecSettings:
    """Settings of TiSASRec's intervals."""

    max_interval: int = 256
    """Longest interval, in multiples of the user's smallest gap so far."""

    def __post_init__(self) -> None:
        check_settings(self, max_interval="[1, 1000000]")


class IntervalEmbedding(AttentionBias):
    """TiSASRec: keys and values gain an embedding of the interval to the query, in the user's smallest gaps so far.

    Source: Li et al. 2020, with tables for each layer and head; its absolute positions are the encoding "learned".
    """

    settings: TisasrecSettings
    reads_hidden = True  # the smallest gap

    def __init__(self, settings: TisasrecSettings, inputs: BiasInputs, rngs: nnx.Rngs):
        """Draws the two tables from the stream "params"."""
        super().__init__(settings, inputs, rngs)
        shape = (settings.max_interval + 1, inputs.heads, inputs.head_dim)
        init = nnx.initializers.normal(0.02)
        self.key, self.value = (nnx.Param(init(rngs.params(), shape, jnp.float32)) for _ in range(2))

    def __call__(self, events: Events, x: Float[Array, "B S D"], times: Integer[Array, "B S"] | None) -> Terms:
        """Returns the relative embedding."""
        buckets = interval_buckets(events.elapsed_seconds, events.segment, max_interval=self.settings.max_interval)
        tables: list[Float[Array, "T N H"]] = [self.key[...], self.value[...]]
        return None, RelativeEmbedding(buckets, *tables)


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
