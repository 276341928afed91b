"""Tables of a grid in Markdown, from its cards."""

from collections.abc import Mapping, Sequence

import numpy as np

from experiments.evidence.grid import Grid
from experiments.evidence.results import Results, passing
from experiments.evidence.statistics import Difference

_METRICS = ("auc", "gauc", "ece")


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lays out a table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows))


def said(difference: Difference, *, passed: bool) -> str:
    """Says a difference and its interval, bold if it passes."""
    text = f"{difference.value:+.4f} ({difference.low:+.4f} to {difference.high:+.4f})"
    return f"**{text}**" if passed else text


def spread(values: Sequence[float], digits: int = 4) -> str:
    """Says the mean over the seeds and their standard deviation."""
    mean = f"{np.mean(values):.{digits}f}"
    return f"{mean} ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else mean


def log_table(results: Results, base: str) -> str:
    """Makes the table of one log: NE of each task, the difference to a base, and what rivals of other kinds reach."""
    differences = results.differences(base)
    passed = passing(differences)
    shares = "oracle" in results.of_log and base in results.cards
    header = ["", "seeds", *(f"{task} NE" for task in results.tasks), f"mean NE less {base} (95 %)", "detectable"]
    header += ["captured", "seconds"] if shares else ["seconds"]
    rows = []
    for variant, cards in results.cards.items():
        seeds = f"{len(cards)}" + (f", {len(astray)} astray" if (astray := results.strays(variant)) else "")
        ne = np.array([results.ne(results.losses(variant, seed)) for seed in cards])
        found = differences.get(variant)
        shown = ["", ""] if found is None else [said(found, passed=passed[variant]), f"{found.detectable:.4f}"]
        if shares:
            shown.append(spread(results.captured(variant, base), 3))
        seconds = np.mean([card["seconds"] for card in cards.values()])
        rows.append([variant, seeds, *(spread(column) for column in ne.T), *shown, f"{seconds:.0f}"])
    for name, reached in results.of_log.get("baselines", {}).items():
        ne = [f"{reached['test'][task]['ne']:.4f}" for task in results.tasks]
        rows.append([name.replace("_", " "), "", *ne, *[""] * (len(header) - 2 - len(ne))])
    return markdown(header, rows)


def metrics_table(results: Results) -> str:
    """Makes the table of AUC, AUC within users and calibration error of each task."""
    header = ["", *(f"{task} {name.upper()}" for task in results.tasks for name in _METRICS)]
    rows = [
        [variant, *(spread(results.metric(variant, task, name), 3) for task in results.tasks for name in _METRICS)]
        for variant in results.cards
    ]
    return markdown(header, rows)


def summary_table(found: Mapping[str, Results], grid: Grid) -> str:
    """Makes one table of all logs: each variant's mean NE less that of the base, bold if it passes within its log."""
    columns: dict[str, dict[str, str]] = {}
    for log, results in found.items():
        if grid.base in results.cards:
            differences = results.differences(grid.base)
            passed = passing(differences)
            columns[log] = {variant: said(one, passed=passed[variant]) for variant, one in differences.items()}
            columns[log][grid.base] = f"NE {spread(list(results.mean_ne(grid.base).values()))}"
    rows = [[variant, *(column.get(variant, "") for column in columns.values())] for variant in grid.variants]
    return markdown(["", *columns], [row for row in rows if any(row[1:])])
