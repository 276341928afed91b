"""What a practitioner would try first: logistic regression and gradient boosting on the recommender's counters.

Command: `siren-rope prepare deskdrop .../users_interactions.csv.zip --out runs/deskdrop-log`, then
`python experiments/baselines.py runs/deskdrop-log/log.toml --out runs/baselines-deskdrop --inputs.counter-smoothing 5`.
Cost: on one CPU core half a minute for Deskdrop and 2 minutes for the slice of KuaiRand-Pure (OMP_NUM_THREADS=1 on
a busy machine, where OpenMP's threads only wait for each other).
Expected, test NE / AUC with the calendar, split by time 70/10/20 (2026-11-22, scikit-learn 1.9):

    Deskdrop               like             contribution     long_dwell
    logistic regression    .8538 / .7867    .8922 / .7553    .9632 / .6307
    gradient boosting      .8590 / .7765    .9020 / .7454    .9576 / .6476

    KuaiRand-Pure          click            long_view        like             contribution
    logistic regression    .8631 / .7398    .8731 / .7383    .7650 / .8418    .9428 / .6943
    gradient boosting      .8610 / .7409    .8694 / .7391    .7586 / .8436    .9423 / .7023

One model per task, fitted on the observed labels of the training period. Penalty, size of the trees, learning rate and
early stopping are chosen on validation alone. Events, labels, split and counters are exactly those of the recommender
with the same InputConfig. Nothing is random.
"""

import dataclasses
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Float32
from rich.console import Console
from rich.table import Table
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from siren_rope_jax.data.encode import Encoder, InputConfig
from siren_rope_jax.data.event_log import TRAIN, VALIDATION, EventLog, read_event_log
from siren_rope_jax.data.schema import EventLogSpec, InputError
from siren_rope_jax.ops.calendar import calendar_features
from siren_rope_jax.report.tables import make_console
from siren_rope_jax.train.fit import four_decimals
from siren_rope_jax.train.metrics import cross_entropy
from siren_rope_jax.train.predict import PERIODS, metrics_of
from siren_rope_jax.train.run_folder import write_json

Features = Literal["counters", "counters+calendar"]
Settings = dict[str, Any]

_INVERSE_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
# The shape of the trees is chosen at the first learning rate, then the others are tried with that shape.
_LEARNING_RATES = (0.1, 0.03)
_LEAF_NODES = (4, 8, 16, 32)
_LEAVES = (  # small leaves need a penalty, large ones do not
    {"min_samples_leaf": 20, "l2_regularization": 30.0},
    {"min_samples_leaf": 200, "l2_regularization": 1.0},
)
_MOST_TREES = 500
_MOST_VALUES = 16  # of a categorical column that becomes one-hot
_PATIENCE = 15  # trees without a better validation loss


class Sample(NamedTuple):
    """Events whose outcome was observed."""

    inputs: Float32[np.ndarray, "E F"]
    labels: Float32[np.ndarray, " E"]


class Fitted(NamedTuple):
    """A baseline for one task, and what was chosen on validation."""

    model: LogisticRegression | HistGradientBoostingClassifier
    settings: Settings


def baseline_inputs(
    log: EventLog, config: InputConfig, features: Features
) -> tuple[Float32[np.ndarray, "E F"], tuple[str, ...]]:
    """What the baselines read of each event: the recommender's own counters, the calendar, the log's own columns.

    Args:
      log: the whole log.
      config: how the recommender encodes it.
      features: with the local hour and weekday, as points on circles, or without.

    Returns:
      One row per event, in the order of the log, and the names of the columns. Categorical columns of the log (not
      of its side tables) with few values known from training are one-hot.
    """
    encoder, encoded = Encoder.fit_encode(log, config)
    columns = [encoded.columns["context"], encoded.columns["dense"]]
    names = [*encoder.context_names, *encoder.input_names]
    if features == "counters+calendar":
        day, second = (jnp.asarray(encoded.columns[name]) for name in ("day", "second"))
        cyclic = calendar_features(day, second, start_day=encoder.start_day, span_days=float(encoder.span_days))
        columns.append(np.asarray(cyclic)[:, :4])
        names += ["day_cos", "day_sin", "week_cos", "week_sin"]
    for k, name in enumerate(log.spec.categorical):
        known = encoder.known_ids[1 + log.categorical_names.index(name)]
        if len(known) <= _MOST_VALUES:
            columns.append((log.categorical[encoded.event, k, None] == known).astype(np.float32))
            names += [f"{name}_{value}" for value in range(len(known))]
    inputs = np.empty((len(log.time), len(names)), np.float32)
    inputs[encoded.event] = np.concatenate(columns, axis=1)
    return inputs, tuple(names)


def fit_logistic_regression(train: Sample, validation: Sample) -> Fitted:
    """Fits on training; the penalty is the one with the lowest validation loss."""
    candidates = []
    for inverse_penalty in _INVERSE_PENALTIES:
        model = LogisticRegression(C=inverse_penalty, max_iter=1000).fit(*train)
        candidates.append((_loss(validation, _positive(model, validation.inputs)), inverse_penalty, model))
    _, inverse_penalty, model = min(candidates, key=lambda candidate: candidate[0])
    return Fitted(model, {"C": inverse_penalty})


