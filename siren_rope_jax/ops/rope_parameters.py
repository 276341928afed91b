"""Hugging Face's `rope_parameters`: the method they name, the keys that it reads, and those that it does not."""

import difflib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from siren_rope_jax.ops.arguments import described, number

ORIGINAL_LENGTH = "original_max_position_embeddings"


class RopeParameters(NamedTuple):
    """The keys of a dictionary that a method reads, as numbers, and the names of the others."""

    method: str
    given: dict[str, Any]
    unread: tuple[str, ...]


def read_rope_parameters(rope_parameters: Mapping[str, Any], layer_type: str | None = None) -> RopeParameters:
    """Checks a dictionary, and sorts its keys into those that its method reads and the others.

    Args:
      rope_parameters: the dictionary as a config holds it, of one set of keys or of one set per type of layer; null
        counts as absent.
      layer_type: which set to read, if there are several.

    Raises:
      ValueError: if the layer type or rope_type is unknown, a key is missing or misspelt, or a value is out of range.
    """
    if not isinstance(rope_parameters, Mapping):
        raise ValueError(f"rope_parameters must be a dictionary, but is {described(rope_parameters)}")
    given, beside = _of_layer(rope_parameters, layer_type)
    method = _method(given)
    needed, optional = _METHODS[method]
    required = ["rope_theta", *needed]
    if "llama_4_scaling_beta" in given and ORIGINAL_LENGTH not in required:
        required.append(ORIGINAL_LENGTH)
    readable = {*required, *optional, *_OF_EVERY_METHOD}
    unread = (*beside, *(key for key in given if key not in readable))
    for key in unread:
        _check_spelling(key)
    for key in required:
        if key not in given:
            raise ValueError(f"rope_parameters of rope_type {method} must have the key {key}, but lacks it")
    return RopeParameters(method, {key: _value(key, given[key]) for key in given if key in readable}, unread)


_YARN_OPTIONS = ("factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate")
_LONGROPE_OPTIONS = ("factor", "attention_factor", "short_mscale", "long_mscale")
_SHARE = "partial_rotary_factor"
_METHODS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {  # the keys that a method needs, and those it may have
    "default": ((), (_SHARE,)),
    "linear": (("factor",), (_SHARE,)),
    "ntk": (("factor",), (_SHARE,)),
    "dynamic": (("factor",), (_SHARE,)),
    "dynamic with alpha": (("alpha",), (_SHARE,)),
    "yarn": ((ORIGINAL_LENGTH,), (_SHARE, *_YARN_OPTIONS)),
    "longrope": ((ORIGINAL_LENGTH, "short_factor", "long_factor"), (_SHARE, *_LONGROPE_OPTIONS)),
    "llama3": ((ORIGINAL_LENGTH, "factor", "low_freq_factor", "high_freq_factor"), (_SHARE,)),
    "proportional": ((), (_SHARE, "factor")),
    "axial": ((), ()),
}
_OTHER_NAMES = {"su": "longrope", "mrope": "default"}
_ROPE_TYPES = (*(name for name in _METHODS if name != "dynamic with alpha"), *_OTHER_NAMES)
# What models carry for their own attention: returned, or needed by what is returned.
_OF_EVERY_METHOD = ("rope_theta", "mrope_section", "mrope_interleaved", "llama_4_scaling_beta")
# Published and right, but read by no method, here or in transformers; some of them would pass for misspelt.
_OF_NO_METHOD = ("attn_factor", "finetuned", "interleaved", "max_position_embeddings", "xdrope_section")
_KNOWN = {
    *("rope_type", "type", *_OF_EVERY_METHOD, *_OF_NO_METHOD),
    *(key for method in _METHODS.values() for keys in method for key in keys),
}
_LEAST = {"factor": 1, "alpha": 1, "mscale": 0, "mscale_all_dim": 0, "llama_4_scaling_beta": 0}


def _of_layer(rope_parameters: Mapping[str, Any], layer_type: str | None) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Returns the set of keys of a type of layer, and the names of keys that stand beside the sets."""
    given = {key: value for key, value in rope_parameters.items() if value is not None}
    layers = {key: value for key, value in given.items() if isinstance(value, Mapping) and value.keys() & _KNOWN}
    if not layers or given.keys() & {"rope_type", "type"}:
        if layer_type is not None:
            raise ValueError(
                f"layer_type must be None for rope_parameters of all layers, but is {described(layer_type)}"
            )
        return given, ()
    if not isinstance(layer_type, str) or layer_type not in layers:
        raise ValueError(f"layer_type must be one of {', '.join(map(str, layers))}, but is {described(layer_type)}")
    of_layer = {key: value for key, value in layers[layer_type].items() if value is not None}
    return of_layer, tuple(key for key in given if key not in layers)


def _method(given: dict[str, Any]) -> str:
    """Takes the name of the method out of a set of keys."""
    older_name = given.pop("type", "default")
    rope_type = given.pop("rope_type", older_name)
    if not isinstance(rope_type, str) or rope_type not in _ROPE_TYPES:
        raise ValueError(f"rope_type must be one of {', '.join(_ROPE_TYPES)}, but is {described(rope_type)}")
    if rope_type == "dynamic" and "alpha" in given:
        return "dynamic with alpha"
    return _OTHER_NAMES.get(rope_type, rope_type)


def _check_spelling(key: object) -> None:
    # A share of equal letters that tells slips ("betafast", "mscale_all") from words of others ("scaling_factor").
    close = difflib.get_close_matches(str(key).lower(), _KNOWN, n=1, cutoff=0.82)
    if close and key not in _KNOWN:
        raise ValueError(f"the key {close[0]} of rope_parameters must be spelt so, but is {key!r}")


def _value(key: str, value: Any) -> float | bool | tuple[int, ...] | Float64[np.ndarray, " R"]:
    if key in ("truncate", "mrope_interleaved"):
        if not isinstance(value, bool):
            raise ValueError(f"{key} must be true or false, but is {described(value)}")
        return value
    if key not in ("short_factor", "long_factor", "mrope_section"):
        if key in _LEAST:
            return number(key, value, least=_LEAST[key])
        return number(key, value, above=1 if key == "rope_theta" else 0)
    if not isinstance(value, list | tuple):
        raise ValueError(f"{key} must be a list of numbers, but is {described(value)}")
    numbers = [number(f"{key}[{index}]", item, above=0) for index, item in enumerate(value)]
    if key != "mrope_section":
        return np.array(numbers, np.float64)
    if any(item % 1 for item in numbers):
        raise ValueError(f"mrope_section must be whole numbers of pairs, but is {described(value)}")
    return tuple(int(item) for item in numbers)
