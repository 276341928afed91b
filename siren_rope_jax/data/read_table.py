"""Reading of one table that is open, with checks of every row."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from siren_rope_jax.data.clock_times import parse_iso
from siren_rope_jax.data.csv_lines import Dialect, LineCount, count_lines, number_of
from siren_rope_jax.data.json_lines import JSON_LINES, count_objects, line_of_object
from siren_rope_jax.data.malformed_lines import line_of_row, malformed
from siren_rope_jax.data.table_errors import reading
from siren_rope_jax.data.toml_section import did_you_mean
from siren_rope_jax.errors import InputError

ROW, _BAD = "__row", "__bad"  # added to the user's columns
# Cells that pandas, R, SQL dumps and spreadsheets write for "no value", in exactly their spellings: "none", "nil" or
# "Na" may be a name.
MISSING_WORDS = ("", "NULL", "Null", "null", "NaN", "NAN", "nan", "-nan", "NaT", "NA", "N/A", "n/a", "#N/A", "<NA>")
MISSING_WORDS += ("None", r"\N")
# Prefixes of what `open_table` adds for each column of text.
STRIPPED, LOWER_CASE, NUMBER, CLOCK, OFFSET = "__stripped ", "__lower_case ", "__number ", "__clock ", "__offset "


@dataclasses.dataclass(frozen=True)
class Rule:
    """Condition on the cells of one column.

    Attributes:
      column: the column; the error shows its offending cell.
      valid: true for each row whose cell is as expected.
      expected: description of valid cells, for the error.
      hint: function of the offending cell that returns an addition to the error.
    """

    column: str
    valid: pl.Expr
    expected: str
    hint: Callable[[str], str] = lambda cell: ""

    @property
    def broken(self) -> pl.Expr:
        """True for each row whose cell is not as expected."""
        return ~self.valid.fill_null(False)


@dataclasses.dataclass(frozen=True)
class Table:
    """Table file that is open for reading; cells are read lazily, and only in the requested columns.

    Attributes:
      path: the file as the user named it.
      local: the decompressed file.
      frame: its columns, and the row number, without the blank lines of a text file.
      types: type of each column, those that folders name as "column=value" included; in a text file all are text.
      dialect: format of a CSV or TSV file; None for others.
      decimal_comma: whether numbers of a text table are written as 1,5.
      notes: notes of `read` for the user, one sentence each.
    """

    path: Path
    local: Path
    frame: pl.LazyFrame
    types: Mapping[str, Any]  # of polars.DataType, which beartype refuses as an annotation
    dialect: Dialect | None = None
    decimal_comma: bool = False
    notes: list[str] = dataclasses.field(default_factory=list)

    def require(self, column: str, key: str) -> str:
        """Returns `column`, or raises InputError if the table lacks it; `key` names the setting, for the error."""
        if column not in self.types:
            columns = f", which has {', '.join(self.types)}{self._separator_hint()}"
            suggestion = did_you_mean(column, self.types) or columns
            raise InputError(f'{self.path}: the column "{column}" ({key}) is not in this file{suggestion}')
        return column

    def _separator_hint(self) -> str:
        only = next(iter(self.types)) if self.dialect is not None and len(self.types) == 1 else ""
        counts = {separator: only.count(separator) for separator in ("::", ";", "|", "\t", ",")}
        found = max(counts, key=lambda separator: counts[separator])
        return f"; its cells look separated by {found!r}, give it as separator" if counts[found] else ""

    def is_text(self, column: str) -> bool:
        """Returns whether the cells are text, so that a missing value may be one of `MISSING_WORDS`."""
        return self.types[column] in (pl.String, pl.Categorical, pl.Enum)

    def text(self, column: str) -> pl.Expr:
        """Returns the cells as text, null where missing: empty, blank or one of `MISSING_WORDS`."""
        kind = self.types[column]
        if kind == pl.Null:  # no cell has a value
            return pl.lit(None, pl.String)
        if kind.is_nested() or kind == pl.Binary or kind == pl.Object:
            lists = "; lists are features written { column = ... }" if isinstance(kind, pl.List | pl.Array) else ""
            raise InputError(f'{self.path}: the column "{column}" holds {kind}, expected text or numbers{lists}')
        cell = pl.col(column).fill_nan(None) if kind.is_float() else pl.col(column)
        text = cell.cast(pl.String)
        if not self.is_text(column):
            return text
        stripped = pl.col(STRIPPED + column) if kind == pl.String else text.str.strip_chars()
        return pl.when(~stripped.is_in(MISSING_WORDS)).then(text)

    def number(self, column: str) -> tuple[pl.Expr, pl.Expr]:
        """Returns the cells as float64, null where missing, and whether each is missing or a number."""
        kind = self.types[column]
        if kind.is_numeric() or kind == pl.Boolean:
            return pl.col(column).cast(pl.Float64).fill_nan(None), pl.lit(True)
        if kind == pl.Null:
            return pl.lit(None, pl.Float64), pl.lit(True)
        if kind != pl.String:
            raise InputError(f'{self.path}: the column "{column}" holds {kind}, expected numbers')
        text, number = pl.col(STRIPPED + column), pl.col(NUMBER + column)
        return number.fill_nan(None), number.is_not_null() | text.is_in(MISSING_WORDS).fill_null(True)

    def clock(self, column: str) -> tuple[pl.Expr, pl.Expr | None, pl.Expr]:
        """Returns datetimes without a zone, seconds to UTC (None if all are in local time), and which cells are valid.

        An empty cell is valid. The cells are dates, datetimes, or ISO 8601 texts.
        """
        kind = self.types[column]
        if kind == pl.Date or kind == pl.Datetime:
            zone = getattr(kind, "time_zone", None)
            clock = pl.col(column).cast(pl.Datetime("ms")) if kind == pl.Date else pl.col(column)
            if zone is None:
                return clock, None, pl.lit(True)
            return clock.dt.convert_time_zone("UTC").dt.replace_time_zone(None), pl.lit(0), pl.lit(True)
        if kind == pl.Null:
            return pl.lit(None, pl.Datetime("ms")), None, pl.lit(True)
        if kind.is_integer():  # 20240501
            clock, offset = parse_iso(pl.col(column).cast(pl.String))
            return clock, offset, clock.is_not_null() | pl.col(column).is_null()
        if kind != pl.String:
            raise InputError(f'{self.path}: the column "{column}" holds {kind}, expected times as text or datetimes')
        clock, empty = pl.col(CLOCK + column), pl.col(STRIPPED + column).is_in(MISSING_WORDS).fill_null(True)
        return clock, pl.col(OFFSET + column), clock.is_not_null() | empty

    def flag(self, column: str) -> tuple[pl.Expr, pl.Expr]:
        """Returns the cells as true, false or null, and whether each cell is 0, 1, true, false or missing."""
        if self.types[column] == pl.Boolean:
            return pl.col(column), pl.lit(True)
        number, is_number = self.number(column)
        if self.types[column] != pl.String:
            return number == 1, is_number & number.is_in([0.0, 1.0]).fill_null(True)
        # Uses comparisons, since polars does not stream `replace`.
        word = pl.col(LOWER_CASE + column)
        true, false = (number == 1) | (word == "true"), (number == 0) | (word == "false")
        flag = pl.when(true).then(True).when(false).then(False)
        return flag, flag.is_not_null() | (is_number & number.is_null())

    def read(self, columns: Mapping[str, pl.Expr], rules: Sequence[Rule]) -> pl.DataFrame:
        """Reads expressions over the table.

        Args:
          columns: expression to read for each name of the result.
          rules: conditions on every row.

        Raises:
          InputError: if lines are malformed, a rule is broken (the message names the first offending row of the first
            such rule), or the table has no rows.
        """
        counted = self._count_lines()
        wanted = [expression.alias(name) for name, expression in columns.items()]
        bad = pl.any_horizontal(pl.lit(False), *[rule.broken for rule in rules]).alias(_BAD)
        with reading(self.path, self.local):
            data = self.frame.select(*wanted, bad).collect(engine="streaming")
        if data.height == 0:
            raise InputError(f"{self.path}: this file has no rows, expected at least one below the header")
        if counted is not None and counted.rows != data.height:
            raise InputError(
                f"{self.path}: {number_of(data.height, 'row')} were read, but its lines hold {counted.rows:,}, "
                "expected as many"
            )
        if data[_BAD].any():
            raise self._broken(rules)
        remarks = counted.remarks if counted else ""
        self.notes.append(f"{number_of(data.height, 'row')} read from {self.path}{remarks}")
        return data.drop(_BAD)

    def first(self, cells: pl.Expr) -> Any:
        """Returns the first value of an expression that is not null; None if there is none."""
        with reading(self.path, self.local):
            found = self.frame.select(cells.alias(_BAD)).filter(pl.col(_BAD).is_not_null()).head(1).collect()
        return found.item() if found.height else None

    def place(self, row: int) -> str:
        """Returns the user's name of a row, counted from 0: its line in a text file."""
        if self.dialect is not None:
            return f"line {line_of_row(self.dialect, row)}"
        if self.local.suffix in JSON_LINES:
            return f"line {line_of_object(self.local, row)}"
        return f"row {row} (counted from 0)"

    def _count_lines(self) -> LineCount | None:
        if self.local.suffix in JSON_LINES:
            return LineCount(rows=count_objects(self.local))
        if self.dialect is None:
            return None
        with reading(self.path, self.local):
            counted = count_lines(self.dialect)
        if counted is None:
            raise InputError(f"{self.path}: {malformed(self.dialect)}")
        return counted

    def _broken(self, rules: Sequence[Rule]) -> InputError:
        for rule in rules:
            offending = self.frame.filter(rule.broken).select(ROW, rule.column).head(1).collect()
            if offending.height:
                row, cell = offending.row(0)
                found = "an empty cell" if cell is None or cell == "" else repr(cell)
                others = self.frame.filter(rule.broken).select(pl.len()).collect(engine="streaming").item() - 1
                more = f" (and {number_of(others, 'more row')})" if others else ""
                return InputError(
                    f'{self.path}: {self.place(row)}, column "{rule.column}": expected {rule.expected}, '
                    f"found {found}{more}{rule.hint(str(cell))}"
                )
        raise AssertionError("no rule is broken")
