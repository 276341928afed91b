"""Everything that an implementation of attention is given: arrays, who sees whom, and what is added."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Integer

from siren_rope_jax.ops.bias import Bias


class Layout(NamedTuple):
    """Which sequence each slot belongs to, 0 for padding, and when it was; the keys' where they are another's."""

    segment_ids: Int[Array, "B Q"]
    times: Integer[Array, "B Q"] | None
    key_segment_ids: Int[Array, "B S"] | None
    key_times: Integer[Array, "B S"] | None

    @property
    def own(self) -> bool:
        """Whether keys are of the queries' own slots, of which only those before are seen."""
        return self.key_segment_ids is None

    @property
    def ids_of_keys(self) -> Int[Array, "B S"]:
        """Segments of the keys."""
        return self.segment_ids if self.key_segment_ids is None else self.key_segment_ids


class RelativeEmbedding(NamedTuple):
    """What a key and a value gain by their relation to the query, such as the interval between them."""

    buckets: Callable[[Int[Array, " Q"], Int[Array, " K"]], Int[Array, "B Q K"]]  # of query slots and key slots
    key: Float[Array, "T N H"]  # one vector for each of T buckets
    value: Float[Array, "T N V"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Operands:
    """Arguments of `strictly_causal_attention`, checked, for an implementation of it."""

    query: Float[Array, "B Q N H"]
    key: Float[Array, "B S M H"]
    value: Float[Array, "B S M V"]
    layout: Layout
    no_history: Float[Array, "N V"]
    scale: float
    bias: Bias | None = None
    relative: RelativeEmbedding | None = None
    chunk: int = 128
    times_ascend: bool = False

    @property
    def types(self) -> list[str]:
        """Names of the types of queries, keys and values."""
        return sorted({str(x.dtype) for x in (self.query, self.key, self.value)})

    @property
    def extras(self) -> list[str]:
        """Names of the arguments given that fused kernels do not take."""
        extras = {"bias": self.bias, "relative": self.relative, "key_segment_ids": self.layout.key_segment_ids}
        return [name for name, extra in extras.items() if extra is not None]

    def without_padding(self) -> "Operands":
        """Returns them with 0 in padding: weights of 0 would not keep a NaN from spreading, forwards or backwards."""
        query = jnp.where(self.layout.segment_ids[..., None, None] != 0, self.query, 0)
        real_key = self.layout.ids_of_keys[..., None, None] != 0
        key, value = jnp.where(real_key, self.key, 0), jnp.where(real_key, self.value, 0)
        return dataclasses.replace(self, query=query, key=key, value=value)
