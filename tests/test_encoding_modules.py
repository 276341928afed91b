"""Encodings and biases as modules: where they start, what they add, and what of an event they tell."""

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small_logs import NO_ROTATION, SPEC, heard, random_events, small_bias, small_config, small_rotary

from siren_rope_jax.nn.bias import BiasInputs, make_bias
from siren_rope_jax.nn.encodings import CalendarEncoding, LearnedEncoding, SinusoidalEncoding, Time2VecEncoding
from siren_rope_jax.nn.recommender import GenerativeRecommender, interleave
from siren_rope_jax.ops import alibi_slopes, calendar_features, sinusoidal_encoding

pytestmark = pytest.mark.slow

EVENTS = random_events(np.array([[1, 1, 1, 1, 2, 2, 2, 0]], np.int32))


def rngs():
    return nnx.Rngs(params=0)


COMMON = {"base": 100.0, "dtype": jnp.dtype("float32"), "rngs": rngs()}


def logits(**changes):
    config = small_config(NO_ROTATION, **changes)
    model = heard(GenerativeRecommender(config, SPEC, (0.0, 0.0), key=jax.random.key(0)))
    return np.asarray(jax.jit(lambda events: model(events))(EVENTS))


@pytest.mark.parametrize(
    ("kind", "settings"), [("t5", {}), ("hstu", {}), ("periodic", {}), ("time_decay", {"shape": "stretched"})]
)
def test_a_learned_bias_starts_without_effect(kind, settings):
    chex.assert_trees_all_close(logits(bias=small_bias(kind, **settings)), logits(), rtol=1e-6, atol=1e-7)


def bias_of(kind, heads=3, **settings) -> Any:
    return make_bias(small_bias(kind, **settings), BiasInputs(SPEC, heads, 4, 8), rngs())


def of_events(module, x=None) -> Any:
    return module(EVENTS, jnp.zeros((*EVENTS.segment.shape, 8)) if x is None else x, None)


def test_alibi_falls_with_the_distance_at_the_published_slopes():
    bias, relative = of_events(bias_of("alibi"))
    assert relative is None
    slots = jnp.arange(4)
    distance = np.subtract.outer(np.arange(4), np.arange(4))
    expected = -np.asarray(alibi_slopes(3))[:, None, None] * distance
    chex.assert_trees_all_close(bias(slots, slots)[0], expected, rtol=1e-6)


def test_t5_reads_its_table_by_bucket_of_distance():
    module = bias_of("t5", buckets=4, max_distance=6)
    module.table[...] = jnp.arange(12.0).reshape(4, 3)
    bias, _ = of_events(module)
    of_last = np.asarray(bias(jnp.array([3]), jnp.arange(3)))[0, :, 0]
    # Distances 3, 2 and 1 of event 3: 2 and 3 share the first logarithmic bucket, [2, sqrt(12)).
    chex.assert_trees_all_equal(of_last, np.float32([[6, 6, 3], [7, 7, 4], [8, 8, 5]]))


def test_hstu_adds_its_numbers_for_distance_and_log_time_to_every_head_alike():
    module = bias_of("hstu")
    assert module.positions.shape == (SPEC.window,)
    assert module.times.shape == (129,)
    module.positions[...] = jnp.arange(SPEC.window, dtype=jnp.float32)
    module.times[...] = 1000 * jnp.arange(129.0)
    bias, _ = of_events(module)
    elapsed = np.asarray(EVENTS.elapsed_seconds, np.float64)[0]
    expected = 3 + 1000 * np.floor(np.log(elapsed[3] - elapsed[0]) / 0.301)
    chex.assert_trees_all_equal(bias(jnp.array([3]), jnp.array([0])), np.float32([[[[expected]]]]))


@pytest.mark.parametrize(("shape", "of_days"), [("exponential", lambda x: x), ("power", np.log1p)])
def test_decay_with_time_starts_at_the_slopes_of_alibi(shape, of_days):
    bias, relative = of_events(bias_of("time_decay", shape=shape, days=2.0))
    assert relative is None
    elapsed = np.float64(EVENTS.elapsed_seconds[0, :4]) / 86_400
    expected = -np.asarray(alibi_slopes(3))[:, None, None] * of_days(np.abs(np.subtract.outer(elapsed, elapsed)) / 2)
    chex.assert_trees_all_close(bias(jnp.arange(4), jnp.arange(4))[0], expected, rtol=1e-5, atol=1e-6)


