"""A learning rate of its own for each variant, so that none wins by the tuning of the others."""

from collections.abc import Callable

from experiments.evidence.grid import Grid
from experiments.evidence.logs import LOGS
from experiments.evidence.variants import CORE, ORDINAL

FACTORS = {"": 1.0, ", rate / 3": 1 / 3, ", rate x 3": 3.0}


def _times(factor: float) -> Callable[[str], float]:
    return lambda log: factor * LOGS[log].config.optimizer.peak


GRID = Grid(
    question="Does the order change if validation picks a learning rate for each variant?",
    logs=("reviews", "noshow", "feed"),
    variants={
        variant + said: settings | ({"optimizer.learning_rate": _times(factor)} if said else {})
        for variant, settings in CORE.items()
        for said, factor in FACTORS.items()
    },
    base=ORDINAL,
    seeds=3,
)
