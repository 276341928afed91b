"""The main table: every encoding on every log, with the hour of the scored event given to the head."""

from experiments.evidence.grid import Grid
from experiments.evidence.variants import ORDINAL, VARIANTS

GRID = Grid(
    question="Which encoding for which log?",
    logs=("reviews", "noshow", "deskdrop", "kuairand", "flights", "feed"),
    variants=VARIANTS,
    base=ORDINAL,
)
