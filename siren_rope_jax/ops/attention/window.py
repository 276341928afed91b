"""A window on the latest events of a segment, with the first events always seen."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int32

from siren_rope_jax.ops.attention.operands import Layout, Operands
from siren_rope_jax.ops.slots import changes


def windowed(operands: Operands) -> Layout:
    """Adds to the layout the rank of each key and the lowest rank that each query sees, if there is a window.

    Ranks count the events of a segment from its earliest: by time, then by slot.
    """
    if operands.window is None:
        return operands.layout
    ranks, seen = ranks_and_counts(operands.layout, inclusive=operands.inclusive)
    always_first = jnp.where(ranks < operands.sinks, jnp.iinfo(jnp.int32).max, ranks)
    return operands.layout._replace(ranks=always_first, oldest=seen - operands.window)


def ranks_and_counts(layout: Layout, *, inclusive: bool) -> tuple[Int32[Array, "B S"], Int32[Array, "B Q"]]:
    """Computes the rank of each key in its segment, and how many keys each query sees.

    One sort of queries and keys together gives both, so that no array of all pairs is needed.
    """
    (batch, queries), keys = layout.segment_ids.shape, layout.ids_of_keys.shape[1]
    of_queries, of_keys = layout.times, layout.times_of_keys
    if of_queries is None or of_keys is None:
        of_keys = of_queries = jnp.broadcast_to(jnp.arange(keys, dtype=jnp.int32), (batch, keys))
    ids, times = (
        jnp.concatenate([a, b], axis=1) for a, b in ((layout.ids_of_keys, layout.segment_ids), (of_keys, of_queries))
    )
    is_key = jnp.broadcast_to(jnp.arange(keys + queries) < keys, ids.shape).astype(jnp.int32)
    # A query comes after the keys of its own time only if it sees them.
    last = is_key if layout.own or not inclusive else -is_key
    slots = jnp.broadcast_to(jnp.arange(keys + queries, dtype=jnp.int32), ids.shape)
    ids, _, _, slots, is_key = jax.lax.sort((ids, times, last, slots, is_key), dimension=1, num_keys=4)
    before = jnp.cumsum(is_key, axis=1) - is_key
    before = before - jax.lax.cummax(jnp.where(changes(ids), before, 0), axis=1)
    _, ranks = jax.lax.sort((slots, before), dimension=1, num_keys=1)
    itself = 1 if layout.own and inclusive else 0
    return ranks[:, :keys], ranks[:, keys:] + itself
