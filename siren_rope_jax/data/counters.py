"""History counters: what is known of a user, an item and both strictly before each event, without leakage.

Every event changes a running count at two moments: when it has happened, and when its outcome becomes known.
A counter seen from time t is the sum of the changes whose moment has come, so one primitive serves all of
them: sort by (key, time), drop each change onto the first row that may see it, and take cumulative sums.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Int64, Integer

# The running base rate starts at 1/20 and is soon carried by the data.
_BASE_POSITIVES, _BASE_EVENTS = 1.0, 20.0


def history_counters(
    time: Int64[np.ndarray, " E"],
    user: Integer[np.ndarray, " E"],
    item: Integer[np.ndarray, " E"],
    actions: Float32[np.ndarray, "E A"],
    action_known: Int64[np.ndarray, "E A"],
    action_pending: Float32[np.ndarray, " A"],
    *,
    action_names: Sequence[str] | None = None,
    smoothing: float = 10.0,
) -> tuple[Float32[np.ndarray, "E C"], tuple[str, ...]]:
    """Counts and smoothed action rates of each event's user, item, and user with item, from the known past.

    Seen from an event at time t, an earlier event (time < t) counts for an action with its value if
    `action_known` <= t, otherwise with `action_pending`; NaN counts as nothing, 0 as an observed negative.
    Events at the same time do not see each other, so their order does not matter.

    Args:
      time: integer time of each event, in any order and any unit shared with `action_known`.
      user: integer code of the event's user.
      item: integer code of the event's item.
      actions: outcome of each action, 0 or 1, NaN where it was never observed.
      action_known: time from which the outcome may be seen; earlier than `time` means at the event itself.
      action_pending: what later events see of an action until then: 0 ("none yet") or NaN ("unobserved").
      action_names: used in the returned names; by default the actions are numbered.
      smoothing: weight, in events, of the running base rate in the rate of a user, an item or a pair.

    Returns:
      The counters and their names: for the user, then the item, then the pair of both, log(1 + events) and the
      logit of each action's rate, (positives + smoothing * base rate) / (observed + smoothing). The running base
      rate carries drift into every rate; it is no counter itself, being a clock that a model would overfit to.

    Raises:
      ValueError: if shapes do not match, a time or code is not an integer, an outcome is not 0, 1 or NaN,
        a pending value is not 0 or NaN, or `smoothing` is not positive.
    """
    _check(time, user, item, actions, action_known, action_pending, smoothing)
    number_of_actions = actions.shape[1]
    if action_names is None:
        action_names = [str(index) for index in range(number_of_actions)]
    elif len(action_names) != number_of_actions:
        raise ValueError(f"action_names must have {number_of_actions} entries, got {len(action_names)}")

    distinct_times, time_rank = np.unique(time, return_inverse=True)
    counters = np.empty((len(time), 3 + 3 * number_of_actions), np.float32)
    names: list[str] = []

    def add(name: str, values: np.ndarray) -> None:
        counters[:, len(names)] = values
        names.append(name)

    outcomes = [(actions[:, a], action_known[:, a], float(action_pending[a])) for a in range(number_of_actions)]
    timeline = _Timeline(np.zeros(len(time), np.int8), time_rank, distinct_times)
    base_rates = []
    for outcome in outcomes:
        positives, observed = timeline.totals(*outcome)
        base_rates.append((positives + _BASE_POSITIVES) / (observed + _BASE_EVENTS))
    pair = user.astype(np.int64) * (int(item.max(initial=0)) + 1) + item
    for kind, key in (("user", user), ("item", item), ("user_item", pair)):
        timeline = _Timeline(key, time_rank, distinct_times)
        add(f"{kind}_events", np.log1p(timeline.events))
        for name, outcome, base_rate in zip(action_names, outcomes, base_rates, strict=True):
            positives, observed = timeline.totals(*outcome)
            rate = (positives + smoothing * base_rate) / (observed + smoothing)
            add(f"{kind}_rate_{name}", _logit(rate))
    return counters, tuple(names)


class _Timeline:
    """The events of each key in time order, and running sums over what each of them may see."""

    def __init__(self, key: np.ndarray, time_rank: np.ndarray, distinct_times: np.ndarray) -> None:
        self._distinct_times = distinct_times
        self._order = np.lexsort((time_rank, key))
        size = len(self._order)
        key, self._rank = key[self._order], time_rank[self._order]
        new_key = np.append(True, key[1:] != key[:-1])[:size]
        starts = np.flatnonzero(new_key)
        self._group = np.cumsum(new_key) - 1
        self._start, self._end = starts[self._group], np.append(starts[1:], size)[self._group]
        # Groups times ranks stay below E * E, so (key, time) fits one sorted int64 whatever the time unit.
        self._position = self._group * len(distinct_times) + self._rank
        self._after = self._dropped_beyond_end(np.searchsorted(self._position, self._position, side="right"))
        self._sorted_events = self._running(self._after, np.ones(size))

    @property
    def events(self) -> np.ndarray:
        """Number of the key's strictly earlier events, in input order."""
        return self._input_order(self._sorted_events)

    def totals(self, outcome: np.ndarray, known: np.ndarray, pending: float) -> tuple[np.ndarray, np.ndarray]:
        """Positives and observed outcomes among the key's earlier events, as each event may see them."""
        outcome, known = outcome[self._order], known[self._order]
        is_pending_observed = 0.0 if np.isnan(pending) else 1.0
        row = self._first_row_that_sees(known)
        positives = self._running(row, np.nan_to_num(outcome))
        correction = self._running(row, ~np.isnan(outcome) - is_pending_observed)
        return self._input_order(positives), self._input_order(self._sorted_events * is_pending_observed + correction)

    def _first_row_that_sees(self, known: np.ndarray) -> np.ndarray:
        late = np.flatnonzero(known > self._distinct_times[self._rank])
        known_rank = np.searchsorted(self._distinct_times, known[late])
        position = self._group[late] * len(self._distinct_times) + known_rank
        row = self._after.copy()
        row[late] = np.searchsorted(self._position, position)
        return self._dropped_beyond_end(row)

    def _dropped_beyond_end(self, row: np.ndarray) -> np.ndarray:
        return np.where(row < self._end, row, len(self._order))

    def _running(self, row: np.ndarray, change: np.ndarray) -> np.ndarray:
        size = len(self._order)
        total = np.zeros(size + 1)
        np.cumsum(np.bincount(row, weights=change, minlength=size + 1)[:size], out=total[1:])
        return total[1:] - total[self._start]

    def _input_order(self, values: np.ndarray) -> np.ndarray:
        result = np.empty_like(values)
        result[self._order] = values
        return result


