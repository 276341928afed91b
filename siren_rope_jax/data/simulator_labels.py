"""Labels of the simulated feed as a function of the past, and the best prediction from the past.

    logit p_k = logit(base_k) + offset_k + format_k + quality_k q + load_k a[user, topic] + beta_k z_k

where z_k averages the user's strictly earlier labels on the same topic, weighted by a kernel of the time since then
(simulator_kernels.py), and the affinity a ~ N(0, .4^2) is the only part that no model can observe.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import expit, logit

from siren_rope_jax.data.simulator_kernels import KERNELS, KernelName, Pairs, hour_effect

TASKS = ("like", "contribution", "long_dwell")
TOPICS = 8
MAX_EVENTS = 64
CHUNK_USERS = 256  # bounds memory: the kernel weights of these users take 25 MB

_DAY = 86_400
_AFFINITY_STD = 0.4
_KERNEL_PRIOR = 0.25  # pseudo-weight that shrinks the kernel average of a short history towards zero

# One entry per task, in the order of TASKS.
_BASE = np.array([0.12, 0.05, 0.30])
_OFFSET = np.array([-0.43, -0.60, -0.15])
_BETA = np.array([3.6, 3.6, 2.8])
_QUALITY = np.array([0.5, 0.5, 0.4])
_LOAD = np.array([1.0, 0.8, 0.6])
_SIGMA = np.array([[1.2, 0.8, 0.4], [0.8, 1.4, 0.3], [0.2, 0.2, 1.4]])  # [task, task of the past label]
_LONG_DWELL, _DWELL_SPREAD = 60.0, 0.7  # seconds; factor from the logit to log dwell
_FORMAT = np.array([[0.0, 0.1, -0.3], [0.1, 0.0, 0.0], [-0.1, -0.1, 0.3]])  # [format, task]


class Histories(NamedTuple):
    """Events of some users, one row per user, oldest first, padded at the end where not `valid`."""

    time: NDArray[np.int64]
    topic: NDArray[np.int64]
    format: NDArray[np.int64]
    quality: NDArray[np.float64]
    valid: NDArray[np.bool_]


class Drawn(NamedTuple):
    """Labels (0 or 1) and their probabilities, each [user, event, task of `TASKS`]."""

    labels: NDArray[np.float64]
    full: NDArray[np.float64]
    """Probabilities that the labels were drawn from."""
    bayes: NDArray[np.float64]
    """Best predictions from the past."""
    uniform: NDArray[np.float64]
    """Uniform draws; a label is 1 if its draw is below its probability."""


def dwell_seconds(
    drawn: Drawn,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Computes seconds of dwell, over a minute exactly if the label long_dwell is 1, and their true medians.

    log(dwell / 60 s) = .7 (logit p - logit u), where p is the probability of a long dwell and u its uniform draw: a
    logistic distribution about .7 logit p.

    Args:
      drawn: result of `draw_labels`.

    Returns:
      (dwell, median), each [user, event].
    """
    task = TASKS.index("long_dwell")
    centre, draw = logit(drawn.full[..., task]), logit(np.clip(drawn.uniform[..., task], 1e-12, 1 - 1e-12))
    return _LONG_DWELL * np.exp(_DWELL_SPREAD * (centre - draw)), _LONG_DWELL * np.exp(_DWELL_SPREAD * centre)


def kernel_features(events: pl.DataFrame, kernel: KernelName = "feed") -> NDArray[np.float64]:
    """Computes weighted averages z of a user's strictly earlier labels on the same topic.

    Given these, the item and the affinity, a label does not depend on the rest of the past.

    Args:
      events: columns of `SimulatedFeed.events`, sorted by user, then strictly by time.
      kernel: what the labels depend on.

    Returns:
      One row per event and one column per task of `TASKS`; 0 if there is no earlier event on the topic.

    Raises:
      ValueError: if a column is missing, a value or the order is invalid, or a user has over 64 events.
    """
    _check_events(events)
    parts = [
        _kernel_average(_kernel_weights(histories, kernel), labels)[histories.valid]
        for histories, labels in _histories_of(events)
    ]
    return np.concatenate(parts)


