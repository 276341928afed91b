"""Worth of the parts of a trained model: how much worse it predicts without one, and without training again."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Float32, Int

from siren_rope_jax.batch import Events
from siren_rope_jax.data.encode import Encoded
from siren_rope_jax.data.event_log import EventLog
from siren_rope_jax.data.periods import TRAIN
from siren_rope_jax.nn.bias import BiasInputs, NoBias
from siren_rope_jax.nn.recommender import GenerativeRecommender
from siren_rope_jax.nn.rotary.base import RotarySource, Rotation
from siren_rope_jax.report.intervals import Interval, differences
from siren_rope_jax.train.predict import evaluated
from siren_rope_jax.train.session import Session
from siren_rope_jax.train.step import compile_predict

_NAMES: dict[str, Literal["position", "time"]] = {
    "positions in the rotation": "position",
    "all times in the rotation": "time",
}


class KnockOut(NamedTuple):
    """Cost of switching one part off: the rise of each task's `compared` metric, with its interval over users."""

    part: str
    costs: dict[str, Interval]  # by task


class SameForAll(RotarySource):
    """A rotation whose source is given the same position, or the same moment, for all events.

    Queries and keys are then turned alike, so that this part of the rotation cancels: for SIREN-RoPE the same as a
    gate, or scales, of 0.
    """

    def __init__(self, source: RotarySource):
        """Keeps the source; changes nothing until a part is fixed."""
        self.source, self.spec = source, source.spec
        self.fixed = nnx.Dict({name: nnx.Variable(jnp.zeros((), bool)) for name in ("position", "time")})

    def fix(self, part: Literal["position", "time"]) -> None:
        """Fixes a part from now on."""
        self.fixed[part].set_value(jnp.ones((), bool))

    def __call__(
        self, events: Events, metadata: Float[Array, "B S F"], token: Float[Array, "B S D"]
    ) -> tuple[Rotation, Rotation] | None:
        """Returns the rotations of the source."""
        at_start = {"day": self.spec.start_day, "second": 0, "elapsed_seconds": 0}
        fixed = {"position": jnp.where(self.fixed["position"][...], 0, events.position)}
        for name, value in at_start.items():
            fixed[name] = jnp.where(self.fixed["time"][...], jnp.int32(value), getattr(events, name))
        return self.source(events._replace(**fixed), metadata, token)


def knock_outs(
    session: Session, params: nnx.State, log: EventLog, encoded: Encoded, chosen: Bool[np.ndarray, " E"]
) -> list[KnockOut]:
    """Predicts chosen events with each part of the model switched off in turn.

    The parts are the positions and the times in the rotation, what the rotation's source offers (`knock_outs`), and the
    attention bias. A part that no prediction depends on is left out.

    Args:
      session: the run's compiled model.
      params: its parameters.
      log: the log of the run.
      encoded: the encoded log.
      chosen: events to predict, of the log.
    """
    train = log.period == TRAIN
    day, second = jnp.asarray(log.day[train]), jnp.asarray(log.second[train])
    sessions: dict[nnx.GraphDef, Session] = {}

    def fresh() -> tuple[GenerativeRecommender, dict[str, Callable[[], None]]]:
        model = session.model.merge(jax.tree.map(jnp.asarray, params))  # a copy: edits would reach the parameters
        return model, _parts(model, day, second)

    def predict(model: GenerativeRecommender) -> Float32[np.ndarray, "E K"]:
        graph, edited = nnx.split(model)
        if graph not in sessions:
            compiled = session.model._replace(predict=compile_predict(graph, session.tasks, session.layout))
            sessions[graph] = dataclasses.replace(session, model=compiled)
        return sessions[graph].predict(edited, encoded, chosen)

    model, parts = fresh()
    whole, found = predict(model), []
    for part in parts:
        model, switches = fresh()
        switches[part]()
        without = predict(model)
        if not np.array_equal(without, whole, equal_nan=True):
            found.append(KnockOut(part, _costs(session, log, without, whole, chosen)))
    return found


def _parts(
    model: GenerativeRecommender, day: Int[Array, " E"], second: Int[Array, " E"]
) -> dict[str, Callable[[], None]]:
    """Returns functions, by the names of the parts, that switch them off in the model."""
    parts = model.rotary.knock_outs(day, second)
    if model.rotary.cancels:
        model.rotary = fixable = SameForAll(model.rotary)
        parts = {name: functools.partial(fixable.fix, part) for name, part in _NAMES.items()} | parts
    if model.config.bias.kind != "none":
        parts["attention bias"] = functools.partial(_without_bias, model)
    return parts


def _without_bias(model: GenerativeRecommender) -> None:
    for attention in model.attentions().values():
        inputs = BiasInputs(model.spec, model.config.heads, attention.head_dim, model.config.width)
        attention.bias = NoBias(None, inputs, nnx.Rngs(0))


def _costs(
    session: Session,
    log: EventLog,
    without: Float32[np.ndarray, "E K"],
    whole: Float32[np.ndarray, "E K"],
    chosen: Bool[np.ndarray, " E"],
) -> dict[str, Interval]:
    costs = {}
    for k, task in enumerate(session.tasks):
        pair = (evaluated(task, log, predictions[:, k], chosen) for predictions in (without, whole))
        found = differences(task, *pair)
        if task.compared in found:
            costs[task.name] = found[task.compared]
    return costs
