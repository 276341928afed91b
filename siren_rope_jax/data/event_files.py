"""Files, folders and patterns of a log description -> the tables that they stand for."""

import glob
import re
import urllib.parse
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath
from typing import TypeVar

from siren_rope_jax.data.table_file import TABLE_ENDINGS, VAGUE
from siren_rope_jax.errors import InputError

_AnyPath = TypeVar("_AnyPath", bound=PurePath)
_PARTITION = re.compile(r"([A-Za-z_]\w*)=(.*)")
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


def event_files(named: Sequence[Path]) -> list[Path]:
    """Returns the tables that are named as files, as folders of tables, or by patterns such as "2024-*/*.parquet".

    A folder stands for all tables below it whose names do not begin with "." or "_", and which are of one format. Both
    are sorted by path, so that partitions by date are in the order of time.

    Raises:
      InputError: if a pattern matches no file, a folder holds no tables or those of several formats, or a file is named
        twice.
    """
    files: list[Path] = []
    for name in named:
        for file in _tables_in(name) if name.is_dir() else _matches(name):
            if file in files:
                raise InputError(f"{file} is named twice among the files of the log, expected once")
            files.append(file)
    return files


def partition_values(path: Path) -> dict[str, str | None]:
    """Returns the columns that the folders of a file name as "column=value", as Hive and Spark write partitions."""
    found = [match.groups() for part in path.parent.parts if (match := _PARTITION.fullmatch(part))]
    return {column: None if value == _NO_VALUE else urllib.parse.unquote(value) for column, value in found}


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


def _matches(name: Path) -> list[Path]:
    if name.exists() or not glob.has_magic(str(name)):
        return [name]
    found = sorted(Path(path) for path in glob.glob(str(name), recursive=True))
    files = [file for path in found for file in (_tables_in(path) if path.is_dir() else [path])]
    if not files:
        raise InputError(f"{name}: no file matches this pattern, expected at least one")
    # "**" matches folders and what is in them, and links may lead to what is matched too: the first path stays.
    return list({file.resolve(): file for file in reversed(files)}.values())[::-1]


def _tables_in(folder: Path) -> list[Path]:
    return of_one_format(folder, _shown_in(folder, frozenset()))


def _shown_in(folder: Path, above: frozenset[Path]) -> list[Path]:
    """Returns the files below a folder; also through links, but never back into a folder above."""
    above |= {folder.resolve()}
    shown = [path for path in folder.iterdir() if is_shown(path.relative_to(folder))]
    below = (path for path in shown if path.is_dir() and path.resolve() not in above)
    return [path for path in shown if path.is_file()] + [file for path in below for file in _shown_in(path, above)]


def _format(path: PurePath) -> str:
    kind = path.suffix.lower()
    return PurePath(path.stem).suffix.lower() if kind in (".gz", ".zip") and PurePath(path.stem).suffix else kind
