"""Kinds of tasks: initial output, loss, link, metrics and prediction column of each.

A new kind is a class here with a line in `TASKS`, beside a class in `data.signals` that reads its labels.
"""

import abc
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float32, Shaped

from siren_rope_jax.data.event_log import EventLog
from siren_rope_jax.data.outcome_scale import OutcomeScale
from siren_rope_jax.data.periods import TRAIN
from siren_rope_jax.data.signals import fit_scales
from siren_rope_jax.train.metrics import regression_metrics, task_metrics
from siren_rope_jax.train.ranking import RANKING, ranking_metrics

FEW = 20  # with fewer positives, negatives or numbers, a metric is mostly chance
_RAREST = 1e-4  # least base rate that a prediction starts from


class Metric(NamedTuple):
    """A metric's title in tables, and whether more is better; None if the metric does not depend on the model."""

    title: str
    maximise: bool | None = False


class Evaluated(NamedTuple):
    """Events of which metrics are computed, with labels and predictions on the scale of the log."""

    labels: Float32[np.ndarray, " E"]  # NaN where unobserved
    predictions: Float32[np.ndarray, " E"]
    user: Shaped[np.ndarray, " E"]
    weight: Float32[np.ndarray, " E"] | None = None  # metrics within groups leave out those of weight 0, no more
    group: Shaped[np.ndarray, " E"] | None = None  # for the metrics of order within groups


@dataclasses.dataclass(frozen=True)
class Task(abc.ABC):
    """One column of predictions.

    Attributes:
      outcome: name, and scale of the labels.
      prefix: prefix of the prediction column's name.
      metrics: metrics that `measure` returns, except counts of events.
      headline: two metrics to show in little space.
      of_seeds: metrics to show as means over seeds.
      shown: columns of the table of metrics, including counts of events.
      compared: metric that is comparable between tasks: less is better, and predicting the base rate or mean has 1.
    """

    outcome: OutcomeScale
    prefix: ClassVar[str]
    metrics: ClassVar[Mapping[str, Metric]]
    headline: ClassVar[tuple[str, str]]
    of_seeds: ClassVar[tuple[str, ...]]
    shown: ClassVar[tuple[str, ...]]
    compared: ClassVar[str]

    @property
    def name(self) -> str:
        """Name of the task."""
        return self.outcome.name

    @property
    def column(self) -> str:
        """Name of the prediction column."""
        return f"{self.prefix}_{self.name}"

    @classmethod
    def title(cls, name: str) -> str:
        """Returns the title of a metric, or of a count."""
        return cls.metrics[name].title if name in cls.metrics else name

    @property
    @abc.abstractmethod
    def start(self) -> float:
        """Initial output of a model for every event."""

    @staticmethod
    @abc.abstractmethod
    def losses(outputs: Float32[Array, "*batch K"], targets: Float32[Array, "*batch K"]) -> Float32[Array, "*batch K"]:
        """Computes the loss of each output, with targets as the encoder standardised them."""

    @staticmethod
    @abc.abstractmethod
    def link(outputs: Float32[Array, "*batch K"]) -> Float32[Array, "*batch K"]:
        """Converts outputs to predictions of the targets."""

    @abc.abstractmethod
    def measure(self, events: Evaluated) -> dict[str, Any]:
        """Computes the metrics; undefined ones are None."""

    @staticmethod
    @abc.abstractmethod
    def telling(metrics: Mapping[str, Any]) -> bool:
        """Returns whether metrics are of enough events not to be mostly chance."""

    @abc.abstractmethod
    def doubt(self, labels: Float32[np.ndarray, " E"]) -> str | None:
        """Returns a warning, to follow the name of a period, if its labels are too few for metrics; else None."""


@dataclasses.dataclass(frozen=True)
class BinaryTask(Task):
    """Probability of a 0/1 outcome, learned by cross-entropy from the base rate on."""

    prefix = "probability"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "ne": Metric("NE"),
        "auc": Metric("AUC", maximise=True),
        "gauc": Metric("GAUC", maximise=True),
        "ece": Metric("ECE"),
        "log_loss": Metric("log loss"),
        **{name: Metric(title, maximise=True) for name, title in RANKING.items()},
    }
    headline = ("ne", "auc")
    of_seeds = ("ne", "auc", "log_loss")
    shown = ("ne", "auc", "gauc", "ece", "log_loss", "events", "positives")
    compared = "ne"

    @property
    def start(self) -> float:
        rate = min(max(self.outcome.mean, _RAREST), 1 - _RAREST)
        return math.log(rate / (1 - rate))

    @staticmethod
    def losses(outputs: Float32[Array, "*batch K"], targets: Float32[Array, "*batch K"]) -> Float32[Array, "*batch K"]:
        return optax.sigmoid_binary_cross_entropy(outputs, targets)

    @staticmethod
    def link(outputs: Float32[Array, "*batch K"]) -> Float32[Array, "*batch K"]:
        return jax.nn.sigmoid(outputs)

    def measure(self, events: Evaluated) -> dict[str, Any]:
        labels, predictions, user, weight, group = events
        found = task_metrics(labels, predictions, user, weight)
        if group is None:
            return found
        counts = slice(None) if weight is None else weight > 0
        return found | ranking_metrics(labels[counts], predictions[counts], group[counts])

    @staticmethod
    def telling(metrics: Mapping[str, Any]) -> bool:
        return min(metrics["positives"], metrics["events"] - metrics["positives"]) >= FEW

    def doubt(self, labels: Float32[np.ndarray, " E"]) -> str | None:
        observed, positives = int((~np.isnan(labels)).sum()), float(np.nansum(labels))
        if not 0 < positives < observed:
            found = "positives" if observed and not positives else "negatives" if observed else "observed labels"
            return f"has no {found} of {self.name} ({observed:,} observed): its NE is not defined"
        rarer, count = "positives", positives
        if positives > observed - positives:
            rarer, count = "negatives", observed - positives
        few = f"has only {count:.3g} {rarer} of {self.name}: its metrics are mostly chance"
        return few if count < FEW else None


