"""Log files written by tests, and read as a user's would be."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

from siren_rope_jax.data.event_log import EventLog, read_event_log
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.errors import InputError

START = 1_650_000_000  # 2022-04-15 05:20:00 UTC


def event_table(users: list[str], items: list[str], **columns: list) -> pl.DataFrame:
    """Twenty hourly events that go round the given users and items, with clicks on and off."""
    number = range(20)
    return pl.DataFrame(
        {
            "user": [users[i % len(users)] for i in number],
            "item": [items[i % len(items)] for i in number],
            "time": [START + 3600 * i for i in number],
            "click": [i // 2 % 2 for i in number],
            **{name: [values[i % len(values)] for i in number] for name, values in columns.items()},
        },
        strict=False,
    )


def write(table: pl.DataFrame, path: Path) -> Path:
    """Writes a table as CSV or Parquet, as its name says."""
    (table.write_parquet if path.suffix == ".parquet" else table.write_csv)(path)
    return path


def read(
    files: Sequence[Path | str], new_events: Path | None = None, *, allow_unmatched: bool = False, **changes: object
) -> EventLog:
    """Reads a log with the task "click"; `changes` are sections of its description, whose keys are added."""
    sections: dict = {
        "log": {"files": [str(file) for file in files], "user": "user", "item": "item", "timestamp": "time"},
        "tasks": {"click": "click"},
        "split": {"validation_from": 0.5, "test_from": 0.75},
    }
    for name, value in changes.items():
        sections[name] = sections.get(name, {}) | value if isinstance(value, dict) else value
    spec = EventLogSpec.from_dict(sections, Path(files[0]).parent, "my.toml")
    return read_event_log(spec, new_events=new_events, allow_unmatched=allow_unmatched)


def refusal(files: Sequence[Path | str], new_events: Path | None = None, **changes: object) -> str:
    """Returns the one sentence in which a log is refused."""
    with pytest.raises(InputError) as caught:
        read(files, new_events, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def users_of(log: EventLog) -> list[str]:
    """The id of each event's user."""
    return log.user_ids.gather(log.user).to_list()
