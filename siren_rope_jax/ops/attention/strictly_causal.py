"""Strictly causal attention over packed segments, within one sequence or from requests to a history."""

import inspect
import math
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer

from siren_rope_jax.ops.arguments import check_arrays, check_flags, check_numbers, count, described
from siren_rope_jax.ops.attention.implementations import Implementation, attend
from siren_rope_jax.ops.attention.operands import Operands, RelativeEmbedding
from siren_rope_jax.ops.attention.visibility import checked_window, make_layout
from siren_rope_jax.ops.bias import Bias
from siren_rope_jax.ops.slots import OfSlots


def strictly_causal_attention(
    query: Float[Array, "B Q N H"],
    key: Float[Array, "B S M H"],
    value: Float[Array, "B S M V"],
    *,
    segment_ids: Int[Array, "B Q"],
    no_history: Float[Array, "N V"],
    scale: float | Float[Array, ""] | Float[Array, " N"] | None = None,
    times: Integer[Array, "B Q"] | None = None,
    key_segment_ids: Int[Array, "B S"] | None = None,
    key_times: Integer[Array, "B S"] | None = None,
    bias: Bias | None = None,
    relative: RelativeEmbedding | None = None,
    hide_within: int = 0,
    inclusive: bool = False,
    window: int | None = None,
    sinks: int = 0,
    implementation: Implementation = "auto",
    chunk: int = 128,
    times_ascend: bool = False,
) -> Float[Array, "B Q N V"]:
    """Lets each event attend to the earlier events of its own segment, and to itself only if asked to.

    Queries may come from another sequence than keys and values: requests, each at its own time, against histories.
    Then `key_segment_ids`, `times` and `key_times` define visibility: a request sees the events of its segment whose
    time is before its own.

    Args:
      query: rotated queries.
      key: rotated keys; M key heads serve N/M neighbouring query heads each (grouped queries).
      value: values, with the heads of the keys.
      segment_ids: sequence that each slot belongs to; 0 is padding, which no event sees and which may hold any value.
        All other numbers must be finite: a NaN or an overflow in one event is NaN in all events that see it, and may
        reach others of the row (a fused kernel shows a NaN, but may give a key that overflows no weight).
      no_history: output of padding and of an event that sees no earlier event, or only such as a bias of -inf hides.
      scale: factor of the logits, a number or learned, for all heads or one for each; 1/sqrt(H) if not given.
      times: if given, events of the same time do not see each other, such as several shown in one request; integers
        that fit int32.
      key_segment_ids: segment ids of the keys, if they are another sequence than the queries.
      key_times: times of the keys, if they are another sequence.
      bias: added to the scaled logits: a function of query slots and key slots (`alibi_bias`, `t5_bias`,
        `hstu_bias`, and their sums), so that no [B, N, Q, S] array of it is needed.
      relative: vectors added to keys and values by the relation of query and key (TiSASRec); a bucket that has none
        makes its logit NaN.
      hide_within: if above 0, events less than this much before the query's time are hidden too, as a model that learns
        from its log finds them where events are logged late: one of time t is seen from t + hide_within on.
      inclusive: let each event see itself too, the ordinary causal attention of language models; with keys of another
        sequence, those of its own time.
      window: number of events that each one sees at most: the latest before it in its segment, by time and then by
        slot. Where times do not ascend with the slots, one in a later slot counts too, although it is not seen.
      sinks: number of first events of a segment that are seen in spite of the window.
      implementation: "plain" computes all logits, [B, N, Q, S], at once; "chunked" computes a block of them at a time,
        with memory linear in Q and S. "cudnn" and "splash" are fused kernels, for NVIDIA GPUs and for TPUs, without
        bias, relative or another sequence of keys; splash also without sinks, without hide_within, without times with a
        window, and without times if inclusive; with a window it needs segments of neighbouring slots, else a row is NaN
        there. "auto" takes the device's kernel if it can serve the arguments (and, on TPUs, there is no window), else
        chunked from 1024 x 1024 pairs on (on a CPU 256 x 256), else plain. The device is that of the mesh in context
        (`jax.set_mesh`), or the process's first. On several devices splash needs that mesh: it divides the batch over
        the axis "data" and the heads over "model". The kernels have no forward-mode derivatives.
      chunk: number of queries, and of keys, in a block of "chunked".
      times_ascend: promise that no event of a segment is earlier than one in a slot before it; "splash" requires it
        if times are given, and a row that breaks it is NaN there.

    Returns:
      Attended values in the dtype of `value`; finite, with finite gradients, for finite numbers in any layout of
      segments.

    Raises:
      ValueError: if shapes do not agree, including those that `bias` and `relative` return; if these were made for
        other numbers of slots; if queries, keys or values are not floating-point, or times are not integers that fit
        int32; if times are missing although keys are another sequence, or something is to be hidden within a time; or
        if the named implementation cannot serve the arguments.

    Source: strict causality as in Cheng, Sun, Lu 2026; softmax over packed segments; grouped queries of Ainslie et
    al. 2023; relative embeddings of Shaw et al. 2018; the delay of logs as in CADET (arXiv 2602.11410).
    """
    check_arrays(query=query, key=key, value=value, no_history=no_history)
    _check_shapes(query, key, value, no_history, one_sequence=key_segment_ids is None)
    layout = make_layout(
        segment_ids,
        times,
        key_segment_ids,
        key_times,
        hide_within=hide_within,
        inclusive=inclusive,
        queries=query.shape[:2],
        keys=key.shape[:2],
    )
    if relative is not None:
        _check_relative(relative, query.shape[2], query.shape[3], value.shape[3])
    sizes = query.shape[1], key.shape[1]
    for name, function in (("bias", bias), ("relative.buckets", None if relative is None else relative.buckets)):
        if function is not None:
            _check_takes_slots(name, function)
        if isinstance(function, OfSlots) and (function.queries, function.keys) != sizes:
            raise ValueError(
                f"{name} must be built for the {sizes[0]} queries and {sizes[1]} keys, but is for "
                f"{function.queries} and {function.keys}"
            )
    if not isinstance(implementation, str) or implementation not in get_args(Implementation):
        given = described(implementation)
        raise ValueError(f"implementation must be one of {get_args(Implementation)}, but is {given}")
    check_flags(times_ascend=times_ascend)
    chunk, (window, sinks) = count("chunk", chunk), checked_window(window, sinks)
    operands = Operands(
        query=query,
        key=key,
        value=value,
        layout=layout,
        no_history=no_history,
        scale=_checked_scale(scale, query),
        inclusive=inclusive,
        window=window,
        sinks=sinks,
        bias=bias,
        relative=relative,
        chunk=chunk,
        times_ascend=times_ascend,
    )
    return attend(operands, implementation)


