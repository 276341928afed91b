"""TiSASRec: embeddings of the interval between two events."""

import dataclasses

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Integer

from siren_rope_jax.batch import Events
from siren_rope_jax.nn.bias.base import AttentionBias, BiasInputs, Terms
from siren_rope_jax.ops.attention import RelativeEmbedding
from siren_rope_jax.ops.intervals import interval_buckets
from siren_rope_jax.settings import check_settings


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
