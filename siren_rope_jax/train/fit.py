"""Training loop: takes models from their latest checkpoint to their last step."""

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grain
import jax
import numpy as np
from jaxtyping import Bool, Float
from rich.console import Console

from siren_rope_jax.batch import Batch
from siren_rope_jax.data.batches import batches
from siren_rope_jax.data.encode import Encoded
from siren_rope_jax.data.event_log import EventLog
from siren_rope_jax.data.periods import TRAIN
from siren_rope_jax.errors import InputError, Interrupted
from siren_rope_jax.train.criterion import Criterion, Judged
from siren_rope_jax.train.durable import write_json
from siren_rope_jax.train.hooks import Hook
from siren_rope_jax.train.interrupt import InterruptRequest
from siren_rope_jax.train.member import Member, latest
from siren_rope_jax.train.optimizer import warmup_steps
from siren_rope_jax.train.predict import metrics_of, steering_events
from siren_rope_jax.train.processes import decided_by_first, greatest
from siren_rope_jax.train.progress import progress_bar
from siren_rope_jax.train.run_log import RunLog
from siren_rope_jax.train.session import Session
from siren_rope_jax.train.step import TrainState
from siren_rope_jax.train.step_log import StepLog
from siren_rope_jax.train.tasks import kind_of

_IN_FLIGHT = 2  # dispatched steps that the devices may have left while the host handles an older one
_AGREE_EVERY = 8  # steps between the decisions of several processes


