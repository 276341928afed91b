"""Step hooks of the training loop: called after each step, and able to stop the training."""

from collections.abc import Callable
from typing import Any, NamedTuple


class StepReport(NamedTuple):
    """Report of one finished step of the optimizer, passed to hooks while a few later steps are already running.

    Attributes:
      step: number of the step in the whole run, from 1, also in a resumed run.
      metrics: "loss", "task_losses" (one value per task), "gradient_norm" and the values that the rotary source logs
        ("rotary/gate"), as NumPy arrays; with a leading axis for the seeds if several are trained as one.
      learning_rate: learning rate of the step; None if the caller passed the optimizer.
      events_per_second: mean rate so far, without the first step, which compiles.
    """

    step: int
    metrics: dict[str, Any]
    learning_rate: float | None
    events_per_second: float


Hook = Callable[[StepReport], bool | None]
"""Returns True to stop: the model is then validated and saved, and the best checkpoint evaluated, as after the last
step."""
