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


def _mean_and_interval(values: Sequence[float | None]) -> str:
    defined = np.array([value for value in values if value is not None])
    if len(defined) < 2:
        return four_decimals(defined[0] if len(defined) else None)
    half = scipy.stats.t.ppf(0.975, len(defined) - 1) * scipy.stats.sem(defined)
    return f"{four_decimals(defined.mean())} ± {four_decimals(half)}"


def checkpoints_table(checkpoints: list[Checkpoint]) -> Table:
    """Lays out one row for each checkpoint; with the metrics of its validation, if there was one at its step."""
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
    """Standard output; into a file or a pipe, where no terminal tells a width, wide enough for every table."""
    return Console(soft_wrap=True, width=None if sys.stdout.isatty() else 140)
