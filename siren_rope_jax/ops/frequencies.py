"""Inverse frequencies of the rotary pairs, and their scalings to more context than a model was trained on."""

import math
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Float64


def inverse_frequencies(head_dim: int, *, base: float = 10_000.0) -> Float32[Array, " R"]:
    """Computes base^(-2j/head_dim) for each rotary pair j.

    Args:
      head_dim: dimensions that are rotated, H; even.
      base: slowest wavelength over 2 pi, in the limit of many pairs.

    Returns:
      float32, R = H/2 values from 1 downwards, in radians per unit of position.

    Raises:
      ValueError: if head_dim is not a positive even number or base is not a finite number above 1.

    Source: Su et al. 2021, section 3.2.2.
    """
    if head_dim <= 0 or head_dim % 2:
        raise ValueError(f"head_dim must be a positive even number, but is {head_dim}")
    if not 1 < base < float("inf"):
        raise ValueError(f"base must be a finite number above 1, but is {base}")
    return jnp.asarray(_powers(head_dim, base), jnp.float32)


class ScaledFrequencies(NamedTuple):
    """Frequencies of the R rotary pairs, and the factor of their sines and cosines."""

    frequencies: Float32[Array, " R"]
    attention_factor: float


def scaled_frequencies(
    head_dim: int,
    rope_parameters: Mapping[str, Any],
    *,
    max_position_embeddings: float,
    seq_len: float | None = None,
) -> ScaledFrequencies:
    """Computes the frequencies that a Hugging Face `rope_parameters` dictionary asks for.

    Lengths are in the unit of the positions, which need not be integers: with positions in days, the same scalings
    extend the span of days.

    Args:
      head_dim: dimensions of a head, of which the first int(head_dim * partial_rotary_factor) are rotated.
      rope_parameters: the dictionary as a config holds it; null counts as absent. `rope_theta` is always needed,
        `partial_rotary_factor` may always be there, and `rope_type` (formerly `type`) is one of
        default (also where absent);
        linear, ntk, dynamic: with `factor`;
        yarn: with `original_max_position_embeddings`; may have `factor` (else max_position_embeddings over it),
        `attention_factor`, `beta_fast`, `beta_slow`, `mscale`, `mscale_all_dim`, `truncate`;
        longrope: with `original_max_position_embeddings`, `short_factor`, `long_factor`; may have `factor` (as yarn),
        `attention_factor`;
        llama3: with `original_max_position_embeddings`, `factor`, `low_freq_factor`, `high_freq_factor`.
      max_position_embeddings: trained length, from the same config.
      seq_len: longest sequence to come, which dynamic and longrope depend on; None if within the trained length.

    Returns:
      float32 radians per unit of position, computed in float64 and rounded once, and the attention factor: 1.0 except
      for yarn and longrope.

    Raises:
      ValueError: if a key is unknown to the rope_type or missing, a value is not a number in its range, or the rotary
        dimension is not a positive even number.

    Source: Chen et al. 2023 (linear), bloc97 2023 (ntk), emozilla 2023 (dynamic), Peng et al. 2023 (yarn), Ding et al.
      2024 (longrope), Llama Team 2024 (llama3); names and defaults of Hugging Face transformers 5.23.
    """
    method, given = _checked(rope_parameters)
    given["max_position_embeddings"] = _number("max_position_embeddings", max_position_embeddings)
    given["seq_len"] = 0.0 if seq_len is None else _number("seq_len", seq_len)
    theta = _powers(_rotary_dim(head_dim, given), given["rope_theta"])
    frequencies, attention_factor = method(theta, given)
    return ScaledFrequencies(jnp.asarray(frequencies, jnp.float32), attention_factor)


_Theta = Float64[np.ndarray, " R"]
_Given = dict[str, Any]
_Scaled = tuple[_Theta, float]


