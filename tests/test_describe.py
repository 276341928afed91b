"""A first description of a log: its guesses, and that `train` can read what it writes."""

import datetime
import json
import tomllib

import numpy as np
import polars as pl
import pytest

from siren_rope_jax.cli import main
from siren_rope_jax.data.describe import describe
from siren_rope_jax.data.event_log import read_event_log
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.errors import InputError

START, ROWS = 1_650_000_000, 200


def table(**columns):
    random = np.random.default_rng(0)
    base = {
        "user_id": random.integers(1000, 1010, ROWS),
        "movie_id": random.integers(0, 30, ROWS),
        "timestamp": START + 3600 * np.arange(ROWS),
        "rating": random.integers(1, 6, ROWS),
    }
    return pl.DataFrame(base | columns)


def described(folder, frame, name="log.csv", **how):
    file = folder / name
    if file.suffix == ".parquet":
        frame.write_parquet(file)
    elif file.suffix == ".jsonl":
        frame.write_ndjson(file)
    else:
        frame.write_csv(file, **how)
    return describe([file])


def read_back(folder, description):
    (folder / "found.toml").write_text(description.to_toml(), encoding="utf-8")
    return read_event_log(EventLogSpec.from_toml(folder / "found.toml"))


def guesses(description):
    return {
        column.guess: column.name for column in description.columns if column.guess in ("user", "item", "timestamp")
    }


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("log.csv", {}),
        ("log.tsv", {"separator": "\t"}),
        ("log.csv", {"separator": ";"}),
        ("log.txt", {"separator": "|"}),
        ("log.parquet", {}),
        ("log.jsonl", {}),
        ("u.data", {"separator": "\t"}),
    ],
)
def test_what_is_guessed_of_a_plain_log_is_what_it_holds_and_can_be_read(name, how, tmp_path):
    description = described(tmp_path, table(), name, **how)
    assert guesses(description) == {"user": "user_id", "item": "movie_id", "timestamp": "timestamp"}
    assert [task.guess.partition("  #")[0] for task in description.tasks] == ['{ column = "rating", at_least = 3 }']
    assert description.lacking == []
    assert description.rows == ROWS
    log = read_back(tmp_path, description)
    assert len(log.time_ms) == ROWS
    np.testing.assert_array_equal(log.labels[:, 0], table()["rating"] >= 3)


def test_double_colons_without_a_header_are_found_and_can_be_read(tmp_path):
    file = tmp_path / "ratings.dat"
    file.write_text("".join("::".join(map(str, row)) + "\n" for row in table().iter_rows()))
    description = describe([file])
    assert description.form.separator == "::"
    assert description.form.columns == ("column_1", "column_2", "column_3", "column_4")
    assert guesses(description) == {"timestamp": "column_3"}
    assert description.lacking == ["user", "tasks"]
    text = (
        description.to_toml().replace('# user = "?"', 'user = "column_1"').replace('# item = "?"', 'item = "column_2"')
    )
    text = text.replace('# click = "is_click"', 'like = { column = "column_4", at_least = 4 }')
    (tmp_path / "mine.toml").write_text(text)
    assert len(read_event_log(EventLogSpec.from_toml(tmp_path / "mine.toml")).time_ms) == ROWS


UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


@pytest.mark.parametrize("unit", UNITS)
def test_the_unit_of_the_times_is_found(unit, tmp_path):
    frame = table().with_columns(pl.col("timestamp") * UNITS[unit])
    for name in ("log.csv", "log.parquet"):
        log = read_back(tmp_path, described(tmp_path, frame, name))
        assert log.spec.timestamp_unit == unit
        assert log.time_ms[0] == START * 1000


def test_times_as_text_or_datetimes_are_found(tmp_path):
    moments = [datetime.datetime.fromtimestamp(START + 3600 * i, datetime.UTC) for i in range(ROWS)]
    texts = table(timestamp=[moment.isoformat() for moment in moments])
    assert read_back(tmp_path, described(tmp_path, texts)).time_ms[0] == START * 1000
    assert read_back(tmp_path, described(tmp_path, table(timestamp=moments), "log.parquet")).time_ms[0] == START * 1000


