"""User sequences -> windows -> rows packed with several windows -> shuffled, sharded grain batches."""

import dataclasses

import grain
import numpy as np
from jaxtyping import Bool, Int32, Integer

from siren_rope_jax.data.encode import Encoded

PADDING = -1


@dataclasses.dataclass(frozen=True)
class BatchConfig:
    """Shape of the batches."""

    window: int = 64
    """Events of one user that see each other; even."""
    row_length: int = 128
    """Slots of a row, into which whole windows are packed."""
    batch_size: int = 32
    """Rows of a step, over all processes."""

    def __post_init__(self) -> None:
        if self.window < 2 or self.window % 2:
            raise ValueError(f"window must be even and at least 2, but is {self.window}")
        if self.row_length < self.window:
            raise ValueError(f"row_length must be at least the window, {self.window}, but is {self.row_length}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, but is {self.batch_size}")


@dataclasses.dataclass(frozen=True)
class PackedRows:
    """Which event stands in which slot."""

    event: Int32[np.ndarray, "R L"]  # index into the encoded arrays, or PADDING
    segment: Int32[np.ndarray, "R L"]
    position: Int32[np.ndarray, "R L"]
    scored: Bool[np.ndarray, "R L"]

    @property
    def fill(self) -> float:
        """Share of the slots that hold an event."""
        return float((self.event != PADDING).mean())