def _powers(rotary_dim: int, base: float) -> _Theta:
    # In float64 on the host: a float32 power is off by 1e-6, which long positions multiply.
    return base ** (-np.arange(0, rotary_dim, 2) / rotary_dim)


def _default(theta: _Theta, given: _Given) -> _Scaled:
    return theta, 1.0


def _linear(theta: _Theta, given: _Given) -> _Scaled:
    return theta / given["factor"], 1.0


def _ntk(theta: _Theta, given: _Given) -> _Scaled:
    return _rebased(theta, given["factor"]), 1.0


def _dynamic(theta: _Theta, given: _Given) -> _Scaled:
    beyond = max(given["seq_len"] / given["max_position_embeddings"] - 1, 0)
    return _rebased(theta, 1 + given["factor"] * beyond), 1.0


def _yarn(theta: _Theta, given: _Given) -> _Scaled:
    factor, original = _factor(given), given[_ORIGINAL]
    fast, slow = given.get("beta_fast", 32.0), given.get("beta_slow", 1.0)
    if fast <= slow:
        raise ValueError(f"beta_fast must be above beta_slow, but they are {fast} and {slow}")
    # The pairs, counted in real numbers, that turn `fast` and `slow` times within the original length.
    log_base = math.log(given["rope_theta"])
    low, high = (theta.size * math.log(original / (2 * math.pi * n)) / log_base for n in (fast, slow))
    if given.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    # Clips both ends on both sides: clipping one end alone would reverse a ramp that lies wholly beyond the pairs.
    low, high = np.clip([low, high], 0, 2 * theta.size - 1)
    ramp = np.clip((np.arange(theta.size) - low) / (high - low or 0.001), 0, 1)
    return _blended(theta, factor, 1 - ramp), given.get("attention_factor", _yarn_attention(factor, given))


def _yarn_attention(factor: float, given: _Given) -> float:
    scale, scale_all = given.get("mscale"), given.get("mscale_all_dim")
    if not (scale and scale_all):  # Hugging Face takes 0 as absent
        scale, scale_all = 1.0, 0.0
    return (0.1 * scale * math.log(factor) + 1) / (0.1 * scale_all * math.log(factor) + 1)


def _longrope(theta: _Theta, given: _Given) -> _Scaled:
    for key in ("short_factor", "long_factor"):
        if len(given[key]) != theta.size:
            raise ValueError(f"{key} must have one number per rotary pair, {theta.size}, but has {len(given[key])}")
    factor, original = _factor(given), given[_ORIGINAL]
    scaled = theta / given["long_factor" if given["seq_len"] > original else "short_factor"]
    if "attention_factor" in given or factor == 1:
        return scaled, given.get("attention_factor", 1.0)
    if original <= 1:
        raise ValueError(f"{_ORIGINAL} must be above 1 where longrope has no attention_factor, but is {original}")
    return scaled, math.sqrt(1 + math.log(factor) / math.log(original))


def _llama3(theta: _Theta, given: _Given) -> _Scaled:
    low, high = given["low_freq_factor"], given["high_freq_factor"]
    if low >= high:
        raise ValueError(f"low_freq_factor must be below high_freq_factor, but they are {low} and {high}")
    turns = given[_ORIGINAL] * theta / (2 * math.pi)
    return _blended(theta, given["factor"], np.clip((turns - low) / (high - low), 0, 1)), 1.0


def _rebased(theta: _Theta, stretch: float) -> _Theta:
    """Returns the frequencies of the base times stretch^(d/(d-2)): the first stays, the last is over `stretch`."""
    if theta.size == 1:
        raise ValueError("ntk and dynamic need a rotary dimension of at least 4, but it is 2")
    return theta / stretch ** np.linspace(0, 1, theta.size)


def _blended(theta: _Theta, factor: float, kept: _Theta) -> _Theta:
    """Blends each frequency between itself, where `kept` is 1, and itself over `factor`, where it is 0."""
    return theta * (kept + (1 - kept) / factor)


