"""Inverse frequencies of the rotary pairs, and their scalings to more context than a model was trained on."""

import functools
import math
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32, Num

from siren_rope_jax.ops.arguments import count, device_floats, number, of_rank
from siren_rope_jax.ops.meshes import on_auto_axes
from siren_rope_jax.ops.rope_methods import SCALED, Given, Theta, powers, unscaled
from siren_rope_jax.ops.rope_parameters import ORIGINAL_LENGTH, read_rope_parameters


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
    head_dim = count("head_dim", head_dim, even=True)
    return jnp.asarray(powers(head_dim, number("base", base, above=1)), jnp.float32)


class ScaledFrequencies(NamedTuple):
    """Frequencies of the R rotary pairs, and what else their dictionary says of the attention."""

    frequencies: Float32[Array, " R"]
    attention_factor: float
    """Factor of sines and cosines."""
    mrope_section: tuple[int, ...] | None = None
    """Pairs that turn by each of several positions (time, height, width): give each section the angles of its own."""
    mrope_interleaved: bool = False
    """Whether the pairs of the sections alternate, instead of lying one section after the other."""
    query_growth: tuple[float, float] | None = None
    """beta and length of `query_growth`, by which queries are multiplied."""
    unread: tuple[str, ...] = ()
    """Keys that the method does not read."""


def scaled_frequencies(
    head_dim: int,
    rope_parameters: Mapping[str, Any],
    *,
    max_position_embeddings: float,
    seq_len: float | None = None,
    layer_type: str | None = None,
) -> ScaledFrequencies:
    """Computes the frequencies that a Hugging Face `rope_parameters` dictionary asks for.

    Lengths are in the unit of the positions, which need not be integers: with positions in days, the same scalings
    extend the span of days.

    Args:
      head_dim: dimensions of a head, of which the first int(head_dim * partial_rotary_factor) are rotated.
      rope_parameters: the dictionary as a config holds it, or one such dictionary per type of layer; null counts as
        absent. `rope_theta` is always needed; `mrope_section`, `mrope_interleaved`, `llama_4_scaling_beta` (with
        `original_max_position_embeddings`) and, except with axial, `partial_rotary_factor` may always be there.
        `rope_type` (formerly `type`) is one of
        default (also where absent; formerly mrope too);
        linear, ntk: with `factor`;
        dynamic: with `factor`, or with `alpha`, which is ntk by alpha at every length;
        yarn: with `original_max_position_embeddings`; may have `factor` (else max_position_embeddings over it),
        `attention_factor`, `beta_fast`, `beta_slow`, `mscale`, `mscale_all_dim`, `truncate`;
        longrope (formerly su): with `original_max_position_embeddings`, `short_factor`, `long_factor`; may have
        `factor` (as yarn), `attention_factor`, and `short_mscale` and `long_mscale`, which stand for it up to the
        original length and beyond;
        llama3: with `original_max_position_embeddings`, `factor`, `low_freq_factor`, `high_freq_factor`;
        proportional: may have `factor`; pairs beyond the partial rotary factor have the frequency 0, and the others
        are spread as if all of them turned;
        axial: R = head_dim/4 frequencies, which turn once by the row and once by the column of a patch.
      max_position_embeddings: trained length, from the same config.
      seq_len: longest sequence to come, which dynamic and longrope depend on; None if within the trained length.
      layer_type: whose frequencies, where the dictionary has several sets, such as "full_attention".

    Returns:
      float32 radians per unit of position, computed in float64 and rounded once; the attention factor, 1.0 except for
      yarn and longrope; sections and growth of queries where the dictionary has them; and the keys that the method
      does not read, as transformers does not (`attn_factor`, `finetuned`, dynamic's `original_max_position_embeddings`
      among them), of which a warning tells.

    Raises:
      ValueError: if a key is missing or misspelt, a value is not in its range, the layer type is not one of those in
        the dictionary, or the rotary dimension is not a positive even number.

    Source: Chen et al. 2023 (linear), bloc97 2023 (ntk), emozilla 2023 (dynamic), Peng et al. 2023 (yarn), Ding et al.
      2024 (longrope), Llama Team 2024 (llama3); names and defaults of Hugging Face transformers 5.24.
    """
    method, theta, given, unread = _read(head_dim, rope_parameters, max_position_embeddings, layer_type)
    given["seq_len"] = 0.0 if seq_len is None else number("seq_len", seq_len, above=0)
    frequencies, attention_factor = SCALED[method](theta, given)
    beta = given.get("llama_4_scaling_beta")
    return ScaledFrequencies(
        jnp.asarray(frequencies, jnp.float32),
        attention_factor,
        mrope_section=given.get("mrope_section"),
        mrope_interleaved=given.get("mrope_interleaved", False),
        query_growth=None if beta is None else (beta, given[ORIGINAL_LENGTH]),
        unread=unread,
    )


