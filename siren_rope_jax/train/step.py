"""One training step and one prediction, compiled; the model as a pure function of its parameters."""

from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float32, Int32, PyTree

from siren_rope_jax.nn.config import ModelConfig
from siren_rope_jax.nn.features import Events, InputSpec
from siren_rope_jax.nn.recommender import GenerativeRecommender
from siren_rope_jax.nn.rotary import SirenRotary
from siren_rope_jax.train.loss import multitask_loss
from siren_rope_jax.train.sharding import replicated

Batch = dict[str, jax.Array]


class TrainState(NamedTuple):
    """All that changes while training."""

    params: nnx.State
    optimizer: PyTree
    step: Int32[Array, ""]


class CompiledModel(NamedTuple):
    """Functions of one model on one mesh."""

    initial_state: Callable[[], TrainState]
    train_step: Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]  # donates the state
    predict: Callable[[nnx.State, Batch], Float32[Array, "B S K"]]  # probabilities
    merge: Callable[[nnx.State], GenerativeRecommender]


def compile_model(
    config: ModelConfig,
    spec: InputSpec,
    task_logits: tuple[float, ...],
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    task_weights: tuple[float, ...],
    seed: int,
) -> CompiledModel:
    """Prepares initialisation, training step and prediction.

    Args:
      config: the recommender.
      spec: its inputs.
      task_logits: where each task's prediction starts.
      optimizer: of the parameters.
      mesh: devices; parameters are replicated, batches sharded over "data". It is in context while tracing, so that
        attention knows what it is compiled for and a kernel can be divided.
      task_weights: weight of each task's loss.
      seed: of the parameters and, with the step's number, of its dropout.

    Raises:
      ValueError: if the number of weights is not that of the tasks.
    """
    if len(task_weights) != len(task_logits):
        raise ValueError(f"task_weights must hold {len(task_logits)} weights, one a task, but hold {len(task_weights)}")
    weights = jnp.asarray(task_weights, jnp.float32)
    init_key, dropout_key = jax.random.split(jax.random.key(seed))

    def make_model() -> GenerativeRecommender:
        return GenerativeRecommender(config, spec, task_logits, key=init_key)

    graph = nnx.graphdef(nnx.eval_shape(make_model))

    def merge(params: nnx.State) -> GenerativeRecommender:
        return nnx.merge(graph, params)

    def initial_state() -> TrainState:
        params = nnx.state(make_model())
        return TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32))

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        def loss_of(params: nnx.State) -> tuple[jax.Array, jax.Array]:
            key = jax.random.fold_in(dropout_key, state.step)
            return multitask_loss(merge(params)(_events(batch), dropout_key=key), batch["labels"], weights)

        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            (loss, task_losses), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
        params = cast(nnx.State, optax.apply_updates(state.params, updates))  # type: ignore[arg-type]
        metrics = {"loss": loss, "task_losses": task_losses, "gradient_norm": optax.tree.norm(gradient)}
        rotary = merge(params).rotary
        if isinstance(rotary, SirenRotary):
            metrics |= {"gate": rotary.gate[...], "scale": rotary.scale[...]}
        return TrainState(params, optimizer_state, state.step + 1), metrics

    def predict(params: nnx.State, batch: Batch) -> Float32[Array, "B S K"]:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return jax.nn.sigmoid(merge(params)(_events(batch)))

    everywhere = replicated(mesh)
    return CompiledModel(
        initial_state=jax.jit(initial_state, out_shardings=everywhere),
        train_step=jax.jit(train_step, donate_argnums=0, out_shardings=everywhere),
        predict=jax.jit(predict, out_shardings=everywhere),
        merge=merge,
    )


def _events(batch: Batch) -> Events:
    return Events(**{name: batch[name] for name in Events._fields})
