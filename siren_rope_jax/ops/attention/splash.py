"""Attention by the Pallas kernel "splash attention", for TPUs."""

import functools
import math
from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int, Int32

from siren_rope_jax.ops.attention.operands import Layout, Operands
from siren_rope_jax.ops.meshes import target_device
from siren_rope_jax.ops.slots import changes

_LANES = 128  # lengths are padded to whole lanes
_BLOCKS = (512, 384, 256, 128)


def suits(operands: Operands, platform: str, kind: str) -> bool:
    """Returns whether the device is a TPU, the rows fill the kernel's lanes, and no row may turn out unfit for it."""
    return platform == "tpu" and operands.window is None and operands.query.shape[1] >= _LANES


def refusal(operands: Operands) -> str | None:
    """Returns why the kernel cannot serve the operands, or None if it can."""
    if operands.extras:
        return f"implementation splash must get no bias, relative or key_segment_ids, but gets {operands.extras}"
    if operands.layout.key_times is not None:
        return "implementation splash must get no hide_within above 1, but gets it"
    if operands.types not in (["bfloat16"], ["float32"]):
        return (
            "query, key and value must be all float32 or all bfloat16 for implementation splash, but are "
            f"{operands.types}"
        )
    if operands.window is not None and (operands.sinks or operands.layout.times is not None):
        return "implementation splash must get no sinks and no times with a window, but gets them"
    if not isinstance(operands.query.shape[1], int):
        return f"the length must be a number for implementation splash, but is symbolic, {operands.query.shape[1]}"
    if _checked_axes():
        return "implementation splash must be called with check_vma=False inside jax.shard_map, but is called without"
    if operands.layout.times is not None and operands.inclusive:
        return "implementation splash must get no times if an event sees itself, but gets them"
    if operands.layout.times is not None and not operands.times_ascend:
        return "times_ascend must be True for implementation splash with times, but is False"
    return None


def splash_attention(operands: Operands) -> Float[Array, "B S N V"]:
    """Computes `strictly_causal_attention` from arrays that are 0 in padding and times that ascend in each segment.

    With ascending times a query sees the events of its segment before one slot, its bound, which replaces the query's
    own slot in the kernel's causal mask. A row whose times do not ascend is NaN; and, since the kernel's window counts
    slots, with a window a row whose segments are not in one piece.

    The kernel takes no scale: in bfloat16 each query is rounded once more, unless the scale is a power of two.
    Without a TPU it runs in the interpreter, slowly.
    """
    length, value_type = operands.query.shape[1], operands.value.dtype
    bounds, some, ascend = _bounds(operands.layout)
    if operands.inclusive:
        some = operands.layout.segment_ids != 0
    if operands.layout.ranks is not None:
        ascend &= _in_one_piece(operands.layout.segment_ids, operands.layout.ranks)
    query, key, value = (
        jnp.swapaxes(_padded(x), 1, 2) for x in (operands.scaled_query(), operands.key, operands.value)
    )
    kernel = functools.partial(_kernel, inclusive=operands.inclusive, window=operands.window)
    attended = _on_each_device(kernel, query, key, value, _padded(operands.layout.segment_ids), _padded(bounds))
    attended, no_history = jnp.swapaxes(attended, 1, 2)[:, :length], operands.no_history.astype(attended.dtype)
    attended = jnp.where(some[..., None, None], attended, no_history)
    return jnp.where(ascend[:, None, None, None], attended, jnp.nan).astype(value_type)


def _checked_axes() -> bool:
    """Returns whether `jax.shard_map` checks over which axes arrays vary, which the kernel does not declare."""
    mesh = jax.sharding.get_abstract_mesh()
    # Only then does the index along an axis, which differs from device to device, say so in its type.
    return any("{V:" in str(jax.typeof(jax.lax.axis_index(name))) for name in mesh.manual_axes)


def _padded(x: Array) -> Array:
    return jnp.pad(x, ((0, 0), (0, -x.shape[1] % _LANES)) + ((0, 0),) * (x.ndim - 2))


