"""Differences between a run and the settings that it is to go on with: each setting's field says whether it may."""

import reprlib
from pathlib import Path
from typing import Any

from siren_rope_jax.data.event_log import EventLog
from siren_rope_jax.errors import InputError
from siren_rope_jax.settings import drift_of
from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.run_data import check_same_data
from siren_rope_jax.train.run_settings import read_described

_PLACES = ("log_file", "data.rows", "data.last_time_ms")  # where the log's events stand, not what they are


def check_drift(run: Path, log: EventLog, described: dict[str, Any], *, allow_drift: bool) -> str | None:
    """Checks that a run may go on as it is described now.

    Args:
      run: its folder.
      log: the log that it is to go on with.
      described: what would stand in its `config.json`.
      allow_drift: go on with other values of the settings that may drift.

    Returns:
      What has changed, of that which may not change freely, or None.

    Raises:
      InputError: if something has changed that may not; the difference is named.
    """
    there = read_described(run)
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
            f"{run} holds a run that differs in {named}: give another --out, the same settings, or --allow-drift to go "
            "on with these"
        )
    return f"{run} goes on with other settings: {named}" if differences else None


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
