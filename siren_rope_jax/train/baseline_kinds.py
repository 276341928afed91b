"""Baselines of each kind of task: choice of its events, linear model, trees and loss."""

import abc
import math
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np
import scipy.sparse
from jaxtyping import Float32, Int64
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge

from siren_rope_jax.train.metrics import cross_entropy

Table = np.ndarray | scipy.sparse.csr_matrix

_INVERSE_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
_PENALTIES = (1e3, 1e2, 1e1, 1.0, 1e-1)  # as many, for squared errors
_RARE, _RARE_MORE = 1_000, 3  # sufficient events of the rarer outcome; factor on the sample's size to reach them


class Sample(NamedTuple):
    """Events with an observed outcome."""

    inputs: Table
    labels: Float32[np.ndarray, " E"]

    @classmethod
    def of(cls, inputs: Table, labels: np.ndarray, chosen: np.ndarray, weight: np.ndarray | None = None) -> "Sample":
        """Selects the chosen events that have a label; a label between 0 and 1, of repeated rows, is drawn as 0 or 1.

        An event of twice the mean weight is there twice, and a fraction is drawn. Weights would be exact, but make
        gradient boosting several times slower.
        """
        events = _drawn(np.flatnonzero(chosen & ~np.isnan(labels)), weight)
        drawn = np.random.default_rng(0).random(len(events)) < labels[events]
        return cls(inputs[events], drawn.astype(np.float32))

    def thinned(self, most: int) -> "Sample":
        """Selects `most` events, evenly over time for each outcome; more if the rarer outcome would be too rare."""
        rare, common = sorted((np.flatnonzero(self.labels == outcome) for outcome in (0, 1)), key=len)
        enough = min(_RARE * len(self.labels) / max(len(rare), 1), _RARE_MORE * most)
        share = max(most, enough) / max(len(self.labels), 1)
        if share >= 1:
            return self
        counts = (math.ceil(share * len(events)) for events in (rare, common))
        kept = [e[np.arange(count) * len(e) // max(count, 1)] for e, count in zip((rare, common), counts, strict=True)]
        chosen = np.sort(np.concatenate(kept))
        return Sample(self.inputs[chosen], self.labels[chosen])


class Numbers(Sample):
    """Events with an observed number, transformed and standardised as for the recommender."""

    @classmethod
    def of(cls, inputs: Table, labels: np.ndarray, chosen: np.ndarray, weight: np.ndarray | None = None) -> "Numbers":
        """Selects the chosen events that have a label, as often as their weights say."""
        events = _drawn(np.flatnonzero(chosen & ~np.isnan(labels)), weight)
        return cls(inputs[events], labels[events])

    def thinned(self, most: int) -> "Numbers":
        """Selects `most` events, evenly over time."""
        count = len(self.labels)
        if count <= most:
            return self
        chosen = np.arange(most) * count // most
        return Numbers(self.inputs[chosen], self.labels[chosen])


def _drawn(events: Int64[np.ndarray, " N"], weight: np.ndarray | None) -> Int64[np.ndarray, " M"]:
    if weight is None or not weight[events].any():
        return events
    times = weight[events] / weight[events].mean(dtype=np.float64)
    return np.repeat(events, np.floor(times + np.random.default_rng(1).random(len(events))).astype(np.int64))


class Models(abc.ABC):
    """Baselines of one kind of task.

    Attributes:
      base: name of the baseline without inputs, which predicts the mean of the training period for every event.
      linear: name of the linear baseline.
      sample: class that chooses events.
      trees: class of the gradient-boosted trees.
      penalty: name of the linear model's penalty, and the values to try.
    """

    base: ClassVar[str]
    linear: ClassVar[str]
    sample: ClassVar[type[Sample]]
    trees: ClassVar[type[Any]]
    penalty: ClassVar[tuple[str, tuple[float, ...]]]

    @staticmethod
    @abc.abstractmethod
    def make_linear(*, last: bool) -> Any:
        """Makes a linear model, for trying penalties or as the last one."""

    @staticmethod
    @abc.abstractmethod
    def loss(labels: np.ndarray, predictions: np.ndarray) -> float:
        """Returns the mean loss, for validation."""

    @staticmethod
    @abc.abstractmethod
    def predict(model: Any, inputs: Table) -> np.ndarray:
        """Returns the predictions of a fitted model."""

    @staticmethod
    @abc.abstractmethod
    def stages(model: Any, inputs: Table) -> Iterator[np.ndarray]:
        """Yields the predictions after each tree."""


class Classifiers(Models):
    """Baselines of a 0/1 outcome, which predict its probability."""

    base, linear = "base_rate", "logistic_regression"
    sample, trees = Sample, HistGradientBoostingClassifier
    penalty = ("C", _INVERSE_PENALTIES)

    @staticmethod
    def make_linear(*, last: bool) -> Any:
        return LogisticRegression(max_iter=1000) if last else LogisticRegression(max_iter=300, warm_start=True)

    @staticmethod
    def loss(labels: np.ndarray, predictions: np.ndarray) -> float:
        return float(cross_entropy(labels, predictions).mean())

    @staticmethod
    def predict(model: Any, inputs: Table) -> np.ndarray:
        return model.predict_proba(inputs)[:, 1]

    @staticmethod
    def stages(model: Any, inputs: Table) -> Iterator[np.ndarray]:
        return (probabilities[:, 1] for probabilities in model.staged_predict_proba(inputs))


class Regressors(Models):
    """Baselines of a number, which predict its mean by squared error."""

    base, linear = "training_mean", "ridge_regression"
    sample, trees = Numbers, HistGradientBoostingRegressor
    penalty = ("alpha", _PENALTIES)

    @staticmethod
    def make_linear(*, last: bool) -> Any:
        return Ridge()

    @staticmethod
    def loss(labels: np.ndarray, predictions: np.ndarray) -> float:
        return float(np.mean((labels - predictions) ** 2))

    @staticmethod
    def predict(model: Any, inputs: Table) -> np.ndarray:
        return model.predict(inputs)

    @staticmethod
    def stages(model: Any, inputs: Table) -> Iterator[np.ndarray]:
        return model.staged_predict(inputs)


MODELS: dict[str, type[Models]] = {"binary": Classifiers, "continuous": Regressors}
