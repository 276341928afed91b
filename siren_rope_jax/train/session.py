"""Compiled model of a run, new or restored with its best parameters."""

import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jaxtyping import Bool, Float32

from siren_rope_jax.data.encode import Encoded, Encoder
from siren_rope_jax.errors import InputError
from siren_rope_jax.nn.column_transform import ColumnTransform
from siren_rope_jax.nn.features import InputSpec
from siren_rope_jax.nn.recommender import GenerativeRecommender
from siren_rope_jax.nn.trained_range import TrainedRange
from siren_rope_jax.train.checkpoint import Checkpoints
from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.optimizer import make_optimizer
from siren_rope_jax.train.predict import predict_events
from siren_rope_jax.train.run_folder import read_run
from siren_rope_jax.train.sharding import Layout, MeshConfig, make_layout
from siren_rope_jax.train.step import CompiledModel, compile_model
from siren_rope_jax.train.tasks import Task, make_tasks, restored


@dataclasses.dataclass(frozen=True)
class Session:
    """A configuration, the encoder of its inputs, and the model compiled for both."""

    config: TrainConfig
    encoder: Encoder
    layout: Layout
    model: CompiledModel
    trained_range: TrainedRange
    tasks: tuple[Task, ...]

    def predict(
        self, params: nnx.State, encoded: Encoded, wanted: Bool[np.ndarray, " E"]
    ) -> Float32[np.ndarray, "E K"]:
        """Predicts the wanted events on the scale of the log; NaN for the others."""
        return restored(self.tasks, self.predict_targets(params, encoded, wanted))

    def predict_targets(
        self, params: nnx.State, encoded: Encoded, wanted: Bool[np.ndarray, " E"]
    ) -> Float32[np.ndarray, "E K"]:
        """Predicts the targets of the wanted events, with numbers standardised; NaN for the others."""
        # Windows are never longer than in training, so that only times can leave the trained range.
        self.trained_range.check_times(encoded.columns["elapsed_seconds"][wanted[encoded.log_index]])
        one = dataclasses.replace(self.layout, seeds=None)
        return predict_events(self.model.predict, params, encoded, wanted, self.config.batches, one)

    def best_params(self, checkpoints: Checkpoints) -> nnx.State:
        """Reads the parameters of the best checkpoint.

        Raises:
          InputError: if there is no checkpoint yet.
        """
        # Omits the state of the optimizer, which the caller of the training may have passed.
        like = self.model.abstract_one._replace(optimizer=None)
        if like.average is not None:
            like = like._replace(params=None)
        found = checkpoints.restore(like, best=True)
        if found is None:
            raise InputError(
                f"{checkpoints.run} must hold a checkpoint, but its training has not reached the first one"
            )
        return found[0].evaluated


def make_session(
    encoder: Encoder,
    config: TrainConfig,
    *,
    steps: int = 1,
    seeds: int | None = None,
    devices: Sequence[Any] | None = None,
    optimizer: optax.GradientTransformation | None = None,
) -> Session:
    """Compiles the model of a run.

    Args:
      encoder: encoder fitted to the log.
      config: settings of the run.
      steps: length of the learning-rate schedule, which only training uses.
      seeds: number of models to train as one, with seeds from the configuration's on; None for one model without an
        axis for seeds.
      devices: devices of the mesh; all that JAX finds if not given.
      optimizer: optimizer of the training; that of the configuration if not given.

    Raises:
      InputError: if the configuration does not fit the log or the devices.
    """
    spec, tasks = input_spec(encoder, config), make_tasks(encoder.tasks)
    try:
        layout, model = compile_run(config, spec, tasks, steps=steps, seeds=seeds, devices=devices, optimizer=optimizer)
    except ValueError as error:
        raise InputError(str(error)) from error
    return Session(config, encoder, layout, model, TrainedRange(config.model, spec), tasks)


def input_spec(encoder: Encoder, config: TrainConfig) -> InputSpec:
    """Returns the description of the inputs that a run's model is built for."""
    return InputSpec(
        id_names=encoder.id_names,
        id_buckets=encoder.id_buckets,
        dense_names=encoder.input_names,
        action_features=encoder.action_features,
        context_features=len(encoder.context_names),
        start_day=encoder.start_day,
        calendar=encoder.calendar,
        span_days=float(encoder.span_days),
        window=config.batches.window,
        context_transform=ColumnTransform.from_table(encoder.context_transform),
    )


def compile_run(
    config: TrainConfig,
    spec: InputSpec,
    tasks: Sequence[Task],
    *,
    steps: int = 1,
    seeds: int | None = None,
    devices: Sequence[Any] | None = None,
    optimizer: optax.GradientTransformation | None = None,
) -> tuple[Layout, CompiledModel]:
    """Makes the mesh of a run and prepares its functions; each is compiled on its first call.

    Args:
      config: settings of the run.
      spec: inputs of the model.
      tasks: tasks to predict.
      steps: length of the learning-rate schedule.
      seeds: number of models to train as one; None for one model without an axis for seeds.
      devices: devices of the mesh, such as those of a topology to compile ahead of time for; all that JAX finds if not
        given.
      optimizer: optimizer of the parameters; that of the configuration if not given.

    Raises:
      ValueError: if the configuration does not fit the inputs or the devices.
    """
    layout = make_layout(config.mesh, seeds=seeds, devices=devices)
    shares = dataclasses.replace(layout, seeds=None).row_shares
    if config.batches.rows % shares:
        raise ValueError(
            f"batch_size must be a multiple of the {shares} devices that share it, but is {config.batches.batch_size}"
        )
    model = compile_model(
        config.model,
        spec,
        tasks,
        optimizer or make_optimizer(config.optimizer, steps),
        layout,
        task_weights=config.task_weights or (1.0,) * len(tasks),
        average_decay=config.optimizer.average_decay,
        seed=config.seed,
    )
    return layout, model


def load_session(run: Path) -> tuple[Session, nnx.State]:
    """Restores a run: its model and the parameters of its best checkpoint.

    Args:
      run: folder that training wrote; it must not be in training.

    Raises:
      InputError: if the folder is not a run or holds no checkpoint yet.
    """
    _, config, encoder = read_run(run)
    # Evaluation may run on other devices than the training.
    config = dataclasses.replace(config, mesh=MeshConfig())
    devices = jax.local_devices()
    session = make_session(encoder, config, devices=devices[: math.gcd(len(devices), config.batches.rows)])
    checkpoints = Checkpoints(run)
    try:
        return session, session.best_params(checkpoints)
    finally:
        checkpoints.close()


def load(run: str | os.PathLike[str]) -> GenerativeRecommender:
    """Restores the recommender of a run's best checkpoint, a Flax module.

    Args:
      run: folder that training wrote.

    Raises:
      InputError: if the folder is not a run or holds no checkpoint yet.
    """
    session, params = load_session(Path(run))
    return session.model.merge(params)
