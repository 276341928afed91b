"""Rows that describe one event: dropped, settled or refused, and always counted and said."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_files import START, event_table, read, refusal, users_of, write

from siren_rope_jax.data.encode import Encoder, InputConfig
from siren_rope_jax.data.event_log import EventLog
from siren_rope_jax.data.fingerprint import fingerprint

EVENTS = event_table(["u", "v"], ["i1", "i2", "i3"], tab=["a", "b"], length=[0.1, 2.5])
FEATURES = {"features": {"categorical": ["tab"], "dense": ["length"]}}


def again(row: int, **changes: object) -> pl.DataFrame:
    """One row of the log again, with other cells."""
    return EVENTS[row].with_columns(
        pl.lit(value).alias(name).cast(EVENTS[name].dtype) for name, value in changes.items()
    )


def read_rows(folder, *more: pl.DataFrame, **changes: object) -> EventLog:
    return read([write(pl.concat([EVENTS, *more]), folder / "log.csv")], **FEATURES | changes)


def event(log: EventLog, row: int) -> int:
    return int(np.flatnonzero(log.row == row)[0])


# Duplicates


def test_rows_that_are_the_same_in_every_column_that_is_read_are_duplicates_whatever_else_the_file_holds(tmp_path):
    doubled = pl.concat([EVENTS, EVENTS.head(3)]).with_columns(ingested=pl.int_range(23), note=pl.lit("x"))
    log = read([write(doubled, tmp_path / "log.csv")], **FEATURES)
    assert (log.duplicates, len(log.time_ms)) == (3, 20)
    assert any("duplicate rows dropped: 3" in note for note in log.notes)
    # Without the features in which other rows differ, these are duplicates too.
    apart = pl.concat([EVENTS, again(0, tab="b", length=9.0)])
    assert read([write(apart, tmp_path / "log.csv")]).duplicates == 1
    assert read([write(apart, tmp_path / "log.csv")], **FEATURES).duplicates == 0


def test_a_row_of_a_csv_and_the_same_row_of_a_parquet_file_are_duplicates(tmp_path):
    typed = EVENTS.with_columns(pl.col("click").cast(pl.Boolean), pl.col("time").cast(pl.Float64))
    worded = EVENTS.with_columns(
        pl.col("click").replace_strict({0: " false", 1: "1.0"}), pl.col("length").cast(pl.String)
    )
    files = [write(worded, tmp_path / "a.csv"), write(typed, tmp_path / "b.parquet")]
    log = read(files, **FEATURES)
    assert (log.duplicates, len(log.time_ms), log.contradictions) == (20, 20, 0)
    assert log.row.tolist() == list(range(20))


@pytest.mark.parametrize("change", [{"user": "v"}, {"item": "i2"}, {"time": START + 1}, {"tab": "c"}, {"length": 7.0}])
def test_rows_that_differ_in_a_column_that_is_read_are_two_events_and_no_contradiction(tmp_path, change):
    log = read_rows(tmp_path, again(0, **change, click=1))
    assert (log.duplicates, log.contradictions, len(log.time_ms)) == (0, 0, 21)


def test_events_without_repeats_are_read_without_a_word(tmp_path):
    log = read_rows(tmp_path)
    assert (log.duplicates, log.contradictions) == (0, 0)
    assert not any("duplicate" in note or "contradict" in note for note in log.notes)


def test_new_events_are_never_dropped_or_merged(tmp_path):
    new = pl.concat([EVENTS.tail(2), EVENTS.tail(2), EVENTS.tail(2).with_columns(click=1 - pl.col("click"))])
    log_file = write(EVENTS, tmp_path / "log.csv")
    log = read([log_file], write(new, tmp_path / "new.csv"), log={"contradictions": "refuse"}, **FEATURES)
    assert sorted(log.row[log.new]) == list(range(6))
    assert (log.duplicates, log.contradictions, int((~log.new).sum())) == (0, 0, 20)


# Contradictions


def test_by_default_an_event_with_contradicting_rows_has_the_mean_of_their_labels(tmp_path):
    log = read_rows(tmp_path, again(0, click=1), again(0, click=1))
    assert (len(log.time_ms), log.duplicates, log.contradictions) == (20, 1, 1)
    assert log.labels[event(log, 0), 0] == 0.5
    assert set(np.delete(log.labels[:, 0], event(log, 0))) == {0, 1}
    assert any("events whose rows contradict each other on outcomes: 1; the mean" in note for note in log.notes)


def test_first_keeps_the_first_row(tmp_path):
    log = read_rows(tmp_path, again(0, click=1), again(3, click=0), log={"contradictions": "first"})
    assert (len(log.time_ms), log.contradictions) == (20, 2)
    assert log.labels[:, 0].tolist() == EVENTS["click"].to_list()
    assert any("outcomes: 2; the first row of each counts" in note for note in log.notes)


def test_refuse_names_an_event_its_outcomes_and_its_rows(tmp_path):
    files = [write(EVENTS, tmp_path / "a.csv"), write(again(2, click=0), tmp_path / "b.csv")]
    message = refusal(files, log={"contradictions": "refuse"}, **FEATURES)
    assert 'such as click 1 and 0 for user "u" and item "i3" (rows 2 and 20, counted from 0)' in message
    assert 'contradictions = "mean" or "first"' in message
    write(EVENTS[2], tmp_path / "b.csv")
    assert read(files, log={"contradictions": "refuse"}, **FEATURES).duplicates == 1


@pytest.mark.slow
@settings(max_examples=20)
@given(order=st.permutations(range(23)))
def test_with_the_mean_the_order_of_the_rows_does_not_matter(tmp_path_factory, order):
    folder = tmp_path_factory.mktemp("log")
    rows = pl.concat([EVENTS, again(0, click=1), again(0, click=None), again(5, click=1)])
    expected = fingerprint(read([write(rows, folder / "log.csv")], **FEATURES))
    assert fingerprint(read([write(rows[order], folder / "log.csv")], **FEATURES)) == expected


def test_the_mean_is_of_what_was_observed(tmp_path):
    log = read_rows(tmp_path, again(2, click=None))
    assert log.labels[event(log, 2), 0] == EVENTS["click"][2] == 1
    assert log.contradictions == 1


def signals(folder, setting: str) -> EventLog:
    """A log in which one event's rows differ in a like and in when it was made."""
    liked = EVENTS.with_columns(like=pl.col("click"), at=pl.col("time") + 50)
    rows = [
        liked[0].with_columns(like=pl.lit(like, pl.Int64), at=pl.lit(START + after, pl.Int64))
        for like, after in ((0, 1), (1, 30), (1, 20), (None, 5))
    ]
    return read(
        [write(pl.concat([liked[1:], *rows]), folder / "log.csv")],
        tasks={"click": "click", "like": {"column": "like", "happened_at": "at"}},
        log={"contradictions": setting},
        **FEATURES,
    )


