"""Trains one model on one log into a run folder; resumes it; evaluates it; scores new events with it."""

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
from flax import nnx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboardX import SummaryWriter

from siren_rope_jax.data.batches import PackedRows, batches, make_rows
from siren_rope_jax.data.encode import Encoded, Encoder
from siren_rope_jax.data.event_log import NEW, TRAIN, EventLog
from siren_rope_jax.data.schema import InputError
from siren_rope_jax.nn.features import InputSpec
from siren_rope_jax.train.checkpoint import Checkpoints
from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.interrupt import Interrupted, InterruptRequest
from siren_rope_jax.train.optimizer import make_optimizer, make_schedule
from siren_rope_jax.train.predict import PERIODS, mean_ne, metrics_of, predict_events, write_predictions
from siren_rope_jax.train.run_folder import check_data, open_run, read_run, write_json
from siren_rope_jax.train.sharding import make_mesh, put_batch
from siren_rope_jax.train.step import CompiledModel, TrainState, compile_model


class NonFiniteError(RuntimeError):
    """Loss or gradient became infinite or NaN."""


@dataclasses.dataclass(frozen=True)
class Session:
    """A log, encoded, and the compiled model that reads it."""

    log: EventLog
    encoded: Encoded
    config: TrainConfig
    rows: PackedRows  # of the training period
    steps: int
    model: CompiledModel
    mesh: jax.sharding.Mesh


def make_session(log: EventLog, encoder: Encoder, encoded: Encoded, config: TrainConfig) -> Session:
    """Packs the training period and compiles the model for it.

    Raises:
      InputError: if the configuration does not fit the log or the devices.
    """
    try:
        return _make_session(log, encoder, encoded, config)
    except ValueError as error:
        raise InputError(str(error)) from error


def _make_session(log: EventLog, encoder: Encoder, encoded: Encoded, config: TrainConfig) -> Session:
    mesh = make_mesh(config.mesh)
    rows = make_rows(encoded, log.period[encoded.event] == TRAIN, config.batches, seed=config.seed)
    steps = config.steps or max(1, round(config.epochs * len(rows.event) / config.batches.batch_size))
    spec = InputSpec(
        id_names=encoder.id_names,
        id_buckets=encoder.id_buckets,
        dense_names=encoder.input_names,
        action_features=2 * len(encoder.action_names),
        context_features=len(encoder.context_names),
        start_day=encoder.start_day,
        span_days=encoder.span_days,
    )
    model = compile_model(
        config.model,
        spec,
        tuple(math.log(rate / (1 - rate)) for rate in np.clip(encoder.task_rates, 1e-4, 1 - 1e-4)),
        make_optimizer(config.optimizer, steps),
        mesh,
        task_weights=config.task_weights or (1.0,) * len(log.task_names),
        seed=config.seed,
    )
    return Session(log, encoded, config, rows, steps, model, mesh)


def train(log: EventLog, config: TrainConfig, run: Path, *, console: Console | None = None) -> dict[str, Any]:
    """Trains, or goes on training, and evaluates the best checkpoint.

    Args:
      log: events with their split.
      config: the run.
      run: its folder; the same call on the folder of an interrupted run resumes it exactly.
      console: where progress is shown; standard output if not given.

    Returns:
      The content of `metrics.json`: metrics of each task on validation and test.

    Raises:
      InputError: if the folder holds something else, or a run that differs.
      Interrupted: after Ctrl-C or SIGTERM, once the checkpoint is written.
      NonFiniteError: if loss or gradient is not finite; no checkpoint is written after that step.
    """
    console = console or Console()
    encoder = Encoder.fit(log, config.inputs)
    encoded = encoder.encode(log)
    session = make_session(log, encoder, encoded, config)
    open_run(run, log, encoder, encoded, config)
    checkpoints = Checkpoints(run)
    try:
        _fit(session, run, checkpoints, console)
        return _evaluate(session, run, checkpoints)
    finally:
        checkpoints.close()


