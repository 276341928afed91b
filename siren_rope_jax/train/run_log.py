"""What a run writes for TensorBoard."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tensorboardX import SummaryWriter


class RunLog(SummaryWriter):
    """The `tensorboard/` folder of a run, written by process 0 alone."""

    def __init__(self, run: Path, *, first_step: int):
        """Opens it; what an interrupted run logged from `first_step` on will not be shown."""
        super().__init__(str(run / "tensorboard"), purge_step=first_step, write_to_disk=jax.process_index() == 0)

    def add_step(self, metrics: Mapping[str, Any], task_names: Sequence[str], step: int, **scalars: float) -> None:
        """Writes the metrics of a training step, of one model, and further scalars of it."""
        shown = {"loss": metrics["loss"], "gradient_norm": metrics["gradient_norm"], **scalars}
        shown |= {f"loss_{name}": loss for name, loss in zip(task_names, metrics["task_losses"], strict=True)}
        shown = {f"train/{name}": value for name, value in shown.items()}
        for name in ("gate", "scale"):  # of SIREN-RoPE; one for each head, where they are its own
            for index, value in enumerate(np.ravel(metrics.get(name, []))):
                shown[f"rotary/{name}_{index}"] = value
        for name, value in shown.items():
            self.add_scalar(name, float(value), step)

    def add_validation(self, metrics: Mapping[str, Mapping[str, Any]], mean_ne: float | None, step: int) -> None:
        """Writes the metrics of a validation, as far as they are defined."""
        shown = {f"{task}/{name}": value for task, values in metrics.items() for name, value in values.items()}
        for name, value in (shown | {"mean_ne": mean_ne}).items():
            if value is not None:
                self.add_scalar(f"validation/{name}", value, step)
        self.flush()
