"""Training: configuration, loss, metrics, sharding, checkpoints, the loop, evaluation and scoring."""

import inspect
import sys
import types

from siren_rope_jax.train.audit import audit
from siren_rope_jax.train.baselines import fit_baselines
from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.evaluate import evaluate, score
from siren_rope_jax.train.hooks import Hook, StepReport
from siren_rope_jax.train.loop import train, train_seeds
from siren_rope_jax.train.optimizer import OptimizerConfig, make_optimizer
from siren_rope_jax.train.retention import CheckpointConfig
from siren_rope_jax.train.session import load
from siren_rope_jax.train.sharding import MeshConfig

__all__ = [
    "CheckpointConfig",
    "Hook",
    "MeshConfig",
    "OptimizerConfig",
    "StepReport",
    "TrainConfig",
    "audit",
    "evaluate",
    "fit_baselines",
    "load",
    "make_optimizer",
    "score",
    "train",
    "train_seeds",
]


class _Package(types.ModuleType):
    """Callable package: `from siren_rope_jax import train` returns this package once any part of it is imported."""

    __call__ = staticmethod(train)
    __signature__ = inspect.signature(train)


sys.modules[__name__].__class__ = _Package
