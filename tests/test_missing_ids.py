"""Words for "no value": missing, wherever they stand, and never one giant user."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from siren_rope_jax.data.event_log import EventLog, read_event_log
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.errors import InputError

START = 1_650_000_000
HEADER = "user,item,time,click,tab,length"
WORDS = ["", "  ", "NULL", "null", "nan", "NaN", "NA", "N/A", "None", r"\N", " NULL "]
ITEMS = {"file": "items.csv", "join": "item", "key": "id", "categorical": ["kind"], "dense": ["length"]}


def rows(count: int = 40) -> list[list[str]]:
    return [
        [f"u{i % 3}", f"i{i % 4}", f"{START + 3601 * i}", f"{i // 2 % 2}", f"{i % 2}", f"{i}"] for i in range(count)
    ]


def with_cells(column: str, cells: dict[int, str]) -> list[list[str]]:
    result = rows()
    for row, cell in cells.items():
        result[row][HEADER.split(",").index(column)] = cell
    return result


def write(path: Path, table: list[list[str]]) -> Path:
    path.write_text("\n".join([HEADER, *map(",".join, table)]) + "\n")
    return path


def read(
    folder: Path, table: list[list[str]], *, new: Path | None = None, side: dict | None = None, **log: object
) -> EventLog:
    write(folder / "log.csv", table)
    sections = {
        "log": {"files": ["log.csv"], "user": "user", "item": "item", "timestamp": "time"} | log,
        "tasks": {"click": "click"},
        "features": {"categorical": ["tab"], "dense": ["length"]},
        "side_table": [side] if side else [],
        "split": {"validation_from": 0.5, "test_from": 0.75},
    }
    return read_event_log(EventLogSpec.from_dict(sections, folder, "my.toml"), new_events=new)


def refusal(folder: Path, table: list[list[str]], **options: object) -> str:
    with pytest.raises(InputError) as caught:
        read(folder, table, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("column", ["user", "item"])
def test_missing_ids_are_refused_with_their_number_and_the_first_line(tmp_path, column, word):
    message = refusal(tmp_path, with_cells(column, {6: word, 9: word, 30: "NULL"}))
    assert f'log.csv: line 8, column "{column}": expected the id of the {column}, found ' in message
    assert message.endswith('(and 2 more rows); [log] missing_ids = "drop" leaves such rows out')


@pytest.mark.parametrize("word", WORDS)
def test_missing_ids_are_dropped_and_counted_where_the_log_says_so(tmp_path, word):
    table = with_cells("user", {6: word, 9: word})
    table[9][1] = table[12][1] = word
    log = read(tmp_path, table, missing_ids="drop")
    assert log.notes[1] == (
        f"{tmp_path / 'log.csv'}: 3 of 40 rows dropped for a missing id: 2 with no user and 2 with no item"
    )
    assert log.row.tolist() == [row for row in range(40) if row not in (6, 9, 12)]
    assert (log.user_ids.to_list(), log.item_ids.to_list()) == (["u0", "u1", "u2"], ["i0", "i1", "i2", "i3"])


def test_a_log_without_any_id_is_refused(tmp_path):
    table = with_cells("user", dict.fromkeys(range(40), "NULL"))
    assert "every row lacks an id, 40 with no user" in refusal(tmp_path, table, missing_ids="drop")


def test_ids_that_resemble_a_missing_one_are_ids(tmp_path):
    names = ["Nan", "none", "NULL1", "Na", "\\n", "0", "-"]
    log = read(tmp_path, with_cells("user", dict(enumerate(names))))
    assert set(names) < set(log.user_ids.to_list())


def test_new_events_without_an_id_are_refused_or_each_scored_as_another_unknown_user(tmp_path):
    new = write(tmp_path / "new.csv", with_cells("user", {1: "NULL", 2: ""})[:4])
    message = refusal(tmp_path, rows(), new=new)
    assert "new.csv: line 3, column \"user\": expected the id of the user, found 'NULL' (and 1 more row)" in message
    assert message.endswith("; give such a row an id of its own to score it as unknown")
    log = read(tmp_path, rows(), new=new, missing_ids="drop")
    assert sorted(log.row[log.new]) == [0, 1, 2, 3]
    unknown = log.user[log.new][np.isin(log.row[log.new], [1, 2])]
    assert len(set(unknown.tolist()) - set(log.user[~log.new].tolist())) == 2
    assert any(note.endswith("as an unknown user or item, without history: 2 with no user") for note in log.notes)


@pytest.mark.parametrize("word", WORDS)
def test_the_words_are_missing_cells_in_features_and_outcomes(tmp_path, word):
    table = with_cells("tab", {0: "", 1: word, 2: "1"})
    table[1][3] = table[1][5] = word
    log = read(tmp_path, table)
    assert log.categorical[0, 0] == log.categorical[1, 0] != log.categorical[2, 0]
    assert np.isnan(log.labels[1, 0])
    assert np.isnan(log.dense[1, 0])
    assert np.isfinite(np.delete(log.labels, 1, axis=0)).all()
    assert np.isfinite(np.delete(log.dense, 1, axis=0)).all()


def test_a_threshold_on_a_missing_outcome_leaves_it_unobserved_and_a_missing_time_is_none(tmp_path):
    table = with_cells("length", {1: "NULL"})
    write(tmp_path / "log.csv", table)
    spec = EventLogSpec.from_dict(
        {
            "log": {"files": ["log.csv"], "user": "user", "item": "item", "timestamp": "time"},
            "tasks": {"long": {"column": "length", "at_least": 7, "known_at": "later"}},
            "split": {"validation_from": 0.5, "test_from": 0.75},
        },
        tmp_path,
        "my.toml",
    )
    text = (tmp_path / "log.csv").read_text().splitlines()
    later = ["later", "NULL", r"\N", *(f"{START + 900_000 + i}" for i in range(38))]
    (tmp_path / "log.csv").write_text("\n".join(f"{a},{b}" for a, b in zip(text, later, strict=True)) + "\n")
    log = read_event_log(spec)
    assert np.isnan(log.labels[:, 0]).tolist() == [False, True, *[False] * 38]
    assert (log.action_known[:, 0] == log.time_ms).tolist() == [True, True, *[False] * 38]
    refused = with_cells("time", {4: "NULL"})
    assert "found 'NULL'" in refusal(tmp_path, refused)


@pytest.mark.slow
@pytest.mark.parametrize("word", WORDS)
def test_a_missing_key_of_a_side_table_is_refused_or_its_row_left_out(tmp_path, word):
    (tmp_path / "items.csv").write_text(f"id,kind,length\ni0,film,NULL\n{word},x,9\n{word},y,9\ni1,NA,3\n")
    message = refusal(tmp_path, rows(), side=ITEMS)
    assert 'items.csv: line 3, column "id": expected the id of the item, found ' in message
    assert message.endswith('(and 1 more row); [[side_table]] missing_ids = "drop" leaves such rows out')
    for log in (
        read(tmp_path, rows(), side=ITEMS, missing_ids="drop"),
        read(tmp_path, rows(), side=ITEMS | {"missing_ids": "drop"}),
    ):
        assert f"{tmp_path / 'items.csv'}: 2 rows left out for a missing key" in log.notes
        assert log.unmatched == (20,)
        film, none = log.categorical[:2, 1]
        assert film != none
        assert none == log.categorical[2, 1]


@pytest.mark.parametrize("kind", [pl.Categorical(), pl.Enum(["u0", "u1", "NULL", "A", "B"])])
def test_the_words_are_missing_in_every_type_of_text(tmp_path, kind):
    write(tmp_path / "log.csv", with_cells("user", {4: "NULL", 5: "u1", 8: "u0"}))
    table = pl.read_csv(tmp_path / "log.csv").with_columns(pl.col("user").replace("u2", "u0").cast(kind))
    table.write_parquet(tmp_path / "log.parquet")
    log = read(tmp_path, rows(), files=["log.parquet"], missing_ids="drop")
    assert (len(log.time_ms), log.user_ids.to_list()) == (39, ["u0", "u1"])
