"""What is added to the attention logits, as modules with one call signature: events -> (bias, relative embedding)."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from siren_rope_jax.batch import Events
from siren_rope_jax.nn.config import BiasConfig
from siren_rope_jax.nn.features import InputSpec
from siren_rope_jax.ops.attention_terms import RelativeEmbedding
from siren_rope_jax.ops.bias import (
    Bias,
    alibi_bias,
    alibi_slopes,
    hstu_bias,
    interval_buckets,
    t5_bias,
)

_TIME_BUCKETS = 129  # of log-time, as in the source
Terms = tuple[Bias | None, RelativeEmbedding | None]


class NoBias(nnx.Module):
    """Leaves the logits to queries and keys."""

    def __call__(self, events: Events) -> Terms:
        """Returns no terms."""
        return None, None


class AlibiBias(nnx.Module):
    """ALiBi: logits fall with the distance, at a fixed slope a head. Source: Press et al. 2022."""

    def __init__(self, heads: int):
        """Takes the number of query heads."""
        self.heads = heads

    def __call__(self, events: Events) -> Terms:
        """Returns the bias."""
        return alibi_bias(events.position, alibi_slopes(self.heads)), None


class T5Bias(nnx.Module):
    """T5: one learned number for each bucket of distance and each head, in every layer. Source: Raffel et al. 2020."""

    def __init__(self, config: BiasConfig, heads: int):
        """Starts at 0, so that every variant starts from the same attention."""
        self.max_distance = config.max_distance
        self.table = nnx.Param(jnp.zeros((config.buckets, heads), jnp.float32))

    def __call__(self, events: Events) -> Terms:
        """Returns the bias."""
        return t5_bias(events.position, self.table[...], max_distance=self.max_distance), None


class HstuBias(nnx.Module):
    """HSTU: learned numbers for each distance and each bucket of log-time, in every layer, shared by the heads.

    Source: Zhai et al. 2024.
    """

    def __init__(self, window: int):
        """Starts at 0; distances beyond the training window get the number of the longest."""
        self.positions = nnx.Param(jnp.zeros(window, jnp.float32))
        self.times = nnx.Param(jnp.zeros(_TIME_BUCKETS, jnp.float32))

    def __call__(self, events: Events) -> Terms:
        """Returns the bias; the time of the query is that of its own event, known when it is scored."""
        return hstu_bias(events.position, events.elapsed_seconds, self.positions[...], self.times[...]), None


class IntervalEmbedding(nnx.Module):
    """TiSASRec: the interval to the query, in the user's smallest gaps so far, is embedded into keys and values.

    Source: Li et al. 2020, with tables for each layer and head; its absolute positions are the encoding "learned".
    """

    def __init__(self, config: BiasConfig, heads: int, head_dim: int, *, rngs: nnx.Rngs):
        """Draws the two tables from the stream "params"."""
        self.max_interval = config.max_interval
        shape = (config.max_interval + 1, heads, head_dim)
        init = nnx.initializers.normal(0.02)
        self.key, self.value = (nnx.Param(init(rngs.params(), shape, jnp.float32)) for _ in range(2))

    def __call__(self, events: Events) -> Terms:
        """Returns the relative embedding."""
        buckets = interval_buckets(events.elapsed_seconds, events.segment, max_interval=self.max_interval)
        tables: list[Float[Array, "T N H"]] = [self.key[...], self.value[...]]
        return None, RelativeEmbedding(buckets, *tables)


def make_bias(
    config: BiasConfig, spec: InputSpec, *, heads: int, head_dim: int, rngs: nnx.Rngs
) -> NoBias | AlibiBias | T5Bias | HstuBias | IntervalEmbedding:
    """Builds the terms of one attention layer that the configuration names.

    Args:
      config: kind and its settings.
      spec: window of the training data.
      heads: query heads.
      head_dim: features of each head.
      rngs: stream "params".

    Returns:
      A module called as `bias(events)`, giving the bias and the relative embedding that `strictly_causal_attention`
      takes, or None in their places.
    """
    match config.kind:
        case "none":
            return NoBias()
        case "alibi":
            return AlibiBias(heads)
        case "t5":
            return T5Bias(config, heads)
        case "hstu":
            return HstuBias(spec.window)
        case "tisasrec":
            return IntervalEmbedding(config, heads, head_dim, rngs=rngs)
