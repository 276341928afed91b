"""What a run writes for TensorBoard."""

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
    """A file in the `tensorboard/` folder of a run, written by process 0 alone.

    tensorboardX's own `SummaryWriter` writes in a thread: on a full disk that dies unseen, and training then waits for
    it for ever; and nobody knows what of it is on the disk when a checkpoint is.
    """

    def __init__(self, run: Path, *, first_step: int):
        """Opens a new file; what an interrupted run logged from `first_step` on will not be shown."""
        self._folder = run / "tensorboard"
        self._flushed = time.monotonic()
        self._file: EventsWriter | None = None
        if jax.process_index() == 0:
            with self._naming_errors():
                self._folder.mkdir(exist_ok=True)
                number = len(list(self._folder.iterdir()))  # two files of one second would be one
                self._file = EventsWriter(str(self._folder / "events"), f".{number}")
                self._file.write_event(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)))
                self._file.flush()

    def add_step(self, metrics: Mapping[str, Any], task_names: Sequence[str], step: int, **scalars: float) -> None:
        """Writes the metrics of a training step, of one model, and further scalars of it."""
        shown = {"loss": metrics["loss"], "gradient_norm": metrics["gradient_norm"], **scalars}
        shown |= {f"loss_{name}": loss for name, loss in zip(task_names, metrics["task_losses"], strict=True)}
        shown = {f"train/{name}": value for name, value in shown.items()}
        for name, values in metrics.items():
            if name.startswith("rotary/"):
                shown |= {f"{name}_{index}": value for index, value in enumerate(np.ravel(values))}
        self._add(shown, step)
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def add_validation(self, metrics: Mapping[str, Mapping[str, Any]], judged: Judged | None, step: int) -> None:
        """Writes the metrics of a validation, as far as they are defined, and what it came to."""
        shown = {f"{task}/{name}": value for task, values in metrics.items() for name, value in values.items()}
        shown |= {} if judged is None else {judged.metric: judged.value}
        self._add({f"validation/{name}": value for name, value in shown.items() if value is not None}, step)

    def flush(self) -> None:
        """Returns once all that was added can be read from the file."""
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
                f"{self._folder} cannot be written: {error.strerror or error}; put that right, and the same command "
                "goes on from the latest checkpoint"
            ) from error
