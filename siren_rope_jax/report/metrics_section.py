"""Sections on predictions: metrics with intervals, beside other models, and calibration."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from siren_rope_jax.data.event_log import EventLog
from siren_rope_jax.data.periods import TEST
from siren_rope_jax.report.curves import calibration
from siren_rope_jax.report.intervals import Interval, differences, intervals
from siren_rope_jax.report.markup import Html, Section, escaped, figure, figures, joined, plain, table
from siren_rope_jax.report.plots import draw_calibration
from siren_rope_jax.train.fit import four_decimals
from siren_rope_jax.train.predict import PERIODS, evaluated
from siren_rope_jax.train.tasks import Evaluated, Task

_WIDE_RANGE = 10  # ratio of predictions from which on a logarithmic scale shows more


class Rival(NamedTuple):
    """Another run of the same log."""

    name: str
    predictions: Float32[np.ndarray, "E K"]


def metrics_section(
    log: EventLog,
    tasks: Sequence[Task],
    predictions: Float32[np.ndarray, "E K"],
    *,
    rival: Rival | None = None,
    baselines: Mapping[str, Any] | None = None,
) -> Section:
    """Lays out a table for each kind of task: each period, task and model a row."""
    tables = []
    for kind in dict.fromkeys(type(task) for task in tasks):
        header = ("period", "task", "model", *(kind.title(name) for name in kind.shown))
        rows = [
            [period, plain(task.name, most=60), model, *cells]
            for period, number in PERIODS.items()
            for k, task in enumerate(tasks)
            if type(task) is kind
            for model, cells in _rows(log, task, k, number, predictions, rival, (period, baselines or {}))
        ]
        tables.append(table(header, rows, texts=3))
    lead = (
        "Below a metric stands its 95 % interval, over 1,000 resamples of the users, each with all their events. NE, "
        "ECE, log loss, RMSE and MAE are better if lower, the others if higher."
    )
    if rival is not None:
        lead += (
            " A difference is this run's metric less the other's on the same users, sure if its interval leaves out 0."
        )
    return Section("metrics", "Metrics", lead, joined(tables))


def _rows(
    log: EventLog,
    task: Task,
    k: int,
    period: int,
    predictions: Float32[np.ndarray, "E K"],
    rival: Rival | None,
    baselines: tuple[str, Mapping[str, Any]],
) -> Iterator[tuple[object, list[object]]]:
    chosen = log.period == period
    ours = evaluated(task, log, predictions[:, k], chosen)
    yield Html("<b>this run</b>"), _cells(task, ours)
    if rival is not None:
        theirs = evaluated(task, log, rival.predictions[:, k], chosen)
        yield plain(rival.name, most=60), _cells(task, theirs)
        found = differences(task, ours, theirs)
        yield "difference", [_cell(found[name], signed=True) if name in found else "" for name in task.shown]
    title, of_models = baselines
    for name, result in of_models.items():
        if task.name in result.get(title, {}):
            values = result[title][task.name]
            yield name.replace("_", " "), [_shown(values.get(metric)) for metric in task.shown]


def _cells(task: Task, events: Evaluated) -> list[object]:
    values, found = task.measure(events), intervals(task, events)
    return [
        _cell(found[name]) if values[name] is not None and name in found else _shown(values[name])
        for name in task.shown
    ]


def _shown(value: float | int | None) -> str:
    return f"{value:,}" if isinstance(value, int) else four_decimals(value)


def _cell(interval: Interval, *, signed: bool = False) -> Html:
    def number(value: float) -> Html:
        return escaped("-" if np.isnan(value) else f"{value:+.4f}" if signed else f"{value:.4f}")

    return Html(f"{number(interval.value)}<br><small>{number(interval.low)} to {number(interval.high)}</small>")


def calibration_section(
    log: EventLog, tasks: Sequence[Task], predictions: Float32[np.ndarray, "E K"]
) -> Section | None:
    """Draws predictions against outcomes of the test events, for each task with observed outcomes."""
    drawn = []
    for k, task in enumerate(tasks):
        found = calibration(evaluated(task, log, predictions[:, k], log.period == TEST))
        if found is None:
            continue
        least = min(found.predicted.min(), found.low.min())
        wide = least > 0 and found.predicted.max() > _WIDE_RANGE * found.predicted.min()
        name = plain(task.name, most=60)
        drawing = draw_calibration(f"calibration-{k}", name, found, logarithmic=bool(wide))
        scales = ", on logarithmic scales" if wide else ""
        drawn.append(figure(drawing, f"{name}: {len(found.predicted)} bins of equally many test events{scales}."))
    if not drawn:
        return None
    lead = (
        "Each point is a bin of test events with similar predictions: on the dashed line, outcomes are as frequent, or "
        "as large, as predicted. Bars are 95 % intervals over users."
    )
    return Section("calibration", "Calibration", lead, figures(drawn))
