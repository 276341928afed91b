"""Metrics of predicted probabilities and numbers, and a paired bootstrap over users for differences between systems."""

import math
from collections.abc import Callable

import numpy as np
import polars as pl
from jaxtyping import Float, Float64, Shaped

_CLIP = 1e-7
_ECE_BINS = 15
# Weights that the bootstrap draws at a time, to bound its memory for any number of users.
_DRAWS_AT_ONCE = 4_000_000


def task_metrics(
    labels: Float[np.ndarray, " E"],
    probabilities: Float[np.ndarray, " E"],
    user: Shaped[np.ndarray, " E"],
    weight: Float[np.ndarray, " E"] | None = None,
) -> dict[str, float | int | None]:
    """Computes all metrics of a binary task over its observed labels.

    Args:
      labels: 0 or 1, NaN where the outcome was not observed. A label p between 0 and 1 counts as p of a positive and
        1 - p of a negative event.
      probabilities: predicted probability of a positive, for every event.
      user: user of each event, as a code or an id.
      weight: weight of each event, which counts like so many events; 1 if not given. Events of weight 0 are left out.

    Returns:
      `ne` (mean log loss / entropy of the evaluated events' own base rate), `auc`, `gauc` (per-user AUC,
      weighted by events, over users with both classes), `ece` (15 bins of equal mass), `log_loss`, and the
      number of `events` and `positives`, without weights. A metric that is not defined, such as the AUC of one class,
      is None.

    Raises:
      ValueError: if shapes differ, a label is neither within [0, 1] nor NaN, a probability is not within [0, 1], or a
        weight is negative or not finite.
    """
    for name, array in (("probabilities", probabilities), ("user", user)):
        check_events(name, array, labels.shape)
    weight = _checked_weight(weight, labels)
    if not np.all(np.isnan(labels) | ((labels >= 0) & (labels <= 1))):
        raise ValueError("labels must be within [0, 1] or NaN, but have other values")
    _check_probabilities("probabilities", probabilities)

    observed = ~np.isnan(labels) & (weight > 0)
    label, user, weight = labels[observed].astype(np.float64), user[observed], weight[observed]
    probability = probabilities[observed].astype(np.float64)
    if not label.size:
        return dict.fromkeys(("ne", "auc", "gauc", "ece", "log_loss"), None) | {"events": 0, "positives": 0}
    log_loss = float(np.average(cross_entropy(label, probability), weights=weight))
    positives, rate = float(label.sum()), float(np.average(label, weights=weight))
    return {
        "ne": log_loss / _entropy(rate) if 0 < rate < 1 else None,
        "auc": grouped_auc(label, probability, np.zeros(len(label), np.int8), weight),
        "gauc": grouped_auc(label, probability, user, weight),
        "ece": _expected_calibration_error(label, probability, weight),
        "log_loss": log_loss,
        "events": int(label.size),
        "positives": int(positives) if positives.is_integer() else positives,
    }


def regression_metrics(
    labels: Float[np.ndarray, " E"],
    predictions: Float[np.ndarray, " E"],
    *,
    training_mean: float,
    weight: Float[np.ndarray, " E"] | None = None,
) -> dict[str, float | int | None]:
    """Computes all metrics of a continuous task over its observed labels.

    Args:
      labels: outcomes; NaN where not observed.
      predictions: prediction for every event, on the scale of the labels.
      training_mean: prediction of a baseline without any input.
      weight: as in `task_metrics`.

    Returns:
      `rmse`, `mae`, `r2` (1 - squared errors / those of the evaluated events' own mean), `spearman`; `base_rmse` and
      `base_mae` of predicting the training mean, `relative_rmse` = rmse / base_rmse; and the number of `events`. A
      metric that is not defined, such as the R2 of equal labels, is None.

    Raises:
      ValueError: if shapes differ, or a weight is negative or not finite.
    """
    check_events("predictions", predictions, labels.shape)
    weight = _checked_weight(weight, labels)
    observed = ~np.isnan(labels) & (weight > 0)
    label, predicted = labels[observed].astype(np.float64), predictions[observed].astype(np.float64)
    weight = weight[observed]
    names = ("rmse", "mae", "r2", "spearman", "relative_rmse", "base_rmse", "base_mae")
    if not label.size:
        return dict.fromkeys(names) | {"events": 0}

    def mean(values: np.ndarray) -> float:
        return float(np.average(values, weights=weight))

    error, base_error = predicted - label, training_mean - label
    rmse, base_rmse = (math.sqrt(mean(x**2)) for x in (error, base_error))
    spread = mean((label - mean(label)) ** 2) if label.min() < label.max() else 0.0
    ranked = spread and predicted.min() < predicted.max()
    values = (
        rmse,
        mean(np.abs(error)),
        1 - rmse**2 / spread if spread else None,
        _correlation(_ranks(label, weight), _ranks(predicted, weight), weight) if ranked else None,
        rmse / base_rmse if base_rmse else None,
        base_rmse,
        mean(np.abs(base_error)),
    )
    return dict(zip(names, values, strict=True)) | {"events": int(label.size)}


