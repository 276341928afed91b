"""Baselines of each kind of task: how its events are chosen, its linear model, its trees and its loss."""

import abc
import math
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np
import scipy.sparse
from jaxtyping import Float32
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge

from siren_rope_jax.train.metrics import cross_entropy

Table = np.ndarray | scipy.sparse.csr_matrix

_INVERSE_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
_PENALTIES = (1e3, 1e2, 1e1, 1.0, 1e-1)  # as many, of squared errors
_RARE, _RARE_MORE = 1_000, 3  # events of the rarer outcome that suffice; for them, up to thrice as many are taken


class Sample(NamedTuple):
    """Events whose outcome was observed."""

    inputs: Table
    labels: Float32[np.ndarray, " E"]

    @classmethod
    def of(cls, inputs: Table, labels: np.ndarray, chosen: np.ndarray) -> "Sample":
        """The chosen events that have a label; one between 0 and 1, of repeated rows, is drawn with that chance.

        Weights would say the same exactly, but cost gradient boosting several times its time.
        """
        events = np.flatnonzero(chosen & ~np.isnan(labels))
        drawn = np.random.default_rng(0).random(len(events)) < labels[events]
        return cls(inputs[events], drawn.astype(np.float32))

    def thinned(self, most: int) -> "Sample":
        """So many of the events, evenly over time in each outcome; more if else too few had the rarer outcome."""
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
    """Events whose outcome is a number, as the recommender is trained on it."""

    @classmethod
    def of(cls, inputs: Table, labels: np.ndarray, chosen: np.ndarray) -> "Numbers":
        """The chosen events that have a label."""
        events = np.flatnonzero(chosen & ~np.isnan(labels))
        return cls(inputs[events], labels[events])

    def thinned(self, most: int) -> "Numbers":
        """So many of the events, evenly over time."""
        count = len(self.labels)
        if count <= most:
            return self
        chosen = np.arange(most) * count // most
        return Numbers(self.inputs[chosen], self.labels[chosen])


class Models(abc.ABC):
    """The baselines of one kind of task.

    Attributes:
      base: name of the one without inputs, which predicts the mean of the training period for every event.
      linear: name of the linear one.
      sample: how events are chosen.
      trees: those that are boosted.
      penalty: name and values of the linear model's setting.
    """

    base: ClassVar[str]
    linear: ClassVar[str]
    sample: ClassVar[type[Sample]]
    trees: ClassVar[type[Any]]
    penalty: ClassVar[tuple[str, tuple[float, ...]]]

    @staticmethod
    @abc.abstractmethod
    def make_linear(*, last: bool) -> Any:
        """Makes a linear model: one to try penalties with, or the last."""

    @staticmethod
    @abc.abstractmethod
    def loss(labels: np.ndarray, predictions: np.ndarray) -> float:
        """Mean loss of validation."""

    @staticmethod
    @abc.abstractmethod
    def predict(model: Any, inputs: Table) -> np.ndarray:
        """Predictions of a fitted model."""

    @staticmethod
    @abc.abstractmethod
    def stages(model: Any, inputs: Table) -> Iterator[np.ndarray]:
        """Predictions after each tree."""


class Classifiers(Models):
    """Of a 0/1 outcome: its probability."""

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
    """Of a number: its mean, by squared error."""

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