def test_events_of_several_kinds_and_flags_are_tasks_and_other_flags_are_features(tmp_path):
    random = np.random.default_rng(1)
    frame = table(
        event=random.choice(["view", "cart", "buy"], ROWS, p=[0.7, 0.2, 0.1]),
        is_click=random.integers(0, 2, ROWS),
        premium=random.integers(0, 2, ROWS),
        price=random.random(ROWS),
        country=random.choice(["BR", "FR"], ROWS),
    ).drop("rating")
    description = described(tmp_path, frame)
    assert [task.name for task in description.tasks] == ["event", "is_click"]
    assert 'event = { column = "event", equals = "cart" }  # or view, buy' in description.to_toml()
    assert '# categorical = ["premium", "country"]' in description.to_toml()
    assert '# dense = ["price"]' in description.to_toml()


def test_ids_keep_their_zeros_and_their_digits(tmp_path):
    random = np.random.default_rng(2)
    users, items = random.choice(["007", "07", "7"], ROWS), random.choice([2**60 + 1, 2**60 + 2], ROWS)
    items[0] = 2**60 + 3
    found = {column.name: column for column in described(tmp_path, table(user_id=users, movie_id=items)).columns}
    assert (found["user_id"].distinct, found["user_id"].kind) == (3, "text")
    assert (found["movie_id"].distinct, found["movie_id"].kind) == (3, "text")


