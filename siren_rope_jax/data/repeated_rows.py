"""Repeated rows of one event: exact duplicates, and rows that contradict each other on its outcomes."""

from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from siren_rope_jax.data.event_columns import outcomes
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.data.signals import Signal
from siren_rope_jax.errors import InputError

_SETTLED = {"first": "the first row of each counts", "mean": "the mean of each outcome counts"}


class OneRowPerEvent(NamedTuple):
    """Rows with one row per event.

    Attributes:
      rows: the rows, in their order; the first row of each event.
      duplicates: number of rows dropped as equal to an earlier one in every column that is read.
      contradictions: number of events whose rows differed only in outcomes, or in the times these became known.
      notes: notes for the user.
    """

    rows: pl.DataFrame
    duplicates: int
    contradictions: int
    notes: tuple[str, ...]


def one_row_per_event(rows: pl.DataFrame, spec: EventLogSpec) -> OneRowPerEvent:
    """Drops duplicates, then resolves contradictions according to `spec.contradictions`.

    Rows of one user, item and time that differ in a feature are separate events, and so is each row of a log without
    items.

    Args:
      rows: columns as `event_columns` names them, and "row".
      spec: description of the log.

    Returns:
      The remaining rows. With "mean" an outcome is the mean of its observed values. A 0/1 outcome is then above 0 if it
      was positive in any row, and known from the earliest time of the rows with the highest value; a number is known
      from the latest time of its observed values.

    Raises:
      InputError: if there are contradictions and `spec.contradictions` is "refuse".
    """
    if spec.item is None:  # without an item, equal rows may well be several events
        return OneRowPerEvent(rows, 0, 0, ())
    # Hashes find candidates: rows with equal user, item and time, and few others, which are then compared in full.
    repeated = rows.select("user", "item", "time_ms").hash_rows().is_duplicated()
    if not repeated.any():
        return OneRowPerEvent(rows, 0, 0, ())
    candidates = rows.filter(repeated).with_columns(at=repeated.arg_true())
    told = [column for column in rows.columns if column.startswith(("outcome ", "known "))]
    event = [column for column in rows.columns if column not in ("row", *told)]
    distinct = candidates.unique(subset=[*event, *told], keep="first", maintain_order=True)
    groups = distinct.group_by(event, maintain_order=True)
    contradicting = groups.agg(pl.first("at"), pl.len(), *(_mean(column, outcomes(spec)) for column in told)).filter(
        pl.col("len") > 1
    )
    if contradicting.height and spec.contradictions == "refuse":
        raise InputError(_refusal(distinct, contradicting, event, told, spec))
    if contradicting.height and spec.contradictions == "mean":
        rows = rows.with_columns(rows[column].scatter(contradicting["at"], contradicting[column]) for column in told)
    kept = (~repeated).scatter(distinct.unique(subset=event, keep="first")["at"], True)
    duplicates = candidates.height - distinct.height
    notes = []
    if duplicates:
        notes.append(f"duplicate rows dropped: {duplicates:,}")
    if contradicting.height:
        settled = f'{_SETTLED[spec.contradictions]} ([log] contradictions = "{spec.contradictions}")'
        notes.append(f"events whose rows contradict each other on outcomes: {contradicting.height:,}; {settled}")
    return OneRowPerEvent(rows.filter(kept), duplicates, contradicting.height, tuple(notes))


def _mean(column: str, signals: Sequence[Signal]) -> pl.Expr:
    """Aggregates the rows of an event: the mean of an outcome, or the time from which it is known."""
    kind, index = column.split()
    if kind == "outcome":
        return pl.col(column).mean().cast(pl.Float32)
    outcome = pl.col(column.replace("known ", "outcome "))
    return signals[int(index)].known_of_mean(outcome, pl.col(column)).alias(column)


def _refusal(
    distinct: pl.DataFrame, contradicting: pl.DataFrame, event: list[str], told: list[str], spec: EventLogSpec
) -> str:
    rows = distinct.join(contradicting.head(1), on=event, how="semi", nulls_equal=True, maintain_order="left")
    column = next(column for column in told if rows[column].n_unique() > 1)
    kind, index = column.split()
    name = outcomes(spec)[int(index)].name
    what = name if kind == "outcome" else f"the time at which {name} is known"
    values = " and ".join("unobserved" if value is None else f"{value:.15g}" for value in rows[column])
    files, places = ", ".join(map(str, spec.files)), " and ".join(map(str, rows["row"]))
    return (
        f"{files}: expected one outcome for each event, found rows that contradict each other for "
        f'{contradicting.height:,}, such as {what} {values} for user "{rows["user"][0]}" and item "{rows["item"][0]}" '
        f'(rows {places}, counted from 0); or set [log] contradictions = "mean" or "first"'
    )
