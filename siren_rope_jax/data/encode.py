"""Encoder of events as arrays, fitted to the training period: known ids, means and spans."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float32, Float64, Int32, Int64, UInt64

from siren_rope_jax.data.event_log import EventLog
from siren_rope_jax.data.event_order import event_order
from siren_rope_jax.data.log_counters import known_seconds, log_counters
from siren_rope_jax.data.outcome_scale import OutcomeScale, standardised
from siren_rope_jax.data.periods import TRAIN
from siren_rope_jax.data.signals import fit_scales
from siren_rope_jax.data.stable_hash import stable_hash
from siren_rope_jax.data.standardise import CLIP, mean_and_scale, standardise
from siren_rope_jax.errors import InputError
from siren_rope_jax.settings import check_settings


@dataclasses.dataclass(frozen=True)
class InputConfig:
    """Settings of the encoding of ids and numbers."""

    item_buckets: int = 16_384
    """Number of rows in the hashed item table; the first is for unknown items. 1 leaves item identity out."""
    categorical_buckets: int = 1_024
    """Number of rows in the hashed table of each categorical column; the first is for unknown values."""
    min_count: int = 5
    """Least number of training events of a known id; rarer ids are unknown."""
    counter_smoothing: float = 10.0
    """Weight, in events, of the running base rate in a user's or an item's rates."""
    bag_values: int = 64
    """Largest number of values of a bag, such as genres, that have a 0/1 column each; the most frequent in training."""
    counters_above: int = 16
    """Largest number of known values of a categorical column without counters; others have counters like the item."""

    def __post_init__(self) -> None:
        check_settings(
            self,
            item_buckets="[1, 2147483647]",
            categorical_buckets="[1, 2147483647]",
            min_count="[1, inf)",
            bag_values="[1, inf)",
            counter_smoothing="(0, inf)",
            counters_above="[0, inf)",
        )


class LateActions(NamedTuple):
    """Actions that become known only after their event, and perhaps after later events."""

    known: Int32[np.ndarray, "E A"]  # elapsed_seconds from which each action is known
    pending: Float32[np.ndarray, " A2"]  # value of each event's "actions" until then


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoded:
    """Encoded events of whole users, in the order of `event_order`; batches are cut from these arrays."""

    log_index: np.ndarray  # index of each event in the encoded log
    user: np.ndarray  # non-decreasing
    alone: Bool[np.ndarray, " E"]  # seen by no other event; after the other events of their user
    columns: dict[str, np.ndarray]  # the fields of batch.Events except segment and position, and "labels"
    late: LateActions | None = None
    weight: Float32[np.ndarray, " E"] | None = None  # 1 in the mean over training


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoder:
    """Encoder of the training log, and of any log with the same columns."""

    config: InputConfig
    id_names: tuple[str, ...]  # the item first
    known_ids: tuple[UInt64[np.ndarray, " _"], ...]  # sorted hashes
    dense_names: tuple[str, ...]  # dense columns of the log
    missing: tuple[int, ...]  # dense columns with an additional indicator of missing values
    dense_mean: Float32[np.ndarray, " F"]
    dense_std: Float32[np.ndarray, " F"]
    bag_names: tuple[str, ...]
    bag_values: tuple[tuple[str, ...], ...]  # that have a column, for each bag
    context_names: tuple[str, ...]
    context_mean: Float32[np.ndarray, " E"]
    context_std: Float32[np.ndarray, " E"]
    context_transform: Float64[np.ndarray, "G 6"]  # table of nn.column_transform; no rows until a training fits it
    calendar: bool  # whether times tell hour and weekday
    weight: float  # mean weight of the training events
    actions: tuple[OutcomeScale, ...]
    tasks: tuple[OutcomeScale, ...]
    start_day: int
    span_days: int
    start_second: int  # Unix time

    @classmethod
    def fit(cls, log: EventLog, config: InputConfig) -> "Encoder":
        """Fits an encoder to the training period alone.

        Args:
          log: the whole log.
          config: tables and smoothing.
        """
        return cls.fit_encode(log, config)[0]

    @classmethod
    def fit_encode(cls, log: EventLog, config: InputConfig) -> tuple["Encoder", Encoded]:
        """Fits an encoder to a log and encodes the log; `fit`, then `encode`, would count its history twice."""
        encoder, prepared = cls._fit(log, config)
        return encoder, encoder._encode(log, prepared)

    def encode(self, log: EventLog, *, as_history: bool = False) -> Encoded:
        """Encodes a log as arrays, user by user.

        Args:
          log: a log with the columns that the encoder was fitted to.
          as_history: whether new events are history of each other, and counted; otherwise each is encoded as if it were
            the only new one, as is always a repetition of an event in the log or in the file of new events.

        Raises:
          InputError: if the columns differ, or an event lies more than 68 years from the start of training.
        """
        fitted = {"task_names": self.task_names, "action_names": self.action_names, "dense_names": self.dense_names}
        fitted |= {"categorical_names": self.id_names[1:], "bag_names": self.bag_names}
        for what, names in fitted.items():
            if names != getattr(log, what):
                raise InputError(f"the log must have the {what} {names}, but has {getattr(log, what)}")
        prepared = _prepare(log, self.config, self.counted, self.actions, as_history=as_history)
        return self._encode(log, prepared)

    @classmethod
    def _fit(cls, log: EventLog, config: InputConfig) -> tuple["Encoder", "_Prepared"]:
        train = log.period == TRAIN
        known = []
        for hashes in (stable_hash(log.item_ids, "item")[log.item], *log.categorical.T):
            values, counts = np.unique(hashes[train], return_counts=True)
            known.append(values[counts >= config.min_count])
        weight = None if log.weight is None else log.weight[train]
        tasks = fit_scales(log.spec.tasks, log.labels[train], weight)
        actions = fit_scales(log.spec.actions, log.actions[train])
        prepared = _prepare(log, config, _counted(known, config), actions, as_history=False)
        dense_mean, dense_std = mean_and_scale(log.dense, train)
        context_mean, context_std = mean_and_scale(prepared.context, train[prepared.order])
        start_day = int(log.day[train].min())
        encoder = cls(
            config=config,
            id_names=("item", *log.categorical_names),
            known_ids=tuple(known),
            dense_names=log.dense_names,
            missing=_missing(log.dense[train]),
            dense_mean=dense_mean,
            dense_std=dense_std,
            bag_names=log.bag_names,
            bag_values=tuple(
                bag.common_values(train, min_count=config.min_count, most=config.bag_values) for bag in log.bags
            ),
            context_names=prepared.context_names,
            context_mean=context_mean,
            context_std=context_std,
            context_transform=np.zeros((0, 6)),
            calendar=log.spec.calendar,
            weight=1.0 if weight is None else float(weight.mean(dtype=np.float64)),
            actions=actions,
            tasks=tasks,
            start_day=start_day,
            span_days=int(log.day[train].max()) - start_day + 1,
            start_second=int(log.time_ms[train].min()) // 1000,
        )
        return encoder, prepared

    def _encode(self, log: EventLog, prepared: "_Prepared") -> Encoded:
        elapsed = log.time_ms // 1000 - self.start_second
        if len(elapsed) and np.abs(elapsed).max() > np.iinfo(np.int32).max:
            raise InputError(
                "events must lie within 68 years of the start of training, but one lies "
                f"{np.abs(elapsed).max() / 31_556_952:.0f} years away"
            )
        order = prepared.order
        items = self._buckets(0, prepared.item_hashes)[log.item]
        others = [self._buckets(column, hashes) for column, hashes in enumerate(log.categorical.T, start=1)]
        dense = log.dense[order]
        absent = np.isnan(dense[:, self.missing]).astype(np.float32)
        standardise(dense, self.dense_mean, self.dense_std)
        standardise(prepared.context, self.context_mean, self.context_std)
        columns = {
            "day": log.day[order],
            "second": log.second[order],
            "elapsed_seconds": elapsed.astype(np.int32)[order],
            "ids": np.stack([ids[order] for ids in (items, *others)], axis=1),
            "dense": np.concatenate([dense, absent, *self._indicators(log, order)], axis=1),
            "actions": _actions(prepared.actions, order),
            "context": prepared.context,
            "labels": standardised(log.labels[order], self.tasks),
        }
        late = _late_actions(log, order, self.start_second)
        weight = None if log.weight is None else log.weight[order] / np.float32(self.weight)
        return Encoded(
            log_index=order,
            user=log.user[order],
            alone=prepared.alone[order],
            columns=columns,
            late=late,
            weight=weight,
        )

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the columns of the encoded "dense"."""
        missing = [f"{self.dense_names[column]}_missing" for column in self.missing]
        bags = [
            f"{bag}={value}" if value else f"{bag}, other"
            for bag, values in zip(self.bag_names, self.bag_values, strict=True)
            for value in values
        ]
        return (*self.dense_names, *missing, *bags)

    @property
    def task_names(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return tuple(task.name for task in self.tasks)

    @property
    def action_names(self) -> tuple[str, ...]:
        """Names of the actions."""
        return tuple(action.name for action in self.actions)

    @property
    def counted(self) -> tuple[int, ...]:
        """Categorical columns of the log whose values have counters."""
        return _counted(self.known_ids, self.config)

    @property
    def action_features(self) -> int:
        """Number of columns of the encoded "actions": value and observed flag of each; one column of zeros if none."""
        return max(1, 2 * len(self.actions))

    @property
    def id_buckets(self) -> tuple[int, ...]:
        """Rows of each id table; categorical columns without counters have one for each known value, if they fit."""
        rows, counted = self.config.categorical_buckets, self.counted
        of_categorical = (
            rows if k in counted else min(rows, 1 + len(known)) for k, known in enumerate(self.known_ids[1:])
        )
        return (self.config.item_buckets, *of_categorical)

    def _indicators(self, log: EventLog, order: np.ndarray) -> list[Float32[np.ndarray, "E _"]]:
        return [bag.rows(order).indicators(values) for bag, values in zip(log.bags, self.bag_values, strict=True)]

    def _buckets(self, column: int, hashes: UInt64[np.ndarray, " E"]) -> Int32[np.ndarray, " E"]:
        rows = self.id_buckets[column]
        if rows == 1:
            return np.zeros(len(hashes), np.int32)
        known = self.known_ids[column]
        if not len(known):
            return np.zeros(len(hashes), np.int32)
        # Searches the sorted ids, several times faster than np.isin, which sorts all hashes.
        place = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
        bucket = 1 + (place if len(known) == rows - 1 else hashes % np.uint64(rows - 1))
        return np.where(known[place] == hashes, bucket, 0).astype(np.int32)


class _Prepared(NamedTuple):
    """Intermediate arrays for both fitting and encoding; encoding standardises `context` in place."""

    alone: Bool[np.ndarray, " E"]  # in the order of the log
    order: Int64[np.ndarray, " E"]
    actions: Float32[np.ndarray, "E A"]  # as later events see them, numbers standardised; in the log's order
    context: Float32[np.ndarray, "E C"]  # in `order`
    context_names: tuple[str, ...]
    item_hashes: UInt64[np.ndarray, " I"]


def _missing(dense: Float32[np.ndarray, "E F"]) -> tuple[int, ...]:
    """Returns the columns to have an indicator: those with gaps, but not where the column before has the same gaps."""
    gaps = np.isnan(dense)
    same = [k > 0 and np.array_equal(gaps[:, k], gaps[:, k - 1]) for k in range(gaps.shape[1])]
    return tuple(np.flatnonzero(gaps.any(axis=0) & ~np.array(same, bool)).tolist())


def _counted(known_ids: Sequence[np.ndarray], config: InputConfig) -> tuple[int, ...]:
    return tuple(k for k, known in enumerate(known_ids[1:]) if len(known) > config.counters_above)


def _prepare(
    log: EventLog,
    config: InputConfig,
    counted: tuple[int, ...],
    scales: tuple[OutcomeScale, ...],
    *,
    as_history: bool,
) -> _Prepared:
    item_hashes = stable_hash(log.item_ids, "item")
    alone = log.new
    order = event_order(log, alone, item_hashes)
    if as_history:
        alone = alone & ~_first_of_kind(log, order)
        order = event_order(log, alone, item_hashes)
    actions = standardised(log.actions, scales, most=CLIP)
    smoothing = config.counter_smoothing
    counters, names = log_counters(log, actions, smoothing=smoothing, counted=~alone, columns=counted)
    return _Prepared(alone, order, actions, counters[order], names, item_hashes)


def _first_of_kind(log: EventLog, order: Int64[np.ndarray, " E"]) -> Bool[np.ndarray, " E"]:
    """Returns whether each event is the first, in the given order, of its user, item and time."""
    kinds = pl.DataFrame({"user": log.user[order], "item": log.item[order], "time": log.time_ms[order]})
    first = np.empty(len(order), bool)
    first[order] = kinds.select(pl.struct(pl.all()).is_first_distinct()).to_series().to_numpy()
    return first


def _actions(actions: Float32[np.ndarray, "E A"], order: np.ndarray) -> Float32[np.ndarray, "E A2"]:
    """Returns value and observed flag of each action, as of when it is known."""
    if not actions.shape[1]:  # orbax cannot save a layer without inputs
        return np.zeros((len(order), 1), np.float32)
    return _with_flags(actions[order])


def _late_actions(log: EventLog, order: np.ndarray, start_second: int) -> LateActions | None:
    if not np.any(log.action_known > log.time_ms[:, None]):
        return None
    known = known_seconds(log)[order] - start_second
    known = np.minimum(known, np.iinfo(np.int32).max).astype(np.int32)
    return LateActions(known, _with_flags(log.action_pending[None])[0])


def _with_flags(values: Float32[np.ndarray, "E A"]) -> Float32[np.ndarray, "E A2"]:
    observed = ~np.isnan(values)
    return np.concatenate([np.where(observed, values, 0), observed], axis=1, dtype=np.float32)
