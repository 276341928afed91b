"""Fused attention: cuDNN's logic around the kernel, run with XLA's, and the TPU kernel itself, interpreted."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import (
    BATCH,
    HEADS,
    PACKED,
    PADDING_INSIDE,
    PADDING_ONLY,
    REQUEST_LAYOUT,
    REQUESTS,
    SINGLES,
    TIMES,
    attend,
    check_against_float64,
    clocks,
    jitted,
    layout_of,
    layouts,
    random_cotangent,
    random_inputs,
)
from hypothesis import HealthCheck, example, given, settings
from one_sentence import raises_one_sentence

from siren_rope_jax.ops.attention import cudnn
from siren_rope_jax.ops.attention.operands import Layout, Operands

pytestmark = pytest.mark.slow

CUDNN, SPLASH = {"implementation": "cudnn"}, {"implementation": "splash", "times_ascend": True}
ALIKE = (8, 8)  # widths of keys and values


@pytest.fixture
def xla_for_cudnn(monkeypatch):
    """The same call with the kernel that runs anywhere and in float32."""
    monkeypatch.setattr(cudnn, "_KERNEL", "xla")


@jax.jit
def around_cudnn(inputs, layout, cotangent):
    """In float32, which cuDNN refuses: exact enough to show a wrong slot."""
    arrays = Layout(layout["segment_ids"], layout.get("times"), None, None)

    def result(inputs):
        padding = (layout["segment_ids"] == 0)[:, :, None, None]
        emptied = {name: jnp.where(padding, 0, inputs[name]) for name in ("query", "key", "value")}
        return cudnn.cudnn_attention(Operands(**(inputs | emptied), layout=arrays, scale=ALIKE[0] ** -0.5))

    value, pull_back = jax.vjp(result, inputs)
    return value, pull_back(cotangent)[0]


@pytest.mark.parametrize("groups", [HEADS, 1])
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(layouts, clocks)
@example(PACKED, TIMES)
@example(PADDING_INSIDE, TIMES)
@example(PADDING_ONLY, TIMES)
@example(SINGLES, TIMES)
def test_what_surrounds_cudnn_is_strictly_causal_for_any_layout(xla_for_cudnn, groups, segment_ids, times):
    check_against_float64(random_inputs(groups=groups, widths=ALIKE), segment_ids, times, function=around_cudnn)


@pytest.mark.parametrize("length", [1, 2, 3, 7])
def test_lengths_that_cudnn_cannot_differentiate_are_padded(xla_for_cudnn, length):
    check_against_float64(random_inputs(length=length, widths=ALIKE), PACKED[:, :length], function=around_cudnn)


@pytest.mark.parametrize("segment_ids", [PACKED, PADDING_INSIDE])
def test_cudnn_in_bfloat16_equals_float64_to_its_precision(xla_for_cudnn, segment_ids):
    inputs = random_inputs(dtype=jnp.bfloat16, widths=ALIKE, groups=2)
    check_against_float64(inputs, segment_ids, TIMES, how=CUDNN, atol=0.02)


@pytest.mark.parametrize("groups", [HEADS, 2])
@settings(max_examples=10)
@given(layouts, clocks)
@example(PACKED, TIMES)
@example(PADDING_INSIDE, TIMES)
@example(PADDING_ONLY, TIMES)
@example(SINGLES, TIMES)
def test_splash_equals_float64_for_any_layout_whose_times_ascend(groups, segment_ids, times):
    check_against_float64(random_inputs(groups=groups), segment_ids, times, how=SPLASH)


@pytest.mark.parametrize("segment_ids", [PACKED, PADDING_INSIDE])
def test_splash_without_times_goes_by_the_order_of_slots(segment_ids):
    check_against_float64(random_inputs(), segment_ids, how={"implementation": "splash"})


def test_splash_over_several_blocks_equals_attention_in_one_go():
    """640 slots are five blocks: segments and ties across their borders, a length that fills them or not."""
    for length in (640, 600):
        segment_ids = np.repeat([[1, 2, 3, 4], [1, 1, 7, 0]], length // 4, axis=1).astype(np.int32)
        times = np.tile(np.arange(length, dtype=np.int32) // 70, (BATCH, 1))
        inputs, layout = random_inputs(length=length, groups=2), layout_of(segment_ids, times)
        cotangent = random_cotangent(inputs)
        whole, fused = (jitted(inputs, layout, cotangent, **how) for how in ({"implementation": "plain"}, SPLASH))
        chex.assert_trees_all_close(fused, whole, rtol=1e-5, atol=3e-5)


def test_splash_in_bfloat16_equals_float64_to_its_precision():
    check_against_float64(random_inputs(dtype=jnp.bfloat16, groups=2), PACKED, TIMES, how=SPLASH, atol=0.02)


def test_splash_leaves_rows_without_an_event_finite():
    inputs = random_inputs(length=1)
    result, gradients = jitted(inputs, layout_of(np.ones((BATCH, 1), np.int32)), random_cotangent(inputs), **SPLASH)
    chex.assert_trees_all_equal(result, jnp.broadcast_to(inputs["no_history"], result.shape), strict=True)
    chex.assert_tree_all_finite(gradients)


def test_a_row_whose_times_do_not_ascend_is_nan_rather_than_wrong():
    inputs = random_inputs()
    times = np.array([[5, 6, 7, 1, 2, 0, 9, 3], [0, 1, 2, 3, 4, 5, 7, 6]], np.int32)  # of PACKED, the second alone
    result, _ = jitted(inputs, layout_of(PACKED, times), random_cotangent(inputs), **SPLASH)
    assert np.isnan(result[1]).all()
    expected = attend(inputs, layout_of(PACKED, times))[0]
    chex.assert_trees_all_close(result[0], expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("implementation", "changes", "parts"),
    [
        ("cudnn", {"bias": True}, ("cudnn must get no bias", "['bias']")),
        ("splash", {"relative": True}, ("splash must get no bias", "['relative']")),
        ("cudnn", {}, ("cudnn", "16-bit", "float32")),
        ("cudnn", {"dtype": jnp.bfloat16}, ("cudnn", "heads must have one width", "(4, 3)")),
        ("cudnn", {"dtype": jnp.bfloat16, "widths": (12, 12)}, ("multiple of 8", "(12, 12)")),
        ("splash", {"dtype": jnp.float16}, ("splash", "float32", "float16")),
        ("splash", {}, ("times_ascend must be True for implementation splash",)),
    ],
)
def test_what_a_kernel_cannot_serve_is_refused_in_one_sentence(implementation, changes, parts):
    with raises_one_sentence(*parts):
        attend(random_inputs(**changes), layout_of(PACKED, TIMES), implementation=implementation)


@pytest.mark.parametrize("how", [CUDNN, SPLASH])
def test_kernels_refuse_keys_of_another_sequence(how):
    with raises_one_sentence("key_segment_ids"):
        attend(random_inputs(queries=REQUESTS), REQUEST_LAYOUT, **how)


@pytest.mark.parametrize("scale", [48**-0.5, 0.3, np.array([0.3, 0.7])])
def test_queries_in_bfloat16_are_scaled_without_rounding_the_scale_itself(scale):
    """Which would shift all logits alike; each product is rounded once, to either side."""
    query = jnp.asarray(np.random.default_rng(0).normal(size=(1, 500, 2, 48)), jnp.bfloat16)
    scale = jnp.asarray(scale, jnp.float32)
    operands = Operands(
        query=query,
        key=query,
        value=query,
        layout=Layout(jnp.ones((1, 500), int)),
        no_history=jnp.zeros((2, 48)),
        scale=scale,
    )
    exact = query.astype(jnp.float32) * jnp.broadcast_to(scale, 2)[:, None]
    wrong_by = operands.scaled_query().astype(jnp.float32) / exact - 1
    assert abs(float(wrong_by.mean())) < 1e-4
    assert float(jnp.abs(wrong_by).max()) <= 2**-8
