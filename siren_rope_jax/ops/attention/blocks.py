"""Visibility, logits and mixtures for one block of queries and keys, shared by the implementations of attention."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int

from siren_rope_jax.ops.attention.operands import BucketsOfSlots, Layout
from siren_rope_jax.ops.bias import Bias

LOWEST = float(jnp.finfo(jnp.float32).min)


def visible(
    layout: Layout, rows: Int[Array, " C"], columns: Int[Array, " K"], *, inclusive: bool
) -> Bool[Array, "B C K"]:
    """Returns whether the query of slot rows[i] sees the event of slot columns[j], as element [b, i, j]."""
    segment = layout.segment_ids[:, rows, None]
    same = (segment == layout.ids_of_keys[:, None, columns]) & (segment != 0)
    row, column = rows[None, :, None], columns[None, None, :]
    seen = same & (row > column) if layout.own else same
    if layout.times is not None and layout.times_of_keys is not None:
        time, of_key = layout.times[:, rows, None], layout.times_of_keys[:, None, columns]
        seen &= time >= of_key if inclusive and not layout.own else time > of_key
    if layout.oldest is not None and layout.ranks is not None:
        seen &= layout.ranks[:, None, columns] >= layout.oldest[:, rows, None]
    return seen | (same & (row == column)) if inclusive and layout.own else seen


def not_hidden(
    seen: Bool[Array, "B 1 C K"], bias: Float32[Array, "#B #N C K"] | None
) -> Bool[Array, "B 1 C K"] | Bool[Array, "B N C K"]:
    """Returns which of the seen events a bias of -inf does not hide; other infinities and NaN hide nothing."""
    return seen if bias is None else seen & (bias != -jnp.inf)


def logits_of_block(
    query: Float[Array, "B N C H"],
    key: Float[Array, "B M K H"],
    *,
    scale: float | Float32[Array, ""] | Float32[Array, " N"],
    bias: Float32[Array, "#B #N C K"] | None,
    relative_key: Float[Array, "T N H"] | None,
    buckets: Int[Array, "B 1 C K"] | None,
) -> Float32[Array, "B N C K"]:
    """Computes the logits of a block, including those of keys that a query does not see (`of_seen` masks them)."""
    product = jnp.matmul(_by_group(query, key), jnp.swapaxes(key, 2, 3), preferred_element_type=jnp.float32)
    logits = product.reshape(*query.shape[:3], key.shape[2])
    if relative_key is not None and buckets is not None:
        of_bucket = jnp.einsum("bnch,tnh->bnct", query, relative_key, preferred_element_type=jnp.float32)
        logits += jnp.take_along_axis(of_bucket, buckets, axis=-1)
    scale = jnp.asarray(scale, jnp.float32)
    logits *= scale[None, :, None, None] if scale.ndim else scale
    return logits if bias is None else logits + bias


def of_seen(
    logits: Float32[Array, "B N C K"], seen: Bool[Array, "B 1 C K"] | Bool[Array, "B N C K"]
) -> Float32[Array, "B N C K"]:
    """Returns the logits of what is seen, and the lowest float32 for all else.

    A seen logit of -inf has overflowed, since what a bias of -inf hides is not seen. It becomes NaN: its event would
    drop out of the softmax as if it had never happened.
    """
    return _shown(jnp.where(seen, logits, LOWEST))


@jax.custom_jvp
def _shown(logits: Float32[Array, "B N C K"]) -> Float32[Array, "B N C K"]:
    # Unlike adding a NaN, a choice costs no pass over the logits of its own.
    return jnp.where(logits == -jnp.inf, jnp.nan, logits)


@_shown.defjvp
def _shown_jvp(primals, tangents):  # type: ignore[no-untyped-def]
    # That of the identity: a choice would have a derivative of 0 where it takes the NaN.
    return _shown(*primals), tangents[0]


def mixture_of_block(
    weights: Float32[Array, "B N C K"],
    value: Float[Array, "B M K V"],
    *,
    relative_value: Float[Array, "T N V"] | None,
    buckets: Int[Array, "B 1 C K"] | None,
) -> Float32[Array, "B N C V"]:
    """Computes the weighted sum of a block's values, and of the relative embeddings of the values."""
    weighted = _by_group(weights.astype(value.dtype), value)
    mixture = jnp.matmul(weighted, value, preferred_element_type=jnp.float32)
    mixture = mixture.reshape(*weights.shape[:3], value.shape[3])
    if relative_value is None or buckets is None:
        return mixture
    of_bucket = _sum_by_bucket(weights, buckets, relative_value.shape[0])
    return mixture + jnp.einsum("bnct,tnv->bncv", of_bucket, relative_value, preferred_element_type=jnp.float32)


