"""Event files -> one columnar log: checked, one row for each event, sorted by time, split into periods."""

import dataclasses
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Bool, Float32, Int8, Int32, Int64, UInt64

from siren_rope_jax.data.bags import Bag
from siren_rope_jax.data.event_columns import outcomes
from siren_rope_jax.data.event_rows import IF_NEW, read_event_rows
from siren_rope_jax.data.matching import match_note, spelling_note
from siren_rope_jax.data.named_files import existing_file
from siren_rope_jax.data.periods import NEW, TRAIN, check_periods, overlap_note, periods_of
from siren_rope_jax.data.precision import coarse_note, midnight_note
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.data.side_table import SideFeatures, read_side_table
from siren_rope_jax.data.side_table_spec import SideTable
from siren_rope_jax.data.signals import Signal
from siren_rope_jax.errors import InputError
from siren_rope_jax.ops.calendar import split_unix_time

_RELATIVE = "the times have no calendar: models read how far apart events are, but no hour, weekday or date"

PathLike = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EventLog:
    """Events in the order of time; events of the same time are in the order of the input.

    Attributes:
      spec: description of the log.
      time_ms: Unix milliseconds.
      day: local calendar day, counted from 1970-01-01.
      second: second of that day.
      row: row over all input files, counted from 0; for a new event, the row in the file of new events.
      user: index into `user_ids`.
      item: index into `item_ids`.
      user_ids: distinct users, sorted as text. Indices differ between logs: store ids or hashes instead.
      item_ids: distinct items, sorted as text.
      labels: outcome of each task: 0 or 1, a value between them if rows of the event contradict each other, or a number
        as in the log; NaN where unobserved.
      actions: outcome of each action that later events may see, 0 or 1 or a number; NaN where unobserved.
      action_known: Unix milliseconds from which later events may see the action, not before `time_ms`.
      action_pending: value that later events see until then: 0 ("none yet") or NaN ("unobserved").
      categorical: stable hash of (feature name, value); a missing value has its own hash.
      dense: numbers, NaN where missing.
      bags: columns with any number of values for each event.
      task_names: names of the tasks.
      action_names: names of the actions.
      categorical_names: columns of the log, then of the side tables, prefixed by the file if names clash.
      dense_names: names of the dense columns, in the same order and form.
      period: 0 for training, 1 for validation, 2 for test, 3 for a new event to score.
      weight: weight of each event in loss and metrics; None if all count alike.
      group: code of the group of each event, such as a request; None if there are no groups.
      drawn: whether each event is a drawn negative; None if the log has its own.
      duplicates: number of rows dropped as equal to an earlier one in every column that is read.
      unmatched: for each side table, the number of events whose item or user it lacks.
      contradictions: number of events whose rows contradicted each other on outcomes, resolved as the spec defines.
      notes: notes for the user, one sentence each.
    """

    spec: EventLogSpec
    time_ms: Int64[np.ndarray, " E"]
    day: Int32[np.ndarray, " E"]
    second: Int32[np.ndarray, " E"]
    row: Int64[np.ndarray, " E"]
    user: Int32[np.ndarray, " E"]
    item: Int32[np.ndarray, " E"]
    user_ids: pl.Series
    item_ids: pl.Series
    labels: Float32[np.ndarray, "E K"]
    actions: Float32[np.ndarray, "E A"]
    action_known: Int64[np.ndarray, "E A"]
    action_pending: Float32[np.ndarray, " A"]
    categorical: UInt64[np.ndarray, "E C"]
    dense: Float32[np.ndarray, "E F"]
    bags: tuple[Bag, ...] = ()
    task_names: tuple[str, ...]
    action_names: tuple[str, ...]
    categorical_names: tuple[str, ...]
    dense_names: tuple[str, ...]
    period: Int8[np.ndarray, " E"]
    duplicates: int
    unmatched: tuple[int, ...]
    weight: Float32[np.ndarray, " E"] | None = None
    group: Int64[np.ndarray, " E"] | None = None
    drawn: Bool[np.ndarray, " E"] | None = None
    contradictions: int = 0
    notes: tuple[str, ...] = ()

    @property
    def weighed_labels(self) -> Float32[np.ndarray, "E K"]:
        """The labels, NaN for events of weight 0 too."""
        return _weighed(self.labels, self.weight)

    @property
    def bag_names(self) -> tuple[str, ...]:
        """Names of the bags."""
        return tuple(bag.name for bag in self.bags)

    @property
    def new(self) -> Bool[np.ndarray, " E"]:
        """Whether each event comes from the file of new events."""
        return self.period == NEW