def expected_ne(oracle_probability: Float[np.ndarray, " E"], probability: Float[np.ndarray, " E"]) -> float:
    """Computes the expected normalised entropy under known probabilities, without the noise of drawn labels.

    Args:
      oracle_probability: true (or Bayes-oracle) probability of each event.
      probability: predicted probability of each event.

    Returns:
      Mean cross-entropy of `probability` under `oracle_probability`, divided by the entropy of the base rate
      mean(oracle_probability).

    Raises:
      ValueError: if shapes differ, a probability is not within [0, 1], or the base rate is 0 or 1.
    """
    check_events("probability", probability, oracle_probability.shape)
    _check_probabilities("oracle_probability", oracle_probability)
    _check_probabilities("probability", probability)
    base_rate = float(oracle_probability.mean(dtype=np.float64)) if oracle_probability.size else 0.0
    if not 0 < base_rate < 1:
        raise ValueError(f"oracle_probability must have a mean strictly between 0 and 1, but has {base_rate}")
    return float(cross_entropy(oracle_probability, probability).mean()) / _entropy(base_rate)


def cross_entropy(
    target: Float[np.ndarray, " *shape"], probability: Float[np.ndarray, " *shape"]
) -> Float[np.ndarray, " *shape"]:
    """Computes the cross-entropy of each prediction in nats, in float64; the only place that clips probabilities.

    Args:
      target: label, or true probability, of each event; NaN gives NaN.
      probability: predicted probability of each event.

    Returns:
      -(target log p + (1 - target) log(1 - p)), with p clipped to [1e-7, 1 - 1e-7].
    """
    target = target.astype(np.float64)
    clipped = np.clip(probability.astype(np.float64), _CLIP, 1 - _CLIP)
    return -(target * np.log(clipped) + (1 - target) * np.log1p(-clipped))


