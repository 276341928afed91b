"""Log of a run for TensorBoard."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # type: ignore[attr-defined]
from tensorboardX.summary import scalar

from siren_rope_jax.errors import InputError
from siren_rope_jax.train.criterion import Judged

_FLUSH_SECONDS = 10


class RunLog:
    """Event file in the `tensorboard/` folder of a run, written by process 0 alone.

    It replaces tensorboardX's `SummaryWriter`, which writes in a thread: on a full disk the thread dies silently and
    training waits for it forever; and it is not known which events are on the disk when a checkpoint is.
    """

    def __init__(self, run: Path, *, first_step: int):
        """Opens a new file; TensorBoard then hides what an interrupted run logged from `first_step` on."""
        self._folder = run / "tensorboard"
        self._flushed = time.monotonic()
        self._file: EventsWriter | None = None
        if jax.process_index() == 0:
            with self._naming_errors():
                self._folder.mkdir(exist_ok=True)
                number = len(list(self._folder.iterdir()))  # files of the same second would otherwise share a name
                self._file = EventsWriter(str(self._folder / "events"), f".{number}")
                self._file.write_event(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)))
                self._file.flush()

    def add_step(self, metrics: Mapping[str, Any], task_names: Sequence[str], step: int, **scalars: float) -> None:
        """Writes the metrics of a training step of one model, and further scalars."""
        shown = {"loss": metrics["loss"], "gradient_norm": metrics["gradient_norm"], **scalars}
        shown |= {f"loss_{name}": loss for name, loss in zip(task_names, metrics["task_losses"], strict=True)}
        shown = {f"train/{name}": value for name, value in shown.items()}
        for name, values in metrics.items():
            if name.startswith("rotary/"):
                shown |= {f"{name}_{index}": value for index, value in enumerate(np.ravel(values))}
        self._add(shown, step)
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def add_validation(
        self, metrics: Mapping[str, Mapping[str, Any]], judged: Judged | None, step: int, diagnosed: Mapping[str, Any]
    ) -> None:
        """Writes the metrics of a validation that are defined, its result by the criterion, and what is diagnosed."""
        shown = {f"{task}/{name}": value for task, values in metrics.items() for name, value in values.items()}
        shown |= {} if judged is None else {judged.metric: judged.value}
        shown = {f"validation/{name}": value for name, value in shown.items() if value is not None}
        self._add(shown | dict(diagnosed), step)

    def flush(self) -> None:
        """Flushes the file, so that everything added can be read from it."""
        self._flushed = time.monotonic()
        if self._file is not None:
            with self._naming_errors():
                self._file.flush()

    def close(self) -> None:
        """Flushes and closes the file."""
        if self._file is not None:
            with self._naming_errors():
                self._file.close()

    def _add(self, scalars: Mapping[str, Any], step: int) -> None:
        if self._file is not None:
            with self._naming_errors():
                for name, value in scalars.items():
                    self._file.write_event(Event(wall_time=time.time(), step=step, summary=scalar(name, float(value))))

    @contextlib.contextmanager
    def _naming_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(
                f"{self._folder} cannot be written: {error.strerror or error}; fix this, and the same command resumes "
                "from the latest checkpoint"
            ) from error
