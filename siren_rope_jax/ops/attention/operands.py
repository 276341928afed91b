"""Operands of an implementation of attention: arrays, visibility, bias and relative embedding."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Integer

from siren_rope_jax.ops.bias import Bias


class Layout(NamedTuple):
    """Segment (0 is padding) and time of each slot; those of the keys are given if keys are another sequence."""

    segment_ids: Int[Array, "B Q"]
    times: Integer[Array, "B Q"] | None
    key_segment_ids: Int[Array, "B S"] | None
    key_times: Integer[Array, "B S"] | None

    @property
    def own(self) -> bool:
        """Whether queries and keys share their slots, so that a query sees only earlier slots."""
        return self.key_segment_ids is None

    @property
    def ids_of_keys(self) -> Int[Array, "B S"]:
        """Segment ids of the keys."""
        return self.segment_ids if self.key_segment_ids is None else self.key_segment_ids


class RelativeEmbedding(NamedTuple):
    """Vectors added to keys and values by their relation to the query, such as the interval between the two."""

    buckets: Callable[[Int[Array, " Q"], Int[Array, " K"]], Int[Array, "B Q K"]]  # function of query and key slots
    key: Float[Array, "T N H"]  # one vector for each of T buckets
    value: Float[Array, "T N V"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Operands:
    """Checked arguments of `strictly_causal_attention`."""

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
        """Distinct types of queries, keys and values, by name."""
        return sorted({str(x.dtype) for x in (self.query, self.key, self.value)})

    @property
    def extras(self) -> list[str]:
        """Names of the given arguments that fused kernels do not support."""
        extras = {"bias": self.bias, "relative": self.relative, "key_segment_ids": self.layout.key_segment_ids}
        return [name for name, extra in extras.items() if extra is not None]

    def without_padding(self) -> "Operands":
        """Sets padding to 0, since a weight of 0 does not stop a NaN, neither forwards nor backwards."""
        query = jnp.where(self.layout.segment_ids[..., None, None] != 0, self.query, 0)
        real_key = self.layout.ids_of_keys[..., None, None] != 0
        key, value = jnp.where(real_key, self.key, 0), jnp.where(real_key, self.value, 0)
        return dataclasses.replace(self, query=query, key=key, value=value)
