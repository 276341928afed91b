"""History counters of users, items, pairs of both and other codes, from events strictly before each event.

Every event changes a running count at two times: when it happens, and when its outcome becomes known. A counter seen
from time t is the sum of all changes up to then, so that one primitive serves all counters: sort by (key, time), put
each change before the first row that may see it, and take cumulative sums.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64, Integer

from siren_rope_jax.data.runs import run_starts
from siren_rope_jax.data.stable_order import stable_order

# The running base rate starts at 1/20 and soon depends on the data alone.
_BASE_POSITIVES, _BASE_EVENTS = 1.0, 20.0
_UNIT = 2.0**-20  # numbers are summed as multiples of it, so that sums do not depend on the order of events


def history_counters(
    time: Int64[np.ndarray, " E"],
    user: Integer[np.ndarray, " E"],
    item: Integer[np.ndarray, " E"],
    actions: Float32[np.ndarray, "E A"],
    action_known: Int64[np.ndarray, "E A"],
    action_pending: Float32[np.ndarray, " A"],
    *,
    action_names: Sequence[str] | None = None,
    numbers: Sequence[bool] | None = None,
    smoothing: float = 10.0,
    counted: Bool[np.ndarray, " E"] | None = None,
    others: Mapping[str, Integer[np.ndarray, " E"]] | None = None,
) -> tuple[Float32[np.ndarray, "E C"], tuple[str, ...]]:
    """Computes counts and smoothed action rates of each event's user, item, and pair of both, from the known past.

    An action that is a number has a smoothed mean instead of a rate.

    Seen from an event at time t, an earlier event (time < t) counts for an action with its value if
    `action_known` <= t, otherwise with `action_pending`; NaN does not count, and 0 counts as an observed negative.
    Events at the same time do not see each other, so that their order does not matter.

    Args:
      time: integer time of each event, in any order and any unit shared with `action_known`.
      user: code of the event's user, from 0 to 2^31 - 1.
      item: code of the event's item, from 0 to 2^31 - 1.
      actions: outcome of each action, 0 or 1 or a standardised number, NaN where never observed.
      action_known: time from which the outcome may be seen; if earlier than `time`, the time of the event.
      action_pending: value that later events see until then: 0 ("none yet") or NaN ("unobserved").
      action_names: names of the actions in the returned names; by default their indices.
      numbers: whether each action is a number; no action is if not given.
      smoothing: weight, in events, of the running base rate in the rate of a user, an item or a pair.
      counted: whether later events count each event; all if not given. Events that are not counted, such as candidates
        that may never happen, still get counters.
      others: further codes by name, such as the item's author, counted like the item.

    Returns:
      The counters and their names: for the user, the item, the pair of both, then the others, log(1 + events) and the
      logit of each action's rate, (positives + smoothing * base rate) / (observed + smoothing), or its mean, (sum +
      smoothing * base mean) / (observed + smoothing). All of these contain the drift of the running base rate, or mean,
      which is not a counter itself, since a model would overfit to it as a clock.

    Raises:
      ValueError: if shapes do not match, a time or code is not an integer, a code is out of range, an outcome is
        not 0, 1 or NaN, a number is 1,000 or more, a pending value is not 0 or NaN, or `smoothing` is not positive.
    """
    counted = np.ones(len(time), bool) if counted is None else counted
    others = others or {}
    averages = [_MEAN if number else _RATE for number in numbers or [False] * actions.shape[-1]]
    _check(
        time,
        user,
        item,
        actions,
        np.array([average is _MEAN for average in averages], bool),
        action_known,
        action_pending,
        smoothing,
        counted,
        others,
    )
    number_of_actions = actions.shape[1]
    if action_names is None:
        action_names = [str(index) for index in range(number_of_actions)]
    elif len(action_names) != number_of_actions:
        raise ValueError(f"action_names must have {number_of_actions} entries, but have {len(action_names)}")

    counters = np.empty((len(time), (3 + len(others)) * (1 + number_of_actions)), np.float32)
    names: list[str] = []

    def add(name: str, order: np.ndarray, values: np.ndarray) -> None:
        counters[order, len(names)] = values
        names.append(name)

    by_time = np.argsort(time, kind="stable")
    time_rank, distinct_times = _ranks(time, by_time)
    outcomes = [
        _Outcome.of(
            averages[a],
            actions[:, a],
            counted,
            bool(action_pending[a] == 0),
            time,
            action_known[:, a],
            distinct_times,
        )
        for a in range(number_of_actions)
    ]
    timeline = _Timeline(by_time, (), time_rank)
    base_rates = [np.empty(len(time)) for _ in outcomes]
    for outcome, base_rate in zip(outcomes, base_rates, strict=True):
        positives, observed = timeline.totals(outcome)
        base_rate[by_time] = (positives + outcome.average.prior) / (observed + _BASE_EVENTS)
    for kind, timeline in _timelines(by_time, user, item, others, time_rank):
        add(f"{kind}_events", timeline.order, np.log1p(timeline.events(counted)))
        for name, outcome, base_rate in zip(action_names, outcomes, base_rates, strict=True):
            positives, observed = timeline.totals(outcome)
            rate = base_rate[timeline.order]  # a copy, changed in place to save memory
            rate *= smoothing
            rate += positives
            rate /= observed + smoothing
            average = outcome.average
            add(f"{kind}_{average.name}_{name}", timeline.order, average.counter(rate))
    return counters, tuple(names)


class _Average(NamedTuple):
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


_RATE = _Average("rate", _BASE_POSITIVES, lambda values: values == 1, None, _logit)
_MEAN = _Average(
    "mean",
    0.0,
    lambda values: np.rint(np.nan_to_num(values.astype(np.float64)) / _UNIT).astype(np.int64),
    _UNIT,
    np.array,
)


@dataclasses.dataclass(frozen=True)
class _Outcome:
    """Outcomes of one action, and their values before they are known."""

    average: _Average
    amount: Bool[np.ndarray, " E"] | Int64[np.ndarray, " E"]
    observed: Bool[np.ndarray, " E"]
    pending_observed: bool  # whether an outcome counts as a negative until it is known; otherwise as unobserved
    late: Int64[np.ndarray, " L"]  # events whose outcome is known only later
    first_rank: Int64[np.ndarray, " L"]  # rank of the first time at which it is known

    @classmethod
    def of(
        cls,
        average: _Average,
        values: np.ndarray,
        counted: np.ndarray,
        pending_observed: bool,
        time: np.ndarray,
        known: np.ndarray,
        distinct_times: np.ndarray,
    ) -> "_Outcome":
        late = np.flatnonzero((known > time) & counted)
        first_rank = np.searchsorted(distinct_times, known[late])
        amount = average.amounts(values) * counted
        return cls(average, amount, ~np.isnan(values) & counted, pending_observed, late, first_rank)


class _Timeline:
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

    def totals(self, outcome: _Outcome) -> tuple[np.ndarray, Int32[np.ndarray, " E"]]:
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

    def _first_that_sees(self, outcome: _Outcome) -> np.ndarray:
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


def _timelines(
    by_time: np.ndarray, user: np.ndarray, item: np.ndarray, others: Mapping[str, np.ndarray], time_rank: np.ndarray
) -> Iterator[tuple[str, _Timeline]]:
    """Yields the timelines one by one, since together they take more memory than all counters."""
    yield "user", _Timeline(by_time[stable_order(user[by_time])], (user,), time_rank)
    by_item = by_time[stable_order(item[by_time])]
    yield "item", _Timeline(by_item, (item,), time_rank)
    yield "user_item", _Timeline(by_item[stable_order(user[by_item])], (user, item), time_rank)
    for name, codes in others.items():
        yield name, _Timeline(by_time[stable_order(codes[by_time])], (codes,), time_rank)


def _ranks(time: np.ndarray, by_time: np.ndarray) -> tuple[Int32[np.ndarray, " E"], Int64[np.ndarray, " T"]]:
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


def _check(
    time: np.ndarray,
    user: np.ndarray,
    item: np.ndarray,
    actions: np.ndarray,
    numbers: np.ndarray,
    action_known: np.ndarray,
    action_pending: np.ndarray,
    smoothing: float,
    counted: np.ndarray,
    others: Mapping[str, np.ndarray],
) -> None:
    if actions.ndim != 2:
        raise ValueError(f"actions must have two axes, events and actions, but have shape {actions.shape}")
    events, number_of_actions = actions.shape
    for name, array, shape in (
        ("time", time, (events,)),
        ("user", user, (events,)),
        ("item", item, (events,)),
        ("counted", counted, (events,)),
        *((name, codes, (events,)) for name, codes in others.items()),
        ("action_known", action_known, actions.shape),
        ("action_pending", action_pending, (number_of_actions,)),
        ("numbers", numbers, (number_of_actions,)),
    ):
        if array.shape != shape:
            raise ValueError(f"{name} must have shape {shape} to match actions, but has {array.shape}")
    for name, array in {"time": time, "user": user, "item": item, "action_known": action_known, **others}.items():
        if not np.issubdtype(array.dtype, np.integer):
            raise ValueError(f"{name} must hold integers, but has dtype {array.dtype}")
    plain, measured = actions[:, ~numbers], actions[:, numbers]
    if not np.all(np.isnan(plain) | (plain == 0) | (plain == 1)):
        raise ValueError("actions must be 0, 1 or NaN, but have other values")
    if not np.all(np.isnan(measured) | (np.abs(measured) < 1_000)):
        raise ValueError("actions that are numbers must be standardised, but have numbers beyond 1,000")
    if not np.all(np.isnan(action_pending) | (action_pending == 0)):
        raise ValueError(f"action_pending must be 0 or NaN for each action, but is {action_pending.tolist()}")
    if not (np.isfinite(smoothing) and smoothing > 0):
        raise ValueError(f"smoothing must be a positive number of events, but is {smoothing}")
