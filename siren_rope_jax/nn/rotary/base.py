"""Base of all rotary sources: shared settings, one constructor, one call signature, and the rotation by angles."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32, Int

from siren_rope_jax.batch import Events
from siren_rope_jax.nn.features import InputSpec
from siren_rope_jax.nn.rotary.scaling import ScalingConfig
from siren_rope_jax.ops.angles import content_angles
from siren_rope_jax.ops.frequencies import ScaledFrequencies, inverse_frequencies
from siren_rope_jax.ops.rotary import rotate_pairs, xpos_scale
from siren_rope_jax.ops.sincos import sincos
from siren_rope_jax.settings import check_settings

Angles = Float32[Array, "B S R"] | Float32[Array, "B S M R"]
Heads = Float[Array, "B S _ H"]  # keys may have fewer than queries
Axis = Literal["positions", "times"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SharedSettings:
    """Settings that several sources read; each source lists its own in `RotarySource.reads`."""

    preset: Literal["recommended", "published"] = "recommended"
    """Named start of SIREN-RoPE's angle network: the best one known, or that of the paper."""
    base: float = 10_000.0
    """Base of the ordinal frequencies and of the encoding "sinusoidal"."""
    partial: float = 1.0
    """Fraction of each head's features that rotate; the others stay as they are."""
    proportional: bool = False
    """Whether the rotated features keep the frequencies that they have if all rotate, the fastest ones (p-RoPE)."""
    learned_frequencies: bool = False
    """Whether the ordinal frequencies are learned, starting from those of the base."""
    xpos_base: float | None = None
    """Positions over which xPos decays queries and keys (the source: 512); no decay if not given."""
    content_bound: float = 0.0
    """Bound, in radians, of the angle that a projection of the token adds, starting at 0; 0 adds none."""
    scaling: ScalingConfig = dataclasses.field(default_factory=ScalingConfig)
    """Scaling of the positions beyond the trained window."""

    def __post_init__(self) -> None:
        check_settings(self, base="(1, inf)", partial="(0, 1]", xpos_base="(0, inf)", content_bound="[0, inf)")

    def rotated(self, head_dim: int) -> int:
        """Returns how many features of a head rotate, an even number.

        Raises:
          ValueError: if `partial` leaves less than one pair.
        """
        rotated = 2 * int(self.partial * head_dim / 2)
        if rotated < 2:
            raise ValueError(f"partial must leave a pair of the {head_dim} features, but is {self.partial}")
        return rotated


class SourceInputs(NamedTuple):
    """Sizes and inputs of the model that a source is built for."""

    spec: InputSpec
    head_dim: int  # features of each attention head, even
    width: int  # width of the tokens
    key_heads: int = 1  # key heads; sources with angles per head have one set for each
    metadata_features: int = 0  # width of the columns that `RotarySource.metadata` names


@runtime_checkable
class Rotation(Protocol):
    """Rotation of queries and keys, the same in every layer."""

    def __call__(self, query: Heads, key: Heads) -> tuple[Heads, Heads]:
        """Returns rotated queries and keys."""
        ...


class PlanarRotation(NamedTuple):
    """Rotation of feature pairs; all layers share it, so that sine and cosine are computed once."""

    query: tuple[Angles, Angles, Angles]  # angles, and their sine and cosine times a constant
    key: tuple[Angles, Angles, Angles]

    def __call__(self, query: Heads, key: Heads) -> tuple[Heads, Heads]:
        """Returns rotated queries and keys."""
        (of_query, *turn_query), (of_key, *turn_key) = self
        query = rotate_pairs(query, *turn_query, angles=of_query, partial=True)
        return query, rotate_pairs(key, *turn_key, angles=of_key, partial=True)


