"""Settings of each real log, chosen on validation with ordinal RoPE and held for every variant of the other grids."""

from collections.abc import Mapping
from typing import Any

from experiments.evidence.grid import Grid
from experiments.evidence.variants import ORDINAL, VARIANTS
from siren_rope_jax.data.batches import BatchConfig
from siren_rope_jax.data.encode import InputConfig
from siren_rope_jax.nn.config import ModelConfig
from siren_rope_jax.train.optimizer import OptimizerConfig

_BASE: Mapping[str, Any] = {
    "epochs": None,
    "evaluations": 20,
    "model": ModelConfig(width=32, heads=2, dropout=0.2),
    "inputs": InputConfig(),
    "batches": BatchConfig(batch_size=8),
    "optimizer": OptimizerConfig(learning_rate=3e-3),
    "steps": 1_000,
}
_CANDIDATES: dict[str, dict[str, Any]] = {
    "the defaults of train": {
        "model": ModelConfig(),
        "batches": BatchConfig(),
        "optimizer": OptimizerConfig(),
        "steps": None,
    },
    "1,000 steps of 8 rows": {},
    "3,000 steps": {"steps": 3_000},
    "learning rate .001": {"optimizer.learning_rate": 1e-3},
    "width 64": {"model.width": 64},
    "no dropout": {"model.dropout": 0.0},
    "few ids": {"inputs.item_buckets": 1},
}
GRID = Grid(
    question="Which settings suit each log?",
    logs=("reviews", "noshow", "deskdrop", "kuairand", "flights"),
    variants={name: {**_BASE, **settings} | VARIANTS[ORDINAL] for name, settings in _CANDIDATES.items()},
    base="1,000 steps of 8 rows",
    seeds=3,
)
