"""Audit of a log, or of a trained run, for leaks: plants or changes outcomes, and reports which predictions change."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jaxtyping import Bool, Float32

from siren_rope_jax.data.batches import BatchConfig, batches, make_rows
from siren_rope_jax.data.encode import Encoder
from siren_rope_jax.data.event_log import EventLog, read_event_log
from siren_rope_jax.data.outcome_scale import OutcomeScale
from siren_rope_jax.data.periods import TRAIN
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.nn.features import InputSpec
from siren_rope_jax.nn.rotary import RotaryConfig
from siren_rope_jax.train.cheats import some_of
from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.hindsight import look_at_columns, shape_of_ties
from siren_rope_jax.train.inputs import fit_inputs
from siren_rope_jax.train.predict import predict_events
from siren_rope_jax.train.probes import PROBES, Audited, Finding, Predict
from siren_rope_jax.train.run_folder import read_run
from siren_rope_jax.train.session import Session, compile_run, input_spec, load_session
from siren_rope_jax.train.sharding import Layout
from siren_rope_jax.train.step import CompiledModel
from siren_rope_jax.train.tasks import Task, make_tasks

EVENTS = 30_000
_STEPS = 200


def audit(log: EventLog, run: Path | None = None, *, events: int = EVENTS, steps: int = _STEPS) -> Iterator[Finding]:
    """Runs every probe on the run's model, or on a small model of the default settings, trained on the log.

    Args:
      log: the log, or that of the run.
      run: folder of a run.
      events: approximate number of events, of whole users, that models are probed with; columns are examined over the
        whole log.
      steps: number of steps that each small model is trained for.

    Yields:
      Findings, one after the other.

    Raises:
      InputError: if the folder is not a run with a checkpoint.
    """
    some = some_of(log, events)
    config, predict = TrainConfig(), None
    if run is not None:
        session, params = load_session(run)
        config, predict = session.config, predict_of(session, params)
    models = SmallModels(small(config, steps))
    audited = Audited(
        predict=predict or models.learn(some),
        learn=models.learn,
        fit_inputs=lambda one: fit_inputs(one, config.inputs),
    )
    yield from shape_of_ties(log, config.batches.window)
    for probe in PROBES:
        yield from probe(audited, some)
    yield from look_at_columns(log)


def read_subject(subject: Path) -> tuple[EventLog, Path | None]:
    """Reads a log from its TOML file, or from the folder of a run, which is returned too.

    Raises:
      InputError: if the path is neither, or the log is invalid.
    """
    if subject.is_dir():
        return read_event_log(read_run(subject)[0]), subject
    return read_event_log(EventLogSpec.from_toml(subject)), None


def small(config: TrainConfig, steps: int) -> TrainConfig:
    """Returns a configuration that trains in seconds, with the same inputs of time, position and actions.

    Width and heads are kept, since the settings of rotations and biases must fit them.
    """
    model = config.model
    tiny = dataclasses.replace(
        model,
        layers=min(model.layers, 1),
        embedding_dim=8,
        action_widths=(16,),
        head_widths=(16,),
        feed_forward=2.0,
        dropout=0.0,
        context_dropout=0.0,
        attention="auto",
        dtype="float32",
        rotary=_narrow(model.rotary),
    )
    window = min(config.batches.window, 32)
    return dataclasses.replace(
        config,
        epochs=None,
        steps=steps,
        task_weights=(),
        model=tiny,
        inputs=dataclasses.replace(
            config.inputs,
            item_buckets=min(config.inputs.item_buckets, 1024),
            categorical_buckets=min(config.inputs.categorical_buckets, 256),
        ),
        batches=BatchConfig(window=window, row_length=2 * window, batch_size=32),
    )


def _narrow(rotary: RotaryConfig) -> RotaryConfig:
    """Returns the same rotation, with a narrow angle network if it has one."""
    if rotary.kind != "siren":
        return rotary
    return dataclasses.replace(rotary, siren=dataclasses.replace(rotary.siren, width=16))


def predict_of(session: Session, params: nnx.State) -> Predict:
    """Returns a function that evaluates and scores with a run's model."""

    def predict(
        log: EventLog, wanted: Bool[np.ndarray, " E"], *, as_history: bool = False
    ) -> Float32[np.ndarray, "E K"]:
        return session.predict_targets(params, session.encoder.encode(log, as_history=as_history), wanted)

    return predict


@dataclasses.dataclass
class SmallModels:
    """Trainer of small models, which compiles once for logs with the same inputs and tasks."""

    config: TrainConfig
    _compiled: dict[tuple[InputSpec, tuple[Task, ...]], tuple[Layout, CompiledModel]] = dataclasses.field(
        default_factory=dict
    )

    def learn(self, log: EventLog) -> Predict:
        """Trains on the training period."""
        config = self.config
        encoder, encoded = Encoder.fit_encode(log, config.inputs)
        # The scales of the outcomes are left out, so that logs that differ only in outcomes share the compiled model.
        form = input_spec(encoder, config), make_tasks([OutcomeScale(task.name, task.kind) for task in encoder.tasks])
        if form not in self._compiled:
            devices = jax.local_devices()[:1]
            self._compiled[form] = compile_run(config, *form, steps=config.steps or 1, devices=devices)
        layout, model = self._compiled[form]
        rows = make_rows(encoded, (log.period == TRAIN)[encoded.log_index], config.batches, seed=config.seed)
        state = model.initial_state()
        for batch in batches(encoded, rows, config.batches, seed=config.seed)[: config.steps]:
            state, _ = model.train_step(state, layout.put_batch(batch, config.batches.rows))

        def predict(
            log: EventLog, wanted: Bool[np.ndarray, " E"], *, as_history: bool = False
        ) -> Float32[np.ndarray, "E K"]:
            encoded = encoder.encode(log, as_history=as_history)
            return predict_events(model.predict, state.evaluated, encoded, wanted, config.batches, layout)

        return predict
