"""All that a training learns of its log before the first step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from siren_rope_jax.batch import Events
from siren_rope_jax.data.encode import Encoded, Encoder, InputConfig
from siren_rope_jax.data.event_log import TRAIN, EventLog
from siren_rope_jax.nn.column_transform import ColumnTransform
from siren_rope_jax.nn.context import event_context
from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.session import input_spec

_LEARNED_FROM = 200_000  # events, taken evenly over users; more change nothing of the context's transform


def fit_inputs(log: EventLog, config: InputConfig) -> tuple[Encoder, Encoded]:
    """Fits all that a training reads a log by, and encodes it.

    Args:
      log: the whole log; only its training period is learned from.
      config: tables and smoothing.

    Returns:
      The encoder, with the transform of everything that a head can be told; and the log.
    """
    encoder, encoded = Encoder.fit_encode(log, config)
    events = np.flatnonzero(log.period[encoded.log_index] == TRAIN)
    events = events[np.linspace(0, len(events) - 1, min(len(events), _LEARNED_FROM)).astype(int)]
    columns = {name: column[None, events] for name, column in encoded.columns.items()}
    labels = columns.pop("labels")[0]
    segment, position = jnp.zeros((2, 1, len(events)), jnp.int32)
    told = TrainConfig()
    read = Events(segment, position, **jax.tree.map(jnp.asarray, columns))
    context = event_context(read, told.model, input_spec(encoder, told))
    transform = ColumnTransform.fit(np.asarray(context)[0], labels)
    return dataclasses.replace(encoder, context_transform=transform.to_table()), encoded
