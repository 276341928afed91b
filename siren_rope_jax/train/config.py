"""Configuration that, together with the log, determines a run."""

import dataclasses

from siren_rope_jax.data.batches import BatchConfig
from siren_rope_jax.data.encode import InputConfig
from siren_rope_jax.nn.config import ModelConfig
from siren_rope_jax.settings import SEEDS, check_settings, drifts
from siren_rope_jax.train.optimizer import OptimizerConfig
from siren_rope_jax.train.retention import CheckpointConfig
from siren_rope_jax.train.sharding import MeshConfig


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run."""

    seed: int = 0
    """Seed of the initialisation, the order of the batches and dropout."""
    epochs: float | None = drifts(None)
    """Number of passes over the training events; by the size of the log if neither epochs nor steps are given."""
    steps: int | None = drifts(None)
    """Number of steps to train for, instead of epochs."""
    evaluations: int = drifts(20)
    """Number of validations during training, evenly spread; the best is kept."""
    best_by: str | None = None
    """Criterion of the best validation: a metric of a task, such as like.auc or dwell.rmse, in its own direction. The
    default is mean_ne over the binary tasks; without any, mean_relative_rmse over the others."""
    patience: int | None = drifts(5)
    """Number of validations in a row, after the warmup, without improvement before training stops; None never stops."""
    validation_events: int = drifts(20_000)
    """Number of events in each validation, of users drawn from the validation period; evaluation takes all."""
    task_weights: tuple[float, ...] = drifts(())
    """Weight of each task's loss, in the order of the log's tasks; all 1 if not given."""
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    """Settings of the recommender."""
    inputs: InputConfig = dataclasses.field(default_factory=InputConfig)
    """Encoding of ids, numbers and counters."""
    batches: BatchConfig = dataclasses.field(default_factory=BatchConfig)
    """Windows and packed rows."""
    optimizer: OptimizerConfig = drifts(default_factory=OptimizerConfig)
    """Settings of AdamW and its schedule."""
    mesh: MeshConfig = drifts(default_factory=MeshConfig, freely=True)
    """Layout of the devices; the result does not depend on it."""
    checkpoints: CheckpointConfig = drifts(default_factory=CheckpointConfig, freely=True)
    """Times of checkpoints, beside those of the validations, and rules on which to keep."""

    def __post_init__(self) -> None:
        check_settings(
            self,
            seed=SEEDS,
            epochs="(0, inf)",
            steps="[1, inf)",
            evaluations="[1, inf)",
            patience="[1, inf)",
            validation_events="[1, inf)",
            task_weights="[0, inf)",
        )
        if self.epochs is not None and self.steps is not None:
            raise ValueError(f"steps must not be given together with epochs, but are {self.steps} and {self.epochs}")
        if self.task_weights and not any(self.task_weights):
            raise ValueError(f"task_weights must not all be 0, but are {self.task_weights}")
