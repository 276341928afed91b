"""Files, folders and patterns of a log description -> the tables that they stand for."""

import glob
import itertools
import re
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

from siren_rope_jax.data.folder_tables import is_shown, of_one_format, shown_matches, without_compression
from siren_rope_jax.data.named_files import FileName, existing_file
from siren_rope_jax.data.remote_files import fetched, is_remote
from siren_rope_jax.errors import InputError

_PARTITION = re.compile(r"([A-Za-z_]\w*)=(.*)")
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


def event_files(named: Sequence[FileName]) -> list[Path]:
    """Returns the tables that are named as files, as folders of tables, or by patterns such as "2024-*/*.parquet".

    URLs of them are copied to this machine.

    A folder stands for all tables below it whose names do not begin with "." or "_", and which are of one format. Both
    are sorted by path, so that partitions by date are in the order of time.

    Raises:
      InputError: if a pattern matches no file, a folder holds no tables or those of several formats, or a file is named
        twice, be it plain and compressed or through a link.
    """
    files: dict[Path, Path] = {}
    for file in itertools.chain.from_iterable(map(_tables_of, named)):
        alike = without_compression(existing_file(file).resolve())
        if alike in files:
            other = "" if file == files[alike] else f", as {files[alike]} too"
            raise InputError(f"{file} is named twice among the files of the log{other}, expected once")
        files[alike] = file
    return list(files.values())


def _tables_of(name: FileName) -> list[Path]:
    if is_remote(name):
        return fetched(str(name))
    path = Path(name)
    return _tables_in(path) if path.is_dir() else _matches(path)


def partition_values(path: Path) -> dict[str, str | None]:
    """Returns the columns that the folders of a file name as "column=value", as Hive and Spark write partitions."""
    found = [match.groups() for part in path.parent.parts if (match := _PARTITION.fullmatch(part))]
    return {column: None if value == _NO_VALUE else urllib.parse.unquote(value) for column, value in found}


def _matches(name: Path) -> list[Path]:
    if name.exists() or not glob.has_magic(str(name)):
        return [name]
    found = shown_matches(str(name), sorted(Path(path) for path in glob.glob(str(name), recursive=True)))
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
