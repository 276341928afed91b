"""Columns and rules of an event file, as polars expressions that follow from the spec."""

import re
from collections.abc import Callable
from typing import NamedTuple

import polars as pl

from siren_rope_jax.data.clock_times import ISO, LOOKS_ISO, LocalTime, from_clock
from siren_rope_jax.data.feature_columns import bag_column, dense_column, vector_columns
from siren_rope_jax.data.precision import id_rules, refuse_float32, time_rules
from siren_rope_jax.data.read_table import Rule, Table
from siren_rope_jax.data.schema import UTC_OFFSETS, EventLogSpec
from siren_rope_jax.data.signals import ReadTime, Signal
from siren_rope_jax.data.split import Split
from siren_rope_jax.data.unix_times import END_SECOND, FIRST_SECOND, MILLISECONDS, UNIT_NAMES, unix_unit
from siren_rope_jax.errors import InputError

NO_ITEM = "item"  # the one id in a log whose events have none
_WHOLE_FLOATS = 2.0**53  # float64 represents every whole number up to here
_MOST_RELATIVE = 60 * 365 * 86_400_000  # ms; seconds of twice as many years fit into an int32
_YEARS = "between the years 1980 and 2100"


def outcomes(spec: EventLogSpec) -> tuple[Signal, ...]:
    """Returns every task and action once, since without a section [actions] they are the same."""
    return tuple(dict.fromkeys((*spec.tasks, *spec.actions)))


class EventColumns(NamedTuple):
    """Columns to read from an event file, rules that its rows must satisfy, and names of its "dense i"."""

    columns: dict[str, pl.Expr]
    rules: list[Rule]
    dense_names: tuple[str, ...]


def event_columns(
    table: Table, spec: EventLogSpec, *, are_new: bool, dense_names: tuple[str, ...] = ()
) -> EventColumns:
    """Returns the columns to read from an event file, and the rules that its rows must satisfy.

    Args:
      table: the open file.
      spec: description of the columns.
      are_new: whether the events are new ones to score. Then the columns of tasks and actions may be absent; an
        outcome without all of its columns is unobserved.
      dense_names: those of the files before.

    Returns:
      The columns are user, item (text; null = missing, unless the spec refuses that), time_ms (int64, ms), utc_offset
      (int32, s), weight (float32), group (text) and period (int8) if the spec has such columns, "outcome i" (float32,
      null = unobserved) for each of `outcomes`, "known i" (int64, ms) for outcomes with their own time, "categorical i"
      (text), "dense i" (float32; the numbers of vectors last), "bag i" (text), and what `without_ambiguous` takes out
      again.

    Raises:
      InputError: if a column is missing or of a type that cannot be read.
    """
    builder = _Builder(table, spec)
    remedy = '[log] missing_ids = "drop" leaves such rows out'
    if are_new:
        remedy = "give such a row an id of its own to score it as unknown"
    for name, column in (("user", spec.user), ("item", spec.item)):
        if column is None:
            builder.columns[name] = pl.lit(NO_ITEM)
            continue
        ids, rules = key_column(table, column, f"[log] {name}", name, spec.missing_ids, remedy)
        builder.columns[name] = ids
        builder.rules += rules
    time = builder.time(spec.timestamp, "[log] timestamp", required=True)
    builder.columns["time_ms"] = time
    if spec.utc_offset_column is not None:
        builder.utc_offset(spec.utc_offset_column)
    if spec.weight is not None:
        builder.weight(spec.weight, are_new=are_new)
    if spec.group is not None:
        known = not are_new or spec.group in table.types
        builder.columns["group"] = (
            table.text(table.require(spec.group, "[log] group")) if known else pl.lit(None, pl.String)
        )
    if spec.split.column is not None and not are_new:
        builder.period(spec.split)
    for index, signal in enumerate(outcomes(spec)):
        key = f"{'[tasks]' if signal in spec.tasks else '[actions]'} {signal.name}"
        readable = not are_new or all(column in table.types for column in signal.columns)
        outcome, rules = signal.read(table, key) if readable else (pl.lit(None, pl.Boolean), [])
        builder.rules += rules
        builder.columns[f"outcome {index}"] = outcome.cast(pl.Float32)
        known = signal.known(time, outcome, builder.times_of(key) if readable else lambda *_: time)
        if known is not None:
            builder.columns[f"known {index}"] = known
    for index, column in enumerate(spec.categorical):
        builder.columns[f"categorical {index}"] = table.text(table.require(column, "[features] categorical"))
    for index, column in enumerate(spec.dense):
        dense, rule = dense_column(table, table.require(column, "[features] dense"))
        builder.columns[f"dense {index}"] = dense
        builder.rules.append(rule)
    for index, bag in enumerate(spec.bags):
        builder.columns[f"bag {index}"] = bag_column(table, bag, "[features] categorical")
    names = list(spec.dense)
    hidden = {column for signal in outcomes(spec) for column in signal.columns} | {str(spec.split.column)}
    for vector in spec.vectors:
        numbers, rules = vector_columns(table, vector, "[features] dense", known=dense_names, hidden=hidden)
        builder.columns |= {f"dense {len(names) + index}": number for index, number in enumerate(numbers.values())}
        builder.rules += rules
        names += numbers
    return EventColumns(builder.columns, builder.rules, tuple(names))


