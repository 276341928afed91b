"""Sections on the model: its rotation, its training, what its parts are worth, and where it attends."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from siren_rope_jax.nn.features import InputSpec
from siren_rope_jax.nn.rotary.base import RotarySource
from siren_rope_jax.nn.rotary.smoothness import fast_share_of_week
from siren_rope_jax.ops.calendar import SECONDS_PER_DAY
from siren_rope_jax.report.attention_mass import AttentionMass
from siren_rope_jax.report.intervals import Interval
from siren_rope_jax.report.knock_outs import KnockOut
from siren_rope_jax.report.markup import Html, Section, escaped, figure, figures, joined, plain, table
from siren_rope_jax.report.plots import (
    draw_angles,
    draw_costs,
    draw_history,
    draw_mass,
    draw_mean_cosine,
    draw_periodogram,
)
from siren_rope_jax.report.rotation import (
    mean_cosine,
    middle_week,
    periodogram,
    rotated_basis,
    time_angles,
    turns_pairs,
)
from siren_rope_jax.train.run_history import Series
from siren_rope_jax.train.tasks import Task

_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_LONGEST_LAG = 8 * 7 * 24  # hours
_SHORTEST_LAG = 48


def rotation_section(rotary: RotarySource, spec: InputSpec) -> Section | None:
    """Draws how the rotation turns with time; None if it does not, or if it depends on more than time."""
    if rotary.metadata_features or rotary.widens:
        return None
    seconds = middle_week(spec)
    basis = rotated_basis(rotary, spec, seconds)
    if (basis == basis[:1]).all():
        return None
    drawn, body = [], []
    if turns_pairs(basis):
        angles = time_angles(rotary, spec, seconds)
        drawn, share = _angles(angles, seconds, basis.shape[1], calendar=spec.calendar), fast_share_of_week(angles)
        body.append(
            Html(
                f"<p>Share of the variance of the angles above 4 cycles a day: <b>{share:.1%}</b>; what follows the "
                "calendar is mostly slower.</p>"
            )
        )
    hours = int(spec.span_days * 24)
    longest = min(_LONGEST_LAG, hours * 2 // 3)
    if longest >= _SHORTEST_LAG:
        cosines = mean_cosine(rotary, spec, np.arange(longest + 1))
        caption = "Mean cosine of the rotation between two moments, against the time between them; 1: turned alike."
        drawn.append(figure(draw_mean_cosine("mean-cosine", cosines), caption))
        frequencies, shares = periodogram(cosines)
        if shares.any():
            caption = "Periodogram of the mean cosine: how much of it repeats at which frequency."
            drawn.append(figure(draw_periodogram("periodogram", frequencies, shares), caption))
    shorter = "" if spec.span_days >= 7 else f", which is {spec.span_days:.3g} days long: the others lie outside"
    lead = (
        "How a query or key is turned by the time of its event alone, at position 0: two moments that are turned alike "
        f"are the same to the attention. Angles are of a week about the middle of the training span{shorter}."
    )
    return Section("rotation", "What the rotation has learned of time", lead, joined([figures(drawn), *body]))


def _angles(angles: np.ndarray, seconds: np.ndarray, sets: int, *, calendar: bool) -> list[Html]:
    """Draws the angles of each set, one for all heads or one a key head, over a day and over the week."""
    drawn, pairs = [], angles.shape[1] // sets
    days = (seconds - seconds[0]) / SECONDS_PER_DAY
    weekdays = _WEEKDAYS if calendar else [f"day {number}" for number in range(1, 8)]
    hours = [f"{hour:02d}:00" if calendar else f"{hour} h" for hour in range(0, 24, 4)]
    for head in range(sets):
        of_head = angles[:, head * pairs : (head + 1) * pairs]
        said = f" of key head {head + 1}" if sets > 1 else ""
        first = days < 1
        caption = f"Angles{said} over a day, {weekdays[0]}{'day' if calendar else ''}."
        drawn.append(figure(draw_angles(f"day-{head}", days[first], of_head[first], hours), caption))
        drawn.append(figure(draw_angles(f"week-{head}", days, of_head, weekdays), f"Angles{said} over a week."))
    return drawn


def history_section(history: Mapping[str, Series], tasks: Sequence[Task]) -> Section | None:
    """Draws what the run has logged: the rotation's own numbers, loss, and validations; None if there is nothing."""
    drawn = []
    if "train/loss" in history:
        losses = {"all tasks": history["train/loss"]}
        found = {task.name: history.get(f"train/loss_{task.name}") for task in tasks} if len(tasks) > 1 else {}
        losses |= {name: series for name, series in found.items() if series is not None}
        drawn.append(figure(draw_history("loss", losses, "training loss"), "Loss of the training batches."))
    for number, kind in enumerate(dict.fromkeys(type(task) for task in tasks)):
        names = [task.name for task in tasks if type(task) is kind]
        found = {name: history.get(f"validation/{name}/{kind.compared}") for name in names}
        judged = {name: series for name, series in found.items() if series is not None}
        if judged:
            title = kind.title(kind.compared)
            drawing = draw_history(f"validation-{number}", judged, f"validation {title}", marked=True)
            drawn.append(figure(drawing, f"{title} of each validation."))
    for number, (name, series) in enumerate(_rotary_groups(history).items()):
        drawing = draw_history(f"rotary-{number}", series, name)
        drawn.append(figure(drawing, f"{name} of the rotation: {len(series)} number{'s' * (len(series) > 1)}."))
    if not drawn:
        return None
    lead = "What the run logged at each step. Steps that were done again after an interruption count once."
    return Section("training", "Over training", lead, figures(drawn))


