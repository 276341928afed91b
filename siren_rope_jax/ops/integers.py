"""Host integers on their way to the device, which without x64 would silently cut them to 32 bits."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


def device_integers(name: str, x: Array | np.ndarray | int) -> Array:
    """Returns `x` as an array of the device.

    Args:
      name: name of `x` in the error message.
      x: integers; those of the host may have 64 bits, as NumPy's usually do.

    Raises:
      ValueError: if a host number does not fit the type that JAX gives it, 32 bits without x64.
    """
    if not isinstance(x, jax.Array):
        x = np.asarray(x)
        if x.size and np.issubdtype(x.dtype, np.integer):
            narrow = np.iinfo(jnp.asarray(x.ravel()[:0]).dtype)
            if x.min() < narrow.min or x.max() > narrow.max:
                raise ValueError(f"{name} must fit {narrow.dtype}, but run from {x.min()} to {x.max()}")
    return jnp.asarray(x)