@dataclasses.dataclass(frozen=True)
class ContinuousTask(Task):
    """Number, learned by the Huber loss on its standardised transform: errors above one standard deviation are linear.

    Predictions are on the scale of the log. Without a transform they are close to the mean, but more robust; with
    "log1p", expm1 of the predicted mean logarithm is close to the median, which is below the mean. All metrics are on
    the scale of the log except relative_rmse, which is on the transformed scale, as the loss is.
    """

    prefix = "predicted"
    metrics: ClassVar[Mapping[str, Metric]] = {
        "rmse": Metric("RMSE"),
        "mae": Metric("MAE"),
        "r2": Metric("R2", maximise=True),
        "spearman": Metric("Spearman", maximise=True),
        "relative_rmse": Metric("relative RMSE"),
        "base_rmse": Metric("RMSE of the mean", None),
        "base_mae": Metric("MAE of the mean", None),
    }
    headline = ("rmse", "spearman")
    of_seeds = ("rmse", "mae", "r2", "spearman")
    shown = ("rmse", "mae", "r2", "spearman", "base_rmse", "base_mae", "events")
    compared = "relative_rmse"

    @property
    def start(self) -> float:
        return 0.0

    @staticmethod
    def losses(outputs: Float32[Array, "*batch K"], targets: Float32[Array, "*batch K"]) -> Float32[Array, "*batch K"]:
        return optax.huber_loss(outputs, targets, delta=1.0)

    @staticmethod
    def link(outputs: Float32[Array, "*batch K"]) -> Float32[Array, "*batch K"]:
        return outputs

    def measure(self, events: Evaluated) -> dict[str, Any]:
        labels, predictions, weight = events.labels, events.predictions, events.weight
        found = regression_metrics(labels, predictions, training_mean=self.outcome.mean, weight=weight)
        # As it is trained: on the scale of the log, a few long dwells would decide alone.
        targets, of_targets = self.outcome.standardise(labels), self.outcome.standardise(predictions)
        transformed = regression_metrics(targets, of_targets, training_mean=0.0, weight=weight)
        return found | {"relative_rmse": transformed["relative_rmse"]}

    @staticmethod
    def telling(metrics: Mapping[str, Any]) -> bool:
        return metrics["events"] >= FEW

    def doubt(self, labels: Float32[np.ndarray, " E"]) -> str | None:
        seen = labels[~np.isnan(labels)]
        if not len(seen) or seen.min() == seen.max():
            found = f"no value but {seen[0]:g} of {self.name}" if len(seen) else f"no observed labels of {self.name}"
            return f"has {found} ({len(seen):,} observed): its R2 is not defined"
        few = f"has only {len(seen)} observed labels of {self.name}: its metrics are mostly chance"
        return few if len(seen) < FEW else None


TASKS: dict[str, type[Task]] = {"binary": BinaryTask, "continuous": ContinuousTask}


def make_tasks(outcomes: Sequence[OutcomeScale]) -> tuple[Task, ...]:
    """Makes the tasks of an encoder."""
    return tuple(TASKS[outcome.kind](outcome) for outcome in outcomes)


def tasks_of(log: EventLog) -> tuple[Task, ...]:
    """Makes the tasks of a log, as an encoder fitted to it would have them."""
    train = log.period == TRAIN
    return make_tasks(fit_scales(log.spec.tasks, log.labels[train], None if log.weight is None else log.weight[train]))


def losses_of(
    tasks: Sequence[Task], outputs: Float32[Array, "*batch K"], targets: Float32[Array, "*batch K"]
) -> Float32[Array, "*batch K"]:
    """Computes the loss of each output with its task's function."""
    return _by_kind(tasks, lambda kind: kind.losses(outputs, targets))


def linked(tasks: Sequence[Task], outputs: Float32[Array, "*batch K"]) -> Float32[Array, "*batch K"]:
    """Converts each output to a prediction of its task's target."""
    return _by_kind(tasks, lambda kind: kind.link(outputs))


def restored(tasks: Sequence[Task], predictions: Float32[np.ndarray, "E K"]) -> Float32[np.ndarray, "E K"]:
    """Converts predictions of targets back to the scale of the log."""
    columns = zip(tasks, predictions.T, strict=True)
    return np.stack([task.outcome.restore(column) for task, column in columns], axis=1)


def kind_of(metrics: Mapping[str, Any]) -> type[Task]:
    """Returns the kind of task that has such metrics."""
    return next(kind for kind in TASKS.values() if kind.compared in metrics)


def _by_kind(tasks: Sequence[Task], of_kind: Callable[[type[Task]], jax.Array]) -> jax.Array:
    """Computes all columns once for each kind, and takes each column from its own kind."""
    first, *others = dict.fromkeys(type(task) for task in tasks)
    result = of_kind(first)
    for kind in others:
        result = jnp.where(np.array([type(task) is kind for task in tasks]), of_kind(kind), result)
    return result
