"""What the tests of attention share: random arrays, layouts of packed rows, and the comparison with float64."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from siren_rope_jax.ops import RelativeEmbedding, strictly_causal_attention

BATCH, LENGTH, HEADS, BUCKETS, REQUESTS = 2, 8, 4, 5, 6
WIDTHS = 4, 3  # of keys and of values
layouts = arrays.arrays(np.int32, (BATCH, LENGTH), elements=st.integers(0, 3))
clocks = arrays.arrays(np.int32, (BATCH, LENGTH), elements=st.integers(0, 4)).map(lambda x: np.sort(x, axis=1))
PACKED = np.array([[1, 1, 1, 2, 2, 3, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1]], np.int32)
PADDING_INSIDE = np.array([[1, 1, 0, 1, 0, 2, 2, 2], [0, 0, 5, 5, 0, 5, 0, 7]], np.int32)
PADDING_ONLY = np.zeros((BATCH, LENGTH), np.int32)
SINGLES = np.array([[1, 2, 3, 4, 5, 6, 7, 8], [8, 7, 6, 5, 4, 3, 2, 1]], np.int32)
TIMES = np.array([[0, 0, 1, 1, 2, 3, 3, 3], [0, 1, 2, 2, 2, 3, 3, 4]], np.int32)


def random_inputs(
    seed=0, dtype=jnp.float32, length=LENGTH, *, queries=None, groups=HEADS, widths=WIDTHS, bias=False, relative=False
):
    """Everything with a gradient, by name: `groups` heads of keys and values, and learned tables if asked for."""
    width, value_width = widths
    generator = np.random.default_rng(seed)
    shapes = {
        "query": (BATCH, queries or length, HEADS, width),
        "key": (BATCH, length, groups, width),
        "value": (BATCH, length, groups, value_width),
        "no_history": (HEADS, value_width),
        "bias": (HEADS, BUCKETS) if bias else None,
        "relative_key": (BUCKETS, HEADS, width) if relative else None,
        "relative_value": (BUCKETS, HEADS, value_width) if relative else None,
    }
    return {name: jnp.asarray(generator.normal(size=shape), dtype) for name, shape in shapes.items() if shape}


def relation(layout):
    """Some bucket of each query and key, computed from one number of each slot."""
    query, key = layout["segment_ids"], layout.get("key_segment_ids", layout["segment_ids"])
    (_, queries), (_, keys) = query.shape, key.shape
    numbers = np.random.default_rng(2).integers(0, 20, (BATCH, queries + keys))
    return numbers[:, :queries], numbers[:, queries:]


def attend(inputs, layout, **how):
    of_query, of_key = (jnp.asarray(numbers) for numbers in relation(layout))

    def buckets(rows, columns):
        return (of_query[:, rows, None] - of_key[:, None, columns]) % BUCKETS

    def bias(rows, columns):
        return jnp.swapaxes(inputs["bias"][:, buckets(rows, columns)], 0, 1)

    tables = [inputs[name] for name in ("relative_key", "relative_value") if name in inputs]
    return strictly_causal_attention(
        **{name: inputs[name] for name in ("query", "key", "value", "no_history")},
        bias=bias if "bias" in inputs else None,
        relative=RelativeEmbedding(buckets, *tables) if tables else None,
        **(how or {"implementation": "plain"}),
        **layout,
    )


def value_and_gradients(inputs, layout, cotangent, **how):
    result, pull_back = jax.vjp(lambda inputs: attend(inputs, layout, **how), inputs)
    return result, pull_back(cotangent)[0]


jitted = jax.jit(value_and_gradients, static_argnames=("implementation", "chunk", "times_ascend"))


def layout_of(segment_ids, times=None, **others):
    given = {"segment_ids": segment_ids, "times": times} | others
    return {name: jnp.asarray(array) for name, array in given.items() if array is not None}


def random_cotangent(inputs):
    shape = (*inputs["query"].shape[:3], inputs["value"].shape[3])
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), inputs["value"].dtype)


def check_against_float64(inputs, segment_ids, times=None, *, function=jitted, how=None, atol=2e-6, **others):
    cotangent, layout = random_cotangent(inputs), layout_of(segment_ids, times, **others)
    result, gradients = function(inputs, layout, cotangent, **(how or {}))
    of_query, of_key = relation(layout)
    buckets = (of_query[:, :, None] - of_key[:, None, :]) % BUCKETS
    scale = inputs["query"].shape[3] ** -0.5
    exact, expected = reference.attention(
        inputs, segment_ids, scale, times, np.float64(cotangent), buckets=buckets, **others
    )
    chex.assert_type(result, inputs["value"].dtype)
    chex.assert_trees_all_close(result, exact, rtol=0, atol=atol)
    chex.assert_trees_all_close(gradients, expected, atol=4 * atol, rtol=4 * atol)


OPTIONS = {
    "plain": {},
    "one key head": {"groups": 1},
    "two key heads": {"groups": 2},
    "bias": {"bias": True},
    "relative": {"relative": True},
    "all": {"groups": 2, "bias": True, "relative": True},
}
options = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


REQUEST_LAYOUT = layout_of(
    np.array([[1, 1, 2, 2, 3, 0], [1, 1, 1, 1, 4, 1]], np.int32),
    np.array([[2, 1, 3, 9, 9, 9], [0, 1, 3, 9, 9, 4]], np.int32),
    key_segment_ids=PACKED,
    key_times=TIMES,
)
