"""Windows -> packed rows of several windows -> shuffled, sharded grain batches."""

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
MOST_ROWS = 32  # default batch size, for a long log


@dataclasses.dataclass(frozen=True)
class BatchConfig:
    """Shape of the batches."""

    window: int = 64
    """Limit of an event's context: it sees at most window - 1 earlier events, and none of its own second; even."""
    row_length: int = drifts(128)
    """Number of slots in a row, into which whole windows are packed."""
    batch_size: int | None = drifts(None)
    """Number of rows in a step, over all processes; chosen by the size of the log if not given."""

    def __post_init__(self) -> None:
        if self.window < 2 or self.window % 2:
            raise ValueError(f"window must be even and at least 2, but is {self.window}")
        if self.row_length < self.window:
            raise ValueError(f"row_length must be at least the window, {self.window}, but is {self.row_length}")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, but is {self.batch_size}")

    @property
    def rows(self) -> int:
        """Batch size; the default for a long log if none is set."""
        return self.batch_size or MOST_ROWS


@dataclasses.dataclass(frozen=True)
class PackedRows:
    """Assignment of events to the slots of rows."""

    row_index: Int32[np.ndarray, "R L"]  # row of the encoded arrays, or PADDING
    segment: Int32[np.ndarray, "R L"]
    position: Int32[np.ndarray, "R L"]
    scored: Bool[np.ndarray, "R L"]

    @property
    def fill(self) -> float:
        """Fraction of the slots that hold an event."""
        return float((self.row_index != PADDING).mean())


def pack_rows(
    windows: Windows,
    scored: Bool[np.ndarray, " E"],
    first_of_second: Int32[np.ndarray, " E"],
    row_length: int,
    *,
    seed: int,
) -> PackedRows:
    """Packs windows into rows, longest first, each into the fullest row that has room for it.

    Args:
      windows: windows, none longer than `row_length`.
      scored: events to train on or to evaluate; the history in a window is not scored again.
      first_of_second: index of the first event of each event's user and second: the events of a second share one
        position, the number of events of the window that they see.
      row_length: number of slots in a row.
      seed: seed of the choice among windows of the same length.

    Returns:
      The rows, in the order of their first windows.
    """
    order = np.random.default_rng(seed).permutation(len(windows.first))
    order = order[np.argsort(-windows.lengths[order], kind="stable")]
    places, count = _places(windows.lengths[order], row_length)
    # Sorts by row, and by slot within a row.
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
    """Returns row * row_length + first slot for each window, given by descending length, and the number of rows."""
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
    """Cuts and packs the sequences of `encoded` so that every scored event is in exactly one scored slot.

    Args:
      encoded: events of whole users.
      scored: events to train on or to evaluate.
      config: sizes of window and row.
      history: events of history at the start of a window (`plan_windows`); half a window, for training, if not given.
      seed: seed of the choice among windows of the same length.
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

    Batch k holds the examples from first_example + k * batch_size on, in the shuffled, repeated order of the rows, for
    any number of processes. So a run resumes exactly from the number of examples that it has seen.

    Args:
      encoded: arrays of events.
      rows: slots of the events.
      config: shape of the batches.
      seed: seed of the endless order, shuffled again in every epoch; None goes through the rows once, unshuffled, and
        fills the last batch with padding.
      rows_here: rows of each batch that this process takes; all if not given.
      first_example: example that the first batch starts with.

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
    row_index, segment = _take(rows.row_index, indices, PADDING), _take(rows.segment, indices, 0)
    padding = np.flatnonzero(row_index == PADDING)
    columns: dict[str, Any] = {"segment": segment, "position": _take(rows.position, indices, 0)}
    for name, column in encoded.columns.items():
        columns[name] = column.take(row_index, axis=0, mode="clip")  # PADDING takes the first event
        columns[name].reshape(row_index.size, *column.shape[1:])[padding] = 0
    labels = columns.pop("labels")
    labels[~_take(rows.scored, indices, False)] = np.nan
    if encoded.late is not None:
        known = encoded.late.known.take(row_index, axis=0, mode="clip")
        unknown = (known > _next_seconds(segment, columns["elapsed_seconds"])[..., None]) & (segment != 0)[..., None]
        columns["actions"] = np.where(np.tile(unknown, 2), encoded.late.pending, columns["actions"])
    weight = None if encoded.weight is None else encoded.weight.take(row_index, mode="clip")
    return Batch(Events(**columns), labels, weight)  # type: ignore[arg-type]


def _take(values: np.ndarray, indices: np.ndarray, empty: int | bool) -> np.ndarray:
    taken = values.take(indices, axis=0, mode="clip")
    taken[indices >= len(values)] = empty
    return taken


def _next_seconds(segment: Int32[np.ndarray, "b L"], elapsed: Int32[np.ndarray, "b L"]) -> Int32[np.ndarray, "b L"]:
    """Returns the time of the first event that sees each slot's event: the next later second of its segment, or never.

    "Never" is the largest int32.
    """
    length = segment.shape[1]
    last = np.ones(segment.shape, bool)  # last of its segment and second
    last[:, :-1] = (segment[:, 1:] != segment[:, :-1]) | (elapsed[:, 1:] != elapsed[:, :-1])
    following = np.where(last, np.arange(1, length + 1), length)
    following = np.minimum.accumulate(following[:, ::-1], axis=1)[:, ::-1]
    index = np.minimum(following, length - 1)
    sees = (following < length) & (np.take_along_axis(segment, index, axis=1) == segment)
    return np.where(sees, np.take_along_axis(elapsed, index, axis=1), np.iinfo(np.int32).max)
