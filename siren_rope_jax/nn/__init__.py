"""Flax NNX modules: input features, rotary angle sources and the generative recommender."""

from siren_rope_jax.batch import Events
from siren_rope_jax.nn.bias import BIASES, BiasConfig, T5Settings, TisasrecSettings, make_bias
from siren_rope_jax.nn.config import ModelConfig
from siren_rope_jax.nn.features import InputSpec
from siren_rope_jax.nn.recommender import GenerativeRecommender
from siren_rope_jax.nn.rotary import (
    ROTARIES,
    LieSettings,
    RotaryConfig,
    ScalingConfig,
    SirenSettings,
    SourceInputs,
    TimeOrderSettings,
    make_rotary,
)

__all__ = [
    "BIASES",
    "ROTARIES",
    "BiasConfig",
    "Events",
    "GenerativeRecommender",
    "InputSpec",
    "LieSettings",
    "ModelConfig",
    "RotaryConfig",
    "ScalingConfig",
    "SirenSettings",
    "SourceInputs",
    "T5Settings",
    "TimeOrderSettings",
    "TisasrecSettings",
    "make_bias",
    "make_rotary",
]