@dataclasses.dataclass
class Training:
    """Training of one run, or of several as one, from the latest checkpoint, if there is one, to the last step."""

    log: EventLog
    encoded: Encoded
    members: list[Member]
    steps: int
    session: Session
    criterion: Criterion
    console: Console
    rates: Float[np.ndarray, " steps"] | None  # learning rates; None if the caller passed the optimizer
    hooks: Sequence[Hook] = ()

    def fit(self) -> None:
        model, config, steps = self.session.model, self.session.config, self.steps
        state, step = self._restored()
        if step > steps:
            raise InputError(f"steps must be at least {step}, which {self.members[0].run} has reached, but are {steps}")
        if step == steps or self._exhausted:
            self._say_finished(step)
            return
        for member in self.members:
            if said := member.describe():
                self.console.print(said)
        self._say_start(step)
        stream, last_save = self._stream(), time.monotonic()
        evaluate_at = {round(steps * (k + 1) / config.evaluations) for k in range(config.evaluations)}
        alone = jax.process_count() == 1
        with InterruptRequest() as request, progress_bar(self.console) as bar, contextlib.ExitStack() as stack:
            for member in self.members:
                member.log = RunLog(member.run, first_step=step + 1)
                stack.callback(member.log.close)
            bar.add_task("training", total=steps, completed=step, loss=math.nan, rate=0.0)
            log = StepLog(self.members, self.log.task_names, self.rates, self.hooks, bar)
            while step < steps:
                batch = next(stream)
                state, metrics = model.train_step(state, self._put(batch))
                step += 1
                log.add(step, metrics, batch.events.segment)
                late = int(time.monotonic() - last_save > config.checkpoints.seconds)
                due = step in evaluate_at or bool(config.checkpoints.every and step % config.checkpoints.every == 0)
                wishes = request.received or late or log.asked
                if not (due or (wishes if alone else step % _AGREE_EVERY == 0)):
                    log.finish(but=_IN_FLIGHT)
                    continue
                log.finish()  # so that a step that is not finite is found before it is saved
                # All processes must decide the same, but clocks and signals differ between them.
                signal, late, asked = greatest(request.received or 0, late, int(log.asked))
                if due or signal or late or asked:
                    self._save(state, step, validate=step in evaluate_at or bool(asked))
                    last_save = time.monotonic()
                log.meter.start()
                if self._exhausted:
                    self._say_stop(step)
                    break
                if signal and step < steps:
                    self._wait()
                    raise Interrupted(
                        f"stopped at step {step} of {steps}, saved in {latest(self.members)}; the same command resumes",
                        signal,
                    )
                if asked:
                    self.console.print(f"stopped at step {step:,} of {steps:,}: a hook asked to stop")
                    break
            self._wait()
        seconds, rate = self.members[0].progress["seconds"], log.meter.rate
        self.console.print(f"trained {step:,} steps in {seconds:.0f} s, {rate:,.0f} events/s")
        described = {"steps": step, "seconds": seconds, "events_per_second": rate}
        for member in self.members:
            of_run = described | {"fill": member.rows.fill, "parameters": self._parameters}
            decided_by_first(lambda path=member.run / "training.json", value=of_run: write_json(path, value))

    def _restored(self) -> tuple[TrainState, int]:
        """Restores the newest step that every run has a checkpoint of; returns the initial state if there is none."""
        like, step = self.session.model.abstract_one, None
        if len(self.members) > 1:
            of_members = [set(member.checkpoints.steps()) for member in self.members]
            common = set.intersection(*of_members)
            if not common and max(map(len, of_members)) > 1:  # otherwise the job died during its first save
                raise InputError(
                    f"the runs of {self.members[0].run.parent} have no checkpoint of the same step: restore files from "
                    "a copy, or move all their checkpoints away to start again from the beginning"
                )
            if not common:
                return self.session.model.initial_state(), 0
            step = max(common)
        states = []
        for member in self.members:
            found = member.checkpoints.restore(like, step=step)
            if found is None:  # only for a single run, since for several the step is known to exist
                return self.session.model.initial_state(), 0
            one, member.progress = found
            states.append(one)
        return self.session.model.stack(states), int(states[0].step)

    def _stream(self) -> Iterator[Batch]:
        """Yields this process's rows of each batch; with a leading axis for the seeds if there are several."""
        config = self.session.config.batches
        streams = []
        for member in self.members:
            dataset = batches(
                self.encoded,
                member.rows,
                config,
                seed=member.config.seed,
                rows_here=self.session.layout.rows_here(config.rows),
                first_example=member.progress["next_example"],
            )
            # Without threads: the rows are in memory, and threads would only compete for Python's lock.
            streams.append(iter(dataset.to_iter_dataset(grain.ReadOptions(0, 0))))
        for parts in zip(*streams, strict=True):
            yield parts[0] if self.session.layout.seeds is None else jax.tree.map(lambda *x: np.stack(x), *parts)

    def _put(self, batch: Batch) -> Batch:
        return self.session.layout.put_batch(batch, self.session.config.batches.rows)

    def _save(self, state: TrainState, step: int, *, validate: bool) -> None:
        for member, one in zip(self.members, self.session.model.split(state), strict=True):
            metrics, judged = self._validate(member, one, step) if validate else (None, None)
            judged = None if member.exhausted else judged
            if judged is not None:
                member.count(judged, patiently=step <= warmup_steps(self.session.config.optimizer, self.steps))
            member.log.flush()
            saved = member.progress | {"config": dataclasses.asdict(member.config), "metrics": metrics}
            member.checkpoints.save(one, saved, judged=judged)

    @property
    def _exhausted(self) -> bool:
        return all(member.exhausted for member in self.members)

    def _say_stop(self, step: int) -> None:
        self.console.print(
            f"stopped at step {step:,} of {self.steps:,}: the last {self.session.config.patience} validations did not "
            f"improve the {self.criterion.title} (--patience)"
        )

    def _say_finished(self, step: int) -> None:
        early = f" of {self.steps:,}, early: give a larger --patience to continue" if step < self.steps else ""
        self.console.print(f"{self.members[0].run} is already trained to its end, step {step:,}{early}")

    def _wait(self) -> None:
        for member in self.members:
            member.checkpoints.wait()

    @functools.cached_property
    def _validated(self) -> Bool[np.ndarray, " E"]:
        return steering_events(self.log, self.session.config.validation_events)

    @property
    def _parameters(self) -> int:
        return sum(x.size for x in jax.tree.leaves(self.session.model.abstract_one.params))

    def _say_start(self, step: int) -> None:
        for member in self.members if step else ():
            self.console.print(f"resuming {member.run} at step {step} of {self.steps}")
        if not step:
            rows = self.members[0].rows
            models = "" if len(self.members) == 1 else f"{len(self.members)} models of "
            self.console.print(
                f"{(self.log.period == TRAIN).sum():,} training events in {len(rows.row_index):,} rows, "
                f"{rows.fill:.1%} full; {models}{self._parameters:,} parameters"
            )
            self.console.print(self._plan(len(rows.row_index)))

    def _plan(self, rows: int) -> str:
        """Returns a summary of the settings chosen for the log, and the flags that override them."""
        config = self.session.config
        every = "no early stopping"
        if config.patience is not None:
            every = f"early stopping after {config.patience} without improvement"
        validated = int(self._validated.sum())
        decay = config.optimizer.average_decay
        averaged = f"the parameters' average with decay {decay:g}" if decay else "the latest parameters"
        model, rate = config.model, config.optimizer.context_rate
        of_context = f", {rate:g} for the context (--optimizer.context-rate)" if model.context_skip else ""
        if model.context_skip and model.context_widths:
            of_context += f" with dropout {model.context_dropout or 0:g} (--model.context-dropout)"
        optimizer = f"learning rate {config.optimizer.peak:g} (--optimizer.learning-rate){of_context}"
        if self.rates is None:
            optimizer = "the caller's optimizer"
        return (
            f"{self.steps:,} steps (--steps) of {config.batches.rows} rows (--batches.batch-size), "
            f"{self.steps * config.batches.rows / rows:.3g} epochs; {optimizer}; {config.evaluations} validations "
            f"(--evaluations) on {validated:,} events (--validation-events); the best has the "
            f"{'highest' if self.criterion.maximise else 'lowest'} {self.criterion.title} (--best-by); "
            f"{every} (--patience); evaluation uses {averaged} (--optimizer.average-decay)"
        )

    def _validate(self, member: Member, state: TrainState, step: int) -> tuple[dict[str, Any], Judged | None]:
        """Evaluates on validation, reports the metrics, and returns them with the result by the criterion."""
        predictions = self.session.predict(state.evaluated, self.encoded, self._validated)
        if not np.isfinite(predictions[self._validated]).all():
            raise member.not_finite(f"step {step}: predictions on validation are NaN or infinite")
        metrics = metrics_of(self.session.tasks, self.log, predictions, self._validated)
        judged = self.criterion.judge(metrics)
        member.log.add_validation(metrics, judged, step, self.session.model.diagnose(state.evaluated))
        seed = "" if len(self.members) == 1 else f"seed {member.config.seed}, "
        self.console.print(f"{seed}step {step:>6}: validation {headlines(metrics)}")
        return metrics, judged


def headlines(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the two headline metrics of each task in one line."""
    said: dict[str, list[str]] = {}
    for task, values in metrics.items():
        kind = kind_of(values)
        shown = "/".join(four_decimals(values[name]) for name in kind.headline)
        said.setdefault("/".join(kind.metrics[name].title for name in kind.headline), []).append(f"{task} {shown}")
    return "; ".join(f"{titles} {', '.join(of_tasks)}" for titles, of_tasks in said.items())


def four_decimals(value: float | None) -> str:
    """Formats a metric with four decimals, or as a dash if it is not defined."""
    return "-" if value is None else f"{value:.4f}"