def evaluate(log: EventLog, run: Path) -> dict[str, Any]:
    """Evaluates the best checkpoint of a run anew, and writes its metrics and predictions.

    Args:
      log: as it was trained on.
      run: the run's folder.

    Returns:
      The content of `metrics.json`.

    Raises:
      InputError: if the folder is not a run with a checkpoint, or the log has changed since.
    """
    _, config, encoder = read_run(run)
    encoded = encoder.encode(log)
    check_data(run, log, encoded)
    checkpoints = Checkpoints(run)
    try:
        return _evaluate(make_session(log, encoder, encoded, config), run, checkpoints)
    finally:
        checkpoints.close()


def score(log: EventLog, run: Path) -> np.ndarray:
    """Scores the new events of a log with the best checkpoint of a run.

    Args:
      log: the history that the run was trained on, and new events (`read_event_log(spec, new_events=...)`).
      run: the run's folder.

    Returns:
      Probabilities [N, K] of the new events, in the order of their rows in their file.
    """
    _, config, encoder = read_run(run)
    session = make_session(log, encoder, encoder.encode(log), config)
    checkpoints = Checkpoints(run)
    try:
        params = _best_params(session, run, checkpoints)
    finally:
        checkpoints.close()
    new = log.period == NEW
    probabilities = _predict(session, params, new)[new]
    return probabilities[np.argsort(log.row[new])]


