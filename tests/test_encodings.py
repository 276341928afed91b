"""Encodings that are added to embeddings: values, gradients, and what their dot products depend on."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from one_sentence import raises_one_sentence

from siren_rope_jax.ops.encodings import sinusoidal_encoding, time2vec

variant = pytest.mark.parametrize("variant", [lambda function, **_: function, jax.jit], ids=["eager", "jit"])


def reference_sinusoidal(positions, width, base):
    positions = np.asarray(positions, np.float64)
    result = np.empty((*positions.shape, width))
    for j in range(width // 2):
        result[..., 2 * j] = np.sin(positions / base ** (2 * j / width))
        result[..., 2 * j + 1] = np.cos(positions / base ** (2 * j / width))
    return result


def reference_time2vec(time, frequencies, phases, cotangent):
    """Values, and the gradients of time, frequencies and phases."""
    time, frequencies, phases = (np.asarray(x, np.float64) for x in (time, frequencies, phases))
    result = np.empty((*time.shape, len(frequencies)))
    of_time, of_frequencies, of_phases = np.zeros(time.shape), np.zeros(len(frequencies)), np.zeros(len(frequencies))
    for event in np.ndindex(time.shape):
        for j, (frequency, phase) in enumerate(zip(frequencies, phases, strict=True)):
            angle = time[event] * frequency + phase
            result[(*event, j)] = angle if j == 0 else np.sin(angle)
            slope = cotangent[(*event, j)] * (1.0 if j == 0 else np.cos(angle))
            of_time[event] += slope * frequency
            of_frequencies[j] += slope * time[event]
            of_phases[j] += slope
    return result, (of_time, of_frequencies, of_phases)


@pytest.mark.slow
@settings(max_examples=10)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([(), (3,), (2, 3), (2, 1, 3)]),
    st.integers(1, 6),
    st.sampled_from([2.0, 100.0, 10_000.0, 1e7]),
    st.sampled_from(["int32", "float32"]),
)
def test_sinusoidal_encoding_is_sine_on_even_and_cosine_on_odd_features(seed, batch, pairs, base, dtype):
    positions = jnp.asarray(np.random.default_rng(seed).uniform(-500, 500, batch), dtype)
    result = jax.jit(sinusoidal_encoding, static_argnames=("width", "base"))(positions, 2 * pairs, base=base)
    chex.assert_type(result, jnp.float32)
    expected = reference_sinusoidal(positions, 2 * pairs, base)
    # A product of 500 radians is rounded to 3e-5, and a frequency to 6e-8 of itself.
    chex.assert_trees_all_close(result, expected, rtol=0, atol=6e-5)


@pytest.mark.slow
@variant
def test_gradient_of_the_position_is_the_frequency_times_the_other_of_sine_and_cosine(variant):
    positions = jnp.asarray([0.0, 0.5, -3.0, 40.0])
    cotangent = np.random.default_rng(0).normal(size=(4, 6))

    def loss(positions):
        return jnp.sum(sinusoidal_encoding(positions, 6) * jnp.asarray(cotangent, jnp.float32))

    encoded, expected = reference_sinusoidal(positions, 6, 10_000.0), np.zeros(4)
    for j in range(3):
        slope = cotangent[:, 2 * j] * encoded[:, 2 * j + 1] - cotangent[:, 2 * j + 1] * encoded[:, 2 * j]
        expected += slope * 10_000.0 ** (-2 * j / 6)
    chex.assert_trees_all_close(variant(jax.grad(loss))(positions), expected, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_dot_product_of_two_sinusoidal_encodings_depends_on_their_distance_alone():
    encoded = np.float64(sinusoidal_encoding(jnp.arange(200), 32))
    products = encoded @ encoded.T
    for distance in (0, 1, 17, 100):
        at_distance = np.diagonal(products, distance)
        expected = sum(math.cos(distance * 10_000.0 ** (-2 * j / 32)) for j in range(16))
        chex.assert_trees_all_close(at_distance, np.full_like(at_distance, expected), rtol=0, atol=1e-4)
    assert np.ptp(products[0]) > 5


@pytest.mark.slow
@variant
def test_time2vec_values_and_gradients_are_its_equation_in_float64(variant):
    generator = np.random.default_rng(1)
    time, frequencies, phases = (
        jnp.asarray(generator.uniform(-limit, limit, shape), jnp.float32)
        for limit, shape in ((30.0, (2, 5)), (3.0, 4), (4.0, 4))
    )
    cotangent = generator.normal(size=(2, 5, 4))

    def loss(*arguments):
        encoded = time2vec(*arguments)
        return jnp.sum(encoded * jnp.asarray(cotangent, jnp.float32)), encoded

    (_, result), gradients = variant(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(time, frequencies, phases)
    chex.assert_type(result, jnp.float32)
    expected, expected_gradients = reference_time2vec(time, frequencies, phases, cotangent)
    # An angle of 94 radians is rounded to 8e-6; a gradient sums ten of them, times up to 30.
    chex.assert_trees_all_close(result, expected, rtol=0, atol=1.2e-5)
    chex.assert_trees_all_close(gradients, expected_gradients, rtol=0, atol=1e-3)


@pytest.mark.slow
def test_each_sine_of_time2vec_repeats_after_its_own_period_and_the_first_feature_never():
    periods = np.asarray([1.0, 7.0, 30.5])
    frequencies = jnp.asarray([0.3, *(2 * np.pi / periods)], jnp.float32)
    phases, time = jnp.asarray([1.0, 0.2, -2.0, 3.0]), jnp.linspace(0.0, 20.0, 41)
    at_home = time2vec(time, frequencies, phases)
    for feature, period in enumerate(periods, start=1):
        moved = time2vec(time + period, frequencies, phases)
        half = time2vec(time + period / 2, frequencies, phases)
        chex.assert_trees_all_close(moved[:, feature], at_home[:, feature], rtol=0, atol=5e-5)
        chex.assert_trees_all_close(half[:, feature], -at_home[:, feature], rtol=0, atol=5e-5)
        chex.assert_trees_all_close(moved[:, 0] - at_home[:, 0], np.full(41, 0.3 * period), rtol=0, atol=1e-5)


def test_one_frequency_gives_the_linear_feature_alone():
    result = time2vec(jnp.asarray([[1.5]]), jnp.asarray([2.0]), jnp.asarray([0.5]))
    chex.assert_trees_all_equal(result, jnp.asarray([[[3.5]]]), strict=True)


def test_bfloat16_parameters_are_taken_in_float32():
    time, numbers = jnp.asarray([100.0]), jnp.asarray([1.0, 0.75], jnp.bfloat16)
    result = time2vec(time, numbers, numbers)
    chex.assert_trees_all_close(result, np.float32([[101.0, math.sin(75.75)]]), rtol=0, atol=1e-6)


@pytest.mark.slow
def test_vmap_over_events_is_the_encoding_of_the_whole_array():
    time, numbers = jnp.linspace(-3.0, 9.0, 12).reshape(3, 4), jnp.asarray([0.5, 1.0, 2.0])
    mapped = jax.jit(jax.vmap(time2vec, in_axes=(0, None, None)))(time, numbers, numbers)
    chex.assert_trees_all_close(mapped, time2vec(time, numbers, numbers), rtol=0, atol=1e-6)
    mapped = jax.jit(jax.vmap(lambda x: sinusoidal_encoding(x, 4)))(time)
    chex.assert_trees_all_close(mapped, sinusoidal_encoding(time, 4), rtol=0, atol=1e-6)


def test_widths_and_bases_that_make_no_sense_are_refused_in_one_sentence():
    for width in (0, -2, 3):
        with raises_one_sentence("width must be a positive even number", width):
            sinusoidal_encoding(jnp.arange(3), width)
    for base in (1.0, -2.0, math.inf, math.nan):
        with raises_one_sentence("base must be a finite number above 1", base):
            sinusoidal_encoding(jnp.arange(3), 4, base=base)


def test_arguments_of_time2vec_that_do_not_fit_are_refused_in_one_sentence():
    time, ones = jnp.zeros((2, 3)), jnp.ones(4)
    with raises_one_sentence("time must be floating point", "int32"):
        time2vec(jnp.zeros((2, 3), jnp.int32), ones, ones)
    for frequencies, phases in (((4,), (3,)), ((1, 4), (1, 4)), ((0,), (0,))):
        with raises_one_sentence("frequencies and phases", "one-dimensional", frequencies, phases):
            time2vec(time, jnp.ones(frequencies), jnp.ones(phases))
