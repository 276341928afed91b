"""Frequency of the sine layers, width of the angle network and base of the ordinal part."""

from experiments.evidence.grid import Grid
from experiments.evidence.variants import ORDINAL, PUBLISHED, VARIANTS, published
from siren_rope_jax.nn.rotary import RotaryConfig

GRID = Grid(
    question="Is omega0 stable within 8 to 15 and unstable from 25, and what do width and base change?",
    logs=("feed",),
    variants={
        ORDINAL: VARIANTS[ORDINAL],
        PUBLISHED: VARIANTS[PUBLISHED],
        **{f"omega0 {omega0:g}": published(omega0=omega0) for omega0 in (1.0, 3.0, 15.0, 30.0)},
        "width 16": published(width=16),
        **{f"base 1e{power}, ordinal": {"model.rotary": RotaryConfig("ordinal", base=10.0**power)} for power in (5, 7)},
    },
    base=ORDINAL,
    seeds=3,
)
