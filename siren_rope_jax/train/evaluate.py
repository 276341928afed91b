"""Evaluation of a trained run on its log, and scoring of new events."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from jaxtyping import Float32

from siren_rope_jax.data.encode import Encoded
from siren_rope_jax.data.event_log import EventLog
from siren_rope_jax.train.durable import write_json
from siren_rope_jax.train.predict import PERIODS, metrics_of, write_predictions
from siren_rope_jax.train.processes import decided_by_first
from siren_rope_jax.train.run_data import check_data, check_history
from siren_rope_jax.train.session import Session, load_session


def evaluate(log: EventLog, run: str | os.PathLike[str]) -> dict[str, Any]:
    """Evaluates the best checkpoint of a run again, and rewrites its metrics and predictions.

    Args:
      log: the log of the training.
      run: folder of the run.

    Returns:
      Metrics of each task on validation and test.

    Raises:
      InputError: if the folder is not a run with a checkpoint, or the log has changed since the training.
    """
    run = Path(run)
    session, params = load_session(run)
    encoded = session.encoder.encode(log)
    check_data(run, log)
    return write_evaluation(session, params, log, encoded, run)


def write_evaluation(session: Session, params: nnx.State, log: EventLog, encoded: Encoded, run: Path) -> dict[str, Any]:
    """Predicts validation and test, writes `predictions.parquet` and `metrics.json`, and returns the metrics."""
    predictions = session.predict(params, encoded, np.isin(log.period, list(PERIODS.values())))
    metrics = {
        name: metrics_of(session.tasks, log, predictions, log.period == period) for name, period in PERIODS.items()
    }

    def write() -> None:
        write_predictions(run / "predictions.parquet", session.tasks, log, predictions)
        write_json(run / "metrics.json", metrics)

    decided_by_first(write)
    return metrics


def score(
    log: EventLog,
    run: str | os.PathLike[str],
    *,
    as_history: bool = False,
    allow_changed: bool = False,
    say: Callable[[str], None] = print,
) -> Float32[np.ndarray, "N K"]:
    """Scores the new events of a log with the best checkpoint of a run.

    Args:
      log: the history and the new events, `read_event_log(spec, new_events=...)`.
      run: folder of the run.
      as_history: whether new events, with their outcomes if given, are history of later ones; otherwise each is scored
        as if it were the only one.
      allow_changed: whether to score even if events of the log have changed since the training.
      say: prints a note if the log has changed.

    Returns:
      Predictions of the tasks for each new event, probabilities or numbers, in the order of their rows in their file.

    Raises:
      InputError: if the folder is not a run with a checkpoint, or events of the training have changed.
    """
    run = Path(run)
    if changed := check_history(run, log, allow_changed=allow_changed):
        say(changed)
    session, params = load_session(run)
    predictions = session.predict(params, session.encoder.encode(log, as_history=as_history), log.new)[log.new]
    return predictions[np.argsort(log.row[log.new])]
