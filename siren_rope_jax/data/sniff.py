"""Guess of the format of a text table, from its first lines."""

import codecs
import dataclasses
import re
import tempfile
from pathlib import Path

from siren_rope_jax.data.named_files import existing_file
from siren_rope_jax.data.table_file import SEPARATORS, TEXT, decompressed
from siren_rope_jax.data.text_format import BLANKS, TextFormat
from siren_rope_jax.errors import InputError

_FIRST_BYTES = 1 << 18
_CANDIDATES = ("::", "\t", ";", "|", ",")
_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_NUMBER = re.compile(r"\s*[+-]?\d+([.,]\d+)?\s*")
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d+\s*")


def sniff_format(path: Path) -> TextFormat:
    """Returns the format of a table, that of plain files for Parquet and JSON Lines.

    Raises:
      InputError: if the file is missing, empty or of an unknown kind.
    """
    path = existing_file(path)
    with tempfile.TemporaryDirectory() as folder:
        local = decompressed(path, Path(folder))
        if local.suffix not in TEXT:
            return TextFormat()
        with local.open("rb") as file:
            start = file.read(_FIRST_BYTES)
    encoding = _encoding(start)
    lines = [line for line in start.decode(encoding, errors="replace").splitlines() if line.strip()]
    if not lines:  # all of them are blank
        raise InputError(f"{path}: this file has no rows, expected at least one below the header")
    lines = lines[: max(len(lines) - 1, 1)]  # the last may be cut
    separator = _separator(lines)
    form = TextFormat(quote="none" if len(separator) > 1 or separator == BLANKS else '"', encoding=encoding)
    if separator != SEPARATORS.get(local.suffix):
        form = dataclasses.replace(form, separator=separator)
    rows = [line.split(None if separator == BLANKS else separator) for line in lines]
    if separator != "," and any(_DECIMAL_COMMA.fullmatch(cell) for row in rows[1:] for cell in row):
        form = dataclasses.replace(form, decimal_comma=True)
    if any(_NUMBER.fullmatch(cell) for cell in rows[0]):  # the name of a column is no number
        form = dataclasses.replace(form, columns=tuple(f"column_{i + 1}" for i in range(len(rows[0]))))
    return form


def _encoding(start: bytes) -> str:
    for mark, encoding in _MARKS.items():
        if start.startswith(mark):
            return encoding
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)  # whose last character may be cut
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8"


def _separator(lines: list[str]) -> str:
    """Returns the separator that splits most lines alike, the longest or rarest of those that do so equally."""

    def alike(separator: str) -> int:
        counts = [line.count(separator) for line in lines]
        return 0 if not counts[0] else sum(count == counts[0] for count in counts)

    if any(map(alike, _CANDIDATES)):
        return max(_CANDIDATES, key=alike)
    cells = {len(line.split()) for line in lines}
    return BLANKS if len(cells) == 1 and cells != {1} else ","
