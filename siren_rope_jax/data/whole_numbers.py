"""Whole numbers that a program wrote as floats: 15.0 and 15 are the same id, in any file."""

import enum
from collections.abc import Iterable

import polars as pl

_FLOAT = r"^(-?\d+)\.0$"


class Style(enum.Enum):
    """Style of the whole numbers in a column of texts.

    Attributes:
      PLAIN: no text is like 15.0.
      FLOATS: all texts are like 15.0, except missing ones.
      MIXED: some texts are like 15.0, which may be intended, as in versions 1.0 and 1.5.
    """

    PLAIN = enum.auto()
    FLOATS = enum.auto()
    MIXED = enum.auto()


def style_of(texts: pl.Series) -> Style:
    """Returns the style of a column of one file."""
    if not texts.str.ends_with(".0").any():  # many times faster than the pattern
        return Style.PLAIN
    floats = texts.str.contains(_FLOAT)
    if floats.all():
        return Style.FLOATS
    return Style.MIXED if floats.any() else Style.PLAIN


def style_of_all(styles: Iterable[Style]) -> Style:
    """Returns the style of a column over all files of a log: mixed if one file is, since its 15.0 may be intended."""
    found = set(styles)
    return next(style for style in (Style.MIXED, Style.FLOATS, Style.PLAIN) if style in found)


def are_whole_numbers(own: Style, log: Style) -> bool:
    """Returns whether 15.0 means 15 in a column that is compared with one of the log, such as that of new events.

    Args:
      own: style of the column.
      log: style of the log's column, whose own 15.0 means 15 if it is FLOATS.
    """
    return (own is Style.FLOATS and log is not Style.MIXED) or (own is Style.MIXED and log is Style.FLOATS)


def as_whole_numbers(texts: pl.Series) -> pl.Series:
    """Returns the texts with each 15.0 replaced by 15."""
    return texts.str.replace(_FLOAT, "${1}")


def whole_numbers_note(where: object, column: str) -> str:
    """Returns a note for the user that 15.0 was read as 15 in a column."""
    return f'{where}: the column "{column}" holds whole numbers written as floats: 15.0 is read as 15'
