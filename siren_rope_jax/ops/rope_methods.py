"""The formulas of RoPE's frequencies and of their scalings, in float64 on the host."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float64

from siren_rope_jax.ops.arguments import count
from siren_rope_jax.ops.rope_parameters import ORIGINAL_LENGTH

Theta = Float64[np.ndarray, " R"]
Given = dict[str, Any]
Scaled = tuple[Theta, float]


def powers(rotary_dim: int, base: float) -> Theta:
    """Returns base^(-2j/rotary_dim) for each pair j."""
    # In float64 on the host: a float32 power is off by 1e-6, which long positions multiply.
    return base ** (-np.arange(0, rotary_dim, 2) / rotary_dim)


def unscaled(method: str, head_dim: int, given: Given) -> Theta:
    """Returns the frequencies that a method scales.

    Raises:
      ValueError: if the head and the share of it that is rotated do not make whole pairs.
    """
    share = given.get("partial_rotary_factor", 1.0)
    head_dim = count("head_dim", head_dim)
    rotary_dim = int(head_dim * (1 if method == "proportional" else share))
    if (share > 1 and method != "proportional") or rotary_dim == 0 or rotary_dim % 2:
        raise ValueError(
            f"int(head_dim * partial_rotary_factor) must be a positive even number up to head_dim, "
            f"but is {rotary_dim} for {head_dim} and {share}"
        )
    if method in ("ntk", "dynamic", "dynamic with alpha") and rotary_dim == 2:
        raise ValueError("ntk and dynamic need a rotary dimension of at least 4, but it is 2")
    if method == "axial" and rotary_dim % 4:
        raise ValueError(f"head_dim must be a multiple of 4 for axial, but is {head_dim}")
    theta = powers(rotary_dim // 2 if method == "axial" else rotary_dim, given["rope_theta"])
    if method != "proportional":
        return theta
    turning = int(share * head_dim // 2)
    if not 0 < turning <= theta.size:
        raise ValueError(f"partial_rotary_factor must turn 1 to {theta.size} pairs, but is {share}, which is {turning}")
    return theta * (np.arange(theta.size) < turning)


def _kept(theta: Theta, given: Given) -> Scaled:
    return theta, 1.0


def _divided(theta: Theta, given: Given) -> Scaled:
    return theta / given.get("factor", 1.0), 1.0


def _ntk(theta: Theta, given: Given) -> Scaled:
    return _rebased(theta, given["alpha" if "alpha" in given else "factor"]), 1.0


def _dynamic(theta: Theta, given: Given) -> Scaled:
    trained = given["max_position_embeddings"]
    beyond = max(given["seq_len"] / trained - 1, 0)
    return _rebased(theta, 1 + given["factor"] * beyond), 1.0


def _yarn(theta: Theta, given: Given) -> Scaled:
    factor, original = _factor(given), given[ORIGINAL_LENGTH]
    fast, slow = given.get("beta_fast", 32.0), given.get("beta_slow", 1.0)
    if fast < slow:
        raise ValueError(f"beta_fast must be at least beta_slow, but they are {fast} and {slow}")
    # The pairs, counted in real numbers, that turn `fast` and `slow` times within the original length.
    log_base = math.log(given["rope_theta"])
    low, high = (theta.size * math.log(original / (2 * math.pi * n)) / log_base for n in (fast, slow))
    if given.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    # Clips both ends on both sides: clipping one end alone would reverse a ramp that lies wholly beyond the pairs.
    low, high = np.clip([low, high], 0, 2 * theta.size - 1)
    ramp = np.clip((np.arange(theta.size) - low) / (high - low or 0.001), 0, 1)
    return _blended(theta, factor, 1 - ramp), given.get("attention_factor", _yarn_attention(factor, given))


def _yarn_attention(factor: float, given: Given) -> float:
    scale, scale_all = given.get("mscale"), given.get("mscale_all_dim")
    if not (scale and scale_all):  # Hugging Face takes 0 as absent
        scale, scale_all = 1.0, 0.0
    return (0.1 * scale * math.log(factor) + 1) / (0.1 * scale_all * math.log(factor) + 1)


def _longrope(theta: Theta, given: Given) -> Scaled:
    for key in ("short_factor", "long_factor"):
        if len(given[key]) != theta.size:
            raise ValueError(f"{key} must have one number per rotary pair, {theta.size}, but has {len(given[key])}")
    span = "long" if given["seq_len"] > given[ORIGINAL_LENGTH] else "short"
    attention_factor = given.get(f"{span}_mscale", given.get("attention_factor"))
    if attention_factor is None:
        attention_factor = _longrope_attention(_factor(given), given[ORIGINAL_LENGTH])
    return theta / given[f"{span}_factor"], attention_factor


def _longrope_attention(factor: float, original: float) -> float:
    if factor == 1:
        return 1.0
    if original <= 1:
        raise ValueError(f"{ORIGINAL_LENGTH} must be above 1 where longrope has no attention_factor, but is {original}")
    return math.sqrt(1 + math.log(factor) / math.log(original))


def _llama3(theta: Theta, given: Given) -> Scaled:
    low, high = given["low_freq_factor"], given["high_freq_factor"]
    if low > high:
        raise ValueError(f"low_freq_factor must be at most high_freq_factor, but they are {low} and {high}")
    turns = given[ORIGINAL_LENGTH] * theta / (2 * math.pi)
    # Llama 4 gives one number for both: a step, as a blend over next to nothing.
    return _blended(theta, given["factor"], np.clip((turns - low) / (high - low or 1e-300), 0, 1)), 1.0


def _rebased(theta: Theta, stretch: float) -> Theta:
    """Returns the frequencies of the base times stretch^(d/(d-2)): the first stays, the last is over `stretch`."""
    return theta / stretch ** np.linspace(0, 1, theta.size)


def _blended(theta: Theta, factor: float, kept: Theta) -> Theta:
    """Blends each frequency between itself, where `kept` is 1, and itself over `factor`, where it is 0."""
    return theta * (kept + (1 - kept) / factor)


def _factor(given: Given) -> float:
    longest, original = given["max_position_embeddings"], given[ORIGINAL_LENGTH]
    if "factor" not in given and longest < original:
        raise ValueError(
            f"max_position_embeddings must be at least {ORIGINAL_LENGTH} where factor is absent, "
            f"but they are {longest} and {original}"
        )
    return given.get("factor", longest / original)


SCALED: dict[str, Callable[[Theta, Given], Scaled]] = {
    "default": _kept,
    "linear": _divided,
    "ntk": _ntk,
    "dynamic": _dynamic,
    "dynamic with alpha": _ntk,
    "yarn": _yarn,
    "longrope": _longrope,
    "llama3": _llama3,
    "proportional": _divided,
    "axial": _kept,
}
