"""History counters of a log in whole seconds, since events of the same second do not see each other."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64, UInt64

from siren_rope_jax.data.counters import history_counters
from siren_rope_jax.data.event_log import EventLog


def log_counters(
    log: EventLog,
    actions: Float32[np.ndarray, "E A"],
    *,
    smoothing: float,
    columns: Sequence[int] = (),
    counted: Bool[np.ndarray, " E"] | None = None,
) -> tuple[Float32[np.ndarray, "E C"], tuple[str, ...]]:
    """Computes the `history_counters` of a log.

    Args:
      log: any log.
      actions: outcomes of the log's actions, numbers standardised.
      smoothing: weight, in events, of the running base rate.
      columns: categorical columns whose values get counters like items.
      counted: whether later events count each event; all if not given.

    Returns:
      The counters of each event, in the order of the log, and their names.
    """
    return history_counters(
        log.time_ms // 1000,
        log.user,
        log.item,
        actions,
        known_seconds(log),
        log.action_pending,
        action_names=log.action_names,
        numbers=[action.is_number for action in log.spec.actions],
        smoothing=smoothing,
        counted=counted,
        others={log.categorical_names[k]: _codes(log.categorical[:, k]) for k in columns},
    )


def _codes(hashes: UInt64[np.ndarray, " E"]) -> Int32[np.ndarray, " E"]:
    return np.unique(hashes, return_inverse=True)[1].astype(np.int32)


def known_seconds(log: EventLog) -> Int64[np.ndarray, "E A"]:
    """Returns the first whole second from which each action may be seen; the event's own if known at once."""
    second = (log.time_ms // 1000)[:, None]
    late = log.action_known > log.time_ms[:, None]
    if not np.any(late):
        return np.broadcast_to(second, log.actions.shape)  # saves a quarter of the memory of a long log
    return np.where(late, -(-log.action_known // 1000), second)
