"""Training, validation, test and new events: which period of the log's split each event belongs to."""

import numpy as np
import polars as pl
from jaxtyping import Bool, Int8, Int32, Int64

from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.data.stable_hash import stable_hash
from siren_rope_jax.errors import InputError

TRAIN, VALIDATION, TEST, NEW = range(4)


def periods_of(
    spec: EventLogSpec,
    time_ms: Int64[np.ndarray, " E"],
    user: Int32[np.ndarray, " E"],
    user_ids: pl.Series,
    new: Bool[np.ndarray, " E"],
) -> Int8[np.ndarray, " E"]:
    """Finds the period of each event.

    Args:
      spec: the split of the log.
      time_ms: Unix milliseconds, ascending.
      user: index into `user_ids`.
      user_ids: distinct users.
      new: whether each event comes from the file of new events, which belong to no period of the split.
    """
    period = np.full(len(time_ms), TRAIN, np.int8)
    for start in (spec.split.validation_from, spec.split.test_from):
        if spec.split.by == "user":
            # A threshold on the hash, not a rank, so that users keep their period when the log grows.
            period += (stable_hash(user_ids, "split") >= float(start) * 2.0**64)[user]
        else:
            period += time_ms >= _split_time(spec, start, time_ms[~new])
    period[new] = NEW
    return period


def check_periods(spec: EventLogSpec, period: Int8[np.ndarray, " E"], described: str) -> None:
    """Checks that training, validation and test hold events.

    Args:
      spec: the split of the log.
      period: of each event.
      described: what messages call the description of the log.

    Raises:
      InputError: if a period is empty.
    """
    split = spec.split
    for number, name in enumerate(("training", "validation", "test")):
        if not np.any(period == number):
            raise InputError(
                f"{described}: the split with validation_from = {split.validation_from!r} and "
                f"test_from = {split.test_from!r} leaves no events for {name}, expected at least one"
            )


def _split_time(spec: EventLogSpec, start: float | str, time_ms: np.ndarray) -> int:
    """Returns the start of a period, a whole second, so that no second is split between periods."""
    return spec.split_time(start) if isinstance(start, str) else int(time_ms[int(start * len(time_ms))]) // 1000 * 1000
