"""The main table without the hour of the scored event in the head: what the main effect of the hour is worth."""

from experiments.evidence.grid import Grid
from experiments.evidence.variants import CORE, ORDINAL

GRID = Grid(
    question="Which encoding, if nothing else tells the model the hour of the event that it scores?",
    logs=("feed", "noshow", "flights", "planted hour", "planted daily"),
    variants=CORE,
    base=ORDINAL,
    seeds=3,
    settings={"model.head_calendar": False},
)
