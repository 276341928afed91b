import gzip
import re
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siren_rope_jax.data.event_log import EventLog, read_event_log
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.data.stable_hash import stable_hash
from siren_rope_jax.errors import InputError

START = 1_650_000_000  # 2022-04-15 05:20:00 UTC
SLICE = Path(__file__).parents[1] / ".." / "shared" / "data" / "kuairand_pure_slice" / "data"
HEADER = "user,item,time,click,tab,length"


def rows(count: int = 20) -> list[str]:
    """An orderly log: two users, hourly events, clicks on and off."""
    return [f"u{i % 2},i{i % 3},{START + 3600 * i},{i // 2 % 2},{i % 4},{i * 10}" for i in range(count)]


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")
    return path


def sections(**changes: object) -> dict:
    result = {
        "log": {"files": ["log.csv"], "user": "user", "item": "item", "timestamp": "time"},
        "tasks": {"click": "click"},
        "features": {"categorical": ["tab"], "dense": ["length"]},
        "split": {"validation_from": 0.5, "test_from": 0.75},
    }
    for key, value in changes.items():
        result[key] = result.get(key, {}) | value if isinstance(value, dict) and key == "log" else value
    return result


def read(folder: Path, new_events: Path | None = None, **changes: object) -> EventLog:
    spec = EventLogSpec.from_dict(sections(**changes), folder, "my.toml")
    return read_event_log(spec, new_events=new_events)


