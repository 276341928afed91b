"""Checks that the events that a run was trained on are unchanged, or have only grown."""

from pathlib import Path
from typing import Any

from siren_rope_jax.data.event_log import EventLog
from siren_rope_jax.data.fingerprint import fingerprint
from siren_rope_jax.errors import InputError
from siren_rope_jax.train.run_settings import read_described


def check_data(run: Path, log: EventLog) -> None:
    """Checks that the log is the one that the run was trained on.

    Raises:
      InputError: if events were added, removed or changed.
    """
    check_same_data(run, log, read_described(run)["data"], describe_data(log))


def check_history(run: Path, log: EventLog, *, allow_changed: bool = False) -> str | None:
    """Checks that the history for scoring new events is the log of the training, or has only grown.

    Args:
      run: folder of a run.
      log: its log, with new events.
      allow_changed: whether to report changed old events instead of raising.

    Returns:
      A note on how the log has changed, or None if it has not.

    Raises:
      InputError: if old events were removed or changed.
    """
    there, here = read_described(run)["data"], describe_data(log)
    if _events_of(there) == _events_of(here):
        return None
    # New rows are at the end of the last file or at later times; either identifies the old rows.
    old = (log.row < there["rows"], log.time_ms <= there["last_time_ms"])
    if any(fingerprint(log, ~log.new & chosen) == _events_of(there) for chosen in old):
        return (
            f"the log has grown by {here['events'] - there['events']:,} events since {run} was trained on "
            f"{there['events']:,}: the new ones are history too"
        )
    changed = (
        f"events that {run} was trained on have been changed or removed: there were {there['events']:,}, and there are "
        f"{here['events']:,} now in {', '.join(map(str, log.spec.files))}"
    )
    if not allow_changed:
        raise InputError(f"{changed}; train again, or give --allow-changed-log to score from the log as it is now")
    return changed


def describe_data(log: EventLog) -> dict[str, Any]:
    """Returns the description of the training events that a run stores: their fingerprint, last row and last time."""
    old = ~log.new
    extent = {"rows": int(log.row[old].max()) + 1, "last_time_ms": int(log.time_ms[old].max())}
    return fingerprint(log, old) | extent


def _events_of(data: dict[str, Any]) -> dict[str, Any]:
    return {"events": data["events"], "digest": data["digest"]}


def check_same_data(run: Path, log: EventLog, there: dict[str, Any], here: dict[str, Any]) -> None:
    """Checks that the description stored in a run equals that of the log as it is now.

    Raises:
      InputError: if events were added, removed or changed.
    """
    if _events_of(there) != _events_of(here):
        raise InputError(
            f"{run} was trained on {there['events']} events of {', '.join(map(str, log.spec.files))}, but these files "
            f"have changed since and hold {here['events']} events now: restore them, or train again"
        )
