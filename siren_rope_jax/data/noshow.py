"""Medical appointments in Vitoria, Brazil, 2016: who does not come?"""

from pathlib import Path

import polars as pl

from siren_rope_jax.data.clock_times import parse_iso
from siren_rope_jax.data.open_table import open_table
from siren_rope_jax.data.read_table import Rule
from siren_rope_jax.data.sources import SPLIT, write_table, written_description

_KEY = "a column of the appointments"
_UTC_OFFSET = 3 * 3600  # seconds from local time to UTC
# The table's spelling -> ours.
_TEXTS = {
    "PatientId": "patient",
    "Gender": "gender",
    "Neighbourhood": "place",
    "Scholarship": "welfare",
    "Hipertension": "hypertension",
    "Diabetes": "diabetes",
    "Alcoholism": "alcoholism",
    "Handcap": "handicaps",
    "SMS_received": "reminder",
}
_OUTCOMES = {"Yes": 1, "No": 0}
_TOML = """\
# Medical appointments. The history is that of a patient, the time the moment of booking. Whether a reminder is sent is
# decided after booking and before the appointment: leave it out to predict at the moment of booking.
[log]
files = ["bookings.parquet"]
user = "patient"
item = "place"
timestamp = "time"
timestamp_unit = "s"
utc_offset_hours = -3

[tasks]
no_show = { column = "no_show", known_at = "known_at" }

[features]
categorical = ["gender", "welfare", "hypertension", "diabetes", "alcoholism", "handicaps", "reminder"]
dense = ["age", "lead_days"]
"""


def prepare_noshow(table: Path, folder: Path) -> Path:
    """Converts the appointments to one row per booking.

    `no_show` is known from the end of the day of the appointment on (`known_at`, Unix seconds). The times of the table
    are local, though marked as UTC. An age below 0 is missing; an appointment before the day of its booking, of which
    there are five, is left out.

    Args:
      table: KaggleV2-May-2016.csv as published, plain or inside .zip.
      folder: receives bookings.parquet and log.toml; created if necessary. The same table gives the same bytes.

    Returns:
      The path of log.toml. Local time is UTC-3; the split is at event quantiles.

    Raises:
      InputError: if the table is missing or damaged, lacks a column, or a row has no valid times, age or outcome.

    Source: "Medical Appointment No Shows", Kaggle, 2016.
    """
    folder = Path(folder)
    with open_table(Path(table)) as appointments:
        texts = {name: appointments.text(appointments.require(of, _KEY)) for of, name in _TEXTS.items()}
        rules = [Rule(of, texts[name].is_not_null(), "a value") for of, name in _TEXTS.items()]
        times = {}
        for of in ("ScheduledDay", "AppointmentDay"):
            clock, _ = parse_iso(appointments.text(appointments.require(of, _KEY)))
            times[of] = clock.dt.epoch("s") + _UTC_OFFSET
            rules.append(Rule(of, clock.is_not_null(), "a time such as 2016-04-29T18:38:08Z"))
        age, is_age = appointments.number(appointments.require("Age", _KEY))
        rules.append(Rule("Age", is_age & age.is_not_null(), "a number"))
        outcome = appointments.text(appointments.require("No-show", _KEY))
        rules.append(Rule("No-show", outcome.is_in(list(_OUTCOMES)), "Yes or No"))
        bookings = appointments.read(
            texts | times | {"age": age, "no_show": outcome.replace_strict(_OUTCOMES, default=None)}, rules
        )
    day = 24 * 3600
    bookings = bookings.with_columns(
        pl.col("patient").str.replace("E-", "_", literal=True),  # some are written as 9377952927E-5
        pl.when(pl.col("age") >= 0).then("age").alias("age"),
        lead_days=(pl.col("AppointmentDay") - pl.col("ScheduledDay") + day - 1).floordiv(day),
        known_at=pl.col("AppointmentDay") + day,
    )
    bookings = bookings.rename({"ScheduledDay": "time"}).drop("AppointmentDay").filter(pl.col("lead_days") >= 0)
    folder.mkdir(parents=True, exist_ok=True)
    write_table(bookings, folder / "bookings.parquet")
    return written_description(folder, _TOML + SPLIT)
