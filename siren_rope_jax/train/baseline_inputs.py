"""The recommender's information about each event as one table, for models that read no sequences."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jaxtyping import Float32, Int32
from sklearn.preprocessing import OneHotEncoder

from siren_rope_jax.data.encode import Encoded, Encoder, InputConfig
from siren_rope_jax.data.event_log import TRAIN, EventLog
from siren_rope_jax.data.log_counters import log_counters
from siren_rope_jax.ops.calendar import calendar_features

MOST_VALUES = 16  # of a categorical column that is read as it is
UNKNOWN = -1


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaselineInputs:
    """One row per event, in the order of the log.

    Attributes:
      numbers: standardised counters and dense columns, points on the circles of day and week.
      number_names: their names.
      clock: local hour and weekday, for models that can cut them anywhere.
      codes: of each categorical column with at most 16 values known from training: which, or -1.
      code_names: their names.
    """

    numbers: Float32[np.ndarray, "E F"]
    number_names: tuple[str, ...]
    clock: Float32[np.ndarray, "E 2"]
    codes: Int32[np.ndarray, "E C"]
    code_names: tuple[str, ...]

    def for_trees(self) -> Float32[np.ndarray, "E G"]:
        """Everything as numbers, the codes last; an unknown value is missing."""
        codes = np.where(self.codes == UNKNOWN, np.float32(np.nan), self.codes.astype(np.float32))
        return np.concatenate([self.numbers, self.clock, codes], axis=1)

    def for_linear(self) -> scipy.sparse.csr_matrix:
        """Everything but the clock, the codes one-hot."""
        if not self.code_names:
            return scipy.sparse.csr_matrix(self.numbers)
        one_hot = OneHotEncoder(handle_unknown="ignore").fit_transform(self.codes)
        joined = scipy.sparse.hstack([scipy.sparse.csr_matrix(self.numbers), one_hot])
        return scipy.sparse.csr_matrix(joined, dtype=np.float32)


def baseline_inputs(log: EventLog, config: InputConfig) -> BaselineInputs:
    """Lays out the recommender's counters, calendar, dense and categorical columns; no date, which is a clock.

    A categorical column with more than 16 known values becomes counters: how often the value has been seen strictly
    before the event, and the rate of each action, as of an item. Codes of so many values overfit, and grow old.

    Args:
      log: the whole log.
      config: how the recommender encodes it.
    """
    encoder, encoded = Encoder.fit_encode(log, config)
    columns = [encoded.columns["context"], encoded.columns["dense"], _circles(encoder, encoded)]
    names = [*encoder.context_names, *encoder.input_names, "day_cos", "day_sin", "week_cos", "week_sin"]
    codes, code_names, wide = [], [], []
    for k, (name, known) in enumerate(zip(log.categorical_names, encoder.known_ids[1:], strict=True)):
        if len(known) > MOST_VALUES:
            wide.append(k)
        elif len(known):
            codes.append(_codes(log.categorical[:, k], known))
            code_names.append(name)
    numbers = np.empty((len(log.time), len(names)), np.float32)
    numbers[encoded.event] = np.concatenate(columns, axis=1)
    for k in wide:
        rates, rate_names = _value_rates(log, k, config)
        numbers = np.concatenate([numbers, rates], axis=1)
        names += rate_names
    return BaselineInputs(
        numbers=numbers,
        number_names=tuple(names),
        clock=np.stack([log.second / 3600, (log.day + 3) % 7], axis=1).astype(np.float32),  # 1970 began on a Thursday
        codes=np.stack(codes, axis=1) if codes else np.zeros((len(log.time), 0), np.int32),
        code_names=tuple(code_names),
    )


def _circles(encoder: Encoder, encoded: Encoded) -> Float32[np.ndarray, "E 4"]:
    day, second = (jnp.asarray(encoded.columns[name]) for name in ("day", "second"))
    features = calendar_features(day, second, start_day=encoder.start_day, span_days=float(encoder.span_days))
    return np.asarray(features)[:, :4]


def _codes(hashes: np.ndarray, known: np.ndarray) -> Int32[np.ndarray, " E"]:
    place = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
    return np.where(known[place] == hashes, place, UNKNOWN).astype(np.int32)


def _value_rates(log: EventLog, column: int, config: InputConfig) -> tuple[Float32[np.ndarray, "E R"], list[str]]:
    """Counters of a categorical value, from strictly earlier events, as the recommender has them of an item."""
    value = np.unique(log.categorical[:, column], return_inverse=True)[1].astype(np.int32)
    counters, names = log_counters(log, smoothing=config.counter_smoothing, item=value)
    chosen = [k for k, name in enumerate(names) if name.startswith("item_")]
    rates, train = counters[:, chosen], log.period == TRAIN
    rates -= rates[train].mean(axis=0)
    rates /= np.maximum(rates[train].std(axis=0), 1e-6)
    return rates, [f"{log.categorical_names[column]}{names[k].removeprefix('item')}" for k in chosen]
