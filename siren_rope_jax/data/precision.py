"""Detection of ids and times that lost digits before they were written, so that different ones became equal."""

from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Int32, Int64

from siren_rope_jax.data.read_table import Rule, Table
from siren_rope_jax.errors import InputError

# Requires a point or a plus sign, as every program prints them: a hexadecimal id such as 5e10 has neither. A number
# with a negative exponent, such as 9377952927E-5, has all its digits.
_SCIENTIFIC_ID = r"^\s*[+-]?[0-9](\.[0-9]+[eE]\+?|[eE]\+)[0-9]+\s*$"
# Unix times of the years 1980 to 2099 have 9 or 10 digits in seconds, three more in milliseconds, and so on.
_SCIENTIFIC_TIME = {
    unit: rf"^\s*[0-9](\.[0-9]{{0,{kept - 1}}})?[eE]" for unit, kept in (("s", 9), ("ms", 12), ("us", 15), ("ns", 18))
}
_FEWEST_TIMES = 8  # fewer may be multiples by chance
_SAMPLE = 1000
_SHIFT = 8 * 3_600_000  # local midnights may be multiples of 128 s, since 86,400 s and 28,800 s are
_DECIMAL_STEP = 10_000_000  # resolution, in ms, of times with the six digits of %g and of spreadsheets


def refuse_float32(table: Table, column: str, key: str, what: str) -> None:
    """Raises InputError if the float type of a column has too few digits for ids or times."""
    kind = table.types[column]
    if kind in (pl.Float32, pl.Float16):
        raise InputError(
            f'{table.path}: the column "{column}" ({key}) holds {kind}, which keeps {7 if kind == pl.Float32 else 3} '
            f"digits, so that different {what} become equal: export the {what} again as whole numbers or text"
        )


def id_rules(table: Table, column: str, noun: str) -> list[Rule]:
    """Returns the rule that no id is in scientific notation, whose few digits would merge users or items."""
    if not table.is_text(column):
        return []
    valid = ~pl.col(column).cast(pl.String).str.contains(_SCIENTIFIC_ID)
    hint = "; a spreadsheet or a float column rounded it: export the ids as text"
    return [Rule(column, valid.fill_null(True), f"{noun} with all its digits", lambda cell: hint)]


def time_rules(table: Table, column: str, unit: str) -> list[Rule]:
    """Returns the rule that no time is in scientific notation with fewer digits than its unit has."""
    if not table.is_text(column):
        return []
    valid = ~pl.col(column).cast(pl.String).str.contains(_SCIENTIFIC_TIME[unit])
    hint = "; a spreadsheet or a float format rounded it: export the times as whole numbers"
    return [Rule(column, valid.fill_null(True), "a Unix time with all its digits", lambda cell: hint)]


def check_times(path: Path, column: str, time: Int64[np.ndarray, " E"]) -> None:
    """Checks that times were not rounded to Float32 or to six decimal digits.

    Dates, and times at one hour of the day or at fixed hours eight hours apart, are legitimate.

    Args:
      path: the file, for the error.
      column: the column, for the error.
      time: Unix milliseconds.

    Raises:
      InputError: if every time is rounded so, and there are too many times for chance.
    """

    def every(test: object) -> bool:
        return bool(test(time[:_SAMPLE]).all()) and bool(test(time).all())  # type: ignore[operator]

    rounded = next((name for name, test in _ROUNDED.items() if every(test)), None)
    if rounded is None or every(lambda t: (t - t[0]) % _SHIFT == 0):
        return
    distinct = len(np.unique(time))
    if distinct >= _FEWEST_TIMES:
        raise InputError(
            f'{path}: the column "{column}" holds {distinct:,} different times in {len(time):,} rows, each rounded '
            f"as {rounded} does: export the times again as whole numbers or text with all digits"
        )


def coarse_note(time: Int64[np.ndarray, " E"]) -> str | None:
    """Returns a note for the user if all times are multiples of more than a minute and less than an hour.

    Args:
      time: Unix milliseconds of each event, ascending.
    """
    gaps = np.diff(time)
    sample = gaps[: 10 * _SAMPLE]  # most logs need no more
    if len(np.unique(time[: len(sample)])) < _FEWEST_TIMES or np.gcd.reduce(sample) <= 60_000:
        return None
    step = int(np.gcd.reduce(gaps)) // 1000
    if not 60 < step < 3_600:
        return None
    return (
        f"all times are multiples of {step:,} s apart: if they were rounded, export them again; events of one time do "
        "not see each other"
    )


def midnight_note(second: Int32[np.ndarray, " E"]) -> str | None:
    """Returns a note for the user if every event has the same time of day, as dates do.

    Args:
      second: local second of the day of each event.
    """
    if not len(second) or (second != second[0]).any():
        return None
    hour, minute = divmod(int(second[0]) // 60, 60)
    name = "midnight" if second[0] == 0 else f"at {hour:02d}:{minute:02d}:{second[0] % 60:02d} of its day"
    return f"every time is {name}, as dates are: the events of one day do not see each other"


def _is_float32(time: np.ndarray, unit: float) -> np.ndarray:
    return (time / unit).astype(np.float32) == time / unit


_ROUNDED = {
    "Float32 (steps of 128 s)": lambda time: _is_float32(time, 1000.0),
    "Float32 (steps of 131 s)": lambda time: _is_float32(time, 1.0),
    "a format with six digits (steps of 10,000 s)": lambda time: time % _DECIMAL_STEP == 0,
}
