"""Windows, rows and batches: nothing scored twice or never, true history, exact order, shards and resumption."""

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_logs import encode, sequences, small_log

from siren_rope_jax.batch import Events
from siren_rope_jax.data.batches import PADDING, BatchConfig, batches, make_rows, pack_rows
from siren_rope_jax.data.windows import Windows

CONFIG = BatchConfig(window=6, row_length=10, batch_size=4)


@st.composite
def cases(draw):
    """Users of any lengths, any subset of their events to score, and any window and row."""
    encoded = sequences(draw(st.lists(st.integers(1, 25), max_size=8)))
    size = len(encoded.user)
    kind = draw(st.sampled_from(["any", "all", "rare", "late"]))
    if kind == "any":
        scored = np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)), bool)
    else:
        chance = {"all": 1.0, "rare": 0.1, "late": 0.3}[kind]
        scored = np.random.default_rng(draw(st.integers(0, 9))).random(size) >= 1 - chance
        if kind == "late":
            scored = np.arange(size) >= (1 - chance) * size
    window = 2 * draw(st.integers(1, 6))
    config = BatchConfig(window=window, row_length=window + draw(st.integers(0, 9)), batch_size=2)
    return encoded, scored, config, draw(st.integers(0, 3))


def segments(rows):
    """(events, scored, positions) of every segment of every row."""
    for event, segment, position, scored in zip(rows.row_index, rows.segment, rows.position, rows.scored, strict=True):
        for number in range(1, segment.max() + 1):
            slots = segment == number
            yield event[slots], scored[slots], position[slots]


@pytest.mark.slow
@settings(max_examples=200)
@given(case=cases())
def test_every_event_to_score_stands_in_exactly_one_scored_slot(case):
    encoded, scored, config, seed = case
    rows = make_rows(encoded, scored, config, seed=seed)
    np.testing.assert_array_equal(np.sort(rows.row_index[rows.scored]), np.flatnonzero(scored))


@pytest.mark.slow
@settings(max_examples=200)
@given(case=cases())
def test_a_segment_is_an_unbroken_piece_of_one_users_history_no_longer_than_the_window(case):
    encoded, scored, config, seed = case
    for events, _, positions in segments(make_rows(encoded, scored, config, seed=seed)):
        np.testing.assert_array_equal(events, np.arange(events[0], events[0] + len(events)))
        np.testing.assert_array_equal(positions, np.arange(len(events)))
        assert len(set(encoded.user[events])) == 1
        assert len(events) <= config.window


@pytest.mark.slow
@settings(max_examples=200)
@given(case=cases())
def test_padding_is_marked_in_every_array_and_segments_are_numbered_from_one(case):
    encoded, scored, config, seed = case
    rows = make_rows(encoded, scored, config, seed=seed)
    assert rows.row_index.shape[1] == config.row_length
    empty = rows.row_index == PADDING
    np.testing.assert_array_equal(rows.segment == 0, empty)
    assert not rows.scored[empty].any()
    assert not rows.position[empty].any()
    for row in rows.segment:
        assert set(row) - {0} == set(range(1, row.max() + 1))
    if rows.row_index.size:
        assert rows.fill == pytest.approx(1 - empty.mean())


@pytest.mark.parametrize(("window", "row_length"), [(64, 128), (32, 32), (50, 200)])
def test_rows_are_more_than_95_percent_full_on_long_tailed_histories(window, row_length):
    lengths = np.random.default_rng(0).lognormal(2.5, 1.2, 600).astype(int) + 1
    encoded = sequences(lengths)
    rows = make_rows(encoded, np.ones(len(encoded.user), bool), BatchConfig(window, row_length, 8))
    assert rows.fill > 0.95


def test_the_seed_decides_which_windows_share_a_row():
    encoded = sequences([4] * 40)
    scored = np.ones(160, bool)
    first, again, other = (make_rows(encoded, scored, CONFIG, seed=seed).row_index for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)


def test_short_windows_fill_the_gaps_that_long_ones_leave():
    starts = np.array([0, 6, 10, 14, 16, 20], np.int32)
    windows = Windows(starts[:-1], starts[:-1], starts[:-1], starts[1:])
    rows = pack_rows(windows, np.ones(20, bool), np.arange(20, dtype=np.int32), 10, seed=0)
    assert rows.row_index.shape == (2, 10)
    assert rows.fill == 1


USERS = sequences([5, 3, 9, 1, 7, 6, 2, 8, 4, 11, 13])
ROWS = make_rows(USERS, np.arange(len(USERS.user)) % 3 > 0, CONFIG)


def stream(count: int, seed: int | None = 0, **share):
    dataset = batches(USERS, ROWS, CONFIG, seed=seed, **share)
    return [dataset[index] for index in range(count)]


def scored_events(batch):
    """Which event of `USERS`, whose days count them, is scored in each slot; PADDING in the others."""
    return np.where(np.isnan(batch.labels[..., 0]), PADDING, batch.events.day)


def joined(parts):
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


def assert_same(first, second):
    for a, b in zip(first, second, strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b)


def test_the_same_seed_gives_the_same_batches():
    assert_same(stream(12), stream(12))


