"""Outcomes of an event in a log description: tasks to predict, and actions that later events may see."""

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import polars as pl
from jaxtyping import Float32

from siren_rope_jax.data.outcome_scale import TRANSFORMS, OutcomeScale, fit_scale, weighted_mean
from siren_rope_jax.data.read_table import Rule, Table
from siren_rope_jax.data.toml_section import Section

ReadTime = Callable[[str, str], pl.Expr]
"""Reads a column as Unix milliseconds, null where the cell is empty; takes the column and the signal's key for it."""

_LEAST_LEVELS = 100  # float32 values within a standard deviation of a number, or too little of it is left
_FAR = 1e3  # times the usual size, from where on a number is most likely a mistake


@dataclasses.dataclass(frozen=True)
class Signal(abc.ABC):
    """Outcome of an event: a task to predict, or an action that later events may see.

    Each kind of outcome is a subclass and a line in `SIGNALS`; its fields are the keys of its description.

    Attributes:
      name: name in metrics and scores.
      column: column of the outcome.
      observed: 0/1 column; the outcome is unobserved where it is 0.
      known_at: column with the time, in the log's unit, from which the outcome is known; until then later events see
        "unobserved". For outcomes that are measured at a certain time, such as dwell.
    """

    name: str
    column: str | None = None
    observed: str | None = None
    known_at: str | None = None
    kind: ClassVar[str]
    is_number: ClassVar[bool] = False
    """Whether history counters are means of a number, rather than rates of a 0/1 outcome."""

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that the signal is read from."""
        return tuple(column for column in (self.column, self.observed, self.known_at) if column is not None)

    @property
    def pending(self) -> float:
        """Value that later events see until the outcome is known; NaN is "unobserved"."""
        return np.nan

    @classmethod
    @abc.abstractmethod
    def from_section(cls, name: str, section: Section) -> "Signal":
        """Builds the signal from the keys of its description."""

    def read(self, table: Table, key: str) -> tuple[pl.Expr, list[Rule]]:
        """Returns the outcome, null where it is unobserved, and the rules on its columns.

        Args:
          table: the open file.
          key: key of the signal in the description, for errors.
        """
        outcome, rules = self._read(table, key)
        if self.observed is None:
            return outcome, rules
        observed, rule = _flag(table, self.observed, f"{key} observed")
        return pl.when(observed).then(outcome), [*rules, rule]

    @abc.abstractmethod
    def _read(self, table: Table, key: str) -> tuple[pl.Expr, list[Rule]]:
        """Reads the outcome, regardless of `observed`."""

    def known(self, time: pl.Expr, outcome: pl.Expr, read_time: ReadTime) -> pl.Expr | None:
        """Returns the time from which later events may see the outcome; None if at once."""
        return None if self.known_at is None else pl.max_horizontal(time, read_time(self.known_at, "known_at"))

    @abc.abstractmethod
    def known_of_mean(self, outcome: pl.Expr, known: pl.Expr) -> pl.Expr:
        """Returns the time from which the mean outcome of contradicting rows is known."""

    @abc.abstractmethod
    def action_of_mean(self, values: Float32[np.ndarray, " E"]) -> Float32[np.ndarray, " E"]:
        """Converts outcomes, which may be means of contradicting rows, to the values that later events see."""

    @abc.abstractmethod
    def lacking(self, labels: Float32[np.ndarray, " E"]) -> str | None:
        """Describes the labels that training events lack for learning the outcome; None if they suffice."""

    def doubt(self, labels: Float32[np.ndarray, " E"]) -> str | None:
        """Describes what is allowed in training labels, but most likely a mistake; None without such."""
        return None

    @abc.abstractmethod
    def scale(self, values: Float32[np.ndarray, " E"], weight: Float32[np.ndarray, " E"]) -> OutcomeScale:
        """Fits the scale of the outcome to the training period, in which events have weights."""

    @abc.abstractmethod
    def positive(self, values: Float32[np.ndarray, " E"]) -> Float32[np.ndarray, " E"]:
        """Returns 1 for high outcomes and 0 for low ones, for the audit's AUCs."""

    @abc.abstractmethod
    def other(self, values: Float32[np.ndarray, " E"]) -> Float32[np.ndarray, " E"]:
        """Returns a valid outcome that differs from each given one, also for unobserved ones, for an audit."""


