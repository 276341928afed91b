"""Manifest of a checkpoint: the hashes of its files, so that a changed file is never restored."""

import concurrent.futures
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from siren_rope_jax.train.durable import sync, write_json

_NAME = "manifest.json"


class DamagedError(ValueError):
    """A file of a checkpoint differs from what was written; the message names the file and the fault."""


def write_manifest(folder: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Flushes the complete files of a folder to the disk, then writes their manifest.

    Args:
      folder: all files below it are listed.
      content: JSON to keep in the manifest, covered by its hash.

    Returns:
      The content together with "files": name -> size and hash.
    """
    below = sorted(folder.rglob("*"))
    for path in below:
        sync(path)
    names = [str(path.relative_to(folder)) for path in below if path.is_file()]

    def describe(name: str) -> dict[str, Any]:
        return {"bytes": (folder / name).stat().st_size, "sha256": _hash_file(folder / name)}

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
        content = content | {"files": dict(zip(names, threads.map(describe, names), strict=True))}
    write_json(folder / _NAME, {"content": content, "sha256": _hash_json(content)})
    return content


def read_manifest(folder: Path) -> dict[str, Any]:
    """Reads the content that `write_manifest` returned.

    Raises:
      DamagedError: if the manifest is missing or has changed.
    """
    try:
        manifest = json.loads((folder / _NAME).read_bytes())
        if manifest["sha256"] == _hash_json(manifest["content"]):
            return manifest["content"]
    except FileNotFoundError:
        raise DamagedError(f"{_NAME} is missing") from None
    except OSError as error:
        raise DamagedError(f"{_NAME} cannot be read: {error.strerror}") from None
    except (KeyError, TypeError, ValueError):  # includes errors of JSON and UTF-8
        pass
    raise DamagedError(f"{_NAME} has changed since it was written")


def verify(folder: Path) -> dict[str, Any]:
    """Reads the manifest after checking every file against it; other files are ignored.

    Raises:
      DamagedError: at the first file, by name, that is missing or has changed.
    """
    content = read_manifest(folder)
    verify_sizes(folder, content)

    def check(name: str) -> None:
        try:
            changed = _hash_file(folder / name) != content["files"][name]["sha256"]
        except OSError as error:
            raise DamagedError(f"{name} cannot be read: {error.strerror}") from None
        if changed:
            raise DamagedError(f"{name} has changed since it was written")

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(check, content["files"]))
    return content


def verify_sizes(folder: Path, content: dict[str, Any]) -> None:
    """Checks that every file exists with its full size, without reading it.

    Raises:
      DamagedError: at the first file, by name, that is missing or has another size.
    """
    for name, described in content["files"].items():
        try:
            size = (folder / name).stat().st_size
        except OSError:
            raise DamagedError(f"{name} is missing") from None
        if size != described["bytes"]:
            raise DamagedError(f"{name} must have {described['bytes']} bytes, but has {size}")


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash_json(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
