"""Standardisation of numbers, clipped so that one outlier does not dominate."""

import numpy as np
from jaxtyping import Bool, Float32

CLIP = 5.0  # standard deviations


def mean_and_scale(
    values: Float32[np.ndarray, "E F"], chosen: Bool[np.ndarray, " E"]
) -> tuple[Float32[np.ndarray, " F"], Float32[np.ndarray, " F"]]:
    """Computes mean and standard deviation of the chosen rows without missing values.

    The mean of a column without values is 0; the deviation of such a column, or of a constant one, is 1.
    """
    mean = np.zeros(values.shape[1], np.float32)
    scale = np.ones_like(mean)
    for index, column in enumerate(values.T):
        column = column[chosen & ~np.isnan(column)].astype(np.float64)
        if len(column):
            mean[index] = column.mean()
            column -= mean[index]
            scale[index] = np.sqrt(np.mean(np.square(column, out=column))) or 1
    return mean, scale


def standardise(values: Float32[np.ndarray, "E F"], mean: np.ndarray, std: np.ndarray) -> None:
    """Standardises in place and clips to 5 standard deviations; missing values become 0, the mean."""
    values -= mean
    values /= std
    np.copyto(values, 0, where=np.isnan(values))
    np.clip(values, -CLIP, CLIP, out=values)