def _factor(given: _Given) -> float:
    longest, original = given["max_position_embeddings"], given[_ORIGINAL]
    if "factor" not in given and longest < original:
        raise ValueError(
            f"max_position_embeddings must be at least {_ORIGINAL} where factor is absent, "
            f"but they are {longest} and {original}"
        )
    return given.get("factor", longest / original)


class _Method(NamedTuple):
    scale: Callable[[_Theta, _Given], _Scaled]
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


_ORIGINAL = "original_max_position_embeddings"
_YARN_OPTIONS = ("factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate")
_METHODS = {
    "default": _Method(_default),
    "linear": _Method(_linear, ("factor",)),
    "ntk": _Method(_ntk, ("factor",)),
    "dynamic": _Method(_dynamic, ("factor",)),
    "yarn": _Method(_yarn, (_ORIGINAL,), _YARN_OPTIONS),
    "longrope": _Method(_longrope, (_ORIGINAL, "short_factor", "long_factor"), ("factor", "attention_factor")),
    "llama3": _Method(_llama3, (_ORIGINAL, "factor", "low_freq_factor", "high_freq_factor")),
}
_LEAST = {"factor": 1, "mscale": 0, "mscale_all_dim": 0}


def _checked(rope_parameters: Mapping[str, Any]) -> tuple[Callable[[_Theta, _Given], _Scaled], _Given]:
    if not isinstance(rope_parameters, Mapping):
        raise ValueError(f"rope_parameters must be a dictionary, but is {reprlib.repr(rope_parameters)}")
    given = {key: value for key, value in rope_parameters.items() if value is not None}
    older_name = given.pop("type", "default")
    rope_type = given.pop("rope_type", older_name)
    if not isinstance(rope_type, str) or rope_type not in _METHODS:
        raise ValueError(f"rope_type must be one of {', '.join(_METHODS)}, but is {reprlib.repr(rope_type)}")
    method = _METHODS[rope_type]
    required = ("rope_theta", *method.required)
    for key in given:
        if key not in (*required, *method.optional, "partial_rotary_factor"):
            raise ValueError(f"rope_parameters of rope_type {rope_type} must not have the key {key}")
    for key in required:
        if key not in given:
            raise ValueError(f"rope_parameters of rope_type {rope_type} must have the key {key}, but lacks it")
    return method.scale, {key: _value(key, value) for key, value in given.items()}


def _value(key: str, value: Any) -> float | bool | Float64[np.ndarray, " R"]:
    if key == "truncate":
        if not isinstance(value, bool):
            raise ValueError(f"truncate must be true or false, but is {reprlib.repr(value)}")
        return value
    if key not in ("short_factor", "long_factor"):
        return _number(key, value)
    if not isinstance(value, list | tuple):
        raise ValueError(f"{key} must be a list of numbers, but is {reprlib.repr(value)}")
    return np.array([_number(f"{key}[{index}]", number) for index, number in enumerate(value)], np.float64)


def _number(name: str, value: Any) -> float:
    least = _LEAST.get(name)
    above = 1 if name == "rope_theta" else 0
    is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not (is_number and abs(value) < 1e300 and (value > above if least is None else value >= least)):
        interval = f"above {above}" if least is None else f"of at least {least}"
        raise ValueError(f"{name} must be a finite number {interval}, but is {reprlib.repr(value)}")
    return float(value)


def _rotary_dim(head_dim: int, given: _Given) -> int:
    share = given.get("partial_rotary_factor", 1.0)
    rotary_dim = int(_number("head_dim", head_dim) * share)
    if share > 1 or head_dim % 1 or rotary_dim == 0 or rotary_dim % 2:
        raise ValueError(
            f"int(head_dim * partial_rotary_factor) must be a positive even number up to head_dim, "
            f"but is {rotary_dim} for {head_dim} and {share}"
        )
    return rotary_dim