def test_missing_cells_ties_and_events_of_a_user_are_counted(tmp_path):
    frame = table(
        user_id=["a"] * 150 + ["b"] * 40 + ["c"] * 10,
        timestamp=START + 3600 * (np.arange(ROWS) // 2),
        tag=[None, "x", "NULL", "y"] * 50,
    )
    description = described(tmp_path, frame)
    assert {column.name: column.missing for column in description.columns}["tag"] == 0.5
    assert description.events_per_user == (40, 150)
    assert description.tied == 1.0


def test_bags_vectors_and_logs_of_positives_are_found(tmp_path):
    number = pl.int_range(60)
    frame = pl.DataFrame({"user_id": [f"u{i % 7}" for i in range(60)], "item_id": [f"i{i % 11}" for i in range(60)]})
    genres = ["a|b", "b|c", "c", "a|c", "a", "b", "a|b|c", "c|d", "d", "d|a"]
    frame = frame.with_columns(
        time=number * 1000 + 1_650_000_000,
        genres=pl.Series([genres[i % 10] for i in range(60)]),
        tags=pl.Series([["x", "y"][: i % 3] for i in range(60)]),
        embedding=pl.Series([[0.5 * i, 1.0] for i in range(60)]),
    )
    frame.write_parquet(tmp_path / "log.parquet")
    found = describe([tmp_path / "log.parquet"])
    toml = found.to_toml()
    assert found.lacking == ["tasks"]
    assert '# categorical = [{ column = "genres", split = "|" }, { column = "tags" }]' in toml
    assert '# dense = [{ column = "embedding" }]' in toml
    for line in ("categorical", "dense", "[negatives]", "per_positive"):
        toml = toml.replace(f"# {line}", line)
    (tmp_path / "log.toml").write_text(toml)
    log = read_event_log(tmp_path / "log.toml")
    assert (log.bag_names, log.dense_names) == (("genres", "tags"), ("embedding[0]", "embedding[1]"))
    assert log.task_names == ("positive",)


def test_columns_aligned_by_blanks_with_dates_of_eight_digits_are_found(tmp_path):
    # As the CDNOW purchases of 1997 and 1998 are published.
    rows = [f" {i % 5:05d} 1997{1 + i // 28:02d}{1 + i % 28:02d} {i % 3:2d} {5.5 * i:7.2f}" for i in range(60)]
    (tmp_path / "log.txt").write_text("\n".join([" customer_id  date  product  dollars", *rows]) + "\n")
    found = describe([tmp_path / "log.txt"])
    guesses = {column.name: column.guess for column in found.columns}
    assert (guesses["customer_id"], guesses["date"], found.guessed("timestamp").unit) == ("user", "timestamp", "iso")
    assert (found.form.separator, found.rows) == (" ", 60)


def test_names_that_are_alike_or_polars_own_are_described_and_can_be_read(tmp_path):
    frame = (
        table()
        .rename({"user_id": "count"})
        .with_columns(
            pl.lit(1).alias("is click"), pl.int_range(pl.len()) % 2, **{"is_click": 1 - pl.int_range(pl.len()) % 2}
        )
    )
    frame = frame.with_columns(
        **{name: pl.int_range(pl.len()) // 2 % 2 for name in ("is click", "\u70b9\u51fb click", "\u8d2d\u4e70 click")},
        nested=pl.Series([[["a"]]] * frame.height),
        event=pl.Series(["view", "b\x01uy", "\x7f"] * frame.height)[: frame.height],
    )
    frame.write_parquet(tmp_path / "log.parquet")
    toml = describe([tmp_path / "log.parquet"]).to_toml()
    tasks = tomllib.loads(toml)["tasks"]
    columns = [task if isinstance(task, str) else task["column"] for task in tasks.values()]
    assert {"is click", "is_click", "\u70b9\u51fb click", "\u8d2d\u4e70 click"} <= set(columns)


def test_hostile_names_and_values_are_written_as_toml(tmp_path):
    frame = table(**{'is "click"\\': [0, 1] * 100, "event\ntype": ["a\n[log]", 'b"', "c'"] * 66 + ["c'"] * 2}).drop(
        "rating"
    )
    log = read_back(tmp_path, described(tmp_path, frame, "log.parquet"))
    assert {column for task in log.spec.tasks for column in task.columns} == {'is "click"\\', "event\ntype"}


def test_files_of_one_log_must_have_the_same_columns_and_format(tmp_path):
    table().write_csv(tmp_path / "a.csv")
    table().write_csv(tmp_path / "e.csv")
    table().drop("rating").write_csv(tmp_path / "b.csv")
    table().write_csv(tmp_path / "c.csv", separator=";")
    both = describe([tmp_path / "a.csv", tmp_path / "e.csv"])
    assert both.rows == 2 * ROWS
    for other, said in (
        ("b.csv", "must have the columns of"),
        ("c.csv", "must be of the format of"),
        ("d.csv", "exist"),
    ):
        with pytest.raises(InputError, match=said):
            describe([tmp_path / "a.csv", tmp_path / other])


def test_a_file_of_blank_lines_is_refused(tmp_path):
    (tmp_path / "log.csv").write_text("\n\n \n")
    with pytest.raises(InputError, match="this file has no rows"):
        describe([tmp_path / "log.csv"])


def test_the_command_writes_a_new_file_alone_and_says_what_is_lacking(tmp_path, capsys):
    table().write_csv(tmp_path / "log.csv")
    out = tmp_path / "log.toml"
    main(["describe", str(tmp_path / "log.csv"), "--out", str(out)])
    said = capsys.readouterr().out
    assert "rating" in said
    assert EventLogSpec.from_toml(out).user == "user_id"
    before = out.read_bytes()
    with pytest.raises(SystemExit) as ended:
        main(["describe", str(tmp_path / "log.csv"), "--out", str(out)])
    assert ended.value.code == 2
    assert out.read_bytes() == before
    pl.DataFrame({"a": [1, 2], "b": [3, 4]}).write_csv(tmp_path / "other.csv")
    main(["describe", str(tmp_path / "other.csv"), "--out", str(tmp_path / "other.toml")])
    assert "no column could be guessed for user, timestamp, tasks" in " ".join(capsys.readouterr().out.split())


def test_a_description_may_be_named_after_its_table(tmp_path):
    description = described(tmp_path, table())
    for name in ("log.csv.toml", "u.data.toml"):
        (tmp_path / name).write_text(description.to_toml())
        assert EventLogSpec.from_toml(tmp_path / name).user == "user_id"


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz", "log.parquet", "log.jsonl"])
def test_a_table_in_place_of_a_description_is_answered_with_the_command_that_describes_it(name, tmp_path):
    (tmp_path / name).write_text(json.dumps({}))
    with pytest.raises(InputError, match="but is a table; describe it first: siren-rope describe"):
        EventLogSpec.from_toml(tmp_path / name)
