"""Attention by cuDNN's fused kernel, for 16-bit numbers on NVIDIA GPUs."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from siren_rope_jax.ops.attention_terms import Layout, visible

_KERNEL = "cudnn"


def cudnn_attention(
    query: Float[Array, "B S N H"],
    key: Float[Array, "B S M H"],
    value: Float[Array, "B S M H"],
    layout: Layout,
    no_history: Float[Array, "N H"],
    *,
    scale: float,
) -> Float[Array, "B S N H"]:
    """Computes `strictly_causal_attention` from arrays that are 0 in padding.

    Every query asks in the slot before its own, which makes plain causality strict: the kernel skips what lies above
    the diagonal. Segments and times are one mask for all heads, [B, 1, S, S] numbers of 16 bits.
    """
    length = query.shape[1]
    odd = ((0, 0), (0, length % 2))  # cuDNN has no gradient for odd lengths
    layout = jax.tree.map(lambda x: jnp.pad(x, odd), layout)
    query, key, value = (jnp.pad(x, (*odd, (0, 0), (0, 0))) for x in (query, key, value))
    slots = jnp.arange(query.shape[1])
    seen = visible(layout, jnp.roll(slots, -1), slots)
    some = seen.any(axis=-1, keepdims=True)
    attended = jax.nn.dot_product_attention(
        jnp.roll(query, -1, axis=1),
        key,
        value,
        mask=(seen | ~some)[:, None],  # a query that sees nothing may see anything: it is not used, and never NaN
        scale=scale,
        is_causal=True,
        implementation=_KERNEL,
    )
    return jnp.roll(jnp.where(some[..., None], attended, no_history), 1, axis=1)[:, :length].astype(value.dtype)
