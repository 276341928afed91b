"""Lines of a CSV that are no whole rows: named, never read as something else."""

import csv
import io
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_logs import START_DAY

from siren_rope_jax.data import csv_lines
from siren_rope_jax.data.csv_lines import Dialect, count_lines
from siren_rope_jax.data.event_log import EventLog, read_event_log
from siren_rope_jax.data.malformed_lines import malformed_lines
from siren_rope_jax.data.open_table import open_table
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.errors import InputError

START = START_DAY * 86_400
HEADER = "user,item,time,click,title"


def rows(count: int = 40) -> list[str]:
    return [f"u{i % 2},i{i % 3},{START + 3600 * i},{i // 2 % 2},title {i}" for i in range(count)]


def read(
    folder: Path, lines: list[str], *, end: str = "\n", new: Path | None = None, side: dict | None = None, **log: str
) -> EventLog:
    (folder / "log.csv").write_bytes(("\n".join([HEADER, *lines]) + end).encode())
    sections = {
        "log": {"files": ["log.csv"], "user": "user", "item": "item", "timestamp": "time"} | log,
        "tasks": {"click": "click"},
        "features": {"categorical": ["title"]},
        "side_table": [side] if side else [],
        "split": {"validation_from": 0.5, "test_from": 0.75},
    }
    return read_event_log(EventLogSpec.from_dict(sections, folder, "my.toml"), new_events=new)


