"""Formats of table files by their endings, and decompression of those inside .gz or .zip."""

import gzip
import shutil
import zipfile
from pathlib import Path

from siren_rope_jax.data.json_lines import JSON_LINES
from siren_rope_jax.errors import InputError

SEPARATORS = {".csv": ",", ".tsv": "\t"}
VAGUE = (".txt", ".dat", ".data")  # these tell no separator, and may hold anything
TEXT = (*SEPARATORS, *VAGUE)
FORMATS = (*TEXT, *JSON_LINES, ".parquet")
TABLE_ENDINGS = (*FORMATS, ".gz", ".zip")


def decompressed(path: Path, folder: Path) -> Path:
    """Returns a plain file in one of the known formats, unpacked into `folder` if necessary."""
    kind = path.suffix.lower()
    if path.stat().st_size == 0:
        raise InputError(f"{path}: this file is empty")
    if kind in FORMATS:
        return path if kind == path.suffix else _linked(path, folder / f"table{kind}")
    if kind == ".zip":
        with zipfile.ZipFile(path) as archive:
            # Archives made on a Mac hold an additional "__MACOSX/._name" for every file.
            names = [name for name in archive.namelist() if not name.startswith("__MACOSX")]
            tables = [name for name in names if Path(name).suffix.lower() in FORMATS]
            certain = [name for name in tables if Path(name).suffix.lower() not in VAGUE]
            tables = certain or tables
            if len(tables) != 1:
                found = ", ".join(tables) or "none"
                raise InputError(f"{path}: expected exactly one {_formats()} file in this zip, found {found}")
            with archive.open(tables[0]) as source:
                return _unpacked(source, folder / f"table{Path(tables[0]).suffix.lower()}")
    inner = Path(path.stem).suffix.lower()
    if kind == ".gz" and inner in FORMATS:
        with gzip.open(path) as source:
            return _unpacked(source, folder / f"table{inner}")
    raise InputError(f"{path}: expected a {_formats()} file, or one of these inside .gz or .zip")


def _formats() -> str:
    return f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"


def _linked(path: Path, target: Path) -> Path:
    target.symlink_to(path.absolute())
    return target


def _unpacked(source: object, target: Path) -> Path:
    with target.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)  # type: ignore[arg-type]
    return target
