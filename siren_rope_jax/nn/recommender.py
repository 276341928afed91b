"""The generative recommender: blocks of rotary, strictly causal attention, action attention and task heads."""

import dataclasses
import itertools
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32, Int, Key

from siren_rope_jax.nn.features import Events, InputFeatures, InputSpec
from siren_rope_jax.nn.rotary import RotaryConfig, make_rotary
from siren_rope_jax.ops.attention import strictly_causal_attention
from siren_rope_jax.ops.calendar import calendar_features
from siren_rope_jax.ops.rotary import rotate_pairs, sincos
from siren_rope_jax.settings import check_settings

SinCos = tuple[Float32[Array, "B S R"], Float32[Array, "B S R"]] | None


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Size and form of the recommender."""

    width: int = 64
    """Width of each event's representation, D."""
    heads: int = 4
    """Attention heads; the width of each is even."""
    layers: int = 2
    """Transformer blocks before the action attention."""
    embedding_dim: int = 16
    """Width of each id's embedding."""
    action_widths: tuple[int, ...] = (64, 64)
    """Hidden widths of the network that embeds past actions."""
    head_widths: tuple[int, ...] = (128, 64)
    """Hidden widths of the network that predicts the tasks (the authors: 512 and 256)."""
    feed_forward: float = 4.0
    """Feed-forward width as a multiple of the model's."""
    dropout: float = 0.1
    """Dropout of residual branches and of the head's input."""
    id_dropout: float = 0.1
    """Probability with which training hides an id."""
    attention_scale: float | None = None
    """Factor of the attention logits; 1/sqrt(head width) if not given (the authors: 0.025)."""
    residual_scale: float = 1.0
    """Factor of each residual branch (the authors: 0.1)."""
    context_skip: bool = True
    """Lets the history counters act on the logits linearly too, beside the head's network."""
    time_in_embedding: bool = False
    """Feeds the time features into each event's embedding: the paper's second baseline, with any rotation."""
    hide_ties: bool = True
    """Keeps events of one user that carry the same second from seeing each other; else they see outcomes too early."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the activations; angles, softmax, logits and parameters stay float32."""
    rotary: RotaryConfig = dataclasses.field(default_factory=RotaryConfig)
    """Which angles rotate queries and keys."""

    def __post_init__(self) -> None:
        check_settings(
            self,
            width="[1, inf)",
            heads="[1, inf)",
            layers="[0, inf)",
            embedding_dim="[1, inf)",
            action_widths="[1, inf)",
            head_widths="[1, inf)",
            feed_forward="(0, inf)",
            dropout="[0, 1)",
            id_dropout="[0, 1)",
            attention_scale="(0, inf)",
            residual_scale="(-inf, inf)",
        )
        if self.width % (2 * self.heads):
            raise ValueError(f"width must be a multiple of twice the heads, but is {self.width} for {self.heads} heads")
        if round(self.feed_forward * self.width) < 1:
            raise ValueError(f"feed_forward must leave at least one unit, but is {self.feed_forward}")


