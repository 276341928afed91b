"""Who depends on whom, for every angle source: strict causality by gradient, packing and prefixes."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from siren_rope_jax.ops import (
    apply_rotary,
    calendar_features,
    inverse_frequencies,
    ordinal_angles,
    siren_apply,
    siren_init,
    siren_rope_angles,
    strictly_causal_attention,
    time_order_angles,
)
from siren_rope_jax.ops.angles import content_angles
from siren_rope_jax.ops.lie import lie_rotations, rotate_blocks
from siren_rope_jax.ops.rotary import xpos_scale

pytestmark = pytest.mark.slow

BATCH, LENGTH, HEADS, WIDTH, VALUE_WIDTH = 2, 8, 2, 4, 3
PACKED = np.array([[1, 1, 1, 2, 2, 3, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1]], np.int32)
SIREN = siren_init(jax.random.key(0), 5, WIDTH // 2, width=8)
SEMANTIC = siren_init(jax.random.key(1), 3, WIDTH // 2, width=8)
KERNEL = jnp.asarray(np.random.default_rng(12).normal(size=(3, HEADS, WIDTH // 2)), jnp.float32)
GENERATORS = jnp.asarray(np.random.default_rng(13).normal(size=(2, 1, 6)) / [[[4]], [[100]]], jnp.float32)
# What each source knows of the events whose queries and keys it rotates.
SOURCES = {
    "none": set(),
    "ordinal": {"position"},
    "partial": {"position"},
    "xpos": {"position"},
    "learned frequencies by head": {"position"},
    "time_order": {"position", "days"},
    "siren": {"position", "features"},
    "semantic": {"content"},
    "content": {"position", "content"},
    "lie": {"position", "days"},
}


def rotate(source, query, key, tokens):
    """Queries and keys turned by what an event knows of itself."""
    positions, days, frequencies = tokens["position"], tokens["days"], inverse_frequencies(WIDTH)
    match source:
        case "none":
            return query, key
        case "lie":
            rotations = lie_rotations(jnp.stack([positions, days], axis=-1), GENERATORS)
            return rotate_blocks(query, rotations), rotate_blocks(key, rotations)
        case "xpos":
            angles, scale = ordinal_angles(positions, frequencies), xpos_scale(positions, WIDTH // 2, scale_base=8.0)
            return apply_rotary(query, angles, scale=scale), apply_rotary(key, angles, scale=1 / scale)
        case "ordinal":
            angles = ordinal_angles(positions, frequencies)
        case "partial":
            angles = ordinal_angles(positions, frequencies[:1])
        case "learned frequencies by head":
            learned, by_head = jnp.asarray([0.4, -1.3]), jnp.asarray([[1.0, 0.1], [0.3, 2.0]])
            angles = time_order_angles(positions, 0 * days, learned, position_scale=by_head, time_scale=0.0)
        case "time_order":
            angles = time_order_angles(positions, days, frequencies)
        case "siren":
            angles = siren_rope_angles(positions, tokens["features"], frequencies, SIREN, scale=math.pi, gate=1.0)
        case "semantic":
            angles = siren_apply(SEMANTIC, tokens["content"])
        case "content":
            angles = ordinal_angles(positions, frequencies)[..., None, :] + content_angles(tokens["content"], KERNEL)
    return tuple(apply_rotary(x, angles, partial=source == "partial") for x in (query, key))


def attend_rotated(source, tokens, segment_ids):
    """One attention whose queries, keys, values and angles all come from the tokens of their own event."""
    query, key = rotate(source, tokens["query"], tokens["key"], tokens)
    no_history = jnp.full((HEADS, VALUE_WIDTH), 0.5)
    return strictly_causal_attention(query, key, tokens["value"], segment_ids=segment_ids, no_history=no_history)


attend_jitted = jax.jit(attend_rotated, static_argnums=0)


def random_tokens(segment_ids):
    """Packed events whose positions ascend from 0 in each segment."""
    generator = np.random.default_rng(4)
    position = [[sum(row[:i] == row[i]) for i in range(LENGTH)] for row in np.asarray(segment_ids)]
    days = np.sort(generator.integers(0, 300, (BATCH, LENGTH)), axis=1)
    second = generator.integers(0, 86_400, (BATCH, LENGTH))
    features = calendar_features(
        jnp.asarray(days, jnp.int32), jnp.asarray(second, jnp.int32), start_day=0, span_days=300.0
    )
    widths = {"query": WIDTH, "key": WIDTH, "value": VALUE_WIDTH}
    return {
        name: jnp.asarray(generator.normal(size=(BATCH, LENGTH, HEADS, width)), jnp.float32)
        for name, width in widths.items()
    } | {
        "position": jnp.asarray(position, jnp.float32),
        "days": jnp.asarray(days + second / 86_400, jnp.float32),
        "features": features,
        "content": jnp.asarray(generator.normal(size=(BATCH, LENGTH, 3)), jnp.float32),
    }


@pytest.mark.parametrize(
    ("source", "jit"), [(source, True) for source in SOURCES] + [(source, False) for source in ("none", "siren")]
)
def test_output_depends_on_nothing_but_earlier_events_of_its_segment_and_itself(source, jit):
    """Gradients say so for each pair of events: values of strictly earlier ones alone; of its own, query and angle."""
    segment_ids = jnp.asarray(np.array([[1, 1, 1, 1, 2, 2, 2, 0]] * BATCH), jnp.int32)
    row = np.asarray(segment_ids)[0]
    earlier = np.array([[j < i and row[j] == row[i] and row[i] != 0 for j in range(LENGTH)] for i in range(LENGTH)])
    # With a single event in sight the softmax is 1 whatever the angle, so that only its value counts.
    chooses = earlier.sum(axis=1, keepdims=True) > 1
    own = np.eye(LENGTH, dtype=bool) & chooses
    jacobian = jax.jacrev(lambda tokens: attend_rotated(source, tokens, segment_ids)[0])
    jacobians = (jax.jit(jacobian) if jit else jacobian)(random_tokens(segment_ids))
    for name, gradient in jacobians.items():
        per_event = np.moveaxis(np.abs(np.asarray(gradient))[:, :, :, 0], 3, 1)
        depends = per_event.reshape(LENGTH, LENGTH, -1).max(axis=-1)
        expected = {"value": earlier, "key": earlier & chooses, "query": own}.get(
            name, (earlier & chooses) | own if name in SOURCES[source] else np.zeros_like(own)
        )
        assert (depends[~expected] == 0).all(), name
        assert (depends[expected] > 0).all(), name


@pytest.mark.parametrize("source", SOURCES)
def test_packed_row_equals_its_sequences_run_alone(source):
    tokens = random_tokens(PACKED)
    packed = attend_jitted(source, tokens, jnp.asarray(PACKED))
    for segment, start, stop in ((1, 0, 3), (2, 3, 5), (3, 5, 6)):
        alone = {name: jnp.roll(token, -start, axis=1) for name, token in tokens.items()}
        alone_ids = np.where(np.arange(LENGTH) < stop - start, segment, 0)
        result = attend_jitted(source, alone, jnp.asarray(np.tile(alone_ids, (BATCH, 1)), jnp.int32))
        chex.assert_trees_all_close(result[0, : stop - start], packed[0, start:stop], rtol=0, atol=1e-6)


@pytest.mark.parametrize("source", SOURCES)
def test_prefix_scores_as_it_does_inside_the_longer_history(source):
    segment_ids = jnp.ones((BATCH, LENGTH), jnp.int32)
    tokens = random_tokens(segment_ids)
    whole = attend_jitted(source, tokens, segment_ids)
    prefix = {name: token[:, :5] for name, token in tokens.items()}
    alone = attend_jitted(source, prefix, segment_ids[:, :5])
    chex.assert_trees_all_close(alone, whole[:, :5], rtol=0, atol=1e-6)
