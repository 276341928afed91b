"""Split of a log into training, validation and test, from the section `[split]` of its description."""

import dataclasses
import datetime
from pathlib import Path
from typing import Any, Literal, get_args

from siren_rope_jax.data.named_files import absolute
from siren_rope_jax.data.toml_section import Section, is_number

By = Literal["time", "user", "column", "file", "last"]
# What a column of splits calls the periods, unless the description says otherwise.
_NAMES = {"train": ("train", "training"), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
_KEYS = {
    "time": ["validation_from", "test_from"],
    "user": ["validation_from", "test_from"],
    "column": ["column", "train", "validation", "test", "validation_from"],
    "file": ["validation", "test", "validation_from"],
    "last": [],
}


@dataclasses.dataclass(frozen=True)
class Split:
    """Which events are for validation, and which for test.

    Attributes:
      validation_from: fraction of the events in time order (of the users with `by = "user"`, of the events that are not
        for test with "column" and "file"), or an ISO date.
      test_from: fraction or date, as for validation_from, and later.
      by: "time"; "user", which splits whole users by a stable hash of their id; "column", whose cells name the period;
        "file"; or "last", which leaves the last second of each user for test and the one before for validation.
      column: the column with `by = "column"`.
      train: cells of the column that name training.
      validation: cells of the column, or absolute paths of the files, of validation.
      test: cells of the column, or absolute paths of the files, of test.
    """

    validation_from: float | str | None = None
    test_from: float | str | None = None
    by: By = "time"
    column: str | None = None
    train: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()

    @property
    def is_given(self) -> bool:
        """Whether the files tell the period of each event."""
        return self.by in ("column", "file")

    def to_dict(self) -> dict[str, Any]:
        """Returns the keys that have a value."""
        return {key: value for key, value in dataclasses.asdict(self).items() if value not in (None, ())}

    def __str__(self) -> str:
        return ", ".join(f"{key} = {list(x) if isinstance(x, tuple) else x!r}" for key, x in self.to_dict().items())


def read_split(source: str, table: object, folder: Path) -> Split:
    """Checks the split of a log description.

    Args:
      source: name of the description in error messages.
      table: its section [split].
      folder: base of relative file names.

    Raises:
      InputError: if a key is unknown or missing, or a value is of the wrong kind.
    """
    every_key = ["by", *dict.fromkeys(key for keys in _KEYS.values() for key in keys)]
    by = Section(source, "[split]", table, every_key).choice("by", get_args(By))
    section = Section(source, f'[split] by "{by}"' if by != "time" else "[split]", table, ["by", *_KEYS[by]])
    if by in ("time", "user"):
        return Split(_split_point(section, "validation_from", by), _split_point(section, "test_from", by), by)
    if by == "last":
        return Split(by=by)
    chosen = {key: tuple(map(_text, section.texts_or_numbers(key))) for key in ("train", "validation", "test")}
    column = section.text("column") if by == "column" else None
    if by == "file":
        # Kept absolute, since the description may be read from elsewhere later.
        chosen = {key: tuple(str(absolute(folder, name)) for name in names) for key, names in chosen.items()}
    else:
        chosen = {key: names or _NAMES[key] for key, names in chosen.items()}
    start = _split_point(section, "validation_from", "time") if "validation_from" in section.table else None
    if start is not None and "validation" in section.table:
        raise section.error("", "expected one of validation and validation_from, found both")
    if start is not None:
        chosen["validation"] = ()
    for key in ("validation", "test"):
        if not chosen[key] and (key == "test" or start is None):
            instead = ", or validation_from" if key == "validation" else ""
            raise section.error(key, f"this key is missing, expected a list of files{instead}")
    named = [name for names in chosen.values() for name in names]
    for name in named:
        if named.count(name) > 1:
            raise section.error("", f'expected each name once, found "{name}" twice')
    train, validation, test = chosen.values()
    return Split(validation_from=start, by=by, column=column, train=train, validation=validation, test=test)


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else str(int(value)) if value == int(value) else str(value)


def _split_point(section: Section, key: str, by: str) -> float | str:
    value = section.table.get(key)
    expected = "a fraction between 0 and 1" + (' or a date such as "2022-05-05T00:00:00"' if by == "time" else "")
    if value is None:
        raise section.error(key, f"this key is missing, expected {expected}")
    if is_number(value) and 0 < value < 1:
        return float(value)
    if isinstance(value, datetime.date):  # TOML dates and date-times, since datetime is a subclass
        value = value.isoformat()
    if isinstance(value, str) and by == "time":
        try:
            datetime.datetime.fromisoformat(value)
            return value
        except ValueError:
            pass
    raise section.error(key, f"expected {expected}, found {value!r}")
