"""Sources of rotary angles as modules, all with one call signature: events, metadata, token -> rotations."""

import abc
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float32, Int

from siren_rope_jax.batch import Events
from siren_rope_jax.nn.config import RotaryConfig
from siren_rope_jax.nn.features import InputSpec
from siren_rope_jax.nn.lie import BlockRotation, LieRotary
from siren_rope_jax.ops.angles import content_angles, ordinal_angles, siren_rope_angles, time_order_angles
from siren_rope_jax.ops.calendar import calendar_features, elapsed_days
from siren_rope_jax.ops.frequencies import ScaledFrequencies, inverse_frequencies
from siren_rope_jax.ops.rotary import rotate_pairs, sincos, xpos_scale
from siren_rope_jax.ops.siren import siren_init

Angles = Float32[Array, "B S R"] | Float32[Array, "B S M R"]
Heads = Float[Array, "B S _ H"]  # keys may have fewer than queries
CALENDAR_COLUMNS = {"day": (0, 1), "week": (2, 3), "span": (4,)}


class PlanarRotation(NamedTuple):
    """Turns feature pairs; shared by all layers, so that sine and cosine are computed once."""

    query: tuple[Angles, Angles, Angles]  # the angles; their sine and cosine, times a constant
    key: tuple[Angles, Angles, Angles]

    def __call__(self, query: Heads, key: Heads) -> tuple[Heads, Heads]:
        """Returns rotated queries and keys."""
        (of_query, *turn_query), (of_key, *turn_key) = self
        query = rotate_pairs(query, *turn_query, angles=of_query, partial=True)
        return query, rotate_pairs(key, *turn_key, angles=of_key, partial=True)


Rotation = PlanarRotation | BlockRotation


class NoRotation(nnx.Module):
    """Leaves queries and keys as they are: attention without rotation."""

    def __call__(self, events: Events, metadata: Float[Array, "B S F"], token: Float[Array, "B S D"]) -> None:
        """Returns no rotations."""
        return None