def fit_gradient_boosting(train: Sample, validation: Sample) -> Fitted:
    """Fits on training; trees, learning rate and their number are those with the lowest validation loss."""
    first, *others = _LEARNING_RATES
    tried = [
        _best_stop(train, validation, {"learning_rate": first, "max_leaf_nodes": nodes, **leaves})
        for nodes, leaves in itertools.product(_LEAF_NODES, _LEAVES)
    ]
    _, settings = min(tried, key=lambda stop: stop[0])
    tried += [_best_stop(train, validation, {**settings, "learning_rate": rate}) for rate in others]
    _, settings = min(tried, key=lambda stop: stop[0])
    return Fitted(_boosting(settings).fit(*train), settings)


BASELINES: dict[str, Callable[[Sample, Sample], Fitted]] = {
    "logistic_regression": fit_logistic_regression,
    "gradient_boosting": fit_gradient_boosting,
}


def compare(log: EventLog, config: InputConfig, features: Features) -> dict[str, dict[str, Any]]:
    """Fits every baseline to every task and evaluates them on the recommender's own events and labels.

    Args:
      log: the whole log.
      config: how the recommender encodes it.
      features: what the baselines read, beside the log's dense columns.

    Returns:
      For each baseline, "validation" and "test" as the recommender's metrics.json has them (task -> metrics),
      and "settings", what was chosen on validation for each task.

    Raises:
      InputError: if a task has no observed label in validation.
    """
    inputs, _ = baseline_inputs(log, config, features)
    probabilities = {name: np.full(log.labels.shape, np.nan, np.float32) for name in BASELINES}
    settings: dict[str, dict[str, Settings]] = {name: {} for name in BASELINES}
    for k, task in enumerate(log.task_names):
        train, validation = (_observed(log, inputs, k, period) for period in (TRAIN, VALIDATION))
        if not len(validation.labels):
            raise InputError(
                f"the task {task} has no observed label in validation, expected some to choose settings on"
            )
        for name, fit in BASELINES.items():
            model, settings[name][task] = fit(train, validation)
            probabilities[name][:, k] = _positive(model, inputs)
    return {
        name: {
            **{title: metrics_of(log, probabilities[name], period) for title, period in PERIODS.items()},
            "settings": settings[name],
        }
        for name in BASELINES
    }


def comparison_table(results: dict[str, dict[str, Any]]) -> Table:
    """Lays out what `compare` returned: one row for each task and baseline."""
    table = Table("task", "baseline", "validation NE", "test NE", "test AUC")
    for task in next(iter(results.values()))["test"]:
        for name, result in results.items():
            validation, test = result["validation"][task], result["test"][task]
            shown = [four_decimals(value) for value in (validation["ne"], test["ne"], test["auc"])]
            table.add_row(task, name.replace("_", " "), *shown)
    return table


def _best_stop(train: Sample, validation: Sample, settings: Settings) -> tuple[float, Settings]:
    """Validation loss at its lowest, and the settings with the number of trees that reaches it."""
    model = _boosting({**settings, "max_iter": _MOST_TREES, "early_stopping": True}).fit(
        *train, X_val=validation.inputs, y_val=validation.labels
    )
    # The model runs on past its best; the score before the first tree, which comes first, is not a model.
    losses = -model.validation_score_[1:]
    trees = int(losses.argmin()) + 1
    return float(losses[trees - 1]), {**settings, "max_iter": trees}


def _boosting(settings: Settings) -> HistGradientBoostingClassifier:
    stopping = {"early_stopping": False, "n_iter_no_change": _PATIENCE, "tol": 0.0}
    return HistGradientBoostingClassifier(**stopping | settings, random_state=0)


def _observed(log: EventLog, inputs: np.ndarray, task: int, period: int) -> Sample:
    chosen = (log.period == period) & ~np.isnan(log.labels[:, task])
    return Sample(inputs[chosen], log.labels[chosen, task])


def _positive(model: LogisticRegression | HistGradientBoostingClassifier, inputs: np.ndarray) -> np.ndarray:
    return model.predict_proba(inputs)[:, 1].astype(np.float32)


def _loss(sample: Sample, probabilities: np.ndarray) -> float:
    return float(cross_entropy(sample.labels, probabilities).mean())


@dataclasses.dataclass(frozen=True)
class Baselines:
    """Fit logistic regression and gradient boosting to an event log, tuned on validation, reported on test."""

    log: tyro.conf.Positional[Path]
    """TOML file that describes the log."""
    out: Path
    """Folder for metrics.json: new, or that of earlier baselines."""
    features: Features = "counters+calendar"
    """What the baselines read, beside the log's dense columns."""
    inputs: InputConfig = dataclasses.field(default_factory=InputConfig)
    """Encoding of the counters; give the recommender's."""

    def __call__(self, console: Console) -> None:
        """Prints the table and writes metrics.json."""
        file = self.out / "metrics.json"
        # The folder of a recommender's run has a metrics.json too, and it must not be lost.
        if self.out.exists() and not (self.out.is_dir() and set(self.out.iterdir()) <= {file}):
            raise InputError(f"{self.out} must be a new folder or one of earlier baselines, but holds something else")
        log = read_event_log(EventLogSpec.from_toml(self.log))
        results = compare(log, self.inputs, self.features)
        self.out.mkdir(parents=True, exist_ok=True)
        write_json(file, {"features": self.features, "baselines": results})
        console.print(comparison_table(results))


def main(arguments: list[str] | None = None) -> None:
    """Runs the experiment; exits with 2 for bad input."""
    try:
        tyro.cli(Baselines, args=arguments)(make_console())
    except InputError as error:
        print(f"baselines: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
