"""Files of object stores and web servers -> copies on this machine, made once for each version of a file."""

import contextlib
import glob
import hashlib
import os
import shutil
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from rich.console import Console
from rich.progress import track

from siren_rope_jax.data.folder_tables import is_shown, of_one_format, shown_matches
from siren_rope_jax.errors import InputError

_AT_ONCE = 32  # files that are copied together; what is copied stays if a later file fails
# Facts that tell a version of a file, by the names that stores give them; a store tells one of them in every answer.
_VERSIONS = (
    "ETag",
    "etag",
    "md5Hash",
    "Content-MD5",
    "mtime",
    "LastModified",
    "Last-Modified",
    "last_modified",
    "created",
)
_Facts = Mapping[str, Any]


def is_remote(name: object) -> bool:
    """Returns whether a name is a URL such as "s3://bucket/events" rather than a path of this machine."""
    return "://" in str(name) and not str(name).startswith("file://")


def fetched(url: str) -> list[Path]:
    """Copies the tables of a URL to the cache of this machine, unless their present versions are there.

    The path of a copy holds the hash of its content and ends as the URL does, with the values of Hive's partitions: the
    same bytes have one path, whatever the store tells of them.

    Args:
      url: a file, a folder of tables, or a pattern of either; its scheme is one that fsspec knows, such as s3 or gs.
        Keys and options are those of the scheme's package, from the environment or its configuration files. Web servers
        (http, https) list nothing reliably: their URLs are files.

    Returns:
      Absolute paths of the copies, sorted by name.

    Raises:
      InputError: if nothing is found, the URL cannot be read, or the package of its scheme is not installed.
    """
    with _in_one_sentence(url):
        system, root = fsspec.url_to_fs(url)
        system.invalidate_cache()  # of listings made earlier in this process
        found = _files(system, root, url)
    if not found:
        raise InputError(f"{url}: no file matches, expected at least one")
    known = {name: _known_copy(name, found[name], url) for name in sorted(found)}
    missing = [name for name, copy in known.items() if copy is None]
    batches = [missing[first : first + _AT_ONCE] for first in range(0, len(missing), _AT_ONCE)]
    console = Console(stderr=True)
    for batch in track(batches, f"copying {url}", console=console, disable=not (missing and console.is_terminal)):
        known |= _copied(system, {name: found[name] for name in batch}, url)
    return [copy for copy in known.values() if copy is not None]


def _files(system: Any, root: str, url: str) -> dict[str, _Facts]:
    """Returns name -> facts of the tables that a URL stands for."""
    is_web = url.startswith(("http://", "https://"))
    if is_web or not glob.has_magic(root) or system.exists(root):
        # A file is asked for itself: listings of one file may lack the facts of its version.
        return {root: system.info(root)} if is_web or system.isfile(root) else _tables_in(system, root, url)
    matched = system.glob(root, detail=True)
    shown = {str(path) for path in shown_matches(root, map(PurePosixPath, matched))}
    found = {}
    for name, facts in matched.items():
        if str(PurePosixPath(name)) in shown:
            found |= _tables_in(system, name, name) if facts["type"] == "directory" else {name: facts}
    return found


def _tables_in(system: Any, root: str, said: str) -> dict[str, _Facts]:
    found = system.find(root, detail=True)
    above = {PurePosixPath("/", name): name for name in found}
    shown = [path for path in above if is_shown(path.relative_to(PurePosixPath("/", root)))]
    return {above[path]: found[above[path]] for path in of_one_format(said, shown)} if found else {}


def _cache() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return folder.absolute() / "siren_rope_jax"


def _copy_of(content: str, name: str, url: str) -> Path:
    path = urllib.parse.unquote(urllib.parse.urlsplit(name).path) if url.startswith("http") else name
    parts = PurePosixPath(path.strip("/")).parts
    if ".." in parts:
        raise InputError(f'{url}: expected files without ".." in their names, found {name}')
    return _cache() / content / Path(*parts)


def _note_of(name: str, facts: _Facts, url: str) -> Path | None:
    """Returns the file that notes the content of a version, if the store tells versions apart."""
    version = next((str(facts[key]).strip('"') for key in _VERSIONS if facts.get(key)), None)
    if version is None:
        return None
    scheme = url.partition("://")[0]
    told = f"{scheme}://{name} {facts.get('size')} {version}"
    return _cache() / "versions" / hashlib.sha256(told.encode()).hexdigest()


def _known_copy(name: str, facts: _Facts, url: str) -> Path | None:
    note = _note_of(name, facts, url)
    if note is None or not note.is_file():
        return None
    copy = _copy_of(note.read_text(), name, url)
    return copy if copy.is_file() else None


def _copied(system: Any, files: dict[str, _Facts], url: str) -> dict[str, Path]:
    """Copies files under other names first, so that a copy that bears its name is whole."""
    folder = _cache() / f".{os.getpid()}"
    parts = {name: folder / str(number) for number, name in enumerate(files)}
    copies = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _in_one_sentence(url):
            system.get(list(parts), [str(part) for part in parts.values()])
        for name, part in parts.items():
            size = files[name].get("size")
            if size is not None and part.stat().st_size != size:
                raise InputError(f"{name} must have {size:,} bytes, but {part.stat().st_size:,} were copied; try again")
            with part.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()[:16]
            copies[name] = _copy_of(content, name, url)
            copies[name].parent.mkdir(parents=True, exist_ok=True)
            part.replace(copies[name])
            if (note := _note_of(name, files[name], url)) is not None:
                note.parent.mkdir(parents=True, exist_ok=True)
                note.write_text(content)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return copies


@contextlib.contextmanager
def _in_one_sentence(url: str) -> Iterator[None]:
    """Converts any error of a file system, whose packages raise their own kinds, to one sentence."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        # fsspec says of a web server that does not answer that there is no file.
        error = error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ else error
        if isinstance(error, FileNotFoundError):
            raise InputError(f"{url}: no file matches, expected at least one") from None
        said = (str(error).splitlines() or [""])[0]
        raise InputError(f"{url} cannot be read: {type(error).__name__}: {said}") from None
