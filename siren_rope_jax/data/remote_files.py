"""Files of object stores and web servers -> copies on this machine, made once for each version of a file."""

import contextlib
import glob
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from rich.console import Console
from rich.progress import track

from siren_rope_jax.data.event_files import is_shown, of_one_format
from siren_rope_jax.errors import InputError

_AT_ONCE = 32  # files that are copied together; what is copied stays if a later file fails


def is_remote(name: str) -> bool:
    """Returns whether a name is a URL such as "s3://bucket/events" rather than a path."""
    return "://" in name


def fetched(url: str) -> list[Path]:
    """Copies the tables of a URL to the cache of this machine, unless their present versions are there.

    The path of a copy holds the version of the file, so that a run reads what it was trained on even if the file
    changes, and ends as the URL does, with the values of Hive's partitions.

    Args:
      url: a file, a folder of tables, or a pattern of either; its scheme is one that fsspec knows, such as s3, gs or
        https. Keys and options are those of the scheme's package, from the environment or its configuration files.

    Returns:
      Absolute paths of the copies, sorted by name.

    Raises:
      InputError: if nothing is found, the URL cannot be read, or the package of its scheme is not installed.
    """
    with _in_one_sentence(url):
        system, root = fsspec.url_to_fs(url)
        found = _files(system, root, url)
    if not found:
        raise InputError(f"{url}: no file matches, expected at least one")
    copies = {name: _copy_of(name, info, url) for name, info in sorted(found.items())}
    missing = [name for name, copy in copies.items() if not copy.is_file()]
    batches = [missing[first : first + _AT_ONCE] for first in range(0, len(missing), _AT_ONCE)]
    console = Console(stderr=True)
    for batch in track(batches, f"copying {url}", console=console, disable=not (missing and console.is_terminal)):
        # Under other names first, so that a copy that bears its name is whole.
        parts = {name: copies[name].with_name(f".{os.getpid()}.{copies[name].name}") for name in batch}
        with _in_one_sentence(url):
            system.get(list(parts), [str(part) for part in parts.values()])
        for name, part in parts.items():
            size = found[name].get("size")
            if size is not None and part.stat().st_size != size:
                raise InputError(f"{name} must have {size:,} bytes, but {part.stat().st_size:,} were copied; try again")
            part.replace(copies[name])
    return list(copies.values())


def _files(system: Any, root: str, url: str) -> dict[str, Mapping[str, Any]]:
    """Returns name -> facts of the tables that a URL stands for."""
    if not glob.has_magic(root):
        return _tables_in(system, root, url)
    above = PurePosixPath(re.split(r"[*?[]", root)[0] + "*").parent
    matched = {
        name: info
        for name, info in system.glob(root, detail=True).items()
        if is_shown(PurePosixPath(name).relative_to(above))
    }
    found = {name: info for name, info in matched.items() if info["type"] == "file"}
    for name, info in matched.items():
        if info["type"] == "directory":
            found |= _tables_in(system, name, name)
    return found


def _tables_in(system: Any, root: str, said: str) -> dict[str, Mapping[str, Any]]:
    found = system.find(root, detail=True)
    if len(found) == 1 and next(iter(found)).strip("/") == root.strip("/"):
        return found
    below = {PurePosixPath(name): name for name in found}
    shown = [path for path in below if is_shown(path.relative_to(root))]
    return {below[path]: found[below[path]] for path in of_one_format(said, shown)} if found else {}


def _copy_of(name: str, info: Mapping[str, Any], url: str) -> Path:
    """Returns the path of the copy of one version of a file."""
    parts = PurePosixPath(name.replace("://", "/").strip("/")).parts
    if ".." in parts:
        raise InputError(f'{url}: expected files without ".." in their names, found {name}')
    version = hashlib.sha256(repr(sorted(info.items(), key=lambda entry: entry[0])).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache.absolute() / "siren_rope_jax" / version / Path(*parts)


@contextlib.contextmanager
def _in_one_sentence(url: str) -> Iterator[None]:
    """Converts any error of a file system, whose packages raise their own kinds, to one sentence."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{url}: this file does not exist") from None
    except Exception as error:
        said = (str(error).splitlines() or [""])[0]
        raise InputError(f"{url} cannot be read: {type(error).__name__}: {said}") from None
