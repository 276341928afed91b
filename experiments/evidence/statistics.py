"""Paired differences between variants, over seeds and users together."""

from typing import NamedTuple

import numpy as np
import scipy.optimize
import scipy.stats
from jaxtyping import Bool, Float

_DRAWS = 4_000
_POWER = 0.8
_CERTAIN = 1 - 1e-9


class Difference(NamedTuple):
    """A variant less its base, in the mean over the seeds."""

    value: float
    low: float
    high: float
    p: float  # two-sided
    detectable: float  # smallest difference that would have been shown with 80 % power


def paired_difference(
    variant: Float[np.ndarray, "S K G"],
    base: Float[np.ndarray, "S K G"],
    events: Float[np.ndarray, "K G"],
    positives: Float[np.ndarray, "K G"],
    *,
    seed: int = 0,
) -> Difference:
    """Computes the difference in normalized entropy of two variants, trained with the same seeds, and its interval.

    The normalized entropy is the mean over the K tasks.

    Each draw resamples the groups of users, and with them the base rate, and the seeds. Resampling S seeds gives
    (S - 1)/S of their variance: deviations between seeds are stretched to make up for it. Half of the interval is the
    root of two squares: the deviation between seeds by Student's t with S - 1 degrees of freedom, and what else the
    draws vary by, as the normal distribution has it. Users are many, seeds are few.

    Args:
      variant: cross-entropy summed over each group, for each seed and task.
      base: the same of the base.
      events: observed events of each task and group.
      positives: positives of each task and group, or their expected number.
      seed: seed of the draws.

    Raises:
      ValueError: if there are fewer than two seeds, or the shapes differ.

    Source: Cochran 1964: each variance by its own quantile. The interval is right, or too wide.
    """
    if variant.shape != base.shape or len(variant) < 2:
        given = f"{variant.shape} and {base.shape}"
        raise ValueError(f"variant and base must have one shape, with two seeds or more, but have {given}")
    rng, (seeds, tasks, groups) = np.random.default_rng(seed), variant.shape
    weights = rng.multinomial(groups, np.full(groups, 1 / groups), _DRAWS).astype(np.float64)
    less = [(variant - base)[:, k] for k in range(tasks)]

    def mean_ne(weights: Float[np.ndarray, "B G"]) -> Float[np.ndarray, "B S"]:
        return np.mean([_ne(weights, less[k], events[k], positives[k]) for k in range(tasks)], axis=0)

    of_seeds, seen = mean_ne(weights), mean_ne(np.ones((1, groups)))[0]
    value = float(seen.mean())
    middle = of_seeds.mean(axis=1, keepdims=True)
    stretched = middle + (of_seeds - middle) * np.sqrt(seeds / (seeds - 1))
    drawn = np.take_along_axis(stretched, rng.integers(seeds, size=(_DRAWS, seeds)), axis=1).mean(axis=1)
    deviation = float(drawn.std())
    of_seeds_alone = min(float(seen.var(ddof=1)) / seeds, deviation**2)

    def half(quantile: float) -> float:
        seed_part, user_part = scipy.stats.t(seeds - 1).ppf(quantile), scipy.stats.norm.ppf(quantile)
        return float(np.sqrt(seed_part**2 * of_seeds_alone + user_part**2 * (deviation**2 - of_seeds_alone)))

    p = float(not value)
    if abs(value) < half(_CERTAIN):
        p = 2 - 2 * float(scipy.optimize.brentq(lambda quantile: half(quantile) - abs(value), 0.5, _CERTAIN))  # type: ignore[arg-type]
    return Difference(value, value - half(0.975), value + half(0.975), p, half(0.975) + half(_POWER))


def normalized_entropy(
    losses: Float[np.ndarray, "S G"], events: Float[np.ndarray, " G"], positives: Float[np.ndarray, " G"]
) -> Float[np.ndarray, " S"]:
    """Computes the normalized entropy of each seed: cross-entropy over the entropy of the base rate."""
    return _ne(np.ones((1, losses.shape[1])), losses, events, positives)[0]


def holm(p: Float[np.ndarray, " T"], *, level: float = 0.05) -> Bool[np.ndarray, " T"]:
    """Returns which of several tests reject at a level of the whole family. Source: Holm 1979."""
    order = np.argsort(p)
    passed = np.cumprod(p[order] <= level / np.arange(len(p), 0, -1)).astype(bool)
    rejected = np.zeros(len(p), bool)
    rejected[order[passed]] = True
    return rejected


def _ne(
    weights: Float[np.ndarray, "B G"],
    losses: Float[np.ndarray, "S G"],
    events: Float[np.ndarray, " G"],
    positives: Float[np.ndarray, " G"],
) -> Float[np.ndarray, "B S"]:
    count = weights @ events
    rate = weights @ positives / count
    entropy = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))
    return weights @ losses.T / (count * entropy)[:, None]
