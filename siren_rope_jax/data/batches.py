"""Windows -> rows packed with several of them -> shuffled, sharded grain batches."""

import dataclasses
from typing import Any

import grain
import numpy as np
from jaxtyping import Bool, Int32, Int64, Integer

from siren_rope_jax.batch import Batch, Events
from siren_rope_jax.data.encode import Encoded
from siren_rope_jax.data.windows import Windows, first_of_second, plan_windows
from siren_rope_jax.settings import drifts

PADDING = -1
MOST_ROWS = 32  # of a step, if not given


@dataclasses.dataclass(frozen=True)
class BatchConfig:
    """Shape of the batches."""

    window: int = 64
    """An event sees at most one less of its user's earlier events, those of its own second aside; even."""
    row_length: int = drifts(128)
    """Slots of a row, into which whole windows are packed."""
    batch_size: int | None = drifts(None)
    """Rows of a step, over all processes; `train` chooses by the size of the log if not given."""

    def __post_init__(self) -> None:
        if self.window < 2 or self.window % 2:
            raise ValueError(f"window must be even and at least 2, but is {self.window}")
        if self.row_length < self.window:
            raise ValueError(f"row_length must be at least the window, {self.window}, but is {self.row_length}")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, but is {self.batch_size}")

    @property
    def rows(self) -> int:
        """The batch size; where no log has chosen one, that for a long log."""
        return self.batch_size or MOST_ROWS


@dataclasses.dataclass(frozen=True)
class PackedRows:
    """Which event stands in which slot."""

    row_index: Int32[np.ndarray, "R L"]  # row of the encoded arrays, or PADDING
    segment: Int32[np.ndarray, "R L"]
    position: Int32[np.ndarray, "R L"]
    scored: Bool[np.ndarray, "R L"]

    @property
    def fill(self) -> float:
        """Share of the slots that hold an event."""
        return float((self.row_index != PADDING).mean())


def pack_rows(
    windows: Windows,
    scored: Bool[np.ndarray, " E"],
    first_of_second: Int32[np.ndarray, " E"],
    row_length: int,
    *,
    seed: int,
) -> PackedRows:
    """Packs windows into rows, longest first, each into the fullest row that still takes it.

    Args:
      windows: none longer than `row_length`.
      scored: events to train on or to evaluate; history in a window is not scored again.
      first_of_second: index of the first event of each event's user and second: these share one position, the number
        of events of the window that they see.
      row_length: slots of a row.
      seed: which windows of one length share a row is drawn from it.

    Returns:
      The rows, in the order in which they were begun.
    """
    order = np.random.default_rng(seed).permutation(len(windows.first))
    order = order[np.argsort(-windows.lengths[order], kind="stable")]
    places, count = _places(windows.lengths[order], row_length)
    # By rows, and in a row in the order of the slots.
    in_rows = np.argsort(places)
    places = places[in_rows]
    windows = Windows(*(column[order[in_rows]] for column in windows))
    row = places // row_length
    number = 1 + np.arange(len(row)) - np.searchsorted(row, row)
    lengths = windows.lengths
    of_window = np.repeat(np.arange(len(lengths)), lengths)
    index = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    slot = places[of_window] + index
    history = (windows.history_end - windows.first)[of_window]
    is_new = index >= history
    first = windows.first[of_window]
    event = np.where(is_new, (windows.new[of_window] - history), first) + index
    apart = is_new & (windows.history_end < windows.new)[of_window]
    position = np.where(apart, history, np.maximum(first_of_second[event] - first, 0))
    shape = (count, row_length)
    return PackedRows(
        row_index=_scattered(shape, slot, event, PADDING),
        segment=_scattered(shape, slot, number[of_window], 0),
        position=_scattered(shape, slot, position, 0),
        scored=_scattered(shape, slot, scored[event] & is_new, False),
    )


def _places(lengths: Int32[np.ndarray, " W"], row_length: int) -> tuple[Int64[np.ndarray, " W"], int]:
    """Row * row_length + first slot of each window, by descending lengths, and the number of rows."""
    room: list[list[int]] = [[] for _ in range(row_length + 1)]  # rows by free slots
    free_sizes = 0  # bit n: some row has n free slots
    count = 0
    places = []
    for length in lengths.tolist():
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
    return np.array(places, np.int64), count


