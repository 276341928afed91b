"""What training events teach about the context before the first step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from siren_rope_jax.data.encode import Encoded, Encoder
from siren_rope_jax.nn.column_transform import ColumnTransform
from siren_rope_jax.nn.context import event_context
from siren_rope_jax.nn.features import Events
from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.session import input_spec

_LEARNED_FROM = 200_000  # events; more change nothing


def fit_context(encoder: Encoder, encoded: Encoded, training: Bool[np.ndarray, " E"]) -> Encoder:
    """Fits the transform of everything that the head can be told, whatever a configuration tells it.

    Args:
      encoder: fitted on the log.
      encoded: the log.
      training: which of the encoded events are training's; of more than 200,000, so many are taken, evenly over users.

    Returns:
      The encoder, with it.
    """
    events = np.flatnonzero(training)
    events = events[np.linspace(0, len(events) - 1, min(len(events), _LEARNED_FROM)).astype(int)]
    columns = {name: column[None, events] for name, column in encoded.columns.items()}
    labels = columns.pop("labels")[0]
    segment, position = jnp.zeros((2, 1, len(events)), jnp.int32)
    config = TrainConfig()
    read = Events(segment, position, **jax.tree.map(jnp.asarray, columns))
    context = event_context(read, config.model, input_spec(encoder, config))
    transform = ColumnTransform.fit(np.asarray(context)[0], labels)
    return dataclasses.replace(encoder, context_transform=transform.to_table())
