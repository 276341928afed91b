"""Row counts of CSV and TSV files from their bytes, since a table reader does not report incomplete rows."""

import contextlib
import csv
import dataclasses
import functools
import itertools
from pathlib import Path

import numpy as np
from jaxtyping import Bool

LONGEST_RECORD = 1 << 24  # bytes; a longer quoted cell was never closed
_CHUNK = 1 << 20
_NEWLINE, _RETURN = b"\n\r"
_FIRST_RECORDS = 1000
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def number_of(count: int, noun: str) -> str:
    """Returns the number with its noun, such as "1 row" or "2,400 rows"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


@dataclasses.dataclass(frozen=True)
class Dialect:
    """Format of a table in a text file.

    Attributes:
      file: the uncompressed file, in UTF-8.
      separator: one byte.
      quote: one byte that encloses cells with separators, line breaks or doubled quotes; None if quotes are text.
      columns: number of columns in the header.
      added_lines: lines of the header that the user's file lacks, so that its own lines count from 1.
    """

    file: Path
    separator: bytes
    quote: bytes | None
    columns: int
    added_lines: int = 0

    def is_blank(self, line: bytes) -> bool:
        """Returns whether a line, without its line break, is empty or only separators."""
        return line in (b"", self.separator * (self.columns - 1))

    def swallows_rows(self, record: bytes) -> bool:
        """Returns whether each line of a record with line breaks looks like a row, so that its quotes are misplaced.

        A row has as many cells as the header, and numbers in the columns where the first row has numbers; prose does
        not.
        """
        lines = record.splitlines()
        if any(line.count(self.separator) != self.columns - 1 for line in lines):
            return False
        cells = [[line.split(self.separator)[column] for column in self._number_columns] for line in lines]
        return bool(self._number_columns) and all(all(map(self._may_be_number, row)) and any(row) for row in cells)

    def text_reader(self, lines: object) -> "csv._reader":  # type: ignore[name-defined]
        """Returns the standard library's reader of this dialect."""
        csv.field_size_limit(2 * LONGEST_RECORD)
        quoting = csv.QUOTE_MINIMAL if self.quote else csv.QUOTE_NONE
        return csv.reader(lines, delimiter=self.separator.decode(), quoting=quoting)  # type: ignore[arg-type]

    @functools.cached_property
    def _number_columns(self) -> list[int]:
        """Columns in which the first row without line breaks has numbers."""
        with self.file.open(encoding="utf-8", errors="replace", newline="") as file, contextlib.suppress(csv.Error):
            records = filter(None, self.text_reader(file))
            next(records, None)  # the header
            for record in itertools.islice(records, _FIRST_RECORDS):
                if len(record) == self.columns and not any("\n" in cell for cell in record):
                    return [index for index, cell in enumerate(record) if cell and self._may_be_number(cell.encode())]
        return []

    def _may_be_number(self, cell: bytes) -> bool:
        try:
            float(cell.strip(b" \r" + (self.quote or b"")) or 0)
        except ValueError:
            return False
        return True


@dataclasses.dataclass
class LineCount:
    """Counts of the rows and lines of a file.

    Attributes:
      rows: rows, without the header and blank lines.
      blank: lines without a cell.
      lines: line breaks before the current place.
      split_cells: rows with a line break in a quoted cell.
      first_split: line at which the first of these starts.
      is_ended: whether the last line ends with a line break.
    """

    rows: int = -1  # since the header is not a row
    blank: int = 0
    lines: int = 0
    split_cells: int = 0
    first_split: int = 0
    is_ended: bool = True

    @property
    def remarks(self) -> str:
        """Text on unusual lines, to follow the number of rows; empty if there are none."""
        found = [
            f"{number_of(self.blank, 'blank line')} skipped" * bool(self.blank),
            f"line breaks inside {number_of(self.split_cells, 'row')}, the first from line {self.first_split} on"
            * bool(self.split_cells),
            "no line break at the end, where a file that was cut has none" * (not self.is_ended),
        ]
        return f" ({'; '.join(filter(None, found))})" if any(found) else ""


