"""Everything that determines a run, given its log."""

import dataclasses

from siren_rope_jax.data.batches import BatchConfig
from siren_rope_jax.data.encode import InputConfig
from siren_rope_jax.nn.recommender import ModelConfig
from siren_rope_jax.train.optimizer import OptimizerConfig
from siren_rope_jax.train.sharding import MeshConfig


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A training run."""

    seed: int = 0
    """Initialisation, order of the batches and dropout all derive from it."""
    epochs: float = 4.0
    """Passes over the training events."""
    steps: int | None = None
    """Steps to train for, instead of epochs."""
    evaluations: int = 8
    """Validations during training, evenly spread; the best by mean NE is kept."""
    checkpoint_seconds: float = 300.0
    """Most seconds of work that a crash can cost: checkpoints are also written at every validation."""
    task_weights: tuple[float, ...] = ()
    """Weight of each task's loss, in the order of the log's tasks; all 1 if not given."""
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    """The recommender."""
    inputs: InputConfig = dataclasses.field(default_factory=InputConfig)
    """Encoding of ids, numbers and counters."""
    batches: BatchConfig = dataclasses.field(default_factory=BatchConfig)
    """Windows and packed rows."""
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    """AdamW and its schedule."""
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    """Devices."""

    def __post_init__(self) -> None:
        if not 0 < self.epochs < float("inf"):
            raise ValueError(f"epochs must be positive, but is {self.epochs}")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps must be at least 1, but is {self.steps}")
        if self.evaluations < 1:
            raise ValueError(f"evaluations must be at least 1, but is {self.evaluations}")
        if any(not 0 <= weight < float("inf") for weight in self.task_weights):
            raise ValueError(f"task_weights must be finite and not negative, but are {self.task_weights}")
