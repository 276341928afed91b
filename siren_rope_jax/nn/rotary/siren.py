"""SIREN-RoPE: angles that a network learns from time and metadata."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float32, Int

from siren_rope_jax.batch import Events
from siren_rope_jax.nn.rotary.base import Angles, AngleSource, Axis, SharedSettings, SourceInputs
from siren_rope_jax.nn.rotary.smoothness import fast_share_of_week, middle_week
from siren_rope_jax.ops.angles import siren_rope_angles
from siren_rope_jax.ops.calendar import CALENDAR_COLUMNS, PERIODS, SECONDS_PER_DAY, calendar_harmonics
from siren_rope_jax.ops.siren import Branches, Layer, siren_apply, siren_init
from siren_rope_jax.settings import check_settings


class Start(NamedTuple):
    """Start of the angle network that a preset names."""

    omega0: float
    learned_omega0: bool
    initial_scale: float


PRESETS = {
    "recommended": Start(omega0=3.0, learned_omega0=True, initial_scale=1.0),  # of experiments/angle_network.py
    "published": Start(omega0=10.0, learned_omega0=False, initial_scale=math.pi),  # of the paper and its code
}


@dataclasses.dataclass(frozen=True)
class SirenSettings:
    """Settings of SIREN-RoPE; `RotaryConfig.preset` fills in what is not given."""

    time_inputs: tuple[Literal["day", "week", "year", "span"], ...] = ("day", "week", "span")
    """Time features of the angle network: time of day, of week and of year, place in the training span."""
    metadata: tuple[str, ...] = ()
    """Id or dense columns that the angle network reads beside the time features, or instead of them."""
    day_harmonics: int = 1
    """Frequencies of the time of day, 1 to this many turns a day."""
    week_harmonics: int = 1
    """Frequencies of the time of week."""
    year_harmonics: int = 1
    """Frequencies of the time of year."""
    width: int = 64
    """Units of each hidden layer of the angle network."""
    hidden_layers: int = 2
    """Hidden layers of each branch."""
    omega0: float | None = None
    """Frequency factor of the sine layers; by the preset, 3 or 10, if not given."""
    learned_omega0: bool | None = None
    """Whether each sine layer learns a factor of omega0, starting at 1; by the preset, yes or no, if not given."""
    branches: tuple[Literal["sine", "relu"], ...] = ("sine", "relu")
    """Branches of the angle network."""
    zero_last: bool = False
    """Whether the last layers start at 0, so that training starts at ordinal RoPE exactly."""
    initial_scale: float | None = None
    """Initial value of the learned factor of each pair's angle; by the preset, 1 or pi, if not given."""
    per_head: bool = False
    """Whether each key head has its own scale and gate."""
    clamp_time: bool = True
    """Whether the place in the span is clamped outside the span."""
    span_factor: float = 1.0
    """Length covered by the place in the span, in training spans."""
    separate_action_network: bool = False
    """Whether the action attention has its own angle network, as in the authors' code."""

    def __post_init__(self) -> None:
        check_settings(
            self,
            width="[1, inf)",
            hidden_layers="[1, inf)",
            omega0="(0, inf)",
            initial_scale="(-inf, inf)",
            span_factor="[1, inf)",
            **dict.fromkeys((f"{period}_harmonics" for period in PERIODS), "[1, 64]"),
        )
        if not self.branches or len(set(self.branches)) != len(self.branches):
            raise ValueError(f'branches must be "sine", "relu" or both, but are {self.branches}')
        if len(set(self.time_inputs)) != len(self.time_inputs):
            raise ValueError(f"time_inputs must each be given once, but are {self.time_inputs}")
        if len(set(self.metadata)) != len(self.metadata):
            raise ValueError(f"metadata must each be given once, but are {self.metadata}")
        if not (self.time_inputs or self.metadata):
            raise ValueError("time_inputs and metadata must name an input of the angle network, but are both empty")
        for period in PERIODS:
            if getattr(self, f"{period}_harmonics") != 1 and period not in self.time_inputs:
                raise ValueError(
                    f'time_inputs must hold "{period}" if {period}_harmonics is not 1, but are {self.time_inputs}'
                )
        if self.learned_omega0 and "sine" not in self.branches:
            raise ValueError(f'branches must hold "sine" if omega0 is learned, but are {self.branches}')
        if self.omega0 is not None and "sine" not in self.branches:
            raise ValueError(f'branches must hold "sine" if omega0 is given, but are {self.branches}')
        if not self.clamp_time and "span" not in self.time_inputs:
            raise ValueError(f'time_inputs must hold "span" if clamp_time is off, but are {self.time_inputs}')
        if self.span_factor != 1 and "span" not in self.time_inputs:
            raise ValueError(f'time_inputs must hold "span" if span_factor is not 1, but are {self.time_inputs}')

    def start(self, preset: str) -> Start:
        """Returns the start of the angle network: of the preset, where the settings do not give it."""
        start = PRESETS[preset]._replace(**{k: x for k in Start._fields if (x := getattr(self, k)) is not None})
        return start if "sine" in self.branches else start._replace(learned_omega0=False)  # there is none to learn

    def harmonics(self, period: Literal["day", "week", "year"]) -> int:
        """Returns the number of frequencies of a period."""
        return getattr(self, f"{period}_harmonics")


