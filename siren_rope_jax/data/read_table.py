"""Reading of one table file (CSV, TSV, JSON Lines or Parquet, plain or compressed), with checks of every row."""

import contextlib
import dataclasses
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from siren_rope_jax.data.clock_times import parse_iso
from siren_rope_jax.data.csv_lines import Dialect, LineCount, count_lines, number_of
from siren_rope_jax.data.event_files import partition_values
from siren_rope_jax.data.json_lines import JSON_LINES, count_objects, line_of_object, malformed_objects
from siren_rope_jax.data.malformed_lines import line_of_row, malformed
from siren_rope_jax.data.table_file import TEXT, decompressed, existing_file
from siren_rope_jax.data.text_format import TextFormat, plain_table, wrong_encoding
from siren_rope_jax.data.toml_section import did_you_mean
from siren_rope_jax.errors import InputError

PLAIN = TextFormat()
_ROW, _BAD = "__row", "__bad"  # added to the user's columns
# Cells that pandas, R, SQL dumps and spreadsheets write for "no value", in exactly their spellings: "none", "nil" or
# "Na" may be a name.
MISSING_WORDS = ("", "NULL", "Null", "null", "NaN", "NAN", "nan", "-nan", "NaT", "NA", "N/A", "n/a", "#N/A", "<NA>")
MISSING_WORDS += ("None", r"\N")
# Prefixes, for each column of text.
_STRIPPED, _LOWER_CASE, _NUMBER, _CLOCK, _OFFSET = "__stripped ", "__lower_case ", "__number ", "__clock ", "__offset "


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
        stripped = pl.col(_STRIPPED + column) if kind == pl.String else text.str.strip_chars()
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
        text, number = pl.col(_STRIPPED + column), pl.col(_NUMBER + column)
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
        clock, empty = pl.col(_CLOCK + column), pl.col(_STRIPPED + column).is_in(MISSING_WORDS).fill_null(True)
        return clock, pl.col(_OFFSET + column), clock.is_not_null() | empty

    def flag(self, column: str) -> tuple[pl.Expr, pl.Expr]:
        """Returns the cells as true, false or null, and whether each cell is 0, 1, true, false or missing."""
        if self.types[column] == pl.Boolean:
            return pl.col(column), pl.lit(True)
        number, is_number = self.number(column)
        if self.types[column] != pl.String:
            return number == 1, is_number & number.is_in([0.0, 1.0]).fill_null(True)
        # Uses comparisons, since polars does not stream `replace`.
        word = pl.col(_LOWER_CASE + column)
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
        with _reading(self.path, self.local):
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
        with _reading(self.path, self.local):
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
        with _reading(self.path, self.local):
            counted = count_lines(self.dialect)
        if counted is None:
            raise InputError(f"{self.path}: {malformed(self.dialect)}")
        return counted

    def _broken(self, rules: Sequence[Rule]) -> InputError:
        for rule in rules:
            offending = self.frame.filter(rule.broken).select(_ROW, rule.column).head(1).collect()
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


