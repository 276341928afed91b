"""Order of the encoded events: user by user, oldest first, independent of the order of rows in a file."""

import numpy as np
from jaxtyping import Bool, Int64, UInt64

from siren_rope_jax.data.event_log import EventLog
from siren_rope_jax.data.mixed_bits import float_bits, mixed
from siren_rope_jax.data.stable_order import stable_order


def event_order(
    log: EventLog, alone: Bool[np.ndarray, " E"], item_hashes: UInt64[np.ndarray, " I"]
) -> Int64[np.ndarray, " E"]:
    """Orders events by user, within a user those `alone` last, then by second, then by content.

    Events of one second do not see each other, but their order still decides which of them a window keeps and in which
    order numbers are added. So it follows hashes of the items, then of all other content, and depends neither on the
    order of rows nor, except as the last tie-break, on an outcome. Identical events may be in any order.

    Args:
      log: events in the order of their time.
      alone: events that no other event sees.
      item_hashes: hash of each item of the log.
    """
    order = stable_order(2 * log.user.astype(np.int64) + alone)
    second = (log.time_ms // 1000)[order]
    same = np.zeros(len(order) + 1, bool)  # whether user, `alone` and second equal those of the previous event
    if len(order):
        ordered = [log.user[order], alone[order], second]
        same[1:-1] = np.all([column[1:] == column[:-1] for column in ordered], axis=0)
    tied = np.flatnonzero(same[:-1] | same[1:])
    events = order[tied]
    run = np.cumsum(~same[tied])
    outcomes = _mixed(log.labels[events], log.actions[events], log.action_known[events])
    bags = [bag.hashes[events, None] for bag in log.bags]
    content = _mixed(log.categorical[events], log.dense[events], log.time_ms[events, None], *bags)
    order[tied] = events[np.lexsort((outcomes, content, item_hashes[log.item[events]], run))]
    return order


def _mixed(*tables: np.ndarray) -> UInt64[np.ndarray, " E"]:
    columns = (column for table in tables for column in table.T)
    bits = (float_bits(x) if x.dtype == np.float32 else x.astype(np.uint64) for x in columns)
    return mixed(bits, len(tables[0]))
