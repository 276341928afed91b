"""Calibration: predictions against outcomes in bins of equally many events."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from siren_rope_jax.train.metrics import resampled_totals
from siren_rope_jax.train.tasks import Evaluated

BINS = 15
_FEWEST = 30  # events in a bin


class Calibration(NamedTuple):
    """Mean prediction and mean outcome of each bin, with the 95 % interval of the outcome over users."""

    predicted: Float64[np.ndarray, " B"]
    observed: Float64[np.ndarray, " B"]
    low: Float64[np.ndarray, " B"]
    high: Float64[np.ndarray, " B"]


def calibration(events: Evaluated, *, bins: int = BINS) -> Calibration | None:
    """Computes mean prediction and outcome in bins of equally many events, or nearly: equal predictions share a bin.

    Args:
      events: labels and predictions; events without a label or of weight 0 are left out.
      bins: largest number of bins; fewer if there are few events.

    Returns:
      The bins, by rising prediction; None if no event counts.
    """
    weight = np.ones(len(events.labels)) if events.weight is None else events.weight.astype(np.float64)
    counts = ~np.isnan(events.labels) & (weight > 0)
    if not counts.any():
        return None
    labels, predictions, user, weight = (x[counts] for x in (events.labels, events.predictions, events.user, weight))
    bins = max(1, min(bins, len(labels) // _FEWEST))
    edges = np.unique(np.quantile(predictions, np.linspace(0, 1, bins + 1)[1:-1]))
    _, of_event = np.unique(np.searchsorted(edges, predictions, side="left"), return_inverse=True)
    bins = of_event.max() + 1
    columns = np.zeros((len(labels), 2 * bins))
    columns[np.arange(len(labels)), of_event] = weight
    columns[np.arange(len(labels)), bins + of_event] = weight * labels
    totals, resampled = resampled_totals(user, columns)
    with np.errstate(invalid="ignore"):  # a resample may have no event in a bin
        low, high = np.nanquantile(resampled[:, bins:] / resampled[:, :bins], (0.025, 0.975), axis=0)
    predicted = np.bincount(of_event, weights=weight * predictions) / totals[:bins]
    return Calibration(predicted, totals[bins:] / totals[:bins], low, high)
