"""Strictly causal attention over packed segments, within one sequence or from requests to a history."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int, Integer

from siren_rope_jax.ops.bias import Bias
from siren_rope_jax.ops.integers import device_integers


class RelativeEmbedding(NamedTuple):
    """What a key and a value gain by their relation to the query, such as the interval between them."""

    buckets: Callable[[Int[Array, " Q"], Int[Array, " K"]], Int[Array, "B Q K"]]  # of query slots and key slots
    key: Float[Array, "T N H"]  # one vector for each of T buckets
    value: Float[Array, "T N V"]


def strictly_causal_attention(
    query: Float[Array, "B Q N H"],
    key: Float[Array, "B S M H"],
    value: Float[Array, "B S M V"],
    *,
    segment_ids: Int[Array, "B Q"],
    no_history: Float[Array, "N V"],
    scale: float | None = None,
    times: Integer[Array, "B Q"] | None = None,
    key_segment_ids: Int[Array, "B S"] | None = None,
    key_times: Integer[Array, "B S"] | None = None,
    bias: Bias | None = None,
    relative: RelativeEmbedding | None = None,
    query_chunk: int | None = None,
) -> Float[Array, "B Q N V"]:
    """Lets each event attend to the earlier events of its own segment, never to itself.

    Queries may come from another sequence than keys and values: requests, each at its own time, against histories.
    Then `key_segment_ids`, `times` and `key_times` say who sees what: a request sees the events of its segment whose
    time is before its own.

    Args:
      query: rotated queries.
      key: rotated keys; M key heads serve N/M neighbouring query heads each (grouped queries).
      value: values, with the heads of the keys.
      segment_ids: which sequence each slot belongs to; 0 is padding, which nobody sees, whatever it holds. Elsewhere
        numbers must be finite: a NaN in one event reaches others, earlier ones too.
      no_history: what an event without any visible event before it gets; for padding too.
      scale: factor of the logits; 1/sqrt(H) if not given.
      times: if given, events of one time do not see each other (several shown in one request, say); integers that
        fit int32.
      key_segment_ids: of the keys, if they are another sequence than the queries.
      key_times: of the keys, if they are another sequence.
      bias: added to the scaled logits: a function of query slots and key slots (`alibi_bias`, `t5_bias`,
        `hstu_bias`), so that no [B, N, Q, S] array of it is needed.
      relative: vectors added to keys and values by the relation of query and key (TiSASRec).
      query_chunk: queries that are attended from at a time, whose logits are computed anew for the gradient: memory
        for [B, N, query_chunk, S] instead of [B, N, Q, S]; all at once if not given.

    Returns:
      Attended values in the dtype of `value`; finite, with finite gradients, for any layout of segments.

    Raises:
      ValueError: if the shapes do not agree, of what `bias` and `relative` return too, queries, keys and values are
        not floating-point or the times no integers that fit, or a time is missing where keys are another sequence.

    Source: strict causality as in Cheng, Sun, Lu 2026; softmax over packed segments; grouped queries of Ainslie et
    al. 2023; relative embeddings of Shaw et al. 2018.
    """
    segment_ids = device_integers("segment_ids", segment_ids)
    times = None if times is None else device_integers("times", times)
    key_segment_ids = None if key_segment_ids is None else device_integers("key_segment_ids", key_segment_ids)
    key_times = None if key_times is None else device_integers("key_times", key_times)
    _check_arrays(query, key, value, no_history, segment_ids, times, key_segment_ids, key_times)
    if bias is not None and not callable(bias):
        raise ValueError(f"bias must be a function of query slots and key slots, but is a {type(bias).__name__}")
    if relative is not None:
        _check_tables(relative, query.shape[2], query.shape[3], value.shape[3])
    if query_chunk is not None and query_chunk < 1:
        raise ValueError(f"query_chunk must be at least 1, but is {query_chunk}")
    if scale is None:
        scale = 1 / math.sqrt(query.shape[-1])
    length, heads, groups = query.shape[1], query.shape[2], key.shape[2]
    # Weights of 0 would not keep a NaN in padding from spreading, forwards or backwards.
    of_keys = segment_ids if key_segment_ids is None else key_segment_ids
    query = jnp.where(segment_ids[..., None, None] != 0, query, 0)
    key, value = (jnp.where(of_keys[..., None, None] != 0, x, 0) for x in (key, value))
    columns = jnp.arange(key.shape[1])
    # One batched matrix product over [B, N] is twice as fast on a CPU as the einsum over "B S N H".
    key_transposed, values = jnp.transpose(key, (0, 2, 3, 1)), jnp.swapaxes(value, 1, 2)

    def attend(rows: Int[Array, " C"], query: Float[Array, "B C N H"]) -> Float[Array, "B C N V"]:
        """Attends from the queries of some slots."""
        visible = _visible(rows, columns, segment_ids, times, key_segment_ids, key_times)[:, None]
        query = jnp.swapaxes(query, 1, 2)

        def by_group(x: Array) -> Array:  # the queries of a group of heads share one matrix product
            return x.reshape(x.shape[0], groups, heads // groups * rows.size, x.shape[-1])

        def by_head(x: Array) -> Array:
            return x.reshape(x.shape[0], heads, rows.size, x.shape[-1])

        logits = by_head(jnp.matmul(by_group(query), key_transposed, preferred_element_type=jnp.float32))
        buckets = None
        if relative is not None:
            buckets = _checked_buckets(relative.buckets(rows, columns), visible[:, 0].shape)[:, None]
            of_bucket = jnp.einsum("bnqh,tnh->bnqt", query, relative.key, preferred_element_type=jnp.float32)
            logits = logits + jnp.take_along_axis(of_bucket, buckets, axis=-1)
        logits = logits * scale
        if bias is not None:
            logits = logits + _checked_bias(bias(rows, columns), logits.shape).astype(jnp.float32)
        logits = jnp.where(visible, logits, jnp.finfo(jnp.float32).min)
        largest = jax.lax.stop_gradient(logits.max(-1, keepdims=True, initial=jnp.finfo(jnp.float32).min))
        weights = jnp.exp(logits - largest)
        attended = by_head(
            jnp.matmul(by_group(weights.astype(value.dtype)), values, preferred_element_type=jnp.float32)
        )
        if relative is not None and buckets is not None:
            of_bucket = _sum_by_bucket(weights, buckets, relative.value.shape[0])
            attended += jnp.einsum("bnqt,tnv->bnqv", of_bucket, relative.value, preferred_element_type=jnp.float32)
        # The sum divides the mixed values, which are fewer than the weights. Rows that see nothing weigh all alike.
        sees = visible.any(-1, keepdims=True)
        attended = attended / jnp.where(sees, weights.sum(-1, keepdims=True), 1)
        attended = jnp.where(sees, attended, no_history[:, None])
        return jnp.swapaxes(attended, 1, 2).astype(value.dtype)

    rows = jnp.arange(length)
    if query_chunk is None or query_chunk >= length:
        return attend(rows, query)
    chunks = -(-length // query_chunk)
    surplus = chunks * query_chunk - length
    rows = jnp.pad(rows, (0, surplus), mode="edge").reshape(chunks, query_chunk)
    query = jnp.pad(query, ((0, 0), (0, surplus), (0, 0), (0, 0)))
    query = jnp.moveaxis(query.reshape(query.shape[0], chunks, query_chunk, *query.shape[2:]), 1, 0)
    attended = jax.lax.map(jax.checkpoint(lambda chunk: attend(*chunk), prevent_cse=False), (rows, query))
    attended = jnp.moveaxis(attended, 0, 1)
    return attended.reshape(attended.shape[0], chunks * query_chunk, *attended.shape[3:])[:, :length]


def _check_arrays(
    query: Array,
    key: Array,
    value: Array,
    no_history: Array,
    segment_ids: Array,
    times: Array | None,
    key_segment_ids: Array | None,
    key_times: Array | None,
) -> None:
    if (
        not query.ndim == key.ndim == value.ndim == 4
        or key.shape[:-1] != value.shape[:-1]
        or (query.shape[0], query.shape[3]) != (key.shape[0], key.shape[3])
        or not key.shape[2]
        or query.shape[2] % key.shape[2]
        or (key_segment_ids is None and query.shape[1] != key.shape[1])
    ):
        raise ValueError(
            "query, key and value must have one shape [B, S, N, H] (key and value: heads that divide N; value: any "
            f"last axis), but have {query.shape}, {key.shape} and {value.shape}"
        )
    for name, array in (("query", query), ("key", key), ("value", value)):
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(f"{name} must be floating-point numbers, but are {array.dtype}")
    if segment_ids.shape != query.shape[:2]:
        raise ValueError(f"segment_ids must have shape {query.shape[:2]}, but have {segment_ids.shape}")
    if no_history.shape != (query.shape[2], value.shape[3]):
        raise ValueError(f"no_history must have shape {(query.shape[2], value.shape[3])}, but has {no_history.shape}")
    if key_segment_ids is None:
        if key_times is not None:
            raise ValueError("key_times must come with key_segment_ids, but come alone")
    elif key_segment_ids.shape != key.shape[:2]:
        raise ValueError(f"key_segment_ids must have shape {key.shape[:2]}, but have {key_segment_ids.shape}")
    elif times is None or key_times is None:
        raise ValueError("key_segment_ids need times and key_times to say who sees what, but one is missing")
    for name, given, expected in (("times", times, query.shape[:2]), ("key_times", key_times, key.shape[:2])):
        if given is not None and (given.shape != expected or not jnp.issubdtype(given.dtype, jnp.integer)):
            raise ValueError(
                f"{name} must be integers of shape {expected}, but are {given.dtype} of shape {given.shape}"
            )


def _check_tables(relative: RelativeEmbedding, heads: int, width: int, value_width: int) -> None:
    key, value = relative.key.shape, relative.value.shape
    if len(key) != 3 or key[1:] != (heads, width) or value != (key[0], heads, value_width):
        raise ValueError(
            f"relative must hold tables of shapes [T, {heads}, {width}] and [T, {heads}, {value_width}], "
            f"but they have {key} and {value}"
        )


def _checked_bias(bias: Float[Array, "..."], shape: tuple[int, ...]) -> Float[Array, "#B #N C S"]:
    allowed = {1, shape[0]}, {1, shape[1]}, {shape[2]}, {shape[3]}
    if bias.ndim != 4 or not all(given in sizes for given, sizes in zip(bias.shape, allowed, strict=True)):
        raise ValueError(f"bias must return shape {shape}, where B and N may be 1, but returned {bias.shape}")
    return bias


def _checked_buckets(buckets: Int[Array, "..."], shape: tuple[int, ...]) -> Int[Array, "B C S"]:
    if buckets.shape != shape or not jnp.issubdtype(buckets.dtype, jnp.integer):
        raise ValueError(
            f"relative.buckets must return integers of shape {shape}, but returned {buckets.dtype} of {buckets.shape}"
        )
    return buckets


def _visible(
    rows: Int[Array, " C"],
    columns: Int[Array, " S"],
    segment_ids: Int[Array, "B Q"],
    times: Integer[Array, "B Q"] | None,
    key_segment_ids: Int[Array, "B S"] | None,
    key_times: Integer[Array, "B S"] | None,
) -> Bool[Array, "B C S"]:
    """[b, i, j]: does the query of slot rows[i] see event j?"""
    segment = segment_ids[:, rows, None]
    others = segment_ids if key_segment_ids is None else key_segment_ids
    visible = (segment == others[:, None, :]) & (segment != 0)
    if key_segment_ids is None:
        visible &= rows[:, None] > columns[None, :]
    if times is not None:
        visible &= times[:, rows, None] > (times if key_times is None else key_times)[:, None, :]
    return visible


def _sum_by_bucket(
    weights: Float32[Array, "B N C S"], buckets: Int[Array, "B 1 C S"], count: int
) -> Float32[Array, "B N C T"]:
    """Total weight of the keys in each bucket."""

    def one_query(weights: Float32[Array, " S"], buckets: Int[Array, " S"]) -> Float32[Array, " T"]:
        return jnp.zeros(count, jnp.float32).at[buckets].add(weights)

    over_queries = jax.vmap(one_query)
    over_heads = jax.vmap(over_queries, in_axes=(0, None))
    return jax.vmap(over_heads)(weights, buckets[:, 0])