def test_waves_of_day_and_week_are_damped_as_configured():
    module = bias_of("periodic", periods=("week",), damping=0.1)
    module.cosines[...] = jnp.ones((1, 3))
    bias, _ = of_events(module)
    turns = 2 * np.pi * np.float64(EVENTS.elapsed_seconds[0, 3] - EVENTS.elapsed_seconds[0, 0]) / (7 * 86_400)
    expected = np.full((1, 3, 1, 1), np.exp(-0.1 * turns) * np.cos(turns))
    chex.assert_trees_all_close(bias(jnp.array([3]), jnp.array([0])), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("of_time", [False, True])
def test_forgetting_starts_so_that_half_is_left_after_the_training_window_or_span(of_time):
    module = bias_of("forgetting", of_time=of_time)
    bias, relative = of_events(module)
    assert relative is None
    elapsed = np.float64(EVENTS.elapsed_seconds[0, :4])
    unit = elapsed / 86_400 / SPEC.span_days if of_time else np.arange(4) / SPEC.window
    expected = np.subtract.outer(unit, unit) * np.log(0.5)
    causal = np.tril(np.ones((4, 4), bool), -1)
    found = np.asarray(bias(jnp.arange(4), jnp.arange(4)))[0]
    chex.assert_trees_all_close(found[:, causal], np.stack([expected[causal]] * 3), rtol=1e-4, atol=1e-6)


def test_what_an_event_is_decides_how_much_it_makes_others_fade():
    module = bias_of("forgetting")
    module.kernel[...] = jnp.ones((8, 3))
    x = jnp.zeros((*EVENTS.segment.shape, 8)).at[:, 2].set(-5)
    bias = np.asarray(of_events(module, x)[0](jnp.arange(4), jnp.arange(4)))[0]
    assert np.all(bias[:, 2, :2] < -30)
    assert np.all(bias[:, 3, :2] < -30)
    assert np.all(bias[:, 3, 2] > -0.1)


@pytest.mark.parametrize("periods", [(), ("day", "day")])
def test_waves_of_no_period_or_of_one_twice_are_refused(periods):
    with pytest.raises(ValueError, match="periods must each be given once, and at least one"):
        small_bias("periodic", periods=periods)


def test_intervals_without_content_leave_the_attention_alone():
    config = small_config(NO_ROTATION, bias=small_bias("tisasrec"))
    model = heard(GenerativeRecommender(config, SPEC, (0.0, 0.0), key=jax.random.key(0)))
    drawn = np.asarray(model(EVENTS))
    biases: list[Any] = [model.blocks[0].attention.bias, model.action_attention.bias]
    for bias in biases:
        bias.key[...] *= 0
        bias.value[...] *= 0
    chex.assert_trees_all_close(model(EVENTS), logits(), rtol=1e-5, atol=1e-6)
    assert np.abs(drawn - logits()).max() > 1e-5


def test_the_calendar_gets_columns_of_the_items_linear_layer():
    module = CalendarEncoding(SPEC, 8, **COMMON)
    features = calendar_features(EVENTS.day, EVENTS.second, start_day=SPEC.start_day, span_days=SPEC.span_days)
    chex.assert_trees_all_close(
        module(EVENTS), np.asarray(features) @ np.asarray(module.projection.kernel[...]), rtol=1e-5, atol=1e-6
    )


def test_time2vec_starts_with_periods_from_six_hours_to_the_training_span_and_one_straight_line():
    module = Time2VecEncoding(SPEC, 8, **COMMON)
    periods = 2 * np.pi / np.asarray(module.frequencies[...])[1:]
    assert periods.min() == pytest.approx(0.25, rel=1e-5)
    assert periods.max() == pytest.approx(SPEC.span_days, rel=1e-5)
    days = np.asarray(EVENTS.elapsed_seconds)[..., None] / 86_400
    phases, frequencies = np.float64(module.phases[...]), np.float64(module.frequencies[...])
    waves = np.concatenate([days / SPEC.span_days, np.sin(days * frequencies[1:] + phases[1:])], axis=-1)
    chex.assert_trees_all_close(module(EVENTS), waves @ np.float64(module.projection.kernel[...]), atol=1e-4)


def test_sinusoidal_positions_are_added_as_they_are():
    expected = sinusoidal_encoding(EVENTS.position, 8, base=100.0)
    chex.assert_trees_all_equal(SinusoidalEncoding(SPEC, 8, **COMMON)(EVENTS), expected)


def test_learned_positions_beyond_the_window_get_its_last_vector():
    module = LearnedEncoding(dataclasses.replace(SPEC, window=3), 8, **COMMON)
    table = np.asarray(module.table.embedding[...])
    chex.assert_trees_all_equal(np.asarray(module(EVENTS))[0], table[[0, 1, 2, 2, 0, 1, 2, 0]])


def test_interleaving_puts_each_action_after_its_event_at_the_same_position_and_time():
    tied = EVENTS._replace(elapsed_seconds=EVENTS.elapsed_seconds.at[:, 2].set(EVENTS.elapsed_seconds[:, 1]))
    tokens, times = interleave(tied, hide_ties=True)
    for name, values in tokens._asdict().items():
        chex.assert_trees_all_equal(values[:, 0::2], getattr(tied, name))
        chex.assert_trees_all_equal(values[:, 1::2], getattr(tied, name))
    event, action = np.asarray(times, np.int64)[0, 0::2], np.asarray(times, np.int64)[0, 1::2]
    assert np.all(action > event)  # an action sees its event
    assert action[1] > event[2] == event[1]  # and not the other way round, within one second
    assert action[0] < event[1]  # while earlier actions are seen
    assert interleave(tied, hide_ties=False)[1] is None


def test_interleaving_tells_times_apart_that_are_68_years_apart():
    ends = np.array([[-(2**30), 2**30 - 1]], np.int32)
    events = random_events(np.ones((1, 2), np.int32))._replace(elapsed_seconds=jnp.asarray(ends))
    _, times = interleave(events, hide_ties=True)
    assert np.all(np.diff(np.asarray(times, np.int64)) > 0)


def test_fewer_key_heads_have_fewer_parameters():
    few, many = (
        GenerativeRecommender(
            small_config(small_rotary("ordinal"), key_heads=key_heads), SPEC, (0.0,), key=jax.random.key(0)
        )
        for key_heads in (1, None)
    )
    assert few.blocks[0].attention.key.kernel.shape == few.blocks[0].attention.value.kernel.shape == (8, 4)
    assert many.blocks[0].attention.key.kernel.shape == (8, 8)
    assert dataclasses.replace(few.config, key_heads=None) == many.config
