"""How actions reach the values: mixed into them, at the end alone, or as tokens of their own."""

from experiments.evidence.grid import Grid
from experiments.evidence.variants import ORDINAL, RECOMMENDED, VARIANTS

GRID = Grid(
    question="Does the way in which actions enter change what the rotation is worth?",
    logs=("feed",),
    variants={
        name + said: VARIANTS[name] | fusion
        for name in (ORDINAL, RECOMMENDED)
        for said, fusion in {
            "": {},
            ", late": {"model.action_fusion": "late"},
            ", interleaved": {"model.action_fusion": "interleaved"},
        }.items()
    },
    base=ORDINAL,
    seeds=3,
)
