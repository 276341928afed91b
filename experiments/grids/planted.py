"""Planted controls: feeds whose labels depend on one relation in time alone."""

from experiments.evidence.grid import Grid
from experiments.evidence.logs import LOGS
from experiments.evidence.variants import CORE, ORDINAL, TIME2VEC, VARIANTS

GRID = Grid(
    question="Does each encoding find the relation that is there, and none where there is none?",
    logs=tuple(name for name in LOGS if name.startswith("planted ")),
    variants=CORE | {name: VARIANTS[name] for name in (TIME2VEC, "power-law decay", "damped waves")},
    base=ORDINAL,
    seeds=3,
)
