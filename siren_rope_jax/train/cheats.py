"""Event logs rewritten for an audit: planted outcomes that no honest model can predict, or a changed future.

Every planted outcome is random and independent of all legitimate inputs, but correlates with something that a
prediction must not use: the order of rows, the milliseconds, the order of ids, or the other half of a second that the
split cuts. So an honest model has an AUC of .5, whatever it reads.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Int64, Integer

from siren_rope_jax.data.event_log import EventLog
from siren_rope_jax.data.periods import NEW, TEST, TRAIN, VALIDATION
from siren_rope_jax.data.signals import Signal
from siren_rope_jax.data.stable_hash import stable_hash

_PER_EVENT = ("time_ms", "day", "second", "row", "user", "item", "period", "labels", "actions", "action_known")
_PER_EVENT += ("categorical", "dense", "weight", "group", "drawn")
_IN_A_SECOND = 4


class Cheat(NamedTuple):
    """A log with a planted outcome, and the events on which to measure it."""

    log: EventLog
    scored: Bool[np.ndarray, " E"]


def rows_of(log: EventLog, order: Integer[np.ndarray, " N"]) -> EventLog:
    """Returns the log of a file with the given events in the given order, which events of one time keep."""
    order = order[np.argsort(log.time_ms[order], kind="stable")]
    columns = {name: getattr(log, name) for name in _PER_EVENT}
    bags = tuple(bag.rows(order) for bag in log.bags)
    return dataclasses.replace(log, bags=bags, **{name: x[order] for name, x in columns.items() if x is not None})


def some_of(log: EventLog, events: int) -> EventLog:
    """Returns about the given number of events, of whole users drawn by a hash, with at least one user in each period.

    Of events with the same user, item and time it keeps the first, since a file of new events cannot repeat a history.
    """
    by_user = np.bincount(log.user, minlength=len(log.user_ids))
    drawn = np.argsort(stable_hash(log.user_ids, "audit"))
    users = drawn[np.cumsum(by_user[drawn]) - by_user[drawn] < events]
    one_each = [drawn[np.isin(drawn, log.user[log.period == period])][:1] for period in (TRAIN, VALIDATION, TEST)]
    kept = rows_of(log, np.flatnonzero(np.isin(log.user, np.concatenate([users, *one_each]))))
    return without_repeats(kept, kept.time_ms)


def without_repeats(log: EventLog, time: Int64[np.ndarray, " E"]) -> EventLog:
    """Returns the first of the events with the same user, item and given time."""
    kinds = pl.DataFrame({"user": log.user, "item": log.item, "time": time})
    first = kinds.select(pl.struct(pl.all()).is_first_distinct()).to_series().to_numpy()
    return rows_of(log, np.flatnonzero(first))


def gathered(log: EventLog) -> EventLog:
    """Returns the log with each four consecutive events of a user moved to one second, like the slates of a feed.

    Milliseconds are removed, and `row` numbers the events, so that they can be identified after further moves.
    """
    order = np.lexsort((log.time_ms, log.user))
    rank = np.arange(len(order)) - np.searchsorted(log.user[order], log.user[order])
    leader = np.empty_like(order)
    leader[order] = order[np.arange(len(order)) - rank % _IN_A_SECOND]
    moved = at_time(log, log.time_ms[leader] // 1000 * 1000)
    # A second on both sides of the split would leak: training on one half would help to predict the other.
    like_leader = {name: getattr(log, name)[leader] for name in ("day", "second", "period")}
    moved = dataclasses.replace(moved, **like_leader)
    return dataclasses.replace(rows_of(moved, np.arange(len(order))), row=np.arange(len(order)))


def at_time(log: EventLog, time: Int64[np.ndarray, " E"]) -> EventLog:
    """Returns the log with other times, not yet sorted; outcomes become known with the same delay as before."""
    return dataclasses.replace(log, time_ms=time, action_known=log.action_known + (time - log.time_ms)[:, None])


def with_milliseconds(log: EventLog, milliseconds: Int64[np.ndarray, " E"]) -> EventLog:
    """Returns the log with other milliseconds within each event's second."""
    moved = at_time(log, log.time_ms // 1000 * 1000 + milliseconds)
    # Outcomes known at once stay so; late outcomes keep their second.
    known = np.where(log.action_known > log.time_ms[:, None], log.action_known, moved.time_ms[:, None])
    return rows_of(dataclasses.replace(moved, action_known=known), np.arange(len(log.time_ms)))


def moved_within_seconds(log: EventLog, seed: int) -> EventLog:
    """Returns the log with the rows of each user and second in another order."""
    return rows_of(log, _shuffled(log, np.random.default_rng(seed)).order)


def flipped(log: EventLog, chosen: Bool[np.ndarray, " E"], actions: Bool[np.ndarray, "E A"]) -> EventLog:
    """Returns the log with changed labels of the chosen events and changed values of the chosen actions.

    Unobserved outcomes change too.
    """

    def other(signals: Sequence[Signal], values: np.ndarray) -> np.ndarray:
        result = np.empty_like(values)
        for column, signal in enumerate(signals):
            result[:, column] = signal.other(values[:, column])
        return result

    return dataclasses.replace(
        log,
        labels=np.where(chosen[:, None], other(log.spec.tasks, log.labels), log.labels),
        actions=np.where(actions, other(log.spec.actions, log.actions), log.actions),
    )


def as_new(log: EventLog, chosen: Bool[np.ndarray, " E"]) -> EventLog:
    """Returns the log with the chosen events in a file of new events instead."""
    return dataclasses.replace(log, period=np.where(chosen, NEW, log.period).astype(np.int8))


def with_new(log: EventLog, events: Integer[np.ndarray, " N"]) -> tuple[EventLog, Int64[np.ndarray, " N"]]:
    """Returns the log with copies of the given events as new ones, and the index of each new event's original."""
    rows = np.concatenate([np.arange(len(log.time_ms)), events])
    in_time = np.argsort(log.time_ms[rows], kind="stable")
    new = in_time >= len(log.time_ms)
    return as_new(rows_of(log, rows), new), rows[in_time[new]]


def clicks_first(log: EventLog, seed: int) -> Cheat:
    """Clicks are the first half of the rows in each second."""
    return _by_place(log, seed, first=True)


def clicks_last(log: EventLog, seed: int) -> Cheat:
    """Clicks are the last half of the rows in each second."""
    return _by_place(log, seed, first=False)


def by_file_order(log: EventLog, seed: int) -> Cheat:
    """Clicks come first in the file, before all other rows."""
    log, label, rng = gathered(log), *_tossed(log, seed)
    order = np.lexsort((rng.random(len(label)), ~label))
    row = np.empty_like(order)
    row[order] = np.arange(len(order))
    planted = rows_of(dataclasses.replace(_labelled(log, label), row=row), order)
    return Cheat(planted, planted.period == TEST)


def by_milliseconds(log: EventLog, seed: int) -> Cheat:
    """Clicks have milliseconds in the second half of their second."""
    log, label, rng = gathered(log), *_tossed(log, seed)
    planted = with_milliseconds(_labelled(log, label), 500 * label + rng.integers(0, 500, len(label)))
    return Cheat(planted, planted.period == TEST)


def by_item_ids(log: EventLog, seed: int) -> Cheat:
    """Clicks have the lowest item ids, with one item per event."""
    log, label, rng = gathered(log), *_tossed(log, seed)
    item, ids = _own_ids(label, rng)
    planted = dataclasses.replace(_labelled(log, label), item=item, item_ids=ids)
    return Cheat(planted, planted.period == TEST)


def by_user_ids(log: EventLog, seed: int) -> Cheat:
    """Clicks have the lowest user ids, with one user per event."""
    label, rng = _tossed(log, seed)
    user, ids = _own_ids(label, rng)
    planted = dataclasses.replace(_labelled(log, label), user=user, user_ids=ids)
    return Cheat(planted, planted.period == TEST)


def across_the_split(log: EventLog, seed: int) -> Cheat:
    """Events of a second have the same outcome, and the split puts one of them in the test and the others before it.

    The others are not trained on, since a model that memorises their second would be legitimate.
    """
    log, rng = gathered(log), np.random.default_rng(seed)
    seconds = _shuffled(log, rng)
    label, period = np.empty(len(log.time_ms), bool), log.period.copy()
    label[seconds.order] = np.repeat(rng.random(seconds.starts.sum()) < 0.5, seconds.size[seconds.starts])
    period[seconds.order] = np.repeat(log.period[seconds.order[seconds.starts]], seconds.size[seconds.starts])
    before = np.empty(len(label), bool)
    before[seconds.order] = seconds.place < seconds.size - 1
    period[before & (period == TEST)] = VALIDATION
    return Cheat(dataclasses.replace(_labelled(log, label), period=period), period == TEST)


CHEATS: tuple[Callable[[EventLog, int], Cheat], ...] = (
    clicks_first,
    clicks_last,
    by_file_order,
    by_milliseconds,
    by_item_ids,
    by_user_ids,
    across_the_split,
)


class _Seconds(NamedTuple):
    """Events by user and second, in random order within each; the other arrays follow that order."""

    order: Int64[np.ndarray, " E"]
    starts: Bool[np.ndarray, " E"]  # whether the event is the first of its second
    place: Int64[np.ndarray, " E"]
    size: Int64[np.ndarray, " E"]


def _shuffled(log: EventLog, rng: np.random.Generator) -> _Seconds:
    second = log.time_ms // 1000
    order = np.lexsort((rng.random(len(second)), second, log.user))
    starts = np.ones(len(order), bool)
    starts[1:] = (np.diff(second[order]) != 0) | (np.diff(log.user[order]) != 0)
    first = np.flatnonzero(starts)
    sizes = np.diff(first, append=len(order))
    return _Seconds(order, starts, np.arange(len(order)) - np.repeat(first, sizes), np.repeat(sizes, sizes))


def _by_place(log: EventLog, seed: int, *, first: bool) -> Cheat:
    """Plants clicks on half of each second, whatever its size, which a model may guess."""
    log, rng = gathered(log), np.random.default_rng(seed)
    seconds = _shuffled(log, rng)
    middle = 2 * seconds.place + 1 - seconds.size
    early = np.where(middle == 0, rng.random(len(middle)) < 0.5, middle < 0)
    label, tied = np.empty(len(early), bool), np.empty(len(early), bool)
    label[seconds.order], tied[seconds.order] = early == first, seconds.size > 1
    planted = rows_of(_labelled(log, label), seconds.order)
    return Cheat(dataclasses.replace(planted, row=np.arange(len(label))), (planted.period == TEST) & tied[planted.row])


def _tossed(log: EventLog, seed: int) -> tuple[Bool[np.ndarray, " E"], np.random.Generator]:
    rng = np.random.default_rng(seed)
    return rng.random(len(log.time_ms)) < 0.5, rng


def _own_ids(label: Bool[np.ndarray, " E"], rng: np.random.Generator) -> tuple[np.ndarray, pl.Series]:
    order = np.lexsort((rng.random(len(label)), ~label))
    code = np.empty(len(label), np.int32)
    code[order] = np.arange(len(label))
    return code, pl.Series([f"{index:010d}" for index in range(len(label))])


def _labelled(log: EventLog, label: Bool[np.ndarray, " E"]) -> EventLog:
    """Replaces every task and action by one outcome, which becomes known when they do."""
    tasks, actions = (
        np.repeat(label.astype(np.float32)[:, None], x.shape[1], axis=1) for x in (log.labels, log.actions)
    )
    return dataclasses.replace(log, labels=tasks, actions=actions)