def read_event_log(
    spec: EventLogSpec | PathLike, *, new_events: PathLike | None = None, allow_unmatched: bool = False
) -> EventLog:
    """Reads every file of a log, and new events to score with it.

    Args:
      spec: description of files and columns, or the TOML file with it.
      new_events: a table with the columns of the log, except that those of outcomes may be absent, and the outcomes
        then unobserved. Its rows are never merged or dropped; a missing id, unless the spec refuses it, becomes an
        unknown user or item.
      allow_unmatched: whether new events may have only unknown users, items or values.

    Returns:
      The log, sorted by time. Exact duplicates are dropped and contradictions resolved; both are counted.

    Raises:
      InputError: at the first fault of a file; if the log is not fit for training: a single user, a period without
        events, a task without both outcomes in training, a side table that matches nothing; or if no user, item or
        value of the new events is known.
    """
    if not isinstance(spec, EventLogSpec):
        spec = EventLogSpec.from_toml(spec)
    new_events = None if new_events is None else existing_file(os.fspath(new_events))
    categorical_names = _feature_names(spec, spec.categorical, [side.categorical for side in spec.side_tables])
    notes: list[str] = []
    # Reassigned at every step, since two copies of a long log might not fit into memory.
    events, styles, dense_names, duplicates, contradictions = read_event_rows(
        spec, categorical_names, new_events, notes, allow_unmatched=allow_unmatched
    )
    user_codes, user_ids = _codes(events["user"])
    item_codes, item_ids = _codes(events["item"])
    events = events.with_columns(user=user_codes, item=item_codes).sort("time_ms", maintain_order=True)

    time, user, item = (events[name].to_numpy() for name in ("time_ms", "user", "item"))
    given = events["period"].to_numpy() if spec.split.is_given else None
    period = periods_of(spec, time, user, user_ids, events["new"].to_numpy(), given)
    _check_users(spec, user[period != NEW], user_ids)
    labels = _labels(events, spec, spec.tasks)
    actions = labels if spec.actions == spec.tasks else _labels(events, spec, spec.actions)
    if contradictions:
        of_signals = [signal.action_of_mean(x) for signal, x in zip(spec.actions, actions.T, strict=True)]
        actions = np.stack(of_signals, axis=1) if of_signals else actions
    weight = None if spec.weight is None else events["weight"].to_numpy()
    check_periods(spec, period, weight, _describe(spec))
    notes += _check_labels(spec, _weighed(labels, weight)[period == TRAIN])
    unit, moments = ("ms", time) if spec.calendar else ("s", time // 1000)  # small numbers are no mistake
    day, second = split_unix_time(moments, unit=unit, utc_offset=_utc_offset(events, spec), time_zone=spec.time_zone)
    known = ~events["new"].to_numpy()
    of_times = [midnight_note(second[known]), coarse_note(time[known])] if spec.calendar else [_RELATIVE]
    own_notes = [overlap_note(spec, period, time), *of_times]
    own_notes += [spelling_note(user_ids, "user", _describe(spec)), spelling_note(item_ids, "item", _describe(spec))]
    notes += filter(None, own_notes)
    sides, position = [], len(spec.categorical)
    for side in spec.side_tables:
        hashed = categorical_names[position : position + len(side.categorical)]
        position += len(side.categorical)
        ids, index = (item_ids, item) if side.join == "item" else (user_ids, user)
        features = read_side_table(side, ids, styles[side.join], hashed, notes)
        notes += _match_notes(side, ids, index, period == NEW, features, allow_unmatched=allow_unmatched)
        sides.append((features, index))
    own_dense = len(dense_names)
    dense_names = _feature_names(spec, dense_names, [side.dense_names for side, _ in sides])
    of_bags = [(events[f"bag {k}"], slice(None)) for k in range(len(spec.bags))]
    of_bags += [(cells, index) for side, index in sides for cells in side.bags]
    bag_columns = [[bag.column for bag in table.bags] for table in (spec, *spec.side_tables)]
    bag_names = _feature_names(spec, bag_columns[0], bag_columns[1:])
    return EventLog(
        spec=spec,
        time_ms=time,
        day=day,
        second=second,
        row=events["row"].cast(pl.Int64).to_numpy(),
        user=user,
        item=item,
        user_ids=user_ids,
        item_ids=item_ids,
        labels=labels,
        actions=actions,
        action_known=_action_known(events, spec),
        action_pending=np.array([action.pending for action in spec.actions], dtype=np.float32),
        categorical=_features(events, "categorical", len(spec.categorical), sides, np.uint64),
        dense=_features(events, "dense", own_dense, sides, np.float32),
        bags=tuple(Bag.of(name, *bag) for name, bag in zip(bag_names, of_bags, strict=True)),
        task_names=tuple(task.name for task in spec.tasks),
        action_names=tuple(action.name for action in spec.actions),
        categorical_names=categorical_names,
        dense_names=dense_names,
        period=period,
        duplicates=duplicates,
        contradictions=contradictions,
        weight=weight,
        group=_groups(events, spec),
        drawn=None if spec.negatives is None else events["drawn"].to_numpy(),
        unmatched=tuple(int((~side.found)[index].sum()) for side, index in sides),
        notes=tuple(notes),
    )


def _weighed(
    labels: Float32[np.ndarray, "E K"], weight: Float32[np.ndarray, " E"] | None
) -> Float32[np.ndarray, "E K"]:
    return labels if weight is None else np.where(weight[:, None] > 0, labels, np.float32(np.nan))


def _feature_names(spec: EventLogSpec, own: Sequence[str], of_sides: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Joins the names of the log's own features and those of its side tables, which get the file's name in a clash."""
    plain = [("", column) for column in own]
    for side, columns in zip(spec.side_tables, of_sides, strict=True):
        plain += [(Path(side.file).name.split(".")[0], column) for column in columns]
    counts = Counter(column for _, column in plain)
    names = tuple(f"{file}.{name}" if file and counts[name] > 1 else name for file, name in plain)
    for name, count in Counter(names).items():
        if count > 1:
            raise InputError(f'the feature "{name}" is named by two side tables, expected one')
    return names


def _codes(ids: pl.Series) -> tuple[pl.Series, pl.Series]:
    distinct = ids.unique().sort()
    return ids.cast(pl.Enum(distinct)).to_physical().cast(pl.Int32), distinct


def _labels(events: pl.DataFrame, spec: EventLogSpec, signals: Sequence[Signal]) -> Float32[np.ndarray, "E K"]:
    labels = np.empty((events.height, len(signals)), np.float32)
    for column, signal in enumerate(signals):
        labels[:, column] = events[f"outcome {outcomes(spec).index(signal)}"].to_numpy()
    return labels


def _groups(events: pl.DataFrame, spec: EventLogSpec) -> Int64[np.ndarray, " E"] | None:
    """Numbers the groups of each user; an event without a group is one of its own, in which there is no order."""
    if spec.group_by_second:
        own = pl.struct("user", pl.col("time_ms") // 1000)
    elif spec.group is not None:
        alone = pl.when(pl.col("group").is_null()).then(pl.int_range(pl.len()))
        own = pl.struct("user", "group", alone)
    else:
        return None
    return events.select(own.rank("dense").cast(pl.Int64)).to_series().to_numpy()


def _action_known(events: pl.DataFrame, spec: EventLogSpec) -> Int64[np.ndarray, "E A"]:
    time, shape = events["time_ms"].to_numpy(), (events.height, len(spec.actions))
    if not any(name.startswith("known ") for name in events.columns):
        return np.broadcast_to(time[:, None], shape)  # of a long log, a quarter of its memory
    known = np.empty(shape, np.int64)
    for column, action in enumerate(spec.actions):
        name = f"known {outcomes(spec).index(action)}"
        known[:, column] = events[name].to_numpy() if name in events.columns else time
    return known


def _features(
    events: pl.DataFrame, kind: str, own: int, sides: Sequence[tuple[SideFeatures, np.ndarray]], dtype: type
) -> np.ndarray:
    """Joins the log's own feature columns and those of its side tables."""
    width = own + sum(getattr(side, kind).shape[1] for side, _ in sides)
    matrix = np.empty((events.height, width), dtype)
    for column in range(own):
        matrix[:, column] = events[f"{kind} {column}"].to_numpy()
    for side, lookup in sides:
        features = getattr(side, kind)
        matrix[:, own : own + features.shape[1]] = features[lookup]
        own += features.shape[1]
    return matrix


def _match_notes(
    side: SideTable,
    ids: pl.Series,
    index: Int32[np.ndarray, " E"],
    new: Bool[np.ndarray, " E"],
    features: SideFeatures,
    *,
    allow_unmatched: bool,
) -> list[str]:
    notes = [
        match_note(
            ids,
            np.bincount(index[chosen], minlength=len(ids)),
            features.keys,
            subject=f"{side.file}: the table",
            noun=side.join,
            whose=whose,
            remedy=remedy,
        )
        for chosen, whose, remedy in (
            (~new, "events of the log", "leave the table out"),
            (new, "new events", None if allow_unmatched else IF_NEW),
        )
    ]
    return [note for note in notes if note is not None]


def _utc_offset(events: pl.DataFrame, spec: EventLogSpec) -> Int32[np.ndarray, "..."]:
    """Returns the seconds to add for local time: one number per event, or one for all."""
    if spec.utc_offset_column is not None:
        return events["utc_offset"].to_numpy()
    return np.array(round((spec.utc_offset_hours or 0.0) * 3600), np.int32)


def _describe(spec: EventLogSpec) -> str:
    return ", ".join(str(file) for file in spec.files)


def _check_users(spec: EventLogSpec, user: Int32[np.ndarray, " E"], user_ids: pl.Series) -> None:
    if user.min() == user.max():
        only = user_ids[int(user[0])]
        raise InputError(f'{_describe(spec)}: every event is of the one user "{only}", expected at least two')


def _check_labels(spec: EventLogSpec, labels: np.ndarray) -> list[str]:
    notes = []
    for task, column in zip(spec.tasks, labels.T, strict=True):
        if lacking := task.lacking(column):
            raise InputError(
                f"{_describe(spec)}: the task {task.name} ({', '.join(task.columns) or 'every event'}) has {lacking}"
            )
        if doubt := task.doubt(column):
            notes.append(f"the task {task.name} has {doubt}")
    return notes
