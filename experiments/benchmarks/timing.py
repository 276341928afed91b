"""Times functions in turn, so that other load on the machine affects all of them alike."""

import dataclasses
import time
from collections.abc import Callable, Mapping

import jax
import numpy as np
from rich.progress import track


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table: a ratio, round by round, and what it should be."""

    group: str
    name: str
    median: float
    low: float
    high: float
    target: str = ""
    note: str = ""

    @classmethod
    def of(cls, group: str, name: str, ratios: np.ndarray, *, target: str = "", note: str = "") -> "Row":
        """Sums up the ratios of all rounds."""
        return cls(group, name, float(np.median(ratios)), float(ratios.min()), float(ratios.max()), target, note)

    @classmethod
    def single(cls, group: str, name: str, value: float, *, target: str = "", note: str = "") -> "Row":
        """Makes the row of a number that is counted or measured once."""
        return cls(group, name, value, value, value, target, note)


def alternate(functions: Mapping[str, Callable[[], object]], rounds: int, *, warmup: int = 1) -> dict[str, np.ndarray]:
    """Times every function once a round, in an order drawn anew each round.

    Args:
      functions: what to time; JAX results are waited for.
      rounds: times that each is timed.
      warmup: untimed rounds before, which compile.

    Returns:
      Seconds of each round, by name.
    """
    order = np.random.default_rng(0)
    seconds = {name: np.empty(rounds) for name in functions}
    for index in track(range(-warmup, rounds), description="timing", transient=True):
        for name in order.permutation(list(functions)).tolist():
            started = time.perf_counter()
            jax.block_until_ready(functions[name]())
            if index >= 0:
                seconds[name][index] = time.perf_counter() - started
    return seconds