def _rotary_groups(history: Mapping[str, Series]) -> dict[str, dict[str, Series]]:
    """Groups what the rotation logs: name -> its numbers, counted from 1."""
    groups: dict[str, dict[int, Series]] = {}
    for tag, series in history.items():
        if found := re.fullmatch(r"rotary/(.+?)(?:_(\d+))?", tag):
            groups.setdefault(found[1], {})[int(found[2] or 0)] = series
    return {name: {str(k + 1): group[k] for k in sorted(group)} for name, group in groups.items()}


def knock_outs_section(found: Sequence[KnockOut], tasks: Sequence[Task], events: int, users: int) -> Section | None:
    """Draws the cost of switching each part off; None if there is no part."""
    kinds = {task.name: type(task) for task in tasks}
    shown = [task for task in kinds if any(task in one.costs for one in found)]
    if not shown:
        return None
    titles = {task: kinds[task].title(kinds[task].compared) for task in shown}
    drawn = []
    for k, task in enumerate(shown):
        costs = {one.part: one.costs[task] for one in found if task in one.costs}
        name = plain(task, most=60)
        drawn.append(
            figure(draw_costs(f"knock-outs-{k}", name, titles[task], costs), f"{name}: rise of {titles[task]}.")
        )
    header = ("switched off", *(f"{plain(task, most=60)}, {titles[task]}" for task in shown))
    rows = [[one.part, *(_cost(one.costs.get(task)) for task in shown)] for one in found]
    lead = (
        f"How much worse {events:,} validation events of {users:,} users are predicted when a part of the model is "
        "switched off. The model was not trained again: without the part from the start, it might do as well. Bars "
        "are 95 % intervals over users. A time input that is switched off has its mean over the training events."
    )
    return Section("knock-outs", "What the parts are worth", lead, joined([figures(drawn), table(header, rows)]))


def _cost(cost: Interval | None) -> Html:
    if cost is None:
        return escaped("-")
    return Html(f"{cost.value:+.4f}<br><small>{cost.low:+.4f} to {cost.high:+.4f}</small>")


def mass_section(found: Mapping[str, AttentionMass], events: int) -> Section | None:
    """Draws attention against elapsed time; None if no event attends to another."""
    if not found:
        return None
    drawn = [
        figure(draw_mass("attention", found), "Mean attention in bins of elapsed time, each twice as long as the last.")
    ]
    lead = (
        f"Where {events:,} validation events look: the share of attention on events of each age, averaged over heads. "
        "The dashed line is what looking at all earlier events alike would give; what is above it is looked at more."
    )
    return Section("attention", "Attention against elapsed time", lead, figures(drawn))
