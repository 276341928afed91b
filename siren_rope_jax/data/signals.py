"""Outcomes of an event as a log description names them: tasks to predict, actions that later events may see."""

import abc
import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import polars as pl
from jaxtyping import Float32

from siren_rope_jax.data.outcome_scale import TRANSFORMS, OutcomeScale, fit_scale
from siren_rope_jax.data.read_table import Rule, Table
from siren_rope_jax.data.toml_section import Section
from siren_rope_jax.errors import InputError

ReadTime = Callable[[str, str], pl.Expr]
"""Reads the named column as Unix milliseconds, null where the cell is empty, for a key of the signal."""


@dataclasses.dataclass(frozen=True)
class Signal(abc.ABC):
    """An outcome of an event: a task to predict, or an action that later events may see.

    A kind of outcome is a subclass and a line in `SIGNALS`; its further fields are the keys that its description takes.

    Attributes:
      name: name in metrics and scores.
      column: the column it is read from.
      observed: 0/1 column; where it is 0 the outcome is unobserved.
      known_at: column with the time, in the log's unit, from which the outcome is known; until then later events see
        "unobserved". For outcomes that are measured at a time, such as dwell.
    """

    name: str
    column: str | None = None
    observed: str | None = None
    known_at: str | None = None
    kind: ClassVar[str]
    is_number: ClassVar[bool] = False
    """Whether the past is told as the mean of a number, rather than as the rate of a 0/1 outcome."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that the signal is read from."""
        return tuple(column for column in (self.column, self.observed, self.known_at) if column is not None)

    @property
    def pending(self) -> float:
        """What later events see of the outcome until it is known; NaN is "unobserved"."""
        return np.nan

    @classmethod
    @abc.abstractmethod
    def from_section(cls, name: str, section: Section) -> "Signal":
        """Reads the keys of a description, which the class may have."""

    def read(self, table: Table, key: str) -> tuple[pl.Expr, list[Rule]]:
        """Returns the outcome, null where it is unobserved, and the rules on the columns that it is read from.

        Args:
          table: the open file.
          key: where the user named the signal.
        """
        outcome, rules = self._read(table, key)
        if self.observed is None:
            return outcome, rules
        observed, rule = _flag(table, self.observed, f"{key} observed")
        return pl.when(observed).then(outcome), [*rules, rule]

    @abc.abstractmethod
    def _read(self, table: Table, key: str) -> tuple[pl.Expr, list[Rule]]:
        """Reads the outcome where it is observed."""

    def known(self, time: pl.Expr, outcome: pl.Expr, read_time: ReadTime) -> pl.Expr | None:
        """Returns from when later events may see the outcome; None: at once."""
        return None if self.known_at is None else pl.max_horizontal(time, read_time(self.known_at, "known_at"))

    @abc.abstractmethod
    def known_of_mean(self, outcome: pl.Expr, known: pl.Expr) -> pl.Expr:
        """Aggregates from when the mean outcome of contradicting rows is known."""

    @abc.abstractmethod
    def action_of_mean(self, values: Float32[np.ndarray, " E"]) -> Float32[np.ndarray, " E"]:
        """Returns what later events see of outcomes that may be means of contradicting rows."""

    @abc.abstractmethod
    def lacking(self, labels: Float32[np.ndarray, " E"]) -> str | None:
        """Names what training events lack for the outcome to be learned from them."""

    @abc.abstractmethod
    def scale(self, values: Float32[np.ndarray, " E"]) -> OutcomeScale:
        """Fits how the outcome is trained on, to those of the training period."""

    def action_scale(self, values: Float32[np.ndarray, " E"]) -> OutcomeScale:
        """Fits how later events see the outcome, which must be 0, 1 or a standardised number."""
        return self.scale(values)

    @abc.abstractmethod
    def positive(self, values: Float32[np.ndarray, " E"]) -> Float32[np.ndarray, " E"]:
        """Returns 1 for high outcomes and 0 for low ones, for an audit that asks what tells them apart."""

    @abc.abstractmethod
    def other(self, values: Float32[np.ndarray, " E"]) -> Float32[np.ndarray, " E"]:
        """Returns a possible outcome that differs from each, and one of the unobserved, for an audit."""


