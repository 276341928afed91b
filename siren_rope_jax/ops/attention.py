"""Strictly causal attention over packed segments."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def strictly_causal_attention(
    query: Float[Array, "B S N H"],
    key: Float[Array, "B S N H"],
    value: Float[Array, "B S N V"],
    *,
    segment_ids: Int[Array, "B S"],
    no_history: Float[Array, "N V"],
    scale: float | None = None,
    times: Int[Array, "B S"] | None = None,
) -> Float[Array, "B S N V"]:
    """Lets each event attend to the earlier events of its own segment, never to itself.

    Args:
      query: rotated queries.
      key: rotated keys.
      value: values.
      segment_ids: which sequence each slot belongs to; 0 is padding, which nobody sees.
      no_history: what an event without any visible event before it gets; for padding too.
      scale: factor of the logits; 1/sqrt(H) if not given.
      times: if given, events of one time do not see each other (several shown in one request, say); integers that
        fit int32.

    Returns:
      Attended values in the dtype of `value`; finite, with finite gradients, for any layout of segments.

    Raises:
      ValueError: if the shapes do not agree, or the times are not integers.

    Source: strict causality as in Cheng, Sun, Lu 2026; softmax over packed segments.
    """
    if query.ndim != 4 or query.shape != key.shape or key.shape[:-1] != value.shape[:-1]:
        raise ValueError(
            "query, key and value must have one shape [B, S, N, H] (value: any last axis), "
            f"but have {query.shape}, {key.shape} and {value.shape}"
        )
    if segment_ids.shape != query.shape[:2]:
        raise ValueError(f"segment_ids must have shape {query.shape[:2]}, but have {segment_ids.shape}")
    if no_history.shape != value.shape[2:]:
        raise ValueError(f"no_history must have shape {value.shape[2:]}, but has {no_history.shape}")
    if times is not None and (times.shape != segment_ids.shape or not jnp.issubdtype(times.dtype, jnp.integer)):
        raise ValueError(
            f"times must be integers of shape {segment_ids.shape}, but are {times.dtype} of shape {times.shape}"
        )
    if scale is None:
        scale = 1 / math.sqrt(query.shape[-1])
    visible = _visible(segment_ids, times)[:, None]
    # One batched matrix product over [B, N] is twice as fast on a CPU as the einsum over "B S N H".
    query, key, value = (jnp.swapaxes(x, 1, 2) for x in (query, key, value))
    logits = jnp.matmul(query, jnp.swapaxes(key, 2, 3), preferred_element_type=jnp.float32) * scale
    logits = jnp.where(visible, logits, jnp.finfo(jnp.float32).min)
    # A row that sees nothing has the sum 0; dividing by 1 there keeps its value and its gradient 0, never NaN.
    largest = jax.lax.stop_gradient(logits.max(-1, keepdims=True, initial=jnp.finfo(jnp.float32).min))
    weights = jnp.where(visible, jnp.exp(logits - largest), 0)
    total = weights.sum(-1, keepdims=True)
    weights = weights / jnp.where(total > 0, total, 1)
    attended = jnp.matmul(weights.astype(value.dtype), value, preferred_element_type=jnp.float32)
    attended = jnp.where(total > 0, attended, no_history[:, None])
    return jnp.swapaxes(attended, 1, 2).astype(value.dtype)


def _visible(segment_ids: Int[Array, "B S"], times: Int[Array, "B S"] | None) -> Bool[Array, "B S S"]:
    """[b, i, j]: does event i see event j?"""
    index = jnp.arange(segment_ids.shape[1])
    same = segment_ids[:, :, None] == segment_ids[:, None, :]
    visible = same & (index[:, None] > index[None, :]) & (segment_ids[:, :, None] != 0)
    return visible if times is None else visible & (times[:, :, None] > times[:, None, :])
