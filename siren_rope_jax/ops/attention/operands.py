"""Operands of an implementation of attention: arrays, visibility, bias and relative embedding."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int, Int32, Integer

from siren_rope_jax.ops.bias import Bias


class Layout(NamedTuple):
    """Segment (0 is padding) and time of each slot; those of the keys are given if they differ from the queries'."""

    segment_ids: Int[Array, "B Q"]
    times: Integer[Array, "B Q"] | None = None
    key_segment_ids: Int[Array, "B S"] | None = None
    key_times: Integer[Array, "B S"] | None = None  # also of the same sequence, from which on its events may be seen
    oldest: Int32[Array, "B Q"] | None = None  # lowest rank that a query sees, if there is a window
    ranks: Int32[Array, "B S"] | None = None  # of the keys

    @property
    def own(self) -> bool:
        """Whether queries and keys share their slots, so that a query sees only earlier slots."""
        return self.key_segment_ids is None

    @property
    def times_of_keys(self) -> Integer[Array, "B S"] | None:
        """Times of the keys."""
        return self.times if self.key_times is None else self.key_times

    @property
    def ids_of_keys(self) -> Int[Array, "B S"]:
        """Segment ids of the keys."""
        return self.segment_ids if self.key_segment_ids is None else self.key_segment_ids


BucketsOfSlots = Callable[[Int[Array, " Q"], Int[Array, " K"]], Int[Array, "B Q K"]]


class RelativeEmbedding(NamedTuple):
    """Vectors added to keys and values by their relation to the query, such as the interval between the two."""

    buckets: BucketsOfSlots
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
    scale: float | Float32[Array, ""] | Float32[Array, " N"]
    inclusive: bool = False
    window: int | None = None
    sinks: int = 0
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
        """Names of the given arguments that no fused kernel supports."""
        extras = {"bias": self.bias, "relative": self.relative, "key_segment_ids": self.layout.key_segment_ids}
        return [name for name, extra in extras.items() if extra is not None]

    def scaled_query(self) -> Float[Array, "B Q N H"]:
        """Multiplies the queries by the scale, for kernels that take no scale or only a constant."""
        # In float32, since a scale that is rounded to bfloat16 shifts every logit alike.
        scale = jnp.asarray(self.scale, jnp.float32)
        scaled = self.query.astype(jnp.float32) * (scale[None, None, :, None] if scale.ndim else scale)
        return scaled.astype(self.query.dtype)

    def without_padding(self) -> "Operands":
        """Sets padding to 0, since a weight of 0 does not stop a NaN, neither forwards nor backwards."""
        query = jnp.where(self.layout.segment_ids[..., None, None] != 0, self.query, 0)
        real_key = self.layout.ids_of_keys[..., None, None] != 0
        key, value = jnp.where(real_key, self.key, 0), jnp.where(real_key, self.value, 0)
        return dataclasses.replace(self, query=query, key=key, value=value)
