"""Attention with all logits, [B, N, Q, S], in memory at once: the simplest, and the fastest for short rows."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

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
from siren_rope_jax.ops.attention.operands import Operands


def plain_attention(operands: Operands) -> Float[Array, "B Q N V"]:
    """Computes `strictly_causal_attention` from arrays that are 0 in padding."""
    query, key, value = operands.query, operands.key, operands.value
    bias, relative = operands.bias, operands.relative
    batch, length, heads, _ = query.shape
    rows, columns = jnp.arange(length), jnp.arange(key.shape[1])
    # One batched matrix product over [B, N] is twice as fast on a CPU as the einsum over "B S N H".
    query, key, value = (jnp.swapaxes(x, 1, 2) for x in (query, key, value))
    of_bias = None if bias is None else bias_of_block(bias, rows, columns, batch=batch, heads=heads)
    shown = visible(operands.layout, rows, columns, inclusive=operands.inclusive)[:, None]
    seen = not_hidden(shown, of_bias)
    buckets = None
    if relative is not None:
        buckets = buckets_of_block(relative.buckets, rows, columns, shown)
    relative_key, relative_value = (None, None) if relative is None else (relative.key, relative.value)
    logits = logits_of_block(query, key, scale=operands.scale, bias=of_bias, relative_key=relative_key, buckets=buckets)
    logits = of_seen(logits, seen)
    largest = jax.lax.stop_gradient(logits.max(-1, keepdims=True, initial=LOWEST))
    weights = jnp.where(seen, jnp.exp(logits - largest), 0)
    total = weights.sum(-1, keepdims=True)
    attended = mixture_of_block(weights, value, relative_value=relative_value, buckets=buckets)
    # Divides the mixtures, which are fewer than the weights. The total of a query that sees nothing is 0; dividing by
    # 1 there keeps value and gradient at 0, not NaN. A total of 0 or NaN elsewhere stays visible in the result.
    some = seen.any(-1, keepdims=True)
    attended = attended / jnp.where(some, total, 1)
    attended = jnp.where(some, attended, operands.no_history.astype(jnp.float32)[:, None])
    return jnp.swapaxes(attended, 1, 2).astype(value.dtype)
