"""Attention by cuDNN's fused kernel, for 16-bit floats on NVIDIA GPUs."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from siren_rope_jax.ops.attention.blocks import visible
from siren_rope_jax.ops.attention.operands import Operands

_KERNEL = "cudnn"
_TYPES = (["bfloat16"], ["float16"])


def suits(operands: Operands, platform: str, kind: str) -> bool:
    """Returns whether the device is an NVIDIA GPU."""
    return platform == "gpu" and "NVIDIA" in kind


def refusal(operands: Operands) -> str | None:
    """Returns why the kernel cannot serve the operands, or None if it can."""
    widths = operands.query.shape[3], operands.value.shape[3]
    if operands.extras:
        return f"implementation cudnn must get no bias, relative or key_segment_ids, but gets {operands.extras}"
    if operands.types not in _TYPES:
        return f"query, key and value must be of one 16-bit type for implementation cudnn, but are {operands.types}"
    if widths[0] != widths[1] or widths[0] % 8 or widths[0] > 128:
        return f"heads must have one width for implementation cudnn, a multiple of 8 up to 128, but have {widths}"
    return None


def cudnn_attention(operands: Operands) -> Float[Array, "B S N H"]:
    """Computes `strictly_causal_attention` from arrays that are 0 in padding.

    Each query that does not see itself moves to the slot before its own, which makes causal attention strictly causal,
    and the kernel skips the blocks above the diagonal. Segments, times and window become one mask for all heads,
    [B, 1, S, S] with 16 bits each.
    """
    length, value_type = operands.query.shape[1], operands.value.dtype
    if isinstance(operands.scale, float):
        scaled, scale = operands.query, operands.scale
    else:
        scaled, scale = operands.scaled_query(), 1.0  # the kernel takes a constant alone
    odd = ((0, 0), (0, length % 2))  # cuDNN does not support gradients for odd lengths
    layout = jax.tree.map(lambda x: jnp.pad(x, odd), operands.layout)
    query, key, value = (jnp.pad(x, (*odd, (0, 0), (0, 0))) for x in (scaled, operands.key, operands.value))
    slots, moved = jnp.arange(query.shape[1]), 0 if operands.inclusive else 1
    seen = visible(layout, jnp.roll(slots, -moved), slots, inclusive=operands.inclusive)
    some = seen.any(axis=-1, keepdims=True)
    attended = jax.nn.dot_product_attention(
        jnp.roll(query, -moved, axis=1),
        key,
        value,
        mask=(seen | ~some)[:, None],  # a fully masked query would be NaN: unmask it, since its output is not used
        scale=scale,
        is_causal=True,
        implementation=_KERNEL,
    )
    attended = jnp.where(some[..., None], attended, operands.no_history.astype(attended.dtype))
    return jnp.roll(attended, moved, axis=1)[:, :length].astype(value_type)
