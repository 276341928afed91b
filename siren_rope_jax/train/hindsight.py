"""Search for columns that may have been computed with hindsight, and statistics of events that share a second.

The log alone cannot prove that a column contains the future. But a value computed from an item's whole history, such as
its final click rate or its price today, predicts the item's future better than its past does; honest columns rarely do
so by much. And a column computed from the outcome predicts it on its own. Both are reasons to check the column's
origin.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64, Integer
from scipy.stats import rankdata

from siren_rope_jax.data.event_log import EventLog
from siren_rope_jax.data.periods import TEST, TRAIN
from siren_rope_jax.train.metrics import grouped_auc
from siren_rope_jax.train.probes import Finding

_BINS = 20
_FEW = 100  # least number of items, users or outcomes, for which a correlation of .4 is four standard errors
_STRONG = 0.4  # correlation with the future, given the past
_TELLING = 0.4  # distance of an AUC from .5
_SMOOTHING = 10.0
_OBSERVED = 3  # least number of later events for a rate


class _Future(NamedTuple):
    """Future of items, or of users, after the middle of a log, beyond the part that their past predicts."""

    name: str
    event: Int64[np.ndarray, " N"]  # last event of each before the middle
    known: tuple[Float[np.ndarray, " N"], ...]  # statistics of the past
    left: Float[np.ndarray, " N"]  # residual of the future; NaN if hardly observed


def look_at_columns(log: EventLog) -> list[Finding]:
    """Measures how well each feature column alone predicts the outcomes, and the future of its item and user."""
    log = _with_0_1_labels(log)
    futures = [*_futures(log, "item", log.item), *_futures(log, "user", log.user)]
    numbers = [(name, _binned(values), values) for name, values in zip(log.dense_names, log.dense.T, strict=True)]
    texts = [
        (name, np.unique(values, return_inverse=True)[1], None)
        for name, values in zip(log.categorical_names, log.categorical.T, strict=True)
    ]
    bags = [(bag.name, bag.index.astype(np.int64), None) for bag in log.bags]
    return [_look_at(log, name, codes, values, futures) for name, codes, values in (*numbers, *texts, *bags)]


def shape_of_ties(log: EventLog, window: int) -> list[Finding]:
    """Reports the share of events in shared seconds, and the share whose history does not fit a window."""
    order = np.lexsort((log.time_ms, log.user))
    user, second = log.user[order], (log.time_ms // 1000)[order]
    first = np.flatnonzero(np.r_[True, (np.diff(user) != 0) | (np.diff(second) != 0)])
    sizes = np.diff(first, append=len(order))
    tied, labels = np.repeat(sizes, sizes) > 1, _with_0_1_labels(log).labels[order]
    rates = ", ".join(
        f"{task} {_share(labels[tied, k])} beside {_share(labels[~tied, k])}" for k, task in enumerate(log.task_names)
    )
    history = (np.repeat(first, sizes) - np.searchsorted(user, user))[log.period[order] == TEST]
    return [
        Finding(
            "shape",
            "events that share user and second with others",
            f"{tied.mean():.2%} of {len(tied):,}, at most {sizes.max():,} together; positives: {rates} of the rest",
            "for information",
        ),
        Finding(
            "shape",
            f"test events whose history is longer than a window of {window}",
            f"{np.mean(history >= window):.1%} of {len(history):,}; median history {np.median(history):.0f}",
            "for information",
        ),
    ]


def _with_0_1_labels(log: EventLog) -> EventLog:
    """Replaces each number by whether it is above its median."""
    labels = np.empty_like(log.labels)
    for column, task in enumerate(log.spec.tasks):
        labels[:, column] = task.positive(log.labels[:, column])
    return dataclasses.replace(log, labels=labels)


def _look_at(
    log: EventLog,
    name: str,
    codes: Int64[np.ndarray, " E"],
    values: Float32[np.ndarray, " E"] | None,
    futures: list[_Future],
) -> Finding:
    aucs = [auc for task in log.labels.T if (auc := _auc_alone(codes, task, log.period)) is not None]
    associations = {}
    for future in futures:
        of_future = [_association(codes[future.event], future)]
        if values is not None:
            of_future.append(_partial_correlation(values[future.event], future))
        associations[future.name] = max((x for x in of_future if x is not None), default=None)
    associations = {name: strength for name, strength in associations.items() if strength is not None}
    if not aucs and not associations:
        return Finding("hindsight", f"column {name}", "too few events", "inconclusive")
    said, verdict = [], "ok"
    if aucs:
        train, test = max(aucs, key=lambda auc: abs(auc[1] - 0.5))
        said.append(f"AUC alone {train:.2f} in training, {test:.2f} in the test")
        verdict = "look at it" if abs(test - 0.5) > _TELLING else verdict
    if associations:
        future = max(associations, key=associations.__getitem__)
        said.append(f"correlates by {associations[future]:.2f} with later {future}, given the earlier")
        verdict = "look at it" if associations[future] > _STRONG else verdict
    return Finding("hindsight", f"column {name}", "; ".join(said), verdict)


def _futures(log: EventLog, kind: str, key: Integer[np.ndarray, " E"]) -> list[_Future]:
    middle = np.arange(len(key)) >= len(key) // 2
    last = np.full(int(key.max()) + 1, -1)
    last[key[~middle]] = np.flatnonzero(~middle)
    here = np.flatnonzero(last >= 0)

    def counts(chosen: Bool[np.ndarray, " E"]) -> Int64[np.ndarray, " N"]:
        return np.bincount(key[chosen], minlength=len(last))[here]

    past = counts(~middle).astype(float)
    growth = _beyond(np.log1p(counts(middle)), past)
    futures = [_Future(f"events of the {kind}", last[here], (past,), growth)]
    for name, task in zip(log.task_names, log.labels.T, strict=True):
        observed, positive = ~np.isnan(task), task >= 0.5
        base = positive.sum() / max(observed.sum(), 1)
        before = (counts(~middle & positive) + _SMOOTHING * base) / (counts(~middle & observed) + _SMOOTHING)
        later = counts(middle & observed)
        after = np.where(later >= _OBSERVED, counts(middle & positive) / np.maximum(later, 1), np.nan)
        futures.append(_Future(f"{name} of the {kind}", last[here], (past, before), _beyond(after, past, before)))
    return futures


def _beyond(values: Float[np.ndarray, " N"], *known: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """Returns the residuals of values after subtracting their means over bins of each known statistic in turn."""
    left = np.asarray(values, float).copy()
    present = ~np.isnan(left)
    for one in known:
        bins = _binned(one)[present]
        left[present] -= (np.bincount(bins, left[present]) / np.maximum(np.bincount(bins), 1))[bins]
    return left


def _binned(values: Float[np.ndarray, " E"] | Float32[np.ndarray, " E"]) -> Int64[np.ndarray, " E"]:
    """Returns the bin of each value, of equal mass as far as ties allow; 0 if missing."""
    present = ~np.isnan(values)
    bins = np.zeros(len(values), np.int64)
    if present.any():
        edges = np.unique(np.quantile(values[present], np.arange(1, _BINS) / _BINS))
        bins[present] = 1 + np.searchsorted(edges, values[present], side="right")
    return bins


def _association(codes: Int64[np.ndarray, " N"], future: _Future) -> float | None:
    """Correlates the future with its mean for the same code, which is estimated on the other half."""
    present = np.flatnonzero(~np.isnan(future.left))
    if len(present) < _FEW:
        return None
    codes, left = codes[present], future.left[present]
    half = np.random.default_rng(0).random(len(left)) < 0.5
    guess = np.empty(len(left))
    for here in (half, ~half):
        guess[here] = _smoothed(codes[~here], left[~here], int(codes.max()) + 1)[codes[here]]
    return _correlation(guess, left)


def _partial_correlation(values: Float32[np.ndarray, " N"], future: _Future) -> float | None:
    """Correlates the future with the rank of a number, given the known statistics."""
    present = np.flatnonzero(~np.isnan(future.left) & ~np.isnan(values))
    if len(present) < _FEW:
        return None
    ranks = rankdata(values[present])
    left = _beyond(ranks, *(one[present] for one in future.known))
    return abs(_correlation(left, future.left[present]))


def _correlation(first: Float[np.ndarray, " N"], second: Float[np.ndarray, " N"]) -> float:
    return float(np.corrcoef(first, second)[0, 1]) if first.std() and second.std() else 0.0


def _auc_alone(
    codes: Int64[np.ndarray, " E"], label: Float32[np.ndarray, " E"], period: np.ndarray
) -> tuple[float, float] | None:
    """Returns the AUC of each code's rate in training, on training and on test."""
    observed = ~np.isnan(label)
    train, test = observed & (period == TRAIN), observed & (period == TEST)
    if min(min(np.sum(label[part] == value) for value in (0, 1)) for part in (train, test)) < _FEW:
        return None
    rate = _smoothed(codes[train], label[train].astype(float), int(codes.max()) + 1)
    there, here = (grouped_auc(label[part], rate[codes[part]], np.zeros(part.sum(), np.int8)) for part in (train, test))
    return (there, here) if there is not None and here is not None else None


def _smoothed(codes: Int64[np.ndarray, " N"], values: Float[np.ndarray, " N"], count: int) -> np.ndarray:
    sums, sizes = np.bincount(codes, values, minlength=count), np.bincount(codes, minlength=count)
    return (sums + values.mean()) / (sizes + 1)


def _share(labels: Float32[np.ndarray, " N"]) -> str:
    return f"{np.nanmean(labels):.1%}" if np.any(~np.isnan(labels)) else "-"
