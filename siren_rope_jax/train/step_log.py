"""Queue of dispatched steps, and the checks, logs and hooks of each finished step."""

import collections
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int32
from rich.progress import Progress

from siren_rope_jax.train.hooks import Hook, StepReport
from siren_rope_jax.train.member import Member
from siren_rope_jax.train.progress import Meter


class _Dispatched(NamedTuple):
    step: int
    metrics: dict[str, jax.Array]
    events: int
    slots: int


class StepLog:
    """Checks, displays and logs finished steps in order, and calls the hooks.

    The host does not wait for a step that it has just dispatched; otherwise the devices would be idle while it handles
    the metrics and prepares the next batch.
    """

    def __init__(
        self,
        members: Sequence[Member],
        task_names: Sequence[str],
        rates: Float[np.ndarray, " steps"] | None,
        hooks: Sequence[Hook],
        bar: Progress,
    ):
        """Starts the clock.

        Args:
          members: the runs.
          task_names: names of the tasks' losses.
          rates: learning rate of each step of the run, if it is known.
          hooks: called with the report of each step.
          bar: progress bar, whose first task is updated.
        """
        self.meter = Meter()
        self.asked = False
        """Whether a hook asked to stop."""
        self._members, self._task_names, self._rates = members, task_names, rates
        self._hooks, self._bar = hooks, bar
        self._flight: collections.deque[_Dispatched] = collections.deque()
        self._seconds = [member.progress["seconds"] for member in members]

    def add(self, step: int, metrics: dict[str, jax.Array], segment: Int32[jax.Array | np.ndarray, "..."]) -> None:
        """Adds a dispatched step.

        Args:
          step: number of the step, from 1.
          metrics: arrays on the devices; with a leading axis for the runs if several are trained as one.
          segment: segments of this process's slots of the batch; 0 is padding.
        """
        self._flight.append(_Dispatched(step, metrics, int((segment != 0).sum()), segment.size))

    def finish(self, *, but: int = 0) -> None:
        """Waits for all steps but the latest few, and handles them.

        Args:
          but: number of latest steps to leave.

        Raises:
          NonFiniteError: if loss or gradient of a step is not finite.
        """
        while len(self._flight) > but:
            self._finish(self._flight.popleft())

    def _finish(self, dispatched: _Dispatched) -> None:
        step, metrics = dispatched.step, jax.device_get(dispatched.metrics)
        self.meter.stop(dispatched.events)
        places = range(len(self._members)) if np.ndim(metrics["loss"]) else [...]
        of_members = [jax.tree.map(lambda x, place=place: x[place], metrics) for place in places]
        for member, of_member in zip(self._members, of_members, strict=True):
            loss, norm = of_member["loss"], of_member["gradient_norm"]
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise member.not_finite(f"step {step}: the loss is {loss} and the gradient's norm {norm}")
        self._bar.update(
            self._bar.task_ids[0], completed=step, loss=float(np.mean(metrics["loss"])), rate=self.meter.rate
        )
        of_all = {"events_per_second": self.meter.rate, "fill": dispatched.events / dispatched.slots}
        rate = None
        if self._rates is not None:
            rate = float(self._rates[step - 1])
            of_all["learning_rate"] = rate
        for member, of_member, seconds in zip(self._members, of_members, self._seconds, strict=True):
            member.log.add_step(of_member, self._task_names, step, **of_all)
            place = {"next_example": member.progress["next_example"] + member.config.batches.rows}
            member.progress = member.progress | place | {"seconds": seconds + self.meter.seconds}
        report = StepReport(step, metrics, rate, self.meter.rate)
        for hook in self._hooks:
            self.asked |= bool(hook(report))