def test_an_action_that_any_row_has_was_made_and_is_known_from_the_first_time_it_was(tmp_path):
    log = signals(tmp_path, "mean")
    liked = event(log, 19)
    assert log.labels[liked, 1] == np.float32(2 / 3)
    assert log.actions[liked].tolist() == [0, 1]
    assert log.action_known[liked].tolist() == [1000 * START, 1000 * (START + 20)]
    assert np.isin(log.actions, [0, 1]).all()


def test_a_number_that_rows_contradict_is_their_mean_and_known_once_all_of_them_are(tmp_path):
    timed = EVENTS.with_columns(dwell=pl.col("time") % 7 * 0.5, at=pl.col("time") + 50)
    rows = [
        timed[0].with_columns(dwell=pl.lit(dwell, pl.Float64), at=pl.lit(START + after, pl.Int64))
        for dwell, after in ((1.0, 30), (4.0, 20), (None, 60))
    ]
    log = read(
        [write(pl.concat([timed[1:], *rows]), tmp_path / "log.csv")],
        tasks={"click": "click", "dwell": {"column": "dwell", "kind": "continuous", "known_at": "at"}},
        **FEATURES,
    )
    here = event(log, 19)
    assert log.labels[here, 1] == log.actions[here, 1] == 2.5
    assert log.action_known[here].tolist() == [1000 * START, 1000 * (START + 30)]


def test_the_first_row_counts_whole(tmp_path):
    log = signals(tmp_path, "first")
    first = event(log, 19)
    assert log.labels[first].tolist() == [0, 0]
    assert log.action_known[first, 1] == 1000 * START


def test_a_log_with_means_as_labels_is_encoded_and_its_actions_stay_outcomes(tmp_path):
    log = read_rows(tmp_path, again(0, click=1), again(2, click=0))
    encoder, encoded = Encoder.fit_encode(log, InputConfig(min_count=1))
    assert tuple(task.mean for task in encoder.tasks) == (pytest.approx(log.labels[log.period == 0, 0].mean()),)
    assert set(encoded.columns["labels"][:, 0]) == {0, 0.5, 1}
    assert set(encoded.columns["actions"].ravel()) <= {0, 1}


def test_a_task_whose_only_positive_is_half_a_one_can_be_learned(tmp_path):
    rows = EVENTS.with_columns(click=pl.when(pl.int_range(20) < 10).then(0).otherwise(pl.col("click")))
    extra = rows[0].with_columns(click=pl.lit(1, rows["click"].dtype))
    log = read([write(pl.concat([rows, extra]), tmp_path / "log.csv")], **FEATURES)
    assert log.labels[log.period == 0, 0].max() == 0.5


def test_rows_stay_in_the_order_of_the_input_at_one_time(tmp_path):
    tied = EVENTS.with_columns(time=pl.lit(START) + 3600 * (pl.int_range(20) // 4))
    doubled = pl.concat([tied, tied[5].with_columns(click=1 - pl.col("click")), tied[9]])
    log = read([write(doubled, tmp_path / "log.csv")], **FEATURES)
    assert log.row.tolist() == list(range(20))
    assert users_of(log) == EVENTS["user"].to_list()
