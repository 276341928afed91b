"""File of the scores of new events."""

from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Float32

from siren_rope_jax.data.event_log import EventLog
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.errors import InputError


def check_scores_file(path: Path, spec: EventLogSpec) -> None:
    """Checks that a file is new or holds earlier scores, which may be overwritten.

    Raises:
      InputError: if the file holds anything else.
    """
    header = ",".join(task.name for task in spec.tasks)
    if not path.exists():
        return
    if path.is_file():
        with path.open("rb") as file:
            if file.readline(len(header) + 3).decode("utf-8", "replace").strip() == header:
                return
    raise InputError(
        f"{path} must be a new file or earlier scores of the tasks {header}, but is something else; give another --out"
    )


def write_scores(path: Path, log: EventLog, predictions: Float32[np.ndarray, "N K"]) -> None:
    """Writes one row per new event, in the order of their file, with one prediction per task, as CSV.

    Args:
      path: the file to write.
      log: the log with the new events.
      predictions: predictions of the new events in the order of their rows.
    """
    table = pl.DataFrame({task: predictions[:, k] for k, task in enumerate(log.task_names)})
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    table.write_csv(temporary)
    temporary.replace(path)
