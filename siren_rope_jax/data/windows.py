"""Windows over each user's history, which define the events that see each other, whatever the order of a file.

Events of one user and second do not see each other. So the size of a window counts only visible history, and the last
event of a window may share its second with any number of events without displacing history.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32

from siren_rope_jax.data.encode import Encoded
from siren_rope_jax.data.runs import run_starts


class Windows(NamedTuple):
    """Windows as indices of encoded events: [first, history_end) is history, and [new, end) are the new events."""

    first: Int32[np.ndarray, " W"]
    history_end: Int32[np.ndarray, " W"]
    new: Int32[np.ndarray, " W"]
    end: Int32[np.ndarray, " W"]

    @property
    def lengths(self) -> Int32[np.ndarray, " W"]:
        """Number of events in each window."""
        return self.history_end - self.first + self.end - self.new


def plan_windows(
    encoded: Encoded, scored: Bool[np.ndarray, " E"], *, window: int, history: int, row_length: int
) -> Windows:
    """Cuts each user's events so that every scored one is new in exactly one window.

    Args:
      encoded: events of whole users.
      scored: events to train on, to evaluate or to score.
      window: size of a window; an event sees at most window - 1 others.
      history: number of events before the first new one in a window, if its user has them. With window - 1, every
        scored event sees the last window - 1 events of its history, independent of how windows are cut.
      row_length: largest number of events in a window, at least `window`; if one second has more, several windows
        share them.

    Returns:
      The windows, sorted by their first new event. If `history_end` is not `new`, all new events are of one second.

    Raises:
      ValueError: if `history` is not less than `window`, or `row_length` is less than `window`.
    """
    if not history < window <= row_length:
        raise ValueError(
            f"history must be less than window and row_length at least that, but are {history}, {window}, {row_length}"
        )
    first_of_user, seen_end = _histories(encoded)
    group = first_of_second(encoded)
    sequences = np.flatnonzero(_changes(encoded.user, encoded.alone))
    wanted = np.flatnonzero(scored)
    # Bounds of each sequence among the wanted events.
    bounds = np.searchsorted(wanted, np.r_[sequences, len(encoded.user)])
    some = bounds[1:] > bounds[:-1]
    low, high = bounds[:-1][some], bounds[1:][some]
    rounds = []
    while len(low):  # every user's next window at once
        new = wanted[low]
        seen = seen_end[new]
        first = np.maximum(first_of_user[new], seen - history)
        # A window that starts within a second ends with it: its first new event must not see the events of that second
        # before it, but events of later seconds must see all of them.
        apart = encoded.alone[new] | (new > seen)
        end_of_second = np.searchsorted(group, group[new], side="right")
        last_to_see_first = np.searchsorted(group, first + window - 1, side="right")
        end = np.where(apart, end_of_second, last_to_see_first)
        history_end = np.where(apart, seen, new)
        end = np.minimum(np.minimum(end, wanted[high - 1] + 1), new + row_length - (history_end - first))
        rounds.append(np.stack([first, history_end, new, end], axis=1))
        low = np.searchsorted(wanted, end)
        more = low < high
        low, high = low[more], high[more]
    in_rounds = np.concatenate([np.zeros((0, 4), np.int64), *rounds])
    return Windows(*in_rounds[np.argsort(in_rounds[:, 2])].astype(np.int32).T)


def first_of_second(encoded: Encoded) -> Int32[np.ndarray, " E"]:
    """Returns the index of the first event of each event's user and second, where the history that it sees ends."""
    return run_starts(_changes(encoded.user, encoded.alone, encoded.columns["elapsed_seconds"]))


def _histories(encoded: Encoded) -> tuple[Int32[np.ndarray, " E"], Int32[np.ndarray, " E"]]:
    """Returns the start of each event's user's history, and the end of the part that the event sees."""
    first_of_user, seen_end = run_starts(_changes(encoded.user)), first_of_second(encoded)
    alone = np.flatnonzero(encoded.alone)
    if len(alone):
        # Combines user and second in one number, which ascends over the history.
        user = encoded.user.astype(np.int64) << 32
        key = user + encoded.columns["elapsed_seconds"] - np.iinfo(np.int32).min
        history = key[~encoded.alone]
        before = np.searchsorted(history, key[alone]) - np.searchsorted(history, user[alone])
        seen_end[alone] = first_of_user[alone] + before
    return first_of_user, seen_end


def _changes(*columns: np.ndarray) -> Bool[np.ndarray, " E"]:
    """Returns whether each event is the first, or differs from the one before in any column."""
    changes = np.zeros(len(columns[0]), bool)
    changes[:1] = True
    for column in columns:
        changes[1:] |= column[1:] != column[:-1]
    return changes
