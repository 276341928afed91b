"""What a user tells us about an event log: one TOML file, checked key by key into an `EventLogSpec`."""

import dataclasses
import datetime
import os
import tomllib
import zoneinfo
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

from siren_rope_jax.data.signals import Signal, read_signals, signal_to_dict
from siren_rope_jax.data.toml_section import Section, did_you_mean, is_number
from siren_rope_jax.errors import InputError

UTC_OFFSETS = (-12.0, 14.0)  # hours; every civil time zone lies inside


@dataclasses.dataclass(frozen=True)
class SideTable:
    """A table with one row per item or per user, whose columns become features of every event.

    Attributes:
      file: absolute path.
      join: whether `key` holds items or users.
      key: column that is compared, as text, with the log's item or user column.
      categorical: columns compared as text.
      dense: columns of numbers.
      quote: as in the log, unless given for this table.
      missing_ids: likewise; "drop" leaves rows without a key out.
    """

    file: Path
    join: Literal["item", "user"]
    key: str
    categorical: tuple[str, ...] = ()
    dense: tuple[str, ...] = ()
    quote: Literal['"', "none"] = '"'
    missing_ids: Literal["refuse", "drop"] = "refuse"


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
      quote: what encloses cells of CSV and TSV files that hold separators or line breaks; "none": quotes are text.
      missing_ids: what becomes of events without a user or item: "refuse" the file, or "drop" the events. New events
        are never dropped, but scored as those of an unknown user or item.
      tasks: outcomes to predict.
      actions: outcomes that later events may see.
      categorical: feature columns compared as text.
      dense: feature columns of numbers.
      side_tables: features of items and users.
      split: training, validation and test.
      contradictions: what becomes of rows that differ in nothing but the outcomes of one event: "mean" takes the mean
        of each outcome as its label, "first" the first row, "refuse" refuses the log.
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
    quote: Literal['"', "none"] = '"'
    missing_ids: Literal["refuse", "drop"] = "refuse"
    tasks: tuple[Signal, ...]
    actions: tuple[Signal, ...]
    categorical: tuple[str, ...] = ()
    dense: tuple[str, ...] = ()
    side_tables: tuple[SideTable, ...] = ()
    split: Split
    contradictions: Literal["mean", "first", "refuse"] = "mean"
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
        tasks = read_signals(source_name, "[tasks]", mapping["tasks"])
        spec = cls(
            files=tuple(_absolute(folder, file) for file in log.texts("files", required=True)),
            user=log.text("user"),
            item=log.text("item"),
            timestamp=log.text("timestamp"),
            timestamp_unit=cast(Literal["s", "ms"], log.choice("timestamp_unit", ("s", "ms"))),
            time_zone=log.text("time_zone", None),
            utc_offset_hours=log.number("utc_offset_hours"),
            utc_offset_column=log.text("utc_offset_column", None),
            quote=cast(Literal['"', "none"], log.choice("quote", _QUOTES)),
            missing_ids=cast(Literal["refuse", "drop"], log.choice("missing_ids", _MISSING_IDS)),
            tasks=tasks,
            actions=read_signals(source_name, "[actions]", mapping["actions"]) if "actions" in mapping else tasks,
            categorical=features.texts("categorical"),
            dense=features.texts("dense"),
            side_tables=_side_tables(top, log, folder),
            split=_split(source_name, mapping["split"]),
            contradictions=cast(Literal["mean", "first", "refuse"], log.choice("contradictions", _CONTRADICTIONS)),
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
            "tasks": {signal.name: signal_to_dict(signal) for signal in self.tasks},
            "actions": {signal.name: signal_to_dict(signal) for signal in self.actions},
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
_LOG_KEYS += ["quote", "missing_ids", "contradictions"]
_QUOTES, _MISSING_IDS, _CONTRADICTIONS = ('"', "none"), ("refuse", "drop"), ("mean", "first", "refuse")


def _absolute(folder: Path, file: str) -> Path:
    return Path(os.path.abspath(folder / file))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(entry) for key, entry in value.items() if entry is not None}
    return [_without_none(entry) for entry in value] if isinstance(value, list | tuple) else value


def _side_tables(top: Section, log: Section, folder: Path) -> tuple[SideTable, ...]:
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
                quote=cast(Literal['"', "none"], section.choice("quote", _QUOTES, log.table.get("quote"))),
                missing_ids=cast(
                    Literal["refuse", "drop"],
                    section.choice("missing_ids", _MISSING_IDS, log.table.get("missing_ids")),
                ),
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
                outcome = f"the outcome {signal.name}, which a model must not read"
                raise features.error(kind, f'"{column}" belongs to {outcome}')


def _check_split_order(spec: EventLogSpec, source: str) -> None:
    first, second = spec.split.validation_from, spec.split.test_from
    where = f"{source}: [split] validation_from = {first!r} and test_from = {second!r}"
    if isinstance(first, str) != isinstance(second, str):
        raise InputError(f"{where} must be of one kind: two fractions or two dates")
    dates = isinstance(first, str) and isinstance(second, str)
    ordered = spec.split_time(str(first)) < spec.split_time(str(second)) if dates else first < second  # type: ignore[operator]
    if not ordered:
        raise InputError(f"{where} are out of order: validation must begin before test")
