"""Makes every table and picture of the evidence from the result cards alone.

Command: `python -m experiments.report`; half a minute, without any log. It writes `results/GRID.md` for each grid that
has cards, the pictures beside them, and the tables of README.md here, between their marks.

`python -m experiments.report main [--against "time in the embedding"]` prints the tables of one grid instead.

Differences are in normalized entropy against the base, in the mean over the tasks, paired by seed and by user
(experiments/evidence/statistics.py). Bold ones pass Holm's procedure over the variants of their log at 5 %.
"""

import dataclasses
import re
from pathlib import Path

import tyro

from experiments.evidence.card import CARDS
from experiments.evidence.claims import learned_table, verdict_table
from experiments.evidence.grid import Grid, grid_names, read_grid
from experiments.evidence.pictures import draw_captured, draw_forest, draw_rotation
from experiments.evidence.results import Results, read_results
from experiments.evidence.tables import log_table, metrics_table, summary_table
from experiments.evidence.variants import PUBLISHED, RECOMMENDED

_PAGE = Path(__file__).with_name("README.md")
_BLOCK = re.compile(r"(<!-- cards: ([a-z ]+) -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Report:
    """Write all tables and pictures, or print the tables of one grid as Markdown."""

    grid: tyro.conf.Positional[str | None] = None
    """Name of a module of experiments.grids; all of them, into files, if not given."""
    against: str | None = None
    """Variant to compare with; the base of the grid if not given."""
    cards: Path = CARDS
    """Folder of the cards."""


def tables_of(name: str, cards: Path, against: str | None = None) -> str:
    """Makes the tables of all logs of a grid; empty if it has no cards."""
    grid = read_grid(name)
    base = against or grid.base
    parts = [
        f"## {log}\n\n{log_table(results, base)}\n\n{metrics_table(results)}"
        for log, results in _results(cards, grid).items()
    ]
    return "\n\n".join([f"# {name}: {grid.question}", *parts]) + "\n" if parts else ""


def filled(page: str, cards: Path) -> str:
    """Returns a page whose blocks `<!-- cards: ... -->` to `<!-- end -->` hold what the cards say now."""

    def block(match: re.Match[str]) -> str:
        kind, _, name = match[2].partition(" ")
        makers = {
            "summary": lambda: summary_table(cards, read_grid(name), read_grid(name).base),
            "verdicts": lambda: verdict_table(cards),
            "learned": lambda: learned_table(cards),
        }
        return f"{match[1]}{makers[kind]()}\n{match[3]}"

    return _BLOCK.sub(block, page)


def draw(cards: Path, folder: Path) -> None:
    """Draws the pictures of the grids that have cards."""
    for name in ("main", "ablation", "calendar"):
        grid = read_grid(name)
        if found := {log: results for log, results in _results(cards, grid).items() if results.differences(grid.base)}:
            draw_forest(folder / f"{name}.png", found, grid.base)
    if found := _results(cards, grid := read_grid("planted")):
        draw_captured(folder / "planted.png", found, grid.base, "planted none")
    if found := _results(cards, read_grid("main")):
        draw_rotation(folder / "rotation.png", found, (PUBLISHED, RECOMMENDED))


def _results(cards: Path, grid: Grid) -> dict[str, Results]:
    return {log: results for log in grid.logs if (results := read_results(cards, grid, log)) is not None}


def main(report: Report) -> None:
    """Writes or prints the tables."""
    if report.grid is not None:
        print(tables_of(report.grid, report.cards, report.against))
        return
    for name in grid_names():
        if made := tables_of(name, report.cards):
            (report.cards.parent / f"{name}.md").write_text(made)
    draw(report.cards, report.cards.parent)
    _PAGE.write_text(filled(_PAGE.read_text(), report.cards))


if __name__ == "__main__":
    main(tyro.cli(Report))
