"""What every implementation of attention reads for a block of queries and keys: who sees whom, bias, relation."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int, Integer

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


def visible(layout: Layout, rows: Int[Array, " C"], columns: Int[Array, " K"]) -> Bool[Array, "B C K"]:
    """[b, i, j]: does the query of slot rows[i] see the event of slot columns[j]?"""
    segment = layout.segment_ids[:, rows, None]
    seen = (segment == layout.ids_of_keys[:, None, columns]) & (segment != 0)
    if layout.own:
        seen &= rows[:, None] > columns[None, :]
    if layout.times is not None:
        of_keys = layout.times if layout.key_times is None else layout.key_times
        seen &= layout.times[:, rows, None] > of_keys[:, None, columns]
    return seen


def bias_of_block(
    bias: Bias, rows: Int[Array, " C"], columns: Int[Array, " K"], *, batch: int, heads: int
) -> Float32[Array, "#B #N C K"]:
    """Asks for the bias of some slots; a shape that does not fit is refused in one sentence."""
    block, shape = bias(rows, columns), (batch, heads, rows.size, columns.size)
    allowed = {1, batch}, {1, heads}, {rows.size}, {columns.size}
    if block.ndim != 4 or not all(given in sizes for given, sizes in zip(block.shape, allowed, strict=True)):
        raise ValueError(f"bias must return shape {shape}, where B and N may be 1, but returned {block.shape}")
    return jnp.asarray(block, jnp.float32)


def buckets_of_block(
    relative: RelativeEmbedding, rows: Int[Array, " C"], columns: Int[Array, " K"], *, batch: int
) -> Int[Array, "B C K"]:
    """Asks for the relations of some slots; what is no integer or does not fit is refused in one sentence."""
    buckets, shape = relative.buckets(rows, columns), (batch, rows.size, columns.size)
    if buckets.shape != shape or not jnp.issubdtype(buckets.dtype, jnp.integer):
        raise ValueError(
            f"relative.buckets must return integers of shape {shape}, but returned {buckets.dtype} of {buckets.shape}"
        )
    return jnp.asarray(buckets)


def sum_by_bucket(
    weights: Float32[Array, "B N C S"], buckets: Int[Array, "B 1 C S"], count: int
) -> Float32[Array, "B N C T"]:
    """Total weight of the keys in each bucket."""

    def one_query(weights: Float32[Array, " S"], buckets: Int[Array, " S"]) -> Float32[Array, " T"]:
        return jnp.zeros(count, jnp.float32).at[buckets].add(weights)

    over_queries = jax.vmap(one_query)
    over_heads = jax.vmap(over_queries, in_axes=(0, None))
    return jax.vmap(over_heads)(weights, buckets[:, 0])
