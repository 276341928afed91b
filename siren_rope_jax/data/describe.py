"""Tables of unknown columns -> a description of the log to correct: what each column holds, and what it may be."""

import dataclasses
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import polars as pl

from siren_rope_jax.data.clock_times import LOOKS_ISO, parse_iso
from siren_rope_jax.data.description import Column, Description, toml_of
from siren_rope_jax.data.event_files import event_files
from siren_rope_jax.data.named_files import absolute
from siren_rope_jax.data.open_table import open_table
from siren_rope_jax.data.read_table import Table
from siren_rope_jax.data.sniff import sniff_format
from siren_rope_jax.data.unix_times import unix_unit
from siren_rope_jax.errors import InputError

_FEW = 25  # different values of a column that is shown whole
_MOST_CATEGORIES = 10_000
_EXACT = 2.0**53  # whole numbers above are not all float64s
_AS_NUMBER, _COUNT = "as a number ", "number of rows"  # beside the names of columns
# Words in the names of columns, the surest first.
_WORDS = {
    "timestamp": "timestamp time date stamp when ts day at",
    "user": "user uid person visitor customer member account patient student reader viewer client profile session",
    "item": "item movie film video product content article news track song book isbn asin sku post card business"
    " recipe photo artist show campaign page url doc ad",
    "outcome": "click like label target purchase buy bought convert conversion rating score stars follow share comment"
    " watch long show skip correct event action behavior behaviour type is",
}


