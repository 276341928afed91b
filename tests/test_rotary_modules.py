"""Each angle source of the model: what its angles depend on, and where it starts."""

import dataclasses
import itertools
import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from one_sentence import raises_one_sentence
from small_logs import SPEC, random_events, small_rotary

from siren_rope_jax import ops
from siren_rope_jax.nn.rotary import (
    ROTARIES,
    AxesSettings,
    LieSettings,
    RotaryConfig,
    ScalingConfig,
    SelectiveSettings,
    SirenSettings,
    SourceInputs,
    TimeOrderSettings,
    TimeScalesSettings,
    make_rotary,
)
from siren_rope_jax.nn.rotary.base import PlanarRotation, SharedSettings
from siren_rope_jax.ops import apply_rotary, rote_factors, scaled_frequencies

HEAD_DIM, PAIRS = 6, 3
EVENTS = random_events(np.array([[1, 1, 1, 1, 2, 2, 2, 0]], np.int32))
NOTHING = jnp.zeros((1, 8, 0))
WIDTH = 12
TOKEN = jax.random.normal(jax.random.key(5), (1, 8, WIDTH))
QUERY, KEY = jax.random.normal(jax.random.key(6), (2, 1, 8, 4, HEAD_DIM))
YARN = ScalingConfig("yarn", factor=4.0, original_max_position_embeddings=64.0)
ORDINAL = np.asarray(EVENTS.position)[..., None] * 10_000.0 ** (-2 * np.arange(PAIRS) / HEAD_DIM)


def make(config: RotaryConfig, metadata: int = 0, *, head_dim: int = HEAD_DIM, key_heads: int = 4) -> Any:
    inputs = SourceInputs(SPEC, head_dim, WIDTH, key_heads=key_heads, metadata_features=metadata)
    return make_rotary(config, inputs, nnx.Rngs(params=0))


def angles(config: RotaryConfig, events=EVENTS, metadata=NOTHING):
    return tuple(np.asarray(a) for a in make(config, metadata.shape[-1]).angles(events, metadata))


def later(days: int, seconds: int = 0):
    """The same events, in the same order, at another time."""
    moment = EVENTS.second + seconds
    shift = days * 86_400 + seconds
    return EVENTS._replace(
        day=EVENTS.day + days + moment // 86_400, second=moment % 86_400, elapsed_seconds=EVENTS.elapsed_seconds + shift
    )


def test_no_rotation_gives_no_angles():
    assert make(small_rotary("none"))(EVENTS, NOTHING, TOKEN) is None


@pytest.mark.parametrize("kind", ["none", "ordinal", "time_order", "rote"])
def test_fixed_rotations_have_nothing_to_learn(kind):
    assert not jax.tree.leaves(nnx.state(make(small_rotary(kind))))


def test_ordinal_angles_are_positions_times_the_published_frequencies():
    chex.assert_trees_all_close(angles(small_rotary("ordinal")), (ORDINAL, ORDINAL), rtol=1e-6)


@pytest.mark.slow
def test_the_base_of_the_configuration_is_used_by_every_kind():
    other = np.asarray(EVENTS.position)[..., None] * 100.0 ** (-2 * np.arange(PAIRS) / HEAD_DIM)
    for config in (
        small_rotary("ordinal", base=100.0),
        small_rotary("time_order", base=100.0, time_scale=0.0),
        small_rotary("siren", base=100.0, initial_scale=0.0),
    ):
        chex.assert_trees_all_close(angles(config), (other, other), rtol=1e-6)


def test_time_order_angles_add_the_days_since_the_training_span_began():
    frequencies = 10_000.0 ** (-2 * np.arange(PAIRS) / HEAD_DIM)
    days = np.asarray(EVENTS.elapsed_seconds) / 86_400
    expected = (EVENTS.position + 0.5 * days)[..., None] * frequencies
    config = small_rotary("time_order", time_scale=0.5)
    chex.assert_trees_all_close(angles(config), (expected, expected), rtol=1e-6)


@pytest.mark.slow
def test_siren_with_scale_zero_is_ordinal_rope_exactly():
    ordinal = angles(small_rotary("ordinal"))[0]
    chex.assert_trees_all_equal(angles(small_rotary("siren", initial_scale=0.0)), (ordinal, ordinal), strict=True)