@contextlib.contextmanager
def open_table(path: Path, form: TextFormat = PLAIN) -> Iterator[Table]:
    """Opens a table file, whose name defines the format.

    Args:
      path: .csv, .tsv, .txt, .dat, .data, .jsonl, .ndjson or .parquet, alone or followed by .gz or .zip, or a .zip that
        holds one such table. If a plain file is absent, .gz and .zip are tried, and the reverse.
      form: format of the file if it is a text table.

    Raises:
      InputError: if the file is missing, empty, damaged, not UTF-8 or of another format.
    """
    path = existing_file(path)
    with tempfile.TemporaryDirectory() as folder:
        with _reading(path, path):
            local = decompressed(path, Path(folder))
        with _reading(path, local):
            text = plain_table(path, local, form, Path(folder)) if local.suffix in TEXT else None
            local = local if text is None else text.file
            if text is not None:
                frame = pl.scan_csv(
                    text.file,
                    separator=text.separator,
                    quote_char=None if form.quote == "none" else form.quote,
                    infer_schema=False,
                    glob=False,
                    row_index_name=_ROW,
                )
            elif local.suffix == ".parquet":
                frame = pl.scan_parquet(local, glob=False, row_index_name=_ROW)
            else:
                frame = _scan_json_lines(path, local)
            types = dict(frame.drop(_ROW).collect_schema())
        dialect = None
        if text is not None:
            if any("\N{REPLACEMENT CHARACTER}" in name for name in types):
                raise InputError(wrong_encoding(path, local, "utf-8"))
            for name in types:
                twice, renamed, _ = name.partition("_duplicated_")  # polars renames repeated columns so
                if renamed and twice in types:
                    raise InputError(f'{path}: the header names the column "{twice}" twice, expected it once')
            frame = frame.filter(~pl.all_horizontal(pl.col(list(types)).is_null()))  # blank lines
            enclosing = None if form.quote == "none" else form.quote.encode()
            dialect = Dialect(text.file, text.separator.encode(), enclosing, len(types), text.added_lines)
        folders = {name: value for name, value in partition_values(path).items() if name not in types}
        frame = frame.with_columns(pl.lit(value, pl.String).alias(name) for name, value in folders.items())
        types |= dict.fromkeys(folders, pl.String())
        yield Table(path, local, _with_readings(frame, types, form), types, dialect, form.decimal_comma)


def _scan_json_lines(path: Path, local: Path) -> pl.LazyFrame:
    frame = pl.scan_ndjson(local, infer_schema_length=None, row_index_name=_ROW)  # a type may show in the last line
    try:
        frame.collect_schema()
    except pl.exceptions.PolarsError:
        if fault := malformed_objects(local):
            raise InputError(f"{path}: {fault}, expected one JSON object in each line") from None
        if not count_objects(local):
            raise InputError(f"{path}: this file has no rows, expected one JSON object in each line") from None
        raise
    return frame


def _with_readings(frame: pl.LazyFrame, types: Mapping[str, Any], form: TextFormat) -> pl.LazyFrame:
    """Adds parsed forms of the columns of text, since polars would parse again for every expression that needs them.

    The frame is lazy, so that forms that no expression needs cost nothing.
    """
    texts = [column for column, kind in types.items() if kind == pl.String]
    stripped = {_STRIPPED + column: pl.col(column).str.strip_chars() for column in texts}

    def number(column: str) -> pl.Expr:
        text = pl.col(_STRIPPED + column)
        text = text.str.replace(",", ".", literal=True) if form.decimal_comma else text
        return text.cast(pl.Float64, strict=False)

    numbers = {_NUMBER + column: number(column) for column in texts}
    lower_case = {_LOWER_CASE + column: pl.col(_STRIPPED + column).str.to_lowercase() for column in texts}
    times = {column: parse_iso(pl.col(_STRIPPED + column)) for column in texts}
    clocks = {_CLOCK + column: clock for column, (clock, _) in times.items()}
    offsets = {_OFFSET + column: offset for column, (_, offset) in times.items()}
    return frame.with_columns(**stripped).with_columns(**numbers, **lower_case, **clocks, **offsets)


@contextlib.contextmanager
def _reading(path: Path, local: Path) -> Iterator[None]:
    """Converts any error of a reader to an InputError with one sentence."""
    try:
        yield
    except pl.exceptions.NoDataError:
        raise InputError(f"{path}: this file is empty") from None
    except pl.exceptions.PolarsError as error:
        if "utf-8" in str(error):
            raise InputError(wrong_encoding(path, local, "utf-8")) from None
        raise InputError(f"{path}: this file cannot be read as a table: {_first_line(error)}") from None
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError) as error:
        # zipfile raises a RuntimeError for encrypted archives and for unknown compressions.
        raise InputError(f"{path}: this file cannot be read or is damaged: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
