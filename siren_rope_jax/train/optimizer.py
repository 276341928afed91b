"""AdamW with warmup, cosine decay and a bound on the gradient's norm; some parts learn at a rate of their own."""

import dataclasses

import jax
import optax
from jaxtyping import PyTree

from siren_rope_jax.settings import check_settings

_FASTEST_SKIP = 0.01


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and its schedule."""

    learning_rate: float = 3e-3
    """Peak of the schedule."""
    angle_rate: float = 0.3
    """Learning rate of the angle network, as a fraction. At the full rate it turns keys and queries faster than these
    can follow: training goes through a bad stretch, from which some runs come back late."""
    table_rate: float = 0.1
    """Learning rate of the id tables, as a fraction: AdamW moves a rare id as far as a frequent one, so that at the
    full rate they are learned by heart within a few passes."""
    skip_rate: float = 10.0
    """Learning rate of the linear skip of counters and calendar, as a multiple, up to a rate of 0.01: on a small log
    the rate that suits a network would take the skip nowhere."""
    warmup: float = 0.2
    """Fraction of the steps over which the learning rate rises from 0."""
    final: float = 0.0
    """Learning rate at the end, as a fraction of the peak."""
    weight_decay: float = 0.01
    """Decoupled decay of matrices and tables; vectors and scalars are left alone."""
    clip_norm: float = 0.3
    """Largest global norm of the gradient, nearly all of which is that of the angles while training is young."""
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
            skip_rate="[1, inf)",
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
    """Clips the gradient, then takes AdamW's step on the schedule over `steps`; some parts have a rate of their own."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            make_schedule(config, steps),
            b1=config.b1,
            b2=config.b2,
            weight_decay=config.weight_decay,
            mask=lambda params: jax.tree.map(lambda x: x.ndim >= 2, params),
        ),
        optax.stateless(lambda updates, _: _at_their_rates(updates, config)),
    )


def _at_their_rates(updates: PyTree, config: OptimizerConfig) -> PyTree:
    skip = max(1.0, min(config.skip_rate, _FASTEST_SKIP / config.learning_rate))
    rates = {"networks": config.angle_rate, "tables": config.table_rate, "context": skip}

    def scaled(path: tuple, update: jax.Array) -> jax.Array:
        names = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        return update * next((rates[name] for name in names if name in rates), 1.0)

    return jax.tree_util.tree_map_with_path(scaled, updates)
