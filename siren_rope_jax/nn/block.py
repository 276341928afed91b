"""The transformer block: strictly causal attention with rotation and bias, and feed-forward."""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Integer, Key

from siren_rope_jax.batch import Events
from siren_rope_jax.nn.bias import BiasInputs, make_bias
from siren_rope_jax.nn.config import ModelConfig
from siren_rope_jax.nn.features import InputSpec
from siren_rope_jax.nn.rotary.base import Rotation
from siren_rope_jax.ops.attention import strictly_causal_attention, visible_counts
from siren_rope_jax.ops.temperature import length_temperature


def dense_rows(
    x: Float[Array, "*batch F"], kernel: Float[Array, "F D"], _: object, **options: Any
) -> Float[Array, "*batch D"]:
    """Multiplies as one product of two matrices, whose gradient needs no transposed copy; used as `dot_general`."""
    rows = jax.lax.dot_general(x.reshape(-1, x.shape[-1]), kernel, (((1,), (0,)), ((), ())), **options)
    return rows.reshape(*x.shape[:-1], -1)


@jax.custom_jvp
def silu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Computes x sigmoid(x); stores one array for its gradient instead of two."""
    return x * jax.nn.sigmoid(x)


@silu.defjvp
def _silu_jvp(primals, tangents):  # type: ignore[no-untyped-def]
    (x,), (tangent,) = primals, tangents
    sigmoid = jax.nn.sigmoid(x)
    return x * sigmoid, tangent * (sigmoid * (1 + x * (1 - sigmoid)))


def widen(layer: nnx.Linear, inputs: int, *, key: Key[Array, ""]) -> None:
    """Adds inputs to a layer; their weights come from their own key, so that all others start as without them."""
    layer.in_features += inputs
    drawn = jax.random.normal(key, (inputs, layer.out_features)) / layer.in_features**0.5
    layer.kernel.set_value(jnp.concatenate([layer.kernel[...], drawn]))


class Mlp(nnx.Module):
    """Linear layers with SiLU between them."""

    def __init__(self, sizes: tuple[int, ...], *, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Draws one layer for each pair of consecutive sizes."""
        self.layers = nnx.List(
            nnx.Linear(n_in, n_out, dtype=dtype, dot_general=dense_rows, rngs=rngs)
            for n_in, n_out in itertools.pairwise(sizes)
        )

    def __call__(self, x: Float[Array, "B S F"]) -> Float[Array, "B S D"]:
        """Applies the layers; the last one is linear."""
        *hidden, last = self.layers
        for layer in hidden:
            x = silu(layer(x))
        return last(x)