def frequencies_at(
    positions: Num[Array, "*batch S"],
    head_dim: int,
    rope_parameters: Mapping[str, Any],
    *,
    max_position_embeddings: float,
    layer_type: str | None = None,
) -> tuple[Float32[Array, "*batch R"], float | Float32[Array, "*batch"]]:
    """Computes the frequencies for the positions at hand, under jit too, where dynamic and longrope choose by length.

    The length is the largest position plus one, of each sequence for itself, so that a sequence is rotated as if alone.
    transformers takes the longest of the whole batch, which `positions.reshape(-1)` gives.

        frequencies, attention_factor = frequencies_at(positions, 64, rope_parameters, max_position_embeddings=4096)
        angles = jax.vmap(ordinal_angles)(positions, frequencies)  # [B, S], [B, R] -> [B, S, R]

    Keys that were rotated and cached before a sequence outgrew a length must be rotated anew.

    Args:
      positions: of one sequence, or of several of the same number of slots.
      head_dim, rope_parameters, max_position_embeddings, layer_type: as in `scaled_frequencies`.

    Returns:
      float32 radians per unit of position: those of `scaled_frequencies(seq_len=...)`, dynamic's to 1e-6; and the
      factor of sines and cosines, an array only where `short_mscale` and `long_mscale` differ. A sequence with a NaN
      among its positions has NaN where it would have to choose.

    Raises:
      ValueError: as `scaled_frequencies`, or if the positions are one number, or not integers or floats of at least
        32 bits.

    Source: `dynamic_rope_update` of Hugging Face transformers 5.24.
    """
    method, theta, given, _ = _read(head_dim, rope_parameters, max_position_embeddings, layer_type)
    if jnp.ndim(positions) == 0:
        raise ValueError("positions must have an axis of slots, but is one number")
    seq_len = jnp.max(device_floats("positions", positions), axis=-1, initial=0) + 1
    if method == "dynamic":
        scaled = functools.partial(_dynamic_at, theta=theta, given=given)
        return on_auto_axes(scaled, like=seq_len, axes=seq_len.ndim)(seq_len), 1.0
    (short, short_factor), (long, long_factor) = (SCALED[method](theta, given | {"seq_len": n}) for n in (0, math.inf))
    if method != "longrope":
        return jnp.broadcast_to(jnp.asarray(short, jnp.float32), (*seq_len.shape, theta.size)), short_factor
    limit = given[ORIGINAL_LENGTH]
    frequencies = _by_length(seq_len[..., None], limit, short, long)
    if short_factor == long_factor:
        return frequencies, short_factor
    return frequencies, _by_length(seq_len, limit, short_factor, long_factor)


def query_growth(positions: Num[Array, "*batch"], beta: float, length: float) -> Float32[Array, "*batch"]:
    """Computes the factors by which queries grow with their position, so that attention stays sharp over many keys.

        query *= query_growth(positions, *scaled.query_growth)[..., None, None]  # [B, S, N, H]

    Args:
      positions: of the queries, from 0. Llama 4 itself counts from 1: give it positions + 1.
      beta: `llama_4_scaling_beta`, or `attn_scale` of Llama 4.
      length: `original_max_position_embeddings`, or `floor_scale` of Llama 4.

    Returns:
      1 + beta log(1 + floor(position / length)), float32; NaN for positions below 0.

    Raises:
      ValueError: if the positions are not integers or floats of at least 32 bits, beta is not a finite number of at
        least 0, or the length not a finite number above 0.

    Source: Ministral 3 and Llama 4 in Hugging Face transformers 5.24.
    """
    beta, length = number("beta", beta, least=0), number("length", length, above=0)
    # Not the floor of a quotient, which XLA may compute by a reciprocal: 49 * (1 / 49) is below 1.
    times = jnp.floor_divide(device_floats("positions", positions), jnp.float32(length))
    return 1 + beta * jnp.log1p(jnp.where(times < 0, jnp.nan, times))


def _read(
    head_dim: int, rope_parameters: Mapping[str, Any], max_position_embeddings: float, layer_type: str | None
) -> tuple[str, Theta, Given, tuple[str, ...]]:
    """Returns the method, the frequencies before it, its settings and the keys that it does not read."""
    method, given, unread = read_rope_parameters(rope_parameters, layer_type)
    given["max_position_embeddings"] = number("max_position_embeddings", max_position_embeddings, above=0)
    theta = unscaled(method, head_dim, given)
    sections = given.get("mrope_section")
    if sections is not None and sum(sections) != theta.size:
        raise ValueError(f"mrope_section must share out the {theta.size} rotary pairs, but is {list(sections)}")
    if unread:
        keys = ", ".join(map(str, unread))
        warnings.warn(f"rope_parameters have keys that rope_type {method} does not read: {keys}", stacklevel=3)
    return method, theta, given, unread


def _dynamic_at(seq_len: Float32[Array, "*batch"], theta: Theta, given: Given) -> Float32[Array, "*batch R"]:
    """Computes `_dynamic` in float32, to less than 1e-6.

    A float32 logarithm of 5 is off by 2e-7, and its exponential by as much relative to itself. So the doublings in the
    stretch are counted out, in integers, and only what is left is turned into a power.
    """
    trained, last = given["max_position_embeddings"], theta.size - 1
    # The difference first: a quotient near 1 less 1 would lose what it is about.
    stretch = 1 + given["factor"] * jnp.maximum((seq_len - trained) / trained, 0)[..., None]
    doublings = jnp.round(jnp.log2(stretch)).astype(jnp.int32)
    pairs = of_rank(np.arange(theta.size, dtype=np.int32), stretch.ndim)
    whole, rest = jnp.divmod(doublings * pairs, last)
    left = rest.astype(jnp.float32) * math.log(2) + pairs.astype(jnp.float32) * jnp.log(_halved(stretch, doublings))
    return _halved(of_rank(theta.astype(np.float32), stretch.ndim) * jnp.exp(-left / last), whole)


def _halved(x: Float32[Array, "..."], times: Int32[Array, "..."]) -> Float32[Array, "..."]:
    # The powers of two from the host: XLA's exp2 is not exact, and ldexp has no derivative.
    return x * jnp.asarray(2.0 ** -np.arange(127), jnp.float32)[times]


def _by_length(seq_len: Float32[Array, "..."], limit: float, short: Any, long: Any) -> Float32[Array, "..."]:
    of_length = jnp.where(seq_len > limit, jnp.asarray(long, jnp.float32), jnp.asarray(short, jnp.float32))
    return jnp.where(jnp.isnan(seq_len), jnp.nan, of_length)  # which is neither, and must not pass for short
