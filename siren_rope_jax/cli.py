"""The command line: parses flags and calls one function."""

import dataclasses
import logging
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import jax
import tyro
from rich.console import Console

from siren_rope_jax.data.encode import InputConfig
from siren_rope_jax.data.event_log import EventLog, read_event_log
from siren_rope_jax.data.schema import EventLogSpec, InputError
from siren_rope_jax.data.simulator import SimulatorConfig, simulate, write_simulated_log
from siren_rope_jax.data.sources import prepare_deskdrop, prepare_kuairand_pure
from siren_rope_jax.report.tables import (
    audit_table,
    checkpoints_table,
    comparison_table,
    make_console,
    metrics_table,
    seeds_table,
)
from siren_rope_jax.settings import check_settings
from siren_rope_jax.train.audit import audit, read_subject
from siren_rope_jax.train.baselines import baselines_file, check_out, fit_baselines, read_baselines
from siren_rope_jax.train.checkpoint_list import list_checkpoints
from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.durable import write_json
from siren_rope_jax.train.evaluate import evaluate, score
from siren_rope_jax.train.fit import NonFiniteError
from siren_rope_jax.train.interrupt import Interrupted
from siren_rope_jax.train.loop import train, train_seeds
from siren_rope_jax.train.processes import ProcessConfig, ProcessLostError, join
from siren_rope_jax.train.run_folder import read_run
from siren_rope_jax.train.scores import write_scores

_TUNABLES = "GLIBC_TUNABLES"
_LAST_SECONDS = 3
_ALLOCATION = {"hugetlb": 1, "arena_max": 1, "mmap_max": 0, "trim_threshold": 2**33}


@dataclasses.dataclass(frozen=True)
class Train:
    """Train a recommender on an event log; the same command resumes an interrupted run."""

    log: tyro.conf.Positional[Path]
    """TOML file that describes the log."""
    out: Path
    """Folder of the run: new, or that of an interrupted run of the same settings."""
    seeds: int | None = None
    """Train so many seeds as one job, from `--seed` on, each in a folder seed-N of its own under `--out`."""
    allow_drift: bool = False
    """Go on with a run though settings of its training have changed; the change is said and kept. Never with another
    model or other data. After another batch size, --epochs counts as if all steps had had it."""
    processes: ProcessConfig = dataclasses.field(default_factory=ProcessConfig)
    """The same command runs on every host of a pod."""
    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = dataclasses.field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        check_settings(self, seeds="[1, inf)")

    def __call__(self, console: Console) -> None:
        """Runs the command."""
        join(self.processes)
        console.quiet = jax.process_index() > 0
        log = read_event_log(EventLogSpec.from_toml(self.log))
        _print_notes(console, log)
        options = {"console": console, "allow_drift": self.allow_drift}
        if self.seeds is None:
            metrics = [train(log, self.config, self.out, **options)]
            console.print(metrics_table(*metrics))
        else:
            metrics = train_seeds(log, self.config, self.out, self.seeds, **options)
            console.print(seeds_table(metrics))
        if not console.quiet:
            _print_baselines(console, log, self.config.inputs, metrics)
        console.print(f"metrics, predictions and checkpoints are in {self.out}")


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Evaluate the best checkpoint of a run on validation and test, and rewrite its metrics and predictions."""

    run: tyro.conf.Positional[Path]
    """Folder that `train` wrote."""

    def __call__(self, console: Console) -> None:
        """Runs the command."""
        spec, config, _ = read_run(self.run)
        log = read_event_log(spec)
        _print_notes(console, log)
        metrics = evaluate(log, self.run)
        console.print(metrics_table(metrics))
        _print_baselines(console, log, config.inputs, [metrics])


@dataclasses.dataclass(frozen=True)
class Score:
    """Give every row of a file of new events one probability per task, in the order of the rows.

    Each event is scored as if it were the only one, from what the log that the run was trained on knows at its time:
    the file may hold candidates of which at most one will happen. Users and items may be unknown; the columns of tasks
    and actions may be missing.
    """

    run: tyro.conf.Positional[Path]
    """Folder that `train` wrote."""
    events: Path
    """New events, a table with the columns of the log."""
    out: Path
    """Where the scores are written, as CSV."""
    allow_unmatched: bool = False
    """Score them though the log knows none of their users, of their items or of the values of a column."""
    as_history: bool = False
    """The file's rows have happened: later rows see earlier ones, with their outcomes where the file has them."""
    allow_changed_log: bool = False
    """Score though events that the run was trained on have changed since; new events need no permission."""

    def __call__(self, console: Console) -> None:
        """Runs the command."""
        spec, _, _ = read_run(self.run)
        kept = {file.resolve() for file in (self.events, *spec.files, *(side.file for side in spec.side_tables))}
        out = self.out.resolve()
        if out in kept or out.is_dir() or out.is_relative_to(self.run.resolve()):
            raise InputError(f"{self.out} must be a new file or earlier scores, but is data, a folder or in the run")
        log = read_event_log(spec, new_events=self.events, allow_unmatched=self.allow_unmatched)
        _print_notes(console, log)
        options = {"as_history": self.as_history, "allow_changed": self.allow_changed_log, "say": console.print}
        write_scores(self.out, log, score(log, self.run, **options))
        console.print(f"{int(log.new.sum()):,} events scored in {self.out}")


