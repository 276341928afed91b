"""Opening of one table file: CSV, TSV, other text tables, JSON Lines or Parquet, plain or compressed."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from siren_rope_jax.data.clock_times import parse_iso
from siren_rope_jax.data.csv_lines import Dialect
from siren_rope_jax.data.event_files import partition_values
from siren_rope_jax.data.json_lines import count_objects, malformed_objects, without_mark
from siren_rope_jax.data.named_files import FileName, existing_file
from siren_rope_jax.data.read_table import CLOCK, LOWER_CASE, NUMBER, OFFSET, ROW, STRIPPED, Table
from siren_rope_jax.data.table_errors import reading
from siren_rope_jax.data.table_file import TEXT, decompressed
from siren_rope_jax.data.text_format import TextFormat, plain_table, wrong_encoding
from siren_rope_jax.errors import InputError

PLAIN = TextFormat()


@contextlib.contextmanager
def open_table(name: FileName, form: TextFormat = PLAIN) -> Iterator[Table]:
    """Opens a table file, whose name defines the format.

    Args:
      name: .csv, .tsv, .txt, .dat, .data, .jsonl, .ndjson or .parquet, alone or followed by .gz or .zip, or a .zip that
        holds one such table. If a plain file is absent, .gz and .zip are tried, and the reverse. A URL is copied.
      form: format of the file if it is a text table.

    Raises:
      InputError: if the file is missing, empty, damaged, not UTF-8 or of another format.
    """
    path = existing_file(name)
    with tempfile.TemporaryDirectory() as folder:
        with reading(path, path):
            local = decompressed(path, Path(folder))
        with reading(path, local):
            text = plain_table(path, local, form, Path(folder)) if local.suffix in TEXT else None
            local = text.file if text is not None else local
            if text is not None:
                frame = pl.scan_csv(
                    text.file,
                    separator=text.separator,
                    quote_char=None if form.quote == "none" else form.quote,
                    infer_schema=False,
                    glob=False,
                    row_index_name=ROW,
                )
            elif local.suffix == ".parquet":
                frame = pl.scan_parquet(local, glob=False, row_index_name=ROW)
            else:
                local = without_mark(local, Path(folder))
                frame = _scan_json_lines(path, local)
            types = dict(frame.drop(ROW).collect_schema())
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
    frame = pl.scan_ndjson(local, infer_schema_length=None, row_index_name=ROW)  # a type may show in the last line
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
    stripped = {STRIPPED + column: pl.col(column).str.strip_chars() for column in texts}

    def number(column: str) -> pl.Expr:
        text = pl.col(STRIPPED + column)
        if not form.decimal_comma:
            return text.cast(pl.Float64, strict=False)
        # A dot between thousands must not be read as a decimal one.
        number = text.str.replace(",", ".", literal=True).cast(pl.Float64, strict=False)
        return pl.when(~text.str.contains(".", literal=True)).then(number)

    numbers = {NUMBER + column: number(column) for column in texts}
    lower_case = {LOWER_CASE + column: pl.col(STRIPPED + column).str.to_lowercase() for column in texts}
    times = {column: parse_iso(pl.col(STRIPPED + column)) for column in texts}
    clocks = {CLOCK + column: clock for column, (clock, _) in times.items()}
    offsets = {OFFSET + column: offset for column, (_, offset) in times.items()}
    return frame.with_columns(**stripped).with_columns(**numbers, **lower_case, **clocks, **offsets)
