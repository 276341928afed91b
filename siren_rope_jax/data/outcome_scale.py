"""Outcomes as a model is trained on them: numbers are transformed, then standardised by the training period."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64


class Transform(NamedTuple):
    """A monotonic function of an outcome, and its inverse.

    Attributes:
      forward: of float64 numbers.
      inverse: of what `forward` returns, or of predictions of it.
      least: the smallest number that it takes.
    """

    forward: Callable[[Float64[np.ndarray, " E"]], Float64[np.ndarray, " E"]]
    inverse: Callable[[Float64[np.ndarray, " E"]], Float64[np.ndarray, " E"]]
    least: float


def _same(values: np.ndarray) -> np.ndarray:
    return values


def _expm1(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # what diverges becomes infinite, and is refused where predictions are checked
        return np.maximum(np.expm1(values), 0.0)  # no prediction may lie below all that could be observed


TRANSFORMS = {"none": Transform(_same, _same, -np.inf), "log1p": Transform(np.log1p, _expm1, 0.0)}


@dataclasses.dataclass(frozen=True)
class OutcomeScale:
    """What the training period teaches of one outcome.

    Attributes:
      name: of the task or action.
      kind: of the signal, a key of `data.signals.SIGNALS`.
      transform: a key of `TRANSFORMS`.
      mean: of the observed outcomes; of a 0/1 outcome, the base rate.
      centre: mean of the transformed outcomes; 0 where they are not standardised.
      std: their standard deviation; 1 of a constant, and where they are not standardised.
    """

    name: str
    kind: str = "binary"
    transform: str = "none"
    mean: float = 0.5
    centre: float = 0.0
    std: float = 1.0

    @property
    def is_plain(self) -> bool:
        """Whether outcomes are trained on as they are."""
        return (self.transform, self.centre, self.std) == ("none", 0.0, 1.0)

    def standardise(self, values: Float32[np.ndarray, " E"]) -> Float32[np.ndarray, " E"]:
        """Returns outcomes as they are trained on; NaN, which is unobserved, stays."""
        transformed = TRANSFORMS[self.transform].forward(values.astype(np.float64))
        return ((transformed - self.centre) / self.std).astype(np.float32)

    def restore(self, values: Float[np.ndarray, " E"]) -> Float32[np.ndarray, " E"]:
        """Returns standardised predictions on the scale of the log.

        The predicted mean of a logarithm becomes a number like the median of the outcome, below its mean.
        """
        with np.errstate(over="ignore"):
            scaled = values.astype(np.float64) * self.std + self.centre
            return TRANSFORMS[self.transform].inverse(scaled).astype(np.float32)


def standardised(
    values: Float32[np.ndarray, "E K"], scales: tuple[OutcomeScale, ...], *, most: float = np.inf
) -> Float32[np.ndarray, "E K"]:
    """Standardises each column of outcomes by its scale.

    Args:
      values: outcomes; NaN where unobserved.
      scales: one a column.
      most: standard deviations that no number is further from its mean.
    """
    if all(scale.is_plain for scale in scales):
        return values
    result = np.empty_like(values)
    for column, scale in enumerate(scales):
        result[:, column] = np.clip(scale.standardise(values[:, column]), -most, most)
    return result


def fit_scale(name: str, kind: str, transform: str, values: Float32[np.ndarray, " E"]) -> OutcomeScale:
    """Fits the scale of a number.

    Args:
      name: of the outcome.
      kind: of its signal.
      transform: a key of `TRANSFORMS`.
      values: outcomes of the training period; NaN where unobserved.
    """
    seen = values[~np.isnan(values)].astype(np.float64)
    if not len(seen):
        return OutcomeScale(name, kind, transform, 0.0)
    transformed = TRANSFORMS[transform].forward(seen)
    std = float(transformed.std())
    return OutcomeScale(name, kind, transform, float(seen.mean()), float(transformed.mean()), std or 1.0)
