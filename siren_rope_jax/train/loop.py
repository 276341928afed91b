"""Training of models on one log, each in its own run folder, with exact resumption."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from rich.console import Console

from siren_rope_jax.data.batches import make_rows
from siren_rope_jax.data.event_log import EventLog
from siren_rope_jax.data.periods import TRAIN
from siren_rope_jax.errors import InputError, ProcessLostError
from siren_rope_jax.train.budget import fit_to_log
from siren_rope_jax.train.checkpoint import Checkpoints
from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.criterion import choose_criterion
from siren_rope_jax.train.evaluate import write_evaluation
from siren_rope_jax.train.fit import Training
from siren_rope_jax.train.hooks import Hook
from siren_rope_jax.train.inputs import fit_inputs
from siren_rope_jax.train.member import Member, latest
from siren_rope_jax.train.optimizer import make_schedule
from siren_rope_jax.train.outlook import outlook
from siren_rope_jax.train.processes import check_all_same
from siren_rope_jax.train.run_folder import open_run
from siren_rope_jax.train.run_lock import lock_run
from siren_rope_jax.train.session import make_session
from siren_rope_jax.train.sharding import make_layout


def train(
    log: EventLog,
    config: TrainConfig,
    run: str | os.PathLike[str],
    *,
    console: Console | None = None,
    allow_drift: bool = False,
    optimizer: optax.GradientTransformation | None = None,
    hooks: Sequence[Hook] = (),
) -> dict[str, Any]:
    """Trains or resumes a run, and evaluates its best checkpoint; a job of several processes calls it in each of them.

    Args:
      log: events with their split.
      config: settings of the run.
      run: folder of the run, shared by all processes; the same call on the folder of an interrupted run resumes it
        exactly.
      console: shows the progress; standard output if not given.
      allow_drift: whether settings of the training may differ from those in the folder.
      optimizer: replaces `config.optimizer`, of which only `average_decay` is read then. If it has a schedule over the
        steps, set these in the configuration. It must be given again to resume the run.
      hooks: called in order with the report of each step; a hook returns True to stop the training.

    Returns:
      The content of `metrics.json`: metrics of each task on validation and test.

    Raises:
      InputError: if the folder holds something else, a run that differs, or one that is being trained.
      Interrupted: after Ctrl-C or SIGTERM, once the checkpoint is written.
      NonFiniteError: if loss or gradient is not finite; no checkpoint is written after that step.
      ProcessLostError: if another process of the job was lost.
    """
    (metrics,) = _train(log, config, {Path(run): config.seed}, None, console, allow_drift, optimizer, hooks)
    return metrics


def train_seeds(
    log: EventLog,
    config: TrainConfig,
    run: str | os.PathLike[str],
    seeds: int,
    *,
    console: Console | None = None,
    allow_drift: bool = False,
    optimizer: optax.GradientTransformation | None = None,
    hooks: Sequence[Hook] = (),
) -> list[dict[str, Any]]:
    """Trains several seeds as one job, each to the result of `train` with that seed, up to rounding.

    Args:
      log: events with their split.
      config: settings of the first seed's run; the other seeds follow by 1.
      run: folder of the runs `seed-0`, `seed-1`, ..., each as `train` writes it.
      seeds: number of seeds.
      console: shows the progress; standard output if not given.
      allow_drift: whether settings of the training may differ from those in the folder.
      optimizer: as for `train`.
      hooks: as for `train`; metrics have a leading axis for the seeds.

    Returns:
      The result of `train` for each seed.

    Raises:
      As `train`.
    """
    if config.checkpoints.latest < 2:
        # Runs are saved one after the other: if the job dies in between, only the checkpoint before is common to all.
        raise InputError(f"checkpoints.latest must be at least 2 with seeds, but is {config.checkpoints.latest}")
    runs = {Path(run) / f"seed-{seed}": seed for seed in range(config.seed, config.seed + seeds)}
    return _train(log, config, runs, seeds, console, allow_drift, optimizer, hooks)


def _train(
    log: EventLog,
    config: TrainConfig,
    runs: dict[Path, int],
    seeds: int | None,
    console: Console | None,
    allow_drift: bool,
    optimizer: optax.GradientTransformation | None,
    hooks: Sequence[Hook],
) -> list[dict[str, Any]]:
    console = console or Console(markup=False)
    if jax.process_index():
        console = Console(quiet=True)
    settings = json.loads(json.dumps([dataclasses.asdict(config), seeds, [str(run) for run in runs]]))
    with contextlib.ExitStack() as stack:
        stack.enter_context(_naming_lost_processes([]))
        check_all_same(settings, "was given other settings than process 0: start all of them with the same command")
        encoder, encoded = fit_inputs(log, config.inputs)
        in_training = log.period[encoded.log_index] == TRAIN
        members = []
        for run, seed in runs.items():
            try:
                of_seed, shares = dataclasses.replace(config, seed=seed), make_layout(config.mesh).row_shares
            except ValueError as error:
                raise InputError(str(error)) from error
            rows = make_rows(encoded, in_training, config.batches, seed=seed)
            # The same for every seed, since the seed only chooses among windows of the same length.
            of_seed = fit_to_log(of_seed, rows, shares=shares)
            members.append(Member(run, rows, of_seed, Checkpoints(run, config.checkpoints, say=console.print)))
        config = members[0].config
        steps = config.steps or 1
        session = make_session(encoder, config, steps=steps, seeds=seeds, optimizer=optimizer)
        criterion = choose_criterion(config.best_by, session.tasks, grouped=log.group is not None)
        for member in members:
            stack.enter_context(lock_run(member.run))
            member.describe = open_run(
                member.run,
                log,
                encoder,
                member.config,
                allow_drift=allow_drift,
                own_optimizer=optimizer is not None,
            )
            stack.push(_closing(member.checkpoints))
        for sentence in outlook(log, session.tasks, encoder, encoded, steps=steps, criterion=criterion):
            console.print(sentence)
        stack.enter_context(_naming_lost_processes(members))
        rates = None
        if optimizer is None:
            rates = np.asarray(make_schedule(config.optimizer, steps)(np.arange(steps)))
        Training(log, encoded, members, steps, session, criterion, console, rates, hooks).fit()
        return [
            write_evaluation(session, session.best_params(member.checkpoints), log, encoded, member.run)
            for member in members
        ]


@contextlib.contextmanager
def _naming_lost_processes(members: list[Member]) -> Iterator[None]:
    """Replaces the runtime's error about a dead process, which names a socket, by one that tells what to do."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, InputError) as error:
        cause = error.__cause__ if isinstance(error, InputError) else error
        lost = isinstance(cause, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(cause)
        if jax.process_count() == 1 or not lost:
            raise
        raise ProcessLostError(
            f"another process of this job was lost ({str(cause).splitlines()[0][:200]}); last good checkpoint: "
            f"{latest(members) or 'not read yet'}; start all again with the same command to resume from it"
        ) from error


def _closing(checkpoints: Checkpoints) -> Callable[..., None]:
    def close(kind: type[BaseException] | None, *_: object) -> None:
        if kind is not ProcessLostError:  # completing a checkpoint would wait for the lost process
            checkpoints.close()

    return close
