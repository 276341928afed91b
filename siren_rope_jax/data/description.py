"""First description of a log: its columns, the guesses of their roles, and the TOML file to correct."""

import dataclasses
import json
import re

from siren_rope_jax.data.text_format import TextFormat


@dataclasses.dataclass(frozen=True)
class Column:
    """Content of a column, counted over all files.

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
            return toml_of(self.name)
        split = "" if self.split is None else f", split = {toml_of(self.split)}"
        return f"{{ column = {toml_of(self.name)}{split} }}"


@dataclasses.dataclass(frozen=True)
class Description:
    """Content of the files of a log, and the guesses of a first description.

    Attributes:
      files: absolute paths and URLs.
      form: format of the text tables.
      columns: the columns, guessed.
      rows: number of rows.
      events_per_user: median and largest number of rows of a user; None without a guess for the user.
      tied: share of the rows that share user and time with another; None without guesses for both.
    """

    files: tuple[str, ...]
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
        lines += ["[log]", f"files = {toml_of(self.files)}"]
        for key in ("user", "item", "timestamp"):
            column = self.guessed(key)
            none = "  # which column? none if events have no item" if key == "item" else "  # which column?"
            lines.append(f"{key} = {toml_of(column.name)}" if column else f'# {key} = "?"{none}')
        time = self.guessed("timestamp")
        lines += [f"timestamp_unit = {toml_of(time.unit)}"] if time is not None and time.unit else []
        lines.append('# time_zone = "Europe/Paris"  # of the users; UTC if none')
        for field in dataclasses.fields(self.form):
            value = getattr(self.form, field.name)
            # The description of a separator of several characters implies the quote.
            if value != field.default and field.name != "quote":
                lines.append(f"{field.name} = {toml_of(value)}")
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


def _task_name(column: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", column).strip("_") or "task"


def toml_of(value: object) -> str:
    """Writes texts, truth values and lists of them as TOML."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_of, value))}]"
    # Texts and truth values are those of TOML, but for one character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