def test_siren_whose_last_layers_start_at_zero_is_ordinal_rope_exactly_and_learns():
    config, ordinal = small_rotary("siren", zero_last=True), angles(small_rotary("ordinal"))[0]
    chex.assert_trees_all_equal(angles(config), (ordinal, ordinal), strict=True)
    graph, params = nnx.split(make(config))
    gradient = jax.grad(lambda params: nnx.merge(graph, params).angles(EVENTS, NOTHING)[0].sum())(params)
    assert all(jnp.abs(layers[-1]["bias"]).min() > 0 for layers in gradient["networks"][0].get_value().values())


@pytest.mark.parametrize(("period", "repeats"), [("day", 1), ("week", 7)])
def test_harmonics_are_inputs_of_the_angle_network_that_repeat_with_their_period(period, repeats):
    config = small_rotary("siren", time_inputs=(period,), **{f"{period}_harmonics": 3})
    module = make(config)
    assert module.networks[0].get_value()["sine"][0]["kernel"].shape[0] == 6
    chex.assert_trees_all_equal(angles(config, later(repeats)), angles(config), strict=True)
    assert np.abs(angles(config, later(0, seconds=20_000))[0] - angles(config)[0]).max() > 1e-3


def test_learned_factors_of_omega0_start_at_1_and_are_factors_of_the_frequency():
    config, plain = (small_rotary("siren", preset="published", learned_omega0=on) for on in (True, False))
    chex.assert_trees_all_close(angles(config), angles(plain), rtol=1e-6)
    module, twice = make(config), make(small_rotary("siren", preset="published", omega0=20.0))
    module.omega0_factors[0][...] = 2 * module.omega0_factors[0][...]
    twice.networks[0].set_value(make(plain).networks[0].get_value())
    chex.assert_trees_all_close(module.angles(EVENTS, NOTHING), twice.angles(EVENTS, NOTHING), rtol=1e-4, atol=1e-5)
    assert (module.logged()["omega0"] == 20).all()


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"time_inputs": ("day",), "week_harmonics": 2}, ("time_inputs", '"week"', "week_harmonics")),
        ({"year_harmonics": 2}, ("time_inputs", '"year"', "year_harmonics")),
        ({"day_harmonics": 0}, ("day_harmonics", "[1, 64]", "0")),
        ({"branches": ("relu",), "learned_omega0": True}, ("branches", '"sine"', "omega0")),
    ],
)
def test_settings_of_the_angle_network_that_nothing_reads_are_refused_in_one_sentence(settings, parts):
    with raises_one_sentence(*parts):
        SirenSettings(**settings)


def complex_factors(days, pairs):
    place = np.arange(pairs) / pairs
    levels = ((1.5, 365.25, 6), (1.0, 30.4375, 4), (0.5, 1.0, 2))
    return sum(a * np.exp(1j * days[..., None] / unit * 10.0 ** (-fall * place)) for a, unit, fall in levels)


def test_rote_multiplies_pairs_by_complex_numbers_of_year_month_and_day():
    turned = rotated(small_rotary("rote"))
    z = complex_factors(np.float64(EVENTS.elapsed_seconds) / 86_400, PAIRS)[:, :, None]
    for x, found in zip((QUERY, KEY), turned, strict=True):
        product = (np.asarray(x[..., :PAIRS]) + 1j * np.asarray(x[..., PAIRS:])) * z
        expected = np.concatenate([product.real, product.imag], axis=-1)
        chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_score_of_rote_depends_on_the_date_and_not_on_the_time_between_two_events_alone():
    days = np.array([[0.0, 2.0], [100.0, 102.0], [3000.0, 3002.0]])
    imaginary, real = (np.asarray(x) for x in ops.rote_factors(jnp.asarray(days, jnp.float32), PAIRS))
    scores = (real[:, 0] * real[:, 1] + imaginary[:, 0] * imaginary[:, 1]).sum(-1)
    assert np.ptp(scores) > 1
    assert np.hypot(real, imaginary).max() <= 3 + 1e-5


def test_time_scales_are_a_ladder_from_twice_the_span_to_the_shortest():
    config = small_rotary("time_scales", shortest_seconds=60.0)
    longest = 2 * SPEC.span_days * 86_400
    periods = np.round(longest * (60 / longest) ** (np.arange(PAIRS) / PAIRS))
    turns = np.float64(EVENTS.elapsed_seconds)[..., None] / periods
    found = angles(config)[0]
    chex.assert_trees_all_close(np.exp(1j * found), np.exp(2j * np.pi * turns), rtol=0, atol=1e-5)
    moved, still = logits(config, later(3, seconds=4_321)), logits(config)
    chex.assert_trees_all_close(moved, still, rtol=1e-4, atol=1e-4)


