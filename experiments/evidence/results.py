"""What the cards of a grid say: losses, metrics and paired differences of its variants on one log."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float

from experiments.evidence.card import card_file, log_file, unpacked
from experiments.evidence.grid import Cell, Grid
from experiments.evidence.statistics import Difference, holm, normalized_entropy, paired_difference

_Key = TypeVar("_Key")
_STRAY = 0.02  # of NE above the median of its seeds: a training that went astray, which a mean would hide


@dataclasses.dataclass(frozen=True)
class Results:
    """The cards of a grid on one log.

    Args:
      of_log: card of the log.
      cards: variant -> seed -> card; variants without cards are left out.
    """

    of_log: dict[str, Any]
    cards: dict[str, dict[int, dict[str, Any]]]
    _known: dict[tuple[str, str], Difference | None] = dataclasses.field(default_factory=dict, init=False)

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks."""
        return self.of_log["tasks"]

    def losses(self, variant: str, seed: int) -> Float[np.ndarray, "K G"]:
        """Returns the cross-entropy summed over each group of users."""
        return unpacked(self.cards[variant][seed]["losses"], len(self.tasks))

    def sums(self, name: str) -> Float[np.ndarray, "K G"]:
        """Returns sums over each group of users: "events", "positives" or, on simulated logs, "oracle"."""
        return unpacked(self.of_log[name], len(self.tasks))

    def ne(self, losses: Float[np.ndarray, "K G"]) -> Float[np.ndarray, " K"]:
        """Returns the normalized entropy of each task."""
        sizes = zip(losses, self.sums("events"), self.sums("positives"), strict=True)
        return np.array([float(normalized_entropy(x[None], *of_task)[0]) for x, *of_task in sizes])

    def mean_ne(self, variant: str) -> dict[int, float]:
        """Returns the mean over the tasks for each seed."""
        return {seed: float(self.ne(self.losses(variant, seed)).mean()) for seed in self.cards.get(variant, {})}

    def strays(self, variant: str) -> list[int]:
        """Returns the seeds whose training went astray: far above the median of the variant."""
        found = self.mean_ne(variant)
        middle = np.median(list(found.values()))
        return [seed for seed, value in found.items() if value > middle + _STRAY]

    def metric(self, variant: str, task: str, name: str) -> list[float]:
        """Returns a metric of a task, seed by seed."""
        return [card["metrics"][task][name] for card in self.cards[variant].values()]

    def difference(self, variant: str, base: str) -> Difference | None:
        """Returns a variant's normalized entropy less that of a base; None if they share fewer than two seeds."""
        if (variant, base) not in self._known:  # tables, pictures and verdicts ask for the same ones
            self._known[variant, base] = self._difference(variant, base)
        return self._known[variant, base]

    def _difference(self, variant: str, base: str) -> Difference | None:
        shared = sorted(self.cards.get(variant, {}).keys() & self.cards.get(base, {}).keys())
        if len(shared) < 2:
            return None
        first, second = (np.stack([self.losses(name, seed) for seed in shared]) for name in (variant, base))
        return paired_difference(first, second, self.sums("events"), self.sums("positives"))

    def differences(self, base: str) -> dict[str, Difference]:
        """Returns the difference to a base of each other variant that shares two seeds with it."""
        found = {variant: self.difference(variant, base) for variant in self.cards if variant != base}
        return {variant: one for variant, one in found.items() if one is not None}

    def captured(self, variant: str, base: str) -> list[float]:
        """Returns the share of the gap between the base of the same seed and the oracle that is closed, by seed."""
        best, of_variant, of_base = self.ne(self.sums("oracle")).mean(), self.mean_ne(variant), self.mean_ne(base)
        shared = sorted(of_variant.keys() & of_base.keys())
        return [(of_base[seed] - of_variant[seed]) / (of_base[seed] - best) for seed in shared]


def read_results(cards: Path, grid: Grid, log: str) -> Results | None:
    """Reads the cards of a grid on a log; None if there is none."""
    if not log_file(cards, log).exists():
        return None
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for variant in grid.variants:
        files = {seed: card_file(cards, log, grid.config(Cell(log, variant, seed))) for seed in range(grid.seeds)}
        if by_seed := {seed: json.loads(file.read_text()) for seed, file in files.items() if file.exists()}:
            found[variant] = by_seed
    return Results(json.loads(log_file(cards, log).read_text()), found) if found else None


def read_logs(cards: Path, grid: Grid) -> dict[str, Results]:
    """Reads the cards of a grid on each log that has some."""
    return {log: results for log in grid.logs if (results := read_results(cards, grid, log)) is not None}


def passing(differences: Mapping[_Key, Difference]) -> dict[_Key, bool]:
    """Returns which of several differences pass Holm's procedure together."""
    passed = holm(np.array([difference.p for difference in differences.values()]))
    return dict(zip(differences, passed.tolist(), strict=True))
