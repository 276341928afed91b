"""File of an encoder, and the comparison of a stored encoder with a new one."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from siren_rope_jax.data.encode import Encoder, InputConfig
from siren_rope_jax.data.outcome_scale import OutcomeScale

_OUTCOMES = ("tasks", "actions")
_ARRAYS = ("dense_mean", "dense_std", "context_mean", "context_std", "context_transform")


def encoder_parts(encoder: Encoder) -> dict[str, Any]:
    """Returns the fields of an encoder by name, with the known ids of each column as separate entries."""
    fields = {field.name: getattr(encoder, field.name) for field in dataclasses.fields(encoder)}
    known = fields.pop("known_ids")
    return fields | {f"known_ids_{column}": ids for column, ids in enumerate(known)}


def save_encoder(encoder: Encoder, path: Path) -> None:
    """Writes an encoder as one .npz file."""
    fields = encoder_parts(encoder)
    arrays = {name: fields.pop(name) for name in list(fields) if isinstance(fields[name], np.ndarray)}
    fields["config"] = dataclasses.asdict(encoder.config)
    fields |= {name: [dataclasses.asdict(scale) for scale in fields[name]] for name in _OUTCOMES}
    np.savez(path, fields=json.dumps(fields), **arrays)


def load_encoder(path: Path) -> Encoder:
    """Reads an encoder that `save_encoder` wrote.

    Raises:
      OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile: if the file is missing, damaged or of
        another version.
    """
    with np.load(path) as file:
        arrays = dict(file)
    read: dict[str, Any] = json.loads(str(arrays.pop("fields")))
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in read.items()}
    fields["config"] = InputConfig(**fields["config"])
    fields["bag_values"] = tuple(map(tuple, fields["bag_values"]))
    fields |= {name: tuple(OutcomeScale(**scale) for scale in fields[name]) for name in _OUTCOMES}
    known = tuple(arrays.pop(f"known_ids_{column}") for column in range(len(fields["id_names"])))
    shapes = {name: array.shape[1:] for name, array in arrays.items() if array.dtype.kind == "f" and array.ndim}
    if shapes != {name: (6,) if name == "context_transform" else () for name in _ARRAYS}:
        raise ValueError(f"it must hold the numbers {', '.join(_ARRAYS)}, but holds {shapes}")
    return Encoder(known_ids=known, **fields, **arrays)


def encode_alike(mine: Encoder, theirs: Encoder) -> bool:
    """Returns whether both encode alike, up to differences of rounding between versions of NumPy."""
    names = [field.name for field in dataclasses.fields(mine)]
    return all(_alike(getattr(mine, name), getattr(theirs, name)) for name in names)


def _alike(mine: object, theirs: object) -> bool:
    if isinstance(mine, tuple) and isinstance(theirs, tuple):
        return len(mine) == len(theirs) and all(map(_alike, mine, theirs))
    if isinstance(mine, OutcomeScale) and isinstance(theirs, OutcomeScale):
        return _alike(dataclasses.astuple(mine), dataclasses.astuple(theirs))
    if isinstance(mine, (float, np.ndarray)) and isinstance(theirs, (float, np.ndarray)):
        close = np.allclose if np.result_type(mine).kind == "f" else np.array_equal
        return np.shape(mine) == np.shape(theirs) and close(mine, theirs)
    return mine == theirs