def _check_shapes(query: Array, key: Array, value: Array, no_history: Array, *, one_sequence: bool) -> None:
    if (
        not query.ndim == key.ndim == value.ndim == 4
        or key.shape[:-1] != value.shape[:-1]
        or (query.shape[0], query.shape[3]) != (key.shape[0], key.shape[3])
        or not key.shape[2]
        or not query.shape[3]
        or query.shape[2] % key.shape[2]
        or (one_sequence and query.shape[1] != key.shape[1])
    ):
        raise ValueError(
            "query, key and value must have one shape [B, S, N, H] (key and value: heads that divide N; value: any "
            f"last axis), but have {query.shape}, {key.shape} and {value.shape}"
        )
    for name, array in (("query", query), ("key", key), ("value", value)):
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(f"{name} must be floating-point numbers, but are {array.dtype}")
    if no_history.shape != (query.shape[2], value.shape[3]):
        raise ValueError(f"no_history must have shape {(query.shape[2], value.shape[3])}, but has {no_history.shape}")


def _checked_scale(scale: Any, query: Array) -> float | Array:
    if scale is None:
        return 1 / math.sqrt(query.shape[-1])
    check_numbers(scale=scale)
    if not isinstance(scale, jax.Array | np.ndarray):
        return float(scale)  # a NumPy float64 would make the logits float64 under x64
    if scale.shape not in ((), (query.shape[2],)):
        raise ValueError(f"scale must have shape [] or [{query.shape[2]}], but the shape is {scale.shape}")
    return jnp.asarray(scale, jnp.float32)


def _check_takes_slots(name: str, function: object) -> None:
    slots = (None, None)
    if isinstance(function, OfSlots):
        leaves = jax.tree.leaves(function.arrays)
        check_arrays(**{f"array {index} of {name}": leaf for index, leaf in enumerate(leaves)})
        function, slots = function.function, (None, None, None)
    if not callable(function):
        raise ValueError(f"{name} must be a function of query slots and key slots, but is a {type(function).__name__}")
    try:
        arguments = inspect.signature(function)
    except ValueError:  # a function that does not tell them
        return
    try:
        arguments.bind(*slots)
    except TypeError:
        taken = "query slots and key slots" if len(slots) == 2 else "its arrays, query slots and key slots"
        raise ValueError(f"{name} must take {taken}, but takes {arguments}") from None


def _check_relative(relative: object, heads: int, width: int, value_width: int) -> None:
    if not isinstance(relative, RelativeEmbedding):
        raise ValueError(f"relative must be a RelativeEmbedding, but is a {type(relative).__name__}")
    if relative.buckets is None:
        raise ValueError("relative.buckets must be a function of query slots and key slots, but is None")
    check_arrays(**{"relative.key": relative.key, "relative.value": relative.value})
    key, value = relative.key.shape, relative.value.shape
    if len(key) != 3 or key[1:] != (heads, width) or value != (key[0], heads, value_width):
        raise ValueError(
            f"relative must hold tables of shapes [T, {heads}, {width}] and [T, {heads}, {value_width}], "
            f"but they have {key} and {value}"
        )