def _fit(session: Session, run: Path, checkpoints: Checkpoints, console: Console) -> None:
    """Brings the run to its last step, from the latest checkpoint if there is one."""
    config, model, steps = session.config, session.model, session.steps
    restored = checkpoints.restore(jax.eval_shape(model.initial_state), session.mesh, best=False)
    state, progress = restored or (model.initial_state(), {"next_batch": 0, "best_ne": float("inf")})
    step = start = int(state.step)
    if start >= steps:
        return
    if start:
        console.print(f"resuming {run} at step {start} of {steps}")
    else:
        parameters = sum(x.size for x in jax.tree.leaves(state.params))
        console.print(
            f"{(session.log.period == TRAIN).sum():,} training events in {len(session.rows.event):,} rows, "
            f"{session.rows.fill:.1%} full; {parameters:,} parameters; {steps:,} steps"
        )
    dataset = batches(
        session.encoded,
        session.rows,
        config.batches,
        seed=config.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    stream = iter(dataset[progress["next_batch"] :].to_iter_dataset(grain.ReadOptions(0, 0)))
    evaluate_at = {round(steps * (k + 1) / config.evaluations) for k in range(config.evaluations)}
    schedule = make_schedule(config.optimizer, steps)
    writer = SummaryWriter(str(run / "tensorboard"), purge_step=start + 1)
    last_save = time.monotonic()
    meter = _Meter()
    with InterruptRequest() as request, _progress_bar(console) as bar:
        task = bar.add_task("training", total=steps, completed=start, loss=math.nan, rate=0.0)
        while step < steps:
            batch = next(stream)
            events = int((batch["segment"] != 0).sum())
            batch.pop("event")
            state, metrics = model.train_step(state, put_batch(session.mesh, batch))
            step += 1
            metrics = jax.device_get(metrics)
            _check_finite(metrics, step, checkpoints)
            rate = meter.rate(events)
            bar.update(task, completed=step, loss=float(metrics["loss"]), rate=rate)
            _log_step(writer, session, metrics, float(schedule(step - 1)), rate, events, step)
            progress = {**progress, "next_batch": step}
            stop = request.received is not None
            due = time.monotonic() - last_save > config.checkpoint_seconds
            improved = False
            if step in evaluate_at:
                improved = _validate(session, state, progress, writer, console, step)
            if step in evaluate_at or stop or due:
                checkpoints.save(state, progress, best=improved)
                last_save = time.monotonic()
                meter = _Meter()
            if stop and step < steps:
                writer.close()
                raise Interrupted(
                    f"stopped at step {step} of {steps}, saved in {checkpoints.describe_latest()}; "
                    "the same command resumes",
                    request.received or 0,
                )
    writer.close()


class _Meter:
    """Events per second since the last pause."""

    def __init__(self) -> None:
        self.start, self.events = time.monotonic(), 0

    def rate(self, events: int) -> float:
        self.events += events
        return self.events / max(time.monotonic() - self.start, 1e-9)


def _progress_bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TextColumn("{task.fields[rate]:,.0f} events/s"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def _check_finite(metrics: dict[str, Any], step: int, checkpoints: Checkpoints) -> None:
    loss, norm = float(metrics["loss"]), float(metrics["gradient_norm"])
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise NonFiniteError(
            f"step {step}: the loss is {loss} and the gradient's norm {norm}, which must be finite; "
            f"last good checkpoint: {checkpoints.describe_latest()}"
        )


def _log_step(
    writer: SummaryWriter,
    session: Session,
    metrics: dict[str, Any],
    learning_rate: float,
    rate: float,
    events: int,
    step: int,
) -> None:
    scalars = {
        "train/loss": metrics["loss"],
        "train/learning_rate": learning_rate,
        "train/gradient_norm": metrics["gradient_norm"],
        "train/events_per_second": rate,
        "train/fill": events / (session.config.batches.batch_size * session.config.batches.row_length),
    }
    for name, loss in zip(session.log.task_names, metrics["task_losses"], strict=True):
        scalars[f"train/loss_{name}"] = loss
    if "gate" in metrics:
        scalars["rotary/gate"] = metrics["gate"]
        for pair, scale in enumerate(metrics["scales"]):
            scalars[f"rotary/scale_{pair}"] = scale
    for name, value in scalars.items():
        writer.add_scalar(name, float(value), step)


def _validate(
    session: Session,
    state: TrainState,
    progress: dict[str, Any],
    writer: SummaryWriter,
    console: Console,
    step: int,
) -> bool:
    """Evaluates on validation and notes the result in `progress`; is it the best so far?"""
    period = PERIODS["validation"]
    probabilities = _predict(session, state.params, session.log.period == period)
    metrics = metrics_of(session.log, probabilities, period)
    for task, values in metrics.items():
        for name, value in values.items():
            if value is not None:
                writer.add_scalar(f"validation/{task}/{name}", value, step)
    ne = mean_ne(metrics)
    writer.add_scalar("validation/mean_ne", ne, step)
    writer.flush()
    tasks = ", ".join(
        f"{task} {_shown(values['ne'])}/{_shown(values['auc'])}" for task, values in metrics.items()
    )
    console.print(f"step {step:>6}: validation NE/AUC {tasks}")
    improved = ne < progress["best_ne"] or step == 0
    progress["best_ne"] = min(ne, progress["best_ne"])
    return improved


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _best_params(session: Session, run: Path, checkpoints: Checkpoints) -> nnx.State:

    like = jax.eval_shape(session.model.initial_state)
    restored = checkpoints.restore(like, session.mesh, best=True) or checkpoints.restore(
        like, session.mesh, best=False
    )
    if restored is None:
        raise InputError(f"{run} must hold a checkpoint, but its training has not reached the first one")
    return restored[0].params


def _evaluate(session: Session, run: Path, checkpoints: Checkpoints) -> dict[str, Any]:
    params = _best_params(session, run, checkpoints)
    wanted = np.isin(session.log.period, list(PERIODS.values()))
    probabilities = _predict(session, params, wanted)
    metrics = {name: metrics_of(session.log, probabilities, period) for name, period in PERIODS.items()}
    write_predictions(run / "predictions.parquet", session.log, probabilities)
    write_json(run / "metrics.json", metrics)
    return metrics


def _predict(session: Session, params: nnx.State, wanted: np.ndarray) -> np.ndarray:
    return predict_events(
        session.model.predict, params, session.encoded, wanted, session.config.batches, session.mesh
    )
