"""Description of an event log: one TOML file, checked key by key and parsed into an `EventLogSpec`."""

import dataclasses
import datetime
import os
import tomllib
import zoneinfo
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from siren_rope_jax.data.feature_spec import BagColumn, VectorColumn, features_to_dict, read_features
from siren_rope_jax.data.named_files import FileName, absolute
from siren_rope_jax.data.negatives import Negatives, read_negatives
from siren_rope_jax.data.side_table_spec import MissingIds, SideTable, read_side_tables
from siren_rope_jax.data.signal_spec import read_signals, signal_to_dict
from siren_rope_jax.data.signals import Signal
from siren_rope_jax.data.split import Split, read_split
from siren_rope_jax.data.table_file import TABLE_ENDINGS
from siren_rope_jax.data.text_format import FORMAT_KEYS, TextFormat
from siren_rope_jax.data.toml_section import Section, did_you_mean
from siren_rope_jax.data.unix_times import RELATIVE_UNITS
from siren_rope_jax.errors import InputError

TimestampUnit = Literal["s", "ms", "us", "ns", "iso", "h", "d"]
Contradictions = Literal["mean", "first", "refuse"]
UTC_OFFSETS = (-12.0, 14.0)  # hours; every civil time zone lies inside


@dataclasses.dataclass(frozen=True, kw_only=True)
class EventLogSpec:
    """Files and columns of an event log.

    Attributes:
      files: absolute paths or URLs of tables with one row per event, of folders of them, and patterns of them.
      user: column of the user; users and items are compared as text.
      item: column of the item; None if events have none, as visits to a doctor do.
      timestamp: column of the Unix time.
      timestamp_unit: unit of Unix times; "iso" if they are ISO 8601 texts, which are read in the log's zone unless they
        name their own. Columns of dates or datetimes need none. "h" and "d" are hours and days since an unknown moment.
      calendar: whether the times tell hour, weekday and date. Otherwise models read only how far apart events are.
      time_zone: IANA name of the users' zone. At most one of the zone and the two offsets is given; without
        any, local time is UTC.
      utc_offset_hours: offset of local time, the same for all events; may be fractional.
      utc_offset_column: column with the offset of each event, in hours.
      format: of the files that are text tables; its fields are keys of [log].
      missing_ids: treatment of events without a user or item: "refuse" the file, or "drop" the events. New events are
        never dropped, but scored as those of an unknown user or item.
      weight: column with the weight of each event in loss and metrics, if any.
      group: column that names the request or slate of each event of a user, if any, for metrics within groups.
      group_by_second: whether the events of one user and second are a group.
      tasks: outcomes to predict.
      actions: outcomes that later events may see.
      categorical: feature columns compared as text.
      dense: feature columns of numbers.
      bags: feature columns with any number of values in a cell.
      vectors: features that are vectors of numbers.
      side_tables: features of items and users.
      split: periods of training, validation and test.
      negatives: how negatives are drawn for a task that is always positive; None if the log has its own.
      contradictions: treatment of rows of one event that differ only in outcomes: "mean" takes the mean of each outcome
        as its label, "first" the first row, and "refuse" refuses the log.
      description: the TOML file that the spec was read from, if any; not part of the log's identity.
    """

    files: tuple[FileName, ...]
    user: str
    item: str | None = None
    timestamp: str
    timestamp_unit: TimestampUnit = "s"
    calendar: bool = True
    time_zone: str | None = None
    utc_offset_hours: float | None = None
    utc_offset_column: str | None = None
    format: TextFormat = TextFormat()  # noqa: RUF009
    missing_ids: MissingIds = "refuse"
    weight: str | None = None
    group: str | None = None
    group_by_second: bool = False
    tasks: tuple[Signal, ...]
    actions: tuple[Signal, ...]
    categorical: tuple[str, ...] = ()
    dense: tuple[str, ...] = ()
    bags: tuple[BagColumn, ...] = ()
    vectors: tuple[VectorColumn, ...] = ()
    side_tables: tuple[SideTable, ...] = ()
    split: Split
    negatives: Negatives | None = None
    contradictions: Contradictions = "mean"
    description: Path | None = dataclasses.field(default=None, compare=False)

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> "EventLogSpec":
        """Reads a log description; file names in it are relative to it.

        Args:
          path: the TOML file.

        Raises:
          InputError: if the file cannot be read, is not TOML, or `from_dict` refuses its content.
        """
        path = Path(path)
        if path.suffix.lower() in TABLE_ENDINGS:
            advice = f"describe it first: siren-rope describe {path}"
            raise InputError(f"{path} must be a log description in TOML, but is a table; {advice}")
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
          folder: base of relative file names.
          source_name: name of the description in error messages.

        Raises:
          InputError: if a key is unknown, missing or repeated, or a value is of the wrong kind.
        """
        top = Section(source_name, "", mapping, [*_SECTIONS, *_OPTIONAL_SECTIONS])
        negatives = read_negatives(source_name, mapping["negatives"]) if "negatives" in mapping else None
        for name in _SECTIONS:
            if name not in mapping and not (name == "tasks" and negatives is not None):
                raise InputError(f"{source_name}: the section [{name}] is missing")
        log = Section(source_name, "[log]", mapping["log"], [*_LOG_KEYS, *FORMAT_KEYS])
        form = TextFormat.from_section(log)
        features = Section(source_name, "[features]", mapping.get("features", {}), ["categorical", "dense"])
        tasks = _with_negatives(read_signals(source_name, "[tasks]", mapping.get("tasks", {})), negatives, source_name)
        spec = cls(
            files=tuple(absolute(folder, file) for file in log.texts("files", required=True)),
            user=log.text("user"),
            item=log.text("item", None),
            timestamp=log.text("timestamp"),
            timestamp_unit=log.choice("timestamp_unit", get_args(TimestampUnit)),
            calendar=log.flag("calendar", log.table.get("timestamp_unit") not in RELATIVE_UNITS),
            time_zone=log.text("time_zone", None),
            utc_offset_hours=log.number("utc_offset_hours"),
            utc_offset_column=log.text("utc_offset_column", None),
            format=form,
            missing_ids=log.choice("missing_ids", get_args(MissingIds)),
            weight=log.text("weight", None),
            group=log.text("group", None),
            group_by_second=log.flag("group_by_second", False),
            tasks=tasks,
            actions=read_signals(source_name, "[actions]", mapping["actions"]) if "actions" in mapping else tasks,
            **read_features(features),
            side_tables=read_side_tables(top, log, form, folder),
            split=read_split(source_name, mapping["split"], folder),
            negatives=negatives,
            contradictions=log.choice("contradictions", get_args(Contradictions)),
        )
        if not tasks:
            raise InputError(f"{source_name}: [tasks] names no task, expected at least one")
        if spec.item is None and any(side.join == "item" for side in spec.side_tables):
            raise log.error("item", 'this key is missing, expected a column for the side tables that join "item"')
        if spec.item is None and negatives is not None:
            raise log.error("item", "this key is missing, expected a column of items to draw as negatives")
        if spec.group is not None and spec.group_by_second:
            raise log.error("", "expected one of group and group_by_second, found both")
        _check_local_time(spec, log)
        _check_features_are_not_labels(spec, features)
        _check_split_order(spec, source_name)
        return spec

    def to_dict(self) -> dict[str, Any]:
        """Returns the description as JSON-able sections with absolute file names, for `from_dict`."""
        log = {key: getattr(self, key) for key in _LOG_KEYS} | {"files": [str(file) for file in self.files]}
        log |= dataclasses.asdict(self.format)
        side_tables = [
            {"file": str(side.file), "join": side.join, "key": side.key, "missing_ids": side.missing_ids}
            | features_to_dict(side)
            | dataclasses.asdict(side.format)
            for side in self.side_tables
        ]
        plain = {
            "log": log,
            "tasks": {signal.name: signal_to_dict(signal) for signal in self.tasks},
            "actions": {signal.name: signal_to_dict(signal) for signal in self.actions},
            "features": features_to_dict(self),
            "side_table": side_tables,
            "split": self.split.to_dict(),
            "negatives": None if self.negatives is None else dataclasses.asdict(self.negatives),
        }
        return _without_none(plain)

    def split_time(self, date: str) -> int:
        """Returns the Unix milliseconds of a split date, read in the log's zone unless it carries an offset.

        Args:
          date: ISO date or date and time; UTC if `utc_offset_column` is set, since local time then differs by event.
        """
        moment = datetime.datetime.fromisoformat(date)
        if moment.tzinfo is None:
            zone = zoneinfo.ZoneInfo(self.time_zone) if self.time_zone else None
            offset = datetime.timedelta(hours=self.utc_offset_hours or 0.0)
            moment = moment.replace(tzinfo=zone or datetime.timezone(offset))
        return round(moment.timestamp() * 1000)


_SECTIONS = ["log", "tasks", "split"]
_OPTIONAL_SECTIONS = ["actions", "features", "side_table", "negatives"]
_LOCAL_TIME_KEYS = ["time_zone", "utc_offset_hours", "utc_offset_column"]
_LOG_KEYS = ["files", "user", "item", "timestamp", "timestamp_unit", "calendar", *_LOCAL_TIME_KEYS]
_LOG_KEYS += ["missing_ids", "contradictions", "weight", "group", "group_by_second"]


def _with_negatives(tasks: tuple[Signal, ...], negatives: Negatives | None, source: str) -> tuple[Signal, ...]:
    """Adds the task of drawn negatives, if no task of the description is always positive."""
    always = [task.name for task in tasks if getattr(task, "always", False)]
    if negatives is None and always:
        raise InputError(f"{source}: [tasks] {always[0]}: an outcome that is always positive needs [negatives]")
    if len(always) > 1:
        raise InputError(f"{source}: [tasks] {always[1]}: expected one outcome that is always positive")
    if negatives is None or always:
        return tasks
    if negatives.task in [task.name for task in tasks]:
        raise InputError(f'{source}: [negatives] task: expected a name of its own, found the task "{negatives.task}"')
    return (*read_signals(source, "[negatives] task", {negatives.task: {"always": True}}), *tasks)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(entry) for key, entry in value.items() if entry is not None}
    return [_without_none(entry) for entry in value] if isinstance(value, list | tuple) else value


def _check_local_time(spec: EventLogSpec, log: Section) -> None:
    given = [key for key in _LOCAL_TIME_KEYS if getattr(spec, key) is not None]
    if spec.calendar and spec.timestamp_unit in RELATIVE_UNITS:
        raise log.error("calendar", f'expected false, as times in "{spec.timestamp_unit}" have no date, found true')
    if given and not spec.calendar:
        raise log.error(given[0], "this key is of no use, as the times have no calendar")
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
    of_kinds = {
        "categorical": {*spec.categorical, *(bag.column for bag in spec.bags)},
        "dense": {*spec.dense, *(vector.name for vector in spec.vectors)},
    }
    for kind, columns in of_kinds.items():
        if spec.split.column in columns:
            raise features.error(
                kind, f'"{spec.split.column}" is the column of the split, which tells nothing of new events'
            )
    for signal in (*spec.tasks, *spec.actions):
        for kind, columns in of_kinds.items():
            for column in sorted(columns & set(signal.columns)):
                outcome = f"the outcome {signal.name}, which a model must not read"
                raise features.error(kind, f'"{column}" belongs to {outcome}')


def _check_split_order(spec: EventLogSpec, source: str) -> None:
    first, second = spec.split.validation_from, spec.split.test_from
    if first is None or second is None:
        return
    where = f"{source}: [split] validation_from = {first!r} and test_from = {second!r}"
    if isinstance(first, str) != isinstance(second, str):
        raise InputError(f"{where} must be of one kind: two fractions or two dates")
    dates = isinstance(first, str) and isinstance(second, str)
    if dates and not spec.calendar:
        raise InputError(f"{where} must be fractions, as the times have no calendar")
    ordered = spec.split_time(str(first)) < spec.split_time(str(second)) if dates else first < second  # type: ignore[operator]
    if not ordered:
        raise InputError(f"{where} are out of order: validation must begin before test")
