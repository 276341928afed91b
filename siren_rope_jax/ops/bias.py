"""Additive attention biases, each a function of query slots and key slots.

Attention calls them for the block it works on, so that no [B, N, S, S] array exists unless it needs the whole row.
Positions, times and tables are closed over: gradients are plain autodiff. Buckets are exact for integers: a float32
logarithm, which can fall on the wrong side of an edge, only finds the nearest edge; an integer comparison decides.
"""

import itertools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Int32, Integer

from siren_rope_jax.ops.arguments import check_arrays, count, device_integers
from siren_rope_jax.ops.meshes import on_auto_axes
from siren_rope_jax.ops.slots import (
    OfSlots,
    apart,
    at_slots,
    between,
    check_axes,
    check_together,
    sides_of,
    signed_integers,
)

Bias = Callable[[Int[Array, " Q"], Int[Array, " K"]], Float[Array, "#B #N Q K"]]
_LOG_TIME_STEP = 0.301


def alibi_slopes(heads: int) -> Float32[Array, " N"]:
    """Computes the slope of each head, a geometric sequence from 2^(-8/N) down to 2^-8.

    Args:
      heads: number of heads, N; if it is not a power of two, the slopes of the next lower one are followed by every
        second slope of the next higher one.

    Raises:
      ValueError: if heads is no whole number from 1 to 65,536.

    Source: Press, Smith, Lewis 2022 (arXiv 2108.12409), section 3, and the authors' code.
    """
    heads = count("heads", heads, most=2**16)
    power = 1 << (heads.bit_length() - 1)
    exponents = [8 * (i + 1) / power for i in range(power)] + [4 * (2 * i + 1) / power for i in range(heads - power)]
    return jnp.asarray(2.0 ** -np.asarray(exponents), jnp.float32)


def alibi_bias(
    positions: Int[Array, "B S"], slopes: Float[Array, " N"], *, key_positions: Int[Array, "B T"] | None = None
) -> OfSlots:
    """Makes the bias of ALiBi, -slope (p_query - p_key): [B, N, Q, K], float32.

    Args:
      positions: ordinal position of each query; only differences matter, and they must fit int32.
      slopes: one per head, learned or `alibi_slopes`.
      key_positions: positions of the keys, if they are another sequence.

    Raises:
      ValueError: if positions are not signed integers [B, S], or slopes are not one-dimensional.

    Source: Press, Smith, Lewis 2022 (arXiv 2108.12409), section 3.
    """
    ((positions, key_positions),) = sides_of(positions=(positions, key_positions))
    slopes = _table("slopes", slopes, "[N]")
    return OfSlots(_alibi, (positions, key_positions, slopes), positions.shape[1], key_positions.shape[1])


def _alibi(
    arrays: tuple[Array, Array, Array], query_slots: Int[Array, " Q"], key_slots: Int[Array, " K"]
) -> Float32[Array, "B N Q K"]:
    positions, key_positions, slopes = arrays
    ahead = at_slots(key_positions, key_slots)[:, None, None, :] - at_slots(positions, query_slots)[:, None, :, None]
    return slopes.astype(jnp.float32)[None, :, None, None] * ahead.astype(jnp.float32)


def t5_buckets(distance: Int[Array, "*shape"], *, buckets: int = 32, max_distance: int = 128) -> Int32[Array, "*shape"]:
    """Computes the bucket of each distance by the causal rule of T5, exactly for every integer.

    Args:
      distance: p_query - p_key; negative ones are in bucket 0.
      buckets: number of buckets; the first buckets // 2 hold one distance each, the others are logarithmic.
      max_distance: distance from which on everything shares the last bucket.

    Raises:
      ValueError: if distance is not of signed integers, buckets is no whole number from
        2 to 65,536, or max_distance none above buckets // 2.

    Source: Raffel et al. 2020 (arXiv 1910.10683), section 2.1, and the authors' code.
    """
    distance, edges, exact = signed_integers("distance", distance), _t5_edges(buckets, max_distance), buckets // 2
    beyond = jnp.maximum(distance, exact)
    log = jnp.log1p((beyond - exact).astype(jnp.float32) / exact)
    estimate = log * np.float32(edges.size / np.log1p((max_distance - exact) / exact))
    return jnp.clip(distance, 0, exact).astype(jnp.int32) + _bucket(estimate, beyond, edges)


def t5_bias(
    positions: Int[Array, "B S"],
    table: Float[Array, "M N"],
    *,
    max_distance: int = 128,
    key_positions: Int[Array, "B T"] | None = None,
) -> OfSlots:
    """Makes the causal relative bias of T5, table[bucket(p_query - p_key)]: [B, N, Q, K], float32.

    Args:
      positions: ordinal position of each query; only differences matter, and they must fit int32.
      table: learned, one row per bucket (`t5_buckets`) and one column per head.
      max_distance: distance from which on everything shares the last bucket.
      key_positions: positions of the keys, if they are another sequence.

    Raises:
      ValueError: if positions are not signed integers [B, S], M is less than 2 or max_distance <= M // 2.

    Source: Raffel et al. 2020 (arXiv 1910.10683), section 2.1.
    """
    ((positions, key_positions),) = sides_of(positions=(positions, key_positions))
    table = _table("table", table, "[M, N]")
    # All further distances share the last edge's row, so the bucket is computed per distance, not per pair.
    last = _t5_edges(table.shape[0], max_distance)[-1]
    by_distance = t5_buckets(jnp.arange(last + 1), buckets=table.shape[0], max_distance=max_distance)
    arrays = positions, key_positions, table, by_distance
    return OfSlots(_t5, arrays, positions.shape[1], key_positions.shape[1])


