"""The commands of `siren-rope`: each a dataclass of its flags that calls one function; those of runs are here."""

import dataclasses
import signal
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro
from rich.console import Console

from siren_rope_jax.data.encode import InputConfig
from siren_rope_jax.data.event_log import EventLog, read_event_log
from siren_rope_jax.data.named_files import existing_file
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.errors import InputError, Interrupted, LeakError
from siren_rope_jax.log_commands import Describe, Prepare, Simulate
from siren_rope_jax.report.run_report import write_report
from siren_rope_jax.report.tables import (
    audit_table,
    checkpoints_table,
    comparison_table,
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
from siren_rope_jax.train.loop import train, train_seeds
from siren_rope_jax.train.processes import ProcessConfig, join
from siren_rope_jax.train.run_folder import read_run
from siren_rope_jax.train.scores import carried_columns, check_scores_file, write_scores


@dataclasses.dataclass(frozen=True)
class Train:
    """Train a recommender on an event log; the same command resumes an interrupted run.

    `siren-rope train my_log.toml --out runs/mine` is enough: what is not given follows the size of the log.
    The options below are those of the training; then come model, inputs, batches, optimizer, devices and checkpoints.
    """

    log: tyro.conf.Positional[Path]
    """TOML file that describes the log."""
    out: Path
    """Folder of the run: new, or that of an interrupted run of the same settings."""
    seeds: int | None = None
    """Number of seeds to train as one job, from `--seed` on, each in its own folder seed-N under `--out`."""
    allow_drift: bool = False
    """Resume a run although settings of its training have changed; the change is logged and kept. Another model or
    other data is never accepted. After another batch size, --epochs counts as if all steps had had it."""
    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = dataclasses.field(default_factory=TrainConfig)
    processes: ProcessConfig = dataclasses.field(default_factory=ProcessConfig)
    """Processes of a job; the same command runs on every host of a pod."""

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
    """Give every row of a file of new events one prediction per task, probability or number, in the order of the rows.

    Each event is scored as if it were the only one, from the events that the run's log holds before its time: the file
    may hold candidates of which at most one will happen. Users and items may be unknown; the columns of tasks and
    actions may be missing.
    """

    run: tyro.conf.Positional[Path]
    """Folder that `train` wrote."""
    events: str
    """New events, a table with the columns of the log; a path or a URL."""
    out: Path
    """File for the scores: .csv, .tsv, .jsonl or .parquet."""
    columns: tuple[str, ...] = ()
    """Columns of the file of new events to write before the scores, such as ids."""
    allow_unmatched: bool = False
    """Score the events although the log has none of their users, of their items or of the values of a column."""
    as_history: bool = False
    """Take the file's rows as history: later rows see earlier ones, with their outcomes where the file has them."""
    allow_changed_log: bool = False
    """Score although events that the run was trained on have changed since; new events need no permission."""

    def __call__(self, console: Console) -> None:
        """Runs the command."""
        spec, _, _ = read_run(self.run)
        events = existing_file(self.events)
        check_scores_file(self.out, spec, events)
        if self.out.resolve().is_relative_to(self.run.resolve()):
            raise InputError(f"{self.out} must be a new file or earlier scores, but is in the run")
        carried = carried_columns(events, self.columns, spec, self.out) if self.columns else None
        _report_changed_description(console, spec)
        log = read_event_log(spec, new_events=events, allow_unmatched=self.allow_unmatched)
        _print_notes(console, log)
        options = {"as_history": self.as_history, "allow_changed": self.allow_changed_log, "say": console.print}
        write_scores(self.out, log, score(log, self.run, **options), carried)
        console.print(f"{int(log.new.sum()):,} events scored in {self.out}")


@dataclasses.dataclass(frozen=True)
class Baselines:
    """Fit the mean, a linear model and gradient boosting to the recommender's inputs from a log.

    They are tuned on validation and reported on test. From then on `train` and `evaluate` show them beside their own
    metrics, as long as the data stays the same.
    """

    log: tyro.conf.Positional[Path]
    """TOML file that describes the log."""
    out: Path | None = None
    """JSON file for the results; by default LOG.baselines.json, where `train` and `evaluate` look for them."""
    inputs: InputConfig = dataclasses.field(default_factory=InputConfig)
    """Encoding of the counters; must be the recommender's for a fair comparison."""

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
    """List the checkpoints of a run: step, metrics, size, and whether every bit is intact."""

    run: tyro.conf.Positional[Path]
    """Folder that `train` wrote."""

    def __call__(self, console: Console) -> None:
        """Runs the command."""
        console.print(checkpoints_table(list_checkpoints(self.run)))


@dataclasses.dataclass(frozen=True)
class Audit:
    """Try to cheat: look for leaks of outcomes, order and future in a log, or in the model of a run.

    It trains small models on planted outcomes that no honest model can predict, changes outcomes and events after a
    moment, permutes ties, scores candidates beside others, and compares feature columns with later outcomes.
    """

    subject: tyro.conf.Positional[Path]
    """TOML file that describes a log, or a folder that `train` wrote."""
    out: Path | None = None
    """JSON file for the findings."""
    events: int = 30_000
    """Approximate number of events, of whole users, to try the models on; feature columns are checked on all."""
    steps: int = 200
    """Training steps of each small model."""

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
            raise LeakError(f"{leaks} of {len(findings)} probes of {self.subject} found a leak")


@dataclasses.dataclass(frozen=True)
class Report:
    """Write a page to look at about what a run has learned: one HTML file that needs nothing else.

    It shows metrics with intervals, calibration, the rotation over day and week, the training, how much worse the model
    predicts without each of its parts, and how far back it attends.
    """

    run: tyro.conf.Positional[Path]
    """Folder that `train` wrote; nothing in it is changed."""
    against: Path | None = None
    """Another run of the same log, whose metrics stand beside this one's."""
    out: Path = Path("report.html")
    """File for the page: new, or an earlier report."""

    def __call__(self, console: Console) -> None:
        """Runs the command."""
        write_report(self.run, self.out, against=self.against, say=console.print)
        console.print(f"the report is in {self.out}: open it in a browser")


def _report_changed_description(console: Console, spec: EventLogSpec) -> None:
    if spec.description is not None and spec.description.exists():
        try:
            said = "" if EventLogSpec.from_toml(spec.description) == spec else "has changed since the run was trained"
        except InputError as error:
            said = f"cannot be compared with what the run was trained on ({error})"
        if said:
            files = ", ".join(map(str, spec.files))
            console.print(f"{spec.description} {said}: its files are read as it described them then, {files}")


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


COMMANDS = {
    "train": Train,
    "evaluate": Evaluate,
    "score": Score,
    "baselines": Baselines,
    "audit": Audit,
    "checkpoints": ListCheckpoints,
    "report": Report,
    "describe": Describe,
    "simulate": Simulate,
    "prepare": Prepare,
}
