"""Event logs rewritten for an audit: outcomes laid where no honest prediction can find them, or a future that changes.

Every planted outcome is drawn by chance, independently of all that an event may be predicted from, and then laid into
something that a prediction must not know: the order of rows, the milliseconds, the order of ids, the other half of a
second that the split cuts. So an honest model finds an AUC of .5, whatever it reads.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Int64, Integer

from siren_rope_jax.data.event_log import NEW, TEST, TRAIN, VALIDATION, EventLog
from siren_rope_jax.data.signals import Signal
from siren_rope_jax.data.stable_hash import stable_hash

_PER_EVENT = ("time_ms", "day", "second", "row", "user", "item", "period", "labels", "actions", "action_known")
_PER_EVENT += ("categorical", "dense")
_IN_A_SECOND = 4


class Cheat(NamedTuple):
    """A log with a planted outcome, and the events on which it is to be found."""

    log: EventLog
    scored: Bool[np.ndarray, " E"]


def rows_of(log: EventLog, order: Integer[np.ndarray, " N"]) -> EventLog:
    """Returns the log that a file with these of its events in this order makes: those of one time stand as given."""
    order = order[np.argsort(log.time_ms[order], kind="stable")]
    return dataclasses.replace(log, **{name: getattr(log, name)[order] for name in _PER_EVENT})


def some_of(log: EventLog, events: int) -> EventLog:
    """Returns about so many events, of whole users drawn by a hash, with one at least for each period.

    Of events alike in user, item and time it keeps the first, since a file of new events cannot repeat one as history.
    """
    by_user = np.bincount(log.user, minlength=len(log.user_ids))
    drawn = np.argsort(stable_hash(log.user_ids, "audit"))
    users = drawn[np.cumsum(by_user[drawn]) - by_user[drawn] < events]
    one_each = [drawn[np.isin(drawn, log.user[log.period == period])][:1] for period in (TRAIN, VALIDATION, TEST)]
    kept = rows_of(log, np.flatnonzero(np.isin(log.user, np.concatenate([users, *one_each]))))
    return without_repeats(kept, kept.time_ms)


def without_repeats(log: EventLog, time: Int64[np.ndarray, " E"]) -> EventLog:
    """Returns the first of the events alike in user, item and the given time."""
    kinds = pl.DataFrame({"user": log.user, "item": log.item, "time": time})
    first = kinds.select(pl.struct(pl.all()).is_first_distinct()).to_series().to_numpy()
    return rows_of(log, np.flatnonzero(first))


def gathered(log: EventLog) -> EventLog:
    """Returns the log with four events of a user after the other in one second, as a feed shows slates.

    Milliseconds are gone, and `row` numbers the events: it says which is which after they have been moved about.
    """
    order = np.lexsort((log.time_ms, log.user))
    rank = np.arange(len(order)) - np.searchsorted(log.user[order], log.user[order])
    leader = np.empty_like(order)
    leader[order] = order[np.arange(len(order)) - rank % _IN_A_SECOND]
    moved = at_time(log, log.time_ms[leader] // 1000 * 1000)
    # With a second on both sides of the split, what training remembers of the one half would tell of the other.
    like_leader = {name: getattr(log, name)[leader] for name in ("day", "second", "period")}
    moved = dataclasses.replace(moved, **like_leader)
    return dataclasses.replace(rows_of(moved, np.arange(len(order))), row=np.arange(len(order)))


def at_time(log: EventLog, time: Int64[np.ndarray, " E"]) -> EventLog:
    """Returns the log with other times, before it is sorted by them; outcomes are known as long after as before."""
    return dataclasses.replace(log, time_ms=time, action_known=log.action_known + (time - log.time_ms)[:, None])


def with_milliseconds(log: EventLog, milliseconds: Int64[np.ndarray, " E"]) -> EventLog:
    """Returns the log with other milliseconds within each event's second."""
    moved = at_time(log, log.time_ms // 1000 * 1000 + milliseconds)
    # Known at once stays at once; late outcomes keep their second.
    known = np.where(log.action_known > log.time_ms[:, None], log.action_known, moved.time_ms[:, None])
    return rows_of(dataclasses.replace(moved, action_known=known), np.arange(len(log.time_ms)))


def moved_within_seconds(log: EventLog, seed: int) -> EventLog:
    """Returns the log with the rows of each user and second in another order."""
    return rows_of(log, _shuffled(log, np.random.default_rng(seed)).order)


def flipped(log: EventLog, chosen: Bool[np.ndarray, " E"], actions: Bool[np.ndarray, "E A"]) -> EventLog:
    """Returns the log with other labels of the chosen events, and other of the chosen actions, the unobserved too."""

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
    """Returns the log beside a file that holds the given of its events, and which of them each new event is."""
    rows = np.concatenate([np.arange(len(log.time_ms)), events])
    in_time = np.argsort(log.time_ms[rows], kind="stable")
    new = in_time >= len(log.time_ms)
    return as_new(rows_of(log, rows), new), rows[in_time[new]]


def clicks_first(log: EventLog, seed: int) -> Cheat:
    """In each second, the first half of the rows is clicked."""
    return _by_place(log, seed, first=True)


def clicks_last(log: EventLog, seed: int) -> Cheat:
    """In each second, the last half of the rows is clicked."""
    return _by_place(log, seed, first=False)


def by_file_order(log: EventLog, seed: int) -> Cheat:
    """The file holds all clicks, then all the rest."""
    log, label, rng = gathered(log), *_tossed(log, seed)
    order = np.lexsort((rng.random(len(label)), ~label))
    row = np.empty_like(order)
    row[order] = np.arange(len(order))
    planted = rows_of(dataclasses.replace(_labelled(log, label), row=row), order)
    return Cheat(planted, planted.period == TEST)


def by_milliseconds(log: EventLog, seed: int) -> Cheat:
    """Clicks lie in the second half of their second."""
    log, label, rng = gathered(log), *_tossed(log, seed)
    planted = with_milliseconds(_labelled(log, label), 500 * label + rng.integers(0, 500, len(label)))
    return Cheat(planted, planted.period == TEST)


def by_item_ids(log: EventLog, seed: int) -> Cheat:
    """Every event has an item of its own, and those of the clicks have the lowest ids."""
    log, label, rng = gathered(log), *_tossed(log, seed)
    item, ids = _own_ids(label, rng)
    planted = dataclasses.replace(_labelled(log, label), item=item, item_ids=ids)
    return Cheat(planted, planted.period == TEST)


def by_user_ids(log: EventLog, seed: int) -> Cheat:
    """Every event has a user of its own, and those of the clicks have the lowest ids."""
    label, rng = _tossed(log, seed)
    user, ids = _own_ids(label, rng)
    planted = dataclasses.replace(_labelled(log, label), user=user, user_ids=ids)
    return Cheat(planted, planted.period == TEST)


def across_the_split(log: EventLog, seed: int) -> Cheat:
    """All events of a second have one outcome, and the split leaves one of them to the test and the others before it.

    These are not trained on: a model that remembers their second would not be wrong to.
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
    """Events by user and second, in an order by chance within each; the other arrays follow that order."""

    order: Int64[np.ndarray, " E"]
    starts: Bool[np.ndarray, " E"]  # the first of its second
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
    """Half of each second is clicked whatever its size, which is not known beforehand but often guessed."""
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
    """Puts one outcome in the place of every task and action; it becomes known when they do."""
    tasks, actions = (
        np.repeat(label.astype(np.float32)[:, None], x.shape[1], axis=1) for x in (log.labels, log.actions)
    )
    return dataclasses.replace(log, labels=tasks, actions=actions)
