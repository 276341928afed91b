"""95 % intervals of metrics, and of their differences between two models, by resampling users."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64

from siren_rope_jax.train.metrics import cross_entropy, resampled_totals
from siren_rope_jax.train.tasks import BinaryTask, ContinuousTask, Evaluated, Task

Statistic = Callable[[Float64[np.ndarray, "samples M"]], Float64[np.ndarray, " samples"]]


class Interval(NamedTuple):
    """A value, and the 2.5 % and 97.5 % quantiles of its bootstrap; NaN where it is not defined."""

    value: float
    low: float
    high: float


class Summands(NamedTuple):
    """Numbers of each event, and the metrics as functions of their totals."""

    columns: Float64[np.ndarray, "E M"]
    metrics: Mapping[str, Statistic]


def intervals(task: Task, events: Evaluated) -> dict[str, Interval]:
    """Computes the metrics that are functions of totals over events, with their intervals over users.

    Args:
      task: the task; one of a kind without a line in `SUMMANDS` has no intervals.
      events: labels and predictions.

    Returns:
      Intervals by the names of the metrics; none if no label is observed.
    """
    found = summands(task, events)
    if found is None:
        return {}
    totals = resampled_totals(events.user, found.columns)
    return {name: _interval(statistic, *totals) for name, statistic in found.metrics.items()}


def differences(task: Task, events: Evaluated, others: Evaluated) -> dict[str, Interval]:
    """Computes the metrics of one model less those of another on the same events, each pair on the same users.

    Args:
      task: the task, as in `intervals`.
      events: labels and predictions of the one.
      others: those of the other, in the same order.
    """
    ours, theirs = summands(task, events), summands(task, others)
    if ours is None or theirs is None:
        return {}
    columns = ours.columns.shape[1]
    totals = resampled_totals(events.user, np.concatenate([ours.columns, theirs.columns], axis=1))

    def difference(name: str) -> Statistic:
        return lambda both: ours.metrics[name](both[..., :columns]) - theirs.metrics[name](both[..., columns:])

    return {name: _interval(difference(name), *totals) for name in ours.metrics}


def summands(task: Task, events: Evaluated) -> Summands | None:
    """Returns the numbers whose totals give the metrics of a task; None if it has none, or no label is observed."""
    weight = np.ones(events.labels.shape) if events.weight is None else events.weight.astype(np.float64)
    weight = np.where(np.isnan(events.labels), 0, weight)
    if type(task) not in SUMMANDS or not weight.any():
        return None
    return SUMMANDS[type(task)](task, events, weight)


def _interval(
    statistic: Statistic, totals: Float64[np.ndarray, " M"], resampled: Float64[np.ndarray, "samples M"]
) -> Interval:
    with np.errstate(invalid="ignore", divide="ignore"):
        low, high = np.quantile(statistic(resampled), (0.025, 0.975))
        return Interval(float(statistic(totals[None])[0]), float(low), float(high))


def _of_binary(task: Task, events: Evaluated, weight: Float64[np.ndarray, " E"]) -> Summands:
    label = np.where(weight > 0, events.labels, 0).astype(np.float64)
    positive, negative = weight * label, weight * (1 - label)
    below, above = _placements(events.predictions, positive, negative)
    columns = [weight, positive, weight * cross_entropy(label, events.predictions), positive * below, negative * above]

    def log_loss(totals: Float64[np.ndarray, "samples M"]) -> Float64[np.ndarray, " samples"]:
        return totals[..., 2] / totals[..., 0]

    def ne(totals: Float64[np.ndarray, "samples M"]) -> Float64[np.ndarray, " samples"]:
        rate = totals[..., 1] / totals[..., 0]
        return log_loss(totals) / -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))

    def auc(totals: Float64[np.ndarray, "samples M"]) -> Float64[np.ndarray, " samples"]:
        return _shares(totals) - whole / 2

    columns = np.stack(columns, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        whole = float(_shares(columns.sum(axis=0, keepdims=True))[0])
    return Summands(columns, {"ne": ne, "auc": auc, "log_loss": log_loss})


def _shares(totals: Float64[np.ndarray, "samples M"]) -> Float64[np.ndarray, " samples"]:
    """The mean share of negatives below a positive, plus that of positives above a negative: twice the AUC.

    The AUC of resampled users needs all pairs again. Its first-order change needs these two means alone: each is of
    resampled events against all others (Hajek's projection, as in the intervals of DeLong et al. 1988).
    """
    return totals[..., 3] / totals[..., 1] + totals[..., 4] / (totals[..., 0] - totals[..., 1])


def _placements(
    score: Float[np.ndarray, " E"], positive: Float64[np.ndarray, " E"], negative: Float64[np.ndarray, " E"]
) -> tuple[Float64[np.ndarray, " E"], Float64[np.ndarray, " E"]]:
    """Returns the share of negatives with a lower score, and of positives with a higher one; ties count half."""
    _, tie = np.unique(score, return_inverse=True)
    of_ties = [np.bincount(tie, weights=x) for x in (negative, positive)]
    below, above = (np.cumsum(x) - x / 2 for x in of_ties)
    totals = [max(float(x.sum()), math.ulp(0.0)) for x in of_ties]
    return (below / totals[0])[tie], ((of_ties[1].sum() - above) / totals[1])[tie]


def _of_continuous(task: Task, events: Evaluated, weight: Float64[np.ndarray, " E"]) -> Summands:
    label = np.where(weight > 0, events.labels, 0).astype(np.float64)
    error = np.where(weight > 0, events.predictions - label, 0)
    label = label - np.average(label, weights=weight)  # so that a large mean costs the squares no digits
    target, of_prediction = (task.outcome.standardise(x).astype(np.float64) for x in events[:2])
    target, of_prediction = (np.where(weight > 0, x, 0) for x in (target, of_prediction))
    numbers = (1, error**2, np.abs(error), label, label**2, (of_prediction - target) ** 2, target**2)
    columns = np.stack([weight * x for x in numbers], axis=1)

    def mean(column: int) -> Statistic:
        return lambda totals: totals[..., column] / totals[..., 0]

    def r2(totals: Float64[np.ndarray, "samples M"]) -> Float64[np.ndarray, " samples"]:
        return 1 - totals[..., 1] / (totals[..., 4] - totals[..., 3] ** 2 / totals[..., 0])

    metrics: dict[str, Statistic] = {
        "rmse": lambda totals: np.sqrt(mean(1)(totals)),
        "mae": mean(2),
        "r2": r2,
        "relative_rmse": lambda totals: np.sqrt(totals[..., 5] / totals[..., 6]),
    }
    return Summands(columns, metrics)


SUMMANDS: dict[type[Task], Callable[[Task, Evaluated, Float64[np.ndarray, " E"]], Summands]] = {
    BinaryTask: _of_binary,
    ContinuousTask: _of_continuous,
}
