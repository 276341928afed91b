"""Who may be seen: checked segments and times of queries and keys, and the number of events that each query sees."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Int32, Integer

from siren_rope_jax.ops.arguments import check_arrays, check_flags, count, signed_32, widened
from siren_rope_jax.ops.attention.operands import Layout
from siren_rope_jax.ops.attention.window import ranks_and_counts
from siren_rope_jax.ops.meshes import on_auto_axes


def visible_counts(
    segment_ids: Int[Array, "B Q"],
    *,
    times: Integer[Array, "B Q"] | None = None,
    key_segment_ids: Int[Array, "B S"] | None = None,
    key_times: Integer[Array, "B S"] | None = None,
    hide_within: int = 0,
    inclusive: bool = False,
    window: int | None = None,
    sinks: int = 0,
) -> Int32[Array, "B Q"]:
    """Counts the events that each query of `strictly_causal_attention` sees, for instance for `length_temperature`.

    Args:
      segment_ids, times, key_segment_ids, key_times, hide_within, inclusive, window, sinks: as given to the attention,
        whose biases of -inf, which hide more, do not count. Where times do not ascend with the slots of one sequence,
        events in later slots count although they are not seen.

    Returns:
      The counts; 0 in padding.

    Raises:
      ValueError: as `strictly_causal_attention`.
    """
    check_arrays(segment_ids=segment_ids)
    queries = segment_ids.shape if segment_ids.ndim == 2 else (1, segment_ids.size)
    keys = queries if key_segment_ids is None else (queries[0], *np.shape(key_segment_ids)[1:])
    given = segment_ids, times, key_segment_ids, key_times
    layout = make_layout(*given, hide_within=hide_within, inclusive=inclusive, queries=queries, keys=keys)
    window, sinks = checked_window(window, sinks)

    def of_layout(layout: Layout) -> Int32[Array, "B Q"]:
        _, counts = ranks_and_counts(layout, inclusive=inclusive)
        counts = counts if window is None else jnp.minimum(counts, window + sinks)
        return jnp.where(layout.segment_ids != 0, counts, 0)

    return on_auto_axes(of_layout, like=layout.segment_ids)(layout)


def make_layout(
    segment_ids: Int[Array, "B Q"],
    times: Integer[Array, "B Q"] | None,
    key_segment_ids: Int[Array, "B S"] | None,
    key_times: Integer[Array, "B S"] | None,
    *,
    hide_within: int,
    inclusive: bool,
    queries: tuple[int, ...],
    keys: tuple[int, ...],
) -> Layout:
    """Makes a layout of segments and times, as `strictly_causal_attention` describes them.

    Args:
      segment_ids, times, key_segment_ids, key_times, hide_within, inclusive: as there.
      queries: expected shape of the numbers of queries.
      keys: expected shape of the numbers of keys.

    Raises:
      ValueError: if they are not integers that fit int32, in these shapes, or one of them is missing.
    """
    # Numbers of one sequence are compared with each other alone, so that they may all be unsigned.
    integers = widened if key_segment_ids is None else signed_32

    def checked(name: str, x: Array, expected: tuple[int, ...]) -> Array:
        x = integers(name, x)
        if x.shape != expected or not jnp.issubdtype(x.dtype, jnp.integer):
            raise ValueError(f"{name} must be integers of shape {expected}, but are {x.dtype} of shape {x.shape}")
        return x

    layout = Layout(
        checked("segment_ids", segment_ids, queries),
        None if times is None else checked("times", times, queries),
        None if key_segment_ids is None else checked("key_segment_ids", key_segment_ids, keys),
        None if key_times is None else checked("key_times", key_times, keys),
    )
    if key_segment_ids is None and key_times is not None:
        raise ValueError("key_times must be given with key_segment_ids, but are given alone")
    if key_segment_ids is not None and (times is None or key_times is None):
        raise ValueError("times and key_times must be given with key_segment_ids, but one is missing")
    check_flags(inclusive=inclusive)
    hide_within = count("hide_within", hide_within, least=0)
    if hide_within and (times is None or inclusive):
        how = "with inclusive" if inclusive else "without times"
        raise ValueError(f"hide_within must be given with times and without inclusive, but is {hide_within} {how}")
    return _logged_late(layout, max(hide_within - 1, 0))


def checked_window(window: int | None, sinks: int) -> tuple[int | None, int]:
    """Returns the window and its sinks as numbers of Python.

    Raises:
      ValueError: if they are no whole numbers, or there are sinks without a window.
    """
    window, sinks = None if window is None else count("window", window), count("sinks", sinks, least=0)
    if window is None and sinks:
        raise ValueError(f"window must be given with sinks, but only sinks is given, {sinks}")
    return window, sinks


def _logged_late(layout: Layout, delay: int) -> Layout:
    """Returns a layout whose keys have later times, as if each had happened when it was logged."""
    times = layout.times_of_keys
    if not delay or times is None:
        return layout
    # A time too late for its type is one that no query comes after.
    latest = jnp.iinfo(times.dtype).max
    times = jnp.where(times > latest - delay, latest, times + jnp.asarray(delay, times.dtype))
    return layout._replace(key_times=times)
