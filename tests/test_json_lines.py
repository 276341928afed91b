"""JSON Lines logs: read to the same bits as a table of the same cells, and refused with the line of a fault."""

import codecs
import gzip
import json

import numpy as np
import polars as pl
import pytest
from log_files import START, event_table, read, refusal, write

FEATURES = {"features": {"categorical": ["tab"], "dense": ["length"]}}


def lines_of(table):
    return [json.dumps({name: cell for name, cell in row.items() if cell is not None}) for row in table.to_dicts()]


def write_lines(lines, path):
    content = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


TABLE = event_table(["a", "b", "007"], ["i", "j"], tab=["x", None, "ä"], length=[1, 2.5, None])


@pytest.mark.parametrize("name", ["log.jsonl", "log.ndjson", "log.jsonl.gz"])
def test_json_lines_are_read_as_a_table_of_the_same_cells(name, tmp_path):
    plain = read([write(TABLE, tmp_path / "plain.parquet")], **FEATURES)
    log = read([write_lines(lines_of(TABLE), tmp_path / name)], **FEATURES)
    for array in ("time_ms", "user", "item", "labels", "categorical", "dense", "row"):
        np.testing.assert_array_equal(getattr(log, array), getattr(plain, array), err_msg=array)
    assert log.user_ids.to_list() == plain.user_ids.to_list() == ["007", "a", "b"]
    assert f"20 rows read from {tmp_path / name}" in " ".join(log.notes)


def test_a_byte_order_mark_is_no_part_of_the_first_object(tmp_path):
    path = write_lines(lines_of(TABLE), tmp_path / "log.jsonl")
    plain = read([path])
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    np.testing.assert_array_equal(read([path]).time_ms, plain.time_ms)


def test_ids_that_are_numbers_in_some_lines_and_texts_in_others_are_texts(tmp_path):
    table = event_table([1, 2], ["i"])
    lines = lines_of(table)
    lines[0] = lines[0].replace('"user": 1', '"user": "1"')
    log = read([write_lines(lines, tmp_path / "log.jsonl")])
    assert log.user_ids.to_list() == ["1", "2"]


def test_blank_lines_are_no_rows_and_leave_the_number_of_a_line_as_it_is(tmp_path):
    lines = lines_of(TABLE)
    file = write_lines([lines[0], "", " ", *lines[1:]], tmp_path / "log.jsonl")
    assert len(read([file]).time_ms) == 20
    wrong = json.dumps(json.loads(lines[4]) | {"time": START * 1000})
    file = write_lines([lines[0], "", " ", *lines[1:4], wrong, *lines[5:]], tmp_path / "log.jsonl")
    assert 'log.jsonl: line 7, column "time": expected a Unix time' in refusal([file])


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"user": "a"', "line 3 is not JSON (Expecting ',' delimiter"),
        ("user,item,time,click", "line 3 is not JSON (Expecting value"),
        ('{"user": "a"} {"user": "b"}', "line 3 is not JSON (Extra data"),
        ("[1, 2]", "line 3 holds a list instead of an object"),
        ('{"user": NaN}', "line 3 is not JSON (NaN is no JSON, write null)"),
    ],
)
def test_a_line_that_is_no_object_is_refused_by_its_number(line, fault, tmp_path):
    lines = lines_of(TABLE)
    lines[2] = line
    assert f"log.jsonl: {fault}" in refusal([write_lines(lines, tmp_path / "log.jsonl")])


def test_of_many_malformed_lines_the_first_are_named(tmp_path):
    message = refusal([write_lines(["{"] * 9, tmp_path / "log.jsonl")])
    assert "line 1 is" in message
    assert "line 3 is" in message
    assert "line 4" not in message
    assert "and others" in message


@pytest.mark.parametrize("content", ["", "\n", " \n\n"])
def test_a_file_without_objects_is_refused(content, tmp_path):
    (tmp_path / "log.jsonl").write_text(content)
    message = refusal([tmp_path / "log.jsonl"])
    assert "empty" in message or "no rows" in message


def test_a_column_of_objects_is_refused_where_it_is_read(tmp_path):
    nested = TABLE.with_columns(tab=pl.struct("user", "item"))
    assert 'the column "tab" holds Struct' in refusal(
        [write_lines(lines_of(nested), tmp_path / "log.jsonl")], **FEATURES
    )