def test_another_seed_gives_another_order():
    assert any(np.any(a.events.day != b.events.day) for a, b in zip(stream(3), stream(3, seed=1), strict=True))


def test_each_epoch_visits_every_row_once_and_in_an_order_of_its_own():
    count = len(ROWS.row_index)
    events = np.concatenate([scored_events(batch) for batch in stream(count)])  # batch_size epochs
    epochs = events.reshape(CONFIG.batch_size, count, -1)
    expected = np.where(ROWS.scored, ROWS.row_index, PADDING)
    expected = expected[np.lexsort(expected.T)]
    for epoch in epochs:
        np.testing.assert_array_equal(epoch[np.lexsort(epoch.T)], expected)
    assert np.any(epochs[0] != epochs[1])


def test_batches_continue_where_they_were_left():
    resumed = batches(USERS, ROWS, CONFIG, seed=0)[7:]
    assert_same(stream(12)[7:], [resumed[index] for index in range(5)])
    assert_same(stream(12)[7:], stream(5, first_example=7 * CONFIG.batch_size))


def test_another_batch_size_goes_on_at_the_example_where_the_last_one_stopped():
    smaller = dataclasses.replace(CONFIG, batch_size=CONFIG.batch_size // 2)
    dataset = batches(USERS, ROWS, smaller, seed=0, first_example=6 * CONFIG.batch_size)
    halves = [joined([dataset[k], dataset[k + 1]]) for k in (0, 2)]
    assert_same(stream(8)[6:], halves)


@pytest.mark.parametrize("seed", [0, None])
@pytest.mark.parametrize("processes", [2, 4])
def test_the_shares_of_the_processes_make_up_the_global_batch(processes, seed):
    held = np.arange(CONFIG.batch_size).reshape(processes, -1)
    shares = [stream(2, seed, rows_here=rows) for rows in held]
    assert_same(stream(2, seed), [joined(parts) for parts in zip(*shares, strict=True)])
    assert len(shares[0][0].events.segment) == CONFIG.batch_size // processes


def test_without_a_seed_the_rows_come_once_as_they_are_and_the_last_batch_is_padded():
    dataset = batches(USERS, ROWS, CONFIG, seed=None)
    count = len(ROWS.row_index)
    assert count % CONFIG.batch_size, "the case needs an incomplete batch"
    assert len(dataset) == count // CONFIG.batch_size + 1
    together = joined(list(dataset))
    np.testing.assert_array_equal(together.events.segment[:count], ROWS.segment)
    np.testing.assert_array_equal(scored_events(together)[:count], np.where(ROWS.scored, ROWS.row_index, PADDING))
    assert not together.events.segment[count:].any()
    assert np.all(np.isnan(together.labels[count:]))


def test_labels_stand_where_events_are_scored_and_nowhere_else():
    for index, batch in enumerate(stream(2, seed=None)):
        rows = slice(index * CONFIG.batch_size, (index + 1) * CONFIG.batch_size)
        expected = np.where(ROWS.scored[rows], ROWS.row_index[rows] % 2, np.nan)
        np.testing.assert_array_equal(batch.labels[..., 0], expected)


def test_history_keeps_its_inputs_though_it_is_not_scored():
    rows = batches(USERS, ROWS, CONFIG, seed=None)[0]
    expected = np.where(ROWS.row_index[:4] == PADDING, 0, ROWS.row_index[:4])
    np.testing.assert_array_equal(rows.events.day, expected)
    assert np.any((scored_events(rows) == PADDING) & (rows.events.segment != 0))


def test_a_batch_of_a_real_log_holds_the_inputs_of_the_model_and_zeros_in_the_padding():
    _, encoded = encode(small_log([5, 9, 2, 7, 12]))
    before = {name: column.copy() for name, column in encoded.columns.items()}
    rows = make_rows(encoded, np.ones(len(encoded.user), bool), CONFIG)
    for index, batch in enumerate(batches(encoded, rows, CONFIG, seed=None)):
        empty = batch.events.segment == 0
        here = slice(index * CONFIG.batch_size, (index + 1) * CONFIG.batch_size)
        row_index, scored = rows.row_index[here], rows.scored[here]
        arrays = batch.events._asdict() | {"labels": batch.labels}
        for name in Events._fields:
            assert not arrays[name][empty].any(), name
        for name, column in encoded.columns.items():
            assert arrays[name].dtype == column.dtype
            np.testing.assert_array_equal(arrays[name][: len(scored)][scored], column[row_index[scored]])
    for name, column in before.items():
        np.testing.assert_array_equal(encoded.columns[name], column)


def test_a_log_without_anything_to_score_is_refused():
    rows = make_rows(USERS, np.zeros(len(USERS.user), bool), CONFIG)
    with pytest.raises(ValueError, match="no event is to be scored"):
        batches(USERS, rows, CONFIG, seed=0)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"window": 7}, "window must be even and at least 2, but is 7"),
        ({"window": 0}, "window must be even and at least 2, but is 0"),
        ({"window": 12}, "row_length must be at least the window, 12, but is 10"),
        ({"batch_size": 0}, "batch_size must be at least 1, but is 0"),
    ],
)
def test_a_batch_shape_that_cannot_work_is_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        dataclasses.replace(CONFIG, **changes)
