"""Windows against their definition: who sees whom, at what position, whatever shares a second or a file."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_logs import sequences

from siren_rope_jax.data.batches import BatchConfig, make_rows
from siren_rope_jax.data.encode import Encoded
from siren_rope_jax.data.windows import plan_windows


def encoded_users(users: list[tuple[list[int], list[int]]]) -> Encoded:
    """Users with (seconds of the events that are history, seconds of events that nobody sees)."""
    user = np.repeat(np.arange(len(users)), [len(history) + len(alone) for history, alone in users])
    elapsed = np.array([second for history, alone in users for second in sorted(history) + sorted(alone)], np.int32)
    hidden = np.array([flag for h, a in users for flag in [False] * len(h) + [True] * len(a)], bool)
    one = sequences([len(user)])
    columns = one.columns | {"elapsed_seconds": elapsed}
    return dataclasses.replace(one, user=user, alone=hidden, columns=columns)


@st.composite
def cases(draw, alone: bool = True):
    """Users crowded with ties, from no history to several windows of it, and slates longer than a row."""
    seconds = st.one_of(
        st.lists(st.integers(0, 40), max_size=25),
        st.lists(st.sampled_from([3, 3, 3, 7]), max_size=40),
        st.integers(0, 30).map(lambda n: list(range(n))),
    )
    users = draw(st.lists(st.tuples(seconds, seconds if alone else st.just([])), max_size=5))
    encoded = encoded_users(users)
    size = len(encoded.user)
    chance = draw(st.sampled_from([1.0, 0.5, 0.1]))
    scored = np.random.default_rng(draw(st.integers(0, 99))).random(size) < chance
    window = 2 * draw(st.integers(1, 6))
    return encoded, scored, BatchConfig(window, window + draw(st.integers(0, 9)), 2)


def seen_by_scored(encoded, scored, config, history):
    """For each scored event: the events it sees, in the order of the slots, and its position."""
    rows = make_rows(encoded, scored, config, history=history)
    elapsed = encoded.columns["elapsed_seconds"]
    for events, segment, position, wanted in zip(rows.row_index, rows.segment, rows.position, rows.scored, strict=True):
        for slot in np.flatnonzero(wanted):
            before = events[:slot][segment[:slot] == segment[slot]]
            yield events[slot], before[elapsed[before] < elapsed[events[slot]]], position[slot]


def history_of(encoded, event):
    """By definition: the user's events at earlier seconds that are not hidden."""
    earlier = encoded.columns["elapsed_seconds"] < encoded.columns["elapsed_seconds"][event]
    return np.flatnonzero((encoded.user == encoded.user[event]) & ~encoded.alone & earlier)


@pytest.mark.slow
@settings(max_examples=300)
@given(case=cases())
def test_an_evaluated_event_sees_the_last_events_of_its_history_that_fit_the_window(case):
    encoded, scored, config = case
    found = list(seen_by_scored(encoded, scored, config, config.window - 1))
    assert sorted(event for event, _, _ in found) == np.flatnonzero(scored).tolist()
    for event, seen, position in found:
        np.testing.assert_array_equal(seen, history_of(encoded, event)[-(config.window - 1) :])
        assert position == len(seen)


@pytest.mark.slow
@settings(max_examples=300)
@given(case=cases(alone=False))
def test_a_trained_event_sees_at_least_half_a_window_of_the_end_of_its_history_or_all_there_is(case):
    encoded, scored, config = case
    for event, seen, position in seen_by_scored(encoded, scored, config, None):
        history = history_of(encoded, event)
        assert min(config.window // 2, len(history)) <= len(seen) < config.window
        np.testing.assert_array_equal(seen, history[len(history) - len(seen) :])
        assert position == len(seen)


@pytest.mark.slow
@settings(max_examples=200)
@given(case=cases())
def test_events_of_one_second_and_window_share_their_position(case):
    encoded, scored, config = case
    rows = make_rows(encoded, scored, config)
    for events, segment, position in zip(rows.row_index, rows.segment, rows.position, strict=True):
        places: dict[tuple, set] = {}
        for slot in np.flatnonzero(segment):
            key = segment[slot], encoded.columns["elapsed_seconds"][events[slot]], encoded.alone[events[slot]]
            places.setdefault(key, set()).add(position[slot])
        assert all(len(found) == 1 for found in places.values())


@pytest.mark.slow
@settings(max_examples=200)
@given(case=cases())
def test_no_window_is_longer_than_a_row_and_each_is_of_one_user(case):
    encoded, scored, config = case
    windows = plan_windows(encoded, scored, window=config.window, history=0, row_length=config.row_length)
    assert np.all(windows.lengths <= config.row_length)
    for first, history_end, new, end in zip(*windows, strict=True):
        assert len(set(encoded.user[np.r_[first:history_end, new:end]])) == 1


def test_a_slate_of_200_candidates_sees_the_history_that_one_sees():
    history, window = list(range(100)), 64
    encoded = encoded_users([(history, [200] * 200), (history, [200])])
    scored = encoded.alone
    found = list(seen_by_scored(encoded, scored, BatchConfig(window, 128, 2), window - 1))
    assert len(found) == 201
    for event, seen, position in found:
        assert (seen % 300).tolist() == list(range(37, 100)), event
        assert position == 63


def test_windows_of_a_long_history_overlap_by_half_in_training():
    windows = plan_windows(sequences([3, 20]), np.ones(23, bool), window=8, history=4, row_length=8)
    assert np.stack([windows.first, windows.new, windows.end], axis=1).tolist() == [
        [0, 0, 3],
        [3, 3, 11],
        [7, 11, 15],
        [11, 15, 19],
        [15, 19, 23],
    ]


def test_no_event_to_score_gives_no_window():
    windows = plan_windows(sequences([3, 20]), np.zeros(23, bool), window=8, history=4, row_length=8)
    assert all(column.shape == (0,) for column in windows)


@pytest.mark.parametrize(("window", "history", "row_length"), [(8, 8, 8), (8, 4, 7)])
def test_a_shape_without_room_for_an_event_is_refused(window, history, row_length):
    with pytest.raises(ValueError, match=f"but are {history}, {window}, {row_length}"):
        plan_windows(sequences([3]), np.ones(3, bool), window=window, history=history, row_length=row_length)
