"""The paper's table of ablations: what drives the rotation."""

from experiments.evidence.grid import Grid
from experiments.evidence.variants import ABLATION, ORDINAL

GRID = Grid(
    question="Which inputs and branches does the angle network need?",
    logs=("feed", "flights", "noshow"),
    variants=ABLATION,
    base=ORDINAL,
)
