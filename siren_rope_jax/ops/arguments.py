"""Arguments on their way to the device: arrays, and integers, which without x64 it would silently cut to 32 bits."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

_NO_NUMBERS = "OSUVMmTc"  # kinds of NumPy: objects, text, raw data, dates, durations; and complex numbers


def check_arrays(**arrays: object) -> None:
    """Checks that arguments are arrays of real numbers, of JAX or of NumPy.

    Raises:
      ValueError: at the first that is something else, such as a list, None, or an array of dates or truth values.
    """
    for name, x in arrays.items():
        if not isinstance(x, jax.Array | np.ndarray):
            raise ValueError(f"{name} must be an array, but is of type {type(x).__name__}")
        if not (jnp.issubdtype(x.dtype, jnp.floating) or jnp.issubdtype(x.dtype, jnp.integer)) or x.dtype.kind == "m":
            raise ValueError(f"{name} must be an array of real numbers, but the dtype is {x.dtype}")


def check_numbers(**numbers: object) -> None:
    """Checks that arguments are real numbers, or arrays of them.

    Raises:
      ValueError: at the first that is something else, such as a list, None or a truth value.
    """
    for name, x in numbers.items():
        if isinstance(x, jax.Array | np.ndarray):
            check_arrays(**{name: x})
        elif isinstance(x, bool | np.bool_) or not isinstance(x, float | int | np.integer | np.floating):
            raise ValueError(f"{name} must be a number or an array, but is of type {type(x).__name__}")


def of_rank(x: Array | np.ndarray, rank: int) -> Array:
    """Adds axes of size 1 in front, which `jax.numpy_rank_promotion("raise")` wants to see."""
    return jnp.asarray(x)[(None,) * (rank - x.ndim)]


def device_floats(name: str, x: Array | np.ndarray | float) -> Array:
    """Returns numbers as float32; integers of the host go straight there, since JAX would cut those of 64 bits to 32.

    Args:
      name: name of `x` in the error message.
      x: integers, or floats of at least 32 bits (bfloat16 holds integers only up to 256).

    Raises:
      ValueError: if `x` holds anything else.
    """
    x = x if isinstance(x, jax.Array) else np.asarray(x)
    # By the name: NumPy has no kind for bfloat16.
    if x.dtype.kind not in "iuf" or x.dtype.name == "float16":
        raise ValueError(f"{name} must be integers or floats of at least 32 bits, but the dtype is {x.dtype}")
    return jnp.asarray(x, jnp.float32)


def device_integers(name: str, x: Array | np.ndarray | int) -> Array:
    """Returns `x` as an array of the device.

    Args:
      name: name of `x` in the error message.
      x: integers; those of the host may have 64 bits, as NumPy's usually do.

    Raises:
      ValueError: if `x` does not hold numbers (but dates, say), or a number of the host does not fit the type that JAX
        gives it, 32 bits without x64.
    """
    if not isinstance(x, jax.Array):
        x = np.asarray(x)
        if x.dtype.kind in _NO_NUMBERS:
            raise ValueError(f"{name} must be integers, but the dtype is {x.dtype}")
        if x.size and np.issubdtype(x.dtype, np.integer):
            narrow = np.iinfo(jnp.asarray(x.ravel()[:0]).dtype)
            if x.min() < narrow.min or x.max() > narrow.max:
                raise ValueError(f"{name} must fit {narrow.dtype}, but run from {x.min()} to {x.max()}")
    return jnp.asarray(x)
