"""Split of a log into training, validation and test, from the section `[split]` of its description."""

import dataclasses
import datetime
from typing import Literal

from siren_rope_jax.data.toml_section import Section, is_number


@dataclasses.dataclass(frozen=True)
class Split:
    """Starts of validation and test.

    Attributes:
      validation_from: fraction of the events in time order (of the users with `by = "user"`), or an ISO date.
      test_from: fraction or date, as for validation_from, and later.
      by: "time", or "user", which splits whole users by a stable hash of their id.
    """

    validation_from: float | str
    test_from: float | str
    by: Literal["time", "user"] = "time"


def read_split(source: str, table: object) -> Split:
    """Checks the split of a log description.

    Args:
      source: name of the description in error messages.
      table: its section [split].

    Raises:
      InputError: if a key is unknown or missing, or a value is of the wrong kind.
    """
    section = Section(source, "[split]", table, ["by", "validation_from", "test_from"])
    by = section.choice("by", ("time", "user"))
    return Split(
        by=by,
        validation_from=_split_point(section, "validation_from", by),
        test_from=_split_point(section, "test_from", by),
    )


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