def test_each_axis_turns_pairs_of_its_own_and_cyclic_ones_in_whole_turns():
    module = make(small_rotary("axes", names=("week", "position", "span", "day"), sections=(2, 1, 2, 1)), head_dim=12)
    found = np.exp(1j * np.asarray(module.angles(EVENTS, NOTHING)[0]))
    day, second = np.float64(EVENTS.day), np.float64(EVENTS.second)
    week = 2 * np.pi * (day % 7 * 86_400 + second) / (7 * 86_400)
    place = 2 * (day - SPEC.start_day + second / 86_400) / SPEC.span_days - 1
    expected = [
        week,
        2 * week,
        np.float64(EVENTS.position),
        np.pi / 2 * place,
        np.pi * place,
        2 * np.pi * second / 86_400,
    ]
    chex.assert_trees_all_close(found, np.exp(1j * np.stack(expected, -1)), rtol=0, atol=1e-5)


def test_axes_share_the_pairs_as_equally_as_can_be():
    module = make(small_rotary("axes", names=("week", "position")))
    assert module.sections == (2, 1)


def test_pope_scores_by_softplus_and_the_cosine_of_position_and_offset():
    module = make(small_rotary("pope"), key_heads=2)
    module.offsets[...] = jnp.arange(2 * HEAD_DIM, dtype=jnp.float32).reshape(2, HEAD_DIM) / 10
    query, key = module(EVENTS, NOTHING, TOKEN)[0](QUERY, KEY[:, :, :2])
    magnitude = [np.log1p(np.exp(np.float64(x))) for x in (QUERY[0, 3, 3], KEY[0, 1, 1])]
    theta = 10_000.0 ** (-np.arange(HEAD_DIM) / HEAD_DIM)
    apart = 2 * theta - (HEAD_DIM + np.arange(HEAD_DIM)) / 10
    expected = np.sum(magnitude[0] * magnitude[1] * np.cos(apart))
    np.testing.assert_allclose(np.dot(query[0, 3, 3], key[0, 1, 1]), expected, rtol=1e-5)


def test_selective_rope_without_its_gate_starts_as_rope():
    fixed = np.asarray(logits(small_rotary("ordinal")))
    started = np.asarray(logits(small_rotary("selective", gated=False)))
    same = np.asarray(EVENTS.segment)[0][:, None] == np.asarray(EVENTS.segment)[0]
    chex.assert_trees_all_close(started[..., same], fixed[..., same], rtol=1e-4, atol=1e-5)


def test_a_step_of_selective_rope_turns_all_that_follows():
    module = make(small_rotary("selective", gated=False, taps=1))
    module.up[...] = jnp.ones_like(module.up[...])
    before = module(EVENTS, NOTHING, TOKEN)[0].query[0]
    moved = module(EVENTS, NOTHING, TOKEN.at[:, 2].add(TOKEN[:, 1]))[0].query[0]
    changed = np.abs(np.asarray(moved - before)).max((0, 2, 3))
    assert np.all(changed[[2, 3]] > 1e-4)
    assert np.all(changed[[0, 1, 4, 5, 6]] == 0)


