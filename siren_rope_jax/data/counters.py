"""History counters of users, items, pairs of both and other codes, from events strictly before each event.

Every event changes a running count at two times: when it happens, and when its outcome becomes known. A counter seen
from time t is the sum of all changes up to then, so that one primitive serves all counters: sort by (key, time), put
each change before the first row that may see it, and take cumulative sums.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float32, Int64, Integer

from siren_rope_jax.data.stable_order import stable_order
from siren_rope_jax.data.timeline import BASE_EVENTS, MEAN, RATE, Outcome, Timeline, ranks


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
    averages = [MEAN if number else RATE for number in numbers or [False] * actions.shape[-1]]
    _check(
        time,
        user,
        item,
        actions,
        np.array([average is MEAN for average in averages], bool),
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
    time_rank, distinct_times = ranks(time, by_time)
    outcomes = [
        Outcome.of(
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
    timeline = Timeline(by_time, (), time_rank)
    base_rates = [np.empty(len(time)) for _ in outcomes]
    for outcome, base_rate in zip(outcomes, base_rates, strict=True):
        positives, observed = timeline.totals(outcome)
        base_rate[by_time] = (positives + outcome.average.prior) / (observed + BASE_EVENTS)
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


def _timelines(
    by_time: np.ndarray, user: np.ndarray, item: np.ndarray, others: Mapping[str, np.ndarray], time_rank: np.ndarray
) -> Iterator[tuple[str, Timeline]]:
    """Yields the timelines one by one, since together they take more memory than all counters."""
    yield "user", Timeline(by_time[stable_order(user[by_time])], (user,), time_rank)
    by_item = by_time[stable_order(item[by_time])]
    yield "item", Timeline(by_item, (item,), time_rank)
    yield "user_item", Timeline(by_item[stable_order(user[by_item])], (user, item), time_rank)
    for name, codes in others.items():
        yield name, Timeline(by_time[stable_order(codes[by_time])], (codes,), time_rank)


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
