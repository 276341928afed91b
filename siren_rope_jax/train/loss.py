"""The loss of several tasks over the labels that were observed."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Float32


def multitask_loss(
    outputs: Float32[Array, "*batch K"],
    targets: Float32[Array, "*batch K"],
    weights: Float[Array, " K"],
    losses_of: Callable[[jax.Array, jax.Array], jax.Array] = optax.sigmoid_binary_cross_entropy,
) -> tuple[Float32[Array, ""], Float32[Array, " K"]]:
    """Averages each task over its observed labels, and adds the tasks by weight.

    Args:
      outputs: of the model, such as logits.
      targets: what they are compared with, such as 0 or 1 or a probability between them; NaN where unobserved.
      weights: weight of each task.
      losses_of: loss of each output and target, such as that of `train.tasks`; cross-entropy if not given.

    Returns:
      (loss, loss of each task); a task without any observed label counts 0.
    """
    observed = ~jnp.isnan(targets)
    losses = losses_of(outputs, jnp.where(observed, targets, 0))
    axes = tuple(range(targets.ndim - 1))
    per_task = jnp.where(observed, losses, 0).sum(axes) / jnp.maximum(observed.sum(axes), 1)
    return (weights * per_task).sum(), per_task
