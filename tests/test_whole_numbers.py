"""Ids such as 15 that some program has written as 15.0: one id in every file, and said."""

import numpy as np
import polars as pl
import pytest
from log_files import START, event_table, read, refusal, users_of, write

INTEGERS = event_table(["15", "16"], ["1000", "2000", "3000"], tab=["7", "8"])
AS_FLOATS = INTEGERS.with_columns(pl.col("user", "item", "tab") + ".0")
TAB = {"features": {"categorical": ["tab"]}}


@pytest.mark.parametrize("name", ["log.csv", "log.parquet"])
@pytest.mark.parametrize("kind", [pl.String, pl.Float64])
def test_a_log_whose_ids_are_written_as_floats_equals_one_with_whole_numbers(tmp_path, name, kind):
    plain = read([write(INTEGERS, tmp_path / "plain.csv")], **TAB)
    floats = read([write(AS_FLOATS.cast({"user": kind, "item": kind, "tab": kind}), tmp_path / name)], **TAB)
    assert users_of(floats) == users_of(plain)
    assert floats.item_ids.to_list() == ["1000", "2000", "3000"]
    np.testing.assert_array_equal(floats.categorical, plain.categorical)
    for column in ("user", "item", "tab"):
        assert any(f'{name}: the column "{column}"' in note and "15.0 is read as 15" in note for note in floats.notes)
    assert not any("15.0" in note for note in plain.notes)


@pytest.mark.parametrize(("in_log", "in_new"), [(INTEGERS, AS_FLOATS), (AS_FLOATS, INTEGERS), (AS_FLOATS, AS_FLOATS)])
def test_new_events_match_the_log_whichever_of_both_was_written_as_floats(tmp_path, in_log, in_new):
    new = in_new.head(4).with_columns(pl.col("time") + 100_000)
    log = read([write(in_log, tmp_path / "log.csv")], write(new, tmp_path / "new.csv"), **TAB)
    assert log.user_ids.to_list() == ["15", "16"]
    assert np.isin(log.categorical[log.new], log.categorical[~log.new]).all()
    assert any("the user of 4 of 4 new events (100 %)" in note for note in log.notes)


def test_a_missing_value_does_not_keep_a_column_from_being_whole_numbers(tmp_path):
    # As pandas writes a column of integers in which one is missing.
    gap = INTEGERS.with_columns(tab=pl.Series([None, *INTEGERS["tab"][1:].cast(pl.Float64)]))
    expected = read([write(INTEGERS, tmp_path / "plain.csv")], **TAB).categorical
    assert read([write(gap, tmp_path / "log.parquet")], **TAB).categorical[1:].tolist() == expected[1:].tolist()


def test_files_of_one_log_may_differ_in_how_they_write_whole_numbers(tmp_path):
    files = [write(INTEGERS.head(10), tmp_path / "a.csv"), write(AS_FLOATS.tail(10), tmp_path / "b.csv")]
    log = read(files)
    assert users_of(log) == INTEGERS["user"].to_list()
    assert [note for note in log.notes if '"user"' in note and "a.csv" in note] == []


def test_a_column_in_which_only_some_are_like_floats_is_left_as_it_is(tmp_path):
    versions = event_table(["u", "v"], ["1.0", "1.5", "2"])
    log_file = write(versions, tmp_path / "log.csv")
    assert read([log_file]).item_ids.to_list() == ["1.0", "1.5", "2"]
    # New events of one version only, which alone would look like whole numbers.
    new = versions.filter(pl.col("item") == "1.0").with_columns(pl.col("time") + 100_000)
    log = read([log_file], write(new, tmp_path / "new.csv"))
    assert log.item_ids.to_list() == ["1.0", "1.5", "2"]
    assert any("the item of 7 of 7 new events" in note for note in log.notes)
    # The same in a second file of the log.
    both = read([write(versions.filter(pl.col("item") != "1.0"), tmp_path / "a.csv"), log_file])
    assert both.item_ids.to_list() == ["1.0", "1.5", "2"]


def test_side_tables_match_whichever_side_was_written_as_floats(tmp_path):
    items = pl.DataFrame({"id": ["1000", "3000"], "year": [1999.0, 2005.0]})
    side = {"join": "item", "key": "id", "categorical": ["year"]}
    logs = []
    for number, (events, keys) in enumerate(
        [(INTEGERS, items["id"]), (INTEGERS, items["id"] + ".0"), (AS_FLOATS, items["id"])]
    ):
        file = write(items.with_columns(id=keys), tmp_path / f"items{number}.csv")
        table = [side | {"file": str(file)}]
        logs.append(read([write(events, tmp_path / f"log{number}.csv")], side_table=table))
    for log in logs:
        assert log.unmatched == (7,)
        np.testing.assert_array_equal(log.categorical, logs[0].categorical)


@pytest.mark.parametrize("value", [0.5, 2.0**53 + 2])
def test_float_ids_that_are_no_exact_whole_numbers_are_refused(tmp_path, value):
    users = pl.Series([value, *INTEGERS["user"][1:].cast(pl.Float64)])
    message = refusal([write(INTEGERS.with_columns(user=users), tmp_path / "log.parquet")])
    assert 'column "user": expected a whole number as the id of the user, found' in message


def test_float32_ids_are_refused(tmp_path):
    events = INTEGERS.with_columns(pl.col("user").cast(pl.Float32))
    assert '"user"' in refusal([write(events, tmp_path / "log.parquet")])


def test_a_single_new_event_of_a_known_user_written_as_float_is_scored_as_theirs(tmp_path):
    new = pl.DataFrame({"user": ["15.0"], "item": ["1000"], "time": [START + 100_000]})
    log = read([write(INTEGERS, tmp_path / "log.csv")], write(new, tmp_path / "new.csv"))
    assert users_of(log)[-1] == "15"
