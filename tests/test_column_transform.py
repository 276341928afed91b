"""What the context's network reads: bins and scales of training events, weighted by what they tell of the tasks."""

import dataclasses
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from small_logs import INPUTS, random_events, small_config, small_log

from siren_rope_jax.data.encoder_file import load_encoder, save_encoder
from siren_rope_jax.data.periods import TRAIN
from siren_rope_jax.nn.column_transform import ColumnTransform
from siren_rope_jax.nn.context import ContextSkip, event_context, told_features
from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.inputs import fit_inputs
from siren_rope_jax.train.session import input_spec


def drawn(seed, *, events=4_000, columns=4):
    """Columns, of which the first says most of the first task and the second something of the other; and the tasks."""
    rng = np.random.default_rng(seed)
    x = rng.normal(3, 2, (events, columns)).astype(np.float32)
    likes = rng.random(events) < 1 / (1 + np.exp(3 - x[:, 0]))
    clicks = rng.random(events) < 1 / (1 + np.exp(0.3 * (3 - x[:, 1])))
    return x, np.stack([likes, clicks], axis=1).astype(np.float32)


def reference(transform, x):
    """Straight from the definitions, number by number, in float64."""
    x = np.asarray(x, np.float64)
    numbers = [*x.T, *(np.clip((x[:, c] - low) / (high - low), 0, 1) for c, low, high in transform.bins)]
    described = zip(numbers, transform.mean, transform.scale, transform.weight, strict=True)
    return np.stack([w * np.clip((n - m) / s, -5, 5) for n, m, s, w in described], axis=1)


@pytest.mark.slow
@settings(max_examples=6)
@given(seed=st.integers(0, 1000), events=st.integers(2, 4_000), columns=st.integers(1, 5))
def test_values_and_gradients_are_those_of_the_definition_with_and_without_jit(seed, events, columns):
    x, labels = drawn(seed, events=events, columns=max(columns, 2))
    transform = ColumnTransform.fit(x, labels)
    expected = reference(transform, x)
    chex.assert_shape(expected, (events, transform.out_features))
    for function in (transform, jax.jit(transform)):
        np.testing.assert_allclose(function(jnp.asarray(x)), expected, rtol=1e-5, atol=2e-5)
    # Away from the edges, where left and right differ, the gradient is the slope between two near points.
    at, step = x[:8] + np.float32(0.017), 1e-3
    slope = (reference(transform, at + step) - reference(transform, at - step)) / (2 * step)
    kinks = np.array([edge for _, *edges in transform.bins for edge in edges])
    smooth = np.abs(at[:, :, None] - kinks).min(axis=(1, 2), initial=1) > 2 * step
    gradient = jax.jacfwd(transform)(jnp.asarray(at)).sum(axis=(2, 3))
    np.testing.assert_allclose(gradient[smooth], slope[smooth], rtol=1e-3, atol=1e-3)


def test_bins_hold_equal_shares_of_the_events_and_there_are_as_many_as_events_allow():
    x, labels = drawn(0)
    transform = ColumnTransform.fit(x, labels)  # 4,000 events are 10 times a hundred for 4 columns
    assert [column for column, *_ in transform.bins] == np.repeat(range(4), 8).tolist()
    for column, low, high in transform.bins:
        assert np.mean((x[:, column] >= low) & (x[:, column] < high)) == pytest.approx(1 / 8, abs=1e-3)
    assert len(ColumnTransform.fit(x[:1_200], labels[:1_200]).bins) == 3 * 4
    assert not ColumnTransform.fit(x[:700], labels[:700]).bins


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), at=st.floats(-2, 2), share=st.floats(0.3, 0.9))
def test_a_value_that_many_events_share_is_told_from_those_beside_it(seed, at, share):
    x, labels = drawn(seed)
    others = np.random.default_rng(seed).random(len(x)) >= share
    value = np.float32(at)
    x[:, 1] = np.where(others, x[:, 1], value)
    transform = ColumnTransform.fit(x, labels)
    bins = [(low, high) for column, low, high in transform.bins if column == 1]
    assert sorted(bins) == bins
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(bins))
    for low, high in ((x[x[:, 1] < value, 1].max(), value), (value, x[x[:, 1] > value, 1].min())):
        assert high - low <= 1e-6 or (low, high) in bins


@pytest.mark.slow
def test_a_column_of_few_values_has_no_bins_and_a_constant_one_becomes_zero():
    x, labels = drawn(0)
    x[:, 2], x[:, 3] = np.round(x[:, 2]).clip(0, 5), 7
    transform = ColumnTransform.fit(x, labels)
    assert {column for column, *_ in transform.bins} == {0, 1}
    chex.assert_trees_all_equal(transform(jnp.asarray(x))[:, 3], jnp.zeros(len(x)))


@settings(max_examples=20)
@given(seed=st.integers(0, 1000))
def test_a_weight_is_the_squared_correlation_of_the_task_it_tells_most_of_shrunk_by_its_noise(seed):
    x, labels = drawn(seed, columns=6)
    x, labels = x[:590], labels[:590]  # too few for bins
    labels[::3, 0] = np.nan
    expected = []
    for column in x.T:
        seen = [~np.isnan(label) for label in labels.T]
        z = [n.sum() * np.corrcoef(column[n], label[n])[0, 1] ** 2 - 4 for n, label in zip(seen, labels.T, strict=True)]
        expected.append(max(max(z) / (max(z) + 30), 0.05) if max(z) > 0 else 0.05)
    np.testing.assert_allclose(ColumnTransform.fit(x, labels).weight, expected, rtol=1e-5)
    assert expected[0] > 0.7  # tells much
    assert np.mean(np.array(expected[2:]) < 0.3) > 0.6


