"""Text tables of other formats: read to the same bits as a CSV file of the same cells, and refused with their line."""

import json

import numpy as np
import polars as pl
import pytest
from log_files import START, event_table, read, refusal, write

from siren_rope_jax.data.schema import EventLogSpec

TABLE = event_table(["ann", "bö", "c"], ["i", "j"], tab=["x y", "é", "z"], length=[1.5, 2.25, -3.0])
COLUMNS = TABLE.columns
FEATURES = {"features": {"categorical": ["tab"], "dense": ["length"]}}


def write_as(path, separator=",", *, encoding="utf-8", header=True, comma=False, end="\n"):
    lines = [separator.join(COLUMNS)] if header else []
    for row in TABLE.iter_rows():
        cells = [str(cell).replace(".", ",") if comma and isinstance(cell, float) else str(cell) for cell in row]
        lines.append(separator.join(cells))
    path.write_bytes((end.join(lines) + end).encode(encoding))
    return path


def same_as_plain(folder, file, keys):
    plain = read([write(TABLE, folder / "plain.csv")], **FEATURES)
    log = read([file], log=keys, **FEATURES)
    for array in ("time_ms", "user", "item", "labels", "categorical", "dense", "row", "day", "second"):
        np.testing.assert_array_equal(getattr(log, array), getattr(plain, array), err_msg=array)
    assert log.user_ids.to_list() == plain.user_ids.to_list()
    assert EventLogSpec.from_dict(json.loads(json.dumps(log.spec.to_dict())), folder, "again") == log.spec


FORMATS = {
    "semicolons": ("log.csv", {"separator": ";"}, {}),
    "bars in .txt": ("log.txt", {"separator": "|"}, {}),
    "tabs in .data": ("log.data", {"separator": "\t"}, {}),
    "double colons": ("log.dat", {"separator": "::"}, {}),
    "no header": ("log.csv", {"columns": COLUMNS}, {"header": False}),
    "no header, double colons, Latin-1": (
        "log.dat",
        {"separator": "::", "columns": COLUMNS, "encoding": "latin-1"},
        {"header": False, "encoding": "latin-1"},
    ),
    "Latin-1": ("log.csv", {"encoding": "ISO-8859-1"}, {"encoding": "latin-1"}),
    "UTF-16": ("log.csv", {"encoding": "utf-16"}, {"encoding": "utf-16"}),
    "UTF-8 with a mark": ("log.csv", {}, {"encoding": "utf-8-sig"}),
    "UTF-8 with a mark, told": ("log.csv", {"encoding": "utf-8-sig"}, {"encoding": "utf-8-sig"}),
    "no header, UTF-8 with a mark": ("log.csv", {"columns": COLUMNS}, {"header": False, "encoding": "utf-8-sig"}),
    "decimal commas": ("log.csv", {"separator": ";", "decimal_comma": True}, {"comma": True}),
    "line ends of Windows": ("log.dat", {"separator": "::", "columns": COLUMNS}, {"header": False, "end": "\r\n"}),
}


@pytest.mark.parametrize(("name", "keys", "how"), FORMATS.values(), ids=FORMATS)
def test_a_text_table_of_another_format_is_read_as_a_csv_file_of_the_same_cells(name, keys, how, tmp_path):
    file = write_as(tmp_path / name, keys.get("separator", ","), **how)
    same_as_plain(tmp_path, file, keys)


def test_columns_that_blanks_align_are_read_as_a_csv_file_of_the_same_cells(tmp_path):
    table = TABLE.with_columns(pl.col("tab").str.replace(" ", "_"))
    rows = [table.columns, *table.rows()]
    lines = ["  ".join(f"{cell!s:>14}" for cell in row) for row in rows]
    (tmp_path / "log.txt").write_text(
        "\n".join(lines[:5]) + "\n\n" + "\r\n".join(lines[5:]).replace("  ", "\t ") + "\n"
    )
    log = read([tmp_path / "log.txt"], log={"separator": " "}, **FEATURES)
    plain = read([write(table, tmp_path / "plain.csv")], **FEATURES)
    for array in ("time_ms", "user", "item", "labels", "categorical", "dense"):
        np.testing.assert_array_equal(getattr(log, array), getattr(plain, array), err_msg=array)
    (tmp_path / "log.txt").write_text("\n".join([*lines[:5], "ann i", *lines[5:]]))
    assert "log.txt: line 6" in refusal([tmp_path / "log.txt"], log={"separator": " "}, **FEATURES)