@dataclasses.dataclass(frozen=True)
class Baselines:
    """Fit the base rate, logistic regression and gradient boosting to what the recommender reads of a log.

    They are tuned on validation and reported on test; `train` and `evaluate` show them beside their own metrics from
    then on, while the data stays the same.
    """

    log: tyro.conf.Positional[Path]
    """TOML file that describes the log."""
    out: Path | None = None
    """Where the results are written; by default LOG.baselines.json, where `train` and `evaluate` look for them."""
    inputs: InputConfig = dataclasses.field(default_factory=InputConfig)
    """Encoding of the counters; give the recommender's."""

    def __call__(self, console: Console) -> None:
        """Runs the command."""
        out = self.out or baselines_file(self.log)
        spec = EventLogSpec.from_toml(self.log)
        check_out(out)
        log = read_event_log(spec)
        _print_notes(console, log)
        try:
            results = fit_baselines(log, self.inputs, console=console)
        except KeyboardInterrupt:
            raise Interrupted(
                "interrupted before the baselines were done; nothing was written", signal.SIGINT
            ) from None
        console.print(comparison_table(results["baselines"]))
        write_json(out, results)
        console.print(f"metrics and chosen settings are in {out}")


@dataclasses.dataclass(frozen=True)
class ListCheckpoints:
    """List the checkpoints of a run: step, metrics, size, and whether every bit is as it was written."""

    run: tyro.conf.Positional[Path]
    """Folder that `train` wrote."""

    def __call__(self, console: Console) -> None:
        """Runs the command."""
        console.print(checkpoints_table(list_checkpoints(self.run)))


@dataclasses.dataclass(frozen=True)
class Audit:
    """Try to cheat: look for leaks of outcomes, order and future in a log, or in the model of a run.

    Small models are trained on planted outcomes that nothing honest can predict, outcomes and events after a moment are
    changed, ties permuted, candidates scored beside others, and feature columns compared with what came later.
    """

    subject: tyro.conf.Positional[Path]
    """TOML file that describes a log, or a folder that `train` wrote."""
    out: Path | None = None
    """JSON file for the findings."""
    events: int = 30_000
    """Models are asked of about so many events, of whole users; feature columns are looked at in all of them."""
    steps: int = 200
    """Steps that each small model is trained for."""

    def __post_init__(self) -> None:
        check_settings(self, events="[1, inf)", steps="[1, inf)")

    def __call__(self, console: Console) -> None:
        """Runs the command."""
        log, run = read_subject(self.subject)
        _print_notes(console, log)
        findings = []
        for finding in audit(log, run, events=self.events, steps=self.steps):
            console.print(f"{finding.verdict}: {finding.probe}: {finding.tried}")
            findings.append(finding)
        console.print(audit_table(findings))
        if self.out is not None:
            write_json(self.out, [dataclasses.asdict(finding) for finding in findings])
        if leaks := sum(finding.verdict == "LEAK" for finding in findings):
            _fail(f"{leaks} of {len(findings)} probes of {self.subject} found a leak", 4)


@dataclasses.dataclass(frozen=True)
class Simulate:
    """Write the simulated news feed, its true probabilities and its description."""

    out: Path
    """Folder for events.parquet, truth.parquet and log.toml."""
    config: Annotated[SimulatorConfig, tyro.conf.arg(name="")] = dataclasses.field(default_factory=SimulatorConfig)

    def __call__(self, console: Console) -> None:
        """Runs the command."""
        console.print(f"described in {write_simulated_log(simulate(self.config), self.out)}")


