"""Context of an event: the inputs that reach the head directly, past the attention, and their skip to the logits."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float32, Key

from siren_rope_jax.batch import Events
from siren_rope_jax.nn.block import Mlp, drop
from siren_rope_jax.nn.column_transform import ColumnTransform
from siren_rope_jax.nn.config import ModelConfig
from siren_rope_jax.nn.features import InputSpec
from siren_rope_jax.ops.calendar import CALENDAR_COLUMNS

# Leaves out the place in the training span: in a later test period it would be drift, not signal.
_CALENDAR = [*CALENDAR_COLUMNS["day"], *CALENDAR_COLUMNS["week"]]


def told_features(config: ModelConfig, spec: InputSpec) -> tuple[int, int]:
    """Returns how many columns `event_context` adds to the counters: those of the features, and of the calendar."""
    return _features(spec) * config.head_features, len(_CALENDAR) * config.head_calendar


def event_context(events: Events, config: ModelConfig, spec: InputSpec) -> Float[Array, "B S E"]:
    """Concatenates the context of each event: history counters, features, hour and weekday.

    Args:
      events: packed rows.
      config: `head_features` and `head_calendar` select the parts.
      spec: the columns of the events.
    """
    parts = [events.context]
    if config.head_features:
        # Bucket 0 gets no indicator: an unknown value is none of those seen in training.
        indicators = (jax.nn.one_hot(events.ids[..., k] - 1, spec.id_buckets[k] - 1) for k in spec.narrow)
        parts += [events.dense, *indicators]
    if config.head_calendar:
        parts.append(spec.time_features(events.day, events.second)[..., _CALENDAR])
    return jnp.concatenate(parts, axis=-1)


def _features(spec: InputSpec) -> int:
    return len(spec.dense_names) + sum(spec.id_buckets[k] - 1 for k in spec.narrow)


def _transform(config: ModelConfig, spec: InputSpec) -> ColumnTransform | None:
    """Restricts the transform of the inputs, which covers all columns, to those in use."""
    if spec.context_transform is None:
        return None
    sizes = (spec.context_features, _features(spec), len(_CALENDAR))
    told = np.repeat([True, config.head_features, config.head_calendar], sizes)
    return spec.context_transform.of(np.flatnonzero(told).tolist())


class ContextSkip(nnx.Module):
    """Adds a linear layer and a network of the context to the logits; both start at 0.

    On a small log most of the signal is in the context, and it is learned long before attention contributes.
    """

    def __init__(self, config: ModelConfig, spec: InputSpec, tasks: int, *, rngs: nnx.Rngs):
        """Draws the hidden layers, if there are any, from the stream "params"."""
        self.transform = _transform(config, spec)
        told = spec.context_features + sum(told_features(config, spec))
        features = told if self.transform is None else self.transform.out_features
        self.linear = nnx.Linear(features, tasks, use_bias=False, kernel_init=nnx.initializers.zeros, rngs=rngs)
        sizes = (features, *config.context_widths, tasks)
        self.network = Mlp(sizes, dtype=jnp.dtype(jnp.float32), rngs=rngs) if config.context_widths else None
        if self.network is not None:
            last = self.network.layers[-1].kernel
            last[...] = jnp.zeros_like(last[...])
        self.dropout = nnx.Dropout(config.context_dropout or 0.0)

    def __call__(
        self, context: Float[Array, "B S E"], *, dropout_key: Key[Array, ""] | None = None
    ) -> Float32[Array, "B S K"]:
        """Returns the terms to add to the logits."""
        context = context if self.transform is None else self.transform(context)
        logits = self.linear(context)
        return logits if self.network is None else logits + self.network(drop(self.dropout, context, dropout_key))
