"""JSON Lines files: one object in each line, with the lines that polars does not name."""

import codecs
import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

JSON_LINES = (".jsonl", ".ndjson")
_NAMED = 3


def without_mark(file: Path, folder: Path) -> Path:
    """Returns the file, or a copy without the byte order mark that spreadsheets and Windows put before the text."""
    with file.open("rb") as source:
        if source.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            return file
        copy = folder / f"plain{file.suffix}"
        with copy.open("wb") as target:
            shutil.copyfileobj(source, target)
    return copy


def count_objects(file: Path) -> int:
    """Returns the number of lines that are not blank."""
    return sum(1 for _ in _lines(file))


def line_of_object(file: Path, row: int) -> int:
    """Returns the line, counted from 1, of an object, counted from 0."""
    number, _ = next(itertools.islice(_lines(file), row, None))
    return number


def malformed_objects(file: Path) -> str | None:
    """Returns one sentence on the lines that hold no JSON object: the first few, and whether there are others."""
    faults = (f"line {number} {fault}" for number, line in _lines(file) if (fault := _fault(line)))
    named = list(itertools.islice(faults, _NAMED + 1))
    more = " and others" if len(named) > _NAMED else ""
    return f"{', '.join(named[:_NAMED])}{more}" if named else None


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    with file.open("rb") as lines:
        yield from ((number, line) for number, line in enumerate(lines, start=1) if not line.isspace())


def _fault(line: bytes) -> str | None:
    try:
        # Refuses NaN and Infinity, which Python writes and reads though JSON has neither.
        value = json.loads(line, parse_constant=_refuse)
    except UnicodeDecodeError:
        return "is not UTF-8"
    except ValueError as error:
        return f"is not JSON ({error})"
    return None if isinstance(value, dict) else f"holds a {type(value).__name__} instead of an object"


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON, write null")
