"""Temperature of attention by the number of events that a query sees."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float32, Num

from siren_rope_jax.ops.arguments import device_floats, number


def length_temperature(counts: Num[Array, "*batch"], trained_length: float) -> Float32[Array, "*batch"]:
    """Computes the factors of queries that keep attention as sharp over many events as over few, ln n / ln S.

        query *= length_temperature(visible_counts(segment_ids), 64)[..., None, None]  # [B, S, N, H]

    The softmax over n events spreads as n grows. SSMax multiplies by a learned number of each head too (the source
    writes s ln n, with s started at 1 / ln S). Llama 4 and Ministral 3 have a form of their own, `query_growth`.

    Args:
      counts: events that each query sees, n (`visible_counts`). A window makes them constant once it is full.
      trained_length: S, above 1: from here on queries grow.

    Returns:
      The factors, float32; 0 where one event or none is seen, whose weights need no logits; NaN for counts below 0.

    Raises:
      ValueError: if counts are not integers or floats of at least 32 bits, or the length no finite number above 1.

    Source: log-n scaling (Su 2021) and SSMax (Nakanishi 2025, arXiv 2501.19399).
    """
    trained_length = number("trained_length", trained_length, above=1)
    counts = device_floats("counts", counts)
    logarithm = jnp.log(jnp.maximum(counts, 1)) * (1 / math.log(trained_length))
    return jnp.where(counts < 0, jnp.nan, logarithm)
