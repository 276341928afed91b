"""Rotation by cycles of time and by several axes: exact for any time, in whole turns, and each pair by its own axis."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from one_sentence import raises_one_sentence

from siren_rope_jax import ops

variant = pytest.mark.parametrize("variant", [lambda function: function, jax.jit], ids=["eager", "jit"])
DAY = 86_400
SECONDS = np.array([-(2**31), -DAY - 1, -1, 0, 1, 59, 60, 3_599, DAY // 2, 10**9, 2**31 - 1], np.int64)


def apart(a, b):
    """The distance between angles, whatever whole turns are between them."""
    return np.abs((np.asarray(a, np.float64) - b + np.pi) % (2 * np.pi) - np.pi)


@pytest.mark.slow
@variant
@settings(max_examples=8)
@given(periods=st.lists(st.integers(2, 2**31 - 1), min_size=1, max_size=5))
def test_the_angle_of_a_cycle_is_exact_for_every_time_and_period(variant, periods):
    angles = variant(lambda seconds: ops.cycle_angles(seconds, periods))(jnp.asarray(SECONDS, jnp.int32))
    exact = 2 * np.pi * ((SECONDS[:, None] % periods) / np.asarray(periods, np.float64))
    chex.assert_shape(angles, (SECONDS.size, len(periods)))
    chex.assert_type(angles, jnp.float32)
    assert apart(angles, exact).max() < 1e-6
    assert np.abs(angles).max() <= np.pi + 1e-6


@pytest.mark.slow
def test_cycles_are_a_function_of_the_time_between_two_events():
    periods = ops.time_scale_periods(4, shortest=60, longest=30 * DAY)
    query, key = jax.random.normal(jax.random.key(0), (2, 1, 1, 8))

    def score(at):
        turned = (
            ops.apply_rotary(x, ops.cycle_angles(jnp.asarray([at + more], jnp.int32), periods))
            for x, more in ((query, 12_345), (key, 0))
        )
        return jnp.sum(next(turned) * next(turned))

    scores = [score(at) for at in (0, 1, 1_700_000_000, -(2**31))]
    chex.assert_trees_all_close(scores, [scores[0]] * 4, rtol=1e-4, atol=1e-5)


@given(pairs=st.integers(1, 40), shortest=st.floats(2, 1e5), ratio=st.floats(1.001, 1e4))
def test_time_scales_are_a_geometric_ladder_of_whole_seconds_from_the_longest(pairs, shortest, ratio):
    periods = np.array(ops.time_scale_periods(pairs, shortest=shortest, longest=shortest * ratio))
    exact = shortest * ratio * (1 / ratio) ** (np.arange(pairs) / pairs)
    assert np.abs(periods - exact).max() <= 0.5 + 1e-6
    assert periods[0] == round(shortest * ratio)
    assert periods.min() >= 2


@pytest.mark.slow
@variant
@pytest.mark.parametrize(("period", "days"), [("day", 1), ("week", 7), ("year", 365.2425)])
@settings(max_examples=8)
@given(day=st.integers(-700_000, 2_900_000), second=st.integers(0, DAY - 1))
def test_calendar_angles_are_whole_turns_of_the_period_for_any_date(variant, period, days, day, second):
    turns = (1, 3, 64)
    angles = variant(lambda *of: ops.calendar_angles(*of, period=period, turns=turns))(
        jnp.asarray([day], jnp.int32), jnp.asarray([second], jnp.int32)
    )
    exact = 2 * np.pi * np.array(turns) * ((day * DAY + second) % (days * DAY)) / (days * DAY)
    assert apart(angles[0], exact).max() < 1e-6 * 64


@pytest.mark.slow
def test_calendar_angles_of_no_second_of_a_day_are_nan():
    angles = ops.calendar_angles(jnp.asarray([3, 3]), jnp.asarray([DAY, 5]), period="week", turns=(1, 2))
    assert np.isnan(angles[0]).all()
    assert np.isfinite(angles[1]).all()


def of_axes(axes, pairs, seed=0):
    return [jnp.asarray(x, jnp.float32) for x in np.random.default_rng(seed).normal(size=(axes, 2, 5, pairs))]


@pytest.mark.slow
@variant
@settings(max_examples=8)
@given(sections=st.lists(st.integers(0, 6), min_size=1, max_size=4).filter(sum), seed=st.integers(0, 99))
def test_sections_take_each_pair_from_the_axis_whose_turn_it_is(variant, sections, seed):
    angles = of_axes(len(sections), sum(sections), seed)
    found = variant(lambda *angles: ops.section_angles(angles, sections))(*angles)
    ends = np.cumsum(sections)
    exact = [angles[axis][..., end - size : end] for axis, (end, size) in enumerate(zip(ends, sections, strict=True))]
    chex.assert_trees_all_equal(found, jnp.concatenate(exact, -1), strict=True)


def test_interleaved_sections_are_those_of_qwen3_vl():
    sections = (24, 20, 20)  # its time, height and width
    angles = of_axes(3, 64)
    found = ops.section_angles(angles, sections, interleaved=True)
    for pair in range(64):
        axis = pair % 3 if pair % 3 and pair < 60 else 0
        chex.assert_trees_all_equal(found[..., pair], angles[axis][..., pair], strict=True)


@pytest.mark.slow
def test_each_pair_of_a_section_gets_the_gradient_of_its_own_axis_alone():
    angles = of_axes(2, 4)
    gradients = jax.grad(lambda angles: ops.section_angles(angles, (1, 3)).sum())(angles)
    chex.assert_trees_all_equal([g[0, 0] for g in gradients], [jnp.array([1.0, 0, 0, 0]), jnp.array([0, 1.0, 1, 1])])


X = jnp.ones((1, 2), jnp.int32)


@pytest.mark.parametrize(
    ("build", "parts"),
    [
        (lambda: ops.time_scale_periods(0, shortest=60, longest=100), ("pairs", "at least 1", "0")),
        (lambda: ops.time_scale_periods(2, shortest=1, longest=100), ("shortest", "at least 2", "1")),
        (lambda: ops.time_scale_periods(2, shortest=60, longest=60), ("longest", "above shortest, 60", "60")),
        (lambda: ops.time_scale_periods(2, shortest=60, longest=2**31), ("longest", "below 2^31")),
        (lambda: ops.cycle_angles(X, ()), ("periods", "sequence of whole seconds", "()")),
        (lambda: ops.cycle_angles(X, (60.5,)), ("a period", "whole number", "60.5")),
        (lambda: ops.cycle_angles(jnp.ones(2), (60,)), ("seconds must be integers", "float32")),
        (lambda: ops.cycle_angles(X.astype(jnp.uint32), (60,)), ("seconds must fit int32", "uint32")),
        (lambda: ops.calendar_angles(X, X, period="month", turns=(1,)), ("period", "day, week, year", "'month'")),
        (lambda: ops.calendar_angles(X, X, period="day", turns=(1, 65)), ("a number of turns", "at most 64", "65")),
        (lambda: ops.calendar_angles(X, X, period="day", turns=(0.5,)), ("a number of turns", "0.5")),
        (lambda: ops.calendar_angles(X, X, period="day", turns=()), ("turns", "sequence of whole numbers", "()")),
        (lambda: ops.section_angles(jnp.ones((2, 4)), (2, 2)), ("angles must be a sequence of arrays",)),
        (lambda: ops.section_angles([jnp.ones(4, jnp.bfloat16)], (4,)), ("angles must be float32", "bfloat16")),
        (lambda: ops.section_angles([jnp.ones(4), jnp.ones(5)], (2, 2)), ("one shape [..., R]", "(4,), (5,)")),
        (lambda: ops.section_angles([jnp.ones(4)] * 2, (2, 3)), ("sections", "4 pairs among 2 axes", "[2, 3]")),
        (lambda: ops.section_angles([jnp.ones(4)], (2, 2)), ("sections", "4 pairs among 1 axes", "[2, 2]")),
        (lambda: ops.section_angles([jnp.ones(4)] * 2, (1, 3), interleaved=True), ("sections", "in turn", "[1, 3]")),
        (lambda: ops.section_angles([jnp.ones(4)] * 2, (2, 2), interleaved=1), ("interleaved", "True or False", "1")),
    ],
)
def test_axes_that_cannot_be_are_refused_in_one_sentence(build, parts):
    with raises_one_sentence(*parts):
        build()
