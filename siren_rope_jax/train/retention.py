"""When checkpoints are written, which of them are kept, and which is the best."""

import dataclasses
from collections.abc import Mapping

from siren_rope_jax.settings import check_settings


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When checkpoints are written and which of them are kept; the result of a run does not depend on it."""

    seconds: float = 300.0
    """Most seconds of work that a crash can cost: checkpoints are also written at every validation."""
    latest: int = 2
    """Newest checkpoints that are kept, beside the best by validation."""
    every: int | None = None
    """Steps whose multiples are kept as well."""

    def __post_init__(self) -> None:
        check_settings(self, seconds="[0, inf]", latest="[1, inf)", every="[1, inf)")


def retained(costs: Mapping[int, float | None], *, latest: int, every: int | None) -> set[int]:
    """Of the steps and what their validations cost, those to keep: the latest, the best, and multiples of `every`."""
    multiples = {step for step in costs if every is not None and step % every == 0}
    return {*sorted(costs)[-latest:], best_step(costs)} | multiples


def best_step(costs: Mapping[int, float | None]) -> int:
    """The step of the least cost, such as mean NE, the first of equals; the newest if none was validated."""
    return min(costs, key=lambda step: rank(step, costs[step]))


def rank(step: int, cost: float | None) -> tuple[float, ...]:
    """Sorts the best first."""
    return (1, -step) if cost is None else (0, cost, step)
