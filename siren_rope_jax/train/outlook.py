"""What a log lets one expect of a training, said before it starts."""

import numpy as np

from siren_rope_jax.data.encode import Encoded, Encoder
from siren_rope_jax.data.event_log import EventLog
from siren_rope_jax.train.predict import FEW, PERIODS

_FEW_STEPS = 100
_MOSTLY = 0.5


def outlook(log: EventLog, encoder: Encoder, encoded: Encoded, *, steps: int) -> list[str]:
    """Returns what may disappoint, one sentence each.

    Args:
      log: the whole log.
      encoder: fitted on it.
      encoded: the log, encoded.
      steps: optimizer steps of the training.
    """
    said = []
    if steps < _FEW_STEPS:
        said.append(f"training takes {steps} steps of the optimizer, too few to learn much: give more --steps")
    for name, period in PERIODS.items():
        chosen = log.period == period
        for task, labels in zip(log.task_names, log.labels[chosen].T, strict=True):
            observed, positives = int((~np.isnan(labels)).sum()), float(np.nansum(labels))
            unused = ", and the best checkpoint is chosen without it" if name == "validation" else ""
            if not 0 < positives < observed:
                found = "positives" if observed and not positives else "negatives" if observed else "observed labels"
                said.append(f"{name} has no {found} of {task} ({observed:,} observed): its NE is not defined{unused}")
            elif min(positives, observed - positives) < FEW:
                rarer = "positives" if positives <= observed - positives else "negatives"
                count = min(positives, observed - positives)
                said.append(f"{name} has only {count:.3g} {rarer} of {task}: its metrics are mostly chance{unused}")
        in_period = chosen[encoded.log_index]
        if encoder.id_buckets[0] > 1:
            unknown = float(np.mean(encoded.columns["ids"][in_period, 0] == 0))
            if unknown > _MOSTLY:
                said.append(
                    f"{unknown:.0%} of the {name} events are of items that training has fewer than "
                    f"{encoder.config.min_count} times: there the item's id says nothing"
                )
    return said
