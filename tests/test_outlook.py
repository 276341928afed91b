"""What a log lets one expect is said, each in a sentence, and nothing where nothing is amiss."""

import dataclasses

import numpy as np
import polars as pl
import pytest
from small_logs import encode, small_log

from siren_rope_jax.data.periods import TEST, VALIDATION
from siren_rope_jax.train.criterion import choose_criterion
from siren_rope_jax.train.outlook import outlook
from siren_rope_jax.train.tasks import tasks_of

LOG = small_log([300, 250, 200])
LATE = LOG.period == VALIDATION


def said(log, *, steps=1_000, best_by=None):
    tasks = tasks_of(log)
    return outlook(log, tasks, *encode(log), steps=steps, criterion=choose_criterion(best_by, tasks))


def with_clicks(value):
    labels = LOG.labels.copy()
    labels[LATE, 0] = value
    return dataclasses.replace(LOG, labels=labels)


def test_a_log_with_enough_of_everything_is_met_with_silence():
    assert said(LOG) == []


@pytest.mark.parametrize(
    ("value", "lacking"), [(0.0, "no positives"), (1.0, "no negatives"), (np.nan, "no observed labels")]
)
def test_a_validation_period_of_one_class_is_named(value, lacking):
    (sentence,) = said(with_clicks(value))
    assert sentence.startswith(f"validation has {lacking} of click")
    assert "the best checkpoint is chosen without it" in sentence


def test_a_task_that_tells_too_little_is_said_to_be_left_out_only_where_another_is_not():
    log = with_clicks(0.0)
    assert "without it" not in said(log, best_by="click.log_loss")[0]
    log.labels[LATE, 1] = 0
    assert len(said(log)) == 2
    assert not any("without it" in sentence for sentence in said(log))


def test_a_handful_of_positives_is_named():
    log = with_clicks(0.0)
    log.labels[np.flatnonzero(LATE)[:3], 0] = 1
    (sentence,) = said(log)
    assert sentence.startswith("validation has only 3 positives of click: its metrics are mostly chance")


def test_two_steps_are_named():
    (sentence,) = said(LOG, steps=2)
    assert "2 steps" in sentence
    assert "--steps" in sentence


def test_a_period_of_items_that_training_does_not_know_is_named():
    item = np.where(LOG.period == TEST, LOG.item + 12, LOG.item).astype(np.int32)
    known = np.arange(len(item)) % 10 == 0
    log = dataclasses.replace(
        LOG, item=np.where(known, LOG.item, item), item_ids=pl.concat([LOG.item_ids, LOG.item_ids + "x"])
    )
    (sentence,) = said(log)
    assert sentence.startswith("90% of the test events are of items with fewer than 2 training events")


def test_a_fraction_of_a_positive_is_one_where_none_is_certain():
    log = with_clicks(0.0)
    log.labels[np.flatnonzero(LATE)[:1], 0] = 0.5
    (sentence,) = said(log)
    assert "only 0.5 positives of click" in sentence
