"""Attention block by block with an online softmax; memory is linear in the length, also in the backward pass."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int, Shaped

from siren_rope_jax.ops.attention.blocks import (
    bias_of_block,
    buckets_of_block,
    logits_of_block,
    mixture_of_block,
    not_hidden,
    visible,
)
from siren_rope_jax.ops.attention.operands import Layout, Operands

_LOWEST = jnp.finfo(jnp.float32).min


class _Learned(NamedTuple):
    """Differentiable arrays other than queries, keys and values."""

    relative_key: Float[Array, "T N H"] | None
    relative_value: Float[Array, "T N V"] | None
    closed_over: list[Float[Array, "..."]]  # float arrays that the bias closes over


class _Inputs(NamedTuple):
    """Differentiable arrays, in C chunks of queries and D chunks of keys."""

    query: Float[Array, "C B N I H"]
    key: Float[Array, "D B M J H"]
    value: Float[Array, "D B M J V"]
    learned: _Learned


class _Fixed(NamedTuple):
    """Arrays without gradients."""

    layout: Layout  # padded to whole chunks
    first: Int[Array, " C"]  # first chunk of keys for each chunk of queries
    end: Int[Array, " C"]  # end, exclusive, of its chunks of keys
    closed_over: list[Shaped[Array, "..."]]  # other arrays that the bias and the buckets close over


def suits(operands: Operands, platform: str, kind: str) -> bool:
    """Returns whether the rows are long enough for blocks to pay off."""
    # On a CPU, blocks that fit its cache soon are faster; elsewhere their many steps pay only if memory is short.
    long = 256 if platform == "cpu" else 1024
    return operands.query.shape[1] * operands.key.shape[1] >= long**2


def chunked_attention(operands: Operands) -> Float[Array, "B Q N V"]:
    """Computes `strictly_causal_attention` from arrays that are 0 in padding; has no forward-mode derivative.

    Each chunk of queries visits the chunks of keys in turn and keeps running values: the largest logit, the sum of the
    weights, and the sum of the weighted values. The backward pass recomputes each block from the logarithm of the sum.

    Source: Milakov, Gimelshein 2018 (online softmax); Dao et al. 2022 (FlashAttention), algorithms 1 and 4.
    """
    query, key, value, layout = operands.query, operands.key, operands.value, operands.layout
    bias, relative = operands.bias, operands.relative
    (batch, length, heads, _), keys = query.shape, key.shape[1]
    rows_each, columns_each = min(operands.chunk, length), min(operands.chunk, keys)

    def terms(rows: Int[Array, " I"], columns: Int[Array, " J"]) -> tuple[Array | None, Array | None]:
        rows, columns = jnp.minimum(rows, length - 1), jnp.minimum(columns, keys - 1)
        of_bias = None if bias is None else bias_of_block(bias, rows, columns, batch=batch, heads=heads)
        buckets = None if relative is None else buckets_of_block(relative, rows, columns, batch=batch)[:, None]
        return of_bias, buckets

    # A custom derivative must not close over tracers, so the arrays in the closures of `bias` and `buckets` become
    # arguments.
    terms_of, differentiable, others = _without_closure(terms, jnp.arange(rows_each), jnp.arange(columns_each))

    def logits_of(
        query: Array, key: Array, learned: _Learned, fixed: _Fixed, i: Array, j: Array
    ) -> tuple[Array, tuple[Array | None, Array | None]]:
        of_bias, buckets = terms_of(learned.closed_over, fixed.closed_over, *slots(i, j))
        tables = {"relative_key": learned.relative_key, "buckets": buckets}
        return logits_of_block(query, key, scale=operands.scale, bias=of_bias, **tables), (of_bias, buckets)

    def mixture_of(weights: Array, value: Array, learned: _Learned, buckets: Array | None) -> Array:
        return mixture_of_block(weights, value, relative_value=learned.relative_value, buckets=buckets)

    def slots(i: Array, j: Array) -> tuple[Array, Array]:
        return i * rows_each + jnp.arange(rows_each), j * columns_each + jnp.arange(columns_each)

    def seen_of(fixed: _Fixed, i: Array, j: Array) -> Array:
        return visible(fixed.layout, *slots(i, j))[:, None]

    @jax.custom_vjp
    def attend(inputs: _Inputs, fixed: _Fixed) -> tuple[Array, Array]:
        """Returns mixtures and log-sum-exp of the logits; 0 and infinity for queries that see nothing."""

        def queries(i: Array) -> tuple[Array, Array]:
            def meet(j: Array, so_far: tuple[Array, ...]) -> tuple[Array, ...]:
                some, largest, total, mixture = so_far
                logits, (of_bias, buckets) = logits_of(
                    _at(inputs.query, i), _at(inputs.key, j), inputs.learned, fixed, i, j
                )
                seen = not_hidden(seen_of(fixed, i, j), of_bias)
                larger = jnp.maximum(largest, jnp.where(seen, logits, _LOWEST).max(-1, keepdims=True))
                weights, shrink = jnp.where(seen, jnp.exp(logits - larger), 0), jnp.exp(largest - larger)
                mixture = shrink * mixture + mixture_of(weights, _at(inputs.value, j), inputs.learned, buckets)
                some = some | seen.any(-1, keepdims=True)
                return some, larger, shrink * total + weights.sum(-1, keepdims=True), mixture

            zeros = jnp.zeros((batch, heads, rows_each, 1 + value.shape[-1]), jnp.float32)
            largest = jnp.full_like(zeros[..., :1], _LOWEST)
            start = largest > 0, largest, zeros[..., :1], zeros[..., 1:]
            some, largest, total, mixture = jax.lax.fori_loop(fixed.first[i], fixed.end[i], meet, start)
            total = jnp.where(some, total, 1)
            return mixture / total, jnp.where(some, largest + jnp.log(total), jnp.inf)

        return jax.lax.map(queries, jnp.arange(inputs.query.shape[0]))

    def forward(inputs: _Inputs, fixed: _Fixed) -> tuple[tuple[Array, Array], tuple[_Inputs, _Fixed, Array, Array]]:
        mixture, log_total = attend(inputs, fixed)
        return (mixture, log_total), (inputs, fixed, mixture, log_total)

    def backward(kept: tuple[_Inputs, _Fixed, Array, Array], cotangents: tuple[Array, Array]) -> tuple[_Inputs, None]:
        inputs, fixed, mixture, log_total = kept
        of_mixture, _ = cotangents
        along = jnp.sum(of_mixture * mixture, axis=-1, keepdims=True)

        def queries(i: Array, gradient: _Inputs) -> _Inputs:
            def meet(j: Array, gradient: _Inputs) -> _Inputs:
                value = _at(inputs.value, j)
                logits, pull_logits, (_, buckets) = jax.vjp(
                    lambda query, key, learned: logits_of(query, key, learned, fixed, i, j),
                    _at(inputs.query, i),
                    _at(inputs.key, j),
                    inputs.learned,
                    has_aux=True,
                )
                weights = jnp.where(seen_of(fixed, i, j), jnp.exp(logits - _at(log_total, i)), 0)
                _, pull_mixture = jax.vjp(
                    lambda weights, value, learned: mixture_of(weights, value, learned, buckets),
                    weights,
                    value,
                    inputs.learned,
                )
                of_weights, of_value, by_mixture = pull_mixture(_at(of_mixture, i))
                of_query, of_key, by_logits = pull_logits(weights * (of_weights - _at(along, i)))
                return _Inputs(
                    _plus(gradient.query, i, of_query),
                    _plus(gradient.key, j, of_key),
                    _plus(gradient.value, j, of_value),
                    jax.tree.map(
                        lambda so_far, a, b: so_far + (a + b).astype(so_far.dtype),
                        gradient.learned,
                        by_mixture,
                        by_logits,
                    ),
                )

            return jax.lax.fori_loop(fixed.first[i], fixed.end[i], meet, gradient)

        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), inputs)
        gradient = jax.lax.fori_loop(0, inputs.query.shape[0], queries, zeros)
        return jax.tree.map(lambda x, gradient: gradient.astype(x.dtype), inputs, gradient), None

    attend.defvjp(forward, backward)

    layout = Layout(
        _padded(layout.segment_ids, rows_each),
        None if layout.times is None else _padded(layout.times, rows_each),
        None if layout.key_segment_ids is None else _padded(layout.key_segment_ids, columns_each),
        None if layout.key_times is None else _padded(layout.key_times, columns_each),
    )
    tables = (None, None) if relative is None else (jnp.asarray(relative.key), jnp.asarray(relative.value))
    inputs = _Inputs(
        _chunks(query, rows_each),
        _chunks(key, columns_each),
        _chunks(value, columns_each),
        _Learned(*tables, differentiable),
    )
    fixed = _Fixed(layout, *_ranges(layout, rows_each, columns_each), others)
    mixture, log_total = attend(inputs, fixed)
    attended = jnp.where(log_total == jnp.inf, operands.no_history[:, None], mixture)
    attended = jnp.transpose(attended, (1, 0, 3, 2, 4)).reshape(batch, -1, heads, value.shape[-1])
    return attended[:, :length].astype(value.dtype)


def _padded(x: Shaped[Array, "B S *rest"], size: int) -> Shaped[Array, "B T *rest"]:
    """Pads with zeros, the segment number of padding, to a multiple of `size` slots."""
    return jnp.pad(x, ((0, 0), (0, -x.shape[1] % size)) + ((0, 0),) * (x.ndim - 2))


def _chunks(x: Float[Array, "B S N H"], size: int) -> Float[Array, "C B N I H"]:
    x = _padded(x, size)
    return jnp.transpose(x.reshape(x.shape[0], -1, size, *x.shape[2:]), (1, 0, 3, 2, 4))


def _at(chunks: Shaped[Array, "C *chunk"], i: Int[Array, ""]) -> Shaped[Array, "*chunk"]:
    return jax.lax.dynamic_index_in_dim(chunks, i, keepdims=False)


def _plus(
    chunks: Float32[Array, "C *chunk"], i: Int[Array, ""], x: Float[Array, "*chunk"]
) -> Float32[Array, "C *chunk"]:
    return jax.lax.dynamic_update_index_in_dim(chunks, _at(chunks, i) + x.astype(chunks.dtype), i, 0)


def _ranges(layout: Layout, rows_each: int, columns_each: int) -> tuple[Int[Array, " C"], Int[Array, " C"]]:
    """Returns first and end of the chunks of keys that each chunk of queries may see, by order and segment numbers."""

    def low_and_high(ids: Int[Array, "B S"], size: int) -> tuple[Int[Array, "B C"], Int[Array, "B C"]]:
        ids = ids.reshape(ids.shape[0], -1, size)
        least, most = (
            jnp.asarray(extreme, ids.dtype) for extreme in (jnp.iinfo(ids.dtype).min, jnp.iinfo(ids.dtype).max)
        )
        return jnp.where(ids != 0, ids, most).min(-1), jnp.where(ids != 0, ids, least).max(-1)

    low, high = low_and_high(layout.segment_ids, rows_each)
    key_low, key_high = low_and_high(layout.ids_of_keys, columns_each)
    meet = ((low[:, :, None] <= key_high[:, None]) & (key_low[:, None] <= high[:, :, None])).any(0)
    meet = jnp.tril(meet) if layout.own else meet
    first, behind = jnp.argmax(meet, axis=1), jnp.argmax(meet[:, ::-1], axis=1)
    return first, jnp.where(meet.any(axis=1), meet.shape[1] - behind, first)


def _without_closure(
    function: Callable[..., Any], *examples: Array
) -> tuple[Callable[..., Any], list[Float[Array, "..."]], list[Shaped[Array, "..."]]]:
    """Converts the closure of a function to arguments.

    Returns:
      A function of (floats, others, *arguments); and the floats and the other arrays that `function` closes over.
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*examples)
    constants = [jnp.asarray(x) for x in closed.consts]
    is_float = [jnp.issubdtype(x.dtype, jnp.floating) for x in constants]

    def opened(floats: list[Array], others: list[Array], *arguments: Array) -> Any:
        floats_left, others_left = iter(floats), iter(others)
        constants = [next(floats_left if a_float else others_left) for a_float in is_float]
        results = jax.core.eval_jaxpr(closed.jaxpr, constants, *arguments)
        return jax.tree.unflatten(jax.tree.structure(shapes), results)

    floats = [x for x, a_float in zip(constants, is_float, strict=True) if a_float]
    return opened, floats, [x for x, a_float in zip(constants, is_float, strict=True) if not a_float]
