"""Rows of slots, cut into whole chunks."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int, Shaped

from siren_rope_jax.ops.attention.operands import Layout


def chunk_size(chunk: int, size: int) -> int:
    """Returns the number of slots in a chunk of a row of some size."""
    return min(chunk, size) if isinstance(size, int) else chunk  # a symbolic size, of jax.export, compares with nothing


def chunk_at(chunks: Shaped[Array, "C *chunk"], i: Int[Array, ""]) -> Shaped[Array, "*chunk"]:
    """Returns a chunk."""
    return jax.lax.dynamic_index_in_dim(chunks, i, keepdims=False)


def add_at(
    chunks: Float32[Array, "C *chunk"], i: Int[Array, ""], x: Float[Array, "*chunk"]
) -> Float32[Array, "C *chunk"]:
    """Adds to a chunk."""
    return jax.lax.dynamic_update_index_in_dim(chunks, chunk_at(chunks, i) + x.astype(chunks.dtype), i, 0)


def whole_chunks(layout: Layout, rows_each: int, columns_each: int) -> Layout:
    """Pads a layout to whole chunks of queries and of keys."""

    def of_rows(x: Shaped[Array, "B Q"] | None) -> Shaped[Array, "B _"] | None:
        return None if x is None else _padded(x, rows_each)

    def of_columns(x: Shaped[Array, "B S"] | None) -> Shaped[Array, "B _"] | None:
        return None if x is None else _padded(x, columns_each)

    return Layout(
        segment_ids=_padded(layout.segment_ids, rows_each),
        times=of_rows(layout.times),
        key_segment_ids=of_columns(layout.key_segment_ids),
        key_times=of_columns(layout.key_times),
        oldest=of_rows(layout.oldest),
        ranks=of_columns(layout.ranks),
    )


def _padded(x: Shaped[Array, "B S *rest"], size: int) -> Shaped[Array, "B T *rest"]:
    """Pads with zeros, the segment number of padding, to a multiple of `size` slots."""
    return jnp.pad(x, ((0, 0), (0, _count(x, size) * size - x.shape[1])) + ((0, 0),) * (x.ndim - 2))


def _count(x: Shaped[Array, "B S *rest"], size: int) -> int:
    return -(-x.shape[1] // size)  # of chunks


def in_chunks(x: Float[Array, "B S N H"], size: int) -> Float[Array, "C B N I H"]:
    """Cuts queries, keys or values into chunks."""
    cut = _padded(x, size).reshape(x.shape[0], _count(x, size), size, *x.shape[2:])
    return jnp.transpose(cut, (1, 0, 3, 2, 4))


def joined(chunks: Float[Array, "C B N I V"], length: int) -> Float[Array, "B S N V"]:
    """Joins chunks to rows of some length."""
    count, batch, heads, size, width = chunks.shape
    return jnp.transpose(chunks, (1, 0, 3, 2, 4)).reshape(batch, count * size, heads, width)[:, :length]


def chunks_that_meet(layout: Layout, rows_each: int, columns_each: int) -> Bool[Array, "C D"]:
    """Returns which chunks of queries may see which chunks of keys, by order, segment numbers and window."""

    def low_and_high(
        x: Int[Array, "B S"], ids: Int[Array, "B S"], size: int
    ) -> tuple[Int[Array, "B C 1"], Int[Array, "B C 1"]]:
        x, real = (of.reshape(of.shape[0], _count(of, size), size) for of in (x, ids != 0))
        least, most = (jnp.asarray(extreme, x.dtype) for extreme in (jnp.iinfo(x.dtype).min, jnp.iinfo(x.dtype).max))
        return jnp.where(real, x, most).min(-1, keepdims=True), jnp.where(real, x, least).max(-1, keepdims=True)

    ids, ids_of_keys = layout.segment_ids, layout.ids_of_keys
    low, high = low_and_high(ids, ids, rows_each)
    key_low, key_high = (jnp.swapaxes(x, 1, 2) for x in low_and_high(ids_of_keys, ids_of_keys, columns_each))
    meet = (low <= key_high) & (key_low <= high)
    if layout.oldest is not None and layout.ranks is not None:
        oldest, _ = low_and_high(layout.oldest, ids, rows_each)
        _, latest = low_and_high(layout.ranks, ids_of_keys, columns_each)
        meet &= oldest <= jnp.swapaxes(latest, 1, 2)
    return jnp.tril(meet.any(0)) if layout.own else meet.any(0)
