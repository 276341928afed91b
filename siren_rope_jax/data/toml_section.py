"""Typed reading of one TOML table; errors name file, key, expected and found value."""

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any

from siren_rope_jax.errors import InputError

_MISSING = object()


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns ' (did you mean "x"?)' for the nearest known word, or an empty string if none is near."""
    by_lower_case = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), by_lower_case, n=1)
    return f' (did you mean "{by_lower_case[near[0]]}"?)' if near else ""


class Section:
    """One table of a description: raises for unknown keys, and returns values of the expected kind."""

    def __init__(self, source: str, where: str, table: object, keys: list[str]) -> None:
        self.source, self.where = source, where
        if not isinstance(table, Mapping):
            raise self.error("", f"expected a table of keys and values, found {table!r}")
        self.table: Mapping[str, Any] = table
        for key in table:
            if key not in keys:
                raise self.error("", f'has no key "{key}"{did_you_mean(key, keys)}, expected {", ".join(keys)}')

    def error(self, key: str, problem: str) -> InputError:
        place = " ".join(part for part in (self.where, key) if part) or "the description"
        return InputError(f"{self.source}: {place}{': ' if key else ' '}{problem}")

    def text(self, key: str, default: Any = _MISSING) -> Any:
        value = self.table.get(key, default)
        if value is _MISSING:
            raise self.error(key, "this key is missing, expected a text")
        if value is not default and not (isinstance(value, str) and value):
            raise self.error(key, f"expected a text in quotes, found {value!r}")
        return value

    def choice(self, key: str, choices: tuple[str, ...], default: str | None = None) -> Any:
        value = self.text(key, default or choices[0])
        if value not in choices:
            raise self.error(key, f"expected {' or '.join(map(repr, choices))}, found {value!r}")
        return value

    def texts(self, key: str, *, required: bool = False) -> tuple[str, ...]:
        values = self.table.get(key, [])
        if not (isinstance(values, list | tuple) and all(isinstance(value, str) and value for value in values)):
            raise self.error(key, f"expected a list of texts in quotes, found {values!r}")
        if required and not values:
            raise self.error(key, 'expected a list with at least one text, such as ["log.csv"]')
        for value in values:
            if values.count(value) > 1:
                raise self.error(key, f'"{value}" is listed twice')
        return tuple(values)

    def texts_and_tables(self, key: str, keys: list[str]) -> tuple[tuple[str, ...], tuple["Section", ...]]:
        """Returns the texts of a list, and its tables, which may have the given keys."""
        values = self.table.get(key, [])
        if not isinstance(values, list | tuple) or not all(isinstance(value, Mapping) or value for value in values):
            raise self.error(key, f"expected a list of texts in quotes or of tables of keys, found {values!r}")
        tables = [value for value in values if isinstance(value, Mapping)]
        texts = Section(self.source, self.where, {key: [x for x in values if not isinstance(x, Mapping)]}, [key])
        return texts.texts(key), tuple(Section(self.source, f"{self.where} {key}", table, keys) for table in tables)

    def flag(self, key: str, default: bool) -> bool:
        value = self.table.get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, f"expected true or false, found {value!r}")
        return value

    def number(self, key: str) -> float | None:
        value = self.table.get(key)
        if value is not None and not is_number(value):
            raise self.error(key, f"expected a finite number, found {value!r}")
        return None if value is None else float(value)

    def text_or_number(self, key: str) -> str | float | None:
        value = self.table.get(key)
        if value is not None and not _is_text_or_number(value):
            raise self.error(key, f"expected a text in quotes or a finite number, found {value!r}")
        return value

    def texts_or_numbers(self, key: str) -> tuple[str | float, ...]:
        values = self.table.get(key)
        if values is None:
            return ()
        alike = isinstance(values, list | tuple) and len({isinstance(value, str) for value in values}) == 1
        if not (alike and all(map(_is_text_or_number, values))):
            raise self.error(key, f"expected a list of texts in quotes or of finite numbers, found {values!r}")
        return tuple(values)


def _is_text_or_number(value: object) -> bool:
    return is_number(value) or (isinstance(value, str) and bool(value))


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
