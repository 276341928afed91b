"""What all rotary sources share: settings, one constructor, one call signature, and the rotation by angles."""

import abc
import dataclasses
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32

from siren_rope_jax.batch import Events
from siren_rope_jax.nn.features import InputSpec
from siren_rope_jax.nn.rotary.scaling import ScalingConfig
from siren_rope_jax.ops.angles import content_angles
from siren_rope_jax.ops.frequencies import ScaledFrequencies, inverse_frequencies
from siren_rope_jax.ops.rotary import rotate_pairs, sincos, xpos_scale
from siren_rope_jax.settings import check_settings

Angles = Float32[Array, "B S R"] | Float32[Array, "B S M R"]
Heads = Float[Array, "B S _ H"]  # keys may have fewer than queries
Axis = Literal["positions", "times"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SharedSettings:
    """Settings that several sources read; each source names those that it does."""

    base: float = 10_000.0
    """Base of the ordinal frequencies and of the encoding "sinusoidal"."""
    partial: float = 1.0
    """Fraction of each head's features that turn; the others stay as they are."""
    learned_frequencies: bool = False
    """Learns the ordinal frequencies, from where the base puts them."""
    xpos_base: float | None = None
    """xPos: positions over which the decay of queries and keys acts (the source: 512); none if not given."""
    content_bound: float = 0.0
    """Largest angle, in radians, that a projection of the token itself adds; 0 adds none. Starts at ordinal RoPE."""
    scaling: ScalingConfig = dataclasses.field(default_factory=ScalingConfig)
    """Extends the positions beyond the trained window."""

    def __post_init__(self) -> None:
        check_settings(self, base="(1, inf)", partial="(0, 1]", xpos_base="(0, inf)", content_bound="[0, inf)")

    def rotated(self, head_dim: int) -> int:
        """Returns how many features of a head turn, an even number.

        Raises:
          ValueError: if too little of a head is left to rotate.
        """
        rotated = 2 * int(self.partial * head_dim / 2)
        if rotated < 2:
            raise ValueError(f"partial must leave a pair of the {head_dim} features, but is {self.partial}")
        return rotated


class SourceInputs(NamedTuple):
    """Sizes and inputs of a model, which it tells to any source."""

    spec: InputSpec
    head_dim: int  # features of each attention head, even
    width: int  # of the tokens
    key_heads: int = 1  # heads of the keys, of which sources with angles per head have one set each
    metadata_features: int = 0  # width of the columns that `RotarySource.metadata` names


@runtime_checkable
class Rotation(Protocol):
    """Arrays that turn queries and keys; every layer uses the same."""

    def __call__(self, query: Heads, key: Heads) -> tuple[Heads, Heads]:
        """Returns rotated queries and keys."""
        ...


class PlanarRotation(NamedTuple):
    """Turns feature pairs; shared by all layers, so that sine and cosine are computed once."""

    query: tuple[Angles, Angles, Angles]  # the angles; their sine and cosine, times a constant
    key: tuple[Angles, Angles, Angles]

    def __call__(self, query: Heads, key: Heads) -> tuple[Heads, Heads]:
        """Returns rotated queries and keys."""
        (of_query, *turn_query), (of_key, *turn_key) = self
        query = rotate_pairs(query, *turn_query, angles=of_query, partial=True)
        return query, rotate_pairs(key, *turn_key, angles=of_key, partial=True)


class RotarySource(nnx.Module):
    """Turns queries and keys by what is known of each event; all that a kind needs is said in its class.

    Class methods answer before any parameter is drawn; `settings` are those of the kind alone, None if it has none.
    """

    reads: ClassVar[frozenset[str]]
    """Names of the shared settings that act; others are refused if they are set."""

    def __init__(self, config: SharedSettings, settings: Any, inputs: SourceInputs, rngs: nnx.Rngs):
        """Keeps what later calls need.

        Args:
          config: settings that sources share.
          settings: those of this kind alone.
          inputs: sizes of the model and of its inputs.
          rngs: stream "params".
        """
        self.config, self.settings, self.spec = config, settings, inputs.spec

    @classmethod
    def unbounded(cls, config: SharedSettings, settings: Any) -> set[Axis]:
        """Returns what acts without bound: beyond the trained range the model then extrapolates."""
        return set()

    @classmethod
    def metadata(cls, settings: Any) -> tuple[str, ...]:
        """Returns the id or dense columns that a call takes as `metadata`."""
        return ()

    @classmethod
    def turns_actions_apart(cls, settings: Any) -> bool:
        """Returns whether the action attention gets a rotation of its own."""
        return False

    def logged(self) -> dict[str, Float32[Array, "..."]]:
        """Returns the values to log at each step, by name."""
        return {}

    @abc.abstractmethod
    def __call__(
        self, events: Events, metadata: Float[Array, "B S F"], token: Float[Array, "B S D"]
    ) -> tuple[Rotation, Rotation] | None:
        """Returns the rotations of the blocks and of the action attention, or None where nothing rotates.

        Args:
          events: packed rows.
          metadata: the columns that the source asks for.
          token: representation of the events before the first block.
        """


class AngleSource(RotarySource):
    """Queries and keys rotated by angles of events; what a source adds is `angles`."""

    reads = frozenset({"base", "partial", "learned_frequencies", "xpos_base", "content_bound", "scaling"})

    def __init__(self, config: SharedSettings, settings: Any, inputs: SourceInputs, rngs: nnx.Rngs):
        """Sets what starts without effect: learned frequencies at the fixed ones, angles from content at 0.

        Raises:
          ValueError: if a scaling does not fit its method, or too little of a head is left to rotate.
        """
        super().__init__(config, settings, inputs, rngs)
        self.rotated = config.rotated(inputs.head_dim)
        plain = inverse_frequencies(self.rotated, base=config.base)
        self.learned_frequencies = nnx.Param(plain) if config.learned_frequencies else None
        self.attention_factor = self._positions().attention_factor
        kernel = jnp.zeros((inputs.width, self.rotated // 2), jnp.float32)
        self.content = nnx.Param(kernel) if config.content_bound else None

    @classmethod
    def unbounded(cls, config: SharedSettings, settings: Any) -> set[Axis]:
        """Returns positions, if no scaling meets them."""
        return {"positions"} if config.scaling.rope_type == "default" else set()

    def _positions(self) -> ScaledFrequencies:
        return self.config.scaling.frequencies("scaling", self.rotated, self.config.base, self.spec.window)

    def frequencies(self, axis: ScaledFrequencies | None = None) -> Float32[Array, " R"]:
        """Returns the frequencies of an axis, of positions if not given; learned ones are stretched like the others."""
        axis = axis or self._positions()
        if self.learned_frequencies is None:
            return axis.frequencies
        stretch = axis.frequencies / inverse_frequencies(self.rotated, base=self.config.base)
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
        return rotation, rotation if action is block else self._rotation(events, token, action)

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
