"""Runs of consecutive equal values."""

import numpy as np
from jaxtyping import Bool, Int32


def run_starts(new: Bool[np.ndarray, " E"]) -> Int32[np.ndarray, " E"]:
    """Returns the start of the run of each place, given the places where a run starts."""
    starts = np.flatnonzero(new).astype(np.int32)
    return np.repeat(starts, np.diff(starts, append=np.int32(len(new))))
