"""Tables among the files of a folder, or among those that match a pattern."""

import re
from collections.abc import Iterable
from pathlib import PurePath
from typing import TypeVar

from siren_rope_jax.data.table_file import TABLE_ENDINGS, VAGUE
from siren_rope_jax.errors import InputError

_AnyPath = TypeVar("_AnyPath", bound=PurePath)
_HIDDEN = re.compile(r"(^|/)[._]")


def is_shown(path: PurePath) -> bool:
    """Returns whether neither a file nor a folder above it is hidden, as the remains of jobs are ("_SUCCESS")."""
    return all(part[0] not in "._" for part in path.parts)


def of_one_format(folder: object, paths: Iterable[_AnyPath]) -> list[_AnyPath]:
    """Returns the tables among the files of a folder, sorted.

    Raises:
      InputError: if there are none, or those of several formats.
    """
    # Text files of no certain format are more often notes than tables.
    tables = sorted(path for path in paths if _format(path) in TABLE_ENDINGS)
    formats = sorted({_format(path) for path in tables} - set(VAGUE))
    if len(formats) != 1:
        found = f"tables in {' and '.join(formats)}" if formats else "none"
        example = f"{PurePath(str(folder)).name}/*.csv"
        raise InputError(
            f'{folder}: expected tables of one format in this folder, found {found}; name them as "{example}"'
        )
    return [path for path in tables if _format(path) == formats[0]]


def shown_matches(pattern: str, paths: Iterable[_AnyPath]) -> list[_AnyPath]:
    """Leaves out what is hidden below the part of a pattern that is a name, unless the pattern names what is hidden."""
    above = PurePath(re.split(r"[*?[]", pattern, maxsplit=1)[0] + "*").parent
    if _HIDDEN.search(str(PurePath(pattern).relative_to(above))):
        return list(paths)
    return [path for path in paths if is_shown(path.relative_to(above))]


def without_compression(path: _AnyPath) -> _AnyPath:
    """Returns the path without .gz or .zip: beside each other, both most likely hold one table."""
    return path.with_suffix("") if path.suffix.lower() in (".gz", ".zip") else path


def _format(path: PurePath) -> str:
    inner = without_compression(path)
    return inner.suffix.lower() or path.suffix.lower()
