"""Types of one batch of packed events, as `data` makes it, the model reads it and a training step learns from it."""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Float, Int


class Events(NamedTuple):
    """Packed rows of events, oldest first within each segment; events of the same second share a position."""

    segment: Int[Array, "B S"]  # 0 is padding
    position: Int[Array, "B S"]
    day: Int[Array, "B S"]  # local calendar, see ops.split_unix_time
    second: Int[Array, "B S"]
    elapsed_seconds: Int[Array, "B S"]  # since the start of the training span, exact
    ids: Int[Array, "B S C"]  # one bucket per id column, the item's first; bucket 0 is "unknown"
    dense: Float[Array, "B S F"]  # standardised
    actions: Float[Array, "B S A"]  # features of the outcomes, for later events to see
    context: Float[Array, "B S E"]  # history counters, standardised


class Batch(NamedTuple):
    """Events and their outcomes to learn; NumPy arrays on the host, JAX arrays on the devices."""

    events: Events
    labels: Float[Array, "B S K"]  # NaN if unobserved, or if the event serves only as history
    weight: Float[Array, "B S"] | None = None  # of each event in the loss, 1 in the mean; None if all count alike


@runtime_checkable
class _Columns(Protocol):
    """Part of `nn.features.InputSpec` that shapes depend on."""

    @property
    def id_names(self) -> tuple[str, ...]: ...
    @property
    def dense_names(self) -> tuple[str, ...]: ...
    @property
    def action_features(self) -> int: ...
    @property
    def context_features(self) -> int: ...


@runtime_checkable
class _Slots(Protocol):
    """Part of `data.batches.BatchConfig` that shapes depend on."""

    @property
    def rows(self) -> int: ...
    @property
    def row_length(self) -> int: ...


def abstract_batch(
    spec: _Columns, tasks: int, config: _Slots, *, sharding: jax.sharding.Sharding | None = None
) -> Batch:
    """Describes the shapes and types of a batch, for example to compile for it ahead of time.

    Args:
      spec: columns of the events.
      tasks: number of label columns.
      config: rows of a batch, and slots of a row.
      sharding: sharding of every array.

    Returns:
      A batch of `jax.ShapeDtypeStruct`.
    """

    def array(dtype: type, *features: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((config.rows, config.row_length, *features), dtype, sharding=sharding)

    per_event = ("segment", "position", "day", "second", "elapsed_seconds")
    events = {name: array(np.int32) for name in per_event} | {
        "ids": array(np.int32, len(spec.id_names)),
        "dense": array(np.float32, len(spec.dense_names)),
        "actions": array(np.float32, spec.action_features),
        "context": array(np.float32, spec.context_features),
    }
    return Batch(Events(**events), array(np.float32, tasks))  # type: ignore[arg-type]
