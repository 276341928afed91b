"""AdamW with warmup, cosine decay and gradient clipping; moving average of the parameters."""

import dataclasses

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int32, PyTree

from siren_rope_jax.settings import check_settings

MOST_RATE = 3e-3  # default peak, for a long log


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Settings of AdamW and its schedule."""

    learning_rate: float | None = None
    """Peak of the schedule; chosen by the size of the log if not given."""
    angle_rate: float = 0.3
    """Learning rate of the angle network, as a fraction: at the full rate it rotates keys and queries faster than their
    weights can adapt, and the loss rises for a time, from which some runs recover late."""
    table_rate: float = 0.1
    """Learning rate of the id tables, as a fraction: AdamW moves a rare id as far as a frequent one, so that at the
    full rate the tables overfit within a few epochs."""
    context_rate: float = 1e-3
    """Learning rate of the context's skip (counters, features and calendar to logits), absolute: its inputs are few,
    and the same for a log of any size."""
    warmup: float = 0.2
    """Fraction of the steps over which the learning rate rises from 0."""
    final: float = 0.0
    """Learning rate at the end, as a fraction of the peak."""
    weight_decay: float = 0.01
    """Decoupled weight decay of matrices and tables; vectors and scalars have none."""
    clip_norm: float = 0.3
    """Largest global norm of the gradient; early in training, the angles cause nearly all of it."""
    average_decay: float = 0.98
    """Decay of the moving average of the parameters, which evaluation and scoring use, since a run that stops early has
    not converged; 0 keeps no average."""
    b1: float = 0.9
    """Decay of the first moment."""
    b2: float = 0.99
    """Decay of the second moment."""

    def __post_init__(self) -> None:
        check_settings(
            self,
            learning_rate="(0, inf)",
            angle_rate="[0, 1]",
            table_rate="[0, 1]",
            context_rate="[0, inf)",
            warmup="[0, 1)",
            final="[0, 1]",
            weight_decay="[0, inf)",
            clip_norm="(0, inf]",
            average_decay="[0, 1)",
            b1="[0, 1)",
            b2="[0, 1)",
        )

    @property
    def peak(self) -> float:
        """Peak learning rate; the default for a long log if none is set."""
        return self.learning_rate or MOST_RATE


def warmup_steps(config: OptimizerConfig, steps: int) -> int:
    """Returns the number of steps over which the learning rate rises."""
    return round(config.warmup * steps)


def make_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Returns the learning rate as a function of the step: linear warmup, then cosine decay."""
    warmup = warmup_steps(config, steps)
    return optax.warmup_cosine_decay_schedule(
        0.0 if warmup else config.peak,
        config.peak,
        warmup,
        max(steps, warmup + 1),
        config.final * config.peak,
    )


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Builds AdamW with gradient clipping and the schedule over `steps`; some parts have their own learning rate."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            make_schedule(config, steps),
            b1=config.b1,
            b2=config.b2,
            weight_decay=config.weight_decay,
            mask=lambda params: jax.tree_util.tree_map_with_path(_decays, params),
        ),
        optax.stateless(lambda updates, _: _at_their_rates(updates, config)),
    )


def moving_average(average: PyTree, params: PyTree, step: Int32[Array, ""], decay: float) -> PyTree:
    """Moves an average of the parameters towards their newest values; the decay is smaller in the first steps.

    Args:
      average: average before the step.
      params: parameters after the step.
      step: number of the step, from 0.
      decay: weight of the old average after the first steps.
    """
    kept = jnp.minimum(decay, (step + 1) / (step + 10))
    return optax.incremental_update(params, average, 1 - kept)


def _decays(path: tuple, x: jax.Array) -> bool:
    # What a rotation has for each head is a matrix, but no weights.
    return x.ndim >= 2 and not {"scale", "gate", "offsets", "base_step"} & set(_names(path))


def _names(path: tuple) -> list[str]:
    return jax.tree_util.keystr(path, simple=True, separator="/").split("/")


def _at_their_rates(updates: PyTree, config: OptimizerConfig) -> PyTree:
    rates = {
        "networks": config.angle_rate,
        "omega0_factors": config.angle_rate,
        "tables": config.table_rate,
        "context": config.context_rate / config.peak,
    }

    def scaled(path: tuple, update: jax.Array) -> jax.Array:
        return update * next((rates[name] for name in _names(path) if name in rates), 1.0)

    return jax.tree_util.tree_map_with_path(scaled, updates)
