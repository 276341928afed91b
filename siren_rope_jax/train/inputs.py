"""Fitting of the encoder and of the context's transform, before the first step of a training."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from siren_rope_jax.batch import Events
from siren_rope_jax.data.encode import Encoded, Encoder, InputConfig
from siren_rope_jax.data.event_log import EventLog
from siren_rope_jax.data.periods import TRAIN
from siren_rope_jax.nn.column_transform import ColumnTransform
from siren_rope_jax.nn.context import event_context
from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.session import input_spec

_LEARNED_FROM = 200_000  # events, taken evenly over users; more do not change the context's transform


def fit_inputs(log: EventLog, config: InputConfig) -> tuple[Encoder, Encoded]:
    """Fits the encoder to a log, and encodes the log.

    Args:
      log: the whole log; the encoder is fitted to its training period only.
      config: tables and smoothing.

    Returns:
      The encoder, with the transform of all columns that the head's context can have; and the encoded log.
    """
    encoder, encoded = Encoder.fit_encode(log, config)
    events = np.flatnonzero(log.period[encoded.log_index] == TRAIN)
    events = events[np.linspace(0, len(events) - 1, min(len(events), _LEARNED_FROM)).astype(int)]
    columns = {name: column[None, events] for name, column in encoded.columns.items()}
    labels = columns.pop("labels")[0]
    segment, position = jnp.zeros((2, 1, len(events)), jnp.int32)
    default = TrainConfig()  # its head reads every column that a context can have
    read = Events(segment, position, **jax.tree.map(jnp.asarray, columns))
    context = event_context(read, default.model, input_spec(encoder, default))
    transform = ColumnTransform.fit(np.asarray(context)[0], labels)
    return dataclasses.replace(encoder, context_transform=transform.to_table()), encoded
