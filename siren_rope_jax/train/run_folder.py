"""The folder of a run: what it was made from, so that it can be resumed, evaluated and used for scoring."""

import contextlib
import dataclasses
import fcntl
import importlib.metadata
import json
import os
import platform
import reprlib
import time
import typing
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from siren_rope_jax import __version__
from siren_rope_jax.data.encode import Encoder
from siren_rope_jax.data.encoder_file import encode_alike, load_encoder, save_encoder
from siren_rope_jax.data.event_log import EventLog
from siren_rope_jax.data.fingerprint import fingerprint
from siren_rope_jax.data.schema import EventLogSpec, InputError
from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.durable import write_json
from siren_rope_jax.train.processes import check_all_same, decided_by_first, greatest

_SEEN_SECONDS = 20
_PLACES = ("log_file", "data.rows", "data.last_time_ms")  # where the log's events stand, not what they are
_OF_TRAINING = tuple(  # settings of the model that no checkpoint depends on
    f"config.model.{name}" for name in ("dropout", "id_dropout", "context_dropout", "attention", "dtype")
)
_PACKAGES = (
    "siren-rope-jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "numpy",
    "polars",
)


def from_dict(cls: type, mapping: Mapping[str, Any]) -> Any:
    """Rebuilds a nested dataclass of tuples and plain values from its `dataclasses.asdict`, through JSON too."""
    types = typing.get_type_hints(cls)

    def convert(kind: Any, value: Any) -> Any:
        if dataclasses.is_dataclass(kind):
            return from_dict(typing.cast(type, kind), value)
        return tuple(value) if isinstance(value, list) else value

    unknown = sorted(set(mapping) - set(types))
    if unknown:
        raise ValueError(f"{cls.__name__} has no setting {', '.join(unknown)} in this version")
    return cls(**{name: convert(types[name], value) for name, value in mapping.items()})


def open_run(
    run: Path,
    log: EventLog,
    encoder: Encoder,
    config: TrainConfig,
    *,
    allow_drift: bool = False,
) -> Callable[[], str | None]:
    """Describes a new run in its locked folder, or checks that the one there is the same; in all processes.

    Args:
      run: folder; new, empty, or of the same configuration and data. How a run is spread over devices and when it is
        saved may change, as the result does not depend on it.
      log: the log that is trained on.
      encoder: fitted on it.
      config: the run.
      allow_drift: go on with other settings of the training; never with another model or other data.

    Returns:
      What to call once training goes on: it writes the configuration, and returns what has changed in it, or None.

    Raises:
      InputError: if the folder holds a run that differs; the difference is named.
    """
    described = {
        "config": dataclasses.asdict(config),
        "log": log.spec.to_dict(),
        "log_file": None if log.spec.description is None else str(log.spec.description),
        "data": _described_data(log),
    }
    described = json.loads(json.dumps(described))

    def open_it() -> str | None:
        if (run / "config.json").exists():
            drift = _check_described(run, log, described, allow_drift)
            if not encode_alike(encoder, _read_encoder(run)):
                raise InputError(
                    f"{run / 'encoder.npz'} must hold what this version learns of the log, but holds something else: "
                    "give another --out"
                )
            return drift
        save_encoder(encoder, run / "encoder.npz")
        write_json(run / "environment.json", _environment())
        write_json(run / "config.json", described)  # last: a folder with it is complete
        return None

    drift = decided_by_first(open_it)
    (unseen,) = greatest(int(not _appears(run / "config.json")))
    if unseen:
        raise InputError(f"{run} must be a folder that all processes share, but one does not see what process 0 wrote")
    check_all_same(described["data"], "reads other events than process 0: give all of them the same files")

    def write() -> None:
        if _described(run) != described:
            write_json(run / "config.json", described)

    def describe() -> str | None:
        decided_by_first(write)
        return drift

    return describe


def _appears(path: Path) -> bool:
    """Waits for what another machine has written, which a network's file system may show late."""
    end = time.monotonic() + _SEEN_SECONDS
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.1)
    return path.exists()


def _check_described(run: Path, log: EventLog, described: dict[str, Any], allow_drift: bool) -> str | None:
    there = _described(run)
    differences = {
        name: text
        for name, text in _differences(there, described).items()
        if not name.startswith(("config.mesh.", "config.checkpoints.")) and name not in _PLACES
    }
    if all(name.startswith("data.") for name in differences):
        _check_same(run, there["data"], log, described["data"])
    named = "; ".join(differences.values())
    if any(_is_of_model(name) for name in differences):
        raise InputError(
            f"{run} holds a run of another model or other data, which differs in {named}: give another --out"
        )
    if differences and not allow_drift:
        raise InputError(
            f"{run} holds a run that differs in {named}: give another --out, the same settings, or --allow-drift to go "
            "on with these"
        )
    return f"{run} goes on with other settings: {named}" if differences else None


def _is_of_model(name: str) -> bool:
    """With another value of such a setting, a checkpoint would mean something else, or nothing."""
    if name in _OF_TRAINING:
        return False
    return name.startswith(("config.model.", "config.inputs.", "config.batches.window", "config.seed", "log.", "data."))


@contextlib.contextmanager
def lock_run(run: Path) -> Iterator[None]:
    """Makes the folder, if need be, and keeps other jobs from it; the lock goes with process 0, however it ends.

    Raises:
      InputError: if another job holds it, or the folder holds something that is not of a run.
    """
    with contextlib.ExitStack() as stack:
        decided_by_first(lambda: stack.enter_context(_locked(run)))
        yield