def test_a_side_table_has_the_format_of_the_log_but_for_its_columns(tmp_path):
    file = write_as(tmp_path / "log.dat", "::", header=False)
    (tmp_path / "items.dat").write_text("i::drama\nj::news\n")
    (tmp_path / "users.csv").write_text("id,age\nann,3\nbö,4\nc,5\n")
    items = {"file": "items.dat", "join": "item", "key": "id", "columns": ["id", "genre"], "categorical": ["genre"]}
    users = {"file": "users.csv", "join": "user", "key": "id", "separator": ",", "dense": ["age"]}
    log = read([file], log={"separator": "::", "columns": COLUMNS}, side_table=[items, users])
    assert log.unmatched == (0, 0)
    assert log.dense[:3, 0].tolist() == [3, 4, 5]


@pytest.mark.parametrize("keys", [{"separator": "::"}, {"separator": ";", "encoding": "latin-1"}, {"separator": ";"}])
@pytest.mark.parametrize("header", [True, False])
def test_a_fault_is_named_by_the_line_of_the_file_of_the_user(keys, header, tmp_path):
    keys = keys if header else keys | {"columns": COLUMNS}
    file = write_as(tmp_path / "log.txt", keys["separator"], header=header, encoding=keys.get("encoding", "utf-8"))
    lines = file.read_bytes().split(b"\n")
    line = 5 + header
    broken = lines[:]
    broken[line - 1] = broken[line - 1].replace(str(START + 4 * 3600).encode(), b"noon")
    file.write_bytes(b"\n".join(broken))
    assert f'log.txt: line {line}, column "time": expected a Unix time' in refusal([file], log=keys)
    short = lines[:]
    short[line - 1] = short[line - 1].rsplit(keys["separator"].encode(), 2)[0]
    file.write_bytes(b"\n".join(short))
    assert f"log.txt: line {line} has 4 of 6 fields" in refusal([file], log=keys)


def test_text_in_another_encoding_is_refused_with_its_place(tmp_path):
    file = write_as(tmp_path / "log.csv", encoding="latin-1")
    assert "line 3: expected text in UTF-8, found the byte 0xf6" in refusal([file])
    assert "line 3: expected text in ascii, found the byte 0xf6" in refusal([file], log={"encoding": "ascii"})
    assert "expected text in UTF-8" in refusal([file], log={"columns": [*COLUMNS]})


def test_a_missing_separator_is_suggested(tmp_path):
    assert 'log.dat: expected the key separator, such as "::"' in refusal([write_as(tmp_path / "log.dat", "::")])
    for separator in ("::", ";", "|", "\t"):
        message = refusal([write_as(tmp_path / "log.csv", separator)])
        assert f"its cells look separated by {separator!r}, give it as separator" in message


def test_a_header_row_that_is_read_as_an_event_is_refused(tmp_path):
    assert 'line 1, column "time"' in refusal([write_as(tmp_path / "log.csv")], log={"columns": COLUMNS})


def test_a_number_with_a_comma_is_refused_unless_it_is_told_of(tmp_path):
    file = write_as(tmp_path / "log.csv", ";", comma=True)
    assert 'column "length": expected a finite number' in refusal([file], log={"separator": ";"}, **FEATURES)
    thousands = write_as(tmp_path / "log.csv", ";", comma=True).read_text().replace("2,25", "1.002,25")
    file.write_text(thousands)
    message = refusal([file], log={"separator": ";", "decimal_comma": True}, **FEATURES)
    assert "found '1.002,25'" in message
    file.write_text(thousands.replace("1.002,25", "1.002"))  # a thousand and two, or one and two thousandths
    assert "found '1.002'" in refusal([file], log={"separator": ";", "decimal_comma": True}, **FEATURES)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"separator": ""}, "[log] separator: expected a text in quotes"),
        ({"separator": "\n"}, "[log] separator: expected ASCII without quotes and line breaks"),
        ({"separator": "·"}, "[log] separator: expected ASCII without quotes and line breaks"),
        ({"separator": "::", "quote": '"'}, '[log] quote: expected "none" with a separator of several characters'),
        ({"encoding": "utf-9"}, 'expected an encoding such as "latin-1", found "utf-9"'),
        ({"encoding": "rot13"}, 'expected an encoding such as "latin-1", found "rot13"'),
        ({"decimal_comma": "yes"}, "[log] decimal_comma: expected true or false, found 'yes'"),
        ({"columns": ["a", "a"]}, '"a" is listed twice'),
        ({"columns": ["a,b"]}, "[log] columns: expected names without separators and quotes, found 'a,b'"),
    ],
)
def test_a_format_without_a_meaning_is_refused_by_its_key(keys, said, tmp_path):
    assert said in refusal([write_as(tmp_path / "log.csv")], log=keys)
