"""Attention in one go: simple, and the fastest for short rows; holds every logit, [B, N, Q, S], at once."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from siren_rope_jax.ops.attention_terms import (
    Layout,
    RelativeEmbedding,
    bias_of_block,
    buckets_of_block,
    sum_by_bucket,
    visible,
)
from siren_rope_jax.ops.bias import Bias


def plain_attention(
    query: Float[Array, "B Q N H"],
    key: Float[Array, "B S M H"],
    value: Float[Array, "B S M V"],
    layout: Layout,
    no_history: Float[Array, "N V"],
    *,
    scale: float,
    bias: Bias | None,
    relative: RelativeEmbedding | None,
) -> Float[Array, "B Q N V"]:
    """Computes `strictly_causal_attention` from arrays that are 0 in padding."""
    (batch, length, heads, _), groups = query.shape, key.shape[2]
    rows, columns = jnp.arange(length), jnp.arange(key.shape[1])
    # One batched matrix product over [B, N] is twice as fast on a CPU as the einsum over "B S N H".
    query, key, value = (jnp.swapaxes(x, 1, 2) for x in (query, key, value))
    seen = visible(layout, rows, columns)[:, None]

    def by_group(x: Array) -> Array:  # the queries of a group of heads share one matrix product
        return x.reshape(x.shape[0], groups, heads // groups * length, x.shape[-1])

    def by_head(x: Array) -> Array:
        return x.reshape(x.shape[0], heads, length, x.shape[-1])

    logits = by_head(jnp.matmul(by_group(query), jnp.swapaxes(key, 2, 3), preferred_element_type=jnp.float32))
    buckets = None
    if relative is not None:
        buckets = buckets_of_block(relative, rows, columns, batch=batch)[:, None]
        of_bucket = jnp.einsum("bnqh,tnh->bnqt", query, relative.key, preferred_element_type=jnp.float32)
        logits = logits + jnp.take_along_axis(of_bucket, buckets, axis=-1)
    logits = logits * scale
    if bias is not None:
        logits = logits + bias_of_block(bias, rows, columns, batch=batch, heads=heads)
    logits = jnp.where(seen, logits, jnp.finfo(jnp.float32).min)
    largest = jax.lax.stop_gradient(logits.max(-1, keepdims=True, initial=jnp.finfo(jnp.float32).min))
    weights = jnp.where(seen, jnp.exp(logits - largest), 0)
    total = weights.sum(-1, keepdims=True)
    attended = by_head(jnp.matmul(by_group(weights.astype(value.dtype)), value, preferred_element_type=jnp.float32))
    if relative is not None and buckets is not None:
        of_bucket = sum_by_bucket(weights, buckets, relative.value.shape[0])
        attended += jnp.einsum("bnqt,tnv->bnqv", of_bucket, relative.value, preferred_element_type=jnp.float32)
    # The sum divides the mixed values, fewer than the weights. A row that sees nothing has the sum 0; dividing
    # by 1 there keeps its value and its gradient 0, never NaN.
    attended = attended / jnp.where(total > 0, total, 1)
    attended = jnp.where(total > 0, attended, no_history[:, None])
    return jnp.swapaxes(attended, 1, 2).astype(value.dtype)
