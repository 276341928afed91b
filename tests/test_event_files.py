"""Folders, patterns and partitions are read as the tables that they stand for."""

import gzip

import numpy as np
import polars as pl
import pytest
from log_files import START, event_table, read, refusal, write

from siren_rope_jax.data.event_log import read_event_log
from siren_rope_jax.data.schema import EventLogSpec

TABLE = event_table(["ann", "bob", "eve"], ["x", "y"])


@pytest.fixture
def folder(tmp_path):
    """Twenty events in three tables of one folder, beside what Spark and a person leave there."""
    events = tmp_path / "events"
    events.mkdir()
    for number, part in enumerate((TABLE[:7], TABLE[7:14], TABLE[14:])):
        write(part, events / f"part-{number}.csv")
    (events / "_SUCCESS.csv").write_text("")
    (events / ".part-0.csv").write_text("rubbish")
    (events / "notes.txt").write_text("made by hand")
    return events


def _same(log, plain):
    for name in ("time_ms", "user", "item", "labels", "row", "period", "categorical"):
        np.testing.assert_array_equal(getattr(log, name), getattr(plain, name))


@pytest.mark.parametrize("named", ["events", "events/p*.csv", "events/part-[0-9].csv", "**/part-?.csv", "ev*/part*"])
def test_a_folder_or_pattern_reads_as_its_tables(folder, tmp_path, named):
    plain = read([folder / f"part-{number}.csv" for number in range(3)])
    _same(read([tmp_path / named]), plain)


def test_links_and_folders_that_a_pattern_matches_are_followed(folder, tmp_path):
    plain = read([folder / f"part-{number}.csv" for number in range(3)])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (folder / "part-2.csv").rename(elsewhere / "part-2.csv")
    (folder / "sub").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(folder)  # must not be followed without end
    for named in ("events", "ev*", "events/[!.n_]*"):
        _same(read([tmp_path / named]), plain)


def test_tables_of_a_folder_that_come_later_are_read_too(folder, tmp_path):
    spec = read([folder]).spec
    assert spec.to_dict()["log"]["files"] == [str(folder)]
    late = TABLE[-1:].with_columns(time=pl.lit(START + 10**6))
    write(late, folder / "part-3.csv")
    assert len(read([folder]).time_ms) == 21


def test_many_files_are_noted_in_one_sentence(folder):
    for number in range(10, 20):
        write(TABLE[:1].with_columns(time=pl.lit(START - number)), folder / f"part-{number}.csv")
    with_blank = folder / "part-20.csv"
    with_blank.write_text((folder / "part-19.csv").read_text().replace(f"{START - 19}", f"{START - 20}") + "\n\n")
    notes = [note for note in read([folder]).notes if "read from" in note]
    assert notes[0] == f"31 rows read from 14 files, {folder / 'part-0.csv'} to {folder / 'part-20.csv'}"
    assert len(notes) == 2
    assert notes[1].startswith(f"1 row read from {with_blank} (")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_folders_named_by_a_column_and_its_value_are_that_column(tmp_path, ending):
    table = TABLE.with_columns(place=pl.Series(["a b", "ö", None, "7"] * 5))
    for place, part in table.partition_by("place", as_dict=True).items():
        name = {"a b": "a%20b", "ö": "ö", None: "__HIVE_DEFAULT_PARTITION__", "7": "7"}[place[0]]
        (tmp_path / "log" / f"place={name}").mkdir(parents=True)
        write(part.drop("place"), tmp_path / "log" / f"place={name}" / f"0.{ending}")
    features = {"features": {"categorical": ["place"]}}
    by_time = read([tmp_path / "log"], **features)
    plain = read([write(table, tmp_path / f"plain.{ending}")], **features)
    for name in ("time_ms", "categorical", "labels"):
        np.testing.assert_array_equal(getattr(by_time, name), getattr(plain, name))


def test_a_column_of_the_table_wins_over_its_folder(tmp_path):
    (tmp_path / "place=b").mkdir()
    table = write(TABLE.with_columns(place=pl.lit("a")), tmp_path / "place=b" / "0.csv")
    plain = write(TABLE.with_columns(place=pl.lit("a")), tmp_path / "plain.csv")
    features = {"features": {"categorical": ["place"]}}
    np.testing.assert_array_equal(read([table], **features).categorical, read([plain], **features).categorical)


@pytest.mark.parametrize("pattern", ["*", "*/*.csv", "**/*.csv", "*/*"])
def test_a_pattern_leaves_out_the_remains_of_jobs_unless_it_names_them(tmp_path, pattern):
    for name in ("day=0/x.csv", "day=1/x.csv", "day=1/_x.csv", "_temporary/x.csv"):
        (tmp_path / "log" / name).parent.mkdir(parents=True, exist_ok=True)
        write(TABLE.with_columns(user=pl.lit(name) + pl.col("user")), tmp_path / "log" / name)
    assert len(read([tmp_path / "log" / pattern]).user) == 40
    assert len(read([tmp_path / "log" / "day=1" / "_*.csv"]).user) == 20


def test_one_table_by_two_names_is_refused(folder, tmp_path):
    first = folder / "part-1.csv"
    (tmp_path / "link.csv").symlink_to(first)
    assert f"link.csv is named twice among the files of the log, as {first} too" in refusal(
        [first, tmp_path / "link.csv"]
    )
    assert "is named twice" in refusal([first, f"{first}.gz"])  # which stands for the plain one
    (folder / "part-1.csv.gz").write_bytes(gzip.compress(first.read_bytes()))
    assert "part-1.csv.gz is named twice" in refusal([folder])


def test_brackets_in_the_name_of_the_description_folder_are_no_pattern(folder, tmp_path):
    plain = read([folder])
    bracketed = tmp_path / "run [2]"
    folder.rename(bracketed)
    sections = {
        "log": {"files": ["part-[0-9].csv"], "user": "user", "item": "item", "timestamp": "time"},
        "tasks": {"click": "click"},
        "split": {"validation_from": 0.5, "test_from": 0.75},
    }
    _same(read_event_log(EventLogSpec.from_dict(sections, bracketed, "my.toml")), plain)


def test_a_folder_or_pattern_that_stands_for_no_tables_is_refused(folder, tmp_path):
    assert refusal([tmp_path / "*.parquet"]).endswith("*.parquet: no file matches this pattern, expected at least one")
    (tmp_path / "empty").mkdir()
    assert "expected tables of one format in this folder, found none" in refusal([tmp_path / "empty"])
    assert f"{folder / 'part-1.csv'} is named twice" in refusal([folder, folder / "part-1.csv"])
    write(TABLE, folder / "part-3.parquet")
    assert "found tables in .csv and .parquet" in refusal([folder])


def test_a_fault_in_a_folder_names_file_line_and_column(folder):
    (folder / "part-1.csv").write_text("user,item,time,click\nann,x,soon,1\n")
    assert f'{folder / "part-1.csv"}: line 2, column "time": expected a Unix time' in refusal([folder])