def describe(files: Sequence[str | os.PathLike[str]]) -> Description:
    """Looks at the files of a log, which have the same columns.

    Args:
      files: tables, folders of tables, or patterns; URLs of them too.

    Raises:
      InputError: if a file cannot be read, or files differ in their columns or format.
    """
    names = [absolute(Path(), os.fspath(file)) for file in files]
    tables, parts = event_files(names), []
    form, *others = map(sniff_format, tables)
    for file, other in zip(tables[1:], others, strict=True):
        if other != form:
            raise InputError(f"{file} must be of the format of {tables[0]}, as files of one log are, but is not")
    for file in tables:
        with open_table(file, form) as table:
            parts.append(_read(table))
        if parts[-1].columns != parts[0].columns:
            raise InputError(f"{file} must have the columns of {tables[0]}, but has {', '.join(parts[-1].columns)}")
    rows = pl.concat(parts, how="vertical_relaxed")
    columns = _guess([_column(rows[name]) for name in rows.columns], rows.height)
    description = Description(tuple(map(str, names)), form, columns, rows.height)
    user, time = description.guessed("user"), description.guessed("timestamp")
    if user is None:
        return description
    counts = rows[user.name].drop_nulls().value_counts(name=_COUNT)[_COUNT].to_numpy()
    per_user = int(sorted(counts)[len(counts) // 2]), int(counts.max())
    tied = None if time is None else rows.select(pl.struct(user.name, time.name).is_duplicated().mean()).item()
    return dataclasses.replace(description, events_per_user=per_user, tied=tied)


def _read(table: Table) -> pl.DataFrame:
    """Reads the cells that can be compared; texts as numbers, if all are and a number keeps all their digits."""
    cells = {}
    for name, kind in table.types.items():
        if kind == pl.String:
            cells[name] = table.text(name).str.strip_chars()
            cells[_AS_NUMBER + name] = table.number(name)[0]
        elif isinstance(kind, pl.List | pl.Array) and kind.inner.is_nested():  # type: ignore[union-attr]
            continue
        elif isinstance(kind, pl.List | pl.Array) or not (kind.is_nested() or kind == pl.Binary or kind == pl.Object):
            cells[name] = pl.col(name)
    data = table.read(cells, [])
    for name in [name for name in data.columns if _AS_NUMBER + name in data.columns]:
        text, number = data[name], data[_AS_NUMBER + name]
        starts_with_zeros = text.str.contains(r"^0\d").any()  # as ids do
        # Nanoseconds need not be exact, ids need.
        is_exact = bool((number.abs() < _EXACT).all()) or _rank(name, "timestamp") is not None
        if number.null_count() == text.null_count() and not starts_with_zeros and is_exact:
            data = data.with_columns(number.alias(name))
        data = data.drop(_AS_NUMBER + name)
    return data


def _column(cells: pl.Series) -> Column:
    present = cells.drop_nulls()
    if isinstance(cells.dtype, pl.List | pl.Array):
        kind = "vector" if cells.dtype.inner.is_float() else "bag"  # type: ignore[union-attr]
        example = ", ".join(map(_shown, present[0])) if len(present) else ""
        guess = "dense" if kind == "vector" else "categorical"
        distinct = present.cast(pl.List(pl.String)).list.join("|").n_unique()
        return Column(cells.name, kind, cells.null_count() / len(cells), distinct, (), example, None, guess)
    distinct, values = present.n_unique(), ()
    if distinct <= _FEW:
        counted = present.value_counts(name=_COUNT).sort([_COUNT, cells.name], descending=[True, False])
        values = tuple(map(_shown, counted[cells.name]))
    unit = _time_unit(present)
    if unit is not None or cells.dtype.is_temporal():
        kind = "time"
    elif values and {value.lower() for value in values} <= {"0", "1", "true", "false"}:
        kind = "0/1"
    elif cells.dtype.is_numeric():
        kind = "number"
    else:
        kind = "text" if cells.dtype == pl.String else str(cells.dtype)
    example = _shown(present[0]) if len(present) else ""
    split = _bag_split(present) if kind == "text" else None
    kind, guess = (kind, "") if split is None else ("bag", "categorical")
    return Column(cells.name, kind, cells.null_count() / len(cells), distinct, values, example, unit, guess, split)


def _bag_split(cells: pl.Series) -> str | None:
    """Returns the text between the values of each cell, if a tenth of them seem to have several that come again."""
    for split in ("|", ";", ","):
        shares = cells.str.contains(split, literal=True).mean()
        values = cells.head(10_000).str.split(split).explode()
        if isinstance(shares, float) and shares > 0.1 and values.n_unique() < min(len(values), cells.n_unique()) / 2:
            return split
    return None


def _time_unit(cells: pl.Series) -> str | None:
    if not len(cells):
        return None
    if cells.dtype == pl.String:
        if not cells.head(1000).str.contains(LOOKS_ISO).all():
            return None
        clock, _ = parse_iso(pl.col(cells.name))
        return "iso" if cells.to_frame().select(clock.is_not_null().all()).item() else None
    if not cells.dtype.is_numeric():
        return None
    times = [float(time) for time in (cells.min(), cells.max())]  # type: ignore[arg-type]
    if times[0] >= 19_800_101 and times[1] < 21_000_101:
        dates = cells.to_frame().select(
            parse_iso(pl.col(cells.name).cast(pl.Int64).cast(pl.String))[0].is_not_null().all()
        )
        return "iso" if dates.item() else None
    return unix_unit(*times)


def _guess(columns: list[Column], rows: int) -> tuple[Column, ...]:
    # Ids may look like times, since some are made of them.
    ids = [column for column in columns if column.kind in ("number", "text", "time") and 2 < column.distinct < rows]
    times = [column for column in columns if column.kind == "time" and not column.missing]
    chosen: dict[str, str] = {}
    for role, candidates in (("timestamp", times), ("user", ids), ("item", ids)):
        ranks = {column: _rank(column.name, role) for column in candidates if column.name not in chosen}
        named = {column: rank for column, rank in ranks.items() if rank is not None}
        if not named and role == "timestamp":
            named = dict.fromkeys(ranks, (0, 0))  # the values alone tell a time
        if named:
            best = min(named, key=lambda column: (named[column], column.missing, -column.distinct))
            chosen[best.name] = role
    guesses = {column.name: chosen.get(column.name) or column.guess or _other_guess(column) for column in columns}
    # Columns of 0 and 1 may tell who someone is, as well as what happened: the names decide, where they can.
    flags = [column.name for column in columns if column.kind == "0/1" and column.name not in chosen]
    if any(guess.startswith("{") for guess in guesses.values()) or any(_rank(flag, "outcome") for flag in flags):
        guesses |= {flag: "categorical" for flag in flags if _rank(flag, "outcome") is None}
    return tuple(dataclasses.replace(column, guess=guesses[column.name]) for column in columns)


def _rank(name: str, role: str) -> tuple[int, int] | None:
    """Returns how surely the name of a column tells a role, (0, 0) the most; None if not at all."""
    parts = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    # Short words count as whole ones alone: "ad" is not in "load".
    patterns = (word if len(word) > 3 else rf"(^|[\W_]){word}(id)?($|[\W_])" for word in _WORDS[role].split())
    is_id = re.search(r"(^|[\W_]|[a-z])(id|key|code)$", parts) is not None
    of_id = is_id == (role in ("user", "item"))
    return next(((int(not of_id), rank) for rank, pattern in enumerate(patterns) if re.search(pattern, parts)), None)


def _other_guess(column: Column) -> str:
    name, values = toml_of(column.name), column.values
    if column.distinct < 2 or column.kind == "time":
        return ""
    if column.kind == "0/1":
        return name
    may_be_outcome = bool(values) and _rank(column.name, "outcome") is not None
    if may_be_outcome and column.kind == "number":
        numbers = sorted(map(float, values))
        return f"{{ column = {name}, at_least = {numbers[len(numbers) // 2]:g} }}  # of {_listed(map(_shown, numbers))}"
    if may_be_outcome and column.kind == "text":
        # The most frequent event is that something was shown or seen; the others are what users did.
        others = _listed(value for value in values if value != values[1])
        return f"{{ column = {name}, equals = {toml_of(values[1])} }}  # or {others}"
    if column.kind == "number" and not values:
        return "dense"
    return "categorical" if column.kind in ("text", "number") and column.distinct <= _MOST_CATEGORIES else ""


def _shown(value: object) -> str:
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def _listed(values: Iterable[str]) -> str:
    printed = ("".join(c if c.isprintable() else " " for c in value) for value in list(values)[:8])
    return ", ".join(" ".join(value.split()) for value in printed)
