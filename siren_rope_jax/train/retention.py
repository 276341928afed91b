"""Retention of checkpoints: when they are written, which are kept, and which is the best."""

import dataclasses
from collections.abc import Mapping

from siren_rope_jax.settings import check_settings


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """Settings of when checkpoints are written and which are kept; the result of a run does not depend on them."""

    seconds: float = 300.0
    """Most seconds between checkpoints, the work that a crash can cost; every validation writes one too."""
    latest: int = 2
    """Number of newest checkpoints to keep, beside the best by validation."""
    every: int | None = None
    """Number of steps whose multiples are saved and kept as well; none if not given."""

    def __post_init__(self) -> None:
        check_settings(self, seconds="[0, inf]", latest="[1, inf)", every="[1, inf)")


def retained(costs: Mapping[int, float | None], *, latest: int, every: int | None) -> set[int]:
    """Returns the steps to keep, given the cost of each validation: the latest, the best, and multiples of `every`."""
    multiples = {step for step in costs if every is not None and step % every == 0}
    return {*sorted(costs)[-latest:], best_step(costs)} | multiples


def best_step(costs: Mapping[int, float | None]) -> int:
    """Returns the step with the least cost, such as mean NE, the first of equals; the newest if none was validated."""
    return min(costs, key=lambda step: rank(step, costs[step]))


def rank(step: int, cost: float | None) -> tuple[float, ...]:
    """Returns a sort key that puts the best first."""
    return (1, -step) if cost is None else (0, cost, step)
