"""Checks of arguments: settings of the host, arrays, and integers, which without x64 would be cut to 32 bits."""

import math
import reprlib

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

_INFINITE = 1e300  # from here on powers and products may be
_NO_NUMBERS = "OSUVMmTc"  # kinds of NumPy: objects, text, raw data, dates, durations; and complex numbers


def check_arrays(**arrays: object) -> None:
    """Checks that arguments are arrays of real numbers, of JAX or of NumPy.

    Raises:
      ValueError: at the first that is something else, such as a list, None, or an array of dates or truth values.
    """
    for name, x in arrays.items():
        check_unmasked(name, x)
        if not isinstance(x, jax.Array | np.ndarray):
            raise ValueError(f"{name} must be an array, but is of type {type(x).__name__}")
        if not _is_real(x.dtype):
            raise ValueError(f"{name} must be an array of real numbers, but the dtype is {x.dtype}")


def check_unmasked(name: str, x: object) -> None:
    """Raises ValueError for a masked array of NumPy, whose mask JAX would drop."""
    if isinstance(x, np.ma.MaskedArray):
        raise ValueError(f"{name} must be an array without a mask, but is masked: fill it first")


def _is_real(dtype: np.dtype) -> bool:
    # By JAX: NumPy has no kind for bfloat16, and JAX's random keys have none at all. A duration passes for an integer.
    return jnp.issubdtype(dtype, jnp.floating) or (jnp.issubdtype(dtype, jnp.integer) and dtype.kind != "m")


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
        elif isinstance(x, int) and abs(x) >= _INFINITE:
            raise ValueError(f"{name} must be a finite number, but is {described(x)}")


def number(name: str, x: object, *, least: float = -math.inf, above: float = -math.inf) -> float:
    """Returns a setting as a float.

    Raises:
      ValueError: if it is no finite number of the host, or outside the range.
    """
    if (
        not isinstance(x, int | float | np.integer | np.floating)
        or isinstance(x, bool)
        or not (abs(x) < _INFINITE and x >= least and x > above)  # False for NaN
    ):
        interval = f" of at least {least}" if least > -math.inf else f" above {above}" if above > -math.inf else ""
        raise ValueError(f"{name} must be a finite number{interval}, but is {described(x)}")
    return float(x)


def count(name: str, x: object, *, least: int = 1, most: int = 2**31 - 1, even: bool = False) -> int:
    """Returns a setting as a whole number of Python, which no power of it overflows.

    Raises:
      ValueError: if it is something else, such as 2.5, a truth value or an array, or outside the range.
    """
    if (
        not isinstance(x, int | np.integer)
        or isinstance(x, bool)
        or not least <= x <= most
        or (even and (x < 1 or x % 2))
    ):
        kind = "a positive even number" if even else f"a whole number of at least {least}"
        upper = f" and at most {most}" if isinstance(x, int) and x > most else ""
        raise ValueError(f"{name} must be {kind}{upper}, but is {described(x)}")
    return int(x)


def check_flags(**flags: object) -> None:
    """Checks that settings are True or False.

    Raises:
      ValueError: at the first that is something else, such as 1, None or an array.
    """
    for name, x in flags.items():
        if not isinstance(x, bool):
            raise ValueError(f"{name} must be True or False, but is {described(x)}")


def described(x: object) -> str:
    """Returns what a message says of an argument, in one short line."""
    return " ".join(reprlib.repr(x).split())


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
    check_unmasked(name, x)
    x = x if isinstance(x, jax.Array) else np.asarray(x)
    if not _is_real(x.dtype) or (jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize < 4):
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
    check_unmasked(name, x)
    if not isinstance(x, jax.Array):
        x = np.asarray(x)
        if x.dtype.kind in _NO_NUMBERS:
            raise ValueError(f"{name} must be integers, but the dtype is {x.dtype}")
        if x.size and np.issubdtype(x.dtype, np.integer):
            narrow = np.iinfo(jnp.asarray(x.ravel()[:0]).dtype)
            if x.min() < narrow.min or x.max() > narrow.max:
                raise ValueError(f"{name} must fit {narrow.dtype}, but run from {x.min()} to {x.max()}")
    return jnp.asarray(x)


def signed_32(name: str, x: Array | np.ndarray) -> Array:
    """Returns integers as signed ones of at least 32 bits; what is no array of integers stays as it is.

    Integers of 8 or 16 bits would wrap around in differences, and unsigned ones in comparisons with signed ones.

    Raises:
      ValueError: if a number of the host does not fit, or unsigned integers of the device may not.
    """
    if not isinstance(x, jax.Array) and np.asarray(x).dtype.kind == "u":
        x = np.asarray(x)
        if x.size and x.max() > np.iinfo(np.int32).max:
            raise ValueError(f"{name} must fit int32, but run from {x.min()} to {x.max()}")
        x = x.astype(np.int32)
    x = widened(name, x)
    if jnp.issubdtype(x.dtype, jnp.unsignedinteger):
        raise ValueError(f"{name} must fit int32, but are {x.dtype}: convert them")
    return x


def widened(name: str, x: Array | np.ndarray) -> Array:
    """Returns integers as an array of the device, those of 8 and 16 bits as int32."""
    x = device_integers(name, x)
    return x.astype(jnp.int32) if jnp.issubdtype(x.dtype, jnp.integer) and x.dtype.itemsize < 4 else x