def test_proportional_pairs_keep_the_fastest_frequencies_of_all():
    rotation = make(small_rotary("ordinal", partial=0.5, proportional=True), head_dim=12)
    expected = 10_000.0 ** (-2 * np.arange(3) / 12)
    chex.assert_trees_all_close(rotation.frequencies(), expected, rtol=1e-6)
    learned = make(small_rotary("ordinal", partial=0.5, proportional=True, learned_frequencies=True), head_dim=12)
    chex.assert_trees_all_close(learned.frequencies(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("preset", "omega0", "learned", "scale"), [("recommended", 3.0, True, 1.0), ("published", 10.0, False, math.pi)]
)
def test_a_preset_names_the_start_of_the_angle_network_and_settings_overrule_it(preset, omega0, learned, scale):
    module = make(small_rotary("siren", preset=preset))
    assert module.gate[...] == 1
    chex.assert_trees_all_close(module.scale[...], np.full(PAIRS, scale), rtol=1e-7)
    assert module.start.omega0 == omega0
    assert len(module.omega0_factors) == learned
    own = make(small_rotary("siren", preset=preset, omega0=5.0, learned_omega0=False, initial_scale=0.5))
    assert own.start == (5.0, False, 0.5)
    without_sine = make(small_rotary("siren", preset=preset, branches=("relu",)))
    assert not without_sine.omega0_factors


@pytest.mark.slow
def test_siren_angles_are_learned_scale_times_network_plus_gate_times_position():
    module = make(small_rotary("siren"))
    learned = np.asarray(module.angles(EVENTS, NOTHING)[0]) - ORDINAL
    module.gate[...] = np.float32(0.25)
    module.scale[...] = module.scale[...] * 2
    chex.assert_trees_all_close(module.angles(EVENTS, NOTHING)[0], 2 * learned + 0.25 * ORDINAL, rtol=1e-4, atol=1e-5)


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


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in ROTARIES if kind not in ("none", "selective")])
def test_a_rotation_depends_on_its_own_event_alone(kind):
    module, told = make(small_rotary(kind), head_dim=8), (EVENTS, NOTHING, TOKEN)
    alone, within = module(*jax.tree.map(lambda x: x[:, 2:5], told)), module(*told)
    chex.assert_trees_all_close(alone, jax.tree.map(lambda x: x[:, 2:5], within), rtol=1e-5, atol=1e-6)


def rotated(config: RotaryConfig, events=EVENTS, **changes):
    """Queries and keys as the blocks see them, of a module whose parameters may be changed first."""
    module = make(config)
    for name, value in changes.items():
        getattr(module, name)[...] = value
    return tuple(np.asarray(x) for x in module(events, NOTHING, TOKEN)[0](QUERY, KEY))


