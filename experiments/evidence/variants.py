"""The encodings that grids compare: name -> settings in which each differs from those of the log."""

import math
from typing import Any

from experiments.evidence.logs import LOGS
from siren_rope_jax.nn.bias import BiasConfig, TimeDecaySettings
from siren_rope_jax.nn.rotary import RotaryConfig, SirenSettings, TimeOrderSettings

NONE, ORDINAL, EMBEDDING, HSTU = "none", "ordinal RoPE", "time in the embedding", "HSTU bias"
TO_ROPE, TIME2VEC, DECAY = "TO-RoPE, early fusion", "Time2Vec", "exponential decay"
PUBLISHED, RECOMMENDED = "SIREN-RoPE, published", "SIREN-RoPE, recommended"
BOTH, WITH_HSTU = "SIREN-RoPE and time in the embedding", "SIREN-RoPE and HSTU bias"
NO_SPAN = "SIREN-RoPE, without the span"
SEMANTIC, SCALAR, SCALAR_RELU = "semantic rotation", "published, span alone", "published, span and ReLU alone"
SINE, RELU = "published, sine branch alone", "published, ReLU branch alone"
# Written out, so that a change of the product's defaults changes no variant.
_RECOMMENDED: dict[str, Any] = {"omega0": 3.0, "learned_omega0": True, "initial_scale": 1.0}
_PUBLISHED: dict[str, Any] = {"omega0": 10.0, "learned_omega0": False, "initial_scale": math.pi}
_RELU_ALONE: dict[str, Any] = {"branches": ("relu",), "omega0": None, "learned_omega0": None}
_ORDINAL = RotaryConfig("ordinal")


def _rotary(kind: str, **settings: Any) -> dict[str, Any]:
    return {"model.rotary": RotaryConfig(kind, **settings)}


def _bias(kind: str, **settings: Any) -> dict[str, Any]:
    return {"model.rotary": _ORDINAL, "model.bias": BiasConfig(kind, **settings)}


def _embedded(encoding: str) -> dict[str, Any]:
    return {"model.rotary": _ORDINAL, "model.encodings": (encoding,)}


def recommended(**changes: Any) -> dict[str, Any]:
    """Returns SIREN-RoPE as this project recommends it, with changes to its settings."""
    return _rotary("siren", siren=SirenSettings(**_RECOMMENDED | changes))


def published(**changes: Any) -> dict[str, Any]:
    """Returns SIREN-RoPE as published, with changes to its settings."""
    return _rotary("siren", siren=SirenSettings(**_PUBLISHED | changes))


def _semantic(log: str) -> RotaryConfig:
    return published(time_inputs=(), metadata=LOGS[log].metadata)["model.rotary"]


VARIANTS: dict[str, dict[str, Any]] = {
    NONE: _rotary("none"),
    ORDINAL: {"model.rotary": _ORDINAL},
    EMBEDDING: _embedded("calendar"),
    TIME2VEC: _embedded("time2vec"),
    TO_ROPE: _rotary("time_order", time_order=TimeOrderSettings(learned_mixing=True)),
    "TO-RoPE, by dimension": _rotary("time_order", time_order=TimeOrderSettings("by_dim", learned_mixing=True)),
    "TO-RoPE, by head": _rotary("time_order", time_order=TimeOrderSettings("by_head", learned_mixing=True)),
    PUBLISHED: published(),
    RECOMMENDED: recommended(),
    NO_SPAN: recommended(time_inputs=("day", "week")),
    BOTH: recommended() | {"model.encodings": ("calendar",)},
    WITH_HSTU: recommended() | {"model.bias": BiasConfig("hstu")},
    HSTU: _bias("hstu"),
    "T5 bias": _bias("t5"),
    "ALiBi": _bias("alibi"),
    DECAY: _bias("time_decay", time_decay=TimeDecaySettings("exponential")),
    "power-law decay": _bias("time_decay", time_decay=TimeDecaySettings("power")),
    "damped waves": _bias("periodic"),
    "FoX": _bias("forgetting"),
    "TiSASRec": _bias("tisasrec"),
    "RoTE": _rotary("rote"),
    "time scales": _rotary("time_scales"),
    "axes": _rotary("axes"),
    "PoPE": _rotary("pope"),
    "Selective RoPE": _rotary("selective"),
    "LieRE": _rotary("lie"),
}
# Each place where time can enter a model, once.
CORE = {name: VARIANTS[name] for name in (NONE, ORDINAL, EMBEDDING, TO_ROPE, PUBLISHED, RECOMMENDED, BOTH, HSTU, DECAY)}
# The rows of the paper's table of ablations. Its "time in year" is one number, here the place in the training span.
ABLATION: dict[str, dict[str, Any]] = {
    **{name: VARIANTS[name] for name in (ORDINAL, EMBEDDING, TO_ROPE)},
    SEMANTIC: {"model.rotary": _semantic},
    SCALAR: published(time_inputs=("span",)),
    SCALAR_RELU: published(**_RELU_ALONE, time_inputs=("span",)),
    SINE: published(branches=("sine",)),
    RELU: published(**_RELU_ALONE),
    PUBLISHED: VARIANTS[PUBLISHED],
}
