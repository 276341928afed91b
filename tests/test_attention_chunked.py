"""Attention in blocks: the same numbers as in one go, memory linear in the length, under every transformation."""

import functools
import math
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import (
    BATCH,
    HEADS,
    LENGTH,
    OPTIONS,
    PACKED,
    PADDING_INSIDE,
    REQUEST_LAYOUT,
    REQUESTS,
    TIMES,
    attend,
    jitted,
    layout_of,
    random_cotangent,
    random_inputs,
    value_and_gradients,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from siren_rope_jax.ops import RelativeEmbedding, alibi_bias, strictly_causal_attention, t5_bias

CHUNKED = {"implementation": "chunked", "chunk": 3}


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [1, 5, LENGTH, 100])
def test_the_size_of_the_chunks_changes_neither_values_nor_gradients(chunk):
    for inputs, layout in (
        (random_inputs(11, **OPTIONS["all"]), layout_of(PADDING_INSIDE, TIMES)),
        (random_inputs(11, queries=REQUESTS, **OPTIONS["all"]), REQUEST_LAYOUT),
    ):
        cotangent = random_cotangent(inputs)
        whole, chunked = (
            jitted(inputs, layout, cotangent, **how)
            for how in ({"implementation": "plain"}, {"implementation": "chunked", "chunk": chunk})
        )
        chex.assert_trees_all_close(chunked, whole, rtol=0, atol=2e-6)


@pytest.mark.slow
@settings(max_examples=6)
@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_long_rows_of_short_segments_equal_those_computed_in_one_go(longest, seed):
    """Where most blocks are left out: segments in order, out of order, and of negative number."""
    generator = np.random.default_rng(seed)
    starts = np.cumsum(generator.integers(1, longest + 1, (BATCH, 60)), axis=1)
    segment_ids = (starts[:, :, None] <= np.arange(60)).sum(axis=1)
    segment_ids[1] = generator.permutation(np.arange(-30, 31))[segment_ids[1]]  # 0, padding, may be among them
    times = np.arange(60) // 2 * np.ones((BATCH, 1), np.int32)
    inputs, layout = random_inputs(seed, length=60), layout_of(segment_ids.astype(np.int32), times.astype(np.int32))
    whole, chunked = (
        jitted(inputs, layout, random_cotangent(inputs), **how)
        for how in ({"implementation": "plain"}, {"implementation": "chunked", "chunk": 8})
    )
    chex.assert_trees_all_close(chunked, whole, rtol=1e-5, atol=1e-5)


def largest_array(function, *arguments):
    """Elements of the largest array in the program, as it is traced, lowered and compiled."""
    lowered = jax.jit(function).lower(*arguments)
    shapes = re.findall(r"tensor<(\d+(?:x\d+)*)x\w+>", lowered.as_text())
    shapes += re.findall(r"\w\d+\[(\d+(?:,\d+)*)\]", lowered.compile().as_text())
    shapes += re.findall(r"\w\d+\[(\d+(?:,\d+)*)\]", str(jax.make_jaxpr(function)(*arguments)))
    return max(math.prod(int(size) for size in re.split("[x,]", shape)) for shape in shapes)


@pytest.mark.slow
@pytest.mark.parametrize("options", ["plain", "all"])
def test_no_array_of_all_pairs_exists_in_values_or_gradients(options):
    length = 128
    inputs = random_inputs(length=length, **OPTIONS[options])
    layout = layout_of(np.ones((BATCH, length), np.int32), np.tile(np.arange(length), (BATCH, 1)))
    all_pairs, cotangent = BATCH * HEADS * length * length, random_cotangent(inputs)
    for function in (
        lambda inputs, **how: attend(inputs, layout, **how),
        lambda inputs, **how: value_and_gradients(inputs, layout, cotangent, **how),
    ):
        for how, bound in (
            ({"implementation": "chunked", "chunk": 8}, "linear"),
            ({"implementation": "plain"}, "quadratic"),
        ):
            largest = largest_array(lambda inputs, f=function, how=how: f(inputs, **how), inputs)
            assert largest < all_pairs // 8 if bound == "linear" else largest >= all_pairs


def learned_bias(inputs, table, positions, how):
    return strictly_causal_attention(
        **inputs, segment_ids=jnp.asarray(PACKED), bias=t5_bias(positions, table, max_distance=6), **how
    )


def total_of_vmap(function, *given):
    return jnp.sum(jax.vmap(function)(*given))


def total_of_scan(function, *given):
    def step(total, one):
        return total + jax.checkpoint(function)(*one), None

    return jax.lax.scan(step, jnp.zeros(()), given)[0]


@pytest.mark.slow
def test_a_bias_and_buckets_of_the_slots_alone_serve_blocks_too():
    inputs, tables = random_inputs(21), random_inputs(22, relative=True)

    def attended(how):
        relative = RelativeEmbedding(
            lambda rows, columns: jnp.broadcast_to((rows[:, None] + columns) % 5, (BATCH, rows.size, columns.size)),
            tables["relative_key"],
            tables["relative_value"],
        )
        return strictly_causal_attention(
            **inputs,
            segment_ids=jnp.asarray(PACKED),
            bias=lambda rows, columns: -0.1 * (rows[:, None] - columns)[None, None],
            relative=relative,
            **how,
        )

    chex.assert_trees_all_close(attended(CHUNKED), attended({"implementation": "plain"}), rtol=0, atol=3e-6)


