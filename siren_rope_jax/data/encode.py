"""What training data teaches about the inputs (known ids, means, spans), and events encoded by it as arrays."""

import dataclasses
import json
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int32, UInt64

from siren_rope_jax.data.counters import history_counters
from siren_rope_jax.data.event_log import TRAIN, EventLog
from siren_rope_jax.data.schema import InputError
from siren_rope_jax.data.stable_hash import stable_hash
from siren_rope_jax.settings import check_settings

_CLIP = 5.0  # standard deviations; one absurd duration must not drown the rest


@dataclasses.dataclass(frozen=True)
class InputConfig:
    """How ids and numbers become inputs."""

    item_buckets: int = 16_384
    """Rows of the hashed item table; the first is for unknown items. 1 leaves item identity out."""
    categorical_buckets: int = 1_024
    """Rows of the hashed table of each categorical column; the first is for unknown values."""
    min_count: int = 5
    """An id seen less often than this in training is unknown."""
    counter_smoothing: float = 10.0
    """Weight, in events, of the running base rate in a user's or an item's rates."""

    def __post_init__(self) -> None:
        check_settings(
            self,
            item_buckets="[1, 2147483647]",
            categorical_buckets="[1, 2147483647]",
            min_count="[1, inf)",
            counter_smoothing="(0, inf)",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoded:
    """Events of whole users in their order of time, user after user; the arrays that batches are cut from."""

    event: np.ndarray  # index into the log that was encoded
    user: np.ndarray  # non-decreasing
    columns: dict[str, np.ndarray]  # the fields of nn.features.Events but segment and position, and "labels"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoder:
    """Encodes any log of the same columns as the training log was encoded."""

    config: InputConfig
    id_names: tuple[str, ...]  # the item first
    known_ids: tuple[UInt64[np.ndarray, " _"], ...]  # sorted hashes
    dense_names: tuple[str, ...]  # of the log
    missing: tuple[int, ...]  # dense columns that get an indicator of missing values too
    dense_mean: Float32[np.ndarray, " F"]
    dense_std: Float32[np.ndarray, " F"]
    context_names: tuple[str, ...]
    context_mean: Float32[np.ndarray, " E"]
    context_std: Float32[np.ndarray, " E"]
    action_names: tuple[str, ...]
    task_names: tuple[str, ...]
    task_rates: tuple[float, ...]
    start_day: int
    span_days: int
    start_second: int  # Unix

    @classmethod
    def fit(cls, log: EventLog, config: InputConfig) -> "Encoder":
        """Learns from the training period alone.

        Args:
          log: the whole log.
          config: tables and smoothing.
        """
        train = log.period == TRAIN
        known = []
        for hashes in _ids(log):
            values, counts = np.unique(hashes[train], return_counts=True)
            known.append(values[counts >= config.min_count])
        counters, context_names = _counters(log, config)
        dense = log.dense[train]
        labels = log.labels[train]
        start_day = int(log.day[train].min())
        return cls(
            config=config,
            id_names=("item", *log.categorical_names),
            known_ids=tuple(known),
            dense_names=log.dense_names,
            missing=tuple(np.flatnonzero(np.isnan(dense).any(axis=0)).tolist()),
            dense_mean=_nan_mean(dense),
            dense_std=_scale(dense),
            context_names=context_names,
            context_mean=_nan_mean(counters[train]),
            context_std=_scale(counters[train]),
            action_names=log.action_names,
            task_names=log.task_names,
            task_rates=tuple(float(np.nanmean(column, dtype=np.float64)) for column in labels.T),
            start_day=start_day,
            span_days=int(log.day[train].max()) - start_day + 1,
            start_second=int(log.time[train].min()) // 1000,
        )

    def encode(self, log: EventLog) -> Encoded:
        """Turns the log into arrays, user after user.

        Args:
          log: with the columns that the encoder was fitted on.

        Raises:
          InputError: if the columns differ, or an event lies more than 68 years from the start of training.
        """
        fitted = {"task_names": self.task_names, "action_names": self.action_names, "dense_names": self.dense_names}
        for what, names in (fitted | {"categorical_names": self.id_names[1:]}).items():
            if names != getattr(log, what):
                raise InputError(f"the log must have the {what} {names}, but has {getattr(log, what)}")
        elapsed = log.time // 1000 - self.start_second
        if len(elapsed) and np.abs(elapsed).max() > np.iinfo(np.int32).max:
            raise InputError(
                "events must lie within 68 years of the start of training, but one lies "
                f"{np.abs(elapsed).max() / 31_556_952:.0f} years away"
            )
        order = np.argsort(log.user, kind="stable")
        counters, _ = _counters(log, self.config)
        ids = [self._buckets(column, hashes[order]) for column, hashes in enumerate(_ids(log))]
        dense = log.dense[order]
        absent = np.isnan(dense[:, self.missing]).astype(np.float32)
        columns = {
            "day": log.day[order],
            "second": log.second[order],
            "elapsed": elapsed[order].astype(np.int32),
            "ids": np.stack(ids, axis=1),
            "dense": np.concatenate([_standardised(dense, self.dense_mean, self.dense_std), absent], axis=1),
            "actions": _visible_actions(log, order),
            "context": _standardised(counters[order], self.context_mean, self.context_std),
            "labels": log.labels[order],
        }
        return Encoded(event=order, user=log.user[order], columns=columns)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the columns of the encoded "dense"."""
        return (*self.dense_names, *(f"{self.dense_names[column]}_missing" for column in self.missing))

    @property
    def action_features(self) -> int:
        """Columns of the encoded "actions": value and observed flag of each action; one of zeros without any."""
        return max(1, 2 * len(self.action_names))

    @property
    def id_buckets(self) -> tuple[int, ...]:
        """Rows of each id table."""
        return (self.config.item_buckets, *(self.config.categorical_buckets,) * (len(self.id_names) - 1))

    def _buckets(self, column: int, hashes: UInt64[np.ndarray, " E"]) -> Int32[np.ndarray, " E"]:
        rows = self.id_buckets[column]
        if rows == 1:
            return np.zeros(len(hashes), np.int32)
        known = np.isin(hashes, self.known_ids[column])
        return np.where(known, 1 + hashes % np.uint64(rows - 1), 0).astype(np.int32)

    def save(self, path: Path) -> None:
        """Writes the encoder as one .npz file."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        known = fields.pop("known_ids")
        arrays = {name: fields.pop(name) for name in list(fields) if isinstance(fields[name], np.ndarray)}
        fields["config"] = dataclasses.asdict(self.config)
        arrays |= {f"known_ids_{column}": values for column, values in enumerate(known)}
        np.savez(path, fields=json.dumps(fields), **arrays)

    @classmethod
    def load(cls, path: Path) -> "Encoder":
        """Reads what `save` wrote."""
        with np.load(path) as file:
            arrays = dict(file)
        fields = json.loads(str(arrays.pop("fields")))
        fields = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
        fields["config"] = InputConfig(**fields["config"])
        known = tuple(arrays.pop(f"known_ids_{column}") for column in range(len(fields["id_names"])))
        return cls(known_ids=known, **fields, **arrays)


def _ids(log: EventLog) -> list[UInt64[np.ndarray, " E"]]:
    items = stable_hash(log.item_ids, "item")[log.item]
    return [items, *log.categorical.T]


def _counters(log: EventLog, config: InputConfig) -> tuple[Float32[np.ndarray, "E C"], tuple[str, ...]]:
    return history_counters(
        log.time,
        log.user,
        log.item,
        log.actions,
        log.action_known,
        log.action_pending,
        action_names=log.action_names,
        smoothing=config.counter_smoothing,
    )


def _visible_actions(log: EventLog, order: np.ndarray) -> Float32[np.ndarray, "E A2"]:
    """Value and observed flag of each action as the user's next event, at a later second, may see it."""
    if not log.action_names:  # an array without columns is nothing that orbax can save a layer for
        return np.zeros((len(order), 1), np.float32)
    user, time = log.user[order], log.time[order]
    # Events of one second do not see each other (ModelConfig.hide_ties), so what counts is the next second's event.
    last = np.flatnonzero(np.r_[(user[:-1] != user[1:]) | (time[:-1] // 1000 != time[1:] // 1000), True][: len(user)])
    after = last[np.searchsorted(last, np.arange(len(user)))] + 1
    follows = np.append(user, -1)[after] == user
    next_time = np.where(follows, np.append(time, 0)[after], np.iinfo(np.int64).max)
    known = log.action_known[order] <= next_time[:, None]
    shown = np.where(known, log.actions[order], log.action_pending)
    observed = ~np.isnan(shown)
    return np.concatenate([np.where(observed, shown, 0), observed], axis=1).astype(np.float32)


def _nan_mean(values: np.ndarray) -> Float32[np.ndarray, " F"]:
    count = np.maximum((~np.isnan(values)).sum(axis=0), 1)
    return (np.nansum(values, axis=0, dtype=np.float64) / count).astype(np.float32)


def _scale(values: np.ndarray) -> Float32[np.ndarray, " F"]:
    """Standard deviation, or 1 for a constant column."""
    mean = _nan_mean(values)
    count = np.maximum((~np.isnan(values)).sum(axis=0), 1)
    std = np.sqrt(np.nansum((values.astype(np.float64) - mean) ** 2, axis=0) / count)
    return np.where(std > 0, std, 1).astype(np.float32)


def _standardised(values: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Missing values become the mean."""
    return np.clip(np.nan_to_num((values - mean) / std, nan=0.0), -_CLIP, _CLIP).astype(np.float32)
