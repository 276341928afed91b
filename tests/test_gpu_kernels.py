"""cuDNN's own kernel, on a GPU: equal to float64 to the precision of 16 bits (`make test-gpu`)."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import (
    HEADS,
    PACKED,
    PADDING_INSIDE,
    PADDING_ONLY,
    SINGLES,
    TIMES,
    check_against_float64,
    layout_of,
    random_cotangent,
    random_inputs,
)

from siren_rope_jax.ops import strictly_causal_attention

pytestmark = pytest.mark.gpu
TYPES = pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
CUDNN = {"implementation": "cudnn"}
HOW = {
    "strict": {},
    "itself": {"inclusive": True},
    "window": {"window": 20},
    "window and sinks, itself": {"window": 20, "sinks": 3, "inclusive": True},
}


@TYPES
@pytest.mark.parametrize("groups", [HEADS, 2, 1])
@pytest.mark.parametrize("segment_ids", [PACKED, PADDING_INSIDE, PADDING_ONLY, SINGLES])
def test_cudnn_equals_float64_to_its_precision(segment_ids, groups, dtype):
    for times in (None, TIMES):
        inputs = random_inputs(dtype=dtype, widths=(8, 8), groups=groups)
        check_against_float64(inputs, segment_ids, times, how=CUDNN, atol=0.02)


@pytest.mark.parametrize("length", [1, 2, 3, 7])
def test_cudnn_serves_odd_lengths(length):
    inputs = random_inputs(dtype="bfloat16", length=length, widths=(8, 8))
    check_against_float64(inputs, PACKED[:, :length], how=CUDNN, atol=0.02)


def value_and_gradients(inputs, segment_ids, times, cotangent, **how):
    def total(inputs):
        attended = strictly_causal_attention(**inputs, segment_ids=segment_ids, times=times, **how)
        return jnp.sum(attended.astype(jnp.float32) * cotangent), attended

    gradients, attended = jax.jit(jax.grad(total, has_aux=True))(inputs)
    return jax.tree.map(lambda x: x.astype(jnp.float32), (attended, gradients))


@TYPES
@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
@pytest.mark.parametrize("width", [8, 64, 128])
def test_a_long_row_is_that_of_plain_attention_in_float32(width, how, dtype):
    length = 600
    segment_ids = jnp.asarray(np.repeat([[1, 2, 3, 4], [1, 1, 7, 0]], length // 4, axis=1))
    times = jnp.tile(jnp.arange(length) // 3, (2, 1))
    inputs = random_inputs(length=length, widths=(width, width), groups=2)
    inputs = jax.tree.map(lambda x: x.astype(dtype).astype(jnp.float32), inputs)
    inputs["scale"] = jnp.asarray([0.3, 0.5, 0.2, 0.4]) / np.sqrt(width)
    cotangent = random_cotangent(inputs)
    with jax.default_matmul_precision("float32"):
        expected = value_and_gradients(inputs, segment_ids, times, cotangent, implementation="plain", **how)
    narrow = {name: x if name == "scale" else x.astype(dtype) for name, x in inputs.items()}
    found = value_and_gradients(narrow, segment_ids, times, cotangent, implementation="cudnn", **how)
    # Sums over hundreds of events, each rounded to 8 or 11 bits: what they are off by grows with the largest of them,
    # and most in the gradient of the scale, whose summands have both signs.
    largest = jax.tree.map(lambda x: jnp.abs(x).max(), expected)
    found, expected = (jax.tree.map(jnp.divide, x, largest) for x in (found, expected))
    chex.assert_trees_all_close(found[1].pop("scale"), expected[1].pop("scale"), rtol=0, atol=0.04)
    chex.assert_trees_all_close(found, expected, rtol=0, atol=0.015)


@pytest.mark.parametrize("name", ["query", "key", "value"])
def test_a_nan_of_an_event_shows_in_all_that_see_it(name):
    inputs = random_inputs(dtype="bfloat16", widths=(8, 8))
    inputs[name] = inputs[name].at[1, 2].set(jnp.nan)
    result = strictly_causal_attention(**inputs, **layout_of(PACKED), **CUDNN)
    assert np.isnan(result[1, slice(2, 3) if name == "query" else slice(3, None)]).all()
    chex.assert_tree_all_finite(result[0])
    chex.assert_trees_all_equal(result[1, 0], inputs["no_history"])


def test_auto_is_cudnn_for_16_bits_and_leaves_biases_to_the_others():
    inputs = random_inputs(dtype="bfloat16", widths=(8, 8))

    def kernels(**how):
        attend = jax.jit(lambda inputs: strictly_causal_attention(**inputs, **layout_of(PACKED), **how))
        return attend.lower(inputs).as_text().count("cudnn")

    assert kernels() > 0
    assert kernels(bias=lambda rows, columns: jnp.zeros((1, 1, rows.size, columns.size))) == 0
