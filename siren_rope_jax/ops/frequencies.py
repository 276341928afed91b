"""Inverse frequencies of the rotary pairs."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32


def inverse_frequencies(head_dim: int, *, base: float = 10_000.0) -> Float32[Array, " R"]:
    """Computes base^(-2j/head_dim) for each rotary pair j.

    Args:
      head_dim: dimensions that are rotated, H; even.
      base: slowest wavelength over 2 pi, in the limit of many pairs.

    Returns:
      float32, R = H/2 values from 1 downwards, in radians per unit of position.

    Raises:
      ValueError: if head_dim is not a positive even number or base is not a finite number above 1.

    Source: Su et al. 2021, section 3.2.2.
    """
    if head_dim <= 0 or head_dim % 2:
        raise ValueError(f"head_dim must be a positive even number, but is {head_dim}")
    if not 1 < base < float("inf"):
        raise ValueError(f"base must be a finite number above 1, but is {base}")
    # In float64 on the host: a float32 power is off by 1e-6, which long positions multiply.
    return jnp.asarray(base ** (-np.arange(0, head_dim, 2) / head_dim), jnp.float32)
