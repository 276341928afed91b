"""Biases of the time between two events: values and gradients against float64, exact periods, and what is refused."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from one_sentence import raises_one_sentence

from siren_rope_jax import ops
from siren_rope_jax.ops.time_bias import periodic_bias, time_decay_bias

DAY, WEEK = 86_400, 7 * 86_400
PERIODS = (DAY, WEEK, 31_556_952)
variant = pytest.mark.parametrize("variant", [lambda function: function, jax.jit], ids=["eager", "jit"])


def exact_decay(parameters, seconds, shape):
    """The bias in float64, and its derivatives by each parameter, [B, N, Q, K]."""
    r, h, b = (np.float64(parameters.get(name, 1))[..., None, None] for name in ("rates", "heights", "exponents"))
    x = seconds[:, None] / DAY / 2
    if shape == "exponential":
        return -r * x, {"rates": -x + 0 * r}
    if shape == "power":
        return -r * np.log1p(x), {"rates": -np.log1p(x) + 0 * r}
    with np.errstate(divide="ignore", invalid="ignore"):
        power, log = np.where(x > 0, x**b, 0), np.where(x > 0, np.log(x), 0)
    weight = np.exp(-r * power)
    by = {"rates": -h * power * weight, "heights": weight, "exponents": -h * r * power * log * weight}
    return h * weight, by


def exact_waves(parameters, seconds):
    a, b, g = (np.float64(parameters[name]) for name in ("cosines", "sines", "damping"))
    total, by = np.float64(0), {name: [] for name in parameters}
    for k, period in enumerate(PERIODS):
        phase, turns = (2 * np.pi * x[:, None] / period for x in (seconds % period, seconds))
        cos, sin, damped = np.cos(phase), np.sin(phase), np.exp(-g[k] * turns)
        wave = a[k][:, None, None] * cos + b[k][:, None, None] * sin
        total = total + damped * wave
        for name, part in zip(by, (damped * cos, damped * sin, -turns * damped * wave), strict=True):
            by[name].append(part)
    return total, by


def drawn(shape, seed):
    """Times of which some are equal, some years apart, and positive parameters of two heads."""
    generator = np.random.default_rng(seed)
    steps = generator.choice([0, 0, 1, 60, 3_600, DAY, 30 * DAY, 400 * DAY], (2, 7))
    times = np.cumsum(steps, axis=1) + int(generator.integers(-(2**31), 10**9))
    names = {"periodic": {"cosines": (3, 2), "sines": (3, 2), "damping": (3,)}}
    names = names.get(shape, dict.fromkeys(("rates", "heights", "exponents"), (2,)))
    parameters = {name: generator.uniform(0.05, 1.5, size) for name, size in names.items()}
    if shape == "periodic":
        parameters["damping"] /= 1e3
    elif shape != "stretched":
        parameters = {"rates": parameters["rates"]}
    return times, {name: jnp.asarray(x, jnp.float32) for name, x in parameters.items()}


def make(shape, times, parameters, key_times=None):
    if shape == "periodic":
        return periodic_bias(times, **parameters, periods=PERIODS, key_times=key_times)
    return time_decay_bias(times, **parameters, shape=shape, days=2.0, key_times=key_times)


SHAPES = ("exponential", "power", "stretched", "periodic")
shapes = pytest.mark.parametrize("shape", SHAPES)


@pytest.mark.slow
@variant
@shapes
@settings(max_examples=8)
@given(seed=st.integers(0, 2**31))
def test_values_and_gradients_are_those_of_float64(variant, shape, seed):
    times, parameters = drawn(shape, seed)
    rows = [jnp.asarray(x, jnp.int32) for x in (times, times[:, :4])]
    cotangent = np.random.default_rng(1).normal(size=(2, 2, 7, 4)).astype(np.float32)

    def loss(parameters):
        bias = make(shape, rows[0], parameters, rows[1])(jnp.arange(7), jnp.arange(4))
        return (bias * cotangent).sum(), bias

    (_, bias), gradients = variant(jax.value_and_grad(loss, has_aux=True))(parameters)
    chex.assert_type(bias, jnp.float32)
    seconds = np.abs(times[:, :, None] - times[:, None, :4]).astype(np.float64)
    expected, by = exact_waves(parameters, seconds) if shape == "periodic" else exact_decay(parameters, seconds, shape)
    np.testing.assert_allclose(bias, expected, rtol=3e-5, atol=3e-5)
    for name, gradient in gradients.items():
        if shape == "periodic":
            axes = (1, 3, 4) if name != "damping" else (1, 2, 3, 4)
            weighed = np.stack([part * cotangent for part in by[name]])
            exact, size = weighed.sum(axes), np.abs(weighed).sum(axes)
        else:
            weighed = by[name] * cotangent
            exact, size = weighed.sum((0, 2, 3)), np.abs(weighed).sum((0, 2, 3))
        assert np.all(np.abs(gradient - exact) <= 1e-4 * size + 1e-4), name


@shapes
def test_only_the_time_between_two_events_matters_and_each_block_is_part_of_the_whole(shape):
    times, parameters = drawn(shape, 3)
    rows, later = (jnp.asarray(x, jnp.int32) for x in (times, times + 12_345_678))
    whole = make(shape, rows, parameters)(jnp.arange(7), jnp.arange(7))
    chex.assert_trees_all_equal(make(shape, later, parameters)(jnp.arange(7), jnp.arange(7)), whole, strict=True)
    part = make(shape, rows, parameters)(jnp.arange(4, 7), jnp.arange(2, 5))
    chex.assert_trees_all_close(part, whole[..., 4:7, 2:5], rtol=1e-6)


@pytest.mark.parametrize("shape", ["exponential", "power", "stretched"])
def test_decay_falls_with_the_time_between_two_events(shape):
    _, parameters = drawn(shape, 4)
    times = jnp.asarray([[0, 0, DAY, 10 * DAY, 12 * DAY, 13 * DAY]], jnp.int32)
    bias = np.asarray(make(shape, times[:, -1:], parameters, times)(jnp.arange(1), jnp.arange(6)))[0, :, 0]
    assert np.all(np.diff(bias[:, 1:]) > 0)
    assert np.all(bias[:, 0] == bias[:, 1])


def test_waves_without_damping_repeat_exactly_after_any_number_of_periods():
    parameters = {"cosines": jnp.ones((1, 2)), "sines": jnp.full((1, 2), 0.3), "damping": jnp.zeros(1)}
    query = jnp.zeros((1, 1), jnp.int32)
    keys = jnp.asarray([[-777, -777 - WEEK, -777 - 3_000 * WEEK]], jnp.int32)
    bias = periodic_bias(query, **parameters, periods=(WEEK,), key_times=keys)(jnp.arange(1), jnp.arange(3))
    chex.assert_trees_all_equal(bias[..., :1].repeat(3, axis=-1), bias, strict=True)


@shapes
def test_attention_takes_the_bias_chunk_by_chunk_as_at_once(shape):
    times, parameters = drawn(shape, 5)
    rows = jnp.asarray(times, jnp.int32)
    inputs = jax.random.normal(jax.random.key(0), (3, 2, 7, 2, 8))
    told = {"segment_ids": jnp.ones((2, 7), jnp.int32), "times": rows, "bias": make(shape, rows, parameters)}
    plain, chunked = (
        ops.strictly_causal_attention(*inputs, **told, no_history=jnp.zeros((2, 8)), implementation=name)
        for name in ("plain", "chunked")
    )
    chex.assert_trees_all_close(plain, chunked, rtol=2e-5, atol=2e-5)


TIMES = jnp.asarray([[1, 2]], jnp.int32)
TWO, WAVES = jnp.ones(2), jnp.ones((1, 2))


@pytest.mark.parametrize(
    ("build", "parts"),
    [
        (lambda: time_decay_bias(TIMES, TWO, shape="linear"), ("shape", "exponential, power, stretched", "'linear'")),
        (lambda: time_decay_bias(TIMES, TWO, days=0.0), ("days", "0.0")),
        (lambda: time_decay_bias(TIMES, TWO, shape="stretched", heights=TWO), ("stretched needs exponents",)),
        (lambda: time_decay_bias(TIMES, TWO, heights=TWO), ("exponential does not read heights",)),
        (lambda: time_decay_bias(TIMES, jnp.ones((2, 2))), ("rates", "[N]", "(2, 2)")),
        (
            lambda: time_decay_bias(TIMES, TWO, shape="stretched", heights=TWO, exponents=jnp.ones(3)),
            ("exponents", "(2,)", "(3,)"),
        ),
        (lambda: time_decay_bias(TIMES.astype(jnp.uint32), TWO), ("times", "signed integers", "uint32")),
        (lambda: periodic_bias(TIMES, WAVES, WAVES, jnp.ones(1), periods=()), ("periods", "sequence of seconds")),
        (lambda: periodic_bias(TIMES, WAVES, WAVES, jnp.ones(1), periods=(1,)), ("a period", "2", "1")),
        (lambda: periodic_bias(TIMES, WAVES, WAVES, jnp.ones(1), periods=(DAY, WEEK)), ("cosines", "(2, 2)", "(1, 2)")),
        (lambda: periodic_bias(TIMES, WAVES, jnp.ones((1, 3)), jnp.ones(1), periods=(DAY,)), ("sines", "(1, 3)")),
        (lambda: periodic_bias(TIMES, WAVES, WAVES, jnp.ones(2), periods=(DAY,)), ("damping", "(1,)", "(2,)")),
    ],
)
def test_biases_that_cannot_be_are_refused_in_one_sentence(build, parts):
    with raises_one_sentence(*parts):
        build()
