"""Relations in time that the labels of a simulated feed depend on, each of which an encoding may find or miss.

A kernel weighs a user's earlier event on the same topic by the time since then, for each task.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

KernelName = Literal["feed", "daily", "weekly", "exponential", "power", "content", "hour", "none"]

_DAY = 86_400
_WEEK_DAYS = 7
# One entry per task.
_TAU_DAYS = np.array([3.0, 3.0, 8.0])
_KAPPA = np.array([2.5, 2.5, 1.0])
_OTHER_DAY_KIND = np.array([0.3, 0.2, 0.6])  # weight of a weekday's event at the weekend, and the reverse
_POWER_DAYS = np.array([0.25, 0.25, 1.0])
# One entry per topic: the hours after an event at which its topic matters again, and how fast it is forgotten.
_TOPIC_HOURS = 3.0 * np.arange(8)
_TOPIC_TAU_DAYS = np.array([1.0, 16.0, 4.0, 2.0, 16.0, 1.0, 2.0, 4.0])
_TOPIC_KAPPA = 2.5
_PEAK_HOUR, _HOUR_EFFECT = 20.0, 0.8


class Pairs(NamedTuple):
    """Every event of some users beside every other one: [user, event, earlier event], or [user, event] for the time."""

    elapsed: NDArray[np.float64]
    """Days from the earlier event; infinite where it is not earlier, or on another topic."""
    topic: NDArray[np.int64]
    """Topic of the later event, [user, event, 1]."""
    time: NDArray[np.int64]
    """Unix seconds."""

    @property
    def days(self) -> NDArray[np.float64]:
        """Days from the earlier event, 0 where `elapsed` is infinite, for waves."""
        return np.where(np.isfinite(self.elapsed), self.elapsed, 0.0)


class Kernel(NamedTuple):
    """One planted dependence."""

    weights: Callable[[Pairs], NDArray[np.float64]] | None
    """Weights [task, user, event, earlier event]; None if labels do not depend on earlier ones."""
    hour_effect: float = 0.0
    """Amplitude, on the logit, of a daily wave: a main effect of the hour, without any relation between events."""


def hour_effect(time: NDArray[np.int64], amplitude: float) -> NDArray[np.float64]:
    """Returns what the hour adds to the logits: a daily wave that is highest in the evening."""
    hour = time % _DAY / 3_600
    return amplitude * np.cos(2 * np.pi * (hour - _PEAK_HOUR) / 24)


def _feed(pairs: Pairs) -> NDArray[np.float64]:
    """A decay times a daily rhythm, less between weekdays and weekends."""
    rhythm = np.cos(2 * np.pi * pairs.days) - 1
    weekend = (pairs.time // _DAY + 3) % _WEEK_DAYS >= 5  # 1970-01-01 was a Thursday
    other_kind = weekend[:, :, None] != weekend[:, None, :]
    return np.stack(
        [
            np.exp(kappa * rhythm - pairs.elapsed / tau) * np.where(other_kind, other, 1.0)
            for tau, kappa, other in zip(_TAU_DAYS, _KAPPA, _OTHER_DAY_KIND, strict=True)
        ]
    )


def _periodic(days: float) -> Callable[[Pairs], NDArray[np.float64]]:
    def weights(pairs: Pairs) -> NDArray[np.float64]:
        rhythm = np.cos(2 * np.pi * pairs.days / days) - 1
        return np.stack([np.where(np.isfinite(pairs.elapsed), np.exp(kappa * rhythm), 0.0) for kappa in _KAPPA])

    return weights


def _exponential(pairs: Pairs) -> NDArray[np.float64]:
    return np.stack([np.exp(-pairs.elapsed / tau) for tau in _TAU_DAYS])


def _power(pairs: Pairs) -> NDArray[np.float64]:
    return np.stack([1 / (1 + pairs.elapsed / days) for days in _POWER_DAYS])


def _content(pairs: Pairs) -> NDArray[np.float64]:
    """A decay and a daily rhythm of the topic's own: time and content multiply."""
    days = pairs.days - _TOPIC_HOURS[pairs.topic] / 24
    rhythm = _TOPIC_KAPPA * (np.cos(2 * np.pi * days) - 1)
    return np.broadcast_to(np.exp(rhythm - pairs.elapsed / _TOPIC_TAU_DAYS[pairs.topic]), (3, *pairs.elapsed.shape))


KERNELS: dict[KernelName, Kernel] = {
    "feed": Kernel(_feed),
    "daily": Kernel(_periodic(1.0)),
    "weekly": Kernel(_periodic(_WEEK_DAYS)),
    "exponential": Kernel(_exponential),
    "power": Kernel(_power),
    "content": Kernel(_content),
    "hour": Kernel(None, hour_effect=_HOUR_EFFECT),
    "none": Kernel(None),
}