def logits(config: RotaryConfig, events=EVENTS, **changes):
    query, key = rotated(config, events, **changes)
    return np.einsum("bind,bjnd->bnij", query, key)


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        small_rotary("siren", initial_scale=0.0),
        small_rotary("siren", initial_scale=0.0, per_head=True),
        small_rotary("ordinal", content_bound=1.0),
        small_rotary("ordinal", learned_frequencies=True),
        small_rotary("time_order", time_scaling=ScalingConfig("linear", factor=1e9)),
        small_rotary("ordinal", xpos_base=1e9),
    ],
)
def test_every_learned_source_can_start_as_ordinal_rope(config):
    chex.assert_trees_all_close(rotated(config), rotated(small_rotary("ordinal")), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_learned_block_rotations_start_as_ordinal_rope_on_neighbouring_features():
    query, key = make(small_rotary("lie", block_size=2))(EVENTS, NOTHING, TOKEN)[0](QUERY, KEY)
    expected = tuple(apply_rotary(x, jnp.asarray(ORDINAL, jnp.float32), interleaved=True) for x in (QUERY, KEY))
    chex.assert_trees_all_close((query, key), expected, rtol=1e-5, atol=1e-5)


def test_content_turns_each_token_by_its_own_bounded_angle():
    kernel = np.random.default_rng(0).normal(size=(WIDTH, PAIRS)).astype(np.float32)
    base, moved = (rotated(small_rotary("ordinal", content_bound=0.5), content=k) for k in (0 * kernel, kernel))
    turn = 0.5 * np.tanh(np.float64(TOKEN) @ kernel)
    expected = apply_rotary(jnp.asarray(base[0]), jnp.asarray(turn, jnp.float32))
    chex.assert_trees_all_close(moved[0], expected, rtol=1e-4, atol=1e-5)
    assert np.abs(moved[0] - base[0]).max() > 0.1


@pytest.mark.slow
def test_a_fraction_of_each_head_turns_and_the_rest_stays():
    for kind, changes in (("ordinal", {}), ("siren", {}), ("lie", {"block_size": 2})):
        query, _ = rotated(small_rotary(kind, partial=0.67, **changes))
        chex.assert_trees_all_equal(query[..., 4:], np.asarray(QUERY)[..., 4:], strict=True)
        assert np.abs(query - np.asarray(QUERY))[0, 1:4, :, :4].max() > 0.1


def test_xpos_lets_each_pair_of_a_logit_decay_with_the_distance_alone():
    config = small_rotary("ordinal", xpos_base=2.0)
    distance = np.subtract.outer(np.asarray(EVENTS.position)[0], np.asarray(EVENTS.position)[0])
    query, key = (np.asarray(x)[0, ..., :PAIRS] + 1j * np.asarray(x)[0, ..., PAIRS:] for x in (QUERY, KEY))
    zeta = (np.arange(PAIRS) / PAIRS + 0.4) / 1.4
    factor = (zeta ** (distance[..., None] / 2)) * np.exp(1j * distance[..., None] * ORDINAL[0, 1])
    expected = np.einsum("ind,jnd,ijd->nij", query, key.conj(), factor).real
    chex.assert_trees_all_close(logits(config)[0], expected, rtol=1e-4, atol=1e-4)
    later_positions = EVENTS._replace(position=EVENTS.position + 5)
    chex.assert_trees_all_close(logits(config, later_positions), logits(config), rtol=1e-4, atol=1e-4)


def test_learned_frequencies_are_the_ones_that_turn():
    config = small_rotary("ordinal", learned_frequencies=True)
    module = make(config)
    module.learned_frequencies[...] = jnp.array([0.5, 0.25, 0.125])
    expected = np.asarray(EVENTS.position)[..., None] * np.array([0.5, 0.25, 0.125])
    chex.assert_trees_all_close(module.angles(EVENTS, NOTHING)[0], expected, rtol=1e-6)


@pytest.mark.parametrize("mixing", ["early", "by_dim", "by_head"])
def test_order_and_time_split_as_configured(mixing):
    config = small_rotary("time_order", mixing=mixing, learned_mixing=True)
    module = make(config)
    days = np.asarray(EVENTS.elapsed_seconds)[..., None] / 86_400
    order, time = ORDINAL, days * 10_000.0 ** (-2 * np.arange(PAIRS) / HEAD_DIM)

    def expected(weight):
        return {
            "early": order + weight * time,
            "by_dim": np.stack([order[..., 0], weight * time[..., 1], order[..., 2]], axis=-1),
            "by_head": np.stack([order, weight * time, order, weight * time], axis=-2),
        }[mixing]

    chex.assert_trees_all_close(module.angles(EVENTS, NOTHING)[0], expected(1), rtol=1e-5, atol=1e-6)
    module.mixing[...] = module.mixing[...].at[1].set(np.log(3))
    chex.assert_trees_all_close(module.angles(EVENTS, NOTHING)[0], expected(3), rtol=1e-5, atol=1e-6)


def test_scale_and_gate_of_each_head_are_its_own():
    module = make(small_rotary("siren", per_head=True))
    shared = make(small_rotary("siren")).angles(EVENTS, NOTHING)[0]
    chex.assert_trees_all_close(module.angles(EVENTS, NOTHING)[0], np.stack([shared] * 4, axis=2), rtol=1e-6)
    module.gate[...] = module.gate[...].at[2].set(0)
    module.scale[...] = module.scale[...].at[1].set(0)
    mine = module.angles(EVENTS, NOTHING)[0]
    chex.assert_trees_all_close(mine[:, :, 1], ORDINAL, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(mine[:, :, 2], shared - ORDINAL, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_equal(mine[:, :, 0], mine[:, :, 3], strict=True)


@pytest.mark.parametrize(
    ("inputs", "days", "seconds", "felt"),
    [
        (("day",), 3, 0, False),
        (("day",), 0, 3600, True),
        (("week",), 7, 0, False),
        (("week",), 3, 0, True),
        (("span",), 7, 0, True),
        (("day", "week"), 7, 0, False),
    ],
)
def test_the_angle_network_sees_the_time_inputs_that_are_asked_for(inputs, days, seconds, felt):
    config = small_rotary("siren", time_inputs=inputs, clamp_time="span" not in inputs)
    moved, at_home = (angles(config, events)[0] for events in (later(days, seconds), EVENTS))
    assert (np.abs(moved - at_home).max() > 1e-3) == felt


def test_semantic_rotation_sees_metadata_and_no_time():
    config = small_rotary("siren", time_inputs=(), metadata=("tab",))
    metadata = jax.random.normal(jax.random.key(0), (1, 8, 2))
    chex.assert_trees_all_equal(
        angles(config, later(3, 7), metadata=metadata), angles(config, metadata=metadata), strict=True
    )
    assert np.abs(angles(config, metadata=metadata + 1)[0] - angles(config, metadata=metadata)[0]).max() > 1e-3


def test_position_scaling_turns_positions_by_the_scaled_frequencies():
    linear = small_rotary("ordinal", scaling=ScalingConfig("linear", factor=4.0))
    chex.assert_trees_all_close(angles(linear)[0], ORDINAL / 4, rtol=1e-6)
    reference = scaled_frequencies(
        HEAD_DIM,
        {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 64},
        max_position_embeddings=256,
    )
    expected = np.asarray(EVENTS.position)[..., None] * np.asarray(reference.frequencies)
    chex.assert_trees_all_close(angles(small_rotary("siren", initial_scale=0.0, scaling=YARN))[0], expected, rtol=1e-6)
    longer = rotated(small_rotary("ordinal", scaling=YARN))[0]
    assert np.linalg.norm(longer) == pytest.approx(reference.attention_factor * np.linalg.norm(QUERY), rel=1e-5)


def test_scaling_of_days_leaves_positions_alone_and_the_other_way_round():
    frequencies = 10_000.0 ** (-2 * np.arange(PAIRS) / HEAD_DIM)
    days = np.asarray(EVENTS.elapsed_seconds)[..., None] / 86_400
    linear = small_rotary("time_order", time_scaling=ScalingConfig("linear", factor=4.0))
    chex.assert_trees_all_close(angles(linear)[0], ORDINAL + days * frequencies / 4, rtol=1e-5)
    positions_alone = small_rotary("time_order", scaling=ScalingConfig("linear", factor=4.0))
    chex.assert_trees_all_close(angles(positions_alone)[0], ORDINAL / 4 + days * frequencies, rtol=1e-5)
    # A day is worth half a position: 60 days of the time axis are 30 of the positions that frequencies count in.
    parameters = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config = small_rotary(
        "time_order",
        time_scale=0.5,
        time_scaling=ScalingConfig(**parameters, original_max_position_embeddings=60.0),
    )
    reference = scaled_frequencies(
        HEAD_DIM,
        parameters | {"rope_theta": 10_000.0, "original_max_position_embeddings": 30},
        max_position_embeddings=30,
    )
    expected = ORDINAL + 0.5 * days * np.asarray(reference.frequencies)
    chex.assert_trees_all_close(angles(config)[0], expected, rtol=1e-5)


@pytest.mark.parametrize("learned", [False, True])
def test_learned_frequencies_are_stretched_as_fixed_ones_are_and_days_alone_stay(learned):
    config = small_rotary("time_order", scaling=ScalingConfig("linear", factor=4.0), learned_frequencies=learned)
    days = np.asarray(EVENTS.elapsed_seconds)[..., None] / 86_400
    expected = ORDINAL / 4 + days * 10_000.0 ** (-2 * np.arange(PAIRS) / HEAD_DIM)
    chex.assert_trees_all_close(angles(config)[0], expected, rtol=1e-5, atol=1e-6)


def test_the_attention_factor_of_the_time_axis_counts_beside_scaled_positions():
    norms = [
        np.linalg.norm(rotated(small_rotary("time_order", scaling=scaling, time_scaling=YARN))[0])
        for scaling in (ScalingConfig(), ScalingConfig("linear", factor=4.0))
    ]
    expected = (0.1 * np.log(4) + 1) * np.linalg.norm(QUERY)
    assert norms == pytest.approx([expected, expected], rel=1e-5)


def test_a_longer_span_of_siren_reaches_its_bound_later():
    short, long = (small_rotary("siren", time_inputs=("span",), span_factor=factor) for factor in (1.0, 4.0))
    beyond, far_beyond = (later(days) for days in (40, 80))
    chex.assert_trees_all_equal(angles(short, beyond), angles(short, far_beyond), strict=True)
    assert np.abs(angles(long, beyond)[0] - angles(long, far_beyond)[0]).max() > 1e-3


def test_requests_are_rotated_at_their_own_time_and_history_at_its_own():
    module = make(small_rotary("siren", xpos_base=8.0))
    history, requests = (module(events, NOTHING, TOKEN)[0] for events in (EVENTS, later(3, 7200)))
    cross = PlanarRotation(requests.query, history.key)
    expected = requests(QUERY, KEY)[0], history(QUERY, KEY)[1]
    chex.assert_trees_all_equal(cross(QUERY, KEY), expected, strict=True)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (small_rotary("ordinal", partial=0.1), "partial must leave a pair of the 6 features, but is 0.1"),
        (small_rotary("lie", block_size=4), "block_size must be even and divide the 6 rotated features"),
        (small_rotary("lie", block_size=3), "block_size must be even and divide the 6 rotated features"),
        (
            small_rotary("time_order", time_scaling=ScalingConfig("yarn", factor=4.0)),
            "time_scaling: rope_parameters of",
        ),
        (
            small_rotary(
                "time_order",
                scaling=ScalingConfig("linear", factor=4.0),
                time_scaling=ScalingConfig("linear", factor=0.5),
            ),
            "time_scaling: factor must be a finite number of at least 1, but is 0.5",
        ),
        (
            small_rotary("time_order", time_scaling=ScalingConfig("linear", factor=2.0, beta_fast=3.0)),
            "time_order.time_scaling: rope_parameters of rope_type linear must not have the key beta_fast",
        ),
        (
            small_rotary("time_order", scaling=YARN, time_scaling=dataclasses.replace(YARN, attention_factor=2.0)),
            "scaling and time_order.time_scaling must agree on the attention factor",
        ),
        (
            small_rotary("time_order", mixing="by_dim", time_share=0.1),
            "time_share must leave order and time some of the 3 pairs, but is 0.1",
        ),
        (
            small_rotary("time_order", mixing="by_head", time_share=0.1),
            "time_share must leave order and time some of the 4 key heads, but is 0.1",
        ),
        (small_rotary("ordinal", scaling=ScalingConfig("yarn", factor=4.0)), "original_max_position_embeddings"),
        (
            small_rotary("time_scales", shortest_seconds=7_200.0, longest_days=0.05),
            "time_scales, in seconds: longest must be above shortest, 7200.0, and below 2^31 seconds, but is 4320.0",
        ),
        (small_rotary("axes", names=("day", "week"), sections=(1, 1)), "axes must share out the 3 rotary pairs"),
        (small_rotary("axes", names=("position", "day", "week", "span")), "axes must share out the 3 rotary pairs"),
        (small_rotary("ordinal", proportional=True), "partial must be below 1, and scaling default, if proportional"),
    ],
)
def test_settings_that_do_not_fit_the_heads_are_refused_in_one_sentence(config, sentence):
    with raises_one_sentence(sentence):
        make(config)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"time_inputs": ()}, "time_inputs and metadata must name an input of the angle network, but are both empty"),
        ({"time_inputs": ("day",), "clamp_time": False}, 'time_inputs must hold "span" if clamp_time is off, but are'),
        ({"branches": ("relu",), "omega0": 5.0}, "branches must hold \"sine\" if omega0 is given, but are ('relu',)"),
        ({"metadata": ("tab", "tab")}, "metadata must each be given once, but are ('tab', 'tab')"),
        ({"time_inputs": ("day", "day")}, "time_inputs must each be given once, but are ('day', 'day')"),
        (
            {"time_inputs": ("day",), "span_factor": 2.0},
            "time_inputs must hold \"span\" if span_factor is not 1, but are ('day',)",
        ),
    ],
)
def test_settings_that_make_no_source_are_refused_in_one_sentence(settings, sentence):
    with raises_one_sentence(sentence):
        SirenSettings(**settings)