def refusal(folder: Path, new_events: Path | None = None, **changes: object) -> str:
    with pytest.raises(InputError) as caught:
        read(folder, new_events, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def signal_log(folder: Path, columns: dict[str, list], **changes: object) -> EventLog:
    """Reads a log of two users in which every period repeats the given rows, so that each is in training."""
    count = len(next(iter(columns.values())))
    repeated = {name: values * 4 for name, values in columns.items()}
    base = {
        "user": [f"u{i % 2}" for i in range(4 * count)],
        "item": [f"i{i}" for i in range(4 * count)],
        "time": [START + i for i in range(4 * count)],
    }
    pl.DataFrame(base | repeated, strict=False).write_parquet(folder / "log.parquet")
    return read(folder, log={"files": ["log.parquet"]}, features={}, **changes)


def contents(log: EventLog) -> list[list]:
    """Everything that was read, in plain values."""
    fields = (
        log.time_ms,
        log.day,
        log.second,
        log.labels,
        log.action_known,
        log.categorical,
        log.dense,
        log.period,
    )
    users, items = log.user_ids.gather(log.user).to_list(), log.item_ids.gather(log.item).to_list()
    return [users, items, *(field.tolist() for field in fields)]


# What is read


def test_a_log_is_read_column_by_column(tmp_path):
    write(tmp_path / "log.csv", rows(8))
    log = read(tmp_path)
    assert log.time_ms.tolist() == [1000 * (START + 3600 * i) for i in range(8)]
    assert log.user_ids.to_list() == ["u0", "u1"]
    assert log.user.tolist() == [0, 1] * 4
    assert log.item_ids.gather(log.item).to_list() == ["i0", "i1", "i2", "i0", "i1", "i2", "i0", "i1"]
    assert log.labels[:, 0].tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    assert log.dense[:, 0].tolist() == [10 * i for i in range(8)]
    assert log.categorical[:, 0].tolist() == stable_hash(pl.Series(list("01230123")), "tab").tolist()
    assert log.period.tolist() == [0, 0, 0, 0, 1, 1, 2, 2]
    assert (log.task_names, log.action_names) == (("click",), ("click",))
    assert (log.categorical_names, log.dense_names) == (("tab",), ("length",))
    assert log.row.tolist() == list(range(8))
    assert not log.new.any()
    assert {log.time_ms.dtype, log.action_known.dtype} == {np.dtype(np.int64)}
    assert {log.day.dtype, log.second.dtype, log.user.dtype, log.item.dtype} == {np.dtype(np.int32)}
    assert {log.labels.dtype, log.actions.dtype, log.dense.dtype} == {np.dtype(np.float32)}
    assert log.categorical.dtype == np.uint64


@pytest.mark.parametrize(
    "name",
    [
        "log.tsv",
        "log.parquet",
        "log.csv.gz",
        "log.csv.zip",
        "log.zip",
        "log.parquet.gz",
        "log.CSV",
    ],
)
def test_every_format_gives_the_same_log(tmp_path, name):
    path = write(tmp_path / "log.csv", rows())
    expected = contents(read(tmp_path))
    table = pl.read_csv(path)
    plain = "log.csv" if name == "log.zip" else name.removesuffix(".gz").removesuffix(".zip")
    if "parquet" in plain:
        table.write_parquet(tmp_path / plain)
    else:
        table.write_csv(tmp_path / plain, separator="\t" if "tsv" in plain else ",")
    if name.endswith(".gz"):
        (tmp_path / name).write_bytes(gzip.compress((tmp_path / plain).read_bytes(), mtime=0))
    if name.endswith(".zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.write(tmp_path / plain, plain)
            archive.writestr("__MACOSX/._log.csv", "not a table")
            archive.writestr("README.txt", "not a table")
    if plain != name:
        (tmp_path / plain).unlink()
    assert contents(read(tmp_path, log={"files": [name]})) == expected


def test_a_file_is_found_compressed_where_it_was_named_plain_and_the_reverse(tmp_path):
    plain = write(tmp_path / "log.csv", rows())
    expected = contents(read(tmp_path, log={"files": ["log.csv.gz"]}))
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
    plain.unlink()
    assert contents(read(tmp_path)) == expected


def test_windows_line_ends_a_byte_order_mark_and_blank_lines_do_not_matter(tmp_path):
    lines = rows()
    write(tmp_path / "log.csv", lines)
    expected = contents(read(tmp_path))
    text = "\r\n".join([HEADER, *lines[:5], "", *lines[5:], "", "", ""])
    (tmp_path / "log.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    log = read(tmp_path)
    assert contents(log) == expected
    assert log.row.tolist() == list(range(20))


@pytest.mark.slow
@settings(max_examples=20)
@given(order=st.permutations(range(12)), cut=st.integers(1, 11))
def test_rows_in_any_order_and_in_several_files_are_sorted_by_time(tmp_path_factory, order, cut):
    folder = tmp_path_factory.mktemp("log")
    lines = rows(12)
    shuffled = [lines[i] for i in order]
    write(folder / "log.csv", lines)
    write(folder / "a.csv", shuffled[:cut])
    write(folder / "b.csv", shuffled[cut:])
    log = read(folder, log={"files": ["a.csv", "b.csv"]})
    assert contents(log) == contents(read(folder))
    assert [order[row] for row in log.row] == list(range(12))


def test_events_at_the_same_time_keep_the_order_of_the_input_and_one_period(tmp_path):
    times = [0, 5, 5, 5, 5, 5, 7, 8, 9, 9]
    lines = [f"u{i % 2},i{i},{START + t},{i % 2},0,0" for i, t in enumerate(times)]
    write(tmp_path / "log.csv", [*lines[5:], *lines[:5]])
    log = read(tmp_path, split={"validation_from": 0.6, "test_from": 0.7})
    assert log.row.tolist() == [5, 0, 6, 7, 8, 9, 1, 2, 3, 4]
    assert log.period.tolist() == [0, 0, 0, 0, 0, 0, 1, 2, 2, 2]
    with pytest.raises(InputError, match="training"):
        read(tmp_path, split={"validation_from": 0.05, "test_from": 0.6})


@pytest.mark.slow
@settings(max_examples=25)
@given(copies=st.lists(st.integers(0, 9), max_size=12))
def test_exact_duplicates_are_dropped_counted_and_only_those(tmp_path_factory, copies):
    folder = tmp_path_factory.mktemp("log")
    lines = rows(10)
    write(folder / "log.csv", lines)
    expected = contents(read(folder))
    write(folder / "log.csv", lines + [lines[i] for i in copies])
    log = read(folder)
    assert contents(log) == expected
    assert log.duplicates == len(copies)
    assert log.row.tolist() == list(range(10))


def test_millisecond_and_fractional_times_are_exact(tmp_path):
    times = range(1000 * START, 1000 * START + 10_000, 371)
    lines = [f"u{i % 2},i,{time},{i % 2},0,0" for i, time in enumerate(times)]
    write(tmp_path / "log.csv", lines)
    milliseconds = read(tmp_path, log={"timestamp_unit": "ms"})
    assert milliseconds.time_ms.tolist() == list(times)
    write(tmp_path / "log.csv", [re.sub(r"(\d{10})(\d{3}),", r"\1.\2,", line) for line in lines])
    assert read(tmp_path).time_ms.tolist() == milliseconds.time_ms.tolist()


@pytest.mark.parametrize(
    ("local_time", "hour", "minute"),
    [
        ({}, 5, 20),
        ({"time_zone": "UTC"}, 5, 20),
        ({"utc_offset_hours": 8}, 13, 20),
        ({"utc_offset_hours": -3.5}, 1, 50),
        ({"time_zone": "Europe/Paris"}, 7, 20),  # summer time
        ({"utc_offset_column": "length"}, 5 - 3, 20),
    ],
)
def test_day_and_second_are_local(tmp_path, local_time, hour, minute):
    lines = [f"u{i % 2},i,{START + 86400 * i},{i // 2 % 2},0,{-3}" for i in range(8)]
    write(tmp_path / "log.csv", lines)
    log = read(tmp_path, log=local_time)
    assert log.second.tolist() == [hour * 3600 + minute * 60] * 8
    assert log.day.tolist() == [19097 + i for i in range(8)]


def test_a_split_by_date_is_local_and_a_split_by_user_keeps_users_apart(tmp_path):
    lines = [f"u{i % 50},i,{START + 3600 * (i // 50)},{i % 3 % 2},0,0" for i in range(600)]
    write(tmp_path / "log.csv", lines)
    dates = {"validation_from": "2022-04-15T16:20:00", "test_from": "2022-04-15T18:20:00"}
    by_date = read(tmp_path, log={"utc_offset_hours": 8}, split=dates)
    assert by_date.period.tolist() == [0] * 150 + [1] * 100 + [2] * 350
    by_user = read(tmp_path, split={"by": "user", "validation_from": 0.5, "test_from": 0.75})
    periods = pl.DataFrame({"user": by_user.user, "period": by_user.period}).group_by("user").n_unique()
    assert periods["period"].to_list() == [1] * 50
    # Users keep their period when the log grows.
    write(tmp_path / "more.csv", [line.replace("u", "v", 1) for line in lines])
    grown = read(
        tmp_path,
        log={"files": ["log.csv", "more.csv"]},
        split={"by": "user", "validation_from": 0.5, "test_from": 0.75},
    )
    known = grown.user_ids.gather(grown.user).str.starts_with("u").to_numpy()
    assert grown.period[known].tolist() == by_user.period.tolist()


# Tasks and actions


def test_labels_may_be_numbers_or_words_and_an_empty_one_is_unobserved(tmp_path):
    values = ["1", "0", "", "1.0", " 0 ", "True", "false", "TRUE"]
    lines = [f"u{i % 2},i,{START + i},{value},0,0" for i, value in enumerate(values * 4)]
    write(tmp_path / "log.csv", lines)
    expected = np.array([1, 0, np.nan, 1, 0, 1, 0, 1] * 4, np.float32)
    np.testing.assert_array_equal(read(tmp_path).labels[:, 0], expected)


def test_parquet_flags_may_be_booleans_integers_or_floats(tmp_path):
    columns = {"a": [True, False, None], "b": [1, 0, None], "c": [1.0, 0.0, float("nan")]}
    log = signal_log(tmp_path, columns, tasks={"a": "a", "b": "b", "c": "c"})
    np.testing.assert_array_equal(log.labels[:3], np.array([[1] * 3, [0] * 3, [np.nan] * 3], np.float32))


def test_any_of_is_one_where_any_is_one_and_unobserved_where_that_is_open(tmp_path):
    columns = {"a": [1, 0, 0, None, None, 1], "b": [0, 0, 1, 1, 0, None]}
    log = signal_log(tmp_path, columns, tasks={"any": {"any_of": ["a", "b"]}})
    np.testing.assert_array_equal(log.labels[:6, 0], np.array([1, 0, 1, 1, np.nan, 1], np.float32))


def test_at_least_includes_the_threshold_and_an_empty_value_is_unobserved(tmp_path):
    columns = {"rating": [7.9, 8.0, 10.0, None]}
    log = signal_log(tmp_path, columns, tasks={"like": {"column": "rating", "at_least": 8}})
    np.testing.assert_array_equal(log.labels[:4, 0], np.array([0, 1, 1, np.nan], np.float32))


def test_outcomes_that_were_not_observed_are_never_negatives(tmp_path):
    columns = {"dwell": [0, 1, 0, 1, 1, 0], "seen": [1, 1, 0, 0, None, 1]}
    log = signal_log(tmp_path, columns, tasks={"dwell": {"column": "dwell", "observed": "seen"}})
    np.testing.assert_array_equal(log.labels[:6, 0], np.array([0, 1, np.nan, np.nan, np.nan, 0], np.float32))
    np.testing.assert_array_equal(log.actions, log.labels)


def test_a_number_stands_in_the_log_as_it_is_and_is_unobserved_where_nobody_saw_it(tmp_path):
    columns = {"dwell": [0.0, 2.5, None, float("nan"), 7.0, 1e6], "seen": [1, 1, 1, 1, 0, 1]}
    dwell = {"column": "dwell", "kind": "continuous", "transform": "log1p", "observed": "seen", "known_at": "time"}
    log = signal_log(tmp_path, columns, tasks={"dwell": dwell})
    expected = np.array([0, 2.5, np.nan, np.nan, np.nan, 1e6], np.float32)
    np.testing.assert_array_equal(log.labels[:6, 0], expected)
    np.testing.assert_array_equal(log.actions, log.labels)
    assert np.isnan(log.action_pending).tolist() == [True]


def test_an_outcome_known_later_is_unobserved_until_then(tmp_path):
    columns = {"dwell": [1, 0, 1, 0], "at": [START + 100, START + 100, None, START - 100]}
    log = signal_log(tmp_path, columns, tasks={"dwell": {"column": "dwell", "known_at": "at"}})
    seconds = [START + 100, START + 100, START + 2, START + 3]
    assert log.action_known[:4, 0].tolist() == [1000 * second for second in seconds]
    assert np.isnan(log.action_pending).tolist() == [True]


def test_a_positive_made_later_is_seen_as_none_yet_until_then(tmp_path):
    columns = {"like": [1, 0, 1, 1], "at": [START + 100, START + 100, None, START - 100]}
    log = signal_log(tmp_path, columns, tasks={"like": {"column": "like", "happened_at": "at"}})
    seconds = [START + 100, START + 1, START + 2, START + 3]
    assert log.action_known[:4, 0].tolist() == [1000 * second for second in seconds]
    assert log.action_pending.tolist() == [0.0]


def test_actions_may_differ_from_tasks(tmp_path):
    columns = {"like": [1, 1, 0], "early": [0, 1, 0]}
    log = signal_log(tmp_path, columns, tasks={"like": "like"}, actions={"early": "early"})
    assert (log.task_names, log.action_names) == (("like",), ("early",))
    assert log.labels[:3, 0].tolist() == [1, 1, 0]
    assert log.actions[:3, 0].tolist() == [0, 1, 0]
    np.testing.assert_array_equal(log.action_known[:, 0], log.time_ms)


# Features


def test_missing_features_are_told_from_every_value(tmp_path):
    lines = [f"u{i % 2},i,{START + i},{i % 2},{tab},{length}" for i, (tab, length) in enumerate(
        [("", ""), ("a", "nan"), ("b", "1.5"), ("", "-2e3"), ("other", " 7 ")] * 4)]  # fmt: skip
    write(tmp_path / "log.csv", lines)
    log = read(tmp_path)
    np.testing.assert_array_equal(log.dense[:5, 0], np.array([np.nan, np.nan, 1.5, -2000, 7], np.float32))
    empty, a, b, again, other = log.categorical[:5, 0]
    assert empty == again
    assert len({empty, a, b, other}) == 4


def test_hashes_stay_the_same_forever_because_trained_embeddings_depend_on_them():
    hashes = stable_hash(pl.Series(["a", "b", None, "a", "", "ü"]), "tab")
    assert hashes.dtype == np.uint64
    assert hashes.tolist() == [
        8186218410207280804,
        18254063927300922579,
        4698534077900988637,
        8186218410207280804,
        8363145077350632036,
        1273749170862522166,
    ]
    assert not set(hashes.tolist()) & set(stable_hash(pl.Series(["a", "b", None]), "other").tolist())


def side_table(folder: Path, lines: list[str], header: str = "id,kind,length", name: str = "items.csv") -> None:
    (folder / name).write_text("\n".join([header, *lines]))


ITEMS = {"file": "items.csv", "join": "item", "key": "id", "categorical": ["kind"], "dense": ["length"]}


def test_side_tables_add_features_of_items_and_users_and_count_what_they_lack(tmp_path):
    write(tmp_path / "log.csv", rows())
    side_table(tmp_path, ["i1,film,7", "i0,,3", "i9,book,1"])
    side_table(tmp_path, ["u0,1", "u1,"], "id,age", "users.csv")
    users = {"file": "users.csv", "join": "user", "key": "id", "dense": ["age"]}
    log = read(tmp_path, side_table=[ITEMS, users])
    assert log.categorical_names == ("tab", "kind")
    assert log.dense_names == ("length", "items.length", "age")
    item = np.arange(20) % 3
    expected = stable_hash(pl.Series([None, "film", None]), "kind")[item]
    assert log.categorical[:, 1].tolist() == expected.tolist()
    np.testing.assert_array_equal(log.dense[:, 1], np.array([3, 7, np.nan], np.float32)[item])
    np.testing.assert_array_equal(log.dense[:, 2], np.array([1, np.nan] * 10, np.float32))
    assert log.unmatched == (6, 0)


# New events


def test_new_events_are_added_after_the_history_and_recognisable(tmp_path):
    write(tmp_path / "log.csv", [*rows(), rows()[0]])
    history = read(tmp_path)
    new = tmp_path / "new.csv"
    later = START + 3600 * 19
    lines = [f"u0,i1,{later + 60},3,1", f"u0,i1,{later},3,1", f"stranger,unseen,{later + 60},4,2",
             f"u0,i1,{later + 60},3,1"]  # fmt: skip
    new.write_text("\n".join(["user,item,time,tab,length", *lines]))
    log = read(tmp_path, new)
    assert log.new.tolist() == [False] * 20 + [True] * 4
    assert log.period.tolist() == [*history.period, 3, 3, 3, 3]
    assert log.row[log.new].tolist() == [1, 0, 2, 3]
    assert np.isnan(log.labels[log.new]).all()
    assert np.isnan(log.actions[log.new]).all()
    np.testing.assert_array_equal(log.action_known[log.new, 0], log.time_ms[log.new])
    assert log.user_ids.gather(log.user[log.new]).to_list() == ["u0", "u0", "stranger", "u0"]
    np.testing.assert_array_equal(log.labels[~log.new], history.labels)
    assert log.duplicates == history.duplicates == 1


def test_new_events_amid_the_history_do_not_move_the_split(tmp_path):
    write(tmp_path / "log.csv", rows())
    history = read(tmp_path)
    early = [line.replace(f"{START + 3600 * i}", f"{START + 1800 * i + 60}") for i, line in enumerate(rows())]
    log = read(tmp_path, write(tmp_path / "new.csv", early))
    assert log.period[~log.new].tolist() == history.period.tolist()
    assert np.all(np.diff(log.time_ms) >= 0)
    assert log.labels[log.new, 0].tolist() == history.labels[:, 0].tolist()


def test_new_events_still_need_their_features(tmp_path):
    write(tmp_path / "log.csv", rows())
    (tmp_path / "new.csv").write_text(f"user,item,time,lenght\nu0,i1,{START},3\n")
    message = refusal(tmp_path, tmp_path / "new.csv", features={"dense": ["length"]})
    assert "new.csv" in message
    assert 'did you mean "lenght"' in message


# What is refused


def with_cell(column: str, cell: str, row: int = 6) -> list[str]:
    lines = rows()
    cells = lines[row].split(",")
    cells[HEADER.split(",").index(column)] = cell
    return [*lines[:row], ",".join(cells), *lines[row + 1 :]]


@pytest.mark.parametrize(
    ("column", "cell", "said"),
    [
        ("user", "", "expected the id of the user, found an empty cell"),
        ("item", "", "expected the id of the item, found an empty cell"),
        ("time", "", "found an empty cell"),
        ("time", "nan", "found 'nan'"),
        ("time", "inf", "found 'inf'"),
        ("time", "-5", "found '-5'"),
        ("time", "2022-05-05", "expected a Unix time in seconds between the years 1980 and 2100"),
        ("time", "1e30", "found '1e30'"),
        ("time", f"{START}000", 'these look like milliseconds, set timestamp_unit = "ms"'),
        ("click", "2", "expected 0, 1 or an empty cell, found '2'"),
        ("click", "-1", "found '-1'"),
        ("click", "yes", "found 'yes'"),
        ("length", "12cm", "expected a finite number or an empty cell, found '12cm'"),
        ("length", "inf", "found 'inf'"),
    ],
)
def test_a_bad_cell_is_refused_with_file_line_column_and_what_was_found(tmp_path, column, cell, said):
    write(tmp_path / "log.csv", with_cell(column, cell))
    message = refusal(tmp_path)
    assert f'log.csv: line 8, column "{column}": ' in message
    assert said in message


@pytest.mark.parametrize(
    ("cell", "transform", "said"),
    [
        ("-0.5", "log1p", "expected a finite number of at least 0, as its transform is log1p, or an empty cell, found"),
        ("inf", "log1p", "found 'inf'"),
        ("long", "none", "expected a finite number or an empty cell, found 'long'"),
        ("1e39", "none", "found '1e39'"),
    ],
)
def test_a_cell_that_is_no_number_of_its_task_is_refused_with_its_line(tmp_path, cell, transform, said):
    tasks = {"dwell": {"column": "length", "kind": "continuous", "transform": transform}}
    write(tmp_path / "log.csv", with_cell("length", cell))
    message = refusal(tmp_path, tasks=tasks, features={})
    assert 'log.csv: line 8, column "length": ' in message
    assert said in message
    write(tmp_path / "log.csv", with_cell("length", "-0.5"))
    assert read(tmp_path, tasks={"dwell": tasks["dwell"] | {"transform": "none"}}, features={}).labels[6, 0] == -0.5


@pytest.mark.parametrize(("value", "said"), [("3", "no value but 3 among"), ("", "no observed labels among")])
def test_a_number_that_never_differs_in_training_is_refused(tmp_path, value, said):
    write(tmp_path / "log.csv", [",".join([*line.split(",")[:5], value]) for line in rows()])
    message = refusal(tmp_path, tasks={"dwell": {"column": "length", "kind": "continuous"}}, features={})
    assert f"the task dwell (length) has {said} the 10 training events, expected different numbers" in message


@pytest.mark.parametrize(("step", "kept"), [(40, False), (10_000, True)])
def test_numbers_that_float32_cannot_tell_apart_are_refused(tmp_path, step, kept):
    path = write(tmp_path / "log.csv", rows())
    pl.read_csv(path).with_columns(length=1_650_000_000 + step * pl.int_range(pl.len())).write_csv(path)
    task = {"tasks": {"dwell": {"column": "length", "kind": "continuous"}}, "features": {}}
    if kept:
        assert len(np.unique(read(tmp_path, **task).labels)) == 20
    else:
        message = refusal(tmp_path, **task)
        assert "the task dwell (length) has numbers near 1650000" in message
        assert "float32 holds only multiples of 128" in message


@pytest.mark.parametrize(
    ("cell", "transform", "is_said"), [("1e30", "none", True), ("1e30", "log1p", False), ("95", "none", False)]
)
def test_a_number_far_beyond_all_others_is_said_unless_its_logarithm_is_learned(tmp_path, cell, transform, is_said):
    write(tmp_path / "log.csv", with_cell("length", cell))
    task = {"column": "length", "kind": "continuous", "transform": transform}
    notes = read(tmp_path, tasks={"dwell": task}, features={}).notes
    said = "the task dwell has 1e+30 among its training labels, 99 % of which are at most 90 in size"
    assert any(note.startswith(said) for note in notes) == is_said


def test_seconds_declared_as_milliseconds_are_recognised(tmp_path):
    write(tmp_path / "log.csv", rows())
    assert 'these look like seconds, set timestamp_unit = "s"' in refusal(tmp_path, log={"timestamp_unit": "ms"})


def test_the_line_of_a_bad_cell_counts_blank_lines_and_line_breaks_inside_quotes(tmp_path):
    lines = with_cell("click", "7", row=3)
    quoted = ['"u0\nx",i0,' + lines[0].split(",", 2)[2], lines[1], "", lines[2], lines[3], *lines[4:]]
    write(tmp_path / "log.csv", quoted)
    # Header 1, the quoted record 2-3, then 4, a blank line 5, 6, and the bad record.
    assert "line 7, " in refusal(tmp_path)


def test_rows_of_parquet_are_counted_from_zero_and_the_error_says_so(tmp_path):
    table = pl.read_csv(write(tmp_path / "log.csv", with_cell("click", "3", row=4)))
    table.write_parquet(tmp_path / "log.parquet")
    message = refusal(tmp_path, log={"files": ["log.parquet"]})
    assert 'log.parquet: row 4 (counted from 0), column "click"' in message


def test_a_misspelt_column_is_refused_with_the_nearest_one(tmp_path):
    write(tmp_path / "log.csv", rows())
    message = refusal(tmp_path, log={"timestamp": "tiem"})
    assert "log.csv" in message
    assert '"tiem" ([log] timestamp)' in message
    assert 'did you mean "time"' in message
    assert "has user, item, time" in refusal(tmp_path, tasks={"like": "zzz"})


@pytest.mark.parametrize("offset", ["", "28800", "east"])
def test_a_bad_utc_offset_is_refused(tmp_path, offset):
    write(tmp_path / "log.csv", with_cell("length", offset))
    message = refusal(tmp_path, log={"utc_offset_column": "length"}, features={})
    assert "expected a UTC offset in hours from -12 to 14" in message


def test_parquet_columns_of_an_unusable_type_are_refused(tmp_path):
    table = pl.read_csv(write(tmp_path / "log.csv", rows()))
    for column, change in {
        "time": pl.duration(seconds="time").alias("time"),
        "user": pl.lit(1.5).alias("user"),
        "tab": pl.concat_list("tab", "length").alias("tab"),
    }.items():
        table.with_columns(change).write_parquet(tmp_path / "log.parquet")
        message = refusal(tmp_path, log={"files": ["log.parquet"]})
        assert f'"{column}"' in message
        assert "expected" in message


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("log.csv", b"", "empty"),
        ("log.csv", b"\n\n", "empty"),
        ("log.csv", HEADER.encode(), "no rows"),
        ("log.csv", f"{HEADER}\n\n\n".encode(), "no rows"),
        ("log.csv", f"{HEADER}\nu,i,{START},0,é,1\n".encode("latin-1"), "line 2: expected text in UTF-8"),
        ("log.csv", "user,item,time\nu,i,1\n".encode("utf-16"), "UTF-8"),
        ("log.csv", f"{HEADER}\nu,i,{START},0,1,1,7,8\n".encode(), "line 2 has 8 fields instead of 6"),
        ("log.parquet", b"this is not a Parquet file", "cannot be read as a table"),
        ("log.csv.gz", b"this is not gzip", "damaged"),
        ("log.csv.gz", gzip.compress(HEADER.encode() * 99, mtime=0)[:-9], "damaged"),
        ("log.csv.gz", gzip.compress(b"", mtime=0), "empty"),
        ("log.zip", b"this is not a zip", "damaged"),
        ("log.xlsx", b"PK", "expected a .csv, .tsv, .txt, .dat, .data,"),
        ("log.gz", gzip.compress(b"a", mtime=0), "expected a .csv, .tsv, .txt, .dat, .data,"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    message = refusal(tmp_path, log={"files": [name]})
    assert message.startswith(str(tmp_path / name))
    assert said in message


@pytest.mark.parametrize("names", [[], ["a.csv", "b.tsv"]])
def test_a_zip_must_hold_exactly_one_table(tmp_path, names):
    with zipfile.ZipFile(tmp_path / "log.zip", "w") as archive:
        for name in [*names, "README.md"]:
            archive.writestr(name, HEADER)
    message = refusal(tmp_path, log={"files": ["log.zip"]})
    assert "expected exactly one" in message
    assert (", ".join(names) or "none") in message


def test_a_missing_file_is_refused_with_the_nearest_one(tmp_path):
    write(tmp_path / "logs.csv", rows())
    assert 'did you mean "logs.csv"' in refusal(tmp_path)
    side = {"file": ".", "join": "item", "key": "item"}
    assert "this is a folder, expected a file" in refusal(tmp_path, log={"files": ["logs.csv"]}, side_table=[side])


def test_a_single_user_is_refused(tmp_path):
    write(tmp_path / "log.csv", [line.replace("u1", "u0") for line in rows()])
    assert '"u0"' in refusal(tmp_path)


@pytest.mark.parametrize(
    ("first", "second", "period"),
    [
        ("2021-01-01", "2022-04-15T12:00:00", "training"),
        ("2022-04-15T12:00:00", "2022-04-15T12:00:01", "validation"),
        ("2022-04-15T12:00:00", "2023-01-01", "test"),
    ],
)
def test_a_split_that_leaves_a_period_without_events_is_refused(tmp_path, first, second, period):
    write(tmp_path / "log.csv", rows())
    message = refusal(tmp_path, split={"validation_from": first, "test_from": second})
    assert f"no events for {period}" in message
    assert first in message


@pytest.mark.parametrize(("value", "lacking"), [("0", "positives"), ("1", "negatives"), ("", "observed labels")])
def test_a_task_that_cannot_be_learned_is_refused(tmp_path, value, lacking):
    lines = with_cell("click", value, row=0)
    for row in range(1, 10):
        lines[row] = with_cell("click", value, row)[row]
    write(tmp_path / "log.csv", lines)
    assert f"the task click (click) has no {lacking} among the 10 training events" in refusal(tmp_path)


def test_bad_side_tables_are_refused(tmp_path):
    write(tmp_path / "log.csv", rows())
    side_table(tmp_path, ["i1,film,7", "i0,film,3", "i1,book,1"])
    message = refusal(tmp_path, side_table=[ITEMS])
    assert 'items.csv: the key "i1" of column "id" has two rows, line 2 and line 4' in message
    side_table(tmp_path, ["i1,film,7", ",film,3"])
    assert 'line 3, column "id"' in refusal(tmp_path, side_table=[ITEMS])
    side_table(tmp_path, ["i1,film,long"])
    assert "found 'long'" in refusal(tmp_path, side_table=[ITEMS])
    assert 'did you mean "kind"' in refusal(tmp_path, side_table=[ITEMS | {"categorical": ["kindd"]}])


# A real log

ACTIVITY = "user_active_degree"


def kuairand(folder: Path) -> tuple[Path, int, int]:
    """Returns a folder with KuaiRand-Pure, how many rows it has, and how many of them are no event of their own."""
    if SLICE.is_dir():
        return SLICE, 228_329, 5_885
    header = (
        "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,"
        "long_view,play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab"
    )
    lines = [
        f"{i % 7},{i % 5},20220425,1800,{START * 1000 + 997 * i},{i % 2},{i // 3 % 2},0,{i % 3 % 2},0,0,"
        f"{i // 2 % 2},1033,{i},0,0,0,0,{i % 3}"
        for i in range(200)
    ]
    log = "\n".join([header, *lines, *lines[:9]])
    (folder / "log_standard_4_22_to_5_08_pure.csv.gz").write_bytes(gzip.compress(log.encode(), mtime=0))
    side_table(folder, [f"{i},{'' if i else 'full_active'}" for i in range(7)], "user_id,user_active_degree",
               "user_features_pure.csv")  # fmt: skip
    side_table(folder, [f"{i},{i}" for i in range(5)], "video_id,tag", "video_features_basic_pure.csv")
    return folder, 209, 9


@pytest.mark.slow
def test_kuairand_is_read_under_the_names_of_the_published_archive(tmp_path):
    folder, count, repeats = kuairand(tmp_path)
    log = read(
        folder,
        log={
            "files": ["log_standard_4_22_to_5_08_pure.csv"],
            "user": "user_id",
            "item": "video_id",
            "timestamp": "time_ms",
            "timestamp_unit": "ms",
            "utc_offset_hours": 8,
        },
        tasks={
            "click": "is_click",
            "long_view": "long_view",
            "like": "is_like",
            "contribution": {"any_of": ["is_comment", "is_follow", "is_forward"]},
        },
        features={"categorical": ["tab"], "dense": ["duration_ms"]},
        side_table=[
            {
                "file": "user_features_pure.csv",
                "join": "user",
                "key": "user_id",
                "categorical": ["user_active_degree"],
            },
            {
                "file": "video_features_basic_pure.csv",
                "join": "item",
                "key": "video_id",
                "categorical": ["tag"],
            },
        ],
        split={"validation_from": 0.7, "test_from": 0.8},
    )
    assert log.duplicates + log.contradictions == repeats
    assert log.contradictions <= 3
    assert len(log.time_ms) == count - repeats
    assert np.all(np.diff(log.time_ms) >= 0)
    assert log.unmatched == (0, 0)
    assert log.categorical_names == ("tab", ACTIVITY, "tag")
    assert np.isin(log.labels, [0, 1]).all(axis=1).sum() >= len(log.time_ms) - log.contradictions
    shares = np.bincount(log.period) / len(log.time_ms)
    np.testing.assert_allclose(shares, [0.7, 0.1, 0.2], atol=0.01)