@dataclasses.dataclass(frozen=True)
class BinarySignal(Signal):
    """A 0/1 outcome.

    Attributes:
      column: 0/1, unless `at_least` is given.
      any_of: 0/1 columns; the outcome is 1 if any of them is. Exactly one of `column` and `any_of` is given.
      at_least: the outcome is 1 where `column` has at least this value.
      happened_at: column with the time at which a positive was made; until then later events see 0, "none
        yet", as they would have. For actions that users take after the event, such as a late like.
    """

    any_of: tuple[str, ...] = ()
    at_least: float | None = None
    happened_at: str | None = None
    kind = "binary"

    @property
    def columns(self) -> tuple[str, ...]:
        return (*super().columns, *self.any_of, *([self.happened_at] if self.happened_at else []))

    @property
    def pending(self) -> float:
        return 0.0 if self.happened_at else np.nan

    @classmethod
    def from_section(cls, name: str, section: Section) -> "BinarySignal":
        signal = cls(
            name=name,
            column=section.text("column", None),
            any_of=section.texts("any_of"),
            at_least=section.number("at_least"),
            observed=section.text("observed", None),
            known_at=section.text("known_at", None),
            happened_at=section.text("happened_at", None),
        )
        if (signal.column is None) == (not signal.any_of):
            raise section.error("", "expected exactly one of column and any_of")
        if signal.any_of and signal.at_least is not None:
            raise section.error("at_least", "this key goes with column, not with any_of")
        if signal.known_at and signal.happened_at:
            raise section.error("", "expected at most one of known_at and happened_at")
        return signal

    def _read(self, table: Table, key: str) -> tuple[pl.Expr, list[Rule]]:
        if self.column is not None and self.at_least is not None:
            number, is_number = table.number(table.require(self.column, key))
            return number >= self.at_least, [Rule(self.column, is_number, "a number or an empty cell")]
        flags, rules = zip(
            *(_flag(table, column, key) for column in ([self.column] if self.column else self.any_of)), strict=True
        )
        return flags[0] if self.column else pl.any_horizontal(flags), list(rules)

    def known(self, time: pl.Expr, outcome: pl.Expr, read_time: ReadTime) -> pl.Expr | None:
        if self.happened_at is None:
            return super().known(time, outcome, read_time)
        happened = read_time(self.happened_at, "happened_at")
        return pl.when(outcome).then(pl.max_horizontal(time, happened)).otherwise(time)

    def known_of_mean(self, outcome: pl.Expr, known: pl.Expr) -> pl.Expr:
        return known.filter(outcome == outcome.max()).min().fill_null(known.min())

    def action_of_mean(self, values: Float32[np.ndarray, " E"]) -> Float32[np.ndarray, " E"]:
        return np.ceil(values)  # it was made if any of an event's rows has it, though their mean is the label

    def lacking(self, labels: Float32[np.ndarray, " E"]) -> str | None:
        found = [name for name, some in (("negatives", labels < 1), ("positives", labels > 0)) if not np.any(some)]
        if not found:
            return None
        lacking = "observed labels" if len(found) == 2 else found[0]
        return f"no {lacking} among the {len(labels)} training events, expected both positives and negatives"

    def scale(self, values: Float32[np.ndarray, " E"]) -> OutcomeScale:
        seen = values[~np.isnan(values)]
        scale = OutcomeScale(self.name, self.kind)
        return dataclasses.replace(scale, mean=float(seen.mean(dtype=np.float64))) if len(seen) else scale

    def positive(self, values: Float32[np.ndarray, " E"]) -> Float32[np.ndarray, " E"]:
        return values

    def other(self, values: Float32[np.ndarray, " E"]) -> Float32[np.ndarray, " E"]:
        return np.where(np.isnan(values), 1, 1 - values)


