"""Ids and times that lost digits are refused, with what to do."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from siren_rope_jax.data.event_log import EventLog, read_event_log
from siren_rope_jax.data.precision import coarse_note
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.errors import InputError

START = 1_650_000_050
EVENTS = 64


def table(**columns: object) -> pl.DataFrame:
    """A log of eight users whose ids and times need all their digits."""
    index = np.arange(EVENTS)
    base = {
        "user": 123_456_789_000 + index % 8,
        "item": index % 5,
        "time": START + 977 * index,
        "click": index // 2 % 2,
    }
    return pl.DataFrame(base | columns, strict=False)


def read(
    folder: Path, frame: pl.DataFrame, *, suffix: str = "csv", side: list | None = None, **log: object
) -> EventLog:
    frame.write_csv(folder / "log.csv") if suffix == "csv" else frame.write_parquet(folder / "log.parquet")
    sections = {
        "log": {"files": [f"log.{suffix}"], "user": "user", "item": "item", "timestamp": "time"} | log,
        "tasks": {"click": "click"},
        "side_table": side or [],
        "split": {"validation_from": 0.5, "test_from": 0.75},
    }
    return read_event_log(EventLogSpec.from_dict(sections, folder, "my.toml"))


def refusal(folder: Path, frame: pl.DataFrame, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        read(folder, frame, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("form", ["%.5E", "%.6g", "%.3e", "%.0E"])
def test_ids_in_scientific_notation_are_refused(tmp_path, form, suffix):
    ids = [form % (123_456_789_000 + i % 8) for i in range(EVENTS)]
    message = refusal(tmp_path, table(user=ids), suffix=suffix)
    assert f'column "user": expected the id of the user with all its digits, found {ids[0]!r}' in message
    assert message.endswith("export the ids as text")


def test_the_key_of_a_side_table_in_scientific_notation_is_refused(tmp_path):
    (tmp_path / "users.csv").write_text("id,age\n1.23457E+11,5\n")
    side = [{"file": "users.csv", "join": "user", "key": "id", "dense": ["age"]}]
    assert 'users.csv: line 2, column "id": expected the id of the user with all' in refusal(
        tmp_path, table(), side=side
    )


@pytest.mark.parametrize("id", ["5e10", "7e123456", "1E9", "9377952927E-5", "e+11", "1.5", "v1.2e+3", "a@1.5e+10b"])
def test_ids_that_only_resemble_scientific_notation_are_read(tmp_path, id):
    users = [id if i % 8 == 0 else f"u{i % 8}" for i in range(EVENTS)]
    assert id in read(tmp_path, table(user=users)).user_ids.to_list()


@pytest.mark.parametrize(("column", "what"), [("user", "ids"), ("item", "ids"), ("time", "times")])
def test_ids_and_times_of_type_float32_are_refused(tmp_path, column, what):
    message = refusal(tmp_path, table().with_columns(pl.col(column).cast(pl.Float32)), suffix="parquet")
    assert f'"{column}" ([log] {column if what == "ids" else "timestamp"}) holds Float32' in message
    assert f"export the {what} again as whole numbers or text" in message


@pytest.mark.parametrize(("unit", "scale", "step"), [("s", 1, "128 s"), ("ms", 1000, "131 s")])
def test_times_that_went_through_float32_are_refused_in_every_type(tmp_path, unit, scale, step):
    rounded = pl.col("time").cast(pl.Float32)
    frame = table(time=(START + 977 * np.arange(EVENTS)) * scale)
    for kind in (pl.Float64, pl.Int64, pl.String):
        changed = frame.with_columns(rounded.cast(pl.Float64).cast(pl.Int64).cast(kind))
        message = refusal(tmp_path, changed, suffix="parquet", timestamp_unit=unit)
        assert f"rounded as Float32 (steps of {step}) does" in message
        assert "export the times again as whole numbers" in message


def test_times_in_scientific_notation_are_refused_unless_they_have_all_digits(tmp_path):
    times = START + 977 * np.arange(EVENTS)
    for form in ("%.5E", "%.8e", "%.0e"):
        message = refusal(tmp_path, table(time=[form % time for time in times]))
        assert 'line 2, column "time": expected a Unix time with all its digits, found ' in message
        assert message.endswith("export the times as whole numbers")
    whole = table(time=[f"{time:.9e}" for time in times])
    assert read(tmp_path, whole).time_ms.tolist() == (times * 1000).tolist()
    milliseconds = [f"{1000 * time:.11e}" for time in times]
    assert "with all its digits" in refusal(tmp_path, table(time=milliseconds), timestamp_unit="ms")


def test_times_of_six_digits_are_refused(tmp_path):
    times = [int(float(f"{START + 9_770 * i:.5e}")) for i in range(EVENTS)]
    message = refusal(tmp_path, table(time=times))
    assert (
        f"holds {len(set(times))} different times in {EVENTS} rows, each rounded as a format with six digits" in message
    )


@pytest.mark.parametrize("offset", [0, 8, -3, 5.5])
def test_dates_are_read_and_it_is_said_that_they_are_dates(tmp_path, offset):
    midnight = 1_650_067_200 - round(3600 * offset)
    frame = table(time=midnight + 86_400 * (np.arange(EVENTS) // 4))
    assert read(tmp_path, frame, utc_offset_hours=offset).notes[-1] == (
        "every time is midnight, as dates are: the events of one day do not see each other"
    )
    if offset == -3:
        assert "every time is at 03:00:00 of its day, as dates are" in read(tmp_path, frame).notes[-1]


@pytest.mark.parametrize("step", [1, 60, 3_600, 28_800])
def test_times_rounded_to_units_of_the_clock_are_read_without_a_word(tmp_path, step):
    log = read(tmp_path, table(time=1_649_980_800 + step * np.arange(EVENTS)))
    assert len(log.notes) == 1


def test_a_few_times_that_are_multiples_by_chance_are_read(tmp_path):
    times = 1_650_000_000 + 128 * np.arange(EVENTS) // 10 // 128 * 128
    assert len(read(tmp_path, table(time=times)).time_ms) == EVENTS


def test_times_in_coarse_steps_are_said_and_times_in_minutes_or_hours_are_not():
    number = np.arange(50, dtype=np.int64)
    start = 1_650_000_000_000
    for step in (64, 100, 1_000):
        assert f"multiples of {step:,} s" in str(coarse_note(start + 1_000 * step * (number // 2)))
    for step in (1, 60, 3_600, 86_400):
        assert coarse_note(start + 1_000 * step * (number // 2)) is None