@contextlib.contextmanager
def _locked(run: Path) -> Iterator[None]:
    # What a process leaves that dies while it makes the folder is no reason to refuse it.
    ours = {"lock", "lost+found", "encoder.npz", "environment.json", "environment.json.tmp", "config.json.tmp"}
    foreign = run.exists() and (not run.is_dir() or {path.name for path in run.iterdir()} - ours)
    if foreign and not (run / "config.json").exists():
        raise InputError(f"{run} must be a new folder or that of an earlier run, but holds something else")
    if "[" in str(run.absolute()):
        # orbax takes the path for a pattern when it joins the parts of a checkpoint, finds none, and says nothing.
        raise InputError(f"{run.absolute()} must be a path without [, or its checkpoints would hold no parameters")
    run.mkdir(parents=True, exist_ok=True)
    with open(run / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{run} is being trained by another process: wait for it, or give another --out") from None
        yield


def read_run(run: Path) -> tuple[EventLogSpec, TrainConfig, Encoder]:
    """Reads what `open_run` wrote.

    Raises:
      InputError: if the folder is not that of a run.
    """
    if not (run / "config.json").exists():
        raise InputError(f"{run} must be a folder that `siren-rope train` wrote, but has no config.json")
    described = _described(run)
    try:
        spec = EventLogSpec.from_dict(described["log"], run, str(run / "config.json"))
        if described.get("log_file"):
            spec = dataclasses.replace(spec, description=Path(described["log_file"]))
        config = from_dict(TrainConfig, described["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{run / 'config.json'} must be as `siren-rope train` {__version__} writes it, but is not: {error}"
        ) from None
    return spec, config, _read_encoder(run)


def _read_encoder(run: Path) -> Encoder:
    try:
        return load_encoder(run / "encoder.npz")
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{run / 'encoder.npz'} must be as `siren-rope train` {__version__} writes it, but is damaged, missing or "
            f"of another version: {error}"
        ) from None


def _described(run: Path) -> dict[str, Any]:
    try:
        described = json.loads((run / "config.json").read_text())
        if not isinstance(described, dict) or not {"config", "log", "data"} <= described.keys():
            raise ValueError("it lacks a part")
    except ValueError as error:  # of JSON and of UTF-8 too
        raise InputError(f"{run / 'config.json'} is damaged: {error}") from None
    if "rows" not in described["data"]:
        raise InputError(f"{run} must be a run of siren-rope {__version__}, but is of an earlier version: train anew")
    return described


def check_data(run: Path, log: EventLog) -> None:
    """Checks that the log is still the one that was trained on.

    Raises:
      InputError: if events came, went or changed.
    """
    _check_same(run, _described(run)["data"], log, _described_data(log))


def check_history(run: Path, log: EventLog, *, allow_changed: bool = False) -> str | None:
    """Checks that the history that new events are scored from is what was trained on, or has only grown.

    Args:
      run: folder of a run.
      log: its log, with new events.
      allow_changed: take a log whose old events have changed, too, and only say so.

    Returns:
      What is to be said of the log, or None if it is the same.

    Raises:
      InputError: if events of then went or changed.
    """
    there, here = _described(run)["data"], _described_data(log)
    if _events_of(there) == _events_of(here):
        return None
    # Rows come at the end of the last file, or at later times; either tells which are old.
    old = (log.row < there["rows"], log.time_ms <= there["last_time_ms"])
    if any(fingerprint(log, ~log.new & chosen) == _events_of(there) for chosen in old):
        return (
            f"the log has grown by {here['events'] - there['events']:,} events since {run} was trained on "
            f"{there['events']:,}: they are history too"
        )
    changed = (
        f"events that {run} was trained on have changed or gone since: there were {there['events']:,}, there are "
        f"{here['events']:,} events now in {', '.join(map(str, log.spec.files))}"
    )
    if not allow_changed:
        raise InputError(f"{changed}; train anew, or give --allow-changed-log to score from the log as it is now")
    return changed


def _described_data(log: EventLog) -> dict[str, Any]:
    old = ~log.new
    extent = {"rows": int(log.row[old].max()) + 1, "last_time_ms": int(log.time_ms[old].max())}
    return fingerprint(log, old) | extent


def _events_of(data: dict[str, Any]) -> dict[str, Any]:
    return {"events": data["events"], "digest": data["digest"]}


def _check_same(run: Path, there: dict[str, Any], log: EventLog, here: dict[str, Any]) -> None:
    if _events_of(there) != _events_of(here):
        raise InputError(
            f"{run} was trained on {there['events']} events of {', '.join(map(str, log.spec.files))}, but these files "
            f"have changed since and hold {here['events']} events now: put them back, or train anew"
        )


def _environment() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "devices": [device.device_kind for device in jax.devices()],
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return None


def _differences(old: Any, new: Any, name: str = "") -> dict[str, str]:
    if isinstance(old, dict) and isinstance(new, dict):
        found: dict[str, str] = {}
        for key in sorted(set(old) | set(new)):
            found |= _differences(old.get(key), new.get(key), f"{name}.{key}".strip("."))
        return found
    return {} if old == new else {name: f"{name} (there {reprlib.repr(old)}, here {reprlib.repr(new)})"}
