"""Training, validation, test and new events: which period of the log's split each event belongs to."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Bool, Float32, Int8, Int32, Int64

from siren_rope_jax.data.event_files import event_files
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.data.split import Split
from siren_rope_jax.data.stable_hash import stable_hash
from siren_rope_jax.errors import InputError

TRAIN, VALIDATION, TEST, NEW = range(4)
PERIOD_NAMES = ("training", "validation", "test")


def periods_of(
    spec: EventLogSpec,
    time_ms: Int64[np.ndarray, " E"],
    user: Int32[np.ndarray, " E"],
    user_ids: pl.Series,
    new: Bool[np.ndarray, " E"],
    given: Int8[np.ndarray, " E"] | None = None,
) -> Int8[np.ndarray, " E"]:
    """Finds the period of each event.

    Args:
      spec: the split of the log.
      time_ms: Unix milliseconds, ascending.
      user: index into `user_ids`.
      user_ids: distinct users.
      new: whether each event comes from the file of new events, which belong to no period of the split.
      given: period of each event, if the files tell it.
    """
    split = spec.split
    if split.by == "last":
        return _of_last_seconds(time_ms // 1000, user, new)
    period = np.full(len(time_ms), TRAIN, np.int8) if given is None else given.copy()
    divided = ~new if given is None else ~new & (given == TRAIN)
    for start in filter(None, (split.validation_from, split.test_from)):
        if split.by == "user":
            # A threshold on the hash, not a rank, so that users keep their period when the log grows.
            period += (stable_hash(user_ids, "split") >= float(start) * 2.0**64)[user]
        else:
            period += divided & (time_ms >= _split_time(spec, start, time_ms[divided]))
    period[new] = NEW
    return period


def periods_of_files(split: Split, files: Sequence[Path]) -> list[int]:
    """Returns the period that each file of the log is for, with `by = "file"`.

    Raises:
      InputError: if the split names a file that is not one of the log's.
    """
    period = dict.fromkeys(files, TRAIN)
    for number, names in ((VALIDATION, split.validation), (TEST, split.test)):
        for file in event_files(names):
            if file not in period:
                raise InputError(f"{file} must be one of the files of the log, as [split] names it, but is not")
            period[file] = number
    return list(period.values())


def in_one_period(rows: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """Gives all rows of one user, item and time the latest of their periods, so that none is trained on and tested.

    Args:
      rows: columns user, item, time_ms and period.

    Returns:
      (rows, notes).
    """
    latest = rows.select(pl.col("period").max().over("user", "item", "time_ms"))["period"]
    moved = int((latest != rows["period"]).sum())
    note = f"rows whose user, item and time are in a later period of the split too, and which count there: {moved:,}"
    return rows.with_columns(latest), [note] if moved else []


def check_periods(
    spec: EventLogSpec, period: Int8[np.ndarray, " E"], weight: Float32[np.ndarray, " E"] | None, described: str
) -> None:
    """Checks that training, validation and test hold events, and weights above 0 among them.

    Args:
      spec: the split of the log.
      period: of each event.
      weight: of each event, if the log has weights.
      described: what messages call the description of the log.

    Raises:
      InputError: if a period is empty, or all of its events have the weight 0.
    """
    for number, name in enumerate(PERIOD_NAMES):
        if not np.any(period == number):
            raise InputError(
                f"{described}: the split with {spec.split} leaves no events for {name}, expected at least one"
            )
        if weight is not None and not weight[period == number].any():
            raise InputError(
                f'{described}: the column "{spec.weight}" ([log] weight) holds no weight above 0 among the {name} '
                "events, expected at least one"
            )


def overlap_note(spec: EventLogSpec, period: Int8[np.ndarray, " E"], time_ms: Int64[np.ndarray, " E"]) -> str | None:
    """Returns a note if a split that is not by time trains on what came after events of test."""
    if spec.split.by == "time":
        return None
    share = float((time_ms[period == TRAIN] >= time_ms[period == TEST].min()).mean())
    later = "of the training events are not before the first event of test: a model in use cannot learn from such"
    return f"{share:.1%} {later}" if share else None


def _of_last_seconds(
    second: Int64[np.ndarray, " E"], user: Int32[np.ndarray, " E"], new: Bool[np.ndarray, " E"]
) -> Int8[np.ndarray, " E"]:
    """Leaves the last second of each user that has at least three for test, and the one before for validation."""
    old = pl.DataFrame({"user": user, "second": second}).filter(~pl.Series(new))
    from_last = pl.col("second").rank("dense", descending=True).over("user")
    ranks = old.select(rank=from_last, most=from_last.max().over("user"))
    enough = pl.col("most") >= 3
    chosen = pl.when(enough & (pl.col("rank") == 1)).then(TEST).when(enough & (pl.col("rank") == 2)).then(VALIDATION)
    period = np.full(len(user), NEW, np.int8)
    period[~new] = ranks.select(chosen.otherwise(TRAIN).cast(pl.Int8)).to_series().to_numpy()
    return period


def _split_time(spec: EventLogSpec, start: float | str, time_ms: np.ndarray) -> int:
    """Returns the start of a period, a whole second, so that no second is split between periods."""
    return spec.split_time(start) if isinstance(start, str) else int(time_ms[int(start * len(time_ms))]) // 1000 * 1000
