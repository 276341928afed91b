"""Running sums of one outcome along the events of each user, item or other code, as each event may see them."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, Int64

from siren_rope_jax.data.runs import run_starts

# The running base rate starts at 1/20 and soon depends on the data alone.
_BASE_POSITIVES, BASE_EVENTS = 1.0, 20.0
_UNIT = 2.0**-20  # numbers are summed as multiples of it, so that sums do not depend on the order of events


class Average(NamedTuple):
    """Kind of average of an action's outcomes.

    Attributes:
      name: name of the average.
      prior: sum over the events that the running base starts with.
      amounts: function from outcomes to integers (or booleans) to sum.
      unit: value of one amount; None for 1.
      counter: function from averages to counters.
    """

    name: str
    prior: float
    amounts: Callable[[np.ndarray], np.ndarray]
    unit: float | None
    counter: Callable[[np.ndarray], np.ndarray]


def _logit(rate: np.ndarray) -> np.ndarray:
    return np.log(rate) - np.log1p(-rate)


RATE = Average("rate", _BASE_POSITIVES, lambda values: values == 1, None, _logit)
MEAN = Average(
    "mean",
    0.0,
    lambda values: np.rint(np.nan_to_num(values.astype(np.float64)) / _UNIT).astype(np.int64),
    _UNIT,
    np.array,
)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Outcomes of one action, and their values before they are known."""

    average: Average
    amount: Bool[np.ndarray, " E"] | Int64[np.ndarray, " E"]
    observed: Bool[np.ndarray, " E"]
    pending_observed: bool  # whether an outcome counts as a negative until it is known; otherwise as unobserved
    late: Int64[np.ndarray, " L"]  # events whose outcome is known only later
    first_rank: Int64[np.ndarray, " L"]  # rank of the first time at which it is known

    @classmethod
    def of(
        cls,
        average: Average,
        values: np.ndarray,
        counted: np.ndarray,
        pending_observed: bool,
        time: np.ndarray,
        known: np.ndarray,
        distinct_times: np.ndarray,
    ) -> "Outcome":
        late = np.flatnonzero((known > time) & counted)
        first_rank = np.searchsorted(distinct_times, known[late])
        amount = average.amounts(values) * counted
        return cls(average, amount, ~np.isnan(values) & counted, pending_observed, late, first_rank)


class Timeline:
    """Events of each key in time order, and running sums over those that each event may see."""

    def __init__(self, order: Int64[np.ndarray, " E"], keys: tuple[np.ndarray, ...], time_rank: np.ndarray) -> None:
        self.order = order
        self._time_rank = time_rank
        new_key = _changes(order, *keys)
        self._start = run_starts(new_key)
        # Place of the first event with the same key and time: an event sees only events before it.
        self._now = run_starts(new_key | _changes(order, time_rank))

    def events(self, counted: np.ndarray) -> Int32[np.ndarray, " E"]:
        """Returns the number of the key's strictly earlier, counted events, in the order of the timeline."""
        return self._running(counted[self.order], False, None)

    def totals(self, outcome: Outcome) -> tuple[np.ndarray, Int32[np.ndarray, " E"]]:
        """Returns sum and number of the observed outcomes of the key's earlier events, as each event may see them."""
        late = (self._place[outcome.late], self._first_that_sees(outcome)) if len(outcome.late) else None
        amounts = self._running(outcome.amount[self.order], False, late)
        observed = self._running(outcome.observed[self.order], outcome.pending_observed, late)
        if outcome.average.unit is not None:
            amounts = amounts * outcome.average.unit
        return amounts, observed

    def _running(
        self, shown: np.ndarray, pending: bool, late: tuple[np.ndarray, np.ndarray] | None
    ) -> Int32[np.ndarray, " E"] | Int64[np.ndarray, " E"]:
        """Returns the sum of `shown` over the key's earlier events; late events count `pending` until known."""
        total = np.zeros(len(shown) + 1, np.int32 if shown.dtype == bool else np.int64)
        change = total[1:]
        change[:] = shown
        if late is not None:
            place, first = late
            change[place] = pending
            # An event sums the changes before its place, so the change goes to the place before the first that knows.
            np.add.at(change, first - 1, shown[place].astype(total.dtype) - pending)
        np.cumsum(change, out=change)
        return total[self._now] - total[self._start]

    def _first_that_sees(self, outcome: Outcome) -> np.ndarray:
        """Returns the place of the key's first event that knows each late outcome, or of the next key's first event."""
        ranks = len(self.order) + 1
        position = self._start * np.int64(ranks) + self._time_rank[self.order]
        return np.searchsorted(position, self._start[self._place[outcome.late]] * np.int64(ranks) + outcome.first_rank)

    @functools.cached_property
    def _place(self) -> np.ndarray:
        """Place of each event in the timeline."""
        place = np.empty(len(self.order), np.int32)
        place[self.order] = np.arange(len(self.order), dtype=np.int32)
        return place


def ranks(time: np.ndarray, by_time: np.ndarray) -> tuple[Int32[np.ndarray, " E"], Int64[np.ndarray, " T"]]:
    """The rank of each time among the distinct ones, and those."""
    changes = _changes(by_time, time)
    rank = np.empty(len(time), np.int32)
    rank[by_time] = np.cumsum(changes, dtype=np.int32) - 1
    return rank, time[by_time[changes]]


def _changes(order: np.ndarray, *values: np.ndarray) -> Bool[np.ndarray, " E"]:
    """Returns whether each event, in the given order, is the first or differs from the one before in any value."""
    changes = np.zeros(len(order), bool)
    changes[:1] = True
    for value in values:
        ordered = value[order]
        changes[1:] |= ordered[1:] != ordered[:-1]
    return changes
