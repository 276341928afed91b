"""The settings that are timed: their models, batches and floating-point operations."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from siren_rope_jax.batch import Batch, Events
from siren_rope_jax.data.outcome_scale import OutcomeScale
from siren_rope_jax.nn.config import ModelConfig
from siren_rope_jax.nn.features import InputSpec
from siren_rope_jax.nn.rotary import RotaryConfig, SirenSettings
from siren_rope_jax.ops.calendar import split_unix_time
from siren_rope_jax.train.optimizer import OptimizerConfig, make_optimizer
from siren_rope_jax.train.sharding import MeshConfig, make_layout
from siren_rope_jax.train.step import compile_model
from siren_rope_jax.train.tasks import make_tasks

FEATURES, ACTIONS, CONTEXT, TASKS = 32, 3, 4, 3
ACTION_WIDTHS = (64, 64)


@dataclasses.dataclass(frozen=True)
class Setting:
    """Sizes of a model and of its batches."""

    name: str
    layers: int
    width: int
    heads: int
    length: int
    batch_size: int
    head_widths: tuple[int, ...] = (512, 256)
    dtype: str = "float32"

    @property
    def slots(self) -> int:
        """Events of a full batch."""
        return self.batch_size * self.length

    def model(self, kind: str, **changes: Any) -> ModelConfig:
        """Returns our model of these sizes; the angle network is that of the authors' code."""
        rotary: dict[str, Any] = {"siren": SirenSettings(width=16, hidden_layers=3)} if kind == "siren" else {}
        sizes: dict[str, Any] = {
            "layers": self.layers,
            "width": self.width,
            "heads": self.heads,
            "action_widths": ACTION_WIDTHS,
            "head_widths": self.head_widths,
            "dtype": self.dtype,
            "dropout": 0.0,
            "id_dropout": 0.0,
            "rotary": RotaryConfig(kind, **rotary),
        }
        return ModelConfig(**(sizes | changes))

    def forward_flops(self) -> float:
        """Counts the operations of the matrix products of one forward pass, two for each multiplication and addition.

        Linear layers: n_in n_out an event; attention, in each block and once more after them: queries times keys and
        weights times values, length x width each an event, the half that causality hides included.
        """
        mlps = (
            (FEATURES, self.width),
            (ACTIONS, *ACTION_WIDTHS, self.width),
            (2 * self.width + CONTEXT, *self.head_widths, TASKS),
        )
        dense = sum(n_in * n_out for sizes in mlps for n_in, n_out in itertools.pairwise(sizes))
        attentions = self.layers + 1
        dense += (4 * attentions + 8 * self.layers) * self.width**2
        return 2.0 * self.slots * (dense + 2 * attentions * self.length * self.width)

    def train_flops(self) -> float:
        """Counts the operations of a step: each product once forwards, and for each of its two factors backwards."""
        return 3 * self.forward_flops()


SMALL = Setting("small", layers=2, width=128, heads=4, length=50, batch_size=256)  # the published small one
MID = Setting("mid", layers=4, width=256, heads=4, length=256, batch_size=8)
LARGE = Setting("large", layers=12, width=512, heads=8, length=1024, batch_size=8, dtype="bfloat16")  # for a GPU


def make_batch(segment: np.ndarray, *, seed: int = 0) -> tuple[InputSpec, Batch]:
    """Draws random events in the slots whose segment is not 0.

    Args:
      segment: [rows, slots]; segments ascend from 1 along a row, padding is 0.
      seed: of the events.
    """
    rng = np.random.default_rng(seed)
    shape = segment.shape
    starts = np.diff(segment, axis=1, prepend=0) != 0
    slots = np.broadcast_to(np.arange(shape[1]), shape)
    elapsed = np.cumsum(rng.integers(60, 20_000, shape), axis=1)
    day, second = split_unix_time(elapsed)
    labels = rng.integers(0, 2, (*shape, TASKS)).astype(np.float32)
    labels[segment == 0] = np.nan
    events: dict[str, Any] = {
        "segment": segment.astype(np.int32),
        "position": (slots - np.maximum.accumulate(np.where(starts, slots, 0), axis=1)).astype(np.int32),
        "day": day,
        "second": second,
        "elapsed_seconds": elapsed.astype(np.int32),
        "ids": np.zeros((*shape, 0), np.int32),
        "dense": rng.normal(size=(*shape, FEATURES)).astype(np.float32),
        "actions": rng.integers(0, 2, (*shape, ACTIONS)).astype(np.float32),
        "context": rng.normal(size=(*shape, CONTEXT)).astype(np.float32),
    }
    spec = InputSpec(
        dense_names=tuple(f"feature_{index}" for index in range(FEATURES)),
        action_features=ACTIONS,
        context_features=CONTEXT,
        span_days=float(day.max() + 1),
        window=shape[1],
    )
    return spec, Batch(Events(**events), jnp.asarray(labels))


def full_batch(setting: Setting) -> tuple[InputSpec, Batch]:
    """Draws a batch of one user a row, every slot an event."""
    return make_batch(np.ones((setting.batch_size, setting.length), np.int32))


class OurModel:
    """Training and inference on one batch; each training call goes one step further."""

    def __init__(self, config: ModelConfig, spec: InputSpec, batch: Batch):
        """Draws the parameters; nothing else is compiled yet."""
        layout = make_layout(MeshConfig())
        self.batch = layout.put_batch(batch, len(batch.labels))
        settings = OptimizerConfig()
        self.compiled = compile_model(
            config,
            spec,
            make_tasks([OutcomeScale(f"task {index}") for index in range(TASKS)]),
            make_optimizer(settings, 1000),
            layout,
            task_weights=(1.0,) * TASKS,
            average_decay=settings.average_decay,
            seed=0,
        )
        self.state = self.compiled.initial_state()

    def train(self) -> object:
        """Trains one step."""
        self.state, metrics = self.compiled.train_step(self.state, self.batch)
        return self.state, metrics

    def predict(self) -> jax.Array:
        """Scores the batch."""
        return self.compiled.predict(self.state.params, self.batch)

    @property
    def parameters(self) -> int:
        """Numbers that are trained."""
        return sum(x.size for x in jax.tree.leaves(self.state.params))
