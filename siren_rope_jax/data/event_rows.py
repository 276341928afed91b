"""Event files -> rows: ids in one spelling, one row for each event, and new events matched with the log."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from siren_rope_jax.data.clock_times import without_ambiguous
from siren_rope_jax.data.event_columns import event_columns, outcomes
from siren_rope_jax.data.event_files import event_files
from siren_rope_jax.data.feature_columns import BETWEEN
from siren_rope_jax.data.matching import match_note
from siren_rope_jax.data.missing_ids import missing_ids_note, with_own_ids
from siren_rope_jax.data.negatives import check_features, with_negatives
from siren_rope_jax.data.open_table import open_table
from siren_rope_jax.data.periods import NEW, in_one_period, periods_of_files
from siren_rope_jax.data.precision import check_times
from siren_rope_jax.data.repeated_rows import one_row_per_event
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.data.stable_hash import stable_hash
from siren_rope_jax.data.whole_numbers import (
    Style,
    are_whole_numbers,
    as_whole_numbers,
    style_of,
    style_of_all,
    whole_numbers_note,
)
from siren_rope_jax.errors import InputError

_FEW_FILES = 8  # that are named one by one
IF_NEW = "pass --allow-unmatched if all of them are new"


class EventRows(NamedTuple):
    """Rows of a log and of its new events, in the order of the input.

    Attributes:
      rows: columns as `event_columns` names them, the categorical ones hashed; "row", counted over the files of the
        log, and separately in that of new events; "new"; and "period", if the split is given by files or a column.
      styles: style of whole numbers in the log, for "user" and "item".
      dense_names: names of "dense i".
      duplicates: number of rows dropped as equal to an earlier one.
      contradictions: number of events whose rows contradicted each other.
    """

    rows: pl.DataFrame
    styles: dict[str, Style]
    dense_names: tuple[str, ...]
    duplicates: int
    contradictions: int


def read_event_rows(
    spec: EventLogSpec,
    categorical_names: Sequence[str],
    new_events: Path | None,
    notes: list[str],
    *,
    allow_unmatched: bool,
) -> EventRows:
    """Reads the files of a log and a file of new events.

    Args:
      spec: files and columns of the log.
      categorical_names: names under which the categorical columns are hashed.
      new_events: the file of new events, if any.
      notes: receives notes for the user, one sentence each.
      allow_unmatched: whether new events may have only unknown users, items or values.

    Raises:
      InputError: if a file is invalid, or no user, item or value of the new events is known.
    """
    columns = {"user": spec.user} | ({} if spec.item is None else {"item": spec.item})
    columns |= {f"categorical {index}": column for index, column in enumerate(spec.categorical)}
    # Reassigned at every step, since two copies of a long log might not fit into memory.
    rows, styles, dense_names = _read_log(spec, columns, notes)
    if spec.split.is_given:
        rows, said = in_one_period(rows)
        notes += said
    rows, duplicates, contradictions, said = one_row_per_event(rows, spec)
    notes += said
    if spec.negatives is not None:
        named = {"categorical": spec.categorical, "dense": dense_names, "bag": [bag.column for bag in spec.bags]}
        check_features(rows, {f"{kind} {k}": name for kind, names in named.items() for k, name in enumerate(names)})
        index = next(index for index, signal in enumerate(outcomes(spec)) if getattr(signal, "always", False))
        rows, said = with_negatives(rows, spec.negatives, f"outcome {index}")
        notes += said
    rows = rows.with_columns(new=pl.lit(False))
    if new_events is not None:
        new = _read_new(spec, new_events, columns, styles, dense_names, notes)
        notes += _match_notes(new_events, new, rows, spec, columns, allow_unmatched=allow_unmatched)
        new = with_own_ids(new).with_row_index("row").with_columns(new=pl.lit(True))
        if spec.negatives is not None:
            new = new.with_columns(drawn=pl.lit(False))
        if spec.split.is_given:
            new = new.with_columns(period=pl.lit(NEW, pl.Int8))
        rows = pl.concat([rows, new.select(rows.columns)])
    for index, name in enumerate(categorical_names[: len(spec.categorical)]):
        column = f"categorical {index}"
        rows = rows.with_columns(pl.Series(column, stable_hash(rows[column], name)))
    return EventRows(rows, styles, dense_names, duplicates, contradictions)


def _read_log(
    spec: EventLogSpec, columns: dict[str, str], notes: list[str]
) -> tuple[pl.DataFrame, dict[str, Style], tuple[str, ...]]:
    files = event_files(spec.files)
    of_files: list[list[str]] = [[] for _ in files]
    parts, dense_names = [], None
    for file, said in zip(files, of_files, strict=True):
        part, dense_names = _read(file, spec, dense_names, said)
        parts.append(part)
    assert dense_names is not None  # a log has at least one file
    if len(files) > _FEW_FILES:
        rows_read = sum(part.height for part in parts)
        notes.append(f"{rows_read:,} rows read from {len(files):,} files, {files[0]} to {files[-1]}")
        of_files = [
            [note for note in said if not note.endswith(f"read from {file}")]
            for file, said in zip(files, of_files, strict=True)
        ]
    notes += itertools.chain(*of_files)
    styles = {name: [style_of(part[name]) for part in parts] for name in columns}
    if spec.split.by == "file":
        of_parts = zip(parts, periods_of_files(spec.split, files), strict=True)
        parts = [part.with_columns(period=pl.lit(number, pl.Int8)) for part, number in of_parts]
    rows = pl.concat(parts).with_row_index("row")
    if rows["user"].has_nulls() or rows["item"].has_nulls():  # only if the spec allows it
        rows = rows.drop_nulls(("user", "item"))
    for name, column in columns.items():
        if style_of_all(styles[name]) is Style.FLOATS:
            rows = rows.with_columns(as_whole_numbers(rows[name]))
            for file, style in zip(files, styles[name], strict=True):
                if style is Style.FLOATS:
                    notes.append(whole_numbers_note(file, column))
    return rows, {name: style_of_all(styles[name]) for name in columns}, dense_names


def _read_new(
    spec: EventLogSpec,
    file: Path,
    columns: dict[str, str],
    styles: dict[str, Style],
    dense_names: tuple[str, ...],
    notes: list[str],
) -> pl.DataFrame:
    rows, _ = _read(file, spec, dense_names, notes, are_new=True)
    for name, column in columns.items():
        if are_whole_numbers(style_of(rows[name]), styles[name]):
            rows = rows.with_columns(as_whole_numbers(rows[name]))
            notes.append(whole_numbers_note(file, column))
    return rows


def _read(
    file: Path, spec: EventLogSpec, dense_names: tuple[str, ...] | None, notes: list[str], *, are_new: bool = False
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    with open_table(file, spec.format) as table:
        columns, rules, names = event_columns(table, spec, are_new=are_new, dense_names=dense_names or ())
        if dense_names not in (None, names):
            lacks = ", ".join(sorted(set(dense_names or ()) - set(names))) or "none"
            more = ", ".join(sorted(set(names) - set(dense_names or ()))) or "none"
            raise InputError(
                f"{file}: expected the numbers of vectors that {spec.files[0]} has, found {more} in place of {lacks}"
            )
        rows = table.read(columns, rules)
    rows, said = without_ambiguous(file, rows, spec.time_zone)
    notes += [*table.notes, *said]
    notes += filter(None, [missing_ids_note(file, rows, is_new=are_new)])
    if spec.calendar:
        check_times(file, spec.timestamp, rows["time_ms"].to_numpy())
    return rows, names


def _match_notes(
    file: Path,
    new: pl.DataFrame,
    log: pl.DataFrame,
    spec: EventLogSpec,
    columns: dict[str, str],
    *,
    allow_unmatched: bool,
) -> list[str]:
    nouns = {name: name if name in ("user", "item") else f'value of "{column}"' for name, column in columns.items()}
    compared = [(noun, "new events", new[name], log[name]) for name, noun in nouns.items()]
    for index, bag in enumerate(spec.bags):
        texts, known = (rows[f"bag {index}"].str.split(BETWEEN).explode() for rows in (new, log))
        compared.append((f'value of "{bag.column}"', "values of new events", texts, known))
    notes = []
    for noun, whose, texts, known in compared:
        notes.append(
            match_note(
                texts.unique(maintain_order=True),
                texts.unique_counts().cast(pl.Int64).to_numpy(),
                known.unique(),
                subject=f"{file}: the log",
                noun=noun,
                whose=whose,
                remedy=None if allow_unmatched else IF_NEW,
            )
        )
    return [note for note in notes if note is not None]