def bayes_probabilities(events: pl.DataFrame, kernel: KernelName = "feed") -> NDArray[np.float64]:
    """Computes the best possible predictions: P(label | its item, the user's strictly earlier events).

    The affinity a ~ N(0, .4^2) of a user and topic is integrated out by 15-node Gauss-Hermite quadrature, its
    posterior updated event by event with the labels of all three tasks.

    Args:
      events: columns of `SimulatedFeed.events`, sorted by user, then strictly by time.
      kernel: what the labels depend on.

    Returns:
      Probabilities, one row per event and one column per task of `TASKS`.

    Raises:
      ValueError: if a column is missing, a value or the order is wrong, or a user has over 64 events.
    """
    _check_events(events)
    parts = []
    for histories, labels in _histories_of(events):
        average = _kernel_average(_kernel_weights(histories, kernel), labels)
        observed = _observed_logits(histories, average, kernel)
        parts.append(_integrate_affinity(histories.topic, labels, observed)[histories.valid])
    return np.concatenate(parts)


def draw_labels(rng: np.random.Generator, histories: Histories, kernel: KernelName = "feed") -> Drawn:
    """Draws affinities, then labels event by event.

    Args:
      rng: source of the affinities and labels.
      histories: events of some users, without labels.
      kernel: what the labels depend on.

    Returns:
      Labels, their true and Bayes probabilities, and the uniform draws.
    """
    affinity = rng.normal(0.0, _AFFINITY_STD, (len(histories.topic), TOPICS))
    weights = _kernel_weights(histories, kernel)
    normaliser = _KERNEL_PRIOR + weights.sum(-1)
    observed = _observed_logits(histories, np.zeros((*histories.time.shape, len(TASKS))), kernel)
    latent = _LOAD * np.take_along_axis(affinity, histories.topic, axis=1)[..., None]
    uniform = rng.random(observed.shape)
    labels, signals = np.zeros_like(observed), np.zeros_like(observed)
    for i in range(observed.shape[1]):
        total = np.einsum("kuj,ujk->uk", weights[:, :, i, :i], signals[:, :i])
        observed[:, i] += _BETA * total / normaliser[:, :, i].T
        labels[:, i] = uniform[:, i] < expit(observed[:, i] + latent[:, i])
        signals[:, i] = _signals(labels[:, i])
    bayes = _integrate_affinity(histories.topic, labels, observed)
    return Drawn(labels, expit(observed + latent), bayes, uniform)


def _kernel_weights(histories: Histories, kernel: KernelName) -> NDArray[np.float64]:
    """Returns the weight [task, user, event, earlier event] of each strictly earlier event of the same topic."""
    time, topic, valid = histories.time, histories.topic, histories.valid
    weights = KERNELS[kernel].weights
    if weights is None:
        return np.zeros((len(TASKS), *time.shape, time.shape[1]))
    elapsed = (time[:, :, None] - time[:, None, :]) / _DAY
    earlier = np.tri(time.shape[1], k=-1, dtype=bool)
    related = earlier & (topic[:, :, None] == topic[:, None, :]) & valid[:, None, :] & valid[:, :, None]
    return weights(Pairs(np.where(related, elapsed, np.inf), topic[:, :, None], time))


