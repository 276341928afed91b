"""Plots of a report, each from the numbers that it shows."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from siren_rope_jax.ops.calendar import SECONDS_PER_DAY
from siren_rope_jax.report.attention_mass import EDGES, AttentionMass
from siren_rope_jax.report.curves import Calibration
from siren_rope_jax.report.intervals import Interval
from siren_rope_jax.report.markup import plain
from siren_rope_jax.report.svg import draw
from siren_rope_jax.train.run_history import Series

_MOST_LINES = 16  # with more, a plot shows colours instead
_POINTS = 400  # of a curve over the steps of training
_LONGEST = 26  # characters of a name
_SPANS = {"1 min": 1 / 1440, "1 h": 1 / 24, "1 d": 1.0, "7 d": 7.0, "30 d": 30.0, "1 y": 365.0, "5 y": 1825.0}


def draw_calibration(name: str, task: str, found: Calibration, *, logarithmic: bool) -> str:
    """Draws mean outcome against mean prediction, and the line on which both are equal."""

    def plot(axes: Axes) -> None:
        ends = [min(found.predicted.min(), found.low.min()), max(found.predicted.max(), found.high.max())]
        axes.plot(ends, ends, color="0.6", linewidth=1, linestyle="--")
        below, above = np.maximum(found.observed - found.low, 0), np.maximum(found.high - found.observed, 0)
        axes.errorbar(
            found.predicted, found.observed, yerr=[below, above], fmt="o", markersize=3, linewidth=1, color="tab:blue"
        )
        if logarithmic:
            axes.set(xscale="log", yscale="log")
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                axis.set_minor_formatter(FuncFormatter(lambda *_: ""))
        axes.set(xlabel="mean prediction", ylabel="mean outcome")

    distance = np.abs(found.observed - found.predicted).max()
    described = f"{len(found.predicted)} bins, mean outcome at most {distance:.3g} off the mean prediction"
    return draw(name, f"Calibration of {task}: {described}", plot)


def draw_angles(
    name: str, days: Float[np.ndarray, " T"], angles: Float[np.ndarray, "T R"], ticks: Sequence[str]
) -> str:
    """Draws the angle of each pair over time, less its mean: lines, or colours if there are many.

    Args:
      name: name of the plot.
      days: moments, from 0 on.
      angles: in radians.
      ticks: names of the days, or of the hours of one day, evenly spread.
    """
    moved, end = angles - angles.mean(axis=0), days[-1] + days[1] - days[0]

    def plot(axes: Axes) -> None:
        if angles.shape[1] <= _MOST_LINES:
            for number, (line, color) in enumerate(zip(moved.T, _colors(angles.shape[1]), strict=True), start=1):
                axes.plot(days, line, color=color, label=str(number))
            axes.figure.legend(loc="outside right upper", title="pair", handlelength=1)  # type: ignore[union-attr]
            axes.set(ylabel="radians, less the mean")
        else:
            most = float(np.abs(moved).max()) or 1.0
            extent = (0, float(end), angles.shape[1] + 0.5, 0.5)
            image = axes.imshow(
                moved.T, aspect="auto", cmap="RdBu_r", vmin=-most, vmax=most, extent=extent, interpolation="nearest"
            )
            axes.figure.colorbar(image, ax=axes, label="radians, less the mean")  # type: ignore[union-attr]
            axes.set(ylabel="pair")
            axes.grid(visible=False)
        axes.set(xlim=(0, end))
        axes.set_xticks(np.linspace(0, end, len(ticks), endpoint=False), ticks)

    swing = np.ptp(angles, axis=0)
    described = f"{swing.min():.2g} to {swing.max():.2g} radians between least and most"
    length = "a day" if end < 1.5 else f"{end:.0f} days"
    return draw(name, f"{angles.shape[1]} angles over {length}: {described}", plot)


def draw_mean_cosine(name: str, cosines: Float[np.ndarray, " L"]) -> str:
    """Draws the mean cosine against the lag; one number for each hour."""
    days = np.arange(len(cosines)) / 24

    def plot(axes: Axes) -> None:
        for week in range(7, int(days[-1]) + 1, 7):
            axes.axvline(week, color="tab:orange", linewidth=1)
        axes.plot(days, cosines, color="tab:blue")
        every = max(1, round(days[-1] / 10)) if days[-1] < 21 else 7
        axes.set_xticks(np.arange(0, days[-1] + 1e-9, every))
        axes.set(xlim=(0, days[-1]), xlabel="lag, days (orange: whole weeks)", ylabel="mean cosine")

    shown = ", ".join(f"{cosines[lag]:.2f} at {lag} h" for lag in (12, 24, 84, 168) if lag < len(cosines))
    return draw(name, f"Mean cosine of the rotation against the lag: {shown}", plot)


def draw_periodogram(name: str, frequencies: Float[np.ndarray, " F"], shares: Float[np.ndarray, " F"]) -> str:
    """Draws the share of power at each frequency, in cycles per day, with lines at a day and a week."""

    def plot(axes: Axes) -> None:
        for period, title, color in ((1, "24 h", "tab:green"), (7, "7 d", "tab:orange")):
            if frequencies[0] <= 1 / period:
                axes.axvline(1 / period, color=color, linewidth=1, label=title)
        axes.plot(frequencies, shares, color="tab:blue")
        axes.set(xscale="log", xlim=(frequencies[0], 12), ylim=(0, None))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set(xlabel="cycles per day", ylabel="share of power")
        axes.legend(loc="upper right")

    strongest = frequencies[int(np.argmax(shares))]
    return draw(name, f"Periodogram of the mean cosine: strongest at a period of {24 / strongest:.3g} hours", plot)


def draw_history(name: str, series: Mapping[str, Series], label: str, *, marked: bool = False) -> str:
    """Draws curves over the steps of training, each as at most some hundred means of neighbouring steps."""

    def plot(axes: Axes) -> None:
        colors = _colors(len(series)) if len(series) > 6 else [f"C{number}" for number in range(len(series))]
        for one, color in zip(series.values(), colors, strict=True):
            steps, values = thinned(one)
            axes.plot(steps, values, color=color, marker="o" if marked else None, markersize=3)
        if 1 < len(series) <= _MOST_LINES:
            titles = [_name(title) for title in series]
            axes.figure.legend(axes.get_lines(), titles, loc="outside right upper", handlelength=1)  # type: ignore[union-attr]
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.set(xlabel="step", ylabel=plain(label, most=_LONGEST))

    ends = [f"{plain(title, most=40)} {one.values[0]:.3g} to {one.values[-1]:.3g}" for title, one in series.items()]
    return draw(name, f"{label} over training: {plain('; '.join(ends), most=600)}", plot)


def thinned(series: Series) -> Series:
    """Averages neighbouring steps so that some hundred points are left."""
    if len(series.steps) <= _POINTS:
        return series
    starts = np.linspace(0, len(series.steps), _POINTS, endpoint=False).astype(int)
    counts = np.diff(np.r_[starts, len(series.steps)])
    return Series(*(np.add.reduceat(column, starts) / counts for column in series))


def draw_costs(name: str, task: str, title: str, costs: Mapping[str, Interval]) -> str:
    """Draws the cost of each knock-out of one task, with its interval."""

    def plot(axes: Axes) -> None:
        values = np.array(list(costs.values()))
        places = np.arange(len(values))[::-1]
        spread = np.maximum([values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]], 0)
        axes.axvline(0, color="0.6", linewidth=1)
        axes.errorbar(values[:, 0], places, xerr=spread, fmt="o", markersize=4, linewidth=1.2, color="tab:red")
        axes.set_yticks(places, [_name(part) for part in costs])
        axes.locator_params(axis="x", nbins=5)
        axes.set(xlabel=f"rise of {plain(title, most=_LONGEST)} when switched off", ylim=(-0.6, len(values) - 0.4))

    ends = "; ".join(f"{part} {cost.value:+.4f}" for part, cost in costs.items())
    return draw(name, f"Rise of {title} of {task} without a part: {ends}", plot, height=1.1 + 0.24 * len(costs))


def draw_mass(name: str, found: Mapping[str, AttentionMass]) -> str:
    """Draws the attention in each bin of elapsed time."""
    some = np.flatnonzero(sum(one.mass + one.even for one in found.values()))
    first, last = some[0], some[-1] + 1
    edges = np.maximum(EDGES[first : last + 1], EDGES[1] / 2) / SECONDS_PER_DAY

    def plot(axes: Axes) -> None:
        for number, (title, one) in enumerate(found.items()):
            axes.stairs(one.mass[first:last], edges, color=f"C{number}", label=_name(title), linewidth=1.4)
        even = next(iter(found.values())).even
        axes.stairs(even[first:last], edges, color="0.45", linestyle="--", label="all events alike")
        axes.set(xscale="log", ylim=(0, None), xlabel="time between the two events", ylabel="share of the attention")
        shown = {title: days for title, days in _SPANS.items() if edges[0] <= days <= edges[-1]}
        axes.set_xticks(list(shown.values()), list(shown))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.legend(loc="upper left")

    week = np.searchsorted(EDGES, 7 * SECONDS_PER_DAY)
    shares = ", ".join(f"{title} {one.mass[:week].sum():.0%}" for title, one in found.items())
    return draw(name, f"Attention by elapsed time; share on events of the last days, up to a week: {shares}", plot)


def _name(text: str) -> str:
    short = plain(text, most=_LONGEST)
    return f" {short}" if short.startswith("_") else short  # matplotlib hides what starts so


def _colors(count: int) -> list[tuple[float, ...]]:
    return [tuple(color) for color in matplotlib.colormaps["turbo"](np.linspace(0.05, 0.95, count))]
