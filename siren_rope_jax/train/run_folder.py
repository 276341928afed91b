"""Folder of a run: settings, log and encoder, so that the run can be resumed, evaluated and used for scoring."""

import dataclasses
import json
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from siren_rope_jax import __version__
from siren_rope_jax.data.encode import Encoder
from siren_rope_jax.data.encoder_file import encode_alike, load_encoder, save_encoder
from siren_rope_jax.data.event_log import EventLog
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.errors import InputError
from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.durable import write_json
from siren_rope_jax.train.environment import environment
from siren_rope_jax.train.processes import check_all_same, decided_by_first, greatest
from siren_rope_jax.train.run_data import describe_data
from siren_rope_jax.train.run_drift import check_drift
from siren_rope_jax.train.run_settings import from_dict, read_described

_SEEN_SECONDS = 20


def open_run(
    run: Path,
    log: EventLog,
    encoder: Encoder,
    config: TrainConfig,
    *,
    allow_drift: bool = False,
    own_optimizer: bool = False,
) -> Callable[[], str | None]:
    """Describes a new run in its locked folder, or checks that the existing one is the same; in all processes.

    Args:
      run: folder; new, empty, or of the same configuration and data. The layout over devices and the times of saving
        may change, as the result does not depend on them.
      log: the log to train on.
      encoder: encoder fitted to the log.
      config: settings of the run.
      allow_drift: whether settings of the training may change; the model and the data never may.
      own_optimizer: whether the caller passed the optimizer, whose settings cannot be compared.

    Returns:
      A function to call once training resumes: it writes the configuration, and returns a note on what has changed in
      it, or None.

    Raises:
      InputError: if the folder holds a run that differs; the message names the difference.
    """
    described = {
        "config": dataclasses.asdict(config),
        "log": log.spec.to_dict(),
        "log_file": None if log.spec.description is None else str(log.spec.description),
        "data": describe_data(log),
        "own_optimizer": own_optimizer,
    }
    described = json.loads(json.dumps(described))

    def open_it() -> str | None:
        if (run / "config.json").exists():
            drift = check_drift(run, log, described, allow_drift=allow_drift)
            if not encode_alike(encoder, _read_encoder(run)):
                raise InputError(
                    f"{run / 'encoder.npz'} must hold what this version learns of the log, but holds something else: "
                    "give another --out"
                )
            return drift
        save_encoder(encoder, run / "encoder.npz")
        write_json(run / "environment.json", environment())
        write_json(run / "config.json", described)  # last, as a sign that the folder is complete
        return None

    drift = decided_by_first(open_it)
    (unseen,) = greatest(int(not _appears(run / "config.json")))
    if unseen:
        raise InputError(f"{run} must be a folder that all processes share, but one does not see what process 0 wrote")
    check_all_same(described["data"], "reads other events than process 0: give all of them the same files")

    def write() -> None:
        if read_described(run) != described:
            write_json(run / "config.json", described)

    def describe() -> str | None:
        decided_by_first(write)
        return drift

    return describe


def _appears(path: Path) -> bool:
    """Returns whether a file appears in time, since a network file system may show another machine's file late."""
    end = time.monotonic() + _SEEN_SECONDS
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.1)
    return path.exists()


def read_run(run: Path) -> tuple[EventLogSpec, TrainConfig, Encoder]:
    """Reads the log's spec, the configuration and the encoder that `open_run` wrote.

    Raises:
      InputError: if the folder does not hold a run, or a file in it is damaged.
    """
    if not (run / "config.json").exists():
        raise InputError(f"{run} must be a folder that `siren-rope train` wrote, but has no config.json")
    described = read_described(run)
    try:
        spec = EventLogSpec.from_dict(described["log"], run, str(run / "config.json"))
        if described.get("log_file"):
            spec = dataclasses.replace(spec, description=Path(described["log_file"]))
        config = from_dict(TrainConfig, described["config"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{run / 'config.json'} must be as `siren-rope train` {__version__} writes it, but is not: {error}; "
            "train again"
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
