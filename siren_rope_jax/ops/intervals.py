"""Intervals between events in the smallest gap of a user's history so far, as TiSASRec embeds them."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Int32, UInt

from siren_rope_jax.ops.arguments import count
from siren_rope_jax.ops.meshes import on_auto_axes
from siren_rope_jax.ops.slots import OfSlots, along_segments, apart, between, changes, check_together, sides_of


def interval_buckets(
    times: Int[Array, "B S"],
    segment_ids: Int[Array, "B S"],
    *,
    max_interval: int,
    key_times: Int[Array, "B T"] | None = None,
    key_segment_ids: Int[Array, "B T"] | None = None,
) -> OfSlots:
    """Makes the personalised intervals of TiSASRec, min(floor(|t_query - t_key| / gap), max_interval), int32 [B, Q, K].

    The source divides by the smallest nonzero gap between neighbouring events of the user's whole history, which
    makes a score depend on later events. Here it is the smallest one up to and including the query (1 s if there is
    none yet), so that a prefix scores the same as inside a longer history, and a request to a history the same as its
    event at the end of it.

    Args:
      times: Unix seconds of each query; the difference of any two int32 times does not overflow.
      segment_ids: sequence that each query belongs to.
      max_interval: largest interval; max_interval + 1 embeddings are needed.
      key_times, key_segment_ids: those of the keys, if they are another sequence. The keys of a segment are oldest
        first, with nothing but padding, 0, between them; so are the queries if they are the keys.

    Raises:
      ValueError: if times and segment_ids are not signed integers of one shape, one of them is given of the keys
        alone, or max_interval is no whole number of at least 1.

    Source: Li, Wang, McAuley 2020 (TiSASRec), section 3.2; the gap as described above.
    """
    check_together(key_times=key_times, key_segment_ids=key_segment_ids)
    another = key_times is not None
    (times, key_times), (segment_ids, key_segment_ids) = sides_of(
        times=(times, key_times), segment_ids=(segment_ids, key_segment_ids)
    )
    max_interval = count("max_interval", max_interval)
    gaps = on_auto_axes(_smallest_gaps, like=key_times)(key_times, key_segment_ids)
    if another:
        before = times, segment_ids, key_times, key_segment_ids, gaps
        gaps = on_auto_axes(_gaps_before, like=times)(*before)
    gaps = jnp.maximum(gaps + 1, 1)  # 1 s if there is none
    return OfSlots(_Intervals(max_interval), (times, key_times, gaps), times.shape[1], key_times.shape[1])


@dataclasses.dataclass(frozen=True)
class _Intervals:
    """Intervals of a block; equal for an equal limit, so that a compiled function knows it again."""

    max_interval: int

    def __call__(
        self, arrays: tuple[Array, Array, Array], query_slots: Int[Array, " Q"], key_slots: Int[Array, " K"]
    ) -> Int32[Array, "B Q K"]:
        """Computes the block."""
        times, key_times, gaps = arrays
        seconds = between(times, key_times, query_slots, key_slots)
        return jnp.minimum(seconds // gaps[:, query_slots, None], self.max_interval).astype(jnp.int32)


@jax.jit  # also for callers without jit: the scan is some hundred small operations
def _smallest_gaps(times: Int[Array, "B S"], segment_ids: Int[Array, "B S"]) -> UInt[Array, "B S"]:
    """Computes the smallest nonzero gap of neighbours in the segment so far, across padding, less 1.

    Less 1, no gap (0) wraps to the largest unsigned number, and every real gap is smaller.
    """
    latest = jax.lax.cummax(jnp.where(segment_ids != 0, jnp.arange(segment_ids.shape[1]), 0), axis=1)
    times, segment_ids = (jnp.take_along_axis(x, latest, axis=1) for x in (times, segment_ids))
    starts = changes(segment_ids)
    gaps = jnp.where(starts, 0, jnp.pad(apart(times[:, 1:], times[:, :-1]), ((0, 0), (1, 0))))
    return along_segments(jnp.minimum, starts, gaps - 1)


def _gaps_before(
    times: Int[Array, "B S"],
    segment_ids: Int[Array, "B S"],
    key_times: Int[Array, "B T"],
    key_segment_ids: Int[Array, "B T"],
    gaps: UInt[Array, "B T"],
) -> UInt[Array, "B S"]:
    """Computes the smallest gap of the keys before each query and of the last of them to the query, less 1."""
    before = (segment_ids[:, :, None] == key_segment_ids[:, None]) & (times[:, :, None] > key_times[:, None])
    last = jnp.where(before, jnp.arange(key_times.shape[1]), -1).max(-1)
    slot = jnp.maximum(last, 0)
    to_query = apart(times, jnp.take_along_axis(key_times, slot, axis=1)) - 1
    smallest = jnp.minimum(jnp.take_along_axis(gaps, slot, axis=1), to_query)
    return jnp.where(last < 0, jnp.asarray(jnp.iinfo(gaps.dtype).max, gaps.dtype), smallest)
