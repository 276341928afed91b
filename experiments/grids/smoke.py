"""A grid of two minutes, which the tests run from end to end."""

from experiments.evidence.grid import Grid
from experiments.evidence.variants import ORDINAL, RECOMMENDED, VARIANTS

GRID = Grid(
    question="Does the machinery run?",
    logs=("tiny feed",),
    variants={name: VARIANTS[name] for name in (ORDINAL, RECOMMENDED)},
    base=ORDINAL,
    seeds=2,
)
