"""Smaller and larger feeds, narrower and wider models."""

from experiments.evidence.grid import Grid
from experiments.evidence.variants import EMBEDDING, ORDINAL, RECOMMENDED, VARIANTS

GRID = Grid(
    question="Does the order of the variants change with the size of the feed and of the model?",
    logs=("feed of 5,000 users", "feed", "feed of 80,000 users"),
    variants={
        name + said: VARIANTS[name] | wider
        for said, wider in {"": {}, ", width 128": {"model.width": 128, "model.heads": 4}}.items()
        for name in (ORDINAL, EMBEDDING, RECOMMENDED)
    },
    base=ORDINAL,
    seeds=3,
)