class RotarySource(nnx.Module):
    """Rotation of queries and keys by the features of each event; each kind is one subclass.

    Class methods need no parameters and serve before the model is built. `settings` are those of the kind alone, None
    if it has none.
    """

    reads: ClassVar[frozenset[str]]
    """Names of the shared settings that the kind reads; setting another one is an error."""
    widens: ClassVar[bool] = False
    """Whether rotated queries and keys are wider than before."""
    reads_hidden: ClassVar[bool] = False
    """Whether the rotation of an event depends on all events before it, seen or not."""
    cancels: ClassVar[bool] = True
    """Whether positions, or times, cancel if all events are given the same one; if not, the source offers other
    `knock_outs`."""

    def __init__(self, config: SharedSettings, settings: Any, inputs: SourceInputs, rngs: nnx.Rngs):
        """Keeps the settings and sizes for later calls.

        Args:
          config: settings that sources share.
          settings: settings of this kind.
          inputs: sizes of the model and of its inputs.
          rngs: stream "params".

        Raises:
          ValueError: if `partial` leaves less than one pair.
        """
        self.config, self.settings, self.spec = config, settings, inputs.spec
        self.width, self.key_heads, self.metadata_features = inputs.width, inputs.key_heads, inputs.metadata_features
        self.head_dim, self.rotated = inputs.head_dim, config.rotated(inputs.head_dim)

    @classmethod
    def reads_base(cls, settings: Any) -> bool:
        """Returns whether the kind reads the base of the ordinal frequencies."""
        return "base" in cls.reads

    @classmethod
    def unbounded(cls, config: SharedSettings, settings: Any) -> set[Axis]:
        """Returns the inputs whose effect has no bound: beyond the trained range the model extrapolates."""
        return set()

    @classmethod
    def metadata(cls, settings: Any) -> tuple[str, ...]:
        """Returns the names of the id or dense columns that a call takes as `metadata`."""
        return ()

    @classmethod
    def turns_actions_apart(cls, settings: Any) -> bool:
        """Returns whether the action attention has its own rotation."""
        return False

    def logged(self) -> dict[str, Float32[Array, "..."]]:
        """Returns the values to log at each step, by name."""
        return {}

    def diagnosed(self) -> dict[str, Float32[Array, "..."]]:
        """Returns the values to log at each validation, by name, which cost more than those of each step may."""
        return {}

    def knock_outs(self, day: Int[Array, " E"], second: Int[Array, " E"]) -> dict[str, Callable[[], None]]:
        """Returns what can be switched off in what has been trained: functions, by name, that do so in place.

        Positions and times as a whole are not among them if they cancel: all events can be given the same ones.

        Args:
          day: local days of the training events, for the means that stand in for inputs that are switched off.
          second: seconds of these days.
        """
        return {}

    @abc.abstractmethod
    def __call__(
        self, events: Events, metadata: Float[Array, "B S F"], token: Float[Array, "B S D"]
    ) -> tuple[Rotation, Rotation] | None:
        """Returns the rotations of the blocks and of the action attention, or None if nothing rotates.

        Args:
          events: packed rows.
          metadata: the columns that the class method `metadata` names.
          token: representation of the events before the first block.
        """


class AngleSource(RotarySource):
    """Rotation by one angle per event and feature pair; a subclass implements `angles`."""

    reads = frozenset(
        {"base", "partial", "proportional", "learned_frequencies", "xpos_base", "content_bound", "scaling"}
    )

    def __init__(self, config: SharedSettings, settings: Any, inputs: SourceInputs, rngs: nnx.Rngs):
        """Initialises the shared parameters without effect: learned frequencies as fixed, content angles at 0.

        Raises:
          ValueError: if the scaling does not fit its method, or `partial` leaves less than one pair or, with
            `proportional`, all.
        """
        super().__init__(config, settings, inputs, rngs)
        if config.proportional and (config.partial == 1 or config.scaling.rope_type != "default"):
            given = f"{config.partial} and {config.scaling.rope_type}"
            raise ValueError(f"partial must be below 1, and scaling default, if proportional is set, but are {given}")
        self.learned_frequencies = nnx.Param(self._unscaled()) if config.learned_frequencies else None
        self.attention_factor = self._positions().attention_factor
        kernel = jnp.zeros((inputs.width, self.rotated // 2), jnp.float32)
        self.content = nnx.Param(kernel) if config.content_bound else None

    @classmethod
    def unbounded(cls, config: SharedSettings, settings: Any) -> set[Axis]:
        """Returns positions, if they have no scaling."""
        return {"positions"} if config.scaling.rope_type == "default" else set()

    def _unscaled(self) -> Float32[Array, " R"]:
        of = self.head_dim if self.config.proportional else self.rotated
        return inverse_frequencies(of, base=self.config.base)[: self.rotated // 2]

    def _positions(self) -> ScaledFrequencies:
        if self.config.proportional:
            return ScaledFrequencies(self._unscaled(), 1.0)
        return self.config.scaling.frequencies("scaling", self.rotated, self.config.base, self.spec.window)

    def frequencies(self, axis: ScaledFrequencies | None = None) -> Float32[Array, " R"]:
        """Returns the frequencies of an axis, by default of positions; learned ones get the same scaling."""
        axis = axis or self._positions()
        if self.learned_frequencies is None:
            return axis.frequencies
        stretch = axis.frequencies / self._unscaled()
        return self.learned_frequencies[...] * stretch

    @abc.abstractmethod
    def angles(self, events: Events, metadata: Float[Array, "B S F"]) -> tuple[Angles, Angles]:
        """Returns the angles, in radians, of the blocks and of the action attention."""

    def __call__(
        self, events: Events, metadata: Float[Array, "B S F"], token: Float[Array, "B S D"]
    ) -> tuple[Rotation, Rotation]:
        """Returns the rotations of the blocks and of the action attention."""
        block, action = self.angles(events, metadata)
        rotation = self._rotation(events, token, block)
        if action is block:
            return rotation, rotation
        return rotation, self._rotation(events, token, action)

    def _rotation(self, events: Events, token: Float[Array, "B S D"], angles: Angles) -> PlanarRotation:
        if self.content is not None:
            content = content_angles(token, self.content[...], bound=self.config.content_bound)
            angles += content[:, :, None] if angles.ndim == 4 else content
        sin, cos = sincos(angles)
        if self.attention_factor != 1:
            sin, cos = sin * self.attention_factor, cos * self.attention_factor
        if self.config.xpos_base is None:
            return PlanarRotation((angles, sin, cos), (angles, sin, cos))
        decay = xpos_scale(events.position, self.rotated // 2, scale_base=self.config.xpos_base)
        decay = decay[:, :, None] if angles.ndim == 4 else decay
        return PlanarRotation((angles, sin * decay, cos * decay), (angles, sin / decay, cos / decay))
