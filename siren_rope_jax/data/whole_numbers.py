"""Whole numbers that a program has written as floats, 15.0 for 15: both are one id, whichever file they stand in."""

import enum
from collections.abc import Iterable

import polars as pl

_FLOAT = r"^(-?\d+)\.0$"


class Style(enum.Enum):
    """How a column of texts writes whole numbers.

    Attributes:
      PLAIN: none of its texts is like 15.0.
      FLOATS: all of them are, missing ones aside.
      MIXED: some of them are, so that this may be meant, as in versions 1.0 and 1.5.
    """

    PLAIN = enum.auto()
    FLOATS = enum.auto()
    MIXED = enum.auto()


def style_of(texts: pl.Series) -> Style:
    """Tells how a column of one file writes whole numbers."""
    if not texts.str.ends_with(".0").any():  # many times faster than the pattern
        return Style.PLAIN
    floats = texts.str.contains(_FLOAT)
    if floats.all():
        return Style.FLOATS
    return Style.MIXED if floats.any() else Style.PLAIN


def style_of_all(styles: Iterable[Style]) -> Style:
    """Tells how a log writes whole numbers in a column: one mixed file decides, since its 15.0 may be meant."""
    found = set(styles)
    return next(style for style in (Style.MIXED, Style.FLOATS, Style.PLAIN) if style in found)


def are_whole_numbers(own: Style, log: Style) -> bool:
    """Tells whether 15.0 is 15 in a column that is compared with one of the log, such as that of new events.

    Args:
      own: style of the column.
      log: style of the log's column, whose own 15.0 is 15 if it is FLOATS.
    """
    return (own is Style.FLOATS and log is not Style.MIXED) or (own is Style.MIXED and log is Style.FLOATS)


def as_whole_numbers(texts: pl.Series) -> pl.Series:
    """Returns the texts with 15 for each 15.0."""
    return texts.str.replace(_FLOAT, "${1}")


def whole_numbers_note(where: object, column: str) -> str:
    """Says that a column was read so."""
    return f'{where}: the column "{column}" holds whole numbers written as floats: 15.0 is read as 15'
