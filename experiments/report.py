"""Makes every table and picture of the evidence from the result cards alone.

Command: `python -m experiments.report`; half a minute, without any log. It writes `results/GRID.md` for each grid that
has cards, the pictures beside them, and the tables of README.md here, between their marks.

`python -m experiments.report main [--against "time in the embedding"]` prints the tables of one grid instead.

Differences are in normalized entropy against the base, in the mean over the tasks, paired by seed and by user
(experiments/evidence/statistics.py). Bold ones pass Holm's procedure over the variants of their log at 5 %.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

import tyro

from experiments.evidence.card import CARDS
from experiments.evidence.claims import Evidence, learned_table, verdict_table
from experiments.evidence.grid import grid_names, read_grid
from experiments.evidence.pictures import draw_captured, draw_forest, draw_rotation
from experiments.evidence.results import Results, read_logs
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


def tables_of(name: str, found: Mapping[str, Results], against: str | None = None) -> str:
    """Makes the tables of all logs of a grid; empty if it has no cards."""
    grid = read_grid(name)
    base = against or grid.base
    parts = [f"## {log}\n\n{log_table(results, base)}\n\n{metrics_table(results)}" for log, results in found.items()]
    return "\n\n".join([f"# {name}: {grid.question}", *parts]) + "\n" if parts else ""


def read_evidence(cards: Path) -> Evidence:
    """Reads the cards of all grids."""
    return {name: read_logs(cards, read_grid(name)) for name in grid_names()}


def filled(page: str, evidence: Evidence) -> str:
    """Returns a page whose blocks `<!-- cards: ... -->` to `<!-- end -->` hold what the cards say now."""

    def block(match: re.Match[str]) -> str:
        kind, _, name = match[2].partition(" ")
        makers = {
            "summary": lambda: summary_table(evidence[name], read_grid(name)),
            "verdicts": lambda: verdict_table(evidence),
            "learned": lambda: learned_table(evidence["main"]),
        }
        return f"{match[1]}{makers[kind]()}\n{match[3]}"

    return _BLOCK.sub(block, page)


def draw(evidence: Evidence, folder: Path) -> None:
    """Draws the pictures of the grids that have cards."""
    for name in ("main", "ablation", "calendar"):
        base = read_grid(name).base
        if found := {log: results for log, results in evidence[name].items() if results.differences(base)}:
            draw_forest(folder / f"{name}.png", found, base)
    if found := evidence["planted"]:
        draw_captured(folder / "planted.png", found, read_grid("planted").base, "planted none")
    if found := evidence["main"]:
        draw_rotation(folder / "rotation.png", found, (PUBLISHED, RECOMMENDED))


def main(report: Report) -> None:
    """Writes or prints the tables."""
    if report.grid is not None:
        found = read_logs(report.cards, read_grid(report.grid))
        print(tables_of(report.grid, found, report.against))
        return
    evidence = read_evidence(report.cards)
    for name, found in evidence.items():
        if made := tables_of(name, found):
            (report.cards.parent / f"{name}.md").write_text(made)
    draw(evidence, report.cards.parent)
    _PAGE.write_text(filled(_PAGE.read_text(), evidence))


if __name__ == "__main__":
    main(tyro.cli(Report))
