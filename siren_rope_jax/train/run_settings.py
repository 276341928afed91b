"""Settings of a run, read back from its `config.json`."""

import dataclasses
import json
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from siren_rope_jax import __version__
from siren_rope_jax.errors import InputError


def read_described(run: Path) -> dict[str, Any]:
    """Reads `config.json`: the run's settings, its log, and the description of the events; checks only the presence.

    Raises:
      InputError: if the file is damaged or of an earlier version.
    """
    try:
        described = json.loads((run / "config.json").read_text())
        parts = [described.get(name) for name in ("config", "log", "data")] if isinstance(described, dict) else [None]
        if not all(isinstance(part, dict) for part in parts):
            raise ValueError("it lacks a part; train again")
    except ValueError as error:  # includes errors of JSON and UTF-8
        raise InputError(f"{run / 'config.json'} is damaged: {error}") from None
    if "rows" not in described["data"]:
        raise InputError(f"{run} must be a run of siren-rope {__version__}, but is of an earlier version: train again")
    return described


def from_dict(cls: type, mapping: Any) -> Any:
    """Rebuilds a nested dataclass of tuples and plain values from its `dataclasses.asdict`, possibly read from JSON."""
    types = typing.get_type_hints(cls)
    if not isinstance(mapping, Mapping):
        raise ValueError(f"{cls.__name__} must be a table of settings, but is {mapping!r}")

    def convert(kind: Any, value: Any) -> Any:
        if dataclasses.is_dataclass(kind):
            return from_dict(typing.cast(type, kind), value)
        return tuple(value) if isinstance(value, list) else value

    unknown = sorted(set(mapping) - set(types))
    if unknown:
        raise ValueError(f"{cls.__name__} has no setting {', '.join(unknown)} in this version")
    return cls(**{name: convert(types[name], value) for name, value in mapping.items()})
