"""Scale of outcomes for training: numbers are transformed, then standardised by the training period."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64


class Transform(NamedTuple):
    """A monotonic function of an outcome, and its inverse.

    Attributes:
      forward: function of float64 numbers.
      inverse: inverse of `forward`, also for predictions of its values.
      least: smallest number that `forward` accepts.
    """

    forward: Callable[[Float64[np.ndarray, " E"]], Float64[np.ndarray, " E"]]
    inverse: Callable[[Float64[np.ndarray, " E"]], Float64[np.ndarray, " E"]]
    least: float


def _same(values: np.ndarray) -> np.ndarray:
    return values


def _expm1(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # a diverging prediction becomes infinite, which a later check refuses
        return np.maximum(np.expm1(values), 0.0)  # no prediction below the least possible outcome


TRANSFORMS = {"none": Transform(_same, _same, -np.inf), "log1p": Transform(np.log1p, _expm1, 0.0)}


@dataclasses.dataclass(frozen=True)
class OutcomeScale:
    """Scale of one outcome, fitted to the training period.

    Attributes:
      name: name of the task or action.
      kind: kind of the signal, a key of `data.signals.SIGNALS`.
      transform: key of `TRANSFORMS`.
      mean: mean of the observed outcomes; the base rate of a 0/1 outcome.
      centre: mean of the transformed outcomes; 0 if they are not standardised.
      std: standard deviation of the transformed outcomes; 1 for a constant, or if they are not standardised.
    """

    name: str
    kind: str = "binary"
    transform: str = "none"
    mean: float = 0.5
    centre: float = 0.0
    std: float = 1.0

    @property
    def is_plain(self) -> bool:
        """Whether outcomes are trained on without change."""
        return (self.transform, self.centre, self.std) == ("none", 0.0, 1.0)

    def standardise(self, values: Float32[np.ndarray, " E"]) -> Float32[np.ndarray, " E"]:
        """Returns transformed and standardised outcomes; NaN (unobserved) stays NaN."""
        transformed = TRANSFORMS[self.transform].forward(values.astype(np.float64))
        return ((transformed - self.centre) / self.std).astype(np.float32)

    def restore(self, values: Float[np.ndarray, " E"]) -> Float32[np.ndarray, " E"]:
        """Converts standardised predictions to the scale of the log.

        The predicted mean of a logarithm becomes a number close to the outcome's median, which is below its mean.
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
      scales: one scale per column.
      most: bound, in standard deviations, to which numbers are clipped.
    """
    if all(scale.is_plain for scale in scales):
        return values
    result = np.empty_like(values)
    for column, scale in enumerate(scales):
        result[:, column] = np.clip(scale.standardise(values[:, column]), -most, most)
    return result


def weighted_mean(values: Float32[np.ndarray, " E"], weight: Float32[np.ndarray, " E"]) -> float | None:
    """Returns the mean of the observed values; None if none is observed with a weight above 0."""
    seen = ~np.isnan(values) & (weight > 0)
    return float(np.average(values[seen].astype(np.float64), weights=weight[seen])) if seen.any() else None


def fit_scale(
    name: str, kind: str, transform: str, values: Float32[np.ndarray, " E"], weight: Float32[np.ndarray, " E"]
) -> OutcomeScale:
    """Fits the scale of a number.

    Args:
      name: name of the outcome.
      kind: kind of its signal.
      transform: key of `TRANSFORMS`.
      values: outcomes of the training period; NaN where unobserved.
      weight: weights of the events.
    """
    mean = weighted_mean(values, weight)
    if mean is None:
        return OutcomeScale(name, kind, transform, 0.0)
    seen = ~np.isnan(values) & (weight > 0)
    transformed = TRANSFORMS[transform].forward(values[seen].astype(np.float64))
    centre = float(np.average(transformed, weights=weight[seen]))
    std = float(np.sqrt(np.average((transformed - centre) ** 2, weights=weight[seen])))
    return OutcomeScale(name, kind, transform, mean, centre, std or 1.0)
