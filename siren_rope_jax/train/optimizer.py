"""AdamW with warmup, cosine decay and a bound on the gradient's norm; angles and id tables learn more slowly."""

import dataclasses

import jax
import optax
from jaxtyping import PyTree

from siren_rope_jax.settings import check_settings


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and its schedule."""

    learning_rate: float = 3e-3
    """Peak of the schedule."""
    angle_rate: float = 0.3
    """Learning rate of the angle network, as a fraction. Its gradient is most of the whole one: at the full rate it
    turns keys and queries faster than these can follow, and some runs never recover."""
    table_rate: float = 0.1
    """Learning rate of the id tables, as a fraction: AdamW moves a rare id as far as a frequent one, so that at the
    full rate they are learned by heart within a few passes."""
    warmup: float = 0.2
    """Fraction of the steps over which the learning rate rises from 0."""
    final: float = 0.0
    """Learning rate at the end, as a fraction of the peak."""
    weight_decay: float = 0.01
    """Decoupled decay of matrices and tables; vectors and scalars are left alone."""
    clip_norm: float = 0.3
    """Largest global norm of the gradient."""
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
            warmup="[0, 1)",
            final="[0, 1]",
            weight_decay="[0, inf)",
            clip_norm="(0, inf]",
            b1="[0, 1)",
            b2="[0, 1)",
        )


def make_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Learning rate of each step: linear warmup, then a cosine."""
    warmup = round(config.warmup * steps)
    return optax.warmup_cosine_decay_schedule(
        0.0 if warmup else config.learning_rate,
        config.learning_rate,
        warmup,
        max(steps, warmup + 1),
        config.final * config.learning_rate,
    )


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Clips the gradient, then takes AdamW's step on the schedule over `steps`, shorter for angles and id tables."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            make_schedule(config, steps),
            b1=config.b1,
            b2=config.b2,
            weight_decay=config.weight_decay,
            mask=lambda params: jax.tree.map(lambda x: x.ndim >= 2, params),
        ),
        optax.stateless(lambda updates, _: _slowed(updates, config)),
    )


def _slowed(updates: PyTree, config: OptimizerConfig) -> PyTree:
    rates = {"networks": config.angle_rate, "tables": config.table_rate}

    def slow(path: tuple, update: jax.Array) -> jax.Array:
        names = {str(getattr(key, "key", getattr(key, "name", None))) for key in path}
        (rate,) = [rates[name] for name in names & rates.keys()] or [1.0]
        return rate * update

    return jax.tree_util.tree_map_with_path(slow, updates)