@dataclasses.dataclass(frozen=True)
class BinarySignal(Signal):
    """A 0/1 outcome.

    Attributes:
      column: 0/1 column, or any other if its cells are compared with what follows.
      any_of: 0/1 columns; the outcome is 1 if any of them is.
      always: whether the outcome of every event of the log is 1; then negatives are drawn. Exactly one of `column`,
        `any_of` and `always` is given.
      at_least: least value of `column` for which the outcome is 1.
      at_most: greatest such value; with `at_least` too, the outcome is 1 between them.
      equals: text or number that the cell is where the outcome is 1.
      one_of: several of them; the key of the description is "in".
      happened_at: column with the time of the positive outcome; until then later events see 0, "none yet", as they
        would have. For actions that users take after the event, such as a late like.
    """

    any_of: tuple[str, ...] = ()
    always: bool = False
    at_least: float | None = None
    at_most: float | None = None
    equals: str | float | None = None
    one_of: tuple[str | float, ...] = dataclasses.field(default=(), metadata={"key": "in"})
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
            always=section.flag("always", False),
            at_least=section.number("at_least"),
            at_most=section.number("at_most"),
            equals=section.text_or_number("equals"),
            one_of=section.texts_or_numbers("in"),
            observed=section.text("observed", None),
            known_at=section.text("known_at", None),
            happened_at=section.text("happened_at", None),
        )
        if (signal.column is not None) + bool(signal.any_of) + signal.always != 1:
            raise section.error("", "expected exactly one of column, any_of and always")
        comparisons = [key for key in ("at_least", "at_most", "equals", "in") if key in section.table]
        if signal.column is None and comparisons:
            other = "any_of" if signal.any_of else "always"
            raise section.error(comparisons[0], f"this key goes with column, not with {other}")
        if len(comparisons) > 1 and comparisons != ["at_least", "at_most"]:
            raise section.error("", f"expected one comparison, found {' and '.join(comparisons)}")
        if signal.at_least is not None and signal.at_most is not None and signal.at_least > signal.at_most:
            raise section.error(
                "at_most", f"expected at least {signal.at_least:g}, as at_least, found {signal.at_most:g}"
            )
        if signal.known_at and signal.happened_at:
            raise section.error("", "expected at most one of known_at and happened_at")
        return signal

    def _read(self, table: Table, key: str) -> tuple[pl.Expr, list[Rule]]:
        if self.always:
            return pl.lit(True), []
        values = self.one_of if self.equals is None else (self.equals,)
        if self.column is not None and any(isinstance(value, str) for value in values):
            text = table.text(table.require(self.column, key)).str.strip_chars()
            return text.is_in([str(value) for value in values]), []
        if self.column is not None and (values or self.at_least is not None or self.at_most is not None):
            number, is_number = table.number(table.require(self.column, key))
            low = -np.inf if self.at_least is None else self.at_least
            high = np.inf if self.at_most is None else self.at_most
            outcome = number.is_in([float(value) for value in values]) if values else number.is_between(low, high)
            return outcome, [Rule(self.column, is_number, "a number or an empty cell")]
        flags, rules = zip(
            *(_flag(table, column, key) for column in ([self.column] if self.column else self.any_of)), strict=True
        )
        outcome = flags[0] if self.column else pl.any_horizontal(flags)
        return outcome, list(rules)

    def known(self, time: pl.Expr, outcome: pl.Expr, read_time: ReadTime) -> pl.Expr | None:
        if self.happened_at is None:
            return super().known(time, outcome, read_time)
        happened = read_time(self.happened_at, "happened_at")
        return pl.when(outcome).then(pl.max_horizontal(time, happened)).otherwise(time)

    def known_of_mean(self, outcome: pl.Expr, known: pl.Expr) -> pl.Expr:
        return known.filter(outcome == outcome.max()).min().fill_null(known.min())

    def action_of_mean(self, values: Float32[np.ndarray, " E"]) -> Float32[np.ndarray, " E"]:
        return np.ceil(values)  # the action happened if any row of the event has it, though the label is the mean

    def lacking(self, labels: Float32[np.ndarray, " E"]) -> str | None:
        found = [name for name, some in (("negatives", labels < 1), ("positives", labels > 0)) if not np.any(some)]
        if not found:
            return None
        lacking = "observed labels" if len(found) == 2 else found[0]
        return f"no {lacking} among the {len(labels)} training events, expected both positives and negatives"

    def scale(self, values: Float32[np.ndarray, " E"], weight: Float32[np.ndarray, " E"]) -> OutcomeScale:
        mean = weighted_mean(values, weight)
        scale = OutcomeScale(self.name, self.kind)
        return scale if mean is None else dataclasses.replace(scale, mean=mean)

    def positive(self, values: Float32[np.ndarray, " E"]) -> Float32[np.ndarray, " E"]:
        return values

    def other(self, values: Float32[np.ndarray, " E"]) -> Float32[np.ndarray, " E"]:
        return np.where(np.isnan(values), 1, 1 - values)


