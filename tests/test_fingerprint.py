import dataclasses

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_logs import small_log

from siren_rope_jax.data import fingerprint as module
from siren_rope_jax.data.event_log import EventLog
from siren_rope_jax.data.fingerprint import fingerprint

LOG = small_log([9, 4, 12])
EVENTS = len(LOG.time_ms)
PER_EVENT = ("time_ms", "day", "second", "row", "user", "item", "labels", "actions", "action_known")
PER_EVENT += ("categorical", "dense")


def taken(log: EventLog, order: list[int]) -> EventLog:
    """The events of a log in another order, or some of them, or some twice."""
    return dataclasses.replace(log, **{name: getattr(log, name)[order] for name in (*PER_EVENT, "period")})


@settings(max_examples=20)
@given(order=st.permutations(range(EVENTS)))
def test_the_order_of_the_events_does_not_matter(order):
    assert fingerprint(taken(LOG, order)) == fingerprint(LOG)


def test_ids_count_and_not_their_codes():
    # Users that are not in any event, which another file of the same log may have brought.
    more = dataclasses.replace(LOG, user_ids=pl.Series(["a", *LOG.user_ids]), user=LOG.user + 1)
    assert fingerprint(more) == fingerprint(LOG)
    renamed = dataclasses.replace(LOG, user_ids=pl.Series(["a", *LOG.user_ids[1:]]))
    assert fingerprint(renamed) != fingerprint(LOG)


@pytest.mark.parametrize("name", [name for name in PER_EVENT if name != "row"])
def test_one_changed_cell_changes_the_digest(name):
    values = getattr(LOG, name).reshape(EVENTS, -1)
    for column in range(values.shape[1]):
        changed = values.copy()
        changed[7, column] = 1 - changed[7, column] if name in ("labels", "actions", "user") else changed[7, column] + 1
        one_off = dataclasses.replace(LOG, **{name: changed.reshape(getattr(LOG, name).shape)})
        assert fingerprint(one_off)["digest"] != fingerprint(LOG)["digest"]


def test_an_event_that_comes_twice_counts_twice():
    prints = [fingerprint(taken(LOG, [*range(EVENTS), *[3] * more]))["digest"] for more in range(4)]
    assert len(set(prints)) == 4


def test_cells_that_changed_places_change_the_digest():
    swapped = dataclasses.replace(LOG, labels=LOG.labels[:, ::-1].copy())
    assert fingerprint(swapped) != fingerprint(LOG)
    item = LOG.item.copy()
    item[[0, 1]] = item[[1, 0]]
    assert item[0] != item[1]
    assert fingerprint(dataclasses.replace(LOG, item=item)) != fingerprint(LOG)


@settings(max_examples=10)
@given(rows=st.lists(st.booleans(), min_size=EVENTS, max_size=EVENTS))
def test_a_subset_has_the_fingerprint_of_a_log_of_those_events_alone(rows):
    chosen = np.array(rows)
    assert fingerprint(LOG, chosen) == fingerprint(taken(LOG, np.flatnonzero(chosen).tolist()))
    assert fingerprint(LOG, chosen)["events"] == chosen.sum()


def test_every_nan_and_both_zeros_are_one():
    other = np.where(np.isnan(LOG.dense), np.array([0xFFC12345], np.uint32).view(np.float32), LOG.dense)
    assert fingerprint(dataclasses.replace(LOG, dense=other)) == fingerprint(LOG)
    labels = np.where(LOG.labels == 0, np.float32(-0.0), LOG.labels)
    assert fingerprint(dataclasses.replace(LOG, labels=labels)) == fingerprint(LOG)


def test_the_number_of_events_read_at_once_does_not_matter(monkeypatch):
    expected = fingerprint(LOG)
    monkeypatch.setattr(module, "_AT_ONCE", 7)
    assert fingerprint(LOG) == expected


def test_digests_stay_the_same_forever_because_runs_keep_them():
    log = taken(LOG, [0])
    log = dataclasses.replace(
        log,
        user_ids=pl.Series(["u"]),
        user=np.zeros(1, np.int32),
        item_ids=pl.Series(["i"]),
        item=np.zeros(1, np.int32),
        time_ms=np.array([1_650_000_000_123]),
        day=np.array([19_097], np.int32),
        second=np.array([19_200], np.int32),
        labels=np.array([[1, np.nan]], np.float32),
        actions=np.array([[1, 0]], np.float32),
        action_known=np.array([[1_650_000_000_123, 1_650_000_100_000]]),
        categorical=np.array([[2**64 - 1]], np.uint64),
        dense=np.array([[0.1, -2.5]], np.float32),
    )
    assert fingerprint(log) == {"events": 1, "digest": "57d0ceee7caec1fc5e145da2be854d6d"}
