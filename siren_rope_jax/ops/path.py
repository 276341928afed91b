"""Sums along a sequence of what each event contributes: forgetting by content, and angles that content drives.

They are sums over earlier times, not over earlier slots: events of the same time neither see nor count each other, so
that their order, and other candidates of the same moment, change nothing.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int, Integer, UInt32

from siren_rope_jax.ops.arguments import check_arrays, of_rank, widened
from siren_rope_jax.ops.meshes import on_auto_axes
from siren_rope_jax.ops.slots import OfSlots, along_segments, apart, at_slots, changes, check_axes, signed_integers


def forgetting_bias(
    log_forget: Float[Array, "B S N"], segment_ids: Int[Array, "B S"], *, times: Integer[Array, "B S"] | None = None
) -> OfSlots:
    """Makes the bias of FoX, the sum of ln f over the events after the key up to the query: [B, N, Q, K], float32.

    Every event lets the logits of all that came before it fade by its own ln f. With ln f = -m this is ALiBi.

    Args:
      log_forget: ln f of each event and head, at most 0: `jax.nn.log_sigmoid` of a learned map of its representation,
        times the days since the event before (`seconds_since`) if forgetting takes time. That of padding is not read.
      segment_ids: sequence that each event belongs to; 0 is padding. The events of a segment are oldest first.
      times: if given, events of the same time do not see each other, and neither makes the other forget.

    Raises:
      ValueError: if log_forget is not [B, S, N], or segments and times are no integers [B, S].

    Source: Forgetting Transformer (arXiv 2503.02130), in the form that PaTH (arXiv 2505.16381) gives.
    """
    check_arrays(log_forget=log_forget)
    check_axes("log_forget", log_forget, "[B, S, N]")
    to_query, to_key = _sums(log_forget, segment_ids, times)
    return OfSlots(_forgotten, (to_query, to_key), to_query.shape[1], to_key.shape[1])


def _forgotten(
    arrays: tuple[Array, Array], query_slots: Int[Array, " Q"], key_slots: Int[Array, " K"]
) -> Float32[Array, "B N Q K"]:
    of_query, of_key = arrays
    later = at_slots(of_query, query_slots)[:, :, None] - at_slots(of_key, key_slots)[:, None]
    return jnp.moveaxis(later, -1, 1)


def selective_angles(
    steps: Float[Array, "B S *heads R"],
    frequencies: Float[Array, " R"],
    segment_ids: Int[Array, "B S"],
    *,
    times: Integer[Array, "B S"] | None = None,
) -> Float32[Array, "B S *heads R"]:
    """Computes the angles of Selective RoPE: each event turns what follows by a step of its own, not by one position.

    Args:
      steps: of each event, in positions, for each pair, or for each pair of each head; learned from its representation
        (the source convolves that: `causal_convolution`). With steps of 1 this is RoPE.
      frequencies: radians per position of each rotary pair (the source: base 500,000).
      segment_ids: sequence that each event belongs to; 0 is padding. The events of a segment are oldest first.
      times: if given, an event's angle has its own step and those of earlier times alone.

    Returns:
      Angles in radians, float32, in the shape of the steps; those of padding mean nothing.

    Raises:
      ValueError: if steps are not [B, S, R] or [B, S, M, R] with one number for each frequency, or segments and times
        are no integers [B, S].

    Source: Selective RoPE (arXiv 2511.17388), the authors' code.
    """
    check_arrays(steps=steps, frequencies=frequencies)
    check_axes("steps", steps, "[B, S, M, R]" if steps.ndim == 4 else "[B, S, R]")
    if frequencies.shape != steps.shape[-1:]:
        raise ValueError(f"frequencies must have shape {steps.shape[-1:]}, but have {frequencies.shape}")
    turned, _ = _sums(steps, segment_ids, times)
    return turned * of_rank(frequencies.astype(jnp.float32), steps.ndim)


def causal_convolution(
    x: Float[Array, "B S F"],
    kernel: Float[Array, "C F"],
    segment_ids: Int[Array, "B S"],
    *,
    times: Integer[Array, "B S"] | None = None,
) -> Float32[Array, "B S F"]:
    """Convolves each feature along the sequence with a short kernel over the event itself and what came just before.

    Args:
      x: features of each event.
      kernel: weights of the event itself, of the one before it, and so on. Where there is none, nothing is added.
      segment_ids: sequence that each event belongs to; 0 is padding. The events of a segment are oldest first.
      times: if given, those before are the latest of earlier times; events of one time count as their mean.

    Returns:
      sum over c of kernel[c] x[the c-th event before], float32; that of padding means nothing.

    Raises:
      ValueError: if the kernel does not fit `x`, or segments and times are no integers [B, S].

    Source: the depthwise convolution of Selective RoPE (arXiv 2511.17388), which stops at segments here.
    """
    check_arrays(x=x, kernel=kernel)
    check_axes("x", x, "[B, S, F]")
    check_axes("kernel", kernel, "[C, F]")
    if kernel.shape[1] != x.shape[2]:
        raise ValueError(f"kernel must have shape [C, {x.shape[2]}], but has {kernel.shape}")
    segment_ids, times = _checked(segment_ids, times, x.shape[:2])

    def convolved(x: Array, kernel: Array, segment_ids: Array, times: Array | None) -> Float32[Array, "B S F"]:
        x, kernel = x.astype(jnp.float32), kernel.astype(jnp.float32)
        places = _places(segment_ids, times)
        real = (segment_ids != 0)[..., None]
        together = jnp.concatenate([jnp.where(real, x, 0), real.astype(jnp.float32)], axis=-1)
        of_time = jnp.take_along_axis(_so_far(together, places.new[..., None]), places.last[..., None], axis=1)
        means = of_time[..., :-1] / jnp.maximum(of_time[..., -1:], 1)
        taps = of_rank(kernel, x.ndim + 1)
        total, slot, more = taps[..., 0, :] * x, places.first, jnp.ones_like(places.starts)
        for tap in range(1, kernel.shape[0]):
            more &= jnp.take_along_axis(~places.starts, slot, axis=1)
            before = jnp.maximum(slot - 1, 0)
            total += taps[..., tap, :] * jnp.where(
                more[..., None], jnp.take_along_axis(means, before[..., None], axis=1), 0
            )
            slot = jnp.take_along_axis(places.first, before, axis=1)
        return total

    return on_auto_axes(convolved, like=x)(x, kernel, segment_ids, times)


def seconds_since(times: Int[Array, "B S"], segment_ids: Int[Array, "B S"]) -> UInt32[Array, "B S"]:
    """Computes the time since the latest event of an earlier time in the segment, 0 if there is none, uint32.

    Args:
      times: seconds of each event; the difference of any two int32 times does not overflow.
      segment_ids: sequence that each event belongs to; 0 is padding, whose result means nothing. The events of a
        segment are oldest first.

    Raises:
      ValueError: if segments and times are no signed integers [B, S].
    """
    check_arrays(times=times)
    check_axes("times", times, "[B, S]")
    segment_ids, _ = _checked(segment_ids, times, times.shape)

    def since(times: Array, segment_ids: Array) -> UInt32[Array, "B S"]:
        events = _places(segment_ids, times)
        earlier = jnp.maximum(events.first - 1, 0)  # padding holds the time of the event before it there
        seconds = apart(events.times, jnp.take_along_axis(events.times, earlier, axis=1))
        seconds = jnp.minimum(seconds, jnp.asarray(2**32 - 1, seconds.dtype)).astype(jnp.uint32)
        return jnp.where(jnp.take_along_axis(events.starts, events.first, axis=1), 0, seconds)

    return on_auto_axes(since, like=times, axes=2)(signed_integers("times", times), segment_ids)


class _Places(NamedTuple):
    """Where the events of each slot's time and segment are; padding counts to the event before it."""

    starts: Bool[Array, "B S"]  # whether a segment starts
    new: Bool[Array, "B S"]  # whether a time starts
    first: Int[Array, "B S"]  # first slot of the same time
    last: Int[Array, "B S"]  # last slot of the same time
    times: Integer[Array, "B S"]


