"""Names of files in a log description -> absolute paths on this machine."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from siren_rope_jax.data.remote_files import fetched, is_remote
from siren_rope_jax.errors import InputError


def named_files(folder: Path, names: Sequence[str]) -> tuple[Path, ...]:
    """Returns what names stand for: paths relative to a folder, which may be patterns, and copies of URLs.

    Raises:
      InputError: if a URL cannot be copied.
    """
    of_names = (fetched(name) if is_remote(name) else [_absolute(folder, name)] for name in names)
    return tuple(path for paths in of_names for path in paths)


def _absolute(folder: Path, name: str) -> Path:
    path = Path(os.path.abspath(folder / name))
    # A folder that bears brackets in its own name is no pattern.
    is_pattern = glob.has_magic(name) and not path.exists()
    return Path(os.path.abspath(glob.escape(os.path.abspath(folder)) / Path(name))) if is_pattern else path


def named_file(folder: Path, name: str) -> Path:
    """Returns what a name stands for, as `named_files`, if it is one file.

    Raises:
      InputError: also if a URL stands for several files.
    """
    path, *more = named_files(folder, [name])
    if more:
        raise InputError(f"{name} must be one file, but {len(more) + 1:,} files match it")
    return path