def plan_windows(user: np.ndarray, scored: Bool[np.ndarray, " E"], window: int) -> Int32[np.ndarray, "W 3"]:
    """Cuts each user's sequence so that every scored event is new in exactly one window.

    Args:
      user: user of each event, non-decreasing; events of a user in order of time.
      scored: events to train on or to evaluate.
      window: most events of a window; an event has at least window/2 events before it where its user has them.

    Returns:
      (first, first new, end) of each window, as indices of events; those before the first new one are history.
    """
    starts = np.flatnonzero(np.r_[True, user[1:] != user[:-1]][: len(user)])
    wanted = np.flatnonzero(scored)
    # Positions, among the wanted events, of each user's first and of the one after its last.
    bounds = np.searchsorted(wanted, np.r_[starts, len(user)])
    some = bounds[1:] > bounds[:-1]
    starts, low, high = starts[some], bounds[:-1][some], bounds[1:][some]
    windows = []
    while len(low):  # every user's next window at once
        new = wanted[low]
        first = np.maximum(starts, new - window // 2)
        end = np.minimum(wanted[high - 1] + 1, first + window)
        windows.append(np.stack([first, new, end], axis=1))
        low = np.searchsorted(wanted, end)
        more = low < high
        starts, low, high = starts[more], low[more], high[more]
    in_rounds = np.concatenate([np.zeros((0, 3), np.int64), *windows])
    return in_rounds[np.argsort(in_rounds[:, 1])].astype(np.int32)


def pack_rows(
    windows: Int32[np.ndarray, "W 3"], scored: Bool[np.ndarray, " E"], row_length: int, *, seed: int
) -> PackedRows:
    """Packs windows into rows, longest first, each into the fullest row that still takes it.

    Args:
      windows: as `plan_windows` returns them; none longer than `row_length`.
      scored: events to train on or to evaluate; history in a window is not scored again.
      row_length: slots of a row.
      seed: which windows of one length share a row is drawn from it.

    Returns:
      The rows, in the order in which they were begun.
    """
    windows = np.random.default_rng(seed).permutation(windows)
    lengths = windows[:, 2] - windows[:, 0]
    longest_first = np.argsort(-lengths, kind="stable")
    room: list[list[int]] = [[] for _ in range(row_length + 1)]  # rows by free slots
    free_sizes = 0  # bit n: some row has n free slots
    count = 0
    places = []  # of each window, its row * row_length + its first slot
    for length in lengths[longest_first].tolist():
        fitting = free_sizes >> length
        if fitting:
            free = length + (fitting & -fitting).bit_length() - 1
            row = room[free].pop()
            if not room[free]:
                free_sizes &= ~(1 << free)
        else:
            free, row = row_length, count
            count += 1
        places.append((row + 1) * row_length - free)
        room[free - length].append(row)
        if free > length:
            free_sizes |= 1 << (free - length)
    # By rows, and in a row in the order of the slots.
    in_rows = np.argsort(places)
    places, windows = np.array(places, np.int64)[in_rows], windows[longest_first][in_rows]
    first, new, end = windows.T
    row = places // row_length
    number = 1 + np.arange(len(row)) - np.searchsorted(row, row)
    lengths = end - first
    position = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    slot = np.repeat(places, lengths) + position
    event = np.repeat(first, lengths) + position
    shape = (count, row_length)
    return PackedRows(
        event=_scattered(shape, slot, event, PADDING),
        segment=_scattered(shape, slot, np.repeat(number, lengths), 0),
        position=_scattered(shape, slot, position, 0),
        scored=_scattered(shape, slot, scored[event] & (event >= np.repeat(new, lengths)), False),
    )


def _scattered(shape: tuple[int, int], slot: np.ndarray, values: np.ndarray, empty: int | bool) -> np.ndarray:
    result = np.full(shape, empty, bool if isinstance(empty, bool) else np.int32)
    result.reshape(-1)[slot] = values
    return result


def make_rows(encoded: Encoded, scored: Bool[np.ndarray, " E"], config: BatchConfig, *, seed: int = 0) -> PackedRows:
    """Cuts and packs the sequences of `encoded` so that every scored event stands in exactly one scored slot."""
    windows = plan_windows(encoded.user, scored, config.window)
    return pack_rows(windows, scored, config.row_length, seed=seed)


def batches(
    encoded: Encoded,
    rows: PackedRows,
    config: BatchConfig,
    *,
    seed: int | None,
    rows_here: Integer[np.ndarray, " b"] | None = None,
    first_example: int = 0,
) -> grain.MapDataset:
    """Builds the random-access dataset of batches, a pure function of its arguments.

    Batch k holds the examples from first_example + k * batch_size on, in the shuffled, repeated order of the rows,
    whatever the number of processes: going on from the number of examples seen resumes exactly.

    Args:
      encoded: arrays of events.
      rows: where the events stand.
      config: shape of the batches.
      seed: of the order, shuffled anew every epoch and without end; None goes once through the rows as they are,
        the last batch filled up with padding.
      rows_here: which rows of each batch this process takes; all if not given.
      first_example: place in the order of the rows where the first batch starts.

    Returns:
      Batches as dicts: the fields of `nn.features.Events`; "labels" [b, L, K], NaN where unobserved or not to be
      scored; "event" [b, L], the index into `encoded` of each scored slot, else PADDING.

    Raises:
      ValueError: if there are no rows.
    """
    if not len(rows.event):
        raise ValueError("rows must hold at least one window, but are empty: no event is to be scored")
    if seed is None:
        count = -(-len(rows.event) // config.batch_size) * config.batch_size
        indices = grain.MapDataset.range(count)
    else:
        indices = grain.MapDataset.range(len(rows.event)).seed(seed).shuffle().repeat()
    mine = slice(None) if rows_here is None else rows_here
    return indices[first_example:].batch(config.batch_size).map(lambda batch: _gather(encoded, rows, batch[mine]))


def _gather(encoded: Encoded, rows: PackedRows, indices: np.ndarray) -> dict[str, np.ndarray]:
    beyond = np.flatnonzero(indices >= len(rows.event))

    def take(values: np.ndarray, empty: int | bool) -> np.ndarray:
        taken = values.take(indices, axis=0, mode="clip")
        taken[beyond] = empty
        return taken

    event, scored = take(rows.event, PADDING), take(rows.scored, False)
    padding = np.flatnonzero(event == PADDING)
    batch = {}
    for name, column in encoded.columns.items():
        batch[name] = column.take(event, axis=0, mode="clip")  # PADDING takes the first event
        batch[name].reshape(event.size, *column.shape[1:])[padding] = 0
    batch["labels"][~scored] = np.nan
    return batch | {
        "segment": take(rows.segment, 0),
        "position": take(rows.position, 0),
        "event": np.where(scored, event, PADDING),
    }
