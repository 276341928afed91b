"""SIREN-RoPE in JAX: rotary angles learned from when things happened.

`from siren_rope_jax import train, evaluate, score, load, read_event_log, TrainConfig, from_authors` is all that most
need; each is imported when it is asked for, so that `siren_rope_jax.ops` needs jax and numpy alone.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from siren_rope_jax.data.event_log import read_event_log
    from siren_rope_jax.interop import from_authors
    from siren_rope_jax.train.config import TrainConfig
    from siren_rope_jax.train.evaluate import evaluate, score
    from siren_rope_jax.train.loop import train
    from siren_rope_jax.train.session import load

__version__ = "0.7.0"
__all__ = ["TrainConfig", "evaluate", "from_authors", "load", "read_event_log", "score", "train"]

_HOMES = dict.fromkeys(__all__, "train") | {"read_event_log": "data", "from_authors": "interop"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    return module if name == "train" else getattr(module, name)  # that package is called like the function


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