class Mlp(nnx.Module):
    """Linear layers with SiLU between them."""

    def __init__(self, sizes: tuple[int, ...], *, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Draws one layer for each pair of neighbouring sizes."""
        self.layers = nnx.List(
            nnx.Linear(n_in, n_out, dtype=dtype, rngs=rngs) for n_in, n_out in itertools.pairwise(sizes)
        )

    def __call__(self, x: Float[Array, "B S F"]) -> Float[Array, "B S D"]:
        """Applies the layers; the last one is linear."""
        *hidden, last = self.layers
        for layer in hidden:
            x = jax.nn.silu(layer(x))
        return last(x)


class RotaryAttention(nnx.Module):
    """Multi-head, strictly causal attention whose queries and keys are rotated."""

    def __init__(self, config: ModelConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Draws four projections without bias; the no-history vector starts at 0."""
        self.config = config
        self.query, self.key, self.value, self.output = (
            nnx.Linear(config.width, config.width, use_bias=False, dtype=dtype, rngs=rngs) for _ in range(4)
        )
        self.no_history = nnx.Param(jnp.zeros(config.width, jnp.float32))

    def __call__(
        self, x: Float[Array, "B S D"], value: Float[Array, "B S D"], events: Events, rotation: SinCos
    ) -> Float[Array, "B S D"]:
        """Attends from `x` to earlier `x` of the segment and returns the projected mixture of `value`."""
        split = (*x.shape[:2], self.config.heads, -1)
        query, key, value = (
            self.query(x).reshape(split),
            self.key(x).reshape(split),
            self.value(value).reshape(split),
        )
        if rotation is not None:
            query, key = rotate_pairs(query, *rotation), rotate_pairs(key, *rotation)
        attended = strictly_causal_attention(
            query,
            key,
            value,
            segment_ids=events.segment,
            no_history=self.no_history[...].reshape(self.config.heads, -1),
            scale=self.config.attention_scale,
            times=events.elapsed if self.config.hide_ties else None,
        )
        return self.output(attended.reshape(x.shape))


class Block(nnx.Module):
    """Pre-norm attention over event representations, whose values carry the actions too, then feed-forward."""

    def __init__(self, config: ModelConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Draws the weights from the stream "params"."""
        self.config = config
        self.attention = RotaryAttention(config, dtype=dtype, rngs=rngs)
        self.feed_forward = Mlp(
            (config.width, round(config.feed_forward * config.width), config.width), dtype=dtype, rngs=rngs
        )
        self.attention_norm, self.feed_forward_norm = (
            nnx.LayerNorm(config.width, epsilon=1e-5, dtype=dtype, rngs=rngs) for _ in range(2)
        )
        self.dropout = nnx.Dropout(config.dropout)

    def __call__(
        self,
        x: Float[Array, "B S D"],
        actions: Float[Array, "B S D"],
        events: Events,
        rotation: SinCos,
        *,
        dropout_key: Key[Array, ""] | None,
    ) -> Float[Array, "B S D"]:
        """Returns the updated representations."""
        keys = (None, None) if dropout_key is None else jax.random.split(dropout_key)
        attended = self.attention(self.attention_norm(x), self.attention_norm(x + actions), events, rotation)
        x = x + self.config.residual_scale * _drop(self.dropout, attended, keys[0])
        return x + self.config.residual_scale * _drop(
            self.dropout, self.feed_forward(self.feed_forward_norm(x)), keys[1]
        )


class GenerativeRecommender(nnx.Module):
    """Predicts the tasks of each event from the event itself and the user's earlier events and actions.

    Source: Cheng, Sun, Lu 2026 and the authors' code: mixed-value action fusion in every block, one attention over
    the actions after them, and a head on [representation, attended actions, context].
    """

    def __init__(self, config: ModelConfig, spec: InputSpec, task_logits: tuple[float, ...], *, key: Key[Array, ""]):
        """Draws the weights.

        Args:
          config: size and form.
          spec: the columns of the events.
          task_logits: where each task's prediction starts, the logit of its base rate in training.
          key: everything but rotation and time features is drawn from it alike for every variant.

        Raises:
          ValueError: if there is no task, or the rotation's metadata names an unknown column.
        """
        if not task_logits:
            raise ValueError("task_logits must hold one logit a task, but are empty")
        dtype = jnp.dtype(config.dtype)
        # The time-dependent parts have a stream of their own: without them, or with others, the rest starts alike.
        body_key, time_key = jax.random.split(key)
        rngs, time_rngs = nnx.Rngs(params=body_key), nnx.Rngs(params=time_key)
        self.config, self.spec = config, spec
        self.features = InputFeatures(spec, embedding_dim=config.embedding_dim, id_dropout=config.id_dropout, rngs=rngs)
        self.token = nnx.Linear(self.features.out_features, config.width, dtype=dtype, rngs=rngs)
        self.token_norm = nnx.LayerNorm(config.width, epsilon=1e-5, dtype=dtype, rngs=rngs)
        self.actions = Mlp((spec.action_features, *config.action_widths, config.width), dtype=dtype, rngs=rngs)
        self.blocks = nnx.List(Block(config, dtype=dtype, rngs=rngs) for _ in range(config.layers))
        self.action_attention = RotaryAttention(config, dtype=dtype, rngs=rngs)
        tasks = len(task_logits)
        self.head = Mlp((2 * config.width + spec.context_features, *config.head_widths, tasks), dtype=dtype, rngs=rngs)
        start = self.head.layers[-1].bias
        assert start is not None
        start[...] = jnp.asarray(task_logits, jnp.float32)
        self.head_dropout = nnx.Dropout(config.dropout)
        self.context = (
            nnx.Linear(spec.context_features, tasks, use_bias=False, kernel_init=nnx.initializers.zeros, rngs=rngs)
            if config.context_skip and spec.context_features
            else None
        )
        self.metadata_columns = tuple(self.features.columns(config.rotary.metadata))
        self.rotary = make_rotary(
            config.rotary,
            config.width // config.heads,
            spec,
            metadata_features=len(self.metadata_columns),
            rngs=time_rngs,
        )
        self.time = (
            nnx.Linear(5, config.width, use_bias=False, dtype=dtype, rngs=time_rngs)
            if config.time_in_embedding
            else None
        )

    def __call__(self, events: Events, *, dropout_key: Key[Array, ""] | None = None) -> Float32[Array, "B S K"]:
        """Scores every event.

        Args:
          events: packed rows.
          dropout_key: given in training only.

        Returns:
          Logits of the tasks, float32; those of padding mean nothing.
        """
        keys = (
            [None] * (len(self.blocks) + 2)
            if dropout_key is None
            else jax.random.split(dropout_key, len(self.blocks) + 2)
        )
        features = self.features(events, dropout_key=keys[0])
        token = self.token(features)
        if self.time is not None:
            token += self.time(self._calendar(events.day, events.second))
        x = self.token_norm(jax.nn.relu(token))
        actions = jax.nn.relu(self.actions(events.actions))
        angles = self.rotary(events, features[..., self.metadata_columns])
        block_rotation, action_rotation = (None, None) if angles is None else map(sincos, angles)
        for block, key in zip(self.blocks, keys[2:], strict=True):
            x = block(x, actions, events, block_rotation, dropout_key=key)
        attended = self.action_attention(x, actions, events, action_rotation)
        inputs = jnp.concatenate([x, attended, events.context.astype(x.dtype)], axis=-1)
        logits = self.head(_drop(self.head_dropout, inputs, keys[1])).astype(jnp.float32)
        return logits if self.context is None else logits + self.context(events.context)

    def _calendar(self, day: Int[Array, "B S"], second: Int[Array, "B S"]) -> Float32[Array, "B S 5"]:
        return calendar_features(day, second, start_day=self.spec.start_day, span_days=self.spec.span_days)


def _drop(dropout: nnx.Dropout, x: Float[Array, "B S D"], key: Key[Array, ""] | None) -> Float[Array, "B S D"]:
    return dropout(x, deterministic=key is None, rngs=key)
