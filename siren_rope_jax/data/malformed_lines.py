"""Exact, slow search for the malformed lines of a CSV or TSV file, once `count_lines` has found that there are some."""

import re
from collections.abc import Callable, Iterator

from siren_rope_jax.data.csv_lines import BYTE_ORDER_MARK, LONGEST_RECORD, Dialect, number_of

_NAMED = 3


def malformed_lines(dialect: Dialect) -> Iterator[tuple[int, str]]:
    """Yields the number of each malformed line, counted from 1, and a description of the fault.

    After a misplaced quote the search continues with the next line, so that one fault neither hides another nor makes
    valid lines look malformed.
    """
    grammar = _Grammar(dialect)
    with dialect.file.open("rb") as file:
        if file.read(len(BYTE_ORDER_MARK)) != BYTE_ORDER_MARK:
            file.seek(0)
        number = -dialect.added_lines
        while raw := file.readline():
            number += 1
            after, inner = file.tell(), []
            if grammar.opens(_without_break(raw)):
                inner = grammar.closing_lines(file.readline)
                if not inner:
                    yield number, f"the quote that opens a cell in line {number} is never closed"
                    file.seek(after)
                    continue
            elif not grammar.is_whole(_without_break(raw)):
                yield number, f"line {number} has a quote inside a cell"
                continue
            record, last = _without_break(b"".join((raw, *inner))), number + len(inner)
            if inner and dialect.swallows_rows(record):
                yield number, f"the quoted cell that opens in line {number} holds whole rows, up to line {last}"
            fields, columns = grammar.fields(record), dialect.columns
            if fields > columns:
                yield number, f"line {number} has {fields} fields instead of {columns}"
            elif fields < columns and not dialect.is_blank(record):
                cut = "" if raw.endswith(b"\n") else " and no line break, as where a file was cut"
                yield number, f"line {number} has {fields} of {columns} fields{cut}"
            number = last


def malformed(dialect: Dialect) -> str:
    """Returns one sentence on the malformed lines: the first few, and the number of others."""
    named: list[str] = []
    count, is_quote = 0, False
    for _, problem in malformed_lines(dialect):
        count += 1
        is_quote |= "quote" in problem
        if count <= _NAMED:
            named.append(problem)
    if not count:
        return f"a quoted cell is longer than {LONGEST_RECORD >> 20} MiB"
    hint = '; if quotes are part of the text of this file, set quote = "none"' if is_quote else ""
    more = f" and {number_of(count - _NAMED, 'more line')}" if count > _NAMED else ""
    return ", ".join(named) + more + hint


def line_of_row(dialect: Dialect, row: int) -> int:
    """Returns the line at which a data row, counted from 0, starts; blank lines below the header count as rows."""
    with dialect.file.open(encoding="utf-8", newline="") as file:
        reader = dialect.text_reader(file)
        for header in reader:
            if header:
                break
        line = reader.line_num + 1
        for _ in range(row):
            next(reader)
            line = reader.line_num + 1
    return line - dialect.added_lines


class _Grammar:
    """Regular expressions that match one line each, outside or inside a quoted cell."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.quote = dialect.quote
        q, separator = dialect.quote or b"\0", re.escape(dialect.separator)
        other = rb"[^%b]*+" % q
        pieces = rb"(?:%b%b%b)" % (q, other, q)
        cell = rb"(?:%b++|[^%b%b]*+)" % (pieces, q, separator)
        cells, opening = rb"(?:%b%b)*+" % (cell, separator), rb"%b*+%b%b" % (pieces, q, other)
        escaped = rb"%b(?:%b%b%b)*+" % (other, q, q, other)
        self._pieces = re.compile(pieces)
        self._whole = re.compile(cells + cell)
        self._opens = re.compile(cells + opening)
        self._stays = re.compile(escaped)
        self._closes = re.compile(rb"%b%b(?:%b%b)?" % (escaped, q, separator, cells + cell))
        self._opens_again = re.compile(escaped + q + separator + cells + opening)

    def is_whole(self, line: bytes) -> bool:
        return self.quote is None or self._whole.fullmatch(line) is not None

    def opens(self, line: bytes) -> bool:
        return self.quote is not None and self._opens.fullmatch(line) is not None

    def closing_lines(self, readline: Callable[[], bytes]) -> list[bytes]:
        """Returns the lines up to the one that closes the cell; an empty list if none closes it or one does not fit."""
        lines: list[bytes] = []
        size = 0
        while size <= LONGEST_RECORD and (raw := readline()):
            lines.append(raw)
            size += len(raw)
            line = _without_break(raw)
            if self._closes.fullmatch(line):
                return lines
            if not (self._stays.fullmatch(line) or self._opens_again.fullmatch(line)):
                return []
        return []

    def fields(self, record: bytes) -> int:
        unquoted = record if self.quote is None else self._pieces.sub(b"", record)
        return unquoted.count(self.dialect.separator) + 1


def _without_break(raw: bytes) -> bytes:
    return raw.removesuffix(b"\n").removesuffix(b"\r")
