"""Trains models on one log, each into a run folder of its own, and resumes them exactly."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
from rich.console import Console
from tensorboardX import SummaryWriter

from siren_rope_jax.data.batches import PackedRows, batches, make_rows
from siren_rope_jax.data.encode import Encoded, Encoder
from siren_rope_jax.data.event_log import TRAIN, EventLog
from siren_rope_jax.train.checkpoint import Checkpoints
from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.durable import write_json
from siren_rope_jax.train.evaluate import write_evaluation
from siren_rope_jax.train.interrupt import Interrupted, InterruptRequest
from siren_rope_jax.train.optimizer import make_schedule
from siren_rope_jax.train.predict import PERIODS, mean_ne, metrics_of
from siren_rope_jax.train.processes import ProcessLostError, decided_by_first, greatest
from siren_rope_jax.train.progress import Meter, progress_bar
from siren_rope_jax.train.run_folder import lock_run, open_run
from siren_rope_jax.train.session import Session, make_session
from siren_rope_jax.train.step import TrainState


class NonFiniteError(RuntimeError):
    """Loss or gradient became infinite or NaN."""


def train(
    log: EventLog, config: TrainConfig, run: Path, *, console: Console | None = None, allow_drift: bool = False
) -> dict[str, Any]:
    """Trains, or goes on training, and evaluates the best checkpoint; in a job of several processes, in each of them.

    Args:
      log: events with their split.
      config: the run.
      run: its folder, seen by all processes; the same call on the folder of an interrupted run resumes it exactly.
      console: where progress is shown; standard output if not given.
      allow_drift: go on though the configuration is not that of the folder.

    Returns:
      The content of `metrics.json`: metrics of each task on validation and test.

    Raises:
      InputError: if the folder holds something else, a run that differs, or one that is being trained.
      Interrupted: after Ctrl-C or SIGTERM, once the checkpoint is written.
      NonFiniteError: if loss or gradient is not finite; no checkpoint is written after that step.
      ProcessLostError: if another process of the job is gone.
    """
    (metrics,) = _train(log, config, {run: config.seed}, None, console, allow_drift)
    return metrics


def train_seeds(
    log: EventLog,
    config: TrainConfig,
    run: Path,
    seeds: int,
    *,
    console: Console | None = None,
    allow_drift: bool = False,
) -> list[dict[str, Any]]:
    """Trains several seeds as one job, each to what `train` with that seed comes to, up to rounding.

    Args:
      log: events with their split.
      config: the run of the first seed; the others count on.
      run: folder of the runs `seed-0`, `seed-1`, ..., each as `train` writes it.
      seeds: how many.
      console: where progress is shown; standard output if not given.
      allow_drift: go on though the configuration is not that of the folder.

    Returns:
      What `train` returns, for each seed.

    Raises:
      As `train`.
    """
    runs = {run / f"seed-{seed}": seed for seed in range(config.seed, config.seed + seeds)}
    return _train(log, config, runs, seeds, console, allow_drift)


def _train(
    log: EventLog,
    config: TrainConfig,
    runs: dict[Path, int],
    seeds: int | None,
    console: Console | None,
    allow_drift: bool,
) -> list[dict[str, Any]]:
    console = console or Console()
    if jax.process_index():
        console = Console(quiet=True)
    encoder, encoded = Encoder.fit_encode(log, config.inputs)
    in_training = log.period[encoded.event] == TRAIN
    members = [
        _Member(run, make_rows(encoded, in_training, config.batches, seed=seed), dataclasses.replace(config, seed=seed))
        for run, seed in runs.items()
    ]
    rows = len(members[0].rows.event)  # of every seed: it chooses among windows of one length
    steps = config.steps or max(1, round(config.epochs * rows / config.batches.batch_size))
    session = make_session(encoder, config, steps=steps, seeds=seeds)
    with contextlib.ExitStack() as stack:
        for member in members:
            open_run(member.run, log, encoder, encoded, member.config, allow_drift=allow_drift, say=console.print)
            stack.enter_context(lock_run(member.run))
            member.checkpoints = Checkpoints(member.run, config.checkpoints, say=console.print)
            stack.callback(member.checkpoints.close)
        try:
            _Training(log, encoded, members, steps, session, console).fit()
        except ProcessLostError:
            stack.pop_all()  # completing a checkpoint would wait for the process that is gone
            raise
        return [
            write_evaluation(session, session.best_params(member.checkpoints), log, encoded, member.run)
            for member in members
        ]


@dataclasses.dataclass
class _Member:
    """One run among those that are trained as one."""

    run: Path
    rows: PackedRows
    config: TrainConfig
    checkpoints: Checkpoints = dataclasses.field(init=False)
    writer: SummaryWriter = dataclasses.field(init=False)
    progress: dict[str, Any] = dataclasses.field(
        default_factory=lambda: {"next_example": 0, "seconds": 0.0, "metrics": None}
    )


@dataclasses.dataclass
class _Training:
    """The runs on their way from the latest checkpoint, if there is one, to their last step."""

    log: EventLog
    encoded: Encoded
    members: list[_Member]
    steps: int
    session: Session
    console: Console

    def fit(self) -> None:
        model, config, steps = self.session.model, self.session.config, self.steps
        state, step = self._restored()
        if step >= steps:
            return
        self._say_start(state, step)
        stream = self._stream()
        evaluate_at = {round(steps * (k + 1) / config.evaluations) for k in range(config.evaluations)}
        schedule, single = make_schedule(config.optimizer, steps), self.session.layout.seeds is None
        meter, before, last_save = Meter(), self.members[0].progress["seconds"], time.monotonic()
        with InterruptRequest() as request, progress_bar(self.console) as bar, contextlib.ExitStack() as stack:
            for member in self.members:
                folder, first = str(member.run / "tensorboard"), jax.process_index() == 0
                writer = SummaryWriter(folder, purge_step=step + 1, write_to_disk=first)
                member.writer = stack.enter_context(writer)
            task = bar.add_task("training", total=steps, completed=step, loss=math.nan, rate=0.0)
            while step < steps:
                batch = next(stream)
                events = int((batch["segment"] != 0).sum())
                with self._naming_lost_processes(step + 1):
                    state, metrics = model.train_step(state, self._put(batch))
                    metrics = jax.device_get(metrics)
                step += 1
                meter.stop(events)
                self._check_finite(metrics, step)
                bar.update(task, completed=step, loss=float(np.mean(metrics["loss"])), rate=meter.rate)
                fill = events / batch["segment"].size
                of_all = {
                    "learning_rate": np.asarray(schedule(step - 1)),
                    "events_per_second": meter.rate,
                    "fill": fill,
                }
                for index, member in enumerate(self.members):
                    of_member = metrics if single else jax.tree.map(lambda x, i=index: x[i], metrics)
                    self._log_step(member, of_member, of_all, step)
                    place = {"next_example": member.progress["next_example"] + config.batches.batch_size}
                    member.progress = member.progress | place | {"seconds": before + meter.seconds}
                # Every process must do the same, and clocks and signals are each process's own.
                late = time.monotonic() - last_save > config.checkpoints.seconds
                with self._naming_lost_processes(step):
                    signal, save = greatest(request.received or 0, int(late))
                if step in evaluate_at or signal or save:
                    for member, one in zip(self.members, model.split(state), strict=True):
                        ne = self._validate(member, one, step) if step in evaluate_at else None
                        member.checkpoints.save(one, member.progress, mean_ne=ne)
                    last_save = time.monotonic()
                if signal and step < steps:
                    self._wait()
                    raise Interrupted(
                        f"stopped at step {step} of {steps}, saved in {self._latest()}; the same command resumes",
                        signal,
                    )
                meter.start()
            self._wait()
        self.console.print(f"trained {steps:,} steps in {before + meter.seconds:.0f} s, {meter.rate:,.0f} events/s")
        described = {"steps": steps, "seconds": before + meter.seconds, "events_per_second": meter.rate}
        for member in self.members:
            described |= {"fill": member.rows.fill, "parameters": self._parameters}
            decided_by_first(lambda path=member.run / "training.json", value=described: write_json(path, value))

    def _restored(self) -> tuple[TrainState, int]:
        """The state of the newest step that every run has a whole checkpoint of, or the initial one."""
        like, step = self.session.model.abstract_one, None
        if len(self.members) > 1:
            common = set.intersection(*(set(member.checkpoints.steps()) for member in self.members))
            if not common:
                return self.session.model.initial_state(), 0
            step = max(common)
        restored = [member.checkpoints.restore(like, step=step) for member in self.members]
        states = []
        for member, found in zip(self.members, restored, strict=True):
            if found is None:
                return self.session.model.initial_state(), 0
            one, member.progress = found
            states.append(one)
        return self.session.model.stack(states), int(states[0].step)

    def _stream(self) -> Iterator[dict[str, np.ndarray]]:
        """This process's rows of each batch; with a leading axis for the seeds, if there are several."""
        config = self.session.config.batches
        streams = []
        for member in self.members:
            dataset = batches(
                self.encoded,
                member.rows,
                config,
                seed=member.config.seed,
                rows_here=self.session.layout.rows_here(config.batch_size),
                first_example=member.progress["next_example"],
            )
            # Without threads: the rows lie in memory, and threads only fight over Python's lock.
            streams.append(iter(dataset.to_iter_dataset(grain.ReadOptions(0, 0))))
        for parts in zip(*streams, strict=True):
            for part in parts:
                part.pop("event")
            yield parts[0] if self.session.layout.seeds is None else jax.tree.map(lambda *x: np.stack(x), *parts)

    def _put(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        return self.session.layout.put_batch(batch, self.session.config.batches.batch_size)

    def _wait(self) -> None:
        for member in self.members:
            member.checkpoints.wait()

    def _latest(self) -> str:
        return ", ".join(member.checkpoints.describe_latest() for member in self.members)

    @property
    def _parameters(self) -> int:
        return sum(x.size for x in jax.tree.leaves(self.session.model.abstract_one.params))

    def _say_start(self, state: TrainState, step: int) -> None:
        for member in self.members if step else ():
            self.console.print(f"resuming {member.run} at step {step} of {self.steps}")
        if not step:
            rows, models = self.members[0].rows, "" if len(self.members) == 1 else f"{len(self.members)} models of "
            self.console.print(
                f"{(self.log.period == TRAIN).sum():,} training events in {len(rows.event):,} rows, "
                f"{rows.fill:.1%} full; {models}{self._parameters:,} parameters; {self.steps:,} steps"
            )

    @contextlib.contextmanager
    def _naming_lost_processes(self, step: int) -> Iterator[None]:
        """What the runtime says when another process dies names a socket; the user wants to know what to do."""
        try:
            yield
        except jax.errors.JaxRuntimeError as error:
            if jax.process_count() == 1 or "RESOURCE_EXHAUSTED" in str(error):
                raise
            raise ProcessLostError(
                f"step {step}: another process of this job is gone ({str(error).splitlines()[0][:200]}); last good "
                f"checkpoint: {self._latest()}; start all processes again with the same command to resume from it"
            ) from error

    def _check_finite(self, metrics: dict[str, Any], step: int) -> None:
        for index, (loss, norm) in enumerate(
            zip(*map(np.ravel, (metrics["loss"], metrics["gradient_norm"])), strict=True)
        ):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise self._not_finite(index, f"step {step}: the loss is {loss} and the gradient's norm {norm}")

    def _not_finite(self, index: int, what: str) -> NonFiniteError:
        member = self.members[index]
        member.checkpoints.wait()
        return NonFiniteError(
            f"{what}, which must be finite; last good checkpoint: {member.checkpoints.describe_latest()}"
        )

    def _log_step(self, member: _Member, metrics: dict[str, Any], of_all: dict[str, Any], step: int) -> None:
        scalars = {"loss": metrics["loss"], "gradient_norm": metrics["gradient_norm"], **of_all}
        for name, loss in zip(self.log.task_names, metrics["task_losses"], strict=True):
            scalars[f"loss_{name}"] = loss
        scalars = {f"train/{name}": value for name, value in scalars.items()}
        for name in ("gate", "scale"):  # of SIREN-RoPE; one for each head, where they are its own
            for index, value in enumerate(np.ravel(metrics.get(name, []))):
                scalars[f"rotary/{name}_{index}"] = value
        for name, value in scalars.items():
            member.writer.add_scalar(name, float(value), step)

    def _validate(self, member: _Member, state: TrainState, step: int) -> float | None:
        """Evaluates on validation, and tells the progress; the mean NE."""
        period = PERIODS["validation"]
        probabilities = self.session.predict(state.params, self.encoded, self.log.period == period)
        if np.isnan(probabilities[self.log.period == period]).any():
            raise self._not_finite(self.members.index(member), f"step {step}: predictions on validation are NaN")
        metrics = metrics_of(self.log, probabilities, period)
        ne = mean_ne(metrics)
        for task, values in metrics.items():
            for name, value in values.items():
                if value is not None:
                    member.writer.add_scalar(f"validation/{task}/{name}", value, step)
        if ne is not None:
            member.writer.add_scalar("validation/mean_ne", ne, step)
        member.writer.flush()
        tasks = ", ".join(f"{task} {four_decimals(v['ne'])}/{four_decimals(v['auc'])}" for task, v in metrics.items())
        seed = "" if len(self.members) == 1 else f"seed {member.config.seed}, "
        self.console.print(f"{seed}step {step:>6}: validation NE/AUC {tasks}")
        member.progress = member.progress | {"metrics": metrics}
        return ne


def four_decimals(value: float | None) -> str:
    """Four decimals, or a dash for a metric that is not defined."""
    return "-" if value is None else f"{value:.4f}"
