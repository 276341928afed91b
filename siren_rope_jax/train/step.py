"""Compiled training step and prediction, with the model as a pure function of its parameters."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float32, Int32, Key, PyTree, UInt32

from siren_rope_jax.batch import Batch
from siren_rope_jax.nn.config import ModelConfig
from siren_rope_jax.nn.features import InputSpec
from siren_rope_jax.nn.recommender import GenerativeRecommender
from siren_rope_jax.train.loss import multitask_loss
from siren_rope_jax.train.optimizer import moving_average
from siren_rope_jax.train.sharding import Layout
from siren_rope_jax.train.tasks import Task, linked, losses_of


class TrainState(NamedTuple):
    """State that changes during training."""

    params: nnx.State
    optimizer: PyTree
    step: Int32[Array, "*seeds"]
    key: UInt32[Array, "*seeds 2"]  # key of dropout, folded with the step's number
    average: nnx.State | None = None  # moving average of the parameters

    @property
    def evaluated(self) -> nnx.State:
        """Parameters for predictions: the moving average, if one is kept."""
        return self.params if self.average is None else self.average


class CompiledModel(NamedTuple):
    """Functions of one model on one mesh, or of several that differ in their seeds and are trained as one."""

    initial_state: Callable[[], TrainState]
    train_step: Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]  # donates the state
    split: Callable[[TrainState], tuple[TrainState, ...]]  # one state per seed
    stack: Callable[[Sequence[TrainState]], TrainState]  # inverse of `split`
    predict: Callable[[nnx.State, Batch], Float32[Array, "B S K"]]  # targets, by one of the models
    diagnose: Callable[[nnx.State], dict[str, jax.Array]]  # of one of the models, what is logged at validation
    merge: Callable[[nnx.State], GenerativeRecommender]
    abstract_state: TrainState  # shapes and shardings of the state
    abstract_one: TrainState  # shapes and shardings of one seed's state


def compile_model(
    config: ModelConfig,
    spec: InputSpec,
    tasks: Sequence[Task],
    optimizer: optax.GradientTransformation,
    layout: Layout,
    *,
    task_weights: tuple[float, ...],
    average_decay: float = 0.0,
    seed: int,
) -> CompiledModel:
    """Prepares initialisation, training step and prediction.

    Args:
      config: settings of the recommender.
      spec: inputs of the recommender.
      tasks: tasks to predict.
      optimizer: optimizer of the parameters.
      layout: layout of parameters and batches on the mesh, and the number of models trained as one. The mesh is in
        context while tracing, so that attention knows its device and a kernel can be partitioned.
      task_weights: weight of each task's loss.
      average_decay: decay of the moving average of the parameters, which predictions use; 0 keeps none.
      seed: seed of parameters and dropout of the first model; the seeds of the other models follow by 1.

    Raises:
      ValueError: if the number of weights is not that of the tasks.
    """
    if len(task_weights) != len(tasks):
        raise ValueError(f"task_weights must hold {len(tasks)} weights, one per task, but hold {len(task_weights)}")
    weights = jnp.asarray(task_weights, jnp.float32)
    mesh = layout.mesh.abstract_mesh

    @jax.jit  # traced once, for the shapes and for the draw
    def make_model(key: Key[Array, ""]) -> GenerativeRecommender:
        return GenerativeRecommender(config, spec, tuple(task.start for task in tasks), key=key)

    graph, shapes = nnx.split(jax.eval_shape(make_model, jax.random.key(0)))

    def merge(params: nnx.State) -> GenerativeRecommender:
        return nnx.merge(graph, params)

    def untrained(params: nnx.State, dropout_key: Key[Array, ""]) -> TrainState:
        average = jax.tree.map(jnp.array, params) if average_decay else None
        step = jnp.zeros((), jnp.int32)
        return TrainState(params, optimizer.init(params), step, jax.random.key_data(dropout_key), average)

    def start(key: Key[Array, ""]) -> TrainState:
        init_key, dropout_key = jax.random.split(key)
        return untrained(nnx.state(make_model(init_key)), dropout_key)

    def initial_state() -> TrainState:
        if layout.seeds is None:
            return start(jax.random.key(seed))
        return jax.vmap(start)(jnp.stack([jax.random.key(seed + index) for index in range(layout.seeds)]))

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        def loss_of(params: nnx.State) -> tuple[jax.Array, jax.Array]:
            key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
            outputs = merge(params)(batch.events, dropout_key=key)
            return multitask_loss(outputs, batch.labels, weights, functools.partial(losses_of, tasks), batch.weight)

        with jax.sharding.use_abstract_mesh(mesh):
            (loss, task_losses), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
        params = cast(nnx.State, optax.apply_updates(state.params, updates))  # type: ignore[arg-type]
        metrics = {"loss": loss, "task_losses": task_losses, "gradient_norm": optax.tree.norm(gradient)}
        metrics |= {f"rotary/{name}": value for name, value in merge(params).rotary.logged().items()}
        average = state.average
        if average is not None:
            average = moving_average(average, params, state.step, average_decay)
        return TrainState(params, optimizer_state, state.step + 1, state.key, average), metrics

    def diagnose(params: nnx.State) -> dict[str, jax.Array]:
        return {f"rotary/{name}": value for name, value in merge(params).rotary.diagnosed().items()}

    def split(state: TrainState) -> tuple[TrainState, ...]:
        return tuple(jax.tree.map(lambda x, i=index: x[i], state) for index in range(layout.seeds or 0))

    def stack(states: Sequence[TrainState]) -> TrainState:
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)

    # From the shapes, since drawing the parameters takes long to trace.
    one = jax.eval_shape(untrained, shapes, jax.random.key(0))
    single = layout.seeds is None
    seeds = () if single else (layout.seeds,)
    state = jax.tree.map(lambda x: jax.ShapeDtypeStruct((*seeds, *x.shape), x.dtype), one)
    abstract_state, abstract_one = layout.place(state), dataclasses.replace(layout, seeds=None).place(one)
    of_state, of_one = (jax.tree.map(lambda leaf: leaf.sharding, state) for state in (abstract_state, abstract_one))
    return CompiledModel(
        initial_state=jax.jit(initial_state, out_shardings=of_state),
        train_step=jax.jit(
            train_step if single else jax.vmap(train_step), donate_argnums=0, out_shardings=(of_state, layout.whole)
        ),
        split=(lambda state: (state,)) if single else jax.jit(split, out_shardings=(of_one,) * (layout.seeds or 0)),
        stack=(lambda states: states[0]) if single else jax.jit(stack, out_shardings=of_state),
        predict=compile_predict(graph, tasks, layout),
        diagnose=jax.jit(diagnose, out_shardings=layout.whole),
        merge=merge,
        abstract_state=abstract_state,
        abstract_one=abstract_one,
    )


def compile_predict(
    graph: nnx.GraphDef[GenerativeRecommender], tasks: Sequence[Task], layout: Layout
) -> Callable[[nnx.State, Batch], Float32[Array, "B S K"]]:
    """Prepares the prediction of the tasks' targets by a model of the given structure, compiled on its first call."""
    mesh = layout.mesh.abstract_mesh

    def predict(params: nnx.State, batch: Batch) -> Float32[Array, "B S K"]:
        with jax.sharding.use_abstract_mesh(mesh):
            return linked(tasks, nnx.merge(graph, params)(batch.events))

    return jax.jit(predict, out_shardings=layout.whole)
