"""A new event scores what it would have been evaluated at, and each as if it were the only one."""

import dataclasses

import jax
import numpy as np
import pytest
from small_logs import compile_small, encode, slate_log, small_log

from siren_rope_jax.data.batches import BatchConfig
from siren_rope_jax.data.event_log import EventLog
from siren_rope_jax.train.cheats import as_new, rows_of, with_new
from siren_rope_jax.train.predict import predict_events
from siren_rope_jax.train.sharding import MeshConfig, make_layout

pytestmark = pytest.mark.slow

CONFIG = BatchConfig(window=16, row_length=24, batch_size=8)
LAYOUT = make_layout(MeshConfig())
CLOSE = {"rtol": 0, "atol": 1e-6}
LOGS = {
    "short and long histories": small_log([5, 100, 30, 1, 17]),
    "slates and late actions": slate_log(users=5, slates=9, size=6),
    "slates longer than a row": slate_log(users=2, slates=3, size=40),
}
ENCODER, _ = encode(LOGS["short and long histories"])
NEW_EVENTS = 40


@pytest.fixture(scope="module")
def predict():
    """Predictions of chosen events by a model none of whose parameters is zero."""
    model = compile_small(ENCODER, LAYOUT)
    leaves, tree = jax.tree.flatten(model.initial_state().params)
    keys = jax.random.split(jax.random.key(7), len(leaves))
    params = jax.tree.unflatten(
        tree, [x + 0.15 * jax.random.normal(key, x.shape, x.dtype) for x, key in zip(leaves, keys, strict=True)]
    )

    def run(log, wanted, as_history=False):
        encoded = ENCODER.encode(log, as_history=as_history)
        return predict_events(model.predict, params, encoded, wanted, CONFIG, LAYOUT)[wanted]

    return run


def among(log: EventLog, chosen: np.ndarray) -> EventLog:
    return rows_of(log, np.flatnonzero(chosen))


def scored_alone(predict, log: EventLog, event: int, history: np.ndarray) -> np.ndarray:
    chosen = history.copy()
    chosen[event] = True
    alone = as_new(among(log, chosen), np.flatnonzero(chosen) == event)
    return predict(alone, alone.new)[0]


@pytest.mark.parametrize("name", LOGS)
def test_the_last_events_scored_from_a_file_as_history_equal_their_evaluation(predict, name):
    log = LOGS[name]
    last = np.arange(len(log.time_ms)) >= len(log.time_ms) - NEW_EVENTS
    moved = as_new(log, last)
    scored = predict(moved, moved.new, as_history=True)
    np.testing.assert_allclose(scored, predict(log, last), **CLOSE)
    assert scored.std(axis=0).min() > 1e-2


@pytest.mark.parametrize("name", LOGS)
def test_an_event_scored_alone_from_what_came_before_equals_its_evaluation(predict, name):
    log = LOGS[name]
    for event in range(len(log.time_ms) - 8, len(log.time_ms)):
        wanted = np.arange(len(log.time_ms)) == event
        before = log.time_ms < log.time_ms[event]
        np.testing.assert_allclose(scored_alone(predict, log, event, before), predict(log, wanted)[0], **CLOSE)


@pytest.mark.parametrize("name", LOGS)
def test_each_candidate_of_a_file_is_scored_as_if_it_were_the_only_one(predict, name):
    log = LOGS[name]
    # Candidates in the middle of the log too, some twice, some of one second, some that the log holds as well.
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(log.time_ms), 12)
    file = np.concatenate([drawn, drawn[:4], np.arange(len(log.time_ms) - 6, len(log.time_ms))])
    together, events = with_new(log, file)
    for score, event in zip(predict(together, together.new), events, strict=True):
        alone, _ = with_new(log, np.array([event]))
        np.testing.assert_allclose(score, predict(alone, alone.new)[0], **CLOSE)


@pytest.mark.parametrize("name", LOGS)
def test_a_candidate_within_the_log_is_scored_from_what_was_known_at_its_time(predict, name):
    log = LOGS[name]
    middle = len(log.time_ms) // 2
    second = log.time_ms // 1000
    new = np.arange(len(log.time_ms)) == middle
    later = second >= second[middle]
    known_later = (log.action_known > 1000 * second[middle]) | later[:, None]
    other = dataclasses.replace(
        log,
        labels=np.where(later[:, None], 1 - log.labels, log.labels),
        actions=np.where(known_later, 1 - log.actions, log.actions),
        item=np.where(later & ~new, (log.item + 1) % 12, log.item).astype(np.int32),
    )
    first, second = (predict(as_new(one, new), new) for one in (log, other))
    np.testing.assert_allclose(first, second, **CLOSE)
    without = scored_alone(predict, log, middle, ~later)
    np.testing.assert_allclose(first[0], without, **CLOSE)


def test_a_row_that_the_log_holds_already_does_not_count_twice_as_history(predict):
    log = LOGS["short and long histories"]
    last = np.arange(len(log.time_ms)) >= len(log.time_ms) - 10
    moved = as_new(log, last)
    twice, _ = with_new(moved, np.arange(len(log.time_ms) - 20, len(log.time_ms) - 10))
    repeats = twice.new & (twice.time_ms < log.time_ms[-10])
    twice = as_new(twice, twice.new | np.isin(twice.row, log.row[last]))
    scored = predict(twice, twice.new & ~repeats, as_history=True)
    np.testing.assert_allclose(scored, predict(moved, moved.new, as_history=True), **CLOSE)


def test_later_rows_see_earlier_ones_only_as_history(predict):
    log = LOGS["short and long histories"]
    last = np.arange(len(log.time_ms)) >= len(log.time_ms) - NEW_EVENTS
    moved = as_new(log, last)
    alone, as_history = (predict(moved, moved.new, as_history=flag) for flag in (False, True))
    assert np.abs(alone - as_history).max() > 1e-2
    shown = dataclasses.replace(moved, actions=np.where(last[:, None], 1 - moved.actions, moved.actions))
    np.testing.assert_array_equal(predict(shown, shown.new), alone)
    assert np.abs(predict(shown, shown.new, as_history=True) - as_history).max() > 1e-2
