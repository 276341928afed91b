"""Reading the outcomes of a log description: a column, or a table of keys, for each name."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from siren_rope_jax.data.signals import SIGNALS, Signal
from siren_rope_jax.data.toml_section import Section
from siren_rope_jax.errors import InputError


def read_signals(source: str, where: str, table: object) -> tuple[Signal, ...]:
    """Checks the outcomes of a log description.

    Args:
      source: name of the description in error messages.
      where: the section, such as "[tasks]".
      table: content of the section: a column or a table of keys for each name.

    Raises:
      InputError: if a name is invalid, a key is unknown, or a value is of the wrong kind.
    """
    if not isinstance(table, Mapping):
        raise InputError(f"{source}: {where} must be a table of names and columns, found {table!r}")
    return tuple(_signal(source, where, name, value) for name, value in table.items())


def _signal(source: str, where: str, name: str, value: object) -> Signal:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        # The name becomes part of metric names, which contain a dot as a separator.
        raise InputError(f'{source}: {where} "{name}": expected a name of letters, digits, "_" and "-"')
    keys = {"column": value} if isinstance(value, str) else value
    given = keys.get("kind", "binary") if isinstance(keys, Mapping) else "binary"
    # If the kind is unknown, all keys are accepted, so that the error is about the kind.
    kinds = [SIGNALS[given]] if given in list(SIGNALS) else list(SIGNALS.values())
    known = dict.fromkeys(key for kind in kinds for key in _keys(kind))
    section = Section(source, f"{where} {name}", keys, ["kind", *known])
    return SIGNALS[section.choice("kind", tuple(SIGNALS))].from_section(name, section)


def _keys(kind: type[Signal]) -> list[str]:
    return [_key(field) for field in dataclasses.fields(kind) if field.name != "name"]


def _key(field: dataclasses.Field[Any]) -> str:
    return field.metadata.get("key", field.name)  # "in" is no name in Python


def signal_to_dict(signal: Signal) -> dict[str, Any]:
    """Returns the keys that differ from their defaults, since an empty `any_of` is not the same as an absent one."""
    fields = [field for field in dataclasses.fields(signal) if field.name != "name"]
    given = {
        _key(field): getattr(signal, field.name) for field in fields if getattr(signal, field.name) != field.default
    }
    return given if signal.kind == "binary" else {"kind": signal.kind, **given}
