"""Attention block by block with an online softmax; memory is linear in the length, also in the backward pass."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32

from siren_rope_jax.ops.attention.blocks import (
    LOWEST,
    bias_of_block,
    buckets_of_block,
    logits_of_block,
    mixture_of_block,
    not_hidden,
    of_seen,
    visible,
)
from siren_rope_jax.ops.attention.chunks import (
    add_at,
    chunk_at,
    chunk_size,
    chunks_that_meet,
    in_chunks,
    joined,
    whole_chunks,
)
from siren_rope_jax.ops.attention.operands import Layout, Operands
from siren_rope_jax.ops.linear import linear_call
from siren_rope_jax.ops.meshes import vary_alike
from siren_rope_jax.ops.slots import opened

_T = TypeVar("_T")


class _Learned(NamedTuple):
    """Differentiable arrays other than queries, keys and values."""

    scale: Float32[Array, ""] | Float32[Array, " N"]
    relative_key: Float[Array, "T N H"] | None
    relative_value: Float[Array, "T N V"] | None
    of_slots: Any  # bias and buckets with their float arrays alone


class _Inputs(NamedTuple):
    """Differentiable arrays, in C chunks of queries and D chunks of keys."""

    query: Float[Array, "C B N I H"]
    key: Float[Array, "D B M J H"]
    value: Float[Array, "D B M J V"]
    learned: _Learned


class _Fixed(NamedTuple):
    """Arrays without gradients."""

    layout: Layout  # padded to whole chunks
    meet: Bool[Array, "C D"]  # whether a chunk of queries may see one of keys
    of_slots: Any  # bias and buckets with their other arrays alone


class _Residuals(NamedTuple):
    """Point at which the derivative is taken."""

    inputs: _Inputs
    fixed: _Fixed
    largest: Float32[Array, "C B N I 1"]
    log_total: Float32[Array, "C B N I 1"]


class _Attended(NamedTuple):
    """Mixtures, sums of the weights, and 1 where a query sees anything, else 0.

    A sum is kept as its largest logit and the logarithm of the rest: added up, logits that share a large offset, such
    as that of a mask, would round the logarithm away.
    """

    mixture: Float32[Array, "C B N I V"]
    largest: Float32[Array, "C B N I 1"]
    log_total: Float32[Array, "C B N I 1"]
    some: Float32[Array, "C B N I 1"]


def suits(operands: Operands, platform: str, kind: str) -> bool:
    """Returns whether the rows are long enough for blocks to pay off."""
    # On a CPU, blocks that fit its cache soon are faster; elsewhere their many steps pay only if memory is short.
    long = 256 if platform == "cpu" else 1024
    return operands.query.shape[1] * operands.key.shape[1] >= long**2


def chunked_attention(operands: Operands) -> Float[Array, "B Q N V"]:
    """Computes `strictly_causal_attention` from arrays that are 0 in padding.

    Each chunk of queries visits the chunks of keys in turn and keeps running values: the largest logit, the sum of the
    weights, and the sum of the weighted values. The derivative is a sum over blocks again, of each block's own
    derivative with the sum of the weights held; its transpose recomputes each block, so that the backward pass is the
    one of FlashAttention, and derivatives of it are plain autodiff.

    Source: Milakov, Gimelshein 2018 (online softmax); Dao et al. 2022 (FlashAttention), algorithms 1 and 4.
    """
    query, key, value, layout = operands.query, operands.key, operands.value, operands.layout
    bias, relative = operands.bias, operands.relative
    (batch, length, heads, _), keys, width = query.shape, key.shape[1], value.shape[3]
    rows_each, columns_each = (chunk_size(operands.chunk, size) for size in (length, keys))
    inclusive = operands.inclusive

    # A custom derivative must not close over tracers, so the arrays of bias and buckets become arguments.
    examples = jnp.arange(rows_each), jnp.arange(columns_each)
    functions = bias, None if relative is None else relative.buckets
    functions = [None if function is None else opened(function, *examples) for function in functions]
    floats, others = (
        jax.tree.map(lambda x, wanted=wanted: x if _is_float(x) == wanted else None, functions)
        for wanted in (True, False)
    )

    def logits_of(
        query: Array, key: Array, learned: _Learned, fixed: _Fixed, i: Array, j: Array
    ) -> tuple[Array, Array, Array | None]:
        """Returns the logits of a block, the lowest number where nothing is seen, what is seen, and the buckets."""
        bias, buckets = jax.tree.map(
            lambda a, b: b if a is None else a, learned.of_slots, fixed.of_slots, is_leaf=lambda x: x is None
        )
        rows, columns = i * rows_each + jnp.arange(rows_each), j * columns_each + jnp.arange(columns_each)
        shown = visible(fixed.layout, rows, columns, inclusive=inclusive)[:, None]
        # The slots that fill up the last chunk have no bias: they take the last slot's.
        rows, columns = jnp.minimum(rows, length - 1), jnp.minimum(columns, keys - 1)
        of_bias = None if bias is None else bias_of_block(bias, rows, columns, batch=batch, heads=heads)
        buckets = None if buckets is None else buckets_of_block(buckets, rows, columns, shown)
        tables = {"relative_key": learned.relative_key, "buckets": buckets}
        logits = logits_of_block(query, key, scale=learned.scale, bias=of_bias, **tables)
        seen = not_hidden(shown, of_bias)
        return of_seen(logits, seen), seen, buckets

    def mixture_of(weights: Array, value: Array, learned: _Learned, buckets: Array | None) -> Array:
        return mixture_of_block(weights, value, relative_value=learned.relative_value, buckets=buckets)

    def zeros(inputs: _Inputs, width: int) -> Array:
        return jnp.zeros_like(inputs.query, jnp.float32, shape=(batch, heads, rows_each, width))

    @jax.custom_jvp
    def attend(inputs: _Inputs, fixed: _Fixed) -> _Attended:
        def queries(i: Array) -> tuple[Array, Array, Array, Array]:
            query = chunk_at(inputs.query, i)

            def meet(so_far: tuple[Array, ...], j: Array) -> tuple[Array, ...]:
                some, largest, total, mixture = so_far
                logits, seen, buckets = logits_of(query, chunk_at(inputs.key, j), inputs.learned, fixed, i, j)
                larger = jnp.maximum(largest, logits.max(-1, keepdims=True))
                weights, shrink = jnp.where(seen, jnp.exp(logits - larger), 0), jnp.exp(largest - larger)
                mixture = shrink * mixture + mixture_of(weights, chunk_at(inputs.value, j), inputs.learned, buckets)
                some = jnp.maximum(some, seen.any(-1, keepdims=True).astype(some.dtype))
                return some, larger, shrink * total + weights.sum(-1, keepdims=True), mixture

            empty = zeros(inputs, 1)
            start = empty, empty + LOWEST, empty, zeros(inputs, width)
            some, largest, total, mixture = _over_keys(meet, start, fixed.meet[i])
            total = jnp.where(some > 0, total, 1)
            return mixture / total, jnp.where(some > 0, largest, 0), jnp.log(total), some

        return _Attended(*jax.lax.map(queries, jnp.arange(inputs.query.shape[0])))

    def parts_of(residuals: _Residuals, i: Array) -> Callable[..., tuple[Array, Array]]:
        """Returns a function for what a chunk of keys adds to the sums of the weights and to the mixtures."""
        largest, log_total = chunk_at(residuals.largest, i), chunk_at(residuals.log_total, i)

        def parts(j: Array, query: Array, key: Array, value: Array, learned: _Learned) -> tuple[Array, Array]:
            logits, seen, buckets = logits_of(query, key, learned, residuals.fixed, i, j)
            weights = jnp.exp(jnp.where(seen, (logits - largest) - log_total, LOWEST))
            return weights.sum(-1, keepdims=True), mixture_of(weights, value, learned, buckets)

        return parts

    def tangents(residuals: _Residuals, along: _Inputs) -> tuple[Array, Array]:
        inputs = residuals.inputs

        def queries(i: Array) -> tuple[Array, Array]:
            parts, query, along_query = parts_of(residuals, i), chunk_at(inputs.query, i), chunk_at(along.query, i)

            def meet(so_far: tuple[Array, ...], j: Array) -> tuple[Array, ...]:
                at = query, chunk_at(inputs.key, j), chunk_at(inputs.value, j), inputs.learned
                towards = along_query, chunk_at(along.key, j), chunk_at(along.value, j), along.learned
                _, (of_total, of_mixture) = jax.jvp(functools.partial(parts, j), at, towards)
                return so_far[0] + of_total, so_far[1] + of_mixture

            start = zeros(along, 1), zeros(along, width)
            of_total, of_mixture = _over_keys(meet, start, residuals.fixed.meet[i])
            return of_total, of_mixture

        return jax.lax.map(queries, jnp.arange(along.query.shape[0]))

    def cotangents(residuals: _Residuals, of_results: tuple[Array, Array]) -> _Inputs:
        inputs = residuals.inputs

        def queries(so_far: tuple[Any, ...], i: Array) -> tuple[tuple[Any, ...], Array]:
            parts, query, of_parts = (
                parts_of(residuals, i),
                chunk_at(inputs.query, i),
                tuple(chunk_at(x, i) for x in of_results),
            )

            def meet(so_far: tuple[Any, ...], j: Array) -> tuple[Any, ...]:
                at = query, chunk_at(inputs.key, j), chunk_at(inputs.value, j), inputs.learned
                _, pull_back = jax.vjp(functools.partial(parts, j), *at)
                of_query, of_key, of_value, of_learned = pull_back(of_parts)
                query_so_far, keys, values, learned = so_far
                return (
                    query_so_far + of_query.astype(jnp.float32),
                    add_at(keys, j, of_key),
                    add_at(values, j, of_value),
                    jax.tree.map(lambda a, b: a + b.astype(a.dtype), learned, of_learned),
                )

            start = jnp.zeros_like(query, jnp.float32), *so_far
            of_query, *others = _over_keys(meet, start, residuals.fixed.meet[i])
            return tuple(others), of_query

        empty = jax.tree.map(lambda x: jnp.zeros_like(x, jnp.float32), (inputs.key, inputs.value, inputs.learned))
        of_keys, of_queries = jax.lax.scan(queries, empty, jnp.arange(inputs.query.shape[0]))
        return jax.tree.map(lambda x, gradient: gradient.astype(x.dtype), inputs, _Inputs(of_queries, *of_keys))

    @attend.defjvp
    def attend_jvp(primals, directions):  # type: ignore[no-untyped-def]
        (inputs, fixed), (along, _) = primals, directions
        attended = attend(inputs, fixed)
        # Only their sum is used, so that the largest logit can be held and the logarithm has its whole derivative.
        residuals = _Residuals(inputs, fixed, jax.lax.stop_gradient(attended.largest), attended.log_total)
        of_total, of_mixture = linear_call(tangents, cotangents, residuals, along)
        of_mixture -= attended.mixture * of_total
        held = jnp.zeros_like(attended.largest)
        return attended, _Attended(of_mixture, held, of_total, held)

    layout = whole_chunks(layout, rows_each, columns_each)
    tables = (None, None) if relative is None else (jnp.asarray(relative.key), jnp.asarray(relative.value))
    inputs = _Inputs(
        in_chunks(query, rows_each),
        in_chunks(key, columns_each),
        in_chunks(value, columns_each),
        _Learned(jnp.asarray(operands.scale, jnp.float32), *tables, floats),
    )
    fixed = _Fixed(layout, chunks_that_meet(layout, rows_each, columns_each), others)
    mixture, _, _, some = attend(*vary_alike((inputs, fixed)))
    attended = jnp.where(some > 0, mixture, operands.no_history.astype(jnp.float32)[:, None])
    return joined(attended, length).astype(value.dtype)


def _is_float(x: Array) -> bool:
    return bool(jnp.issubdtype(x.dtype, jnp.floating))


def _over_keys(step: Callable[[_T, Array], _T], start: _T, meet: Bool[Array, " D"]) -> _T:
    """Carries running values over the chunks of keys that the queries may see."""

    def visit(so_far: _T, given: tuple[Array, Array]) -> tuple[_T, None]:
        j, meets = given
        return jax.lax.cond(meets, step, lambda so_far, _: so_far, so_far, j), None

    return jax.lax.scan(visit, start, (jnp.arange(meet.shape[0]), meet))[0]