def _places(segment_ids: Int[Array, "B S"], times: Integer[Array, "B S"] | None) -> _Places:
    slots = jnp.broadcast_to(jnp.arange(segment_ids.shape[1]), segment_ids.shape)
    latest = jax.lax.cummax(jnp.where(segment_ids != 0, slots, 0), axis=1)
    times = slots if times is None else times
    ids, times = (jnp.take_along_axis(x, latest, axis=1) for x in (segment_ids, times))
    starts = changes(ids)
    new = starts | changes(times)
    first = jax.lax.cummax(jnp.where(new, slots, 0), axis=1)
    ends = jnp.pad(new[:, 1:], ((0, 0), (0, 1)), constant_values=True)
    last = jax.lax.cummin(jnp.where(ends, slots, segment_ids.shape[1]), axis=1, reverse=True)
    return _Places(starts, new, first, last, times)


def _sums(
    x: Float[Array, "B S *F"], segment_ids: Int[Array, "B S"], times: Integer[Array, "B S"] | None
) -> tuple[Float32[Array, "B S *F"], Float32[Array, "B S *F"]]:
    """Sums the events of a segment: those before each event's time with itself, and all up to its time."""
    segment_ids, times = _checked(segment_ids, times, x.shape[:2])

    def summed(x: Array, segment_ids: Array, times: Array | None) -> Float32[Array, "B S *F 2"]:
        places = _places(segment_ids, times)
        axes = (..., *(None,) * (x.ndim - 2))
        own = jnp.where((segment_ids != 0)[axes], x.astype(jnp.float32), 0)
        so_far = _so_far(own, places.starts[axes])
        at_first = jnp.take_along_axis(places.starts, places.first, axis=1)
        before = jnp.take_along_axis(so_far, jnp.maximum(places.first - 1, 0)[axes], axis=1)
        through = jnp.take_along_axis(so_far, places.last[axes], axis=1)
        return jnp.stack([jnp.where(at_first[axes], 0, before) + own, through], axis=-1)

    both = on_auto_axes(summed, like=x, axes=x.ndim)(x, segment_ids, times)
    return both[..., 0], both[..., 1]


@jax.jit  # also for callers without jit: the scan is some hundred small operations
def _so_far(x: Float32[Array, "B S *F"], starts: Bool[Array, "B S *_"]) -> Float32[Array, "B S *F"]:
    """Sums along the slots, anew at each start: one total less another would spread a NaN and lose digits."""
    return along_segments(jnp.add, starts, x)


def _checked(
    segment_ids: Int[Array, "B S"], times: Integer[Array, "B S"] | None, shape: tuple[int, ...]
) -> tuple[Int[Array, "B S"], Integer[Array, "B S"] | None]:
    segment_ids = signed_integers("segment_ids", segment_ids)
    times = None if times is None else widened("times", times)
    for name, x in (("segment_ids", segment_ids), ("times", times)):
        if x is not None and (x.ndim != 2 or x.shape != shape[:2] or not jnp.issubdtype(x.dtype, jnp.integer)):
            raise ValueError(f"{name} must be integers of shape {shape[:2]}, but are {x.dtype} of shape {x.shape}")
    return segment_ids, times
