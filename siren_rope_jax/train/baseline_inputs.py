"""The recommender's information about each event as one table, for models that read no sequences."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jaxtyping import Float32, Int32
from sklearn.preprocessing import OneHotEncoder

from siren_rope_jax.data.encode import Encoded, Encoder, InputConfig
from siren_rope_jax.data.event_log import EventLog
from siren_rope_jax.ops.calendar import calendar_features

UNKNOWN = -1


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaselineInputs:
    """One row per event, in the order of the log.

    Attributes:
      numbers: standardised counters and dense columns, and day and week as points on circles.
      number_names: names of the numbers.
      clock: local hour and weekday, for models that can split them anywhere.
      codes: index among the values known from training, or -1, for each categorical column without counters.
      code_names: names of the columns of codes.
    """

    numbers: Float32[np.ndarray, "E F"]
    number_names: tuple[str, ...]
    clock: Float32[np.ndarray, "E 2"]
    codes: Int32[np.ndarray, "E C"]
    code_names: tuple[str, ...]

    def for_trees(self) -> Float32[np.ndarray, "E G"]:
        """Returns all columns as numbers, the codes last; an unknown value is missing (NaN)."""
        codes = np.where(self.codes == UNKNOWN, np.float32(np.nan), self.codes.astype(np.float32))
        return np.concatenate([self.numbers, self.clock, codes], axis=1)

    def for_linear(self) -> scipy.sparse.csr_matrix:
        """Returns all columns but the clock, with one-hot codes."""
        if not self.code_names:
            return scipy.sparse.csr_matrix(self.numbers)
        one_hot = OneHotEncoder(handle_unknown="ignore").fit_transform(self.codes)
        joined = scipy.sparse.hstack([scipy.sparse.csr_matrix(self.numbers), one_hot])
        return scipy.sparse.csr_matrix(joined, dtype=np.float32)


def baseline_inputs(log: EventLog, config: InputConfig) -> BaselineInputs:
    """Collects the recommender's counters, calendar, dense and categorical columns, but not the date.

    A categorical column of many values enters only as counters, since codes for so many values overfit and become
    outdated.

    Args:
      log: the whole log.
      config: the recommender's encoding of it.
    """
    encoder, encoded = Encoder.fit_encode(log, config)
    columns = [encoded.columns["context"], encoded.columns["dense"], _circles(encoder, encoded)]
    names = [*encoder.context_names, *encoder.input_names, "day_cos", "day_sin", "week_cos", "week_sin"]
    codes, code_names = [], []
    for k, (name, known) in enumerate(zip(log.categorical_names, encoder.known_ids[1:], strict=True)):
        if len(known) and k not in encoder.counted:
            codes.append(_codes(log.categorical[:, k], known))
            code_names.append(name)
    clock = np.stack([log.second / 3600, (log.day + 3) % 7], axis=1).astype(np.float32)  # 1970 began on a Thursday
    numbers = np.empty((len(log.time_ms), len(names)), np.float32)
    numbers[encoded.log_index] = np.concatenate(columns, axis=1)
    return BaselineInputs(
        numbers=numbers,
        number_names=tuple(names),
        clock=clock * encoder.calendar,
        codes=np.stack(codes, axis=1) if codes else np.zeros((len(log.time_ms), 0), np.int32),
        code_names=tuple(code_names),
    )


def _circles(encoder: Encoder, encoded: Encoded) -> Float32[np.ndarray, "E 4"]:
    day, second = (jnp.asarray(encoded.columns[name]) for name in ("day", "second"))
    features = calendar_features(day, second, start_day=encoder.start_day, span_days=float(encoder.span_days))
    return np.asarray(features)[:, :4] * encoder.calendar


def _codes(hashes: np.ndarray, known: np.ndarray) -> Int32[np.ndarray, " E"]:
    place = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
    return np.where(known[place] == hashes, place, UNKNOWN).astype(np.int32)