class Rotary(nnx.Module):
    """Queries and keys rotated by angles of events; what a source adds is `angles`."""

    def __init__(self, config: RotaryConfig, head_dim: int, spec: InputSpec, *, width: int):
        """Takes the settings that all sources share.

        Args:
          config: their settings.
          head_dim: features of each attention head.
          spec: window and calendar span of the training data.
          width: of the tokens, for angles from content.

        Raises:
          ValueError: if a scaling does not fit its method, or too little of a head is left to rotate.
        """
        self.config, self.spec = config, spec
        self.rotated = config.rotated(head_dim)
        plain = inverse_frequencies(self.rotated, base=config.base)
        self.learned_frequencies = nnx.Param(plain) if config.learned_frequencies else None
        self.attention_factor = self._positions().attention_factor
        self.content = nnx.Param(jnp.zeros((width, self.rotated // 2), jnp.float32)) if config.content_bound else None

    def _positions(self) -> ScaledFrequencies:
        return self.config.scaling.frequencies("scaling", self.rotated, self.config.base, self.spec.window)

    def _days(self, unit: float = 1.0) -> ScaledFrequencies:
        config = self.config
        return config.time_scaling.frequencies(
            "time_scaling", self.rotated, config.base, self.spec.span_days, unit=unit
        )

    def _frequencies(self, axis: ScaledFrequencies) -> Float32[Array, " R"]:
        """Frequencies of an axis: learned ones are stretched like the others."""
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
        """Returns the rotations of the blocks and of the action attention.

        Args:
          events: packed rows.
          metadata: columns that the angle network takes.
          token: representation of the events before the first block.
        """
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


class OrdinalRotary(Rotary):
    """Ordinary RoPE. Source: Su et al. 2021."""

    def angles(self, events: Events, metadata: Float[Array, "B S F"]) -> tuple[Angles, Angles]:
        """Returns the same angles for the blocks and the action attention."""
        angles = ordinal_angles(events.position, self._frequencies(self._positions()))
        return angles, angles


class TimeOrderRotary(Rotary):
    """TO-RoPE: order and time share pairs, or split them by dimension or by head. Source: Wei et al. 2025."""

    def __init__(self, config: RotaryConfig, head_dim: int, spec: InputSpec, *, width: int, key_heads: int):
        """Sets the weights of order and time; learned ones start there and keep their sign and their zeros.

        Raises:
          ValueError: if the split leaves order or time without a pair or a head, or a scaling does not fit.
        """
        super().__init__(config, head_dim, spec, width=width)
        factors = {self.attention_factor, self._days(self._unit).attention_factor} - {1.0}
        if len(factors) > 1:
            raise ValueError(
                "scaling and time_scaling must agree on the attention factor, which order and time share, "
                f"but give {sorted(factors)}"
            )
        self.attention_factor = max(factors, default=1.0)
        weights = self._weights(key_heads)
        self.order_weight, self.time_weight = (tuple(weight.tolist()) for weight in weights)
        self.mixing = nnx.Param(jnp.zeros_like(weights, jnp.float32)) if config.learned_mixing else None  # logarithms

    @property
    def _unit(self) -> float:
        """Positions that a day is worth, which frequencies count in."""
        return abs(self.config.time_scale) or 1.0

    def _weights(self, key_heads: int) -> np.ndarray:
        """Weights of order and time, of each pair or head."""
        config = self.config
        if config.mixing == "early":
            return np.ones((2, self.rotated // 2))
        count = self.rotated // 2 if config.mixing == "by_dim" else key_heads
        # Spread evenly, so that order and time both get fast and slow pairs.
        of_time = np.diff(np.floor(np.arange(count + 1) * config.time_share))
        if not 0 < of_time.sum() < count:
            raise ValueError(
                f"time_share must leave order and time some of the {count} "
                f"{'pairs' if config.mixing == 'by_dim' else 'key heads'}, but is {config.time_share}"
            )
        return np.stack([1 - of_time, of_time])

    def angles(self, events: Events, metadata: Float[Array, "B S F"]) -> tuple[Angles, Angles]:
        """Returns the same angles for the blocks and the action attention."""
        config = self.config
        weights = jnp.asarray([self.order_weight, self.time_weight], jnp.float32)
        if self.mixing is not None:
            weights *= jnp.exp(self.mixing[...])
        order, time = weights[..., None] if config.mixing == "by_head" else weights
        angles = time_order_angles(
            events.position,
            elapsed_days(events.elapsed_seconds),
            self._frequencies(self._positions()),
            time_frequencies=self._frequencies(self._days(self._unit)),
            position_scale=order,
            time_scale=time * config.time_scale,
        )
        return angles, angles


class SirenRotary(Rotary):
    """SIREN-RoPE, and semantic rotation where metadata takes the place of time.

    Source: Cheng, Sun, Lu 2026 (arXiv 2604.24717), eq. 1 and section 4.3.
    """

    def __init__(
        self,
        config: RotaryConfig,
        head_dim: int,
        spec: InputSpec,
        *,
        width: int,
        key_heads: int,
        metadata_features: int,
        rngs: nnx.Rngs,
    ):
        """Draws the angle network, or two, from the stream "params"; the gate starts at 1."""
        super().__init__(config, head_dim, spec, width=width)
        self._days()  # says what is wrong with the settings
        self.columns = tuple(column for name in config.time_inputs for column in CALENDAR_COLUMNS[name])
        self.networks = nnx.List(
            nnx.Param(
                siren_init(
                    rngs.params(),
                    len(self.columns) + metadata_features,
                    self.rotated // 2,
                    width=config.width,
                    hidden_layers=config.hidden_layers,
                    omega0=config.omega0,
                    branches=config.branches,
                )
            )
            for _ in range(2 if config.separate_action_network else 1)
        )
        heads = (key_heads,) if config.per_head else ()
        self.scale = nnx.Param(jnp.full((*heads, self.rotated // 2), config.initial_scale, jnp.float32))
        self.gate = nnx.Param(jnp.ones((*heads, 1) if heads else (), jnp.float32))

    def time_features(self, day: Int[Array, "*batch"], second: Int[Array, "*batch"]) -> Float32[Array, "*batch F"]:
        """Returns the time features that the angle network takes."""
        features = calendar_features(
            day,
            second,
            start_day=self.spec.start_day,
            span_days=self.spec.span_days * (self.config.time_scaling.factor or 1.0),
            clamp=self.config.clamp_time,
        )
        return features[..., self.columns]

    def angles(self, events: Events, metadata: Float[Array, "B S F"]) -> tuple[Angles, Angles]:
        """Returns the angles of the blocks and of the action attention."""
        time = self.time_features(events.day, events.second)
        features = jnp.concatenate([time, metadata.astype(jnp.float32)], axis=-1)
        angles = [
            siren_rope_angles(
                events.position.reshape(-1),  # one row an event: products of matrices, whose gradients need no copies
                features.reshape(-1, features.shape[-1]),
                self._frequencies(self._positions()),
                network.get_value(),
                scale=self.scale[...],
                gate=self.gate[...],
                omega0=self.config.omega0,
            )
            for network in self.networks
        ]
        angles = [of_events.reshape(*events.position.shape, *of_events.shape[1:]) for of_events in angles]
        return angles[0], angles[-1]


def make_rotary(
    config: RotaryConfig,
    head_dim: int,
    spec: InputSpec,
    *,
    width: int,
    key_heads: int = 1,
    metadata_features: int = 0,
    rngs: nnx.Rngs,
) -> NoRotation | Rotary | LieRotary:
    """Builds the angle source that the configuration names.

    Args:
      config: kind and its settings.
      head_dim: features of each attention head, even.
      spec: window and calendar span of the training data.
      width: of the tokens.
      key_heads: heads of the keys, which sources with angles per head have one set each for.
      metadata_features: width of the metadata that the angle network takes.
      rngs: stream "params".

    Returns:
      A module called as `rotary(events, metadata, token)`, giving the rotations of the blocks and of the action
      attention, or None where nothing rotates.

    Raises:
      ValueError: if a setting does not fit the heads or its method.
    """
    shared: dict[str, Any] = {"config": config, "head_dim": head_dim, "spec": spec}
    match config.kind:
        case "none":
            return NoRotation()
        case "ordinal":
            return OrdinalRotary(**shared, width=width)
        case "time_order":
            return TimeOrderRotary(**shared, width=width, key_heads=key_heads)
        case "siren":
            return SirenRotary(
                **shared, width=width, key_heads=key_heads, metadata_features=metadata_features, rngs=rngs
            )
        case "lie":
            return LieRotary(**shared)
