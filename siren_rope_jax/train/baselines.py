"""Standard baselines on the recommender's data: the mean, a linear model and gradient boosting.

Events, labels, split and counters are exactly those of the recommender with the same InputConfig. Each task has its own
models, fitted on the observed labels of the training period and tuned on validation alone; numbers are transformed and
standardised for fitting, as for the recommender, and evaluated on the scale of the log.
"""

import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from siren_rope_jax.data.encode import InputConfig
from siren_rope_jax.data.event_log import EventLog
from siren_rope_jax.data.fingerprint import fingerprint
from siren_rope_jax.data.periods import TRAIN, VALIDATION
from siren_rope_jax.data.signal_spec import signal_to_dict
from siren_rope_jax.data.signals import Signal
from siren_rope_jax.errors import InputError
from siren_rope_jax.train.baseline_inputs import BaselineInputs, baseline_inputs
from siren_rope_jax.train.baseline_kinds import MODELS
from siren_rope_jax.train.baseline_models import Fitted, fit_gradient_boosting, fit_linear, idle_cores, work
from siren_rope_jax.train.predict import PERIODS, measure
from siren_rope_jax.train.tasks import Task, tasks_of

_BOOSTING = "gradient_boosting"
_PARTS = {"data", "inputs", "features", "baselines"}
_BOOSTING_WORK = 25.0  # work per event and fit, relative to a linear model


def fit_baselines(log: EventLog, config: InputConfig, *, console: Console | None = None) -> dict[str, Any]:
    """Fits every baseline to every task and evaluates them on the recommender's own events and labels.

    Args:
      log: the whole log.
      config: the recommender's encoding of the log.
      console: shows the progress; nothing is shown if not given.

    Returns:
      "baselines": for each baseline, "validation" and "test" in the form of the recommender's metrics.json (task ->
      metrics), for the tasks of its kind, and "settings", those chosen on validation for each task. Also its origin,
      which `read_baselines` compares: "data", "inputs" and "features".

    Raises:
      InputError: if a task has no observed label in validation.
    """
    console = console or Console(quiet=True)
    for k, task in enumerate(log.task_names):
        if np.isnan(log.labels[log.period == VALIDATION, k]).all():
            raise InputError(
                f"the task {task} has no observed label in validation, expected some to choose settings on"
            )
    inputs = baseline_inputs(log, config)
    results: dict[str, dict[str, Any]] = {}
    tasks, evaluated = tasks_of(log), _evaluated(log)
    for task, fitted in zip(tasks, _fit_all(log, tasks, inputs, console), strict=True):
        for name, (chosen, predicted) in fitted.items():
            result = results.setdefault(name, {**{title: {} for title in PERIODS}, "settings": {}})
            result["settings"][task.name] = chosen
            predictions = np.full(len(log.time_ms), np.nan, np.float32)
            predictions[evaluated] = predicted
            for title, period in PERIODS.items():
                result[title][task.name] = measure(task, log, predictions, log.period == period)
    boosting = {_BOOSTING: results.pop(_BOOSTING)}  # last, as the reference for the others
    return {
        **_made_from(log, config),
        "features": [*inputs.number_names, "hour", "weekday", *inputs.code_names],
        "baselines": results | boosting,
    }