def _by_group(x: Float[Array, "B N C *F"], of_keys: Float[Array, "B M K _"]) -> Float[Array, "B M _ *F"]:
    """Merges the query heads of each key head, so that they share one matrix product."""
    batch, heads, queries, width = x.shape
    groups = of_keys.shape[1]
    return x.reshape(batch, groups, heads // groups * queries, width)


def bias_of_block(
    bias: Bias, rows: Int[Array, " C"], columns: Int[Array, " K"], *, batch: int, heads: int
) -> Float32[Array, "#B #N C K"]:
    """Evaluates the bias of some slots and checks its shape.

    Raises:
      ValueError: if the shape does not fit.
    """
    block, shape = bias(rows, columns), (batch, heads, rows.size, columns.size)
    if not isinstance(block, jax.Array | np.ndarray) or not jnp.issubdtype(block.dtype, jnp.floating):
        raise ValueError(f"bias must return an array of floating-point numbers, but returned {_described(block)}")
    allowed = {1, batch}, {1, heads}, {rows.size}, {columns.size}
    if block.ndim != 4 or not all(given in sizes for given, sizes in zip(block.shape, allowed, strict=True)):
        raise ValueError(f"bias must return shape {shape}, where B and N may be 1, but returned {block.shape}")
    return jnp.asarray(block, jnp.float32)


def buckets_of_block(
    buckets: BucketsOfSlots, rows: Int[Array, " C"], columns: Int[Array, " K"], shown: Bool[Array, "B 1 C K"]
) -> Int[Array, "B 1 C K"]:
    """Evaluates the buckets of some slots and checks their shape and type.

    Pairs that are never seen are in bucket 0: one without an embedding would make gradients NaN.

    Raises:
      ValueError: if the shape does not fit, or the type is not an integer.
    """
    block, shape = buckets(rows, columns), (shown.shape[0], rows.size, columns.size)
    is_array = isinstance(block, jax.Array | np.ndarray)
    if not is_array or block.shape != shape or not jnp.issubdtype(block.dtype, jnp.integer):
        raise ValueError(f"relative.buckets must return integers of shape {shape}, but returned {_described(block)}")
    block = jnp.asarray(block)
    block = block.astype(jnp.result_type(block, jnp.int32))
    # A negative bucket would count from the end; out of range, its logit is NaN.
    block = jnp.where(block < 0, jnp.iinfo(block.dtype).max, block)
    return jnp.where(shown, block[:, None], 0)


def _described(block: object) -> str:
    is_array = isinstance(block, jax.Array | np.ndarray)
    return f"{block.dtype} of shape {block.shape}" if is_array else f"a {type(block).__name__}"


def _sum_by_bucket(
    weights: Float32[Array, "B N C S"], buckets: Int[Array, "B 1 C S"], count: int
) -> Float32[Array, "B N C T"]:
    """Sums the weights of the keys in each bucket."""

    def one_query(weights: Float32[Array, " S"], buckets: Int[Array, " S"]) -> Float32[Array, " T"]:
        return jnp.zeros(count, jnp.float32).at[buckets].add(weights)

    over_queries = jax.vmap(one_query)
    over_heads = jax.vmap(over_queries, in_axes=(0, None))
    return jax.vmap(over_heads)(weights, buckets[:, 0])