def _signals(labels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the contribution of each past event's labels [..., task] to each task."""
    return (labels - _BASE) @ _SIGMA.T


def _kernel_average(weights: NDArray[np.float64], labels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns z [user, event, task]."""
    total = np.einsum("kuij,ujk->uik", weights, _signals(labels))
    return total / (_KERNEL_PRIOR + weights.sum(-1).transpose(1, 2, 0))


def _observed_logits(histories: Histories, average: NDArray[np.float64], kernel: KernelName) -> NDArray[np.float64]:
    """Returns the logits [..., task] without the affinity."""
    item = _FORMAT[histories.format] + _QUALITY * histories.quality[..., None]
    observed = logit(_BASE) + _OFFSET + item + _BETA * average
    return observed + hour_effect(histories.time, KERNELS[kernel].hour_effect)[..., None]


def _integrate_affinity(
    topic: NDArray[np.int64], labels: NDArray[np.float64], observed: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Returns posterior mean probabilities [user, event, task], updated after each event by its three labels."""
    nodes, prior = np.polynomial.hermite_e.hermegauss(15)
    shift = _LOAD[:, None] * _AFFINITY_STD * nodes
    posterior = np.broadcast_to(prior / prior.sum(), (len(topic), TOPICS, len(nodes))).copy()
    bayes = np.empty_like(observed)
    users = np.arange(len(topic))
    for i in range(topic.shape[1]):
        belief = posterior[users, topic[:, i]]
        probability = expit(observed[:, i, :, None] + shift)
        bayes[:, i] = np.einsum("ukn,un->uk", probability, belief)
        belief = belief * np.where(labels[:, i, :, None] > 0, probability, 1 - probability).prod(1)
        posterior[users, topic[:, i]] = belief / belief.sum(1, keepdims=True)
    return bayes


def _check_events(events: pl.DataFrame) -> None:
    needed = ("user_id", "time", "topic", "format", "quality", *TASKS)
    missing = [name for name in needed if name not in events.columns]
    if missing:
        raise ValueError(f"events must have the columns {', '.join(needed)}, but are missing: {', '.join(missing)}")
    if events.is_empty():
        raise ValueError("events must have at least one row, but have none")
    ranges = {"topic": TOPICS - 1, "format": len(_FORMAT) - 1} | dict.fromkeys(TASKS, 1)
    for name in ("user_id", "time", *ranges):
        if not events[name].dtype.is_integer() or events[name].null_count():
            raise ValueError(f"{name} must hold an integer in every row, but has {events[name].dtype} or gaps")
    for name, high in ranges.items():
        wrong = events[name].filter(~events[name].is_between(0, high))
        if not wrong.is_empty():
            raise ValueError(f"{name} must lie between 0 and {high}, but is {wrong[0]}")
    if not events["quality"].dtype.is_float() or not events["quality"].is_finite().fill_null(False).all():
        raise ValueError("quality must hold a finite float in every row, but does not")
    user, time = events["user_id"].to_numpy(), events["time"].to_numpy()
    same = user[1:] == user[:-1]
    if (user[1:] < user[:-1]).any() or (same & (time[1:] <= time[:-1])).any():
        raise ValueError("events must be sorted by user_id, then strictly increasing time, but are not")
    longest = int(np.unique(user, return_counts=True)[1].max())
    if longest > MAX_EVENTS:
        raise ValueError(f"a simulated user must have at most {MAX_EVENTS} events, but has {longest}")


def _histories_of(events: pl.DataFrame) -> Iterator[tuple[Histories, NDArray[np.float64]]]:
    """Yields chunks of users as padded histories with labels [user, event, task]; rows keep their order."""
    counts = np.unique(events["user_id"].to_numpy(), return_counts=True)[1]
    columns = {name: events[name].to_numpy() for name in ("time", "topic", "format", "quality")}
    labels = events.select(TASKS).to_numpy()
    row = 0
    for first in range(0, len(counts), CHUNK_USERS):
        valid = np.arange(MAX_EVENTS) < counts[first : first + CHUNK_USERS, None]
        rows = slice(row, row + int(valid.sum()))
        row = rows.stop
        padded = {}
        for name, values in columns.items():
            padded[name] = np.zeros(valid.shape, np.float64 if name == "quality" else np.int64)
            padded[name][valid] = values[rows]
        padded_labels = np.zeros((*valid.shape, len(TASKS)))
        padded_labels[valid] = labels[rows]
        yield Histories(**padded, valid=valid), padded_labels