@dataclasses.dataclass(frozen=True)
class Prepare:
    """Describe a published event log, Deskdrop or KuaiRand-Pure, so that `train` can read it."""

    source: tyro.conf.Positional[Literal["deskdrop", "kuairand-pure"]]
    """Which log."""
    data: tyro.conf.Positional[Path]
    """Deskdrop: the archive with users_interactions.csv. KuaiRand-Pure: the published folder `data`."""
    out: Path
    """Folder for log.toml and what is derived from the data."""

    def __call__(self, console: Console) -> None:
        """Runs the command."""
        prepare = prepare_deskdrop if self.source == "deskdrop" else prepare_kuairand_pure
        console.print(f"described in {prepare(self.data, self.out)}")


def _print_notes(console: Console, log: EventLog) -> None:
    for note in log.notes:
        console.print(note)


def _print_baselines(
    console: Console, log: EventLog, inputs: InputConfig, metrics: list[dict[str, dict[str, Any]]]
) -> None:
    baselines, left_out = read_baselines(log.spec.description, log, inputs)
    if left_out:
        console.print(left_out)
    if baselines:
        console.print(comparison_table(baselines, metrics))


def keep_memory() -> None:
    """Starts this process again with memory in huge pages that are kept, unless the user has set how it is allocated.

    XLA allocates the temporary memory of each step on a CPU anew. In small pages, given back to the system in between,
    that costs a fifth to a half of the time. glibc reads the setting at the start of a process only.
    """
    if sys.platform != "linux" or _TUNABLES in os.environ:
        return
    os.environ[_TUNABLES] = ":".join(f"glibc.malloc.{name}={value}" for name, value in _ALLOCATION.items())
    print(
        f"{_TUNABLES}={os.environ[_TUNABLES]} is set, for speed on a CPU; set it yourself to change it", file=sys.stderr
    )
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def main(arguments: list[str] | None = None) -> None:
    """Runs one command; its exit code tells a supervisor what to do.

    2: bad input or settings, 3: diverged, 4: an audit found a leak, none of them to be tried again; 75: another process
    is gone, and 128 + signal: interrupted after a checkpoint, both to be started again in order to go on.
    """
    if arguments is None:
        keep_memory()
    # Of a checkpoint that cannot be written, orbax's tasks tell in their own pages, after our one sentence.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    commands = {
        "train": Train,
        "evaluate": Evaluate,
        "score": Score,
        "baselines": Baselines,
        "audit": Audit,
        "checkpoints": ListCheckpoints,
        "simulate": Simulate,
        "prepare": Prepare,
    }
    try:
        command = tyro.extras.subcommand_cli_from_dict(
            commands,  # type: ignore[arg-type]
            prog="siren-rope",
            description="SIREN-RoPE recommenders on event logs: train, evaluate, score.",
            args=arguments,
        )
    except ValueError as error:  # a setting that its own dataclass refuses; tyro itself reports some of these
        _fail(str(error), 2)
    try:
        command(make_console())
    except (InputError, FileExistsError) as error:
        _fail(str(error), 2)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror or error}", 2)
    except NonFiniteError as error:
        _fail(str(error), 3)
    except ProcessLostError as error:
        _fail(str(error), 75)
    except Interrupted as error:
        _fail(str(error), 128 + error.signal)
    except Exception:
        if not jax.distributed.is_initialized():
            raise
        traceback.print_exc()
        _exit(1)
    except KeyboardInterrupt:
        _fail("interrupted; what was saved before is whole, and the same command goes on from there", 130)


def _fail(message: str, code: int) -> NoReturn:
    print(f"siren-rope: {message}", file=sys.stderr, flush=True)
    _exit(code)


def _exit(code: int) -> NoReturn:
    if jax.distributed.is_initialized():
        # Taking leave of the others would wait for those that are gone, or know nothing of this failure, and be
        # aborted. Process 0 goes last: what the others fail of at the same time they must say first.
        sys.stdout.flush()
        if jax.process_index() == 0:
            time.sleep(_LAST_SECONDS)
        os._exit(code)
    sys.exit(code)
