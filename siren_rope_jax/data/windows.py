"""Which events see each other: windows over each user's history, cut so that the order of a file cannot matter.

Events of one user and second do not see each other. So a window counts the history that is visible, its last event may
share its second with any number of others, and whatever these are, they do not push the history out.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32

from siren_rope_jax.data.encode import Encoded
from siren_rope_jax.data.runs import run_starts


class Windows(NamedTuple):
    """Each window holds the events [first, history_end) as history, then [new, end), as indices of encoded events."""

    first: Int32[np.ndarray, " W"]
    history_end: Int32[np.ndarray, " W"]
    new: Int32[np.ndarray, " W"]
    end: Int32[np.ndarray, " W"]

    @property
    def lengths(self) -> Int32[np.ndarray, " W"]:
        """Events of each window."""
        return self.history_end - self.first + self.end - self.new


def plan_windows(
    encoded: Encoded, scored: Bool[np.ndarray, " E"], *, window: int, history: int, row_length: int
) -> Windows:
    """Cuts each user's events so that every scored one is new in exactly one window.

    Args:
      encoded: whole users.
      scored: events to train on, to evaluate or to score.
      window: an event sees at most window - 1 others.
      history: a window begins with so many events before its first new one, if its user has them. With window - 1,
        every scored event sees the same events wherever windows are cut: the last window - 1 of its history.
      row_length: most events of a window, at least `window`; more events of one second are divided among several.

    Returns:
      The windows, by their first new event. In one whose `history_end` is not `new`, the new events are of one second.

    Raises:
      ValueError: if `history` is not smaller than `window`, or `row_length` is.
    """
    if not history < window <= row_length:
        raise ValueError(
            f"history must be less than window and row_length at least that, but are {history}, {window}, {row_length}"
        )
    first_of_user, seen_end = _histories(encoded)
    group = first_of_second(encoded)
    sequences = np.flatnonzero(_changes(encoded.user, encoded.alone))
    wanted = np.flatnonzero(scored)
    # Positions, among the wanted events, of each sequence's first and of the one after its last.
    bounds = np.searchsorted(wanted, np.r_[sequences, len(encoded.user)])
    some = bounds[1:] > bounds[:-1]
    low, high = bounds[:-1][some], bounds[1:][some]
    rounds = []
    while len(low):  # every user's next window at once
        new = wanted[low]
        seen = seen_end[new]
        first = np.maximum(first_of_user[new], seen - history)
        # Events of one second before the first new one are not seen by it, and later ones must see all of that second.
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
    """Index of the first event of each event's user and second, which all of that second see up to."""
    return run_starts(_changes(encoded.user, encoded.alone, encoded.columns["elapsed_seconds"]))


def _histories(encoded: Encoded) -> tuple[Int32[np.ndarray, " E"], Int32[np.ndarray, " E"]]:
    """Where the history of each event's user begins, and where the part of it that the event sees ends."""
    first_of_user, seen_end = run_starts(_changes(encoded.user)), first_of_second(encoded)
    alone = np.flatnonzero(encoded.alone)
    if len(alone):
        # User and second in one number, by which a user's history is sorted.
        user = encoded.user.astype(np.int64) << 32
        key = user + encoded.columns["elapsed_seconds"] - np.iinfo(np.int32).min
        history = key[~encoded.alone]
        before = np.searchsorted(history, key[alone]) - np.searchsorted(history, user[alone])
        seen_end[alone] = first_of_user[alone] + before
    return first_of_user, seen_end


def _changes(*columns: np.ndarray) -> Bool[np.ndarray, " E"]:
    """Whether each event is the first or differs from the one before in any of the columns."""
    changes = np.zeros(len(columns[0]), bool)
    changes[:1] = True
    for column in columns:
        changes[1:] |= column[1:] != column[:-1]
    return changes
