"""A model that is asked for positions or times beyond its training says so once, and only where it extrapolates."""

import dataclasses
import warnings

import jax
import numpy as np
import pytest
from small_logs import SPEC, random_events, small_bias, small_config, small_rotary

from siren_rope_jax.nn.recommender import GenerativeRecommender
from siren_rope_jax.nn.rotary import ScalingConfig
from siren_rope_jax.nn.trained_range import TrainedRange

pytestmark = pytest.mark.slow

SHORT = dataclasses.replace(SPEC, window=4)
EVENTS = random_events(np.ones((1, 8), np.int32))
DAYS = 86_400
LINEAR = ScalingConfig("linear", factor=4.0)


def messages(act):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        act()
    return [str(warning.message) for warning in caught if "extrapolates" in str(warning.message)]


def positions_of(config):
    return messages(lambda: TrainedRange(config, SHORT).check_positions(np.arange(8)))


def times_of(config, last=60):
    return messages(lambda: TrainedRange(config, SHORT).check_times(np.array([0, last * DAYS])))


@pytest.mark.parametrize(
    "config",
    [
        *(small_config(small_rotary(kind)) for kind in ("ordinal", "time_order", "siren", "lie")),
        small_config(small_rotary("none"), encodings=("learned",)),
        small_config(small_rotary("none"), encodings=("sinusoidal",)),
    ],
)
def test_positions_beyond_the_window_are_named_with_both_ends(config):
    assert positions_of(config) == [
        "positions reach 7, but training went up to 3 and no scaling is set: the model extrapolates"
    ]


@pytest.mark.parametrize(
    "config",
    [
        small_config(small_rotary("none")),
        small_config(small_rotary("none"), bias=small_bias("alibi")),
        small_config(small_rotary("none"), bias=small_bias("hstu")),
        small_config(small_rotary("ordinal", scaling=LINEAR)),
    ],
)
def test_positions_that_are_scaled_bounded_or_unread_are_no_reason_to_warn(config):
    assert positions_of(config) == []


@pytest.mark.parametrize(
    "config",
    [
        small_config(small_rotary("time_order")),
        small_config(small_rotary("lie")),
        small_config(small_rotary("siren", clamp_time=False)),
        small_config(small_rotary("none"), encodings=("time2vec",)),
    ],
)
def test_times_beyond_the_span_are_named_with_its_length(config):
    assert times_of(config) == [
        "times run from day 0 to day 60, but training had 30 days and nothing extends them: the model extrapolates"
    ]
    assert times_of(config, last=30) == []


@pytest.mark.parametrize(
    "config",
    [
        small_config(small_rotary("ordinal")),
        small_config(small_rotary("siren")),
        small_config(small_rotary("siren", time_inputs=("day", "week"))),
        small_config(small_rotary("siren", clamp_time=False, span_factor=4.0)),
        small_config(small_rotary("time_order", time_scaling=LINEAR)),
        small_config(small_rotary("ordinal"), encodings=("calendar",)),
    ],
)
def test_times_that_are_scaled_held_or_unread_are_no_reason_to_warn(config):
    assert times_of(config) == []


def test_a_model_warns_once_of_each_kind_and_another_model_anew():
    def ask_twice():
        model = GenerativeRecommender(small_config(small_rotary("ordinal")), SHORT, (0.0,), key=jax.random.key(0))
        model(EVENTS)
        model(EVENTS)

    assert len(messages(ask_twice)) == 1
    assert len(messages(ask_twice)) == 1


def test_under_jit_the_model_runs_without_looking_at_values():
    model = GenerativeRecommender(small_config(small_rotary("ordinal")), SHORT, (0.0,), key=jax.random.key(0))
    assert messages(lambda: jax.jit(lambda events: model(events))(EVENTS)) == []


def test_models_of_one_configuration_share_their_compiled_functions():
    ranges = TrainedRange(small_config(), SHORT), TrainedRange(small_config(), SHORT)
    assert ranges[0] == ranges[1]
    assert hash(ranges[0]) == hash(ranges[1])