def _scattered(shape: tuple[int, int], slot: np.ndarray, values: np.ndarray, empty: int | bool) -> np.ndarray:
    result = np.full(shape, empty, bool if isinstance(empty, bool) else np.int32)
    result.reshape(-1)[slot] = values
    return result


def make_rows(
    encoded: Encoded, scored: Bool[np.ndarray, " E"], config: BatchConfig, *, history: int | None = None, seed: int = 0
) -> PackedRows:
    """Cuts and packs the sequences of `encoded` so that every scored event stands in exactly one scored slot.

    Args:
      encoded: whole users.
      scored: events to train on or to evaluate.
      config: window and row.
      history: events of history that a window begins with (`plan_windows`); half a window, for training, if not given.
      seed: which windows of one length share a row is drawn from it.
    """
    history = config.window // 2 if history is None else history
    windows = plan_windows(encoded, scored, window=config.window, history=history, row_length=config.row_length)
    return pack_rows(windows, scored, first_of_second(encoded), config.row_length, seed=seed)


def batches(
    encoded: Encoded,
    rows: PackedRows,
    config: BatchConfig,
    *,
    seed: int | None,
    rows_here: Integer[np.ndarray, " b"] | None = None,
    first_example: int = 0,
) -> grain.MapDataset[Batch]:
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
      Batches of NumPy arrays.

    Raises:
      ValueError: if there are no rows.
    """
    if not len(rows.row_index):
        raise ValueError("rows must hold at least one window, but are empty: no event is to be scored")
    if seed is None:
        count = -(-len(rows.row_index) // config.rows) * config.rows
        indices = grain.MapDataset.range(count)
    else:
        indices = grain.MapDataset.range(len(rows.row_index)).seed(seed).shuffle().repeat()
    mine = slice(None) if rows_here is None else rows_here
    return indices[first_example:].batch(config.rows).map(lambda batch: _gather(encoded, rows, batch[mine]))


def _gather(encoded: Encoded, rows: PackedRows, indices: np.ndarray) -> Batch:
    beyond = np.flatnonzero(indices >= len(rows.row_index))

    def take(values: np.ndarray, empty: int | bool) -> np.ndarray:
        taken = values.take(indices, axis=0, mode="clip")
        taken[beyond] = empty
        return taken

    row_index, segment = take(rows.row_index, PADDING), take(rows.segment, 0)
    padding = np.flatnonzero(row_index == PADDING)
    columns: dict[str, Any] = {"segment": segment, "position": take(rows.position, 0)}
    for name, column in encoded.columns.items():
        columns[name] = column.take(row_index, axis=0, mode="clip")  # PADDING takes the first event
        columns[name].reshape(row_index.size, *column.shape[1:])[padding] = 0
    labels = columns.pop("labels")
    labels[~take(rows.scored, False)] = np.nan
    if encoded.late is not None:
        known = encoded.late.known.take(row_index, axis=0, mode="clip")
        unknown = (known > _next_seconds(segment, columns["elapsed_seconds"])[..., None]) & (segment != 0)[..., None]
        columns["actions"] = np.where(np.tile(unknown, 2), encoded.late.pending, columns["actions"])
    return Batch(Events(**columns), labels)


def _next_seconds(segment: Int32[np.ndarray, "b L"], elapsed: Int32[np.ndarray, "b L"]) -> Int32[np.ndarray, "b L"]:
    """When the first event that sees each slot's happens: the next of its segment at a later second, or never."""
    length = segment.shape[1]
    last = np.ones(segment.shape, bool)  # of its segment and second
    last[:, :-1] = (segment[:, 1:] != segment[:, :-1]) | (elapsed[:, 1:] != elapsed[:, :-1])
    following = np.where(last, np.arange(1, length + 1), length)
    following = np.minimum.accumulate(following[:, ::-1], axis=1)[:, ::-1]
    index = np.minimum(following, length - 1)
    sees = (following < length) & (np.take_along_axis(segment, index, axis=1) == segment)
    return np.where(sees, np.take_along_axis(elapsed, index, axis=1), np.iinfo(np.int32).max)