def _t5(
    arrays: tuple[Array, ...], query_slots: Int[Array, " Q"], key_slots: Int[Array, " K"]
) -> Float32[Array, "B N Q K"]:
    positions, key_positions, table, by_distance = arrays
    return _by_distance(positions, key_positions, table[by_distance], query_slots, key_slots)


def log_time_buckets(seconds: Integer[Array, "*shape"], *, buckets: int = 129) -> Int32[Array, "*shape"]:
    """Computes clip(floor(ln(max(|dt|, 1)) / 0.301), 0, buckets - 1), exactly for every 32-bit integer.

    Args:
      seconds: time differences dt; those of int32 times overflow from 68 years on, unless they are unsigned.
      buckets: number of buckets; 32 bits reach the first 74 only.

    Raises:
      ValueError: if seconds are not integers, or buckets is less than 1.

    Source: Zhai et al. 2024 (arXiv 2402.17152), the authors' code.
    """
    seconds = device_integers("seconds", seconds)
    if not jnp.issubdtype(seconds.dtype, jnp.integer):
        raise ValueError(f"seconds must be integers, but are {seconds.dtype}")
    buckets = count("buckets", buckets)
    seconds = jnp.maximum(apart(seconds, jnp.zeros_like(seconds)), 1)
    edges = np.ceil(np.exp(_LOG_TIME_STEP * np.arange(min(buckets, 150))))
    estimate = jnp.log(seconds.astype(jnp.float32)) / _LOG_TIME_STEP
    return _bucket(estimate, seconds, edges[edges <= jnp.iinfo(seconds.dtype).max])


def hstu_bias(
    positions: Int[Array, "B S"],
    times: Int[Array, "B S"],
    position_table: Float[Array, " P"],
    time_table: Float[Array, " M"],
    *,
    key_positions: Int[Array, "B T"] | None = None,
    key_times: Int[Array, "B T"] | None = None,
) -> OfSlots:
    """Makes the bias of HSTU, w_pos[min(p_query - p_key, P - 1)] + w_time[bucket(t_query - t_key)]: [B, 1, Q, K].

    Args:
      positions: ordinal position of each query; only differences matter, and they must fit int32.
      times: Unix seconds of each query, its request time; the difference of any two int32 times does not overflow.
      position_table: learned; a negative distance reads the first entry.
      time_table: learned, one entry per bucket (`log_time_buckets`).
      key_positions, key_times: those of the keys, if they are another sequence.

    Raises:
      ValueError: if positions and times are not signed integers of one shape, or a table is not one-dimensional.

    Source: Zhai et al. 2024 (arXiv 2402.17152), and the authors' code.
    """
    check_together(key_positions=key_positions, key_times=key_times)
    (positions, key_positions), (times, key_times) = sides_of(
        positions=(positions, key_positions), times=(times, key_times)
    )
    position_table = _table("position_table", position_table, "[P]")
    time_table = _table("time_table", time_table, "[M]")
    arrays = positions, key_positions, times, key_times, position_table, time_table
    return OfSlots(_hstu, arrays, positions.shape[1], key_positions.shape[1])


def _hstu(
    arrays: tuple[Array, ...], query_slots: Int[Array, " Q"], key_slots: Int[Array, " K"]
) -> Float32[Array, "B 1 Q K"]:
    positions, key_positions, times, key_times, position_table, time_table = arrays
    seconds = between(times, key_times, query_slots, key_slots)
    of_time = time_table.astype(jnp.float32)[log_time_buckets(seconds, buckets=time_table.size)]
    of_position = _by_distance(positions, key_positions, position_table[:, None], query_slots, key_slots)
    return of_position + of_time[:, None]


def _table(name: str, x: Array, axes: str) -> Array:
    check_arrays(**{name: x})
    check_axes(name, x, axes)
    return jnp.asarray(x)


def _by_distance(
    positions: Int[Array, "B S"],
    key_positions: Int[Array, "B T"],
    table: Float[Array, "P N"],
    query_slots: Int[Array, " Q"],
    key_slots: Int[Array, " K"],
) -> Float32[Array, "B N Q K"]:
    distance = at_slots(positions, query_slots)[:, :, None] - at_slots(key_positions, key_slots)[:, None, :]
    by_head = table.astype(jnp.float32).T[:, jnp.clip(distance, 0, table.shape[0] - 1)]
    return jnp.swapaxes(by_head, 0, 1)


def _bucket(estimate: Float[Array, "*shape"], x: Integer[Array, "*shape"], edges: np.ndarray) -> Int32[Array, "*shape"]:
    """Returns the index of the last edge that `x` reaches, from an estimate that is off by less than half.

    The rounded estimate is one of the two edges around `x`: the upper is not reached, the lower is.
    """

    def of(estimate: Float[Array, "*shape"], x: Integer[Array, "*shape"]) -> Int32[Array, "*shape"]:
        nearest = jnp.clip(jnp.round(estimate), 0, edges.size - 1).astype(jnp.int32)
        return nearest - (x < jnp.asarray(edges, x.dtype)[nearest]).astype(jnp.int32)

    return on_auto_axes(of, like=x, axes=x.ndim)(estimate, x)


def _t5_edges(buckets: int, max_distance: int) -> np.ndarray:
    """Computes the least distance n of each logarithmic bucket k: n^steps >= max_distance^k exact^(steps - k)."""
    buckets = count("buckets", buckets, least=2, most=2**16)
    exact, steps = buckets // 2, buckets - buckets // 2
    max_distance = count("max_distance", max_distance, least=exact + 1)
    near = [exact * (max_distance / exact) ** (k / steps) for k in range(steps)]
    powers = [max_distance**k * exact ** (steps - k) for k in range(steps)]
    return np.asarray(
        [next(n for n in itertools.count(int(m)) if n**steps >= p) for m, p in zip(near, powers, strict=True)]
    )
