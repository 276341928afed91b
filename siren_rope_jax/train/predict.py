"""Predictions of chosen events, their metrics, and the file of predictions."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import polars as pl
from flax import nnx
from jaxtyping import Bool, Float32

from siren_rope_jax.batch import Batch
from siren_rope_jax.data.batches import BatchConfig, batches, make_rows
from siren_rope_jax.data.encode import Encoded
from siren_rope_jax.data.event_log import EventLog
from siren_rope_jax.data.periods import TEST, VALIDATION
from siren_rope_jax.data.stable_hash import stable_hash
from siren_rope_jax.errors import InputError
from siren_rope_jax.train.sharding import Layout
from siren_rope_jax.train.tasks import Evaluated, Task

PERIODS = {"validation": VALIDATION, "test": TEST}
_EVENTS_AT_ONCE = 100_000  # bounds the memory, since each event may need its own window
Predict = Callable[[nnx.State, Batch], jax.Array]


def predict_events(
    predict: Predict,
    params: nnx.State,
    encoded: Encoded,
    wanted: Bool[np.ndarray, " E"],
    config: BatchConfig,
    layout: Layout,
) -> Float32[np.ndarray, "E K"]:
    """Predicts the targets of the wanted events, each from as much of its user's true history as fits a window.

    Args:
      predict: compiled function of `compile_model`.
      params: parameters of the model.
      encoded: events of whole users.
      wanted: events to score, in the order of the log that was encoded.
      config: windows and batches.
      layout: layout of batches on the mesh.

    Returns:
      Predictions of the tasks' targets in the order of that log; NaN for events that are not wanted.
    """
    tasks = encoded.columns["labels"].shape[1]
    result = np.full((len(wanted), tasks), np.nan, np.float32)
    size = config.rows
    in_user_order = np.flatnonzero(wanted[encoded.log_index])
    for start in range(0, len(in_user_order), _EVENTS_AT_ONCE):
        chosen = np.zeros(len(encoded.log_index), bool)
        chosen[in_user_order[start : start + _EVENTS_AT_ONCE]] = True
        rows = make_rows(encoded, chosen, config, history=config.window - 1)
        dataset = batches(encoded, rows, config, seed=None, rows_here=layout.rows_here(size))
        for index, batch in enumerate(dataset):
            predictions = np.asarray(predict(params, layout.put_batch(batch, size)))
            chunk = slice(index * size, (index + 1) * size)
            row_index, scored = rows.row_index[chunk], rows.scored[chunk]
            result[encoded.log_index[row_index[scored]]] = predictions[: len(row_index)][scored]
    return result


def steering_events(log: EventLog, wanted: int) -> Bool[np.ndarray, " E"]:
    """Chooses the events for the validations during training, of whole users drawn by a hash.

    Args:
      log: the whole log.
      wanted: least number of events; all of the period if it has fewer.
    """
    chosen = log.period == VALIDATION
    by_user = np.bincount(log.user[chosen], minlength=len(log.user_ids))
    drawn = np.argsort(stable_hash(log.user_ids, "validation"))
    drawn = drawn[by_user[drawn] > 0]
    before = np.cumsum(by_user[drawn]) - by_user[drawn]
    return chosen & np.isin(log.user, drawn[before < wanted])


def metrics_of(
    tasks: Sequence[Task], log: EventLog, predictions: Float32[np.ndarray, "E K"], chosen: Bool[np.ndarray, " E"]
) -> dict[str, dict[str, Any]]:
    """Computes the metrics of each task over the chosen events, from predictions on the scale of the log."""
    return {task.name: measure(task, log, predictions[:, k], chosen) for k, task in enumerate(tasks)}


def measure(
    task: Task, log: EventLog, predictions: Float32[np.ndarray, " E"], chosen: Bool[np.ndarray, " E"]
) -> dict[str, Any]:
    """Computes the metrics of one task over the chosen events, from predictions of all on the scale of the log."""
    return task.measure(evaluated(task, log, predictions, chosen))


def evaluated(
    task: Task, log: EventLog, predictions: Float32[np.ndarray, " E"], chosen: Bool[np.ndarray, " E"]
) -> Evaluated:
    """Returns the chosen events with labels and predictions of one task, from predictions of all events."""
    weight, group = (None if column is None else column[chosen] for column in (log.weight, log.group))
    labels = log.labels[chosen, log.task_names.index(task.name)]
    return Evaluated(labels, predictions[chosen], log.user[chosen], weight, group)


def write_predictions(
    path: Path, tasks: Sequence[Task], log: EventLog, predictions: Float32[np.ndarray, "E K"]
) -> None:
    """Writes the events that have a prediction, with row, user, item, time, period and labels, as Parquet.

    Weights, groups and whether a negative was drawn are there if the log has them.
    """
    chosen = ~np.isnan(predictions).any(axis=1)
    columns: dict[str, Any] = {
        "row": log.row[chosen],
        "user": log.user_ids[log.user[chosen]],
        "item": log.item_ids[log.item[chosen]],
        "time_ms": log.time_ms[chosen],
        "period": log.period[chosen],
    }
    optional = {"weight": log.weight, "group": log.group, "drawn": log.drawn}
    columns |= {name: column[chosen] for name, column in optional.items() if column is not None}
    for k, task in enumerate(tasks):
        columns[f"label_{task.name}"] = log.labels[chosen, k]
        columns[task.column] = predictions[chosen, k]
    temporary = path.with_name(path.name + ".tmp")
    pl.DataFrame(columns).write_parquet(temporary)
    temporary.replace(path)


def read_predictions(run: Path, log: EventLog, tasks: Sequence[Task]) -> Float32[np.ndarray, "E K"]:
    """Reads the predictions that `write_predictions` wrote into a run, in the order of its log; NaN for the rest.

    Raises:
      InputError: if the file is missing or damaged, or is not of the events of validation and test.
    """
    path, wanted = run / "predictions.parquet", np.isin(log.period, list(PERIODS.values()))
    again = f"run `siren-rope evaluate {run}` first"
    if not path.exists():
        raise InputError(f"{run} must hold the predictions of a finished training, but has no {path.name}: {again}")
    try:
        found = pl.read_parquet(path, columns=["row", "period", *(task.column for task in tasks)])
    except (OSError, pl.exceptions.PolarsError):
        raise InputError(f"{path} must hold a prediction of each task, but is damaged or lacks one: {again}") from None
    predictions = np.full((len(log.time_ms), len(tasks)), np.nan, np.float32)
    order = np.argsort(log.row)
    index = order[np.minimum(np.searchsorted(log.row, found["row"].to_numpy(), sorter=order), len(order) - 1)]
    same = (log.row[index] == found["row"].to_numpy()) & (log.period[index] == found["period"].to_numpy())
    if not same.all() or len(found) != wanted.sum() or len(np.unique(index)) != len(found):
        raise InputError(f"{path} must hold the events of validation and test once each, but does not: {again}")
    predictions[index] = found.drop("row", "period").to_numpy()
    return predictions