@dataclasses.dataclass(frozen=True)
class ContinuousSignal(Signal):
    """A number, such as dwell seconds or the watched share.

    Attributes:
      transform: "log1p" for what is never negative and has a long tail, such as seconds; "none".
    """

    transform: str = "none"
    kind = "continuous"
    is_number = True

    @classmethod
    def from_section(cls, name: str, section: Section) -> "ContinuousSignal":
        return cls(
            name=name,
            column=section.text("column"),
            observed=section.text("observed", None),
            known_at=section.text("known_at", None),
            transform=section.choice("transform", tuple(TRANSFORMS)),
        )

    def _read(self, table: Table, key: str) -> tuple[pl.Expr, list[Rule]]:
        assert self.column is not None
        number, is_number = table.number(table.require(self.column, key))
        least, finite = TRANSFORMS[self.transform].least, number.cast(pl.Float32).is_finite()
        bound = f" of at least {least:g}, as its transform is {self.transform}," if np.isfinite(least) else ""
        valid = is_number & (finite & (number >= least)).fill_null(True)
        return number, [Rule(self.column, valid, f"a finite number{bound} or an empty cell")]

    def known_of_mean(self, outcome: pl.Expr, known: pl.Expr) -> pl.Expr:
        return known.filter(outcome.is_not_null()).max().fill_null(known.min())

    def action_of_mean(self, values: Float32[np.ndarray, " E"]) -> Float32[np.ndarray, " E"]:
        return values

    def lacking(self, labels: Float32[np.ndarray, " E"]) -> str | None:
        seen = labels[~np.isnan(labels)]
        if len(seen) and seen.min() < seen.max():
            return None
        lacking = f"no value but {seen[0]:g}" if len(seen) else "no observed labels"
        return f"{lacking} among the {len(labels)} training events, expected different numbers"

    def scale(self, values: Float32[np.ndarray, " E"]) -> OutcomeScale:
        return self.action_scale(values)

    def action_scale(self, values: Float32[np.ndarray, " E"]) -> OutcomeScale:
        return fit_scale(self.name, self.kind, self.transform, values)

    def positive(self, values: Float32[np.ndarray, " E"]) -> Float32[np.ndarray, " E"]:
        seen = values[~np.isnan(values)]
        return np.where(np.isnan(values), values, values > np.median(seen) if len(seen) else values)

    def other(self, values: Float32[np.ndarray, " E"]) -> Float32[np.ndarray, " E"]:
        return np.where(np.isnan(values), 1, 1 + 2 * np.abs(values))


SIGNALS: dict[str, type[Signal]] = {signal.kind: signal for signal in (BinarySignal, ContinuousSignal)}


def _flag(table: Table, column: str, key: str) -> tuple[pl.Expr, Rule]:
    flag, valid = table.flag(table.require(column, key))
    return flag, Rule(column, valid, "0, 1 or an empty cell")


def task_scales(tasks: Sequence[Signal], labels: Float32[np.ndarray, "E K"]) -> tuple[OutcomeScale, ...]:
    """Fits how each task is trained on, to the labels of the training period."""
    return tuple(task.scale(column) for task, column in zip(tasks, labels.T, strict=True))


def action_scales(actions: Sequence[Signal], values: Float32[np.ndarray, "E A"]) -> tuple[OutcomeScale, ...]:
    """Fits how later events see each action, to those of the training period."""
    return tuple(action.action_scale(column) for action, column in zip(actions, values.T, strict=True))


def read_signals(source: str, where: str, table: object) -> tuple[Signal, ...]:
    """Checks the outcomes of a log description.

    Args:
      source: what error messages call the description.
      where: the section, such as "[tasks]".
      table: its content: for each name a column or a table of keys.

    Raises:
      InputError: on a bad name, an unknown key or a value of the wrong kind, in one sentence.
    """
    if not isinstance(table, Mapping):
        raise InputError(f"{source}: {where} must be a table of names and columns, found {table!r}")
    return tuple(_signal(source, where, name, value) for name, value in table.items())


def _signal(source: str, where: str, name: str, value: object) -> Signal:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        # The name becomes part of metric names, where a dot separates.
        raise InputError(f'{source}: {where} "{name}": expected a name of letters, digits, "_" and "-"')
    keys = {"column": value} if isinstance(value, str) else value
    given = keys.get("kind", "binary") if isinstance(keys, Mapping) else "binary"
    # Of an unknown kind, the kind is to be named and not its keys.
    kinds = [SIGNALS[given]] if given in list(SIGNALS) else list(SIGNALS.values())
    known = dict.fromkeys(key for kind in kinds for key in _keys(kind))
    section = Section(source, f"{where} {name}", keys, ["kind", *known])
    return SIGNALS[section.choice("kind", tuple(SIGNALS))].from_section(name, section)


def _keys(kind: type[Signal]) -> list[str]:
    return [field.name for field in dataclasses.fields(kind) if field.name != "name"]


def signal_to_dict(signal: Signal) -> dict[str, Any]:
    """Returns the keys that the user gave: an absent `any_of` is not an empty one."""
    fields = [field for field in dataclasses.fields(signal) if field.name != "name"]
    given = {
        field.name: getattr(signal, field.name) for field in fields if getattr(signal, field.name) != field.default
    }
    return given if signal.kind == "binary" else {"kind": signal.kind, **given}
