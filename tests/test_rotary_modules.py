"""Each angle source of the model: what its angles depend on, and where it starts."""

import dataclasses
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small_logs import SPEC, random_events, small_rotary

from siren_rope_jax.nn.rotary import RotaryConfig, make_rotary

HEAD_DIM, PAIRS = 6, 3
EVENTS = random_events(np.array([[1, 1, 1, 1, 2, 2, 2, 0]], np.int32))
NOTHING = jnp.zeros((1, 8, 0))
ORDINAL = np.asarray(EVENTS.position)[..., None] * 10_000.0 ** (-2 * np.arange(PAIRS) / HEAD_DIM)


def make(config: RotaryConfig, metadata: int = 0):
    return make_rotary(config, HEAD_DIM, SPEC, metadata_features=metadata, rngs=nnx.Rngs(params=0))


def angles(config: RotaryConfig, events=EVENTS, metadata=NOTHING):
    return tuple(np.asarray(a) for a in make(config, metadata.shape[-1])(events, metadata))


def later(days: int, seconds: int = 0):
    """The same events, in the same order, at another time."""
    moment = EVENTS.second + seconds
    shift = days * 86_400 + seconds
    return EVENTS._replace(
        day=EVENTS.day + days + moment // 86_400, second=moment % 86_400, elapsed=EVENTS.elapsed + shift
    )


def test_no_rotation_gives_no_angles():
    assert make(small_rotary("none"))(EVENTS, NOTHING) is None


@pytest.mark.parametrize("kind", ["none", "ordinal", "time_order"])
def test_fixed_rotations_have_nothing_to_learn(kind):
    assert not jax.tree.leaves(nnx.state(make(small_rotary(kind))))


def test_ordinal_angles_are_positions_times_the_published_frequencies():
    chex.assert_trees_all_close(angles(small_rotary("ordinal")), (ORDINAL, ORDINAL), rtol=1e-6)


def test_the_base_of_the_configuration_is_used_by_every_kind():
    other = np.asarray(EVENTS.position)[..., None] * 100.0 ** (-2 * np.arange(PAIRS) / HEAD_DIM)
    for config in (
        small_rotary("ordinal", base=100.0),
        dataclasses.replace(small_rotary("time_order", base=100.0), time_scale=0.0),
        small_rotary("siren", base=100.0, initial_scale=0.0),
    ):
        chex.assert_trees_all_close(angles(config), (other, other), rtol=1e-6)


def test_time_order_angles_add_the_days_since_the_training_span_began():
    frequencies = 10_000.0 ** (-2 * np.arange(PAIRS) / HEAD_DIM)
    days = np.asarray(EVENTS.elapsed) / 86_400
    expected = (EVENTS.position + 0.5 * days)[..., None] * frequencies
    config = dataclasses.replace(small_rotary("time_order"), time_scale=0.5)
    chex.assert_trees_all_close(angles(config), (expected, expected), rtol=1e-6)


def test_siren_with_scale_zero_is_ordinal_rope_exactly():
    ordinal = angles(small_rotary("ordinal"))[0]
    chex.assert_trees_all_equal(angles(small_rotary("siren", initial_scale=0.0)), (ordinal, ordinal), strict=True)


def test_siren_starts_with_the_published_gate_and_scale():
    module = make(small_rotary("siren"))
    assert module.gate[...] == 1
    chex.assert_trees_all_close(module.scale[...], np.full(PAIRS, math.pi), rtol=1e-7)


def test_siren_angles_are_learned_scale_times_network_plus_gate_times_position():
    module = make(small_rotary("siren"))
    learned = np.asarray(module(EVENTS, NOTHING)[0]) - ORDINAL
    module.gate[...] = np.float32(0.25)
    module.scale[...] = module.scale[...] * 2
    chex.assert_trees_all_close(module(EVENTS, NOTHING)[0], 2 * learned + 0.25 * ORDINAL, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["siren", "time_order"])
def test_temporal_angles_change_with_the_hour(kind):
    moved = angles(small_rotary(kind), later(0, seconds=6 * 3600))[0]
    assert np.all(np.abs(moved - angles(small_rotary(kind))[0]).max(axis=-1) > 1e-3)


def test_ordinal_angles_ignore_the_hour():
    moved, at_home = (angles(small_rotary("ordinal"), events) for events in (later(3, seconds=7), EVENTS))
    chex.assert_trees_all_equal(moved, at_home, strict=True)


def test_siren_angles_repeat_weekly_once_the_training_span_has_passed():
    after, much_later = (angles(small_rotary("siren"), later(days))[0] for days in (70, 70 + 7 * 500))
    chex.assert_trees_all_equal(after, much_later, strict=True)


def test_siren_angles_follow_the_long_range_offset_beyond_the_span_if_the_clamp_is_off():
    config = small_rotary("siren", clamp_time=False)
    after, week_later = (angles(config, later(days))[0] for days in (70, 77))
    assert np.all(np.abs(after - week_later).max(axis=-1) > 1e-3)


def test_siren_angles_see_metadata_only_where_configured():
    config = small_rotary("siren")
    metadata = jax.random.normal(jax.random.key(0), (1, 8, 2))
    base, other = (angles(config, metadata=data)[0] for data in (metadata, metadata + 1))
    assert np.all(np.abs(base - other).max(axis=-1) > 1e-3)


def test_one_network_serves_blocks_and_action_attention_unless_separated():
    block, action = angles(small_rotary("siren"))
    chex.assert_trees_all_equal(block, action, strict=True)
    block, action = angles(small_rotary("siren", separate_action_network=True))
    assert np.all(np.abs(block - action).max(axis=-1) > 1e-3)


def test_separating_the_action_network_leaves_the_angles_of_the_blocks_alone():
    apart, shared = (angles(small_rotary("siren", separate_action_network=separate))[0] for separate in (True, False))
    chex.assert_trees_all_equal(apart, shared, strict=True)


@pytest.mark.parametrize("branch", ["sine", "relu"])
def test_leaving_a_branch_out_leaves_the_other_as_it_was(branch):
    both = nnx.to_pure_dict(nnx.state(make(small_rotary("siren"))))["networks"][0]
    alone = nnx.to_pure_dict(nnx.state(make(small_rotary("siren", branches=(branch,)))))["networks"][0]
    chex.assert_trees_all_equal(alone, {branch: both[branch]}, strict=True)


@pytest.mark.parametrize("kind", ["ordinal", "time_order", "siren"])
def test_an_angle_depends_on_its_own_event_alone(kind):
    config = small_rotary(kind)
    cut = EVENTS._replace(**{name: values[:, 2:5] for name, values in EVENTS._asdict().items()})
    alone = angles(config, cut, NOTHING[:, 2:5])[0]
    chex.assert_trees_all_close(alone, angles(config)[0][:, 2:5], rtol=1e-5, atol=1e-6)
