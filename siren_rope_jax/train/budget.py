"""What a log asks of a training where its configuration does not say: rows of a step, learning rate and steps."""

import dataclasses

import numpy as np

from siren_rope_jax.data.batches import MOST_ROWS, PackedRows
from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.optimizer import MOST_RATE

# Chosen on validation, on seven logs of 1,700 to a million events; `experiments/defaults.py` shows where they lead.
_LEAST_ROWS, _STEPS_OF_AN_EPOCH = 8, 40
_LEAST_RATE, _RATE_OF_AN_EVENT = 1e-4, 3e-8
_LEAST_STEPS, _MOST_STEPS, _EPOCHS = 300, 3_000, 10.0


def fit_to_log(config: TrainConfig, rows: PackedRows) -> TrainConfig:
    """Fills in what the configuration leaves open.

    A small log is read in small steps, many times, and slowly: it has little to teach and is soon learned by heart. A
    long one is read at least once. Early stopping ends what goes on for too long.

    Args:
      config: batch size, learning rate, steps and epochs may be open.
      rows: packed rows of the training events.

    Returns:
      The configuration with batch size, learning rate and steps, and without epochs.
    """
    count, events = len(rows.event), int(rows.scored.sum())
    power = round(np.log2(max(count / _STEPS_OF_AN_EPOCH, 1)))
    batch_size = config.batches.batch_size or int(np.clip(2**power, _LEAST_ROWS, MOST_ROWS))
    rate = config.optimizer.learning_rate or float(np.clip(_RATE_OF_AN_EVENT * events, _LEAST_RATE, MOST_RATE))
    an_epoch = count / batch_size
    if config.steps is not None:
        steps = config.steps
    elif config.epochs is not None:
        steps = max(1, round(config.epochs * an_epoch))
    else:
        steps = round(np.clip(_EPOCHS * an_epoch, _LEAST_STEPS, max(_MOST_STEPS, an_epoch)))
    return dataclasses.replace(
        config,
        steps=steps,
        epochs=None,
        batches=dataclasses.replace(config.batches, batch_size=batch_size),
        optimizer=dataclasses.replace(config.optimizer, learning_rate=rate),
    )
