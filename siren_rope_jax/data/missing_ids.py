"""Events without a user or an item: dropped from a log, but scored as unknown among new events."""

from pathlib import Path

import polars as pl

from siren_rope_jax.errors import InputError

_IDS = ("user", "item")


def missing_ids_note(path: Path, events: pl.DataFrame, *, is_new: bool) -> str | None:
    """Returns one sentence on the events without an id and their treatment, or None if there are none.

    Args:
      path: the file.
      events: events with columns user and item, null where missing.
      is_new: whether the events are to be scored.

    Raises:
      InputError: if no event of the log has both ids.
    """
    counts = {name: events[name].null_count() for name in _IDS}
    if not any(counts.values()):
        return None
    rows = events.select((pl.col("user").is_null() | pl.col("item").is_null()).sum()).item()
    lacking = " and ".join(f"{count:,} with no {name}" for name, count in counts.items() if count)
    if is_new:
        return f"{path}: rows with a missing id are scored as an unknown user or item, without history: {lacking}"
    if rows == events.height:
        raise InputError(f"{path}: every row lacks an id, {lacking}, expected some with both")
    return f"{path}: {rows:,} of {events.height:,} rows dropped for a missing id: {lacking}"


def with_own_ids(events: pl.DataFrame) -> pl.DataFrame:
    """Returns the events with a unique id in place of each missing one."""
    own = (pl.format("(row {}, no {})", pl.int_range(pl.len()), pl.lit(name)) for name in _IDS)
    return events.with_columns(pl.coalesce(name, id) for name, id in zip(_IDS, own, strict=True))
