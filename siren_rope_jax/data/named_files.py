"""Names of files, as descriptions and commands give them: paths and URLs."""

import glob
import os
from pathlib import Path

from siren_rope_jax.data.folder_tables import without_compression
from siren_rope_jax.data.remote_files import fetched, is_remote
from siren_rope_jax.data.toml_section import did_you_mean
from siren_rope_jax.errors import InputError

FileName = Path | str
"""A path of this machine, or the URL of a file elsewhere, as text."""


def absolute(folder: Path, name: str) -> FileName:
    """Returns the absolute path of a file, folder or pattern that is absolute or relative to a folder; a URL stays."""
    if is_remote(name):
        return name
    name = name.removeprefix("file://")
    path = Path(os.path.abspath(folder / name))
    # A folder that bears brackets in its own name is no pattern.
    is_pattern = glob.has_magic(name) and not path.exists()
    return Path(os.path.abspath(glob.escape(os.path.abspath(folder)) / Path(name))) if is_pattern else path


def existing_file(name: FileName) -> Path:
    """Returns a file, or its compressed or plain counterpart, or the copy of a URL.

    Raises:
      InputError: if it does not exist, or a URL stands for several files.
    """
    if is_remote(name):
        path, *more = fetched(str(name))
        if more:
            raise InputError(f"{name} must be one file, but {len(more) + 1:,} files match it")
        return path
    path = Path(str(name).removeprefix("file://"))
    plain = without_compression(path)
    others = [plain] if plain != path else [Path(f"{path}.gz"), Path(f"{path}.zip")]
    for candidate in (path, *others):
        if candidate.is_file():
            return candidate
    if path.is_dir():
        raise InputError(f"{path}: this is a folder, expected a file")
    siblings = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
    raise InputError(f"{path}: this file does not exist{did_you_mean(path.name, siblings)}")