def _bounds(layout: Layout) -> tuple[Int32[Array, "B S"], Bool[Array, "B S"], Bool[Array, " B"]]:
    """Returns the first slot that each query does not see, whether it sees any, and whether a row's times ascend."""
    slots = jnp.broadcast_to(jnp.arange(layout.segment_ids.shape[1], dtype=jnp.int32), layout.segment_ids.shape)
    times = slots if layout.times is None else layout.times
    ids, times, order = jax.lax.sort((layout.segment_ids, times, slots), dimension=1, num_keys=2)

    of_segment, of_time = _latest(changes(ids)), _latest(changes(ids) | changes(times))
    ahead = jnp.pad(order[:, 1:] < order[:, :-1], ((0, 0), (1, 0))) & (of_segment != slots) & (ids != 0)
    bounds, some = jnp.take_along_axis(order, of_time, axis=1), (of_time > of_segment) & (ids != 0)
    _, bounds, some = jax.lax.sort((order, bounds, some), dimension=1, num_keys=1)
    return bounds, some, ~ahead.any(axis=1)


def _latest(start: Bool[Array, "B S"]) -> Int32[Array, "B S"]:
    """Returns the latest starting slot up to each slot; 0 if there is none."""
    slots = jnp.arange(start.shape[1], dtype=jnp.int32)[None]
    return jax.lax.cummax(jnp.where(start, slots, 0), axis=1)


def _in_one_piece(segment_ids: Int[Array, "B S"], ranks: Int32[Array, "B S"]) -> Bool[Array, " B"]:
    """Returns whether each segment of a row fills neighbouring slots, so that slots count its events."""
    since_start = jnp.arange(ranks.shape[1], dtype=jnp.int32)[None] - _latest(changes(segment_ids))
    return ((ranks == since_start) | (segment_ids == 0)).all(axis=1)


def _on_each_device(
    kernel: Callable[..., Array],
    query: Float[Array, "B N S H"],
    key: Float[Array, "B M S H"],
    value: Float[Array, "B M S V"],
    segment_ids: Int32[Array, "B S"],
    bounds: Int32[Array, "B S"],
) -> Float[Array, "B N S V"]:
    """Runs the kernel, which the compiler cannot partition, on each device's share of the batch and the heads."""
    mesh = jax.sharding.get_abstract_mesh()
    free = {name for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind != AxisType.Manual}
    if all(mesh.shape[name] == 1 for name in free):
        return kernel(query, key, value, segment_ids, bounds)

    def dividing(names: tuple[str, ...], size: int) -> tuple[str, ...] | None:
        names = tuple(name for name in names if name in free)
        return names if size % math.prod(mesh.shape[name] for name in names) == 0 else None

    batch, heads = dividing(("slice", "data"), query.shape[0]), dividing(("model",), key.shape[1])
    of_heads, of_slots = P(batch, heads), P(batch)
    return jax.shard_map(
        kernel,
        in_specs=(of_heads, of_heads, of_heads, of_slots, of_slots),
        out_specs=of_heads,
        axis_names=free,
        check_vma=False,  # the kernel does not declare the axes over which its outputs vary
    )(query, key, value, segment_ids, bounds)


def _kernel(
    query: Array, key: Array, value: Array, segment_ids: Array, bounds: Array, *, inclusive: bool, window: int | None
) -> Array:
    # Imported late: Pallas takes a while to load, and only TPUs need it.
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    heads, length = query.shape[1], query.shape[2]
    size = next(size for size in _BLOCKS if length % size == 0)
    names = "block_q", "block_kv", "block_q_dkv", "block_kv_dkv", "block_q_dq", "block_kv_dq"
    shape, offset = (length, length), 0 if inclusive else -1
    if window is None:
        mask = masks.CausalMask(shape, offset=offset)
    else:
        mask = masks.LocalMask(shape, (window - 1, 0), offset=offset)
    causal = splash.make_splash_mha(
        masks.MultiHeadMask([mask] * heads),
        block_sizes=splash.BlockSizes(**dict.fromkeys(names, size)),
        head_shards=1,
        q_seq_shards=1,
        interpret=target_device()[0] != "tpu",
    )

    def one_row(query: Array, key: Array, value: Array, segment_ids: Array, bounds: Array) -> Array:
        # The kernel runs every block up to the diagonal with the mask "q_sequence + offset >= slot of the key", where
        # q_sequence is the query's slot by default.
        infos = (causal.fwd_mask_info, causal.dq_mask_info, causal.dkv_mask_info)
        bounded = (info._replace(q_sequence=bounds) for info in infos if info is not None)
        attended = splash.SplashAttentionKernel(*bounded, **causal.kwargs)(
            query, key, value, splash.SegmentIds(segment_ids, segment_ids)
        )
        return cast(Array, attended)  # a single array, since no residuals are requested

    return jax.vmap(one_row)(query, key, value, segment_ids, bounds)
