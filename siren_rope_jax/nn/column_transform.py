"""Preprocessing of the context columns: binned, standardised, and weighted by how well each predicts the tasks."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Float64

Numbers = TypeVar("Numbers", np.ndarray, jax.Array)

_EVENTS_OF_A_BIN, _MOST_BINS, _FEW_VALUES = 100, 8, 20  # a column of fewer values has no bins
_LEAST_WEIGHT, _NOISE, _HALF_WEIGHT = 0.05, 4.0, 30.0  # the latter two in squared standard errors
_CLIP = 5.0  # standard deviations
_NARROWEST = 1e-6  # least width of a bin: float32 cannot resolve less near 5


@dataclasses.dataclass(frozen=True)
class ColumnTransform:
    """Constants fitted to the training events before the first step; hashable, as a part of the compiled program.

    Trees split a column anywhere and ignore uninformative columns; on a small log that is most of their advantage
    over a network. The transform gives the network both:
    - A piecewise linear encoding with quantile bins (Gorishniy, Rubachev, Babenko 2022), if there are enough events. A
      value that a whole bin of events share, such as 0 days, has bins of its own to the values beside it (ours): it is
      told from them, however close they are.
    - Shrinkage (ours): each number is multiplied by z / (z + 30), where z is its largest squared correlation with a
      task, in squared standard errors, less 4 for noise. Uninformative columns are learned slowly; on a long log
      almost every column has a weight near 1.

    Attributes:
      bins: column, lower and upper edge of each bin.
      mean: mean of each column, then of each bin.
      scale: their standard deviations.
      weight: factor of each standardised number, in [0.05, 1).
    """

    bins: tuple[tuple[int, float, float], ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weight: tuple[float, ...]

    @classmethod
    def fit(cls, columns: Float32[np.ndarray, "E F"], labels: Float32[np.ndarray, "E K"]) -> "ColumnTransform":
        """Fits the transform to training events.

        Args:
          columns: context columns of the events.
          labels: their outcomes; NaN where unobserved.
        """
        count = min(len(columns) // (_EVENTS_OF_A_BIN * max(columns.shape[1], 1)), _MOST_BINS)
        bins = [edges for k, column in enumerate(columns.T) for edges in _bins(k, column, count)]
        few = [columns[:, i : i + 64] for i in range(0, columns.shape[1], 64)]
        expanded = (_expand(columns, bins[i : i + 64]) for i in range(0, len(bins), 64))
        parts = [_statistics(part, labels) for part in itertools.chain(few, expanded)]
        mean, scale, told = (np.concatenate(of_parts) for of_parts in zip(*parts, strict=True))
        weight = np.maximum(told / (told + _HALF_WEIGHT), _LEAST_WEIGHT)
        return cls(tuple(bins), *(tuple(values.tolist()) for values in (mean, scale, weight)))

    @classmethod
    def from_table(cls, table: Float64[np.ndarray, "G 6"]) -> "ColumnTransform | None":
        """Restores the transform that `to_table` wrote; None if the table has no rows."""
        if not len(table):
            return None
        mean, scale, weight = (tuple(values) for values in table[:, 3:].T.tolist())
        bins = tuple((int(column), low, high) for column, low, high in table[:, :3].tolist() if low < high)
        return cls(bins, mean, scale, weight)

    def to_table(self) -> Float64[np.ndarray, "G 6"]:
        """Returns one row per number: column, bin edges (0, 0 without a bin), mean, standard deviation, weight."""
        columns = [(column, 0.0, 0.0) for column in range(self.out_features - len(self.bins))]
        return np.column_stack([np.array([*columns, *self.bins]).reshape(-1, 3), self.mean, self.scale, self.weight])

    @property
    def out_features(self) -> int:
        """Count of the numbers that one event's columns are transformed into."""
        return len(self.mean)

    def of(self, columns: Sequence[int]) -> "ColumnTransform":
        """Restricts the transform to some of the columns, in the given order."""
        place, inputs = {column: k for k, column in enumerate(columns)}, self.out_features - len(self.bins)
        kept = [k for k, (column, *_) in enumerate(self.bins) if column in place]
        numbers = [*columns, *(inputs + k for k in kept)]
        return ColumnTransform(
            tuple((place[column], low, high) for column, low, high in (self.bins[k] for k in kept)),
            *(tuple(values[k] for k in numbers) for values in (self.mean, self.scale, self.weight)),
        )

    def __call__(self, columns: Float[Array, "*batch F"]) -> Float[Array, "*batch G"]:
        """Transforms columns of events into numbers of order 1 or less."""
        x = columns if not self.bins else jnp.concatenate([columns, _expand(columns, self.bins)], axis=-1)
        mean, scale, weight = (jnp.asarray(values, x.dtype) for values in (self.mean, self.scale, self.weight))
        return weight * jnp.clip((x - mean) / scale, -_CLIP, _CLIP)


def _bins(column: int, values: Float32[np.ndarray, " E"], count: int) -> list[tuple[int, float, float]]:
    if count < 2 or len(np.unique(values[:: max(1, len(values) // 10_000)])) < _FEW_VALUES:
        return []
    edges = np.quantile(values, np.linspace(0, 1, count + 1)).astype(np.float32)
    shared = edges[:-1][edges[:-1] == edges[1:]]
    for value in np.unique(shared):
        below = values[values < value - _NARROWEST].max(initial=edges[0])
        above = values[values > value + _NARROWEST].min(initial=edges[-1])
        edges = np.unique([*edges, below, above])
    edges = edges.tolist()
    return [(column, low, high) for low, high in itertools.pairwise(edges) if high - low > _NARROWEST]


def _expand(columns: Numbers, bins: Sequence[tuple[int, float, float]]) -> Numbers:
    """Returns the fraction of each bin that lies below its column's value."""
    of_column, low, high = zip(*bins, strict=True)
    low, high = np.array(low, np.float32), np.array(high, np.float32)
    return ((columns[..., list(of_column)] - low) / (high - low)).clip(0, 1)


def _statistics(
    numbers: Float32[np.ndarray, "E G"], labels: Float32[np.ndarray, "E K"]
) -> tuple[Float64[np.ndarray, " G"], Float64[np.ndarray, " G"], Float64[np.ndarray, " G"]]:
    """Returns mean, standard deviation (1 for a constant) and z of each number."""
    numbers = numbers.astype(np.float64)
    mean, scale = (numbers.mean(axis=0), numbers.std(axis=0)) if len(numbers) else np.zeros((2, numbers.shape[1]))
    told = np.zeros(numbers.shape[1])
    for label in labels.T:
        seen = ~np.isnan(label)
        x, y = numbers[seen] - mean, label[seen].astype(np.float64)
        if len(y) and y.std() > 0:
            deviation = x.std(axis=0)
            r = (x * (y - y.mean())[:, None]).mean(axis=0) / (np.where(deviation > 0, deviation, 1) * y.std())
            told = np.maximum(told, len(y) * r**2 - _NOISE)
    return mean, np.where(scale > 1e-6, scale, 1), told
