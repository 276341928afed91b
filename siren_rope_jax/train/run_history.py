"""Numbers that a run has logged at each step, read back from its event files."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from google.protobuf.message import DecodeError
from jaxtyping import Float64, Int64
from tensorboardX.proto.event_pb2 import Event, SessionLog  # type: ignore[attr-defined]

_HEADER, _CHECKSUM = 12, 4  # bytes: a record's length and its checksum; then its content, and that one's checksum


class Series(NamedTuple):
    """Values of one name, by ascending step."""

    steps: Int64[np.ndarray, " S"]
    values: Float64[np.ndarray, " S"]


def read_history(run: Path) -> dict[str, Series]:
    """Reads every number that `RunLog` wrote, as TensorBoard shows it.

    Each time a run resumes, it starts a file, and what earlier files hold of its first step and later ones is hidden:
    the run was interrupted before it could save them, and has done these steps again.

    Args:
      run: folder of a run.

    Returns:
      Values by name, such as "train/loss"; none if the run has no event files. A file that ends within a record, as one
      does that is being written, counts up to there.
    """
    found: dict[str, dict[int, float]] = {}
    for file in sorted((run / "tensorboard").glob("events.*"), key=_number):
        for event in _events(file.read_bytes()):
            if event.HasField("session_log") and event.session_log.status == SessionLog.START:
                for values in found.values():
                    for step in [step for step in values if step >= event.step]:
                        del values[step]
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = value.simple_value
    ordered = {name: sorted(values) for name, values in found.items() if values}
    return {
        name: Series(np.array(steps, np.int64), np.array([found[name][step] for step in steps], np.float64))
        for name, steps in ordered.items()
    }


def _number(file: Path) -> int:
    """Returns the place of a file among those of a run, which `RunLog` writes at the end of its name."""
    ending = file.suffix[1:]
    return int(ending) if ending.isdecimal() else -1


def _events(content: bytes) -> Iterator[Event]:
    start = 0
    while start + _HEADER <= len(content):
        (length,) = struct.unpack_from("<Q", content, start)
        record = content[start + _HEADER : start + _HEADER + length]
        if len(record) < length:
            return
        try:
            yield Event.FromString(record)
        except DecodeError:
            return
        start += _HEADER + length + _CHECKSUM
