"""Outcomes of an event as a log description names them: tasks to predict, actions that later events may see."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from siren_rope_jax.data.toml_section import Section
from siren_rope_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Signal:
    """A 0/1 outcome of an event: a task to predict, or an action that later events may see.

    Attributes:
      name: name in metrics and scores.
      column: the column it is read from; 0/1, unless `at_least` is given.
      any_of: 0/1 columns; the outcome is 1 if any of them is. Exactly one of `column` and `any_of` is given.
      at_least: the outcome is 1 where `column` has at least this value.
      observed: 0/1 column; where it is 0 the outcome is unobserved.
      known_at: column with the time, in the log's unit, from which the outcome, 0 or 1, is known; until then
        later events see "unobserved". For outcomes that are measured at a time, such as dwell.
      happened_at: column with the time at which a positive was made; until then later events see 0, "none
        yet", as they would have. For actions that users take after the event, such as a late like.
    """

    name: str
    column: str | None = None
    any_of: tuple[str, ...] = ()
    at_least: float | None = None
    observed: str | None = None
    known_at: str | None = None
    happened_at: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that the signal is read from."""
        optional = (self.column, *self.any_of, self.observed, self.known_at, self.happened_at)
        return tuple(column for column in optional if column is not None)


_SIGNAL_KEYS = [field.name for field in dataclasses.fields(Signal) if field.name != "name"]


def read_signals(source: str, where: str, table: object) -> tuple[Signal, ...]:
    """Checks the outcomes of a log description.

    Args:
      source: what error messages call the description.
      where: the section, such as "[tasks]".
      table: its content: for each name a column or a table of keys.

    Raises:
      InputError: on a bad name, an unknown key or a value of the wrong kind, in one sentence.
    """
    if not isinstance(table, Mapping):
        raise InputError(f"{source}: {where} must be a table of names and columns, found {table!r}")
    return tuple(_signal(source, where, name, value) for name, value in table.items())


def _signal(source: str, where: str, name: str, value: object) -> Signal:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        # The name becomes part of metric names, where a dot separates.
        raise InputError(f'{source}: {where} "{name}": expected a name of letters, digits, "_" and "-"')
    section = Section(source, f"{where} {name}", {"column": value} if isinstance(value, str) else value, _SIGNAL_KEYS)
    signal = Signal(
        name=name,
        column=section.text("column", None),
        any_of=section.texts("any_of"),
        at_least=section.number("at_least"),
        observed=section.text("observed", None),
        known_at=section.text("known_at", None),
        happened_at=section.text("happened_at", None),
    )
    if (signal.column is None) == (not signal.any_of):
        raise section.error("", "expected exactly one of column and any_of")
    if signal.any_of and signal.at_least is not None:
        raise section.error("at_least", "this key goes with column, not with any_of")
    if signal.known_at and signal.happened_at:
        raise section.error("", "expected at most one of known_at and happened_at")
    return signal


def signal_to_dict(signal: Signal) -> dict[str, Any]:
    """Returns the keys that the user gave: an absent `any_of` is not an empty one."""
    values = {key: getattr(signal, key) for key in _SIGNAL_KEYS}
    return {key: value for key, value in values.items() if value is not None and value != ()}
