"""Integers of the host on their way to the device, which without x64 would cut them to 32 bits in silence."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


def device_integers(name: str, x: Array | np.ndarray | int) -> Array:
    """Returns `x` as an array of the device.

    Args:
      name: what the message calls it.
      x: integers; those of the host may have 64 bits, as NumPy's usually do.

    Raises:
      ValueError: if a number of the host does not fit what JAX makes of its type, 32 bits without x64.
    """
    if not isinstance(x, jax.Array):
        x = np.asarray(x)
        if x.size and np.issubdtype(x.dtype, np.integer):
            narrow = np.iinfo(jnp.asarray(x.ravel()[:0]).dtype)
            if x.min() < narrow.min or x.max() > narrow.max:
                raise ValueError(f"{name} must fit {narrow.dtype}, but run from {x.min()} to {x.max()}")
    return jnp.asarray(x)