def _logit(rate: np.ndarray) -> np.ndarray:
    return np.log(rate) - np.log1p(-rate)


def _check(
    time: np.ndarray,
    user: np.ndarray,
    item: np.ndarray,
    actions: np.ndarray,
    action_known: np.ndarray,
    action_pending: np.ndarray,
    smoothing: float,
) -> None:
    if actions.ndim != 2:
        raise ValueError(f"actions must have two axes, events and actions, got shape {actions.shape}")
    events, number_of_actions = actions.shape
    for name, array, shape in (
        ("time", time, (events,)),
        ("user", user, (events,)),
        ("item", item, (events,)),
        ("action_known", action_known, actions.shape),
        ("action_pending", action_pending, (number_of_actions,)),
    ):
        if array.shape != shape:
            raise ValueError(f"{name} must have shape {shape} to match actions, got {array.shape}")
    for name, array in (("time", time), ("user", user), ("item", item), ("action_known", action_known)):
        if not np.issubdtype(array.dtype, np.integer):
            raise ValueError(f"{name} must hold integers, got dtype {array.dtype}")
    if not np.all(np.isnan(actions) | (actions == 0) | (actions == 1)):
        raise ValueError("actions must be 0, 1 or NaN, got other values")
    if not np.all(np.isnan(action_pending) | (action_pending == 0)):
        raise ValueError(f"action_pending must be 0 or NaN for each action, got {action_pending.tolist()}")
    if not (np.isfinite(smoothing) and smoothing > 0):
        raise ValueError(f"smoothing must be a positive number of events, got {smoothing}")
