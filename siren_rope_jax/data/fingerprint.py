"""Fingerprints of a log's events, whatever their order: has a log changed since, or has it only grown?"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, UInt64

from siren_rope_jax.data.event_log import EventLog
from siren_rope_jax.data.mixed_bits import float_bits, mixed, splitmix64
from siren_rope_jax.data.stable_hash import stable_hash

_AT_ONCE = 1 << 20  # events; bounds the memory


def fingerprint(log: EventLog, rows: Bool[np.ndarray, " E"] | None = None) -> dict[str, int | str]:
    """Fingerprints what was read of each event; neither its row nor its period counts, nor the order of the events.

    Every event becomes 64 well-mixed bits, and the digest is two sums over them: events may come in any order, an
    event that comes twice counts twice, and one changed cell changes the digest. It is no defence against forgery.
    The digest does not depend on the machine or on the versions of libraries.

    Args:
      log: any log.
      rows: the events that count; all of them if None.

    Returns:
      {"events": how many, "digest": 32 hexadecimal digits}, fit for JSON.
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
    for known in log.action_known.T:
        yield known[part].astype(np.uint64)
    for hashes in log.categorical.T:
        yield hashes[part]
