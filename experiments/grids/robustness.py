"""Times that an export has rounded, and a test period after training, with and without the clamp of the span."""

from experiments.evidence.grid import Grid
from experiments.evidence.logs import LOGS
from experiments.evidence.variants import EMBEDDING, HSTU, NO_SPAN, ORDINAL, RECOMMENDED, VARIANTS, recommended

GRID = Grid(
    question="What is left if times are coarse, or lie after training?",
    logs=tuple(name for name in LOGS if name.partition(", times")[0] in ("feed", "flights")),
    variants={name: VARIANTS[name] for name in (ORDINAL, EMBEDDING, HSTU, RECOMMENDED, NO_SPAN)}
    | {"SIREN-RoPE, not clamped": recommended(clamp_time=False)},
    base=ORDINAL,
    seeds=3,
)