def test_what_tells_little_weighs_more_the_longer_the_log():
    x, labels = drawn(0, events=100_000)
    little = [ColumnTransform.fit(x[:events, 1:2], labels[:events]).weight[0] for events in (100, 5_000, 100_000)]
    assert little == sorted(little)
    assert little[0] < 0.5 < 0.99 < little[2]


@pytest.mark.slow
@pytest.mark.parametrize("tiny", [1e-39, 1e-10, 1e-7])
def test_values_that_float32_can_hardly_tell_apart_have_no_bins_of_their_own(tiny):
    x, labels = drawn(0)
    x[:, 0] = np.where(np.arange(len(x)) % 4, x[:, 0] * tiny, x[:, 0])
    transform = ColumnTransform.fit(x, labels)
    for function in (transform, jax.jit(transform)):
        assert np.isfinite(function(jnp.asarray(x))).all()
    assert min(high - low for _, low, high in transform.bins) > 1e-6


def test_where_nothing_tells_anything_every_weight_is_the_least():
    x, labels = drawn(0)
    constant = ColumnTransform.fit(x, np.ones_like(labels))
    unobserved = ColumnTransform.fit(x, np.full_like(labels, np.nan))
    assert set(constant.weight) == set(unobserved.weight) == {0.05}


def test_unobserved_outcomes_have_no_part_in_the_weights():
    x, labels = drawn(3)
    hidden = labels.copy()
    hidden[::2, 0] = np.nan
    lied = np.where(np.isnan(hidden), 1 - labels, labels)
    seen, of_lies = ColumnTransform.fit(x, hidden), ColumnTransform.fit(x, lied)
    assert of_lies.weight != seen.weight
    halves = ColumnTransform.fit(x, np.where(np.isnan(hidden), np.nan, labels))
    assert halves == seen


@pytest.mark.slow
def test_the_numbers_of_some_columns_are_those_they_have_among_all():
    x, labels = drawn(5)
    transform = ColumnTransform.fit(x, labels)
    chosen = [3, 0]
    part = transform.of(chosen)(jnp.asarray(x[:, chosen]))
    whole = np.asarray(transform(jnp.asarray(x)))
    of_chosen = [*chosen, *(4 + k for k, (column, *_) in enumerate(transform.bins) if column in chosen)]
    np.testing.assert_array_equal(part, whole[:, of_chosen])


def fitted(log):
    """The encoder of a log, and what a model must know of it."""
    encoder, _ = fit_inputs(log, INPUTS)
    return encoder, input_spec(encoder, TrainConfig())


@pytest.mark.slow
def test_a_training_learns_it_from_the_training_period_alone():
    log = small_log([60] * 30)
    later = log.period != TRAIN
    other = dataclasses.replace(log, labels=np.where(later[:, None], 1 - log.labels, log.labels))
    learned = fitted(log)[0].context_transform
    np.testing.assert_array_equal(learned, fitted(other)[0].context_transform)
    flipped = dataclasses.replace(log, labels=np.where(np.arange(len(log.time_ms))[:, None] % 3, log.labels, 0))
    assert not np.array_equal(learned, fitted(flipped)[0].context_transform)


@pytest.mark.slow
def test_a_table_and_an_encoders_file_keep_every_bit_of_it(tmp_path):
    x, labels = drawn(1)
    transform = ColumnTransform.fit(x, labels)
    assert ColumnTransform.from_table(transform.to_table()) == transform
    encoder, spec = fitted(small_log([60] * 30))
    save_encoder(encoder, tmp_path / "encoder.npz")
    assert input_spec(load_encoder(tmp_path / "encoder.npz"), TrainConfig()) == spec


@pytest.mark.slow
@pytest.mark.parametrize("told", [{}, {"head_features": False}, {"head_calendar": False}])
def test_the_skip_reads_what_is_told_and_nothing_else_through_it(told):
    spec, config = fitted(small_log([60] * 30))[1], small_config(**told)
    assert spec.context_transform is not None
    rng = np.random.default_rng(0)
    events = random_events(np.ones((2, 8), np.int32))
    events = events._replace(
        context=jnp.asarray(rng.normal(size=(2, 8, spec.context_features)), jnp.float32),
        dense=jnp.asarray(rng.normal(size=(2, 8, len(spec.dense_names))), jnp.float32),
        ids=jnp.asarray(rng.integers(0, np.array(spec.id_buckets), (2, 8, len(spec.id_names)))),
    )
    skip = ContextSkip(config, spec, 2, rngs=nnx.Rngs(params=0))
    kernel = skip.linear.kernel
    kernel[...] = jnp.asarray(rng.normal(size=kernel.shape), jnp.float32)
    everything = spec.context_features + sum(told_features(small_config(), spec))
    features, calendar = told_features(config, spec)
    columns = [*range(everything - 4 - (features == 0) * told_features(small_config(), spec)[0])]
    columns += [*range(everything - 4, everything)] * (calendar > 0)
    context = event_context(events, config, spec)
    assert context.shape[-1] == len(columns) == spec.context_features + features + calendar
    read = spec.context_transform.of(columns)(context)
    np.testing.assert_allclose(skip(context), read @ kernel[...], rtol=1e-4, atol=1e-5)
