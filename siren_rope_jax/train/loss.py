"""Multi-task binary cross-entropy over the labels that were observed."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Float32


def multitask_loss(
    logits: Float32[Array, "*batch K"], labels: Float32[Array, "*batch K"], weights: Float[Array, " K"]
) -> tuple[Float32[Array, ""], Float32[Array, " K"]]:
    """Averages each task over its observed labels, and adds the tasks by weight.

    Args:
      logits: predictions.
      labels: 0 or 1, or a probability between them; NaN where unobserved, which is neither.
      weights: weight of each task.

    Returns:
      (loss, loss of each task); a task without any observed label counts 0.
    """
    observed = ~jnp.isnan(labels)
    losses = optax.sigmoid_binary_cross_entropy(logits, jnp.where(observed, labels, 0))
    axes = tuple(range(labels.ndim - 1))
    per_task = jnp.where(observed, losses, 0).sum(axes) / jnp.maximum(observed.sum(axes), 1)
    return (weights * per_task).sum(), per_task