def refusal(folder: Path, lines: list[str], **options: object) -> str:
    with pytest.raises(InputError) as caught:
        read(folder, lines, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{folder}/")


def with_title(*titles: str) -> list[str]:
    """A log whose rows from the fifth on, in line 6, have these titles."""
    lines = rows()
    for index, title in enumerate(titles, start=4):
        lines[index] = lines[index].rsplit(",", 1)[0] + "," + title
    return lines


def test_rows_read_are_said_for_every_file(tmp_path):
    (tmp_path / "new.csv").write_text("\n".join([HEADER, "", *rows()[:3]]))
    (tmp_path / "items.csv").write_text("id,kind\ni0,film\n")
    side = {"file": "items.csv", "join": "item", "key": "id", "categorical": ["kind"]}
    log = read(tmp_path, rows(), new=tmp_path / "new.csv", side=side)
    unended = "no line break at the end, where a file that was cut has none"
    assert tuple(note for note in log.notes if " read from " in note) == (
        f"40 rows read from {tmp_path / 'log.csv'}",
        f"3 rows read from {tmp_path / 'new.csv'} (1 blank line skipped; {unended})",
        f"1 row read from {tmp_path / 'items.csv'}",
    )


@pytest.mark.parametrize(
    ("titles", "said"),
    [
        # Two stray quotes at the start and at the end of the same column: a well-formed cell of five lines.
        (['"big', "a", "b", "c", 'small"'], "the quoted cell that opens in line 6 holds whole rows, up to line 10"),
        (['"5', "a", "b", '6" pipe'], "the quote that opens a cell in line 6 is never closed, line 9 has a quote"),
        (['"5 inches'], "the quote that opens a cell in line 6 is never closed"),
        (['5" pipe'], "line 6 has a quote inside a cell"),
        (['say "hi" now'], "line 6 has a quote inside a cell"),
        (['"big" pipe'], "line 6 has a quote inside a cell"),
    ],
)
def test_a_stray_quote_swallows_no_row(tmp_path, titles, said):
    message = refusal(tmp_path, with_title(*titles))
    assert message.startswith(f"log.csv: {said}")
    assert message.endswith('; if quotes are part of the text of this file, set quote = "none"')
    log = read(tmp_path, with_title(*titles), quote="none")
    assert len(log.time_ms) == 40
    assert log.notes[0].startswith("40 rows read")


def test_a_side_table_and_new_events_follow_the_quote_of_the_log_unless_the_table_has_its_own(tmp_path):
    (tmp_path / "items.csv").write_text('id,kind\ni0,5" pipe\n')
    side = {"file": "items.csv", "join": "item", "key": "id", "categorical": ["kind"]}
    assert refusal(tmp_path, rows(), side=side).startswith("items.csv: line 2 has a quote inside a cell")
    assert len(read(tmp_path, rows(), side=side, quote="none").time_ms) == 40
    assert len(read(tmp_path, rows(), side=side | {"quote": "none"}).time_ms) == 40
    assert refusal(tmp_path, rows(), side=side | {"quote": '"'}, quote="none").startswith("items.csv: line 2")
    new = tmp_path / "new.csv"
    new.write_text("\n".join([HEADER, *with_title('5" pipe')[3:6], ""]))
    assert refusal(tmp_path, rows(), new=new).startswith("new.csv: line 3 has a quote inside a cell")
    assert read(tmp_path, rows(), new=new, quote="none").new.sum() == 3


def test_cells_may_hold_separators_quotes_and_line_breaks_in_quotes(tmp_path):
    titles = ['"a, b"', '"say ""hi"""', '"one\ntwo, three\n\nfour"', '""', '"""x"""', '"7\n8"', "plain"]
    log = read(tmp_path, with_title(*titles))
    assert len(log.time_ms) == 40
    said = "line breaks inside 2 rows, the first from line 8 on"
    assert log.notes == (f"40 rows read from {tmp_path / 'log.csv'} ({said})",)
    (tmp_path / "log.csv").write_text("")
    unquoted = read(tmp_path, with_title("plain"))
    assert log.categorical[10, 0] == unquoted.categorical[4, 0]


def test_a_short_line_is_malformed_and_not_a_row_of_empty_cells(tmp_path):
    lines = rows()
    lines[6] = "u0,i1,1650260000"
    assert refusal(tmp_path, lines) == "log.csv: line 8 has 3 of 5 fields"
    lines[8] += ",,"
    assert refusal(tmp_path, lines) == "log.csv: line 8 has 3 of 5 fields, line 10 has 7 fields instead of 5"
    lines[20:] = ["u0,i1"] * 20
    assert refusal(tmp_path, lines).endswith(
        "line 10 has 7 fields instead of 5, line 22 has 2 of 5 fields and 19 more lines"
    )


def test_a_file_that_was_cut_inside_its_last_line_is_refused(tmp_path):
    whole = "\n".join(rows())
    for cut in range(len("title 39") + 1, len(rows()[-1])):
        message = refusal(tmp_path, whole[:-cut].split("\n"), end="")
        fields = rows()[-1][:-cut].count(",") + 1
        assert message == f"log.csv: line 41 has {fields} of 5 fields and no line break, as where a file was cut"
    (note,) = read(tmp_path, whole[:-3].split("\n"), end="").notes
    assert note.endswith("(no line break at the end, where a file that was cut has none)")


def test_a_fault_names_its_own_line_after_cells_with_line_breaks(tmp_path):
    message = refusal(tmp_path, with_title('"a\nb"', '"c\n\nd"', 'e"', '"f\ng"', '"h" i'))
    assert message.startswith("log.csv: line 11 has a quote inside a cell, line 14 has a quote inside a cell;")


def test_lines_of_separators_only_are_blank(tmp_path):
    lines = rows()
    log = read(tmp_path, [*lines[:7], ",,,,", *lines[7:], ",,,,", ""])
    assert (len(log.time_ms), log.notes[0].split("(")[1]) == (40, "3 blank lines skipped)")
    assert "line 9 has 3 of 5 fields" in refusal(tmp_path, [*lines[:7], ",,", *lines[7:]])


PIECES = st.sampled_from(['"', '""', ",", "\n", "\r\n", "a", "1", "','", '"a"', '"b,\n"', '"""c"'])
CELLS = st.sampled_from(["", "a", "1", '"b"', '"a,b"', '"x""y"', '"l\nm"', '"\r\n"'])
TABLES = st.lists(st.tuples(CELLS, CELLS), max_size=6).map(lambda cells: "".join(f"{a},{b}\n" for a, b in cells))


@pytest.mark.slow
@settings(max_examples=300)
@given(body=st.lists(PIECES, max_size=14).map("".join) | TABLES, chunk=st.integers(1, 40), quote=st.sampled_from('"n'))
def test_a_file_is_either_refused_with_its_line_or_read_as_the_standard_library_reads_it(
    tmp_path_factory, body, chunk, quote
):
    path = tmp_path_factory.mktemp("lines") / "table.csv"
    path.write_bytes(f"h,k\n{body}".encode())
    dialect = Dialect(path, b",", b'"' if quote == '"' else None, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_lines, "_CHUNK", chunk)
        count = count_lines(dialect)
    named = list(malformed_lines(dialect))
    assert (count is None) == bool(named)
    if count is None:
        return
    quoting = csv.QUOTE_MINIMAL if quote == '"' else csv.QUOTE_NONE
    records = [record for record in csv.reader(io.StringIO(f"h,k\n{body}", newline=""), quoting=quoting) if record][1:]
    character = '"' if quote == '"' else None
    frame = pl.scan_csv(path, infer_schema=False, quote_char=character).filter(~pl.all_horizontal(pl.all().is_null()))
    table = frame.collect(engine="streaming")
    assert table.height == count.rows
    filled = [record for record in records if any(record)]
    assert [list(row) for row in table.fill_null("").rows() if any(row)] == filled


@pytest.mark.slow
@settings(max_examples=150)
@given(places=st.lists(st.integers(0, 900), min_size=1, max_size=3))
def test_stray_quotes_anywhere_cost_no_row_without_a_refusal(tmp_path_factory, places):
    text = "\n".join(rows())
    for place in places:
        text = f'{text[:place]}"{text[place:]}'
    try:
        log = read(tmp_path_factory.mktemp("log"), text.split("\n"))
    except InputError as error:
        assert "line" in str(error)  # noqa: PT017
    else:
        assert len(log.time_ms) == 40


def test_a_header_that_names_a_column_twice_is_refused(tmp_path):
    (tmp_path / "log.csv").write_text("user,item,time,click,click\n" + "a,x,1650000000,0,1\n" * 3)
    with pytest.raises(InputError, match='the header names the column "click" twice'), open_table(tmp_path / "log.csv"):
        pass
