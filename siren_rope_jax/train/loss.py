"""Loss of several tasks over their observed labels."""

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
    event_weight: Float[Array, "*batch"] | None = None,
) -> tuple[Float32[Array, ""], Float32[Array, " K"]]:
    """Averages the loss of each task over its observed labels, and sums the tasks by weight.

    Args:
      outputs: outputs of the model, such as logits.
      targets: targets of the outputs, such as 0, 1 or a probability; NaN where unobserved.
      weights: weight of each task.
      losses_of: loss of each output and target, such as `train.tasks.losses_of`; cross-entropy if not given.
      event_weight: weight of each event, 1 in the mean over training; 1 if not given. The sum is divided by the number
        of labels, not by the weights of the batch, so that the mean over batches is that over all events.

    Returns:
      (loss, loss of each task); the loss of a task without any observed label is 0.
    """
    observed = ~jnp.isnan(targets)
    losses = losses_of(outputs, jnp.where(observed, targets, 0))
    if event_weight is not None:
        losses *= event_weight[..., None]
    axes = tuple(range(targets.ndim - 1))
    per_task = jnp.where(observed, losses, 0).sum(axes) / jnp.maximum(observed.sum(axes), 1)
    return (weights * per_task).sum(), per_task