@pytest.mark.parametrize(
    ("kind", "settings", "sentence"),
    [
        ("ordinal", {"siren": SirenSettings(metadata=("tab",))}, "rotary.siren.metadata must be left at ()"),
        ("none", {"xpos_base": 8.0}, "rotary.xpos_base must be left at None with rotary.kind none, but is 8.0"),
        (
            "none",
            {"scaling": ScalingConfig("linear", factor=2.0)},
            "rotary.scaling.rope_type must be left at 'default'",
        ),
        ("ordinal", {"time_order": TimeOrderSettings(time_scaling=YARN)}, "rotary.time_order.time_scaling.rope_type"),
        ("ordinal", {"siren": SirenSettings(per_head=True)}, "rotary.siren.per_head must be left at False"),
        ("siren", {"time_order": TimeOrderSettings("by_head")}, "rotary.time_order.mixing must be left at 'early'"),
        ("lie", {"learned_frequencies": True}, "rotary.learned_frequencies must be left at False with rotary.kind lie"),
        ("lie", {"content_bound": 1.0}, "rotary.content_bound must be left at 0.0 with rotary.kind lie, but is 1.0"),
        ("time_order", {"lie": LieSettings(4)}, "rotary.lie.block_size must be left at 8 with rotary.kind time_order"),
        ("rope", {}, f"rotary.kind must be one of {', '.join(ROTARIES)}, but is rope"),
    ],
)
def test_a_setting_that_the_kind_does_not_read_is_refused_by_its_path(kind, settings, sentence):
    with raises_one_sentence(sentence):
        RotaryConfig(kind, **settings)


