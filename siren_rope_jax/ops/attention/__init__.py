"""Strictly causal attention over packed segments: one function, several implementations."""

from siren_rope_jax.ops.attention.implementations import Implementation
from siren_rope_jax.ops.attention.operands import RelativeEmbedding
from siren_rope_jax.ops.attention.strictly_causal import strictly_causal_attention
from siren_rope_jax.ops.attention.visibility import visible_counts

__all__ = ["Implementation", "RelativeEmbedding", "strictly_causal_attention", "visible_counts"]
