"""The events that a run was trained on: are they still the same, or have they only grown?"""

from pathlib import Path
from typing import Any

from siren_rope_jax.data.event_log import EventLog
from siren_rope_jax.data.fingerprint import fingerprint
from siren_rope_jax.errors import InputError
from siren_rope_jax.train.run_settings import read_described


def check_data(run: Path, log: EventLog) -> None:
    """Checks that the log is still the one that was trained on.

    Raises:
      InputError: if events came, went or changed.
    """
    check_same_data(run, log, read_described(run)["data"], describe_data(log))


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
    there, here = read_described(run)["data"], describe_data(log)
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


def describe_data(log: EventLog) -> dict[str, Any]:
    """Returns what a run keeps of the events that it is trained on: their fingerprint, and where they end."""
    old = ~log.new
    extent = {"rows": int(log.row[old].max()) + 1, "last_time_ms": int(log.time_ms[old].max())}
    return fingerprint(log, old) | extent


def _events_of(data: dict[str, Any]) -> dict[str, Any]:
    return {"events": data["events"], "digest": data["digest"]}


def check_same_data(run: Path, log: EventLog, there: dict[str, Any], here: dict[str, Any]) -> None:
    """Checks that what a run keeps of its events is what is read of them now.

    Raises:
      InputError: if events came, went or changed.
    """
    if _events_of(there) != _events_of(here):
        raise InputError(
            f"{run} was trained on {there['events']} events of {', '.join(map(str, log.spec.files))}, but these files "
            f"have changed since and hold {here['events']} events now: put them back, or train anew"
        )
