"""Stable sorting of integer codes, several times faster than NumPy's own if its sort is vectorised."""

import numpy as np
from jaxtyping import Int64, Integer


def stable_order(codes: Integer[np.ndarray, " E"]) -> Int64[np.ndarray, " E"]:
    """Returns the same as `np.argsort(codes, kind="stable")`.

    Args:
      codes: integers from 0 to 2^31 - 1.

    Raises:
      ValueError: if a code lies outside that range.
    """
    size = len(codes)
    if size and not 0 <= int(codes.min()) <= int(codes.max()) < 2**31:
        raise ValueError(f"codes must lie between 0 and 2147483647, but run from {codes.min()} to {codes.max()}")
    # Combines code and index in one number: all numbers differ, so that even an unstable sort keeps ties in order.
    order = codes.astype(np.int64)
    order *= size
    order += np.arange(size)
    order.sort()
    order %= max(size, 1)
    return order
