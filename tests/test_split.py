"""Splits that the files give, by a column or by file, and splits that leave the last events out."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from log_files import START, event_table, write

from siren_rope_jax.data.event_log import read_event_log
from siren_rope_jax.data.fingerprint import fingerprint
from siren_rope_jax.data.periods import NEW
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.errors import InputError

USERS, ITEMS = ["ann", "bob", "eve"], ["x", "y"]
SETS = ["train"] * 11 + ["valid"] * 4 + ["test"] * 5
PERIODS = [0] * 11 + [1] * 4 + [2] * 5


def table(**columns):
    return event_table(USERS, ITEMS, **columns)


def read_split(files, split, **sections):
    """Reads a log whose section [split] is exactly the given one."""
    return read_event_log(_spec(files, split, **sections))


def split_refusal(files, split):
    with pytest.raises(InputError) as caught:
        read_split(files, split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _spec(files, split, **log):
    named = {"files": [str(file) for file in files], "user": "user", "item": "item", "timestamp": "time"}
    sections = {"log": named | log, "tasks": {"click": "click"}, "split": split}
    return EventLogSpec.from_dict(sections, files[0].parent, "my.toml")


@pytest.mark.parametrize("name", ["log.csv", "log.parquet"])
def test_a_split_column_decides_the_period_of_each_event(tmp_path, name):
    path = write(table(set=SETS), tmp_path / name)
    by_column = read_split([path], {"by": "column", "column": "set"})
    assert by_column.period.tolist() == PERIODS
    assert "not before the first event of test" not in " ".join(by_column.notes)
    assert EventLogSpec.from_dict(by_column.spec.to_dict(), tmp_path, "again") == by_column.spec


def test_a_split_column_of_folds_is_read_by_the_names_given(tmp_path):
    path = write(table(fold=[0, 2, 1, 3]), tmp_path / "log.csv")
    split = {"by": "column", "column": "fold", "train": [0, 1], "validation": [2], "test": [3]}
    log = read_split([path], split)
    assert log.period.tolist() == [0, 1, 0, 2] * 5
    assert "80.0% of the training events are not before the first event of test" in " ".join(log.notes)


@pytest.mark.parametrize("name", ["log.csv", "log.parquet"])
def test_dates_and_folds_with_gaps_name_periods(tmp_path, name):
    days = [20240501.0] * 11 + [20240502.0] * 4 + [20240503.0] * 5
    split = {"by": "column", "column": "day", "train": [20240501], "validation": [20240502], "test": [20240503]}
    assert read_split([write(table(day=days), tmp_path / name)], split).period.tolist() == PERIODS


def test_presplit_files_are_periods_and_equal_their_split_column(tmp_path):
    parts = {
        name: write(table()[slice(*of)], tmp_path / f"{name}.csv")
        for name, of in (("train", (0, 11)), ("valid", (11, 15)), ("test", (15, 20)))
    }
    by_file = read_split(list(parts.values()), {"by": "file", "validation": ["valid.csv"], "test": ["te*.csv"]})
    by_column = read_split([write(table(set=SETS), tmp_path / "log.csv")], {"by": "column", "column": "set"})
    for name in ("time_ms", "user", "item", "labels", "period", "row"):
        np.testing.assert_array_equal(getattr(by_file, name), getattr(by_column, name))
    # A description that was read is stored with absolute paths, and means the same from anywhere.
    up = {"by": "file", "validation": [f"../{tmp_path.name}/valid.csv"], "test": ["test.csv"]}
    np.testing.assert_array_equal(read_split(list(parts.values()), up).period, by_file.period)
    again = EventLogSpec.from_dict(by_file.spec.to_dict(), tmp_path / "elsewhere", "again")
    np.testing.assert_array_equal(read_event_log(again).period, by_file.period)


def test_without_a_validation_set_the_last_of_training_is_validation(tmp_path):
    train, test = write(table()[:15], tmp_path / "train.csv"), write(table()[15:], tmp_path / "test.csv")
    log = read_split([train, test], {"by": "file", "test": ["test.csv"], "validation_from": 0.8})
    assert log.period.tolist() == [0] * 12 + [1] * 3 + [2] * 5
    column = table(set=["train"] * 15 + ["test"] * 5)
    path = write(column, tmp_path / "log.csv")
    log = read_split([path], {"by": "column", "column": "set", "validation_from": "2022-04-15T17:20:00"})
    assert log.period.tolist() == [0] * 12 + [1] * 3 + [2] * 5


def test_an_event_of_two_periods_counts_for_the_later_and_is_said(tmp_path):
    both = pl.concat([table()[:15], table()[3:5]]).with_columns(click=pl.Series([*table()["click"][:15], 1, 0]))
    train, test = write(both, tmp_path / "train.csv"), write(table()[3:6], tmp_path / "test.csv")
    log = read_split([train, test], {"by": "file", "test": ["test.csv"], "validation_from": 0.7})
    assert "count there: 5" in next(note for note in log.notes if "a later period of the split" in note)
    assert (log.period == 2).sum() == 3
    assert set(log.time_ms[log.period == 2]) == {(START + 3600 * i) * 1000 for i in (3, 4, 5)}


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=40, unique=True), st.randoms())
def test_leave_last_out_leaves_the_last_second_of_each_user_whatever_the_order_of_rows(
    tmp_path_factory, events, random
):
    sure = [(user, second) for user in (7, 8) for second in (1, 4, 6)]
    random.shuffle(events := events + sure)
    rows = [(user, second, item) for user, second in events for item in range(1 + second % 2)]  # some are ties
    # The time within a second must not matter.
    log_rows = pl.DataFrame(
        {
            "user": [f"u{user}" for user, _, _ in rows],
            "item": [f"i{item}" for _, _, item in rows],
            "time": [(START + second) * 1000 + 400 * item for _, second, item in rows],
            "click": [(second // 4 + item) % 2 for _, second, item in rows],
        }
    )
    path = write(log_rows, tmp_path_factory.mktemp("log") / "log.parquet")
    log = read_split([path], {"by": "last"}, timestamp_unit="ms")
    for index, period in enumerate(log.period):
        own = log.user == log.user[index]
        seconds = sorted(set(log.time_ms[own] // 1000))
        place = len(seconds) - 1 - seconds.index(log.time_ms[index] // 1000)
        assert period == ({0: 2, 1: 1}.get(place, 0) if len(seconds) >= 3 else 0)


def test_leave_last_out_says_what_it_trains_on_and_leaves_new_events_out(tmp_path):
    path = write(table(), tmp_path / "log.csv")
    new = write(table()[:2].with_columns(time=pl.lit(START + 10**6)), tmp_path / "new.csv")
    log = read_event_log(_spec([path], {"by": "last"}), new_events=new)
    assert (log.period == NEW).sum() == 2
    assert (log.period[:20] == [0] * 14 + [1] * 3 + [2] * 3).all()
    assert "not before the first event of test" not in " ".join(log.notes)
    events = table().with_columns(time=pl.when(pl.col("user") == "eve").then(pl.col("time") - 10**6).otherwise("time"))
    log = read_split([write(events, tmp_path / "log.csv")], {"by": "last"})
    assert f"{10 / 14:.1%} of the training events are not before" in " ".join(log.notes)


def test_a_split_by_user_says_how_much_it_trains_on_what_came_later(tmp_path):
    events = event_table([f"u{number}" for number in range(20)], ["x", "y"])
    log = read_split([write(events, tmp_path / "log.csv")], {"by": "user", "validation_from": 0.4, "test_from": 0.7})
    of_training, first_test = log.time_ms[log.period == 0], log.time_ms[log.period == 2].min()
    said = f"{(of_training >= first_test).mean():.1%} of the training events are not before the first event of test"
    assert said in " ".join(log.notes)


def test_an_event_that_moves_to_another_period_is_another_log(tmp_path):
    split = {"by": "column", "column": "set"}
    before = read_split([write(table(set=SETS), tmp_path / "log.csv")], split)
    after = read_split([write(table(set=["test", *SETS[1:-1], "train"]), tmp_path / "log.csv")], split)
    assert fingerprint(before) != fingerprint(after)
    assert fingerprint(before) == fingerprint(read_split([write(table(set=SETS), tmp_path / "log.csv")], split))


def test_new_events_need_no_split_column(tmp_path):
    path = write(table(set=SETS), tmp_path / "log.csv")
    new = write(table()[:2].with_columns(time=pl.lit(START + 10**6)), tmp_path / "new.csv")
    log = read_event_log(_spec([path], {"by": "column", "column": "set"}), new_events=new)
    assert log.period.tolist() == [*PERIODS, 3, 3]


def test_a_cell_that_names_no_period_is_refused_with_its_line(tmp_path):
    path = write(table(set=[*SETS[:-1], "holdout"]), tmp_path / "log.csv")
    said = split_refusal([path], {"by": "column", "column": "set"})
    assert f'{path}: line 21, column "set": expected one of "train", "training", "validation"' in said
    assert "found 'holdout'; [split] train, validation and test say which cells mean which" in said
    path = write(table(set=[*SETS[:-1], None]), tmp_path / "log.csv")
    assert "found an empty cell" in split_refusal([path], {"by": "column", "column": "set"})
    assert 'the column "sets" ([split] column) is not in this file (did you mean "set"?)' in split_refusal(
        [path], {"by": "column", "column": "sets"}
    )


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ({"by": "columns"}, "expected 'time' or 'user' or 'column' or 'file' or 'last', found 'columns'"),
        ({"by": "column"}, "column: this key is missing"),
        ({"by": "last", "test_from": 0.8}, '[split] by "last" has no key "test_from"'),
        ({"by": "file", "test": ["a.csv"]}, "validation: this key is missing, expected a list of files, or valid"),
        ({"by": "file", "validation": ["a.csv"]}, "test: this key is missing, expected a list of files"),
        ({"by": "file", "validation": ["a.csv"], "test": ["a.csv"]}, "expected each name once, found"),
        ({"by": "file", "validation": ["a.csv"], "test": ["log.csv"]}, "a.csv must be one of the files of the log"),
        ({"by": "column", "column": "set", "validation": ["v"], "validation_from": 0.5}, "found both"),
        ({"by": "column", "column": "set", "test": ["no"]}, 'expected one of "train", "training"'),
        ({"by": "column", "column": "set", "train": ["train", "test"]}, 'expected each name once, found "test" twice'),
        ({"by": "column", "column": "set", "test": 3}, "expected a list of texts in quotes or of finite"),
        ({"by": "column", "column": "set", "validation": ["valid", "test"], "test": ["t"]}, "no events for test"),
    ],
)  # fmt: skip
def test_a_split_that_cannot_be_is_refused_in_one_sentence(tmp_path, split, said):
    path = write(table(set=SETS), tmp_path / "log.csv")
    write(table(), tmp_path / "a.csv")
    assert said in split_refusal([path], split)


def test_the_column_of_the_split_is_no_feature(tmp_path):
    path = write(table(set=SETS), tmp_path / "log.csv")
    sections = {
        "log": {"files": [str(path)], "user": "user", "item": "item", "timestamp": "time"},
        "tasks": {"click": "click"},
        "features": {"categorical": ["set"]},
        "split": {"by": "column", "column": "set"},
    }
    with pytest.raises(InputError, match=r'categorical: "set" is the column of the split'):
        EventLogSpec.from_dict(sections, tmp_path, "my.toml")