class RotaryAttention(nnx.Module):
    """Multi-head, strictly causal attention whose queries and keys are rotated."""

    def __init__(self, config: ModelConfig, spec: InputSpec, *, dtype: jnp.dtype, rngs: nnx.Rngs, time_rngs: nnx.Rngs):
        """Draws four projections (no bias terms) from `rngs`; the no-history vector starts at 0."""
        self.config = config
        self.head_dim = config.width // config.heads
        key_width = self.head_dim * (config.key_heads or config.heads)
        self.query, self.key, self.value, self.output = (
            nnx.Linear(config.width, width, use_bias=False, dtype=dtype, dot_general=dense_rows, rngs=rngs)
            for width in (config.width, key_width, key_width, config.width)
        )
        self.no_history = nnx.Param(jnp.zeros(config.width, jnp.float32))
        self.bias = make_bias(config.bias, BiasInputs(spec, config.heads, self.head_dim, config.width), time_rngs)
        self.window = spec.window
        learned = jnp.ones(config.heads, jnp.float32) if config.temperature == "learned_log_length" else None
        self.temperature = None if learned is None else nnx.Param(learned)

    def __call__(
        self,
        x: Float[Array, "B S D"],
        value: Float[Array, "B S D"],
        events: Events,
        times: Integer[Array, "B S"] | None,
        rotation: Rotation | None,
    ) -> Float[Array, "B S D"]:
        """Attends from each event to the earlier ones of its segment; returns the projected mixture of `value`."""
        value = self.value(value).reshape(*x.shape[:2], -1, self.head_dim)
        no_history = self.no_history[...].reshape(-1, self.head_dim)
        arguments = self._arguments(x, events, times, rotation)
        attended = strictly_causal_attention(value=value, no_history=no_history, **arguments)
        return self.output(attended.reshape(x.shape))

    def weights(
        self,
        x: Float[Array, "B S D"],
        events: Events,
        times: Integer[Array, "B S"] | None,
        rotation: Rotation | None,
    ) -> Float[Array, "B N S S"]:
        """Returns the weights with which `__call__` mixes values: of each event, on the last axis those that it sees.

        They sum to 1, or to 0 where an event sees none: what attention makes of values that mark one slot each.
        """
        arguments = self._arguments(x, events, times, rotation)
        batch, slots, key_heads, _ = arguments["key"].shape
        marks = jnp.broadcast_to(jnp.eye(slots, dtype=x.dtype)[:, None], (batch, slots, key_heads, slots))
        no_history = jnp.zeros((arguments["query"].shape[2], slots), x.dtype)
        if arguments["relative"] is not None:
            table = arguments["relative"].value
            arguments["relative"] = arguments["relative"]._replace(value=jnp.zeros((*table.shape[:2], slots)))
        arguments["implementation"] = "plain"
        attended = strictly_causal_attention(value=marks, no_history=no_history, **arguments)
        return jnp.swapaxes(attended, 1, 2)

    def _arguments(
        self,
        x: Float[Array, "B S D"],
        events: Events,
        times: Integer[Array, "B S"] | None,
        rotation: Rotation | None,
    ) -> dict[str, Any]:
        """Returns all arguments of the attention but the values, and what stands for them without history."""
        split = (*x.shape[:2], -1, self.head_dim)
        query, key = self.query(x).reshape(split), self.key(x).reshape(split)
        if rotation is not None:
            query, key = rotation(query, key)
        if self.config.temperature != "fixed":
            query = query * self._sharpness(events, times).astype(query.dtype)
        bias, relative = self.bias(events, x, times)
        return {
            "query": query,
            "key": key,
            "segment_ids": events.segment,
            "scale": self.config.attention_scale or 1 / math.sqrt(self.head_dim),  # also where a rotation widens heads
            "times": times,
            "hide_within": self.config.hide_within,
            "bias": bias,
            "relative": relative,
            "implementation": self.config.attention,
            "times_ascend": self.config.action_fusion != "interleaved",
        }

    def _sharpness(self, events: Events, times: Integer[Array, "B S"] | None) -> Float[Array, "B S _ 1"]:
        """Returns the factors of the queries by the number of events that they see."""
        counts = visible_counts(events.segment, times=times, hide_within=self.config.hide_within)
        factors = length_temperature(counts, max(self.window, 2))[..., None]
        return (factors if self.temperature is None else factors * self.temperature[...])[..., None]


class Block(nnx.Module):
    """Pre-norm attention, then feed-forward; the values of the attention may include the actions."""

    def __init__(self, config: ModelConfig, spec: InputSpec, *, dtype: jnp.dtype, rngs: nnx.Rngs, time_rngs: nnx.Rngs):
        """Draws the weights from `rngs` and those of the attention bias from `time_rngs`, stream "params" of each."""
        self.config = config
        self.attention = RotaryAttention(config, spec, dtype=dtype, rngs=rngs, time_rngs=time_rngs)
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
        actions: Float[Array, "B S D"] | None,
        events: Events,
        times: Integer[Array, "B S"] | None,
        rotation: Rotation | None,
        *,
        dropout_key: Key[Array, ""] | None,
    ) -> Float[Array, "B S D"]:
        """Returns the updated representations."""
        keys = (None, None) if dropout_key is None else jax.random.split(dropout_key)
        normed = self.attention_norm(x)
        value = normed if actions is None else self.attention_norm(x + actions)
        attended = self.attention(normed, value, events, times, rotation)
        x = x + self.config.residual_scale * drop(self.dropout, attended, keys[0])
        return x + self.config.residual_scale * drop(
            self.dropout, self.feed_forward(self.feed_forward_norm(x)), keys[1]
        )


def drop(dropout: nnx.Dropout, x: Float[Array, "B S D"], key: Key[Array, ""] | None) -> Float[Array, "B S D"]:
    """Applies dropout if a key is given, as in training."""
    return dropout(x, deterministic=key is None, rngs=key)
