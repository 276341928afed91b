"""Attention against elapsed time: how much of each event's attention goes to events of which age."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Float64, Int, Integer

from siren_rope_jax.batch import Events
from siren_rope_jax.data.batches import batches, make_rows
from siren_rope_jax.data.encode import Encoded
from siren_rope_jax.nn.block import RotaryAttention
from siren_rope_jax.nn.rotary.base import Rotation
from siren_rope_jax.ops.calendar import SECONDS_PER_DAY
from siren_rope_jax.train.session import Session

EDGES = np.r_[0.0, SECONDS_PER_DAY * 2.0 ** np.arange(-11, 14)]
"""Edges of the bins of elapsed seconds: doubling, from 42 seconds over a day to 22 years."""


class AttentionMass(NamedTuple):
    """Share of the attention, and of the events seen, in each bin of `EDGES`, averaged over events and heads."""

    mass: Float64[np.ndarray, " T"]
    even: Float64[np.ndarray, " T"]  # if an event gave all that it sees the same weight


class Recorded(RotaryAttention):
    """An attention that keeps the weights of its last call."""

    def __init__(self, attention: RotaryAttention):
        """Keeps the attention."""
        self.attention = attention

    def __call__(
        self,
        x: Float[Array, "B S D"],
        value: Float[Array, "B S D"],
        events: Events,
        times: Integer[Array, "B S"] | None,
        rotation: Rotation | None,
    ) -> Float[Array, "B S D"]:
        """Attends as without recording."""
        self.found = nnx.Intermediate(self.attention.weights(x, events, times, rotation))
        return self.attention(x, value, events, times, rotation)


def record_attention(session: Session) -> Callable[[nnx.State, Events], dict[str, Float[Array, "B N S S"]]]:
    """Prepares the computation of the weights of every attention of the model, compiled on its first call.

    Args:
      session: the run's compiled model.

    Returns:
      A function of parameters and packed rows. It returns, by the attention's name, the weights of the events seen, on
      the last axis, for each event and head. With actions as tokens between the events, there are twice as many slots,
      events on the even ones.
    """

    def run(params: nnx.State, events: Events) -> dict[str, Array]:
        model = session.model.merge(params)
        for block in model.blocks:
            block.attention = Recorded(block.attention)
        if model.action_attention is not None:
            model.action_attention = Recorded(model.action_attention)
        model(events)
        recorded = {
            name: attention for name, attention in model.attentions().items() if isinstance(attention, Recorded)
        }
        return {name: attention.found[...] for name, attention in recorded.items()}

    return jax.jit(run)


def attention_mass(
    session: Session, params: nnx.State, encoded: Encoded, chosen: Bool[np.ndarray, " E"]
) -> dict[str, AttentionMass]:
    """Averages the attention of chosen events by the time since the events that they attend to.

    Args:
      session: the run's compiled model.
      params: its parameters.
      encoded: the encoded log.
      chosen: events of the log whose attention counts; those without history have none.

    Returns:
      The shares of each attention, by its name; none if no chosen event has a history.
    """
    config = session.config.batches
    rows = make_rows(encoded, chosen[encoded.log_index], config, history=config.window - 1)
    totals, record = {}, record_attention(session)
    for index, batch in enumerate(batches(encoded, rows, config, seed=None)):
        scored = np.zeros(batch.events.segment.shape, bool)
        here = rows.scored[index * config.rows : (index + 1) * config.rows]
        scored[: len(here)] = here
        for name, weights in record(params, batch.events).items():
            found = mass_by_elapsed(np.asarray(weights), np.asarray(batch.events.elapsed_seconds), scored)
            totals[name] = totals.get(name, 0) + found
    return {name: AttentionMass(*total[:, :-1] / total[:, -1:]) for name, total in totals.items() if total[0, -1]}


def mass_by_elapsed(
    weights: Float[np.ndarray, "B N S S"], elapsed: Int[np.ndarray, "B T"], scored: Bool[np.ndarray, "B T"]
) -> Float64[np.ndarray, "2 C"]:
    """Sums weights, averaged over heads, by the time between the two events.

    Args:
      weights: of each event on the last axis, for each event.
      elapsed: seconds of each event; S may be a multiple of T, if every event has several slots.
      scored: events whose weights are summed, on the first slot of each.

    Returns:
      The sums of each bin of `EDGES`, and last the number of events that see any; then the same for even weights.
    """
    slots = weights.shape[-1] // elapsed.shape[1]
    elapsed = np.repeat(elapsed.astype(np.int64), slots, axis=1)
    queries = np.zeros(elapsed.shape, bool)
    queries[:, ::slots] = scored
    weights = weights.astype(np.float64).mean(axis=1)
    queries &= (weights > 0).any(axis=-1)
    row, query = np.nonzero(queries)
    of_query = weights[row, query]
    apart = elapsed[row, query][:, None] - elapsed[row]
    bins = np.clip(np.searchsorted(EDGES, apart, side="right") - 1, 0, len(EDGES) - 2)
    seen = (of_query > 0).astype(np.float64)
    even = seen / np.maximum(seen.sum(axis=-1, keepdims=True), 1)
    sums = [np.bincount(bins.ravel(), weights=x.ravel(), minlength=len(EDGES) - 1) for x in (of_query, even)]
    return np.array([np.r_[total, len(row)] for total in sums], np.float64)