_TITLES = {"sine": "sine", "relu": "ReLU"}


class SirenRotary(AngleSource):
    """SIREN-RoPE, or semantic rotation if metadata takes the place of time.

    Source: Cheng, Sun, Lu 2026 (arXiv 2604.24717), eq. 1 and section 4.3.
    """

    settings: SirenSettings
    reads = AngleSource.reads | {"preset"}

    def __init__(self, config: SharedSettings, settings: SirenSettings, inputs: SourceInputs, rngs: nnx.Rngs):
        """Draws the angle network, or two, from the stream "params"; the gate starts at 1."""
        super().__init__(config, settings, inputs, rngs)
        if not (inputs.spec.calendar or settings.metadata or "span" in settings.time_inputs):
            raise ValueError(
                'time_inputs must hold "span", or metadata a column, as the log has no calendar, but are '
                f"{settings.time_inputs}"
            )
        self.start = settings.start(config.preset)
        of_time = sum(map(self._columns_of, settings.time_inputs))
        self.networks = nnx.List(
            nnx.Param(
                siren_init(
                    rngs.params(),
                    of_time + inputs.metadata_features,
                    self.rotated // 2,
                    width=settings.width,
                    hidden_layers=settings.hidden_layers,
                    omega0=self.start.omega0,
                    branches=settings.branches,
                    zero_last=settings.zero_last,
                ).branches
            )
            for _ in range(2 if settings.separate_action_network else 1)
        )
        factors = jnp.ones(settings.hidden_layers, jnp.float32)
        self.omega0_factors = nnx.List(nnx.Param(factors) for _ in self.networks if self.start.learned_omega0)
        heads = (inputs.key_heads,) if settings.per_head else ()
        self.scale = nnx.Param(jnp.full((*heads, self.rotated // 2), self.start.initial_scale, jnp.float32))
        self.gate = nnx.Param(jnp.ones((*heads, 1) if heads else (), jnp.float32))

    @classmethod
    def unbounded(cls, config: SharedSettings, settings: SirenSettings) -> set[Axis]:
        """Returns positions, if they have no scaling, and times, if the span is neither clamped nor extended."""
        reads_times = "span" in settings.time_inputs and not settings.clamp_time and settings.span_factor == 1
        times: set[Axis] = {"times"} if reads_times else set()
        return super().unbounded(config, settings) | times

    @classmethod
    def metadata(cls, settings: SirenSettings) -> tuple[str, ...]:
        """Returns the names of the columns that the angle network reads."""
        return settings.metadata

    @classmethod
    def turns_actions_apart(cls, settings: SirenSettings) -> bool:
        """Returns whether there is a second angle network."""
        return settings.separate_action_network

    def logged(self) -> dict[str, Float32[Array, "..."]]:
        """Returns gate and scale, and the frequency of each sine layer if it is learned."""
        logged = {"gate": self.gate[...], "scale": self.scale[...]}
        if self.start.learned_omega0:
            logged["omega0"] = self.start.omega0 * self.omega0_factors[0][...]
        return logged

    def diagnosed(self) -> dict[str, Float32[Array, "..."]]:
        """Returns the share of the angles' variance that is too fast for a calendar, if time alone drives them."""
        if self.metadata_features:
            return {}
        day, second = np.divmod(middle_week(self.spec), SECONDS_PER_DAY)
        features = self.time_features(jnp.asarray(day + self.spec.start_day), jnp.asarray(second))
        learned = siren_apply(self.angle_networks()[0], features, omega0=self.start.omega0)[:, None]
        return {"fast_share": fast_share_of_week((learned * self.scale[...]).reshape(len(day), -1))}

    def knock_outs(self, day: Int[Array, " E"], second: Int[Array, " E"]) -> dict[str, Callable[[], None]]:
        """Returns a function for each branch, if there are two, and for each time input, if it is not the only input.

        A branch is switched off by a last layer of 0. Instead of a time input, the networks get its mean over the
        training events.
        """
        branches = self.settings.branches
        found: dict[str, Callable[[], None]] = {}
        for branch in branches if len(branches) > 1 else ():
            found[f"{_TITLES[branch]} branch"] = functools.partial(self._silence, branch)
        inputs, start = self.settings.time_inputs, 0
        means = self.time_features(day, second).mean(axis=0)
        for name in inputs if len(inputs) > 1 or self.settings.metadata else ():
            end = start + self._columns_of(name)
            found[f"time input {name}"] = functools.partial(self._fix, start, means[start:end])
            start = end
        return found

    def _silence(self, branch: str) -> None:
        for param in self.networks:
            network = param.get_value()
            *hidden, last = network[branch]
            param.set_value(network | {branch: [*hidden, jax.tree.map(jnp.zeros_like, last)]})

    def _fix(self, start: int, values: Float32[Array, " C"]) -> None:
        """Moves the effect of columns that have these values into the bias of the first layers."""
        columns = slice(start, start + values.size)
        for param in self.networks:
            network = param.get_value()
            for branch, (first, *others) in network.items():
                kernel, bias = first["kernel"], first["bias"]
                bias = bias + jnp.matmul(values, kernel[columns], precision=jax.lax.Precision.HIGHEST)
                network = network | {branch: [{"kernel": kernel.at[columns].set(0), "bias": bias}, *others]}
            param.set_value(network)

    def _columns_of(self, name: Literal["day", "week", "year", "span"]) -> int:
        return 1 if name == "span" else 2 * self.settings.harmonics(name)

    def angle_networks(self) -> list[Branches]:
        """Returns the weights of the angle network, or of both, with the learned factors of omega0 in them."""
        networks = [network.get_value() for network in self.networks]
        if not self.start.learned_omega0:
            return networks
        return [
            network | {"sine": _scaled(network["sine"], factors[...])}
            for network, factors in zip(networks, self.omega0_factors, strict=True)
        ]

    def time_features(self, day: Int[Array, "*batch"], second: Int[Array, "*batch"]) -> Float32[Array, "*batch F"]:
        """Returns the time features that the angle network reads."""
        settings, features = self.settings, []
        for name in settings.time_inputs:
            if name == "span":
                every = self.spec.time_features(
                    day, second, span_factor=settings.span_factor, clamp=settings.clamp_time
                )
                features.append(every[..., CALENDAR_COLUMNS[name]])
            else:
                turns = calendar_harmonics(day, second, period=name, harmonics=settings.harmonics(name))
                features.append(turns if self.spec.calendar else jnp.zeros_like(turns))
        return jnp.concatenate(features, axis=-1) if features else jnp.zeros((*day.shape, 0), jnp.float32)

    def angles(self, events: Events, metadata: Float[Array, "B S F"]) -> tuple[Angles, Angles]:
        """Returns the angles of the blocks and of the action attention."""
        time = self.time_features(events.day, events.second)
        features = jnp.concatenate([time, metadata.astype(jnp.float32)], axis=-1)
        angles = [
            siren_rope_angles(
                events.position.reshape(-1),  # one row per event: matrix products, whose gradients need no copies
                features.reshape(-1, features.shape[-1]),
                self.frequencies(),
                network,
                scale=self.scale[...],
                gate=self.gate[...],
                omega0=self.start.omega0,
            )
            for network in self.angle_networks()
        ]
        angles = [of_events.reshape(*events.position.shape, *of_events.shape[1:]) for of_events in angles]
        return angles[0], angles[-1]


def _scaled(layers: Sequence[Layer], factors: Float32[Array, " L"]) -> list[Layer]:
    """Multiplies what the hidden layers give their sines by a factor each."""
    *hidden, last = layers
    return [*({name: x * factors[k] for name, x in layer.items()} for k, layer in enumerate(hidden)), last]
