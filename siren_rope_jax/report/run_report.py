"""Report of a run: reads, computes and lays out what a trained model has learned."""

import dataclasses
import datetime
import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from siren_rope_jax import __version__
from siren_rope_jax.data.event_log import EventLog, read_event_log
from siren_rope_jax.errors import InputError
from siren_rope_jax.report.attention_mass import attention_mass
from siren_rope_jax.report.knock_outs import knock_outs
from siren_rope_jax.report.markup import Html, Section, escaped, facts
from siren_rope_jax.report.metrics_section import Rival, calibration_section, metrics_section
from siren_rope_jax.report.model_sections import (
    history_section,
    knock_outs_section,
    mass_section,
    rotation_section,
)
from siren_rope_jax.report.page import check_page_file, compose, write_page
from siren_rope_jax.train.baselines import read_baselines
from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.environment import environment
from siren_rope_jax.train.predict import read_predictions, steering_events
from siren_rope_jax.train.run_data import check_data
from siren_rope_jax.train.run_folder import read_run
from siren_rope_jax.train.run_history import read_history
from siren_rope_jax.train.run_settings import read_described
from siren_rope_jax.train.session import load_session
from siren_rope_jax.train.tasks import make_tasks

KNOCK_OUT_EVENTS = 20_000
_ATTENDING_EVENTS = 2_000


def write_report(
    run: Path, out: Path, *, against: Path | None = None, say: Callable[[str], None] = lambda line: None
) -> None:
    """Writes a page about a trained run: one HTML file that needs nothing else.

    Args:
      run: folder that training wrote; nothing is written into it.
      out: file for the page: new, or an earlier report, which is replaced.
      against: another run of the same log to compare the metrics with.
      say: prints what is being computed.

    Raises:
      InputError: if a folder is not a finished run, the log has changed, the other run is of another log, or the file
        is something else.
    """
    runs = [run] if against is None else [run, against]
    for one in runs:
        _check_run(one)
    check_page_file(out, runs)
    spec, config, _ = read_run(run)
    log = read_event_log(spec)
    check_data(run, log)
    rival = None if against is None else _read_rival(run, against, log)
    command = ["siren-rope", "report", str(run), *(["--against", str(against)] if against else []), "--out", str(out)]
    sections = [_head(run, config, log), *_sections(run, log, config, rival, say), _colophon(shlex.join(command))]
    write_page(out, compose(f"What {run.resolve().name} has learned", sections))


def _sections(
    run: Path, log: EventLog, config: TrainConfig, rival: Rival | None, say: Callable[[str], None]
) -> Iterator[Section]:
    """Yields the sections between head and end that apply to the run."""
    session, params = load_session(run)
    predictions = read_predictions(run, log, session.tasks)
    say("metrics and their intervals")
    baselines, left_out = read_baselines(log.spec.description, log, config.inputs)
    if left_out:
        say(left_out)
    yield metrics_section(log, session.tasks, predictions, rival=rival, baselines=baselines)
    yield from filter(None, [calibration_section(log, session.tasks, predictions)])
    model = session.model.merge(params)
    yield from filter(None, [rotation_section(model.rotary, model.spec)])
    yield from filter(None, [history_section(read_history(run), session.tasks)])
    say("knock-outs")
    encoded = session.encoder.encode(log)
    chosen = steering_events(log, KNOCK_OUT_EVENTS)
    found = knock_outs(session, params, log, encoded, chosen)
    users = len(np.unique(log.user[chosen]))
    yield from filter(None, [knock_outs_section(found, session.tasks, int(chosen.sum()), users)])
    say("attention")
    chosen = steering_events(log, _ATTENDING_EVENTS)
    yield from filter(None, [mass_section(attention_mass(session, params, encoded, chosen), int(chosen.sum()))])


def _check_run(run: Path) -> None:
    """Checks that a folder is one run; `read_run` checks the rest.

    Raises:
      InputError: if it holds the runs of several seeds.
    """
    seeds = sorted(run.glob("seed-*/config.json"))
    if not (run / "config.json").exists() and seeds:
        raise InputError(f"{run} must be one run, but holds {len(seeds)}: name one, such as {seeds[0].parent}")


def _read_rival(run: Path, against: Path, log: EventLog) -> Rival:
    spec, _, encoder = read_run(against)
    ours, theirs = read_described(run), read_described(against)
    same_data = all(ours["data"][name] == theirs["data"][name] for name in ("events", "digest"))
    if not same_data or spec.split != log.spec.split or encoder.task_names != log.task_names:
        raise InputError(
            f"{against} must be a run of the same events, tasks and split as {run}, to be compared, but is of others"
        )
    name = against.resolve().name
    predictions = read_predictions(against, log, make_tasks(encoder.tasks))
    return Rival(str(against) if name == run.resolve().name else name, predictions)


def _head(run: Path, config: TrainConfig, log: EventLog) -> Section:
    training, made_by = _read(run / "training.json"), _read(run / "environment.json").get("packages", {})
    described, model = log.spec.description, config.model
    kind, docstring = model.rotary.kind, model.rotary.source.__doc__ or ""
    layers = f"{model.layers} layers of width {model.width}, {model.heads} heads, past actions {model.action_fusion}"
    rows = {
        "run": run.resolve(),
        "log": f"{described.name if described else run}: {len(log.time_ms):,} events of {len(log.user_ids):,} users",
        "model": f"{layers}, attention bias {model.bias.kind}, encodings {', '.join(model.encodings) or 'none'}",
        "rotation": f"{kind}: {docstring.partition(chr(10))[0]}",
        "settings that differ from the defaults": Html("<br>".join(map(escaped, _changed(config))) or "none"),
        "seed": config.seed,
        "steps": f"{training['steps']:,} in {training['seconds']:,.0f} s" if training else "unknown",
        "parameters": f"{training['parameters']:,}" if training else "unknown",
        "trained with": f"siren_rope_jax {made_by.get('siren-rope-jax')}, jax {made_by.get('jax')}",
    }
    lead = "Which run this is. Its config.json has all settings, also those that it chose by the size of the log."
    return Section("run", "The run", lead, facts(rows.items()))


def _changed(config: Any) -> Iterator[str]:
    """Yields the settings that differ from their defaults, with their paths, as flags name them."""

    def differing(value: Any, default: Any, path: str) -> Iterator[str]:
        for field in dataclasses.fields(value):
            one, usual = getattr(value, field.name), getattr(default, field.name)
            name = f"{path}{field.name.replace('_', '-')}"
            if dataclasses.is_dataclass(one):
                yield from differing(one, usual, f"{name}.")
            elif one != usual and isinstance(usual, bool):
                yield name if one else f"{path}no-{field.name.replace('_', '-')}"
            elif one != usual and name != "--seed":
                yield f"{name} {' '.join(map(str, one)) if isinstance(one, tuple) else one}"

    return differing(config, TrainConfig(), "--")


def _colophon(command: str) -> Section:
    here = environment()
    versions = ", ".join(f"{name} {version}" for name, version in here["packages"].items() if version)
    today = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    rows = [
        ("command", Html(f"<code>{escaped(command)}</code>")),
        ("made", f"{today}, siren_rope_jax {__version__}, Python {here['python']}"),
        ("packages", versions),
    ]
    lead = "How this page was made. The same command makes it again; nothing in the run is changed."
    return Section("made", "How this page was made", lead, facts(rows))


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}
