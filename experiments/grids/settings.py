"""Settings of each real log, chosen on validation with ordinal RoPE and held for every variant of the other grids."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from experiments.evidence.grid import Grid
from experiments.evidence.logs import START
from experiments.evidence.variants import ORDINAL, VARIANTS
from siren_rope_jax.data.batches import BatchConfig
from siren_rope_jax.nn.config import ModelConfig
from siren_rope_jax.train.optimizer import OptimizerConfig

_START: Mapping[str, Any] = {field.name: getattr(START, field.name) for field in dataclasses.fields(START)}
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
    variants={name: {**_START, **settings} | VARIANTS[ORDINAL] for name, settings in _CANDIDATES.items()},
    base="1,000 steps of 8 rows",
    seeds=3,
)