@dataclasses.dataclass(frozen=True)
class ContinuousSignal(Signal):
    """A number, such as dwell seconds or the watched share.

    Attributes:
      transform: "none", or "log1p" for nonnegative numbers with a long tail, such as seconds.
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
        if not len(seen) or seen.min() == seen.max():
            lacking = f"no value but {seen[0]:g}" if len(seen) else "no observed labels"
            return f"{lacking} among the {len(labels)} training events, expected different numbers"
        held = float(np.spacing(np.median(np.abs(seen))))
        if _LEAST_LEVELS * held < float(np.std(seen, dtype=np.float64)):
            return None
        return (
            f"numbers near {float(np.median(seen)):.10g}, of which float32 holds only multiples of {held:g}, "
            "expected numbers that differ by more, such as these less their minimum"
        )

    def doubt(self, labels: Float32[np.ndarray, " E"]) -> str | None:
        size = np.abs(labels[~np.isnan(labels)].astype(np.float64))
        usual, largest = float(np.quantile(size, 0.99, method="lower")), float(size.max())
        if self.transform != "none" or not 0 < _FAR * usual < largest:
            return None
        return (
            f"{largest:g} among its training labels, 99 % of which are at most {usual:g} in size: such a number alone "
            'decides mean, scale and RMSE; correct it, or use transform = "log1p"'
        )

    def scale(self, values: Float32[np.ndarray, " E"], weight: Float32[np.ndarray, " E"]) -> OutcomeScale:
        return fit_scale(self.name, self.kind, self.transform, values, weight)

    def positive(self, values: Float32[np.ndarray, " E"]) -> Float32[np.ndarray, " E"]:
        seen = values[~np.isnan(values)]
        return np.where(np.isnan(values), values, values > np.median(seen) if len(seen) else values)

    def other(self, values: Float32[np.ndarray, " E"]) -> Float32[np.ndarray, " E"]:
        return np.where(np.isnan(values), 1, 1 + 2 * np.abs(values))


SIGNALS: dict[str, type[Signal]] = {signal.kind: signal for signal in (BinarySignal, ContinuousSignal)}


def _flag(table: Table, column: str, key: str) -> tuple[pl.Expr, Rule]:
    flag, valid = table.flag(table.require(column, key))
    return flag, Rule(column, valid, "0, 1 or an empty cell")


def fit_scales(
    signals: Sequence[Signal], values: Float32[np.ndarray, "E K"], weight: Float32[np.ndarray, " E"] | None = None
) -> tuple[OutcomeScale, ...]:
    """Fits the scale of each outcome to the training period, in which events may have weights."""
    weight = np.ones(len(values), np.float32) if weight is None else weight
    return tuple(signal.scale(column, weight) for signal, column in zip(signals, values.T, strict=True))
