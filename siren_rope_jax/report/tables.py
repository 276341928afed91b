"""Tables for the terminal."""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.stats
from rich import filesize
from rich.console import Console
from rich.table import Column, Table

from siren_rope_jax.train.checkpoint_list import Checkpoint
from siren_rope_jax.train.fit import four_decimals
from siren_rope_jax.train.probes import Finding
from siren_rope_jax.train.retention import best_step


def metrics_table(metrics: dict[str, dict[str, dict[str, Any]]]) -> Table:
    """Lays out the content of `metrics.json`: one row for each period and task."""
    table = Table("period", "task", "NE", "AUC", "GAUC", "ECE", "log loss", "events", "positives")
    for period, tasks in metrics.items():
        for task, values in tasks.items():
            shown = [four_decimals(values[name]) for name in ("ne", "auc", "gauc", "ece", "log_loss")]
            table.add_row(period, task, *shown, f"{values['events']:,}", f"{values['positives']:,}")
    return table


def seeds_table(metrics_of_seeds: Sequence[dict[str, dict[str, dict[str, Any]]]]) -> Table:
    """Lays out the metrics of several seeds: mean, and half the 95 % interval of the mean by Student's t."""
    table = Table("period", "task", "NE", "AUC", "log loss", title=f"{len(metrics_of_seeds)} seeds, mean ± 95 %")
    for period, tasks in metrics_of_seeds[0].items():
        for task in tasks:
            of_seeds = [metrics[period][task] for metrics in metrics_of_seeds]
            table.add_row(
                period, task, *(_mean_and_interval([m[name] for m in of_seeds]) for name in ("ne", "auc", "log_loss"))
            )
    return table


def comparison_table(baselines: dict[str, Any], metrics_of_seeds: Sequence[dict[str, dict[str, Any]]] = ()) -> Table:
    """Lays out baselines, and the recommender beside them: one row for each task and model.

    Args:
      baselines: result of `read_baselines`, or the "baselines" of `fit_baselines`.
      metrics_of_seeds: content of the recommender's `metrics.json`, of one run or several, whose mean is shown.
    """
    models = {name.replace("_", " "): [result] for name, result in baselines.items()}
    if metrics_of_seeds:
        count = len(metrics_of_seeds)
        models["recommender" if count == 1 else f"recommender, mean of {count} seeds"] = list(metrics_of_seeds)
    table = Table("task", "model", "validation NE / AUC", "test NE / AUC", "test NE - gradient boosting")
    for task in baselines["gradient_boosting"]["test"]:
        reference = baselines["gradient_boosting"]["test"][task]["ne"]
        for model, results in models.items():
            shown = [
                " / ".join(four_decimals(_mean([r[period][task][name] for r in results])) for name in ("ne", "auc"))
                for period in ("validation", "test")
            ]
            ne = _mean([result["test"][task]["ne"] for result in results])
            difference = "" if ne is None or reference is None else f"{ne - reference:+.4f}"
            table.add_row(task, model, *shown, "" if model == "gradient boosting" else difference)
        table.add_section()
    return table


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def _mean_and_interval(values: Sequence[float | None]) -> str:
    defined = np.array([value for value in values if value is not None])
    if len(defined) < 2:
        return four_decimals(defined[0] if len(defined) else None)
    half = scipy.stats.t.ppf(0.975, len(defined) - 1) * scipy.stats.sem(defined)
    return f"{four_decimals(defined.mean())} ± {four_decimals(half)}"


def checkpoints_table(checkpoints: list[Checkpoint]) -> Table:
    """Lays out one row for each checkpoint, with the metrics of the validation at its step, if any."""
    tasks = list(dict.fromkeys(task for checkpoint in checkpoints for task in checkpoint.metrics))
    table = Table(
        "step", "mean NE", *(f"{task} NE / AUC" for task in tasks), "size", Column("verifies", overflow="fold")
    )
    sound = {checkpoint.step: checkpoint.mean_ne for checkpoint in checkpoints if checkpoint.problem is None}
    best = best_step(sound) if sound else None
    for checkpoint in checkpoints:
        values = [checkpoint.metrics.get(task, {}) for task in tasks]
        table.add_row(
            f"{checkpoint.step:,}",
            four_decimals(checkpoint.mean_ne),
            *(f"{four_decimals(value.get('ne'))} / {four_decimals(value.get('auc'))}" for value in values),
            filesize.decimal(checkpoint.bytes),
            checkpoint.problem or ("yes, the best" if checkpoint.step == best else "yes"),
        )
    return table


def audit_table(findings: Sequence[Finding]) -> Table:
    """Lays out one row for each finding of an audit."""
    table = Table("probe", Column("tried", overflow="fold"), Column("moved", overflow="fold"), "verdict")
    for finding in findings:
        table.add_row(finding.probe, finding.tried, finding.moved, finding.verdict)
    return table


def make_console() -> Console:
    """Makes a console on standard output; in a file or pipe, where no terminal sets a width, wide enough for tables."""
    # No markup: printed names of files and columns may hold brackets.
    return Console(markup=False, soft_wrap=True, width=None if sys.stdout.isatty() else 140)
