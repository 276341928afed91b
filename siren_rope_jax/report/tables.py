"""Tables for the terminal."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.stats
from rich import filesize
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Column, Table

from siren_rope_jax.data.description import Description
from siren_rope_jax.train.checkpoint_list import Checkpoint
from siren_rope_jax.train.criterion import title_of
from siren_rope_jax.train.fit import four_decimals
from siren_rope_jax.train.probes import Finding
from siren_rope_jax.train.ranking import RANKING
from siren_rope_jax.train.retention import best_step
from siren_rope_jax.train.tasks import Task, kind_of

_VALUES, _WIDEST = 5, 40  # values of a column, and characters of them, that are shown


def metrics_table(metrics: dict[str, dict[str, dict[str, Any]]]) -> Group:
    """Lays out the content of `metrics.json`: a table for each kind of task, one row for each period and task."""
    tables = []
    for kind, found in _by_kind(metrics).items():
        counts = [name for name in kind.shown if name not in kind.metrics]
        table = Table("period", "task", *(kind.title(name) for name in kind.shown))
        for period, task in found:
            values = metrics[period][task]
            table.add_row(
                period,
                task,
                *(f"{values[name]:,}" if name in counts else four_decimals(values[name]) for name in kind.shown),
            )
        tables.append(table)
    grouped = {(period, task): m for period, tasks in metrics.items() for task, m in tasks.items() if "groups" in m}
    if grouped:
        table = Table("period", "task", *RANKING.values(), "groups", title="order within groups")
        for (period, task), values in grouped.items():
            shown = (four_decimals(values[name]) for name in RANKING)
            table.add_row(period, task, *shown, f"{values['groups']:,}")
        tables.append(table)
    return Group(*tables)


def seeds_table(metrics_of_seeds: Sequence[dict[str, dict[str, dict[str, Any]]]]) -> Group:
    """Lays out the metrics of several seeds: mean, and half the 95 % interval of the mean by Student's t."""
    title, tables = f"{len(metrics_of_seeds)} seeds, mean ± 95 %", []
    for kind, found in _by_kind(metrics_of_seeds[0]).items():
        table = Table("period", "task", *(kind.title(name) for name in kind.of_seeds), title=title)
        for period, task in found:
            of_seeds = [metrics[period][task] for metrics in metrics_of_seeds]
            table.add_row(period, task, *(_mean_and_interval([m[name] for m in of_seeds]) for name in kind.of_seeds))
        tables.append(table)
    return Group(*tables)


def _by_kind(metrics: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[type[Task], list[tuple[str, str]]]:
    """The periods and tasks of each kind of task."""
    found: dict[type[Task], list[tuple[str, str]]] = {}
    for period, tasks in metrics.items():
        for task, values in tasks.items():
            found.setdefault(kind_of(values), []).append((period, task))
    return found


def comparison_table(baselines: dict[str, Any], metrics_of_seeds: Sequence[dict[str, dict[str, Any]]] = ()) -> Group:
    """Lays out baselines, and the recommender beside them: a table for each kind of task, a row for each of its models.

    Args:
      baselines: result of `read_baselines`, or the "baselines" of `fit_baselines`.
      metrics_of_seeds: content of the recommender's `metrics.json`, of one run or several, whose mean is shown.
    """
    models = {name.replace("_", " "): [result] for name, result in baselines.items()}
    if metrics_of_seeds:
        count = len(metrics_of_seeds)
        models["recommender" if count == 1 else f"recommender, mean of {count} seeds"] = list(metrics_of_seeds)
    tables: dict[type[Task], Table] = {}
    for task, values in baselines["gradient_boosting"]["test"].items():
        kind = kind_of(values)
        first, _ = kind.headline
        if kind not in tables:
            titles = " / ".join(kind.title(name) for name in kind.headline)
            shown = (f"validation {titles}", f"test {titles}", f"test {kind.title(first)} - gradient boosting")
            tables[kind] = Table("task", "model", *shown)
        for model, results in models.items():
            if task not in results[0]["test"]:
                continue
            shown = [
                " / ".join(four_decimals(_mean([r[period][task][name] for r in results])) for name in kind.headline)
                for period in ("validation", "test")
            ]
            mean = _mean([result["test"][task][first] for result in results])
            difference = "" if mean is None or values[first] is None else f"{mean - values[first]:+.4f}"
            tables[kind].add_row(task, model, *shown, "" if model == "gradient boosting" else difference)
        tables[kind].add_section()
    return Group(*tables.values())


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
    judged = {checkpoint.step: checkpoint.judged for checkpoint in checkpoints}
    by = next((title_of(found.metric) for found in judged.values() if found is not None), "best by")
    kinds = {task: kind_of(checkpoint.metrics[task]) for checkpoint in checkpoints for task in checkpoint.metrics}
    titles = (f"{task} {' / '.join(kind.title(name) for name in kind.headline)}" for task, kind in kinds.items())
    table = Table("step", by, *titles, "size", Column("verifies", overflow="fold"))
    costs = {step: None if found is None else found.cost for step, found in judged.items()}
    sound = {checkpoint.step: costs[checkpoint.step] for checkpoint in checkpoints if checkpoint.problem is None}
    best = best_step(sound) if sound else None
    for checkpoint in checkpoints:
        table.add_row(
            f"{checkpoint.step:,}",
            four_decimals(None if checkpoint.judged is None else checkpoint.judged.value),
            *(
                " / ".join(four_decimals(checkpoint.metrics.get(task, {}).get(name)) for name in kind.headline)
                for task, kind in kinds.items()
            ),
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


def columns_table(found: Description) -> Group:
    """Lays out the columns of a described log, and what its rows are counted to be."""
    table = Table("column", "holds", "missing", "different", "such as", "guess", title=f"{found.rows:,} rows")
    for column in found.columns:
        values = ", ".join(column.values[:_VALUES]) or column.example
        kind = f"time ({column.unit})" if column.unit else column.kind
        guess = column.guess.partition("  #")[0] if column.guess.startswith("{") else column.guess.strip('"')
        guess = "task" if column.guess.startswith('"') else guess
        cells = [column.name, kind, f"{column.missing:.1%}", f"{column.distinct:,}", values[:_WIDEST], guess]
        table.add_row(*map(escape, cells))
    said = []
    if found.events_per_user is not None:
        median, most = found.events_per_user
        said.append(f"events of a user: {median:,} in the median, {most:,} at most")
    if found.tied is not None:
        said.append(f"{found.tied:.1%} of the rows share user and time with another: such events do not see each other")
    return Group(table, *said)
