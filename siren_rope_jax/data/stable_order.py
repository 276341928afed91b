"""Stable sorting of integer codes, several times faster than NumPy's own where it can sort by vector instructions."""

import numpy as np
from jaxtyping import Int64, Integer


def stable_order(codes: Integer[np.ndarray, " E"]) -> Int64[np.ndarray, " E"]:
    """Returns what `np.argsort(codes, kind="stable")` does.

    Args:
      codes: from 0 to 2^31 - 1.

    Raises:
      ValueError: if a code lies outside of that.
    """
    size = len(codes)
    if size and not 0 <= int(codes.min()) <= int(codes.max()) < 2**31:
        raise ValueError(f"codes must lie between 0 and 2147483647, but run from {codes.min()} to {codes.max()}")
    # Code and index in one number: all differ, so that sorting the numbers themselves, unstably, keeps ties in order.
    order = codes.astype(np.int64)
    order *= size
    order += np.arange(size)
    order.sort()
    order %= max(size, 1)
    return order
