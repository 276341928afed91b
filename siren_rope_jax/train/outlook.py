"""Warnings, before a training starts, about a log that limits what the training can learn."""

from collections.abc import Sequence

import numpy as np

from siren_rope_jax.data.encode import Encoded, Encoder
from siren_rope_jax.data.event_log import EventLog
from siren_rope_jax.train.criterion import Criterion
from siren_rope_jax.train.predict import PERIODS
from siren_rope_jax.train.tasks import Task

_FEW_STEPS = 100
_MOSTLY = 0.5


def outlook(
    log: EventLog,
    tasks: Sequence[Task],
    encoder: Encoder,
    encoded: Encoded,
    *,
    steps: int,
    criterion: Criterion,
) -> list[str]:
    """Returns the warnings, one sentence each.

    Args:
      log: the whole log.
      tasks: its tasks.
      encoder: encoder fitted to the log.
      encoded: the log, encoded.
      steps: optimizer steps of the training.
      criterion: criterion for the best checkpoint.
    """
    said = []
    if steps < _FEW_STEPS:
        said.append(f"training takes {steps} steps of the optimizer, too few to learn much: give more --steps")
    for name, period in PERIODS.items():
        chosen = log.period == period
        doubts = [task.doubt(labels) for task, labels in zip(tasks, log.weighed_labels[chosen].T, strict=True)]
        unused = ""
        if name == "validation" and criterion.is_mean and None in doubts:
            unused = ", and the best checkpoint is chosen without it"
        said += [f"{name} {doubt}{unused}" for doubt in doubts if doubt]
        in_period = chosen[encoded.log_index]
        if encoder.id_buckets[0] > 1:
            unknown = float(np.mean(encoded.columns["ids"][in_period, 0] == 0))
            if unknown > _MOSTLY:
                said.append(
                    f"{unknown:.0%} of the {name} events are of items with fewer than {encoder.config.min_count} "
                    "training events: the item's id is not used there"
                )
    return said
