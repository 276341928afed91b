"""Runs of equal values among neighbours."""

import numpy as np
from jaxtyping import Bool, Int32


def run_starts(new: Bool[np.ndarray, " E"]) -> Int32[np.ndarray, " E"]:
    """Returns where the run of each place begins, given the places where one does."""
    starts = np.flatnonzero(new).astype(np.int32)
    return np.repeat(starts, np.diff(starts, append=np.int32(len(new))))
