"""What a user tells us about an event log: one TOML file, checked key by key into an `EventLogSpec`."""

import dataclasses
import datetime
import os
import re
import tomllib
import zoneinfo
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

from siren_rope_jax.data.toml_section import InputError, Section, did_you_mean, is_number

UTC_OFFSETS = (-12.0, 14.0)  # hours; every civil time zone lies inside


@dataclasses.dataclass(frozen=True)
class Signal:
    """A 0/1 outcome of an event: a task to predict, or an action that later events may see.

    Attributes:
      name: name in metrics and scores.
      column: the column it is read from; 0/1, unless `at_least` is given.
      any_of: 0/1 columns; the outcome is 1 if any of them is. Exactly one of `column` and `any_of` is given.
      at_least: the outcome is 1 where `column` has at least this value.
      observed: 0/1 column; where it is 0 the outcome is unobserved.
      known_at: column with the time, in the log's unit, from which the outcome, 0 or 1, is known; until then
        later events see "unobserved". For outcomes that are measured at a time, such as dwell.
      happened_at: column with the time at which a positive was made; until then later events see 0, "none
        yet", as they would have. For actions that users take after the event, such as a late like.
    """

    name: str
    column: str | None = None
    any_of: tuple[str, ...] = ()
    at_least: float | None = None
    observed: str | None = None
    known_at: str | None = None
    happened_at: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that the signal is read from."""
        optional = (self.column, *self.any_of, self.observed, self.known_at, self.happened_at)
        return tuple(column for column in optional if column is not None)


@dataclasses.dataclass(frozen=True)
class SideTable:
    """A table with one row per item or per user, whose columns become features of every event.

    Attributes:
      file: absolute path.
      join: whether `key` holds items or users.
      key: column that is compared, as text, with the log's item or user column.
      categorical: columns compared as text.
      dense: columns of numbers.
    """

    file: Path
    join: Literal["item", "user"]
    key: str
    categorical: tuple[str, ...] = ()
    dense: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Split:
    """Where validation and test begin.

    Attributes:
      validation_from: fraction of the events in time order (of the users with `by = "user"`), or an ISO date.
      test_from: the same; of the same kind and later.
      by: "time", or "user": whole users are kept apart, chosen by a stable hash of their id.
    """

    validation_from: float | str
    test_from: float | str
    by: Literal["time", "user"] = "time"


@dataclasses.dataclass(frozen=True, kw_only=True)
class EventLogSpec:
    """Which files and columns make up an event log.

    Attributes:
      files: absolute paths of tables with one row per event.
      user: column of the user; users and items are compared as text.
      item: column of the item.
      timestamp: column of the Unix time.
      timestamp_unit: "s" or "ms".
      time_zone: IANA name of the users' zone. At most one of the zone and the two offsets is given; without
        any, local time is UTC.
      utc_offset_hours: offset of local time, the same for all events; may be fractional.
      utc_offset_column: column with the offset of each event, in hours.
      tasks: outcomes to predict.
      actions: outcomes that later events may see.
      categorical: feature columns compared as text.
      dense: feature columns of numbers.
      side_tables: features of items and users.
      split: training, validation and test.
      description: the TOML file that all this was read from, if it was; it is no part of what the log is.
    """

    files: tuple[Path, ...]
    user: str
    item: str
    timestamp: str
    timestamp_unit: Literal["s", "ms"] = "s"
    time_zone: str | None = None
    utc_offset_hours: float | None = None
    utc_offset_column: str | None = None
    tasks: tuple[Signal, ...]
    actions: tuple[Signal, ...]
    categorical: tuple[str, ...] = ()
    dense: tuple[str, ...] = ()
    side_tables: tuple[SideTable, ...] = ()
    split: Split
    description: Path | None = dataclasses.field(default=None, compare=False)

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> "EventLogSpec":
        """Reads a log description; files named in it are relative to it.

        Args:
          path: the TOML file.

        Raises:
          InputError: if the file cannot be read, is not TOML, or `from_dict` refuses its content.
        """
        path = Path(path)
        try:
            mapping = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"{path}: the log description cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise InputError(f"{path}: expected a TOML file in UTF-8, found bytes that are not UTF-8") from None
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"{path}: this is not valid TOML: {error}") from None
        return dataclasses.replace(cls.from_dict(mapping, path.parent, str(path)), description=path.absolute())

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any], folder: Path, source_name: str) -> "EventLogSpec":
        """Checks a log description that has the structure of the TOML file.

        Args:
          mapping: sections log, tasks, split and, optionally, actions, features and side_table.
          folder: what relative file names are relative to.
          source_name: what error messages call the description.

        Raises:
          InputError: on an unknown, missing or repeated key or a value of the wrong kind, in one sentence.
        """
        top = Section(source_name, "", mapping, [*_SECTIONS, *_OPTIONAL_SECTIONS])
        for name in _SECTIONS:
            if name not in mapping:
                raise InputError(f"{source_name}: the section [{name}] is missing")
        log = Section(source_name, "[log]", mapping["log"], _LOG_KEYS)
        features = Section(source_name, "[features]", mapping.get("features", {}), ["categorical", "dense"])
        tasks = _signals(source_name, "[tasks]", mapping["tasks"])
        spec = cls(
            files=tuple(_absolute(folder, file) for file in log.texts("files", required=True)),
            user=log.text("user"),
            item=log.text("item"),
            timestamp=log.text("timestamp"),
            timestamp_unit=cast(Literal["s", "ms"], log.choice("timestamp_unit", ("s", "ms"))),
            time_zone=log.text("time_zone", None),
            utc_offset_hours=log.number("utc_offset_hours"),
            utc_offset_column=log.text("utc_offset_column", None),
            tasks=tasks,
            actions=_signals(source_name, "[actions]", mapping["actions"]) if "actions" in mapping else tasks,
            categorical=features.texts("categorical"),
            dense=features.texts("dense"),
            side_tables=_side_tables(top, folder),
            split=_split(source_name, mapping["split"]),
        )
        if not tasks:
            raise InputError(f"{source_name}: [tasks] names no task, expected at least one")
        _check_local_time(spec, log)
        _check_features_are_not_labels(spec, features)
        _check_split_order(spec, source_name)
        return spec

    def to_dict(self) -> dict[str, Any]:
        """Returns the description as JSON-able sections with absolute file names, for `from_dict`."""
        log = {key: getattr(self, key) for key in _LOG_KEYS} | {"files": [str(file) for file in self.files]}
        side_tables = [dataclasses.asdict(side) | {"file": str(side.file)} for side in self.side_tables]
        plain = {
            "log": log,
            "tasks": {signal.name: _signal_to_dict(signal) for signal in self.tasks},
            "actions": {signal.name: _signal_to_dict(signal) for signal in self.actions},
            "features": {"categorical": self.categorical, "dense": self.dense},
            "side_table": side_tables,
            "split": dataclasses.asdict(self.split),
        }
        return _without_none(plain)

    def split_time(self, date: str) -> int:
        """Returns the Unix milliseconds of a split date, read in the log's zone unless it carries an offset.

        Args:
          date: ISO date or date and time. With `utc_offset_column` local time differs by event: UTC then.
        """
        moment = datetime.datetime.fromisoformat(date)
        if moment.tzinfo is None:
            zone = zoneinfo.ZoneInfo(self.time_zone) if self.time_zone else None
            offset = datetime.timedelta(hours=self.utc_offset_hours or 0.0)
            moment = moment.replace(tzinfo=zone or datetime.timezone(offset))
        return round(moment.timestamp() * 1000)


_SECTIONS = ["log", "tasks", "split"]
_OPTIONAL_SECTIONS = ["actions", "features", "side_table"]
_LOCAL_TIME_KEYS = ["time_zone", "utc_offset_hours", "utc_offset_column"]
_LOG_KEYS = ["files", "user", "item", "timestamp", "timestamp_unit", *_LOCAL_TIME_KEYS]
_SIGNAL_KEYS = [field.name for field in dataclasses.fields(Signal) if field.name != "name"]


def _absolute(folder: Path, file: str) -> Path:
    return Path(os.path.abspath(folder / file))


def _signals(source: str, where: str, table: object) -> tuple[Signal, ...]:
    if not isinstance(table, Mapping):
        raise InputError(f"{source}: {where} must be a table of names and columns, found {table!r}")
    return tuple(_signal(source, where, name, value) for name, value in table.items())


def _signal(source: str, where: str, name: str, value: object) -> Signal:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        # The name becomes part of metric names, where a dot separates.
        raise InputError(f'{source}: {where} "{name}": expected a name of letters, digits, "_" and "-"')
    section = Section(source, f"{where} {name}", {"column": value} if isinstance(value, str) else value, _SIGNAL_KEYS)
    signal = Signal(
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


def _signal_to_dict(signal: Signal) -> dict[str, Any]:
    """Returns the keys that the user gave: an absent `any_of` is not an empty one."""
    values = {key: getattr(signal, key) for key in _SIGNAL_KEYS}
    return {key: value for key, value in values.items() if value is not None and value != ()}


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(entry) for key, entry in value.items() if entry is not None}
    return [_without_none(entry) for entry in value] if isinstance(value, list | tuple) else value


def _side_tables(top: Section, folder: Path) -> tuple[SideTable, ...]:
    tables = top.table.get("side_table", [])
    if not isinstance(tables, list | tuple):
        raise top.error("side_table", "expected [[side_table]] with two brackets, one for each table")
    result = []
    for number, table in enumerate(tables, start=1):
        keys = [field.name for field in dataclasses.fields(SideTable)]
        section = Section(top.source, f"[[side_table]] number {number}", table, keys)
        if "join" not in section.table:
            raise section.error("join", 'this key is missing, expected "item" or "user"')
        result.append(
            SideTable(
                file=_absolute(folder, section.text("file")),
                join=cast(Literal["item", "user"], section.choice("join", ("item", "user"))),
                key=section.text("key"),
                categorical=section.texts("categorical"),
                dense=section.texts("dense"),
            )
        )
    return tuple(result)


def _split(source: str, table: object) -> Split:
    section = Section(source, "[split]", table, ["by", "validation_from", "test_from"])
    by = cast(Literal["time", "user"], section.choice("by", ("time", "user")))
    return Split(
        by=by,
        validation_from=_split_point(section, "validation_from", by),
        test_from=_split_point(section, "test_from", by),
    )


def _split_point(section: Section, key: str, by: str) -> float | str:
    value = section.table.get(key)
    expected = "a fraction between 0 and 1" + (' or a date such as "2022-05-05T00:00:00"' if by == "time" else "")
    if value is None:
        raise section.error(key, f"this key is missing, expected {expected}")
    if is_number(value) and 0 < value < 1:
        return float(value)
    if isinstance(value, datetime.date):  # TOML's own dates, and date-times, which are dates too
        value = value.isoformat()
    if isinstance(value, str) and by == "time":
        try:
            datetime.datetime.fromisoformat(value)
            return value
        except ValueError:
            pass
    raise section.error(key, f"expected {expected}, found {value!r}")


def _check_local_time(spec: EventLogSpec, log: Section) -> None:
    given = [key for key in _LOCAL_TIME_KEYS if getattr(spec, key) is not None]
    if len(given) > 1:
        raise log.error("", f"expected at most one of {', '.join(_LOCAL_TIME_KEYS)}, found {' and '.join(given)}")
    low, high = UTC_OFFSETS
    if spec.utc_offset_hours is not None and not low <= spec.utc_offset_hours <= high:
        raise log.error("utc_offset_hours", f"expected hours from {low:g} to {high:g}, found {spec.utc_offset_hours:g}")
    if spec.time_zone is not None:
        try:
            zoneinfo.ZoneInfo(spec.time_zone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):  # a folder of zones raises an OSError
            suggestion = did_you_mean(spec.time_zone, zoneinfo.available_timezones())
            raise log.error(
                "time_zone", f'expected a zone such as "Europe/Paris", found "{spec.time_zone}"{suggestion}'
            ) from None


def _check_features_are_not_labels(spec: EventLogSpec, features: Section) -> None:
    for signal in (*spec.tasks, *spec.actions):
        for kind in ("categorical", "dense"):
            for column in sorted(set(getattr(spec, kind)) & set(signal.columns)):
                raise features.error(
                    kind,
                    f'"{column}" belongs to the outcome {signal.name}, which a model must not read',
                )


def _check_split_order(spec: EventLogSpec, source: str) -> None:
    first, second = spec.split.validation_from, spec.split.test_from
    where = f"{source}: [split] validation_from = {first!r} and test_from = {second!r}"
    if isinstance(first, str) != isinstance(second, str):
        raise InputError(f"{where} must be of one kind: two fractions or two dates")
    dates = isinstance(first, str) and isinstance(second, str)
    ordered = spec.split_time(str(first)) < spec.split_time(str(second)) if dates else first < second  # type: ignore[operator]
    if not ordered:
        raise InputError(f"{where} are out of order: validation must begin before test")
