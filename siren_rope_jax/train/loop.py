"""Trains one model on one log into a run folder, and resumes it exactly."""

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboardX import SummaryWriter

from siren_rope_jax.data.batches import PackedRows, batches, make_rows
from siren_rope_jax.data.encode import Encoded, Encoder
from siren_rope_jax.data.event_log import TRAIN, EventLog
from siren_rope_jax.train.checkpoint import Checkpoints
from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.evaluate import write_evaluation
from siren_rope_jax.train.interrupt import Interrupted, InterruptRequest
from siren_rope_jax.train.optimizer import make_schedule
from siren_rope_jax.train.predict import PERIODS, mean_ne, metrics_of
from siren_rope_jax.train.run_folder import lock_run, open_run, write_json
from siren_rope_jax.train.session import Session, make_session
from siren_rope_jax.train.sharding import put_batch
from siren_rope_jax.train.step import TrainState


class NonFiniteError(RuntimeError):
    """Loss or gradient became infinite or NaN."""


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
      InputError: if the folder holds something else, a run that differs, or one that is being trained.
      Interrupted: after Ctrl-C or SIGTERM, once the checkpoint is written.
      NonFiniteError: if loss or gradient is not finite; no checkpoint is written after that step.
    """
    console = console or Console()
    encoder, encoded = Encoder.fit_encode(log, config.inputs)
    rows = make_rows(encoded, log.period[encoded.event] == TRAIN, config.batches, seed=config.seed)
    steps = config.steps or max(1, round(config.epochs * len(rows.event) / config.batches.batch_size))
    session = make_session(encoder, config, steps=steps)
    open_run(run, log, encoder, encoded, config)
    with lock_run(run):
        checkpoints = Checkpoints(run)
        try:
            _Training(log, encoded, rows, steps, session, run, checkpoints, console).fit()
            params = session.best_params(checkpoints)
        finally:
            checkpoints.close()
        return write_evaluation(session, params, log, encoded, run)


@dataclasses.dataclass
class _Training:
    """One run on its way from the latest checkpoint, if there is one, to its last step."""

    log: EventLog
    encoded: Encoded
    rows: PackedRows
    steps: int
    session: Session
    run: Path
    checkpoints: Checkpoints
    console: Console

    def fit(self) -> None:
        model, config, steps = self.session.model, self.session.config, self.steps
        restored = self.checkpoints.restore(jax.eval_shape(model.initial_state), self.session.mesh, best=False)
        state, progress = restored or (model.initial_state(), {"next_batch": 0, "best_ne": None, "seconds": 0.0})
        step = start = int(state.step)
        if start >= steps:
            return
        self._say_start(state, start)
        dataset = batches(
            self.encoded,
            self.rows,
            config.batches,
            seed=config.seed,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        # Without threads: the rows lie in memory, and threads only fight over Python's lock.
        stream = iter(dataset[progress["next_batch"] :].to_iter_dataset(grain.ReadOptions(0, 0)))
        evaluate_at = {round(steps * (k + 1) / config.evaluations) for k in range(config.evaluations)}
        schedule = make_schedule(config.optimizer, steps)
        meter, before, last_save = _Meter(), progress["seconds"], time.monotonic()
        with (
            InterruptRequest() as request,
            _progress_bar(self.console) as bar,
            SummaryWriter(str(self.run / "tensorboard"), purge_step=start + 1) as writer,
        ):
            task = bar.add_task("training", total=steps, completed=start, loss=math.nan, rate=0.0)
            while step < steps:
                batch = next(stream)
                batch.pop("event")
                events = int((batch["segment"] != 0).sum())
                state, metrics = model.train_step(state, put_batch(self.session.mesh, batch))
                metrics = jax.device_get(metrics)
                step += 1
                meter.stop(events)
                self._check_finite(metrics, step)
                bar.update(task, completed=step, loss=float(metrics["loss"]), rate=meter.rate)
                self._log_step(writer, metrics, float(np.asarray(schedule(step - 1))), meter, step)
                progress = {**progress, "next_batch": step, "seconds": before + meter.seconds}
                improved = False
                if step in evaluate_at:
                    improved, progress["best_ne"] = self._validate(state, progress["best_ne"], writer, step)
                stop = request.received is not None
                if step in evaluate_at or stop or time.monotonic() - last_save > config.checkpoint_seconds:
                    self.checkpoints.save(state, progress, best=improved)
                    last_save = time.monotonic()
                if stop and step < steps:
                    raise Interrupted(
                        f"stopped at step {step} of {steps}, saved in {self.checkpoints.describe_latest()}; "
                        "the same command resumes",
                        request.received or 0,
                    )
                meter.start()
        self.console.print(f"trained {steps:,} steps in {progress['seconds']:.0f} s, {meter.rate:,.0f} events/s")
        write_json(
            self.run / "training.json",
            {
                "steps": steps,
                "seconds": progress["seconds"],
                "events_per_second": meter.rate,
                "fill": self.rows.fill,
                "parameters": _count(state),
            },
        )

    def _say_start(self, state: TrainState, start: int) -> None:
        if start:
            self.console.print(f"resuming {self.run} at step {start} of {self.steps}")
            return
        self.console.print(
            f"{(self.log.period == TRAIN).sum():,} training events in {len(self.rows.event):,} rows, "
            f"{self.rows.fill:.1%} full; {_count(state):,} parameters; {self.steps:,} steps"
        )

    def _check_finite(self, metrics: dict[str, Any], step: int) -> None:
        loss, norm = float(metrics["loss"]), float(metrics["gradient_norm"])
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise NonFiniteError(
                f"step {step}: the loss is {loss} and the gradient's norm {norm}, which must be finite; "
                f"last good checkpoint: {self.checkpoints.describe_latest()}"
            )

    def _log_step(
        self, writer: SummaryWriter, metrics: dict[str, Any], learning_rate: float, meter: "_Meter", step: int
    ) -> None:
        shape = self.session.config.batches
        scalars = {
            "train/loss": metrics["loss"],
            "train/learning_rate": learning_rate,
            "train/gradient_norm": metrics["gradient_norm"],
            "train/events_per_second": meter.rate,
            "train/fill": meter.last * jax.process_count() / (shape.batch_size * shape.row_length),
        }
        for name, loss in zip(self.log.task_names, metrics["task_losses"], strict=True):
            scalars[f"train/loss_{name}"] = loss
        for name in ("gate", "scale"):  # of SIREN-RoPE; one for each head, where they are its own
            for index, value in enumerate(np.ravel(metrics.get(name, []))):
                scalars[f"rotary/{name}_{index}"] = value
        for name, value in scalars.items():
            writer.add_scalar(name, float(value), step)

    def _validate(
        self, state: TrainState, best_ne: float | None, writer: SummaryWriter, step: int
    ) -> tuple[bool, float | None]:
        """Evaluates on validation; is it the best so far, and what is the best mean NE now?"""
        period = PERIODS["validation"]
        probabilities = self.session.predict(state.params, self.encoded, self.log.period == period)
        if np.isnan(probabilities[self.log.period == period]).any():
            raise NonFiniteError(
                f"step {step}: predictions on validation are NaN, which must be finite; "
                f"last good checkpoint: {self.checkpoints.describe_latest()}"
            )
        metrics = metrics_of(self.log, probabilities, period)
        ne = mean_ne(metrics)
        for task, values in metrics.items():
            for name, value in values.items():
                if value is not None:
                    writer.add_scalar(f"validation/{task}/{name}", value, step)
        if ne is not None:
            writer.add_scalar("validation/mean_ne", ne, step)
        writer.flush()
        tasks = ", ".join(f"{task} {four_decimals(v['ne'])}/{four_decimals(v['auc'])}" for task, v in metrics.items())
        self.console.print(f"step {step:>6}: validation NE/AUC {tasks}")
        improved = best_ne is None or (ne is not None and ne < best_ne)
        return improved, ne if improved else best_ne


def _count(state: TrainState) -> int:
    return sum(x.size for x in jax.tree.leaves(state.params))


def four_decimals(value: float | None) -> str:
    """Four decimals, or a dash for a metric that is not defined."""
    return "-" if value is None else f"{value:.4f}"


class _Meter:
    """Time of the steps alone, without validation and checkpoints; the rate leaves out the first, which compiles."""

    def __init__(self) -> None:
        self.seconds, self.last, self._steps = 0.0, 0, 0
        self._events, self._rate_seconds = 0, 0.0
        self.start()

    def start(self) -> None:
        self._started = time.monotonic()

    def stop(self, events: int) -> None:
        elapsed = time.monotonic() - self._started
        self.seconds += elapsed
        self.last = events
        if self._steps:
            self._events += events
            self._rate_seconds += elapsed
        self._steps += 1

    @property
    def rate(self) -> float:
        return self._events / max(self._rate_seconds, 1e-9)


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
