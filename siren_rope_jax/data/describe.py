"""Tables of unknown columns -> a description of the log to correct: what each column holds, and what it may be."""

import dataclasses
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import polars as pl

from siren_rope_jax.data.clock_times import LOOKS_ISO, parse_iso
from siren_rope_jax.data.event_files import event_files
from siren_rope_jax.data.read_table import Table, open_table
from siren_rope_jax.data.sniff import sniff_format
from siren_rope_jax.data.text_format import TextFormat
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


@dataclasses.dataclass(frozen=True)
class Column:
    """What a column holds, counted over all files.

    Attributes:
      name: name in the files.
      kind: type of the cells: "number", "text", "time", "0/1", "bag" (several values), "vector" or another type, by its
        name.
      missing: share of the cells that are missing.
      distinct: number of different values.
      values: the values, most frequent first, if they are few.
      example: a value.
      unit: `timestamp_unit` with which the cells are times, None if they need none or are no times.
      guess: what the column may be: "user", "item", "timestamp", a task as TOML, "categorical", "dense" or "".
      split: text between the values of a bag, None if its cells are lists.
    """

    name: str
    kind: str
    missing: float
    distinct: int
    values: tuple[str, ...]
    example: str
    unit: str | None
    guess: str = ""
    split: str | None = None

    @property
    def feature(self) -> str:
        """The column as a feature, in TOML."""
        if self.kind not in ("bag", "vector"):
            return _toml(self.name)
        split = "" if self.split is None else f", split = {_toml(self.split)}"
        return f"{{ column = {_toml(self.name)}{split} }}"


@dataclasses.dataclass(frozen=True)
class Description:
    """What the files of a log hold, and the guesses of a first description.

    Attributes:
      files: absolute paths.
      form: format of the text tables.
      columns: the columns, guessed.
      rows: number of rows.
      events_per_user: median and largest number of rows of a user; None without a guess for the user.
      tied: share of the rows that share user and time with another; None without guesses for both.
    """

    files: tuple[Path, ...]
    form: TextFormat
    columns: tuple[Column, ...]
    rows: int
    events_per_user: tuple[int, int] | None = None
    tied: float | None = None

    def guessed(self, guess: str) -> Column | None:
        """Returns the column that may be the user, the item or the timestamp."""
        return next((column for column in self.columns if column.guess == guess), None)

    @property
    def tasks(self) -> list[Column]:
        """Columns that may be outcomes."""
        return [column for column in self.columns if column.guess.startswith(('"', "{"))]

    @property
    def lacking(self) -> list[str]:
        """Keys that no column could be guessed for."""
        names = [name for name in ("user", "timestamp") if self.guessed(name) is None]
        return names if self.tasks else [*names, "tasks"]

    def to_toml(self) -> str:
        """Returns the description that `train` reads, with what is left to decide as comments."""
        lines = ["# Guesses of siren-rope describe, to be corrected; siren_rope_jax/data/README.md shows all keys."]
        lines += ["[log]", f"files = {_toml([str(file) for file in self.files])}"]
        for key in ("user", "item", "timestamp"):
            column = self.guessed(key)
            none = "  # which column? none if events have no item" if key == "item" else "  # which column?"
            lines.append(f"{key} = {_toml(column.name)}" if column else f'# {key} = "?"{none}')
        time = self.guessed("timestamp")
        lines += [f"timestamp_unit = {_toml(time.unit)}"] if time is not None and time.unit else []
        lines.append('# time_zone = "Europe/Paris"  # of the users; UTC if none')
        for field in dataclasses.fields(self.form):
            value = getattr(self.form, field.name)
            # The description of a separator of several characters implies the quote.
            if value != field.default and field.name != "quote":
                lines.append(f"{field.name} = {_toml(value)}")
        lines += ["", "[tasks]  # what to predict; keep what matters"]
        names: list[str] = []
        for column in self.tasks:
            name = _task_name(column.name)
            names.append(name if name not in names else f"{name}_{len(names) + 1}")
            lines.append(f"{names[-1]} = {column.guess}")
        lines += [] if self.tasks else ['# click = "is_click"  # which column is 0 or 1, or to be compared?']
        lines += ["", "[features]  # take in only what is known before the outcome"]
        for kind in ("categorical", "dense"):
            found = ", ".join(column.feature for column in self.columns if column.guess == kind)
            lines.append(f"# {kind} = [{found}]")
        lines += ["", "[split]  # fractions of the events in time order, or dates"]
        lines += ["validation_from = 0.7", "test_from = 0.8"]
        if not self.tasks:
            lines += ["", "# [negatives]  # if every row is what a user did: draws other items, and needs no [tasks]"]
            lines.append("# per_positive = 4")
        return "\n".join(lines) + "\n"


def describe(files: Sequence[Path]) -> Description:
    """Looks at the files of a log, which have the same columns.

    Args:
      files: tables, folders of tables, or patterns.

    Raises:
      InputError: if a file cannot be read, or files differ in their columns or format.
    """
    tables, parts = event_files(files), []
    form = sniff_format(tables[0])
    for file in tables:
        if sniff_format(file) != form:
            raise InputError(f"{file} must be of the format of {tables[0]}, as files of one log are, but is not")
        with open_table(file, form) as table:
            parts.append(_read(table))
        if parts[-1].columns != parts[0].columns:
            raise InputError(f"{file} must have the columns of {tables[0]}, but has {', '.join(parts[-1].columns)}")
    rows = pl.concat(parts, how="vertical_relaxed")
    columns = _guess([_column(rows[name]) for name in rows.columns], rows.height)
    description = Description(tuple(Path(os.path.abspath(file)) for file in files), form, columns, rows.height)
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
    name, values = _toml(column.name), column.values
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
        return f"{{ column = {name}, equals = {_toml(values[1])} }}  # or {others}"
    if column.kind == "number" and not values:
        return "dense"
    return "categorical" if column.kind in ("text", "number") and column.distinct <= _MOST_CATEGORIES else ""


def _shown(value: object) -> str:
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def _listed(values: Iterable[str]) -> str:
    printed = ("".join(c if c.isprintable() else " " for c in value) for value in list(values)[:8])
    return ", ".join(" ".join(value.split()) for value in printed)


def _task_name(column: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", column).strip("_") or "task"


def _toml(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    # Texts and truth values are those of TOML, but for one character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