@pytest.mark.parametrize("kind", ROTARIES)
def test_a_kind_reads_the_settings_of_its_name_and_those_that_its_class_says(kind):
    fields = {field.name: field for field in dataclasses.fields(RotaryConfig)}
    set_ = {"partial": 0.5, "learned_frequencies": True, "xpos_base": 8.0, "content_bound": 1.0, "base": 99.0}
    set_ |= {"scaling": ScalingConfig("linear", factor=2.0), "lie": LieSettings(4)}
    set_ |= {"siren": SirenSettings(width=8), "time_order": TimeOrderSettings("by_dim"), "proportional": True}
    set_ |= {"preset": "published"}
    set_ |= {"time_scales": TimeScalesSettings(60.5), "axes": AxesSettings(("day",)), "selective": SelectiveSettings(4)}
    assert set_.keys() == fields.keys() - {"kind"}
    assert ROTARIES[kind].reads <= {field.name for field in dataclasses.fields(SharedSettings)}
    for name, value in set_.items():
        if name in {kind, "base", *ROTARIES[kind].reads}:
            assert RotaryConfig(kind, **{name: value}).own == (value if name == kind else RotaryConfig(kind).own)
        else:
            with raises_one_sentence(f"rotary.{name}", f"rotary.kind {kind}"):
                RotaryConfig(kind, **{name: value})


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"factor": 2.0}, "rope_type must name a method if factor is given, but is default"),
        ({"rope_type": "dynamic", "factor": 2.0}, "seq_len must be given with rope_type dynamic, but is None"),
        (
            {"rope_type": "linear", "factor": 2.0, "seq_len": 9.0},
            "seq_len must not be given with rope_type linear, but is 9.0",
        ),
    ],
)
def test_a_scaling_that_does_nothing_is_refused_in_one_sentence(settings, sentence):
    with raises_one_sentence(sentence):
        ScalingConfig(**settings)


