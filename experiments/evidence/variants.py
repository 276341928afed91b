"""The encodings that grids compare: name -> settings in which each differs from those of the log."""

import math
from typing import Any

from siren_rope_jax.nn.bias import BiasConfig, TimeDecaySettings
from siren_rope_jax.nn.rotary import RotaryConfig, SirenSettings, TimeOrderSettings

NONE, ORDINAL, EMBEDDING = "none", "ordinal RoPE", "time in the embedding"
PUBLISHED, RECOMMENDED = "SIREN-RoPE, published", "SIREN-RoPE, recommended"
# Written out, so that a change of the product's defaults changes no variant.
_RECOMMENDED: dict[str, Any] = {"omega0": 3.0, "learned_omega0": True, "initial_scale": 1.0}
_SIREN = RotaryConfig("siren", siren=SirenSettings(**_RECOMMENDED))
_ORDINAL = RotaryConfig("ordinal")


def _rotary(kind: str, **settings: Any) -> dict[str, Any]:
    return {"model.rotary": RotaryConfig(kind, **settings)}


def _bias(kind: str, **settings: Any) -> dict[str, Any]:
    return {"model.rotary": _ORDINAL, "model.bias": BiasConfig(kind, **settings)}


VARIANTS: dict[str, dict[str, Any]] = {
    NONE: _rotary("none"),
    ORDINAL: {"model.rotary": _ORDINAL},
    EMBEDDING: {"model.rotary": _ORDINAL, "model.encodings": ("calendar",)},
    "Time2Vec": {"model.rotary": _ORDINAL, "model.encodings": ("time2vec",)},
    "TO-RoPE, early fusion": _rotary("time_order", time_order=TimeOrderSettings(learned_mixing=True)),
    "TO-RoPE, by dimension": _rotary("time_order", time_order=TimeOrderSettings("by_dim", learned_mixing=True)),
    "TO-RoPE, by head": _rotary("time_order", time_order=TimeOrderSettings("by_head", learned_mixing=True)),
    PUBLISHED: _rotary("siren", siren=SirenSettings(omega0=10.0, learned_omega0=False, initial_scale=math.pi)),
    RECOMMENDED: {"model.rotary": _SIREN},
    "SIREN-RoPE, without the span": _rotary("siren", siren=SirenSettings(**_RECOMMENDED, time_inputs=("day", "week"))),
    "SIREN-RoPE and time in the embedding": {"model.rotary": _SIREN, "model.encodings": ("calendar",)},
    "SIREN-RoPE and HSTU bias": {"model.rotary": _SIREN, "model.bias": BiasConfig("hstu")},
    "HSTU bias": _bias("hstu"),
    "T5 bias": _bias("t5"),
    "ALiBi": _bias("alibi"),
    "exponential decay": _bias("time_decay", time_decay=TimeDecaySettings("exponential")),
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
