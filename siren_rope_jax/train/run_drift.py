"""Differences between a run and the settings to resume it with; the field of each setting defines what may change."""

import reprlib
from pathlib import Path
from typing import Any

from siren_rope_jax.data.event_log import EventLog
from siren_rope_jax.errors import InputError
from siren_rope_jax.settings import drift_of
from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.run_data import check_same_data
from siren_rope_jax.train.run_settings import read_described

_PLACES = ("log_file", "data.rows", "data.last_time_ms")  # locations of the log's events, which may change


def check_drift(run: Path, log: EventLog, described: dict[str, Any], *, allow_drift: bool) -> str | None:
    """Checks that a run may resume with the given settings.

    Args:
      run: folder of the run.
      log: the log to resume with.
      described: new content of its `config.json`.
      allow_drift: whether settings made by `settings.drifts` may change.

    Returns:
      A note that names the changed settings, except those that may always change; None if there are none.

    Raises:
      InputError: if a setting changed that may not; the message names the difference.
    """
    there: dict[str, Any] = {"own_optimizer": False} | read_described(run)
    if there["own_optimizer"] != described["own_optimizer"]:
        remedy = "of its settings: pass none"
        if there["own_optimizer"]:
            remedy = "that its caller passed: pass it again"
        raise InputError(f"{run} holds a run that began with the optimizer {remedy}, or give another --out")
    differences = {name: text for name, text in _differences(there, described).items() if _drift(name) != "free"}
    if all(name.startswith("data.") for name in differences):
        check_same_data(run, log, there["data"], described["data"])
    named = "; ".join(differences.values())
    if any(_drift(name) == "refused" for name in differences):
        raise InputError(
            f"{run} holds a run of another model or other data, which differs in {named}: give another --out"
        )
    if differences and not allow_drift:
        raise InputError(
            f"{run} holds a run that differs in {named}: give another --out, the same settings, or --allow-drift to "
            "resume with these"
        )
    return f"{run} resumes with other settings: {named}" if differences else None


def _drift(name: str) -> str:
    if name in _PLACES:
        return "free"
    part, *setting = name.split(".")
    return drift_of(TrainConfig, setting) if part == "config" else "refused"


def _differences(old: Any, new: Any, name: str = "") -> dict[str, str]:
    if isinstance(old, dict) and isinstance(new, dict):
        found: dict[str, str] = {}
        for key in sorted(set(old) | set(new)):
            found |= _differences(old.get(key), new.get(key), f"{name}.{key}".strip("."))
        return found
    return {} if old == new else {name: f"{name} (there {reprlib.repr(old)}, here {reprlib.repr(new)})"}
