"""Columns of features in a log description: plain ones, bags of values, and vectors of numbers."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from siren_rope_jax.data.named_files import FileName, absolute
from siren_rope_jax.data.toml_section import Section


@dataclasses.dataclass(frozen=True)
class BagColumn:
    """A column with any number of values in each cell, such as genres.

    Attributes:
      column: the column.
      split: text between the values; None for a column of lists.
    """

    column: str
    split: str | None = None


@dataclasses.dataclass(frozen=True)
class VectorColumn:
    """Numbers that belong together, such as an embedding of a text; exactly one attribute is given.

    Attributes:
      column: column of lists, or of texts such as "[0.5, 1]".
      columns: pattern of the names of columns of numbers, such as "embedding_*".
      file: NumPy file with one row for each row of its side table; an absolute path or URL.
    """

    column: str | None = None
    columns: str | None = None
    file: FileName | None = None

    @property
    def name(self) -> str:
        """Name of the vector; its numbers are NAME[0], NAME[1] and so on."""
        if self.file is not None:
            return Path(self.file).name.removesuffix(".npy")
        return self.column or str(self.columns)


@runtime_checkable
class _Described(Protocol):
    """A description of a table with features."""

    @property
    def categorical(self) -> tuple[str, ...]: ...
    @property
    def dense(self) -> tuple[str, ...]: ...
    @property
    def bags(self) -> tuple[BagColumn, ...]: ...
    @property
    def vectors(self) -> tuple[VectorColumn, ...]: ...


def read_features(section: Section, folder: Path | None = None) -> dict[str, Any]:
    """Checks the keys "categorical" and "dense", in which a table of keys stands for a bag or a vector.

    Args:
      section: section of the description that has these keys.
      folder: base of relative names of NumPy files; None where there can be none.

    Returns:
      Values of the fields categorical, dense, bags and vectors.

    Raises:
      InputError: if a value is of the wrong kind, or a column is named twice.
    """
    categorical, bags = section.texts_and_tables("categorical", ["column", "split"])
    keys = ["column", "columns"] if folder is None else ["column", "columns", "file"]
    dense, vectors = section.texts_and_tables("dense", keys)
    found: dict[str, Any] = {"categorical": categorical, "dense": dense}
    found["bags"] = tuple(BagColumn(bag.text("column"), bag.text("split", None)) for bag in bags)
    found["vectors"] = tuple(_vector(vector, keys, folder) for vector in vectors)
    for key, names in (
        ("categorical", [*categorical, *(bag.column for bag in found["bags"])]),
        ("dense", [*dense, *(vector.name for vector in found["vectors"])]),
    ):
        for name in names:
            if names.count(name) > 1:
                raise section.error(key, f'"{name}" is listed twice')
    return found


def features_to_dict(described: _Described) -> dict[str, list[Any]]:
    """Returns the keys that `read_features` reads."""

    def given(table: object) -> Mapping[str, str]:
        fields = dataclasses.asdict(table)  # type: ignore[call-overload]
        return {key: str(value) for key, value in fields.items() if value is not None}

    return {
        "categorical": [*described.categorical, *map(given, described.bags)],
        "dense": [*described.dense, *map(given, described.vectors)],
    }


def _vector(section: Section, keys: list[str], folder: Path | None) -> VectorColumn:
    if len(section.table) != 1:
        raise section.error("", f"expected one of {', '.join(keys)}, found {', '.join(section.table) or 'none'}")
    key = next(iter(section.table))
    value = section.text(key)
    if key == "file" and folder is not None:
        return VectorColumn(file=absolute(folder, value))
    return VectorColumn(**{key: value})
