"""Defaults of a training that depend on the size of the log: batch size, learning rate, dropout and steps."""

import dataclasses
import math

import numpy as np

from siren_rope_jax.data.batches import MOST_ROWS, PackedRows
from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.optimizer import MOST_RATE

# Chosen on validation, on seven logs of 1,700 to a million events; `experiments/defaults.py` shows the results.
_LEAST_ROWS, _STEPS_OF_AN_EPOCH = 4, 40
_LEAST_RATE, _LONG_LOG = 1e-6, 170_000  # from this many events on, attention learns at the full rate
_LEAST_RATE_ALONE, _LONG_LOG_ALONE = 1e-4, 100_000  # likewise without the context's skip
_MOST_DROPOUT, _SHORT_LOG = 0.4, 40_000  # dropout of the context, in full up to this many events
_LEAST_STEPS, _MOST_STEPS, _EPOCHS = 300, 3_000, 20.0


def fit_to_log(config: TrainConfig, rows: PackedRows, *, shares: int = 1) -> TrainConfig:
    """Fills in the settings that the configuration leaves open.

    A small log is read many times in small batches. The network soon memorises its sequences, so it learns slowly there
    and leaves most of the prediction to the context's skip, which has its own rate (`context_rate`); without the skip
    the network must learn faster. A long log is read at least once. Early stopping ends a training that is too long.

    Args:
      config: batch size, learning rate, dropout of the context, steps and epochs may be open.
      rows: packed rows of the training events.
      shares: number of devices that must share a batch evenly.

    Returns:
      The configuration with batch size, learning rate, dropout and steps, and without epochs.
    """
    count, events = len(rows.row_index), int(rows.scored.sum())
    power = round(np.log2(max(count / _STEPS_OF_AN_EPOCH, 1)))
    chosen = int(np.clip(2**power, _LEAST_ROWS, MOST_ROWS))
    batch_size = config.batches.batch_size or -(-chosen // shares) * shares
    rate = config.optimizer.learning_rate or _rate(events, with_skip=config.model.context_skip)
    an_epoch = count / batch_size
    if config.steps is not None:
        steps = config.steps
    elif config.epochs is not None:
        steps = max(1, round(config.epochs * an_epoch))
    else:
        steps = math.ceil(np.clip(_EPOCHS * an_epoch, _LEAST_STEPS, max(_MOST_STEPS, an_epoch)))
    dropout = config.model.context_dropout
    if dropout is None:
        dropout = round(_MOST_DROPOUT * min(1.0, _SHORT_LOG / max(events, 1)), 3)
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, context_dropout=dropout),
        steps=steps,
        epochs=None,
        batches=dataclasses.replace(config.batches, batch_size=batch_size),
        optimizer=dataclasses.replace(config.optimizer, learning_rate=rate),
    )


def _rate(events: int, *, with_skip: bool) -> float:
    if with_skip:
        return max(_LEAST_RATE, MOST_RATE * min(1.0, events / _LONG_LOG) ** 2)
    return max(_LEAST_RATE_ALONE, MOST_RATE * min(1.0, events / _LONG_LOG_ALONE))