def knocked_out(kind, part):
    """Of a source that has learned something: its rotation of ones, when a part is switched off, and the source."""
    rotary: Any = make(small_rotary(kind))
    if kind == "selective":
        rotary.up.set_value(0.3 * jax.random.normal(jax.random.key(5), rotary.up.shape))
    rotary.knock_outs(jnp.asarray([SPEC.start_day, SPEC.start_day + 9]), jnp.asarray([0, 43_200]))[part]()
    token = jax.random.normal(jax.random.key(6), (*EVENTS.position.shape, rotary.width))
    ones = jnp.ones((*EVENTS.position.shape, rotary.key_heads, rotary.head_dim))
    return rotary, rotary(EVENTS, jnp.zeros((*EVENTS.position.shape, 0)), token)[0](ones, ones)


def test_selective_rope_without_its_steps_rotates_nothing():
    for of in knocked_out("selective", "all steps of the rotation")[1]:
        chex.assert_trees_all_equal(of, jnp.ones_like(of))


def test_either_part_of_selective_ropes_steps_is_switched_off_alone():
    turned = [knocked_out("selective", part)[1][0] for part in ("steps by content", "step of every event")]
    assert all(np.abs(one - other).max() > 0.1 for one, other in itertools.combinations([*turned, jnp.ones(())], 2))


def test_rote_without_times_lengthens_vectors_as_over_training_and_turns_nothing():
    rotary, (query, key) = knocked_out("rote", "all times in the rotation")
    pairs = rotary.rotated // 2
    squares = [np.square(factor) for factor in rote_factors(jnp.asarray([0.0, 9.5]), pairs)]
    expected = np.tile(np.sqrt(np.sum(squares, axis=0).mean(axis=0)), 2)
    chex.assert_trees_all_close(query, np.broadcast_to(expected, query.shape), rtol=1e-5)
    chex.assert_trees_all_equal(query, key)
