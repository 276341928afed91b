"""Fingerprints of a log's events, independent of their order, to detect whether a log has changed."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, UInt64

from siren_rope_jax.data.event_log import EventLog
from siren_rope_jax.data.mixed_bits import float_bits, mixed, splitmix64
from siren_rope_jax.data.stable_hash import stable_hash

_AT_ONCE = 1 << 20  # events per part, to bound the memory


def fingerprint(log: EventLog, rows: Bool[np.ndarray, " E"] | None = None) -> dict[str, int | str]:
    """Fingerprints the content of events, without their rows, their order and periods that no file tells.

    Each event is hashed to 64 well-mixed bits, and the digest is two sums over these. So events may be in any order, a
    repeated event counts twice, and one changed cell changes the digest. It does not depend on the machine or on
    library versions, and does not protect against forgery.

    Args:
      log: any log.
      rows: the events to include; all of them if None.

    Returns:
      {"events": number of events, "digest": 32 hexadecimal digits}, which JSON can hold.
    """
    users, items = stable_hash(log.user_ids, "user"), stable_hash(log.item_ids, "item")
    chosen = np.arange(len(log.time_ms)) if rows is None else np.flatnonzero(rows)
    first = second = 0
    for start in range(0, len(chosen), _AT_ONCE):
        part = chosen[start : start + _AT_ONCE]
        bits = mixed(_cells(log, part, users, items), len(part))
        first += int(bits.sum(dtype=np.uint64))
        second += int(splitmix64(bits).sum(dtype=np.uint64))
    return {"events": len(chosen), "digest": f"{first % 2**64:016x}{second % 2**64:016x}"}


def _cells(
    log: EventLog, part: np.ndarray, users: UInt64[np.ndarray, " U"], items: UInt64[np.ndarray, " I"]
) -> Iterator[UInt64[np.ndarray, " P"]]:
    """Yields each column of the chosen events as bits."""
    yield users[log.user[part]]
    yield items[log.item[part]]
    yield log.time_ms[part].astype(np.uint64)
    yield (log.day[part].astype(np.int64) * 86_400 + log.second[part]).astype(np.uint64)  # local time
    for numbers in (*log.labels.T, *log.actions.T, *log.dense.T):
        yield float_bits(numbers[part])
    for bag in log.bags:
        yield bag.hashes[part]
    if log.spec.split.is_given:  # else it follows from the times or the users
        yield log.period[part].astype(np.uint64)
    if log.weight is not None:
        yield float_bits(log.weight[part])
    for known in log.action_known.T:
        yield known[part].astype(np.uint64)
    for hashes in log.categorical.T:
        yield hashes[part]
