"""The file of scores of new events."""

from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Float32

from siren_rope_jax.data.event_log import EventLog


def write_scores(path: Path, log: EventLog, probabilities: Float32[np.ndarray, "N K"]) -> None:
    """Writes one row per new event, in the order of their file, with one probability per task, as CSV.

    Args:
      path: where to.
      log: with the new events.
      probabilities: of the new events in the order of their rows.
    """
    table = pl.DataFrame({task: probabilities[:, k] for k, task in enumerate(log.task_names)})
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    table.write_csv(temporary)
    temporary.replace(path)