def _fit_all(
    log: EventLog, tasks: Sequence[Task], inputs: BaselineInputs, console: Console
) -> Iterator[dict[str, Fitted]]:
    linear, trees = inputs.for_linear(), inputs.for_trees()
    categorical = range(trees.shape[1] - inputs.codes.shape[1], trees.shape[1])
    evaluated = _evaluated(log)
    observed = (~np.isnan(log.labels[log.period == TRAIN])).sum(axis=0)
    total = sum(a + _BOOSTING_WORK * b for a, b in map(work, observed.tolist()))
    console.print(f"fitting {', '.join(log.task_names)} on {trees.shape[1]} columns")
    with idle_cores(), _progress_bar(console) as bar:
        progress = bar.add_task("", total=total)
        for task, labels in zip(tasks, log.labels.T, strict=True):
            started, models, outcome = time.monotonic(), MODELS[task.outcome.kind], task.outcome
            targets = outcome.standardise(labels)
            bar.update(progress, description=f"{task.name}: {models.linear.replace('_', ' ')}")
            periods = [log.period == period for period in (TRAIN, VALIDATION)]
            train, validation = (models.sample.of(linear, targets, period, log.weight) for period in periods)
            base = Fitted({}, np.full(int(evaluated.sum()), outcome.mean, np.float32))
            regression = fit_linear(
                train, validation, linear[evaluated], lambda done: bar.advance(progress, done), models=models
            )
            bar.update(progress, description=f"{task.name}: gradient boosting")
            train, validation = (models.sample.of(trees, targets, period, log.weight) for period in periods)
            boosting = fit_gradient_boosting(
                train,
                validation,
                trees[evaluated],
                lambda done: bar.advance(progress, done * _BOOSTING_WORK),
                categorical=categorical,
                models=models,
            )
            console.print(
                f"{task.name}: {len(train.labels):,} training events, "
                f"{boosting.settings['max_iter']} trees, {time.monotonic() - started:.0f} s"
            )
            fitted = {models.linear: regression, _BOOSTING: boosting}
            restored = {name: Fitted(one.settings, outcome.restore(one.predictions)) for name, one in fitted.items()}
            yield {models.base: base, **restored}


def baselines_file(description: Path) -> Path:
    """Returns the file for the baselines of a log, beside its TOML file: LOG.toml -> LOG.baselines.json."""
    return description.with_suffix(".baselines.json")


def check_out(out: Path) -> None:
    """Checks, before minutes of fitting, that a file is new or holds earlier baselines, and makes its folder.

    Raises:
      InputError: if the file holds something else.
    """
    if out.is_dir() or (out.exists() and _read(out) is None):
        raise InputError(
            f"{out} must be a new file or one of earlier baselines, but is something else; give another --out"
        )
    out.parent.mkdir(parents=True, exist_ok=True)


def read_baselines(
    description: Path | None, log: EventLog, config: InputConfig
) -> tuple[dict[str, Any] | None, str | None]:
    """Reads the baselines of a log beside its description, if they are of the same data and inputs.

    Args:
      description: the log's TOML file, if it is known.
      log: the log as it is now.
      config: the recommender's encoding of the log.

    Returns:
      The "baselines" of `fit_baselines`, or None if there are none of this data; and a note for the user, if baselines
      were found and left out.
    """
    file = None if description is None else baselines_file(description)
    if file is None or not file.exists():
        return None, None
    found, again = _read(file), f"run `siren-rope baselines {description}` again"
    if found is None:
        return None, f"{file} is left out, as it is not what `siren-rope baselines` writes: {again}"
    here = _made_from(log, config)
    if found["data"] != here["data"]:
        return None, f"the baselines in {file} are left out, as they are of other data: {again}"
    if found["inputs"] != here["inputs"]:
        options = " ".join(f"--inputs.{name.replace('_', '-')} {value}" for name, value in here["inputs"].items())
        return None, f"the baselines in {file} are left out, as they had other inputs: {again} with {options}"
    return found["baselines"], None


def _made_from(log: EventLog, config: InputConfig) -> dict[str, Any]:
    """Returns what baselines depend on: events, labels, split, and the settings of the inputs that affect them."""
    ends = {title: fingerprint(log, log.period == period) for title, period in {"training": TRAIN, **PERIODS}.items()}
    counted = {name: value for name, value in dataclasses.asdict(config).items() if not name.endswith("_buckets")}
    names = {
        "tasks": [_described(task) for task in log.spec.tasks],
        "actions": log.action_names,
        "dense": log.dense_names,
    }
    data = ends | {name: list(value) for name, value in names.items()} | {"categorical": list(log.categorical_names)}
    return {"data": data, "inputs": counted}


def _described(task: Signal) -> str:
    """Returns the name of a task, with its kind and transform if these are not the default."""
    of_kind = signal_to_dict(task)
    return " ".join([task.name, *(str(of_kind[key]) for key in ("kind", "transform") if key in of_kind)])


def _read(file: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.keys() >= _PARTS else None


def _evaluated(log: EventLog) -> np.ndarray:
    return np.isin(log.period, list(PERIODS.values()))


def _progress_bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
