"""What the caller of a training may watch and end: one call a step."""

from collections.abc import Callable
from typing import Any, NamedTuple


class StepReport(NamedTuple):
    """One step of the optimizer, as hooks are told of it: soon after it, when a few later ones are under way.

    Attributes:
      step: its number, from 1; over the whole run, resumed or not.
      metrics: "loss", "task_losses" (a value a task), "gradient_norm" and what the rotary source logs ("rotary/gate"),
        as NumPy arrays; with a leading axis for the seeds where several are trained as one.
      learning_rate: of that step; None with an optimizer of the caller's.
      events_per_second: mean so far, without the first step, which compiles.
    """

    step: int
    metrics: dict[str, Any]
    learning_rate: float | None
    events_per_second: float


Hook = Callable[[StepReport], bool | None]
"""True asks for an end: the model is validated and saved, and the best checkpoint evaluated, as after the last step."""