TRANSFORMATIONS = {
    "grad of vmap": lambda f: jax.jit(jax.grad(functools.partial(total_of_vmap, f), argnums=(0, 1))),
    "vmap of grad without jit": lambda f: jax.vmap(jax.grad(f, argnums=(0, 1))),
    "grad of scan of checkpoint": lambda f: jax.jit(jax.grad(functools.partial(total_of_scan, f), argnums=(0, 1))),
}


@pytest.mark.slow
@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
def test_a_bias_that_closes_over_tables_and_positions_has_the_gradient_of_one_go(transformation):
    """Tables have gradients, positions are integers; both are traced, and belong to one example of a batch."""
    examples = [random_inputs(seed) for seed in range(2)]
    inputs = jax.tree.map(lambda *x: jnp.stack(x), *examples)
    tables = jnp.asarray(np.random.default_rng(3).normal(size=(2, 4, HEADS)), jnp.float32)
    positions = jnp.asarray(np.random.default_rng(4).integers(0, 9, (2, BATCH, LENGTH)), jnp.int32)
    whole, chunked = (
        TRANSFORMATIONS[transformation](
            lambda inputs, table, positions, how=how: jnp.sum(jnp.cos(learned_bias(inputs, table, positions, how)))
        )(inputs, tables, positions)
        for how in ({"implementation": "plain"}, CHUNKED)
    )
    assert all(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(whole))
    chex.assert_trees_all_close(chunked, whole, rtol=0, atol=3e-6)


def shifted(offset):
    """Attention with a bias that is the same, however large, for all that an event may see, and random logits below."""
    generator = np.random.default_rng(0)
    query, key = (jnp.asarray(generator.normal(size=(1, 60, 2, 4)), jnp.float32) for _ in range(2))
    value = jnp.asarray(generator.normal(size=(1, 60, 2, 3)), jnp.float32)
    fixed = {"segment_ids": jnp.ones((1, 60), int), "no_history": jnp.zeros((2, 3))}

    def attend(query, key, value, how):
        bias = None if offset == 0 else lambda rows, columns: jnp.full((1, 1, rows.size, columns.size), offset)
        return strictly_causal_attention(query, key, value, **fixed, bias=bias, **how)

    return (query, key, value), attend


@pytest.mark.slow
@pytest.mark.parametrize("offset", [-1e4, 1e6, -2.6e6, 1e9, -1e9, float(np.finfo(np.float32).min)])
def test_logits_that_share_a_large_offset_keep_the_derivatives_of_the_softmax(offset):
    arrays, attend = shifted(offset)
    along = tuple(jnp.flip(x, axis=1) for x in arrays)
    found = {}
    for name, how in (("plain", {"implementation": "plain"}), ("chunked", CHUNKED)):

        def of(query, key, value, how=how):
            return jnp.sin(attend(query, key, value, how))

        value, tangent = jax.jit(lambda of=of: jax.jvp(of, arrays, along))()
        gradient = jax.jit(jax.grad(lambda *arrays, of=of: of(*arrays).sum(), (0, 1, 2)))
        _, second = jax.jit(lambda gradient=gradient: jax.jvp(gradient, arrays, along))()
        found[name] = value, tangent, gradient(*arrays), second
    for plain, chunked in zip(jax.tree.leaves(found["plain"]), jax.tree.leaves(found["chunked"]), strict=True):
        np.testing.assert_allclose(chunked, plain, rtol=0, atol=3e-5 * max(1, float(jnp.abs(plain).max())))
    # The weights of each event's history sum to 1.
    ones = jnp.ones_like(arrays[2])
    of_ones = jax.jvp(lambda value: attend(arrays[0], arrays[1], value, CHUNKED), (arrays[2],), (ones,))[1]
    np.testing.assert_allclose(of_ones[:, 1:], 1, atol=2e-6)


@pytest.mark.slow
def test_far_positions_of_alibi_keep_weights_that_sum_to_one():
    keys = 300
    query, key = jnp.ones((1, 1, 1, 2)), jnp.ones((1, keys, 1, 2))
    value, segment = jnp.ones((1, keys, 1, 1)), jnp.ones((1, keys), int)
    bias = alibi_bias(jnp.full((1, 1), 10**7), jnp.ones(1), key_positions=jnp.arange(keys)[None])

    def attend(value):
        return strictly_causal_attention(
            query,
            key,
            value,
            segment_ids=segment[:, :1],
            no_history=jnp.zeros((1, 1)),
            times=jnp.full((1, 1), 10**7),
            key_segment_ids=segment,
            key_times=jnp.arange(keys)[None],
            bias=bias,
            **CHUNKED,
        ).sum()

    assert jax.grad(attend)(value).sum() == pytest.approx(1, abs=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("how", [{"implementation": "plain"}, CHUNKED], ids=["plain", "chunked"])
def test_a_relation_without_an_embedding_that_is_never_seen_leaves_gradients_finite(how):
    slots = jnp.arange(7)

    def buckets(rows, columns):
        behind = (rows[:, None] - columns[None, :])[None]
        return jnp.broadcast_to(behind - 1, (1, rows.size, columns.size))  # below 0 for what is not earlier

    def loss(table, query, scale):
        relative = RelativeEmbedding(buckets, table, table)
        key = jnp.sin(jnp.arange(14.0)).reshape(1, 7, 1, 2)
        fixed = {"segment_ids": jnp.ones_like(slots)[None], "no_history": jnp.zeros((1, 2)), "relative": relative}
        return strictly_causal_attention(query, key, key, scale=scale, **fixed, **how).sum()

    given_arrays = jnp.ones((7, 1, 2)), jnp.ones((1, 7, 1, 2)), jnp.asarray(0.7)
    chex.assert_tree_all_finite(jax.value_and_grad(loss, (0, 1, 2))(*given_arrays))
