"""Linear models and gradient boosting for one task, tuned on validation within a bounded time.

Settings are tried on a part of the training events, and the best of them on a larger part (successive halving); only
the best one is fitted to all events, or to as many as it needs. The result is deterministic.
"""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32
from threadpoolctl import threadpool_limits

from siren_rope_jax.train.baseline_kinds import Classifiers, Models, Sample, Table

Settings = dict[str, Any]
Advance = Callable[[float], None]
"""Reports finished work, in events x fits."""

_LINEAR_TRIED, _LINEAR_FITTED = 40_000, 200_000  # events; more do not change a model of some hundred weights

# The shape of the trees is chosen at the first learning rate, then the other rate is tried with that shape.
_LEARNING_RATES = (0.1, 0.03)
_LEAF_NODES = (4, 8, 16, 32)
_LEAVES = (  # small leaves need a penalty, large ones do not
    {"min_samples_leaf": 20, "l2_regularization": 30.0},
    {"min_samples_leaf": 200, "l2_regularization": 1.0},
)
_SHAPES = tuple({"max_leaf_nodes": nodes, **leaves} for nodes, leaves in itertools.product(_LEAF_NODES, _LEAVES))
_ROUNDS = ((25_000, 3), (75_000, 1))  # number of events to try shapes on, number of shapes to keep
_BOOSTING_FITTED = 500_000
_VALIDATED = 100_000
_MOST_TREES = 500
_PATIENCE = 15  # trees without a better validation loss


class Fitted(NamedTuple):
    """Settings chosen on validation for one task, and the predictions of all events."""

    settings: Settings
    predictions: Float32[np.ndarray, " E"]


def fit_linear(
    train: Sample, validation: Sample, inputs: Table, advance: Advance, *, models: type[Models] = Classifiers
) -> Fitted:
    """Fits a linear model on training; the penalty is the one with the lowest validation loss.

    Args:
      train: observed events of training.
      validation: observed events of validation.
      inputs: inputs of all events to predict.
      advance: called after each fit.
      models: baselines of the task's kind.
    """
    small, validation = train.thinned(_LINEAR_TRIED), validation.thinned(_VALIDATED)
    (name, penalties), model, candidates = models.penalty, models.make_linear(last=False), []
    for penalty in penalties:
        model.set_params(**{name: penalty}).fit(small.inputs, small.labels)
        candidates.append((models.loss(validation.labels, models.predict(model, validation.inputs)), penalty))
        advance(min(_LINEAR_TRIED, len(train.labels)))
    penalty = min(candidates)[1]
    fitted = train.thinned(_LINEAR_FITTED)
    model = models.make_linear(last=True).set_params(**{name: penalty})
    model.fit(fitted.inputs, fitted.labels)
    advance(min(_LINEAR_FITTED, len(train.labels)))
    return Fitted({name: penalty}, models.predict(model, inputs).astype(np.float32))


def fit_gradient_boosting(
    train: Sample,
    validation: Sample,
    inputs: np.ndarray,
    advance: Advance,
    *,
    categorical: Sequence[int] = (),
    models: type[Models] = Classifiers,
) -> Fitted:
    """Fits on training; shape, learning rate and number of the trees are those with the lowest validation loss.

    Args:
      train: observed events of training.
      validation: observed events of validation.
      inputs: inputs of all events to predict.
      advance: called after each fit.
      categorical: columns that hold codes.
      models: baselines of the task's kind.
    """
    validation = validation.thinned(_VALIDATED)

    def tried(events: int, settings: Settings) -> _Stopped:
        stopped = _fit_trees(models.trees, train.thinned(events), validation, settings, categorical)
        advance(min(events, len(train.labels)))
        return stopped

    first, other = _LEARNING_RATES
    shapes, best, events = list(_SHAPES), None, len(train.labels)
    for events, stay in _ROUNDS:
        stops = sorted((tried(events, {"learning_rate": first, **shape}) for shape in shapes), key=lambda s: s.loss)
        shapes, best = [{k: v for k, v in s.settings.items() if k in _SHAPES[0]} for s in stops[:stay]], stops[0]
        if len(train.labels) <= events:
            break
    assert best is not None
    events = min(events, len(train.labels))
    if best.settings["max_iter"] * first / other <= _MOST_TREES:  # else the slower rate would need too many trees
        best = min(best, tried(events, {**shapes[0], "learning_rate": other}), key=lambda stop: stop.loss)
    else:
        advance(events)
    if len(train.labels) > events:
        best = tried(_BOOSTING_FITTED, {k: v for k, v in best.settings.items() if k != "max_iter"})
    stages = models.stages(best.model, inputs)
    predictions = next(itertools.islice(stages, best.settings["max_iter"] - 1, None))
    return Fitted(best.settings, predictions.astype(np.float32))


def work(train: int) -> tuple[int, int]:
    """Returns events x fits of a linear model and of gradient boosting, for a number of training events."""
    linear = len(Classifiers.penalty[1]) * min(train, _LINEAR_TRIED) + min(train, _LINEAR_FITTED)
    boosting, count, events = 0, len(_SHAPES), train
    for events, stay in _ROUNDS:
        boosting, count = boosting + count * min(train, events), stay
        if train <= events:
            break
    boosting += min(train, events)
    return linear, boosting + (min(train, _BOOSTING_FITTED) if train > events else 0)


class _Stopped(NamedTuple):
    """Model with some trees more than the best number, which is in the settings, and the loss at that number."""

    loss: float
    settings: Settings
    model: Any


def _fit_trees(
    trees: type[Any], train: Sample, validation: Sample, settings: Settings, categorical: Sequence[int]
) -> _Stopped:
    chosen: Settings = {**settings, "categorical_features": list(categorical), "max_iter": _MOST_TREES}
    chosen |= {"early_stopping": True, "n_iter_no_change": _PATIENCE, "tol": 0.0}
    model = trees(**chosen, random_state=0)
    model.fit(
        train.inputs,
        train.labels,
        X_val=validation.inputs,
        y_val=validation.labels,
    )
    # The model has trees beyond its best number; the first score is that without any tree.
    losses = -np.asarray(model.validation_score_)[1:]
    best = int(losses.argmin()) + 1
    return _Stopped(float(losses[best - 1]), {**settings, "max_iter": best}, model)


@contextmanager
def idle_cores() -> Iterator[None]:
    """Limits threads to the idle cores: OpenMP's threads often wait for each other, so that one busy core slows all."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    busy = round(os.getloadavg()[0]) if hasattr(os, "getloadavg") else 0
    with threadpool_limits(max(1, cores - busy)):
        yield
