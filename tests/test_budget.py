"""A log gets the training that it needs, and the user what they ask for."""

import dataclasses

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from siren_rope_jax.data.batches import BatchConfig, PackedRows
from siren_rope_jax.nn.config import ModelConfig
from siren_rope_jax.train.budget import fit_to_log
from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.optimizer import OptimizerConfig


def packed(rows: int, events: int | None = None) -> PackedRows:
    """Rows of 4 slots, of which so many are trained on."""
    scored = (np.arange(4 * rows) < (4 * rows if events is None else events)).reshape(rows, 4)
    zeros = np.zeros((rows, 4), np.int32)
    return PackedRows(row_index=zeros, segment=zeros + 1, position=zeros, scored=scored)


@settings(max_examples=50)
@given(rows=st.integers(1, 100_000))
@example(rows=98_529)  # no multiple of the batch
def test_a_log_of_any_size_gets_the_steps_that_a_model_needs_and_a_long_one_is_read_once(rows):
    config = fit_to_log(TrainConfig(), packed(rows))
    assert config.steps >= 300
    assert config.steps * config.batches.batch_size >= rows
    assert 4 <= config.batches.batch_size <= 32
    assert 1e-6 <= config.optimizer.learning_rate <= 3e-3


@settings(max_examples=20)
@given(rows=st.integers(1, 10_000), shares=st.integers(1, 300))
def test_the_devices_share_the_rows_of_a_step_evenly_however_small_the_log(rows, shares):
    alone, shared = (fit_to_log(TrainConfig(), packed(rows), shares=n).batches.batch_size for n in (1, shares))
    assert shared % shares == 0
    assert alone <= shared < alone + shares


@pytest.mark.parametrize("context_skip", [True, False])
def test_a_longer_log_never_gets_a_smaller_step_rate_or_batch(context_skip):
    config = TrainConfig(model=ModelConfig(context_skip=context_skip))
    configs = [fit_to_log(config, packed(rows)) for rows in (1, 10, 100, 1_000, 10_000, 100_000)]
    for chosen in ([c.batches.batch_size for c in configs], [c.optimizer.learning_rate for c in configs]):
        assert chosen == sorted(chosen)
        assert chosen[0] < chosen[-1]


@settings(max_examples=20)
@given(rows=st.integers(1, 100_000))
def test_what_learns_without_the_contexts_skip_never_learns_slower_than_beside_it_nor_hardly(rows):
    alone = fit_to_log(TrainConfig(model=ModelConfig(context_skip=False)), packed(rows)).optimizer.learning_rate
    assert alone >= max(1e-4, fit_to_log(TrainConfig(), packed(rows)).optimizer.learning_rate)


def test_a_longer_log_never_gets_more_dropout_of_the_context_and_a_short_one_two_fifths():
    chosen = [fit_to_log(TrainConfig(), packed(rows)).model.context_dropout for rows in (1, 10_000, 20_000, 1_000_000)]
    assert chosen[:2] == [0.4, 0.4]
    assert chosen == sorted(chosen, reverse=True)
    assert 0 < chosen[-1] < chosen[2] < 0.4


@pytest.mark.parametrize(
    ("given_", "steps"), [({"steps": 17}, 17), ({"epochs": 2.0}, 2 * 1_000 // 4), ({"epochs": 1e-9}, 1)]
)
def test_what_the_user_gives_is_taken(given_, steps):
    config = TrainConfig(batches=BatchConfig(batch_size=4), optimizer=OptimizerConfig(learning_rate=0.5), **given_)
    config = dataclasses.replace(config, model=ModelConfig(context_dropout=0.0))
    chosen = fit_to_log(config, packed(1_000))
    assert (chosen.steps, chosen.epochs) == (steps, None)
    assert chosen.batches.batch_size == 4
    assert chosen.optimizer.learning_rate == 0.5
    assert chosen.model.context_dropout == 0


def test_a_fitted_configuration_stays_as_it_is():
    config = fit_to_log(TrainConfig(), packed(100))
    assert fit_to_log(config, packed(5_000)) == config


def test_steps_and_epochs_are_not_given_together():
    with pytest.raises(ValueError, match=r"steps must not be given together with epochs, but are 3 and 2\.0"):
        dataclasses.replace(TrainConfig(), steps=3, epochs=2.0)