def key_column(
    table: Table, column: str, key: str, noun: str, missing_ids: str, remedy: str
) -> tuple[pl.Expr, list[Rule]]:
    """Returns a column of ids as text, null = missing, and the rules on them.

    Args:
      table: the open file.
      column: the column of ids.
      key: setting that names the column, for errors.
      noun: kind of the ids: "user" or "item".
      missing_ids: "refuse" adds a rule that no id is missing.
      remedy: addition to the error of that rule.
    """
    kind = table.types[table.require(column, key)]
    refuse_float32(table, column, key, "ids")
    text = table.text(column)
    rules = id_rules(table, column, f"the id of the {noun}")
    if kind == pl.Float64:
        # A column of whole numbers with gaps is read as floats; `whole_numbers` later reads the text 7.0 as 7.
        number = pl.col(column).fill_nan(None)
        whole = (number == number.round()) & (number.abs() <= _WHOLE_FLOATS)
        rules.append(Rule(column, whole.fill_null(True), f"a whole number as the id of the {noun}"))
    if missing_ids == "refuse":
        rules.append(Rule(column, text.is_not_null(), f"the id of the {noun}", lambda cell: f"; {remedy}"))
    return text, rules


class _Builder:
    """Collector of the columns to read and the rules on them."""

    def __init__(self, table: Table, spec: EventLogSpec) -> None:
        self.table, self.unit, self.spec = table, spec.timestamp_unit, spec
        self.columns: dict[str, pl.Expr] = {}
        self.rules: list[Rule] = []

    def time(self, column: str, key: str, *, required: bool) -> pl.Expr:
        kind, bounds = self.table.types[self.table.require(column, key)], (FIRST_SECOND * 1000, END_SECOND * 1000)
        if kind.is_temporal() or (self.unit == "iso" and (kind == pl.String or kind.is_integer())):
            time, is_time = self._clock_time(column)
            expected, hint, more = f"{ISO}, {_YEARS}", _other_unit("iso"), []
        elif self.unit == "iso":
            raise InputError(
                f'{self.table.path}: the column "{column}" ({key}) holds {kind}, expected text, as timestamp_unit is '
                '"iso"; for Unix times set it to "s", "ms", "us" or "ns"'
            )
        else:
            refuse_float32(self.table, column, key, "times")
            number, is_time = self.table.number(column)
            time = (number * MILLISECONDS[self.unit]).round().cast(pl.Int64, strict=False)
            name = UNIT_NAMES[self.unit]
            if self.spec.calendar:
                expected, hint = f"a Unix time in {name} {_YEARS}", _other_unit(self.unit)
                more = time_rules(self.table, column, self.unit)
            else:
                expected, hint = f"a relative time in {name}, within 60 years of 0", lambda cell: ""
                more, bounds = id_rules(self.table, column, "a relative time"), (-_MOST_RELATIVE, _MOST_RELATIVE + 1)
        sane = time.is_between(*bounds, closed="left")
        self.rules += [Rule(column, is_time & sane.fill_null(not required), expected, hint), *more]
        return time

    def _clock_time(self, column: str) -> tuple[pl.Expr, pl.Expr]:
        clock, offset, is_time = self.table.clock(column)
        hours = pl.lit(self.spec.utc_offset_hours or 0.0)
        if self.spec.utc_offset_column is not None:
            hours, _ = self.table.number(self.table.require(self.spec.utc_offset_column, "[log] utc_offset_column"))
        time, ambiguous = from_clock(column, clock, offset, LocalTime(self.spec.time_zone, _seconds(hours)))
        self.columns |= ambiguous
        return time, is_time & (time.is_not_null() | clock.is_null())

    def utc_offset(self, column: str) -> None:
        number, is_number = self.table.number(self.table.require(column, "[log] utc_offset_column"))
        low, high = UTC_OFFSETS
        valid = is_number & number.is_between(low, high)
        self.rules.append(Rule(column, valid, f"a UTC offset in hours from {low:g} to {high:g}"))
        self.columns["utc_offset"] = _seconds(number)

    def weight(self, column: str, *, are_new: bool) -> None:
        if are_new:
            self.columns["weight"] = pl.lit(1.0, pl.Float32)  # weighs nothing, since new events are not trained on
            return
        number, is_number = self.table.number(self.table.require(column, "[log] weight"))
        valid = is_number & ((number >= 0) & number.cast(pl.Float32).is_finite()).fill_null(False)
        self.rules.append(Rule(column, valid, "a weight: a finite number of at least 0"))
        self.columns["weight"] = number.cast(pl.Float32)

    def period(self, split: Split) -> None:
        column = self.table.require(str(split.column), "[split] column")
        cell = self.table.text(column).str.strip_chars().str.replace(r"\.0+$", "")  # folds with gaps are floats
        names = (split.train, split.validation, split.test)
        period = pl.when(False).then(None)
        for number, of_period in enumerate(names):
            period = period.when(cell.is_in(of_period)).then(number)
        period = period.otherwise(None).cast(pl.Int8)
        expected = ", ".join(f'"{name}"' for of_period in names for name in of_period)
        hint = "; [split] train, validation and test say which cells mean which"
        self.rules.append(Rule(column, period.is_not_null(), f"one of {expected}", lambda cell: hint))
        self.columns["period"] = period

    def times_of(self, key: str) -> ReadTime:
        """Returns a function that reads a signal's own times; `key` names the signal in errors."""
        return lambda column, name: self.time(column, f"{key} {name}", required=False)


def _seconds(hours: pl.Expr) -> pl.Expr:
    return (hours * 3600).round().cast(pl.Int32, strict=False)


def _other_unit(unit: str) -> Callable[[str], str]:
    def hint(cell: str) -> str:
        if unit != "iso" and re.match(LOOKS_ISO, cell.strip()):
            return '; these look like ISO 8601 times, set timestamp_unit = "iso"'
        try:
            number = float(cell)
        except ValueError:
            return ""
        other = unix_unit(number)
        return f'; these look like {UNIT_NAMES[other]}, set timestamp_unit = "{other}"' if other else ""

    return hint