def count_lines(dialect: Dialect) -> LineCount | None:
    """Counts rows; returns None if a line is malformed (see `malformed_lines`)."""
    count, rest = LineCount(), b""
    with dialect.file.open("rb") as file:
        if file.read(len(BYTE_ORDER_MARK)) != BYTE_ORDER_MARK:
            file.seek(0)
        for chunk in iter(lambda: file.read(_CHUNK), b""):
            data = rest + chunk
            end = _count_records(data, dialect, count)
            if end is None or len(data) - end > LONGEST_RECORD:
                return None
            rest = data[end:]
    if rest:
        count.is_ended = False
        if _count_records(rest + b"\n", dialect, count) != len(rest) + 1:
            return None  # the file ends within quotes
    return count


def _count_records(data: bytes, dialect: Dialect, count: LineCount) -> int | None:
    """Adds the whole records at the start of `data` to `count`; returns where they end, or None if one is malformed."""
    array = np.frombuffer(data, np.uint8)
    breaks = array == _NEWLINE
    marks = breaks | (array == dialect.separator[0])
    inner = np.zeros(0, np.int64)  # line breaks in quoted cells
    if dialect.quote is not None and dialect.quote in data:
        quotes = array == dialect.quote[0]
        quoted = np.logical_xor.accumulate(quotes)  # from an opening quote to just before the closing one
        if not _quotes_are_in_place(quotes, quoted, marks | quotes, breaks, array == _RETURN):
            return None
        inner = np.flatnonzero(breaks & quoted)
        marks &= ~quoted
    at = np.flatnonzero(marks)
    last = np.flatnonzero(array[at] == _NEWLINE)  # the mark that ends each record
    if not len(last):
        return 0
    ends = at[last]
    separators = np.diff(last, prepend=-1) - 1
    starts = np.concatenate([[0], ends[:-1] + 1])
    length = ends - starts
    length -= (length > 0) & (array[ends - 1] == _RETURN)
    is_whole = separators == dialect.columns - 1
    is_blank = (length == 0) | (is_whole & (length == separators))
    if not (is_whole | is_blank).all():
        return None
    inner = inner[inner < ends[-1]]
    if len(inner) and not _count_split(data, np.unique(np.searchsorted(ends, inner)), starts, ends, dialect, count):
        return None
    blank = int(is_blank.sum())
    count.rows += len(ends) - blank
    count.blank += blank
    count.lines += len(ends) + len(inner)
    return int(ends[-1]) + 1


def _quotes_are_in_place(
    quotes: Bool[np.ndarray, " C"],
    quoted: Bool[np.ndarray, " C"],
    marks: Bool[np.ndarray, " C"],
    breaks: Bool[np.ndarray, " C"],
    returns: Bool[np.ndarray, " C"],
) -> bool:
    """Returns whether each quote opens a cell at its start, closes it at its end, or is doubled.

    Args:
      quotes: whether each byte, from the start of a record on, is a quote; later bytes are assumed to be valid.
      quoted: whether the byte is in a quoted cell, or opens one.
      marks: whether the byte is a quote, a separator or a line feed.
      breaks: whether the byte is a line feed.
      returns: whether the byte is a carriage return.
    """
    opened_inside = quotes[1:] & quoted[1:] & ~marks[:-1]
    closed_inside = quotes[:-1] & ~quoted[:-1] & ~marks[1:]
    closed_inside[:-1] &= ~(returns[1:-1] & breaks[2:])
    closed_inside[-1:] &= ~returns[-1:]
    return not (opened_inside.any() or closed_inside.any())


def _count_split(
    data: bytes, records: np.ndarray, starts: np.ndarray, ends: np.ndarray, dialect: Dialect, count: LineCount
) -> bool:
    """Counts records with line breaks in their cells; returns False if one of them holds whole rows."""
    if any(dialect.swallows_rows(data[starts[record] : ends[record]]) for record in records.tolist()):
        return False
    if not count.split_cells:
        count.first_split = count.lines + data.count(b"\n", 0, int(starts[records[0]])) + 1 - dialect.added_lines
    count.split_cells += len(records)
    return True
