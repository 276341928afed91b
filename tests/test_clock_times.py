"""Times as clocks show them: ISO 8601 texts, dates and datetimes, read as the Unix times that they stand for."""

import datetime
import zoneinfo

import numpy as np
import polars as pl
import pytest
from log_files import START, event_table, read, refusal, write

MOMENTS = [datetime.datetime.fromtimestamp(START + 3600 * i, datetime.UTC) for i in range(20)]
PARIS = "Europe/Paris"


def same_log(log, plain):
    """Every array of a log that a model reads."""
    for name in ("time_ms", "day", "second", "user", "item", "labels", "actions", "action_known", "period"):
        np.testing.assert_array_equal(getattr(log, name), getattr(plain, name), err_msg=name)


def with_times(folder, times, kind="csv", log=(), **options):
    table = event_table(["a", "b"], ["i"]).with_columns(time=pl.Series(times))
    return read([write(table, folder / f"log.{kind}")], log=dict(log), **options)


WRITTEN = {
    "with Z": lambda t: t.strftime("%Y-%m-%dT%H:%M:%SZ"),
    "with a space": lambda t: t.strftime("%Y-%m-%d %H:%M:%S"),
    "without seconds": lambda t: t.strftime("%Y-%m-%d %H:%M"),
    "with a fraction": lambda t: t.strftime("%Y-%m-%dT%H:%M:%S.000999Z"),
    "with a comma": lambda t: t.strftime("%Y-%m-%dT%H:%M:%S,000Z"),
    "east of UTC": lambda t: t.astimezone(datetime.timezone(datetime.timedelta(hours=5, minutes=30))).isoformat(),
    "west of UTC": lambda t: (t - datetime.timedelta(hours=8)).strftime("%Y-%m-%d %H:%M:%S -0800"),
    "with hours alone": lambda t: (t + datetime.timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M+02"),
    "with blanks around": lambda t: t.strftime("  %Y-%m-%dT%H:%M:%Sz "),
}


@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
def test_an_iso_text_is_read_as_the_unix_time_that_it_stands_for(written, tmp_path):
    plain = with_times(tmp_path, [START + 3600 * i for i in range(20)])
    same_log(with_times(tmp_path, list(map(written, MOMENTS)), log={"timestamp_unit": "iso"}), plain)


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", PARIS])
def test_a_datetime_column_of_any_unit_and_zone_needs_no_setting(unit, zone, tmp_path):
    times = pl.Series([moment.replace(tzinfo=None) for moment in MOMENTS]).cast(pl.Datetime(unit))
    if zone:
        times = times.dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
    plain = with_times(tmp_path, [START + 3600 * i for i in range(20)])
    same_log(with_times(tmp_path, times, "parquet"), plain)


@pytest.mark.parametrize(("unit", "factor"), [("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_unix_time_may_have_any_unit(unit, factor, kind, tmp_path):
    times = [(START + 3600 * i) * factor for i in range(20)]
    plain = with_times(tmp_path, [START + 3600 * i for i in range(20)])
    same_log(with_times(tmp_path, times, kind, log={"timestamp_unit": unit}), plain)


def test_a_date_is_midnight_in_the_zone_of_the_log(tmp_path):
    days = [datetime.date(2022, 3, 20) + datetime.timedelta(days=i) for i in range(20)]  # the clocks change on the 27th
    midnights = [datetime.datetime.combine(d, datetime.time(), zoneinfo.ZoneInfo(PARIS)).timestamp() for d in days]
    plain = with_times(tmp_path, [int(t) for t in midnights], log={"time_zone": PARIS})
    same_log(with_times(tmp_path, days, "parquet", log={"time_zone": PARIS}), plain)
    same_log(with_times(tmp_path, days, log={"time_zone": PARIS, "timestamp_unit": "iso"}), plain)
    numbers = [int(day.strftime("%Y%m%d")) for day in days]
    for kind in ("csv", "parquet"):
        same_log(with_times(tmp_path, numbers, kind, log={"time_zone": PARIS, "timestamp_unit": "iso"}), plain)


@pytest.mark.parametrize("zone", [PARIS, "America/Sao_Paulo", "Australia/Lord_Howe", "Pacific/Apia"])
@pytest.mark.parametrize("day", ["2011-12-30", "2018-11-04", "2022-03-27", "2022-10-30", "2018-04-01"])
def test_clocks_that_change_are_read_as_python_reads_them(zone, day, tmp_path):
    start = datetime.datetime.fromisoformat(f"{day} 00:00")
    local = [start + datetime.timedelta(minutes=15 * i) for i in range(20)]
    expected = [int(t.replace(tzinfo=zoneinfo.ZoneInfo(zone)).timestamp()) for t in local]
    log = with_times(tmp_path, [str(t) for t in local], log={"time_zone": zone, "timestamp_unit": "iso"})
    np.testing.assert_array_equal(np.unique(log.time_ms), np.unique(expected) * 1000)


def test_times_that_a_clock_change_skips_or_repeats_are_counted_and_said(tmp_path):
    texts = [f"2022-03-27 {h:02d}:30" for h in range(6)] + [f"2022-10-30 {h:02d}:30" for h in range(14)]
    log = with_times(tmp_path, texts, log={"time_zone": PARIS, "timestamp_unit": "iso"})
    said = " ".join(log.notes)
    assert "a clock change of Europe/Paris skips times" in said
    assert "a clock change of Europe/Paris repeats times" in said
    assert said.count('1 time of "time"') == 2
    named = with_times(tmp_path, [f"{t}Z" for t in texts], log={"time_zone": PARIS, "timestamp_unit": "iso"})
    assert "clock change" not in " ".join(named.notes)


def test_local_times_follow_the_offset_of_the_log_or_of_each_event(tmp_path):
    offsets = [2.0, -3.5] * 10
    local = [
        (m + datetime.timedelta(hours=h)).strftime("%Y-%m-%d %H:%M") for m, h in zip(MOMENTS, offsets, strict=True)
    ]
    table = event_table(["a", "b"], ["i"]).with_columns(offset=pl.Series(offsets))
    keys = {"utc_offset_column": "offset"}
    plain = read([write(table, tmp_path / "log.csv")], log=keys)
    shown = write(table.with_columns(time=pl.Series(local)), tmp_path / "log.csv")
    same_log(read([shown], log=keys | {"timestamp_unit": "iso"}), plain)
    all_alike = [(m + datetime.timedelta(hours=2)).strftime("%Y-%m-%d %H:%M") for m in MOMENTS]
    plain = with_times(tmp_path, [START + 3600 * i for i in range(20)], log={"utc_offset_hours": 2})
    same_log(with_times(tmp_path, all_alike, log={"utc_offset_hours": 2, "timestamp_unit": "iso"}), plain)


@pytest.mark.parametrize("key", ["known_at", "happened_at"])
def test_the_times_of_outcomes_are_read_as_those_of_events(key, tmp_path):
    task = {"click": {"column": "click", key: "later"}}
    later = [START + 3600 * i + 60 if i % 3 else None for i in range(20)]
    table = event_table(["a", "b"], ["i"]).with_columns(later=pl.Series(later))
    plain = read([write(table, tmp_path / "log.csv")], tasks=task)
    as_text = pl.from_epoch(pl.col("time", "later")).dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    shown = write(table.with_columns(as_text), tmp_path / "log.csv")
    same_log(read([shown], tasks=task, log={"timestamp_unit": "iso"}), plain)


def with_one_time(cell, row, folder):
    texts = [moment.isoformat() for moment in MOMENTS]
    texts[row] = cell
    return write(event_table(["a", "b"], ["i"]).with_columns(time=pl.Series(texts)), folder / "log.csv")


@pytest.mark.parametrize(
    "cell",
    [
        "2022-04-15T05",
        "15.04.2022 05:20",
        "2022-13-01",
        "2022-02-30 10:00",
        "05:20",
        "202204150",
        "20221315",
        "2022-0415",
        "2022-04-15T05:20+2",
        "2022-04-15T05:20+16:00",
        "2022-04-15T05:20-99",
        "2022-04-15T05:20+05:75",
    ],
)
def test_a_time_of_another_form_is_refused_with_its_line(cell, tmp_path):
    message = refusal([with_one_time(cell, 7, tmp_path)], log={"timestamp_unit": "iso"})
    assert 'log.csv: line 9, column "time": expected an ISO 8601 time such as 2024-05-01T12:30:00+02:00' in message
    assert repr(cell) in message


def test_years_without_logs_and_missing_times_are_refused(tmp_path):
    for cell in ("1970-01-01", "2300-01-01", ""):
        assert "line 2" in refusal([with_one_time(cell, 0, tmp_path)], log={"timestamp_unit": "iso"})


def test_a_unit_that_does_not_fit_the_column_is_refused_with_the_one_that_does(tmp_path):
    table = event_table(["a", "b"], ["i"])
    texts = write(table.with_columns(time=pl.Series([m.isoformat() for m in MOMENTS])), tmp_path / "log.csv")
    assert 'set timestamp_unit = "iso"' in refusal([texts])
    numbers = write(table, tmp_path / "log.parquet")
    assert 'these look like seconds, set timestamp_unit = "s"' in refusal([numbers], log={"timestamp_unit": "iso"})
    floats = write(table.with_columns(pl.col("time").cast(pl.Float64)), tmp_path / "log.parquet")
    assert 'set it to "s", "ms", "us" or "ns"' in refusal([floats], log={"timestamp_unit": "iso"})
    nanoseconds = write(table.with_columns(pl.col("time") * 10**9), tmp_path / "log.csv")
    assert 'these look like nanoseconds, set timestamp_unit = "ns"' in refusal([nanoseconds])