def paired_bootstrap(
    user: Shaped[np.ndarray, " E"],
    columns: Float[np.ndarray, "E M"],
    statistic: Callable[[Float[np.ndarray, "*samples M"]], Float[np.ndarray, " *samples"]],
    *,
    samples: int = 1000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Computes value and 95 % interval of a function of totals, by resampling users with all their events.

    Every column is resampled with the same users, so that a difference or ratio between systems is paired. Each column
    holds one summand per event, such as the cross-entropy of one system, a count or a label.

    Args:
      user: user of each event, as a code or an id.
      columns: summands, one row per event.
      statistic: maps totals, with the columns on the last axis, to one value for each set of totals.
      samples: number of resamples.
      seed: seed of the resampling.

    Returns:
      The statistic of the actual totals, and the 2.5 % and 97.5 % quantiles over the resamples (NaN if it is
      undefined in one of them).

    Raises:
      ValueError: if shapes differ, there is no event, a summand is not finite, `samples` is not positive, or
        the statistic does not return one value for each set of totals.
    """
    actual, resampled = resampled_totals(user, columns, samples=samples, seed=seed)
    values = np.asarray(statistic(resampled))
    if values.shape != (samples,):
        shape = (samples, columns.shape[1])
        raise ValueError(f"statistic must map totals {shape} to {(samples,)}, but returns {values.shape}")
    low, high = np.quantile(values, (0.025, 0.975))
    return float(statistic(actual)), float(low), float(high)


def resampled_totals(
    user: Shaped[np.ndarray, " E"], columns: Float[np.ndarray, "E M"], *, samples: int = 1000, seed: int = 0
) -> tuple[Float64[np.ndarray, " M"], Float64[np.ndarray, "samples M"]]:
    """Sums columns over all events, and over the events of resampled users: what `paired_bootstrap` is made of.

    Args:
      user: user of each event, as a code or an id.
      columns: summands, one row per event.
      samples: number of resamples.
      seed: seed of the resampling.

    Returns:
      The actual totals, and those of each resample.

    Raises:
      ValueError: if shapes differ, there is no event, a summand is not finite, or `samples` is not positive.
    """
    if columns.ndim != 2:
        raise ValueError(f"columns must have two axes, events and summands, but have shape {columns.shape}")
    check_events("user", user, columns.shape[:1])
    if not len(columns):
        raise ValueError("columns must have at least one event, but have none")
    if not np.all(np.isfinite(columns)):
        raise ValueError("columns must be finite, but have NaN or infinity: put 0 where an event does not count")
    if samples < 1:
        raise ValueError(f"samples must be positive, but are {samples}")

    _, code = np.unique(user, return_inverse=True)
    per_user = np.stack([np.bincount(code, weights=column) for column in columns.T], axis=1)
    users = len(per_user)
    generator = np.random.default_rng(seed)
    chunk = max(1, _DRAWS_AT_ONCE // users)
    totals = []
    for start in range(0, samples, chunk):
        size = min(chunk, samples - start)
        drawn = generator.integers(users, size=(size, users)) + users * np.arange(size)[:, None]
        times_drawn = np.bincount(drawn.ravel(), minlength=size * users).reshape(size, users)
        totals.append(times_drawn @ per_user)
    return per_user.sum(axis=0), np.concatenate(totals)


def grouped_auc(
    label: np.ndarray, probability: np.ndarray, group: np.ndarray, weight: np.ndarray | float = 1.0
) -> float | None:
    """Averages over groups, by their weight, the share of (positive, negative) pairs in order; ties count half.

    Args:
      label: share of each event that is positive.
      probability: score of each event.
      group: group of each event.
      weight: weight of each event, or of all.

    Returns:
      The average over the groups with both classes; None if there is none.
    """
    positives, negatives = pl.col("positives"), pl.col("negatives")
    lower = negatives.cum_sum().over("group") - negatives
    columns = {"positives": weight * label, "negatives": weight * (1 - label)}
    per_group = (
        pl.DataFrame({"group": group, "probability": probability, **columns})
        .group_by("group", "probability")
        .agg(positives.sum(), negatives.sum())
        .sort("group", "probability")
        .with_columns(in_order=positives * (lower + negatives / 2))
        .group_by("group", maintain_order=True)
        .agg(positives.sum(), negatives.sum(), pl.col("in_order").sum())
        .filter((positives > 0) & (negatives > 0))
    )
    if per_group.is_empty():
        return None
    auc = (per_group["in_order"] / (per_group["positives"] * per_group["negatives"])).to_numpy()
    return float(np.average(auc, weights=(per_group["positives"] + per_group["negatives"]).to_numpy()))


def _expected_calibration_error(label: np.ndarray, probability: np.ndarray, weight: np.ndarray) -> float:
    """Sums the residuals of bins of equal mass; one that ends within a tie has its share of the tie's residual."""
    _, tie = np.unique(probability, return_inverse=True)
    mass, residual = (
        np.r_[0.0, np.cumsum(np.bincount(tie, weights=x))] for x in (weight, weight * (label - probability))
    )
    edges = np.linspace(0, mass[-1], _ECE_BINS + 1)
    return float(np.abs(np.diff(np.interp(edges, mass, residual))).sum() / mass[-1])


def _ranks(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Returns the mean rank of each value, less a half, where an event of weight w stands for w equal ones."""
    _, tie = np.unique(values, return_inverse=True)
    mass = np.bincount(tie, weights=weight)
    return (np.cumsum(mass) - mass / 2)[tie]


def _correlation(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
    covariance = np.cov(x, y, aweights=weight)
    return float(covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]))


def _entropy(rate: float) -> float:
    return -(rate * math.log(rate) + (1 - rate) * math.log1p(-rate))


def check_events(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raises ValueError unless an array has one entry for each event."""
    if len(shape) != 1 or array.shape != shape:
        raise ValueError(f"{name} must have one entry per event, {shape}, but has shape {array.shape}")


def _checked_weight(weight: np.ndarray | None, labels: np.ndarray) -> np.ndarray:
    if weight is None:
        return np.ones(labels.shape)
    check_events("weight", weight, labels.shape)
    if not np.all((weight >= 0) & np.isfinite(weight)):
        raise ValueError("weight must be finite and not negative, but has other values")
    return weight.astype(np.float64)


def _check_probabilities(name: str, array: np.ndarray) -> None:
    invalid = ~((array >= 0) & (array <= 1))
    if invalid.any():
        first = int(np.flatnonzero(invalid)[0])
        raise ValueError(f"{name} must lie within [0, 1], but is {array[first]} at event {first}")
