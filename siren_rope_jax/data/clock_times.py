"""Times as clocks and calendars show them (ISO 8601 texts, dates, datetimes), converted to Unix milliseconds."""

from pathlib import Path
from typing import NamedTuple

import polars as pl

from siren_rope_jax.data.csv_lines import number_of

ISO = "an ISO 8601 time such as 2024-05-01T12:30:00+02:00, 2024-05-01 12:30, 2024-05-01 or 20240501"
LOOKS_ISO = r"^\d{4}-\d{2}-\d{2}([T ]|$)"
SKIPPED, REPEATED = "skipped by a clock ", "repeated by a clock "  # prefixes, for each column of such times
_ISO = (
    r"^(?P<date>\d{4}-\d{2}-\d{2}|\d{8})"
    r"(?:[T ](?P<minute>\d{2}:\d{2})(?P<second>:\d{2}(?:[.,]\d+)?)?"
    r"\s?(?P<zone>[Zz]|[+-](?:0\d|1[0-5])(?::?[0-5]\d)?)?)?$"
)
_TREATMENTS = {
    SKIPPED: "skips times, which are read as a clock that was not changed would show them",
    REPEATED: "repeats times, which are read as the first of the two",
}
_BEFORE = (3, 25)  # hours, longer than clock changes: most take an hour, and two islands once left out a day


class LocalTime(NamedTuple):
    """Relation of local clocks to UTC: a zone with its clock changes, or an offset in seconds."""

    zone: str | None
    offset: pl.Expr


class ClockTime(NamedTuple):
    """Unix milliseconds, null where there is no valid time, and where a clock change made them ambiguous, if it can."""

    time_ms: pl.Expr
    ambiguous: dict[str, pl.Expr]


def parse_iso(text: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
    """Returns what the clock of ISO 8601 texts shows, and the seconds to UTC that they name, null if they name none."""
    part = text.str.extract_groups(_ISO).struct.field
    second = part("second").fill_null(":00").str.replace(",", ".", literal=True)
    clock = part("date").str.replace_all("-", "", literal=True) + " " + part("minute").fill_null("00:00") + second
    zone = part("zone").str.to_uppercase()
    sign = pl.when(zone.str.starts_with("-")).then(-1).otherwise(1)
    hours, minutes = (zone.str.extract(pattern).cast(pl.Int64) for pattern in (r"^.(\d{2})", r"^.\d{2}:?(\d{2})$"))
    offset = pl.when(zone == "Z").then(0).otherwise(sign * (hours * 3600 + minutes.fill_null(0) * 60))
    return clock.str.to_datetime("%Y%m%d %H:%M:%S%.f", time_unit="us", strict=False), offset


def from_clock(column: str, clock: pl.Expr, offset: pl.Expr | None, local: LocalTime) -> ClockTime:
    """Converts what clocks show to Unix milliseconds.

    Args:
      column: the column, for the names of the ambiguous times.
      clock: datetimes without a zone.
      offset: seconds to UTC of each, null where it is shown in local time; None if all are.
      local: relation of local time to UTC. A time that a change of the clocks repeats is the first of the two; one that
        a change skips is counted on from the time before, as a clock that was not changed would show it.
    """
    if local.zone is None:
        own = local.offset if offset is None else pl.coalesce(offset, local.offset)
        return ClockTime(clock.dt.epoch("ms") - (own * 1000).cast(pl.Int64), {})
    first, second = (_in_zone(clock, local.zone, ambiguous) for ambiguous in ("earliest", "latest"))
    before = [_in_zone(clock - pl.duration(hours=h), local.zone, "earliest") + h * 3_600_000 for h in _BEFORE]
    is_local = pl.lit(True) if offset is None else offset.is_null()
    ambiguous = {
        SKIPPED + column: is_local & clock.is_not_null() & first.is_null(),
        REPEATED + column: is_local & (first != second).fill_null(False),
    }
    time = pl.coalesce(first, *before)
    if offset is not None:
        time = pl.when(is_local).then(time).otherwise(clock.dt.epoch("ms") - offset * 1000)
    return ClockTime(time, ambiguous)


def _in_zone(clock: pl.Expr, zone: str, ambiguous: str) -> pl.Expr:
    in_zone = clock.dt.replace_time_zone(zone, ambiguous=ambiguous, non_existent="null")  # type: ignore[arg-type]
    return in_zone.dt.epoch("ms")


def without_ambiguous(path: Path, rows: pl.DataFrame, zone: str | None) -> tuple[pl.DataFrame, list[str]]:
    """Removes the columns of ambiguous times, and returns a note for the user on each that has some."""
    notes = []
    for prefix, treatment in _TREATMENTS.items():
        for name in [name for name in rows.columns if name.startswith(prefix)]:
            if count := int(rows[name].sum()):
                times = f'{number_of(count, "time")} of "{name.removeprefix(prefix)}"'
                notes.append(f"{path}: a clock change of {zone} {treatment}, which is so for {times}")
            rows = rows.drop(name)
    return rows, notes
