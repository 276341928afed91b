"""Format of text tables that differ from a CSV file in UTF-8, and their conversion to one."""

import codecs
import dataclasses
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from siren_rope_jax.data.table_file import SEPARATORS
from siren_rope_jax.data.toml_section import Section
from siren_rope_jax.errors import InputError

Quote = Literal['"', "none"]
BLANKS = " "
_UNIT_SEPARATOR = "\x1f"  # made for this; stands for separators of several characters, which no reader splits by


@dataclasses.dataclass(frozen=True)
class TextFormat:
    """Format of text tables; Parquet and JSON Lines have none.

    Attributes:
      quote: character that encloses cells with separators or line breaks; with "none", quotes are text, as they are
        anyway where the separator has several characters.
      separator: of the cells; None is "," for .csv and a tabulator for .tsv. A blank stands for any number of
        blanks and tabulators, so that no cell is empty; without quotes, as with several characters.
      columns: names of the columns, if the file has no header row.
      encoding: of the characters, by any name that Python knows.
      decimal_comma: whether numbers are written as 1,5.
    """

    quote: Quote = '"'
    separator: str | None = None
    columns: tuple[str, ...] = ()
    encoding: str = "utf-8"
    decimal_comma: bool = False

    @classmethod
    def from_section(cls, section: Section, of_log: "TextFormat | None" = None) -> "TextFormat":
        """Checks the keys of [log] or of a side table, which has all but the columns from the log unless it says so.

        Raises:
          InputError: if a value is of the wrong kind.
        """
        base = TextFormat() if of_log is None else of_log
        separator = section.text("separator", base.separator)
        several = separator is not None and (len(separator) > 1 or separator == BLANKS)
        if several and section.table.get("quote", "none") != "none":
            raise section.error("quote", f'expected "none" with a separator of several characters, "{separator}"')
        form = cls(
            quote="none" if several else section.choice("quote", get_args(Quote), base.quote),
            separator=separator,
            columns=section.texts("columns"),
            encoding=section.text("encoding", base.encoding),
            decimal_comma=section.flag("decimal_comma", base.decimal_comma),
        )
        if separator is not None and (not separator.isascii() or set('"\n\r' + _UNIT_SEPARATOR) & set(separator)):
            raise section.error("separator", f"expected ASCII without quotes and line breaks, found {separator!r}")
        for column in form.columns:
            if any(c in column for c in (separator or ",\t") + '"\n\r'):
                raise section.error("columns", f"expected names without separators and quotes, found {column!r}")
        try:
            codecs.getreader(form.encoding)
            "".encode(form.encoding)
        except (LookupError, ValueError):
            found = f'found "{form.encoding}"'
            raise section.error("encoding", f'expected an encoding such as "latin-1", {found}') from None
        return form


FORMAT_KEYS = [field.name for field in dataclasses.fields(TextFormat)]


class PlainTable(NamedTuple):
    """A text table in UTF-8 with a header row and a separator of one byte."""

    file: Path
    separator: str
    added_lines: int  # header rows that the user's file lacks


def plain_table(path: Path, local: Path, form: TextFormat, folder: Path) -> PlainTable:
    """Returns the table itself if it is plain, else a plain copy.

    Args:
      path: the file as the user named it, for errors.
      local: the decompressed file.
      form: its format.
      folder: receives the copy.

    Raises:
      InputError: if the ending of the file tells no separator and none is given, or it is not in the encoding.
    """
    separator = form.separator or SEPARATORS.get(local.suffix)
    if separator is None:
        raise InputError(f'{path}: expected the key separator, such as "::", for a file that ends in {local.suffix}')
    is_plain = len(separator) == 1 and separator != BLANKS
    if codecs.lookup(form.encoding).name == "utf-8" and is_plain and not form.columns:
        return PlainTable(local, separator, 0)
    plain, copy = separator if is_plain else _UNIT_SEPARATOR, folder / "plain"
    # A byte order mark would be part of the first cell.
    encoding = "utf-8-sig" if codecs.lookup(form.encoding).name == "utf-8" else form.encoding
    with (
        local.open(encoding=encoding, newline="") as source,
        copy.open("w", encoding="utf-8", newline="") as target,
    ):
        if form.columns:
            target.write(plain.join(form.columns) + "\n")
        try:
            for number, line in enumerate(source, start=1):
                if plain != separator and plain in line:
                    raise InputError(f"{path}: line {number} has the control character U+001F, expected text")
                if separator == BLANKS:
                    line = plain.join(line.split()) + "\n"
                target.write(line if plain == separator else line.replace(separator, plain))
        except UnicodeError:
            raise InputError(wrong_encoding(path, local, form.encoding)) from None
    return PlainTable(copy, plain, int(bool(form.columns)))


def wrong_encoding(path: Path, local: Path, encoding: str) -> str:
    """Returns one sentence on a text table that is not in the encoding, with the line where that shows."""
    is_utf8 = codecs.lookup(encoding).name == "utf-8"
    expected = "expected text in UTF-8" if is_utf8 else f"expected text in {encoding}"
    advice = "save the file as UTF-8, or name its encoding" if is_utf8 else "name the encoding that it has"
    if "\n".encode(encoding) == b"\n":  # else its lines cannot be told apart before they are decoded
        with local.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    line.decode(encoding)
                except UnicodeDecodeError as error:
                    return f"{path}: line {number}: {expected}, found the byte 0x{line[error.start]:02x}; {advice}"
    return f"{path}: {expected}; {advice}"
