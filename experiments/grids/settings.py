"""Settings of each real log, chosen on validation with ordinal RoPE and held for every variant of the other grids."""

from typing import Any

from experiments.evidence.grid import Grid
from experiments.evidence.variants import ORDINAL, VARIANTS
from siren_rope_jax.data.batches import BatchConfig
from siren_rope_jax.data.encode import InputConfig
from siren_rope_jax.nn.config import ModelConfig
from siren_rope_jax.train.optimizer import OptimizerConfig

_OF_LOG = "as evidence/logs.py has them"
_CANDIDATES: dict[str, dict[str, Any]] = {
    _OF_LOG: {},
    "the defaults of train": {
        "model": ModelConfig(),
        "inputs": InputConfig(),
        "batches": BatchConfig(),
        "optimizer": OptimizerConfig(),
        "epochs": None,
        "evaluations": 20,
    },
    "learning rate .001": {"optimizer.learning_rate": 1e-3},
    "learning rate .01": {"optimizer.learning_rate": 1e-2},
    "width 64": {"model.width": 64},
    "dropout .3": {"model.dropout": 0.3},
    "counter smoothing 20": {"inputs.counter_smoothing": 20.0},
    "batches of 64": {"batches.batch_size": 64},
}
GRID = Grid(
    question="Which settings suit each log?",
    logs=("reviews", "noshow", "deskdrop", "kuairand", "flights"),
    variants={name: settings | VARIANTS[ORDINAL] for name, settings in _CANDIDATES.items()},
    base=_OF_LOG,
    seeds=3,
)
