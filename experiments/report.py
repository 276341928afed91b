"""Makes the tables of a grid from its result cards alone.

Command: `python -m experiments.report main [--against "time in the embedding"]`, in seconds, without any log.

Differences are in normalized entropy against the base, in the mean over the tasks, paired by seed and by user
(experiments/evidence/statistics.py). Bold ones pass Holm's procedure over the variants of their log at 5 %.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from experiments.evidence.card import CARDS, card_file, log_file, unpacked
from experiments.evidence.grid import Cell, Grid, read_grid
from experiments.evidence.statistics import Difference, holm, normalized_entropy, paired_difference


@dataclasses.dataclass(frozen=True)
class Report:
    """Print the tables of a grid as Markdown."""

    grid: tyro.conf.Positional[str]
    """Name of a module of experiments.grids."""
    against: str | None = None
    """Variant to compare with; the base of the grid if not given."""
    cards: Path = CARDS
    """Folder of the cards."""


def table(cards: Path, grid: Grid, log: str, base: str) -> str:
    """Makes the table of one log: a row for each variant that has cards, in Markdown; empty if none has."""
    file = log_file(cards, log)
    if not file.exists():
        return ""
    of_log = json.loads(file.read_text())
    tasks = of_log["tasks"]
    sizes = [unpacked(of_log[key], len(tasks)) for key in ("events", "positives")]
    found = {variant: _cards(cards, grid, log, variant) for variant in grid.variants}
    losses = {
        variant: {seed: unpacked(card["losses"], len(tasks)) for seed, card in by_seed.items()}
        for variant, by_seed in found.items()
        if by_seed
    }
    compared = {
        variant: _against(losses[variant], losses.get(base, {}), sizes) for variant in losses if variant != base
    }
    rows = {variant: difference for variant, difference in compared.items() if difference is not None}
    passed = dict(zip(rows, holm(np.array([row.p for row in rows.values()])), strict=True))
    header = ["", "seeds", *(f"{task} NE" for task in tasks), f"mean NE less {base} (95 %)", "detectable", "seconds"]
    oracle = unpacked(of_log["oracle"], len(tasks)) if "oracle" in of_log else None
    header += ["captured"] if oracle is not None and base in losses else []
    lines = [header, ["---"] * len(header)]
    for variant, by_seed in losses.items():
        stacked = np.stack(list(by_seed.values()))
        ne = [normalized_entropy(stacked[:, k], sizes[0][k], sizes[1][k]) for k in range(len(tasks))]
        seconds = np.mean([card["seconds"] for card in found[variant].values()])
        said = [f"{x.mean():.4f}" + (f" ± {x.std(ddof=1):.4f}" if len(x) > 1 else "") for x in ne]
        difference = _cells(rows.get(variant), passed.get(variant))
        line = [variant, str(len(by_seed)), *said, *difference, f"{seconds:.0f}"]
        if oracle is not None and base in losses:
            line.append(_captured(by_seed, losses[base], oracle, sizes))
        lines.append(line)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cells(difference: Difference | None, passed: bool | None) -> list[str]:
    if difference is None:
        return ["", ""]
    said = f"{difference.value:+.4f} ({difference.low:+.4f} to {difference.high:+.4f})"
    return [f"**{said}**" if passed else said, f"{difference.detectable:.4f}"]


def _captured(
    variant: dict[int, np.ndarray], base: dict[int, np.ndarray], oracle: np.ndarray, sizes: list[np.ndarray]
) -> str:
    """Returns the share of the gap between the base of the same seed and the oracle that is closed, seed by seed."""

    def total(losses: np.ndarray) -> float:
        return sum(float(normalized_entropy(x[None], *of_task)[0]) for x, *of_task in zip(losses, *sizes, strict=True))

    best, shared = total(oracle), sorted(variant.keys() & base.keys())
    shares = [(total(base[seed]) - total(variant[seed])) / (total(base[seed]) - best) for seed in shared]
    return f"{np.mean(shares):.3f} ({', '.join(f'{share:.3f}' for share in shares)})" if shares else ""


def _cards(folder: Path, grid: Grid, log: str, variant: str) -> dict[int, dict[str, Any]]:
    cells = [Cell(log, variant, seed) for seed in range(grid.seeds)]
    files = {cell.seed: card_file(folder, log, grid.config(cell)) for cell in cells}
    return {seed: json.loads(file.read_text()) for seed, file in files.items() if file.exists()}


def _against(variant: dict[int, np.ndarray], base: dict[int, np.ndarray], sizes: list[np.ndarray]) -> Difference | None:
    """Compares a variant with its base over the seeds of both; None if they share fewer than two."""
    shared = sorted(variant.keys() & base.keys())
    if len(shared) < 2:
        return None
    first, second = (np.stack([of[seed] for seed in shared]) for of in (variant, base))
    return paired_difference(first, second, *sizes)


def main(report: Report) -> None:
    """Prints the tables."""
    grid = read_grid(report.grid)
    print(f"# {report.grid}: {grid.question}")
    for log in grid.logs:
        if made := table(report.cards, grid, log, report.against or grid.base):
            print(f"\n## {log}\n\n{made}")


if __name__ == "__main__":
    main(tyro.cli(Report))
