"""How many steps a training takes, where its configuration does not say."""

from siren_rope_jax.train.config import TrainConfig

_LEAST_STEPS, _EPOCHS = 600, 4.0


def training_steps(config: TrainConfig, rows: int) -> int:
    """Returns the steps of a run.

    Args:
      config: steps or epochs, or neither: then a log of any size gets the steps that the model needs, and a long one
        enough to be read several times. Early stopping ends what goes on for too long.
      rows: packed rows of the training events.
    """
    if config.steps is not None:
        return config.steps
    an_epoch = rows / config.batches.batch_size
    if config.epochs is not None:
        return max(1, round(config.epochs * an_epoch))
    return max(_LEAST_STEPS, round(_EPOCHS * an_epoch))
