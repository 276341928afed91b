"""Predictions of chosen events: each once, from its true history, whatever shares its batch; and their file."""

import dataclasses
import warnings

import numpy as np
import polars as pl
import pytest
from small_logs import INPUTS, compile_small, encode, heard_state, small_config, small_log, small_rotary

from siren_rope_jax.data.batches import BatchConfig
from siren_rope_jax.data.periods import TEST, VALIDATION
from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.criterion import mean_of
from siren_rope_jax.train.metrics import task_metrics
from siren_rope_jax.train.predict import PERIODS, metrics_of, predict_events, write_predictions
from siren_rope_jax.train.session import make_session
from siren_rope_jax.train.sharding import MeshConfig, make_layout
from siren_rope_jax.train.tasks import make_tasks

pytestmark = pytest.mark.slow

LOG = small_log([5, 30, 17, 1, 2, 8, 11])
EVERYTHING = np.ones(len(LOG.time_ms), bool)
ENCODER, ENCODED = encode(LOG)
SMALL = BatchConfig(window=8, row_length=12, batch_size=4)
LARGE = BatchConfig(window=8, row_length=20, batch_size=3)
WHOLE = BatchConfig(window=64, row_length=64, batch_size=4)  # half a window holds any user
LAYOUT = make_layout(MeshConfig())
CLOSE = {"rtol": 0, "atol": 1e-6}


@pytest.fixture(scope="module")
def predict():
    model = compile_small(ENCODER, LAYOUT)
    params = heard_state(model).params

    def run(wanted, config, encoded=ENCODED):
        return predict_events(model.predict, params, encoded, wanted, config, LAYOUT)

    return run


@pytest.fixture(scope="module")
def everything(predict):
    return {id(config): predict(EVERYTHING, config) for config in (SMALL, WHOLE)}


def test_predictions_differ_from_event_to_event(everything):
    probabilities = everything[id(WHOLE)]
    assert np.all(probabilities.std(axis=0) > 1e-3)
    assert np.all((probabilities > 0) & (probabilities < 1))


@pytest.mark.parametrize("period", [VALIDATION, TEST])
def test_every_wanted_event_has_a_finite_probability_and_no_other_has_one(predict, period):
    wanted = LOG.period == period
    probabilities = predict(wanted, SMALL)
    assert probabilities.shape == (len(LOG.time_ms), 2)
    assert np.all(np.isfinite(probabilities[wanted]))
    assert np.all(np.isnan(probabilities[~wanted]))


def test_packing_moves_no_prediction(predict, everything):
    np.testing.assert_allclose(predict(EVERYTHING, LARGE), everything[id(SMALL)], **CLOSE)


def test_a_wanted_event_is_predicted_from_its_whole_history_though_that_is_not_wanted(predict, everything):
    wanted = (LOG.period == TEST) | (np.arange(len(LOG.time_ms)) % 7 == 0)
    np.testing.assert_allclose(predict(wanted, WHOLE)[wanted], everything[id(WHOLE)][wanted], **CLOSE)


def test_predictions_stand_in_the_order_of_the_log(predict, everything):
    users = np.isin(LOG.user, [1, 2])
    alone = dataclasses.replace(
        ENCODED,
        log_index=ENCODED.log_index[users[ENCODED.log_index]],
        user=ENCODED.user[users[ENCODED.log_index]],
        alone=ENCODED.alone[users[ENCODED.log_index]],
        columns={name: column[users[ENCODED.log_index]] for name, column in ENCODED.columns.items()},
    )
    np.testing.assert_allclose(predict(users, WHOLE, alone)[users], everything[id(WHOLE)][users], **CLOSE)


def test_no_prediction_reads_a_label_or_a_later_action(predict, everything):
    last = [np.flatnonzero(LOG.user == user)[-1] for user in range(7)]
    labels = np.where(np.isnan(LOG.labels), 1, 1 - LOG.labels)
    actions = LOG.actions.copy()
    actions[last] = 1 - np.nan_to_num(actions[last])
    # The counters of other users may see an item's action, so the log's own are kept.
    changed = ENCODER.encode(dataclasses.replace(LOG, labels=labels, actions=actions))
    changed.columns["context"][:] = ENCODED.columns["context"]
    np.testing.assert_array_equal(predict(EVERYTHING, WHOLE, changed), everything[id(WHOLE)])


def test_metrics_are_those_of_the_periods_events(everything):
    probabilities = everything[id(WHOLE)]
    for period in PERIODS.values():
        chosen = LOG.period == period
        metrics = metrics_of(make_tasks(ENCODER.tasks), LOG, probabilities, chosen)
        assert list(metrics) == ["click", "like"]
        assert metrics["like"] == task_metrics(LOG.labels[chosen, 1], probabilities[chosen, 1], LOG.user[chosen])
    assert metrics["like"]["events"] < metrics["click"]["events"] == chosen.sum()


def test_tasks_without_enough_of_both_classes_have_no_part_in_the_mean():
    def task(ne, positives=100):
        return {"ne": ne, "positives": positives, "events": 200}

    assert mean_of({"a": task(0.5), "b": task(None), "c": task(0.7)}, "ne") == pytest.approx(0.6)
    assert mean_of({"a": task(0.5), "b": task(9.0, 19), "c": task(9.0, 181)}, "ne") == pytest.approx(0.5)
    assert mean_of({"a": task(0.5, 3), "b": task(0.7, 199)}, "ne") == pytest.approx(0.6)  # better than nothing
    assert mean_of({"a": task(None)}, "ne") is None


def test_the_file_of_predictions_names_each_predicted_event_and_nothing_else(tmp_path, predict):
    wanted = LOG.period == TEST
    probabilities = predict(wanted, SMALL)
    write_predictions(tmp_path / "predictions.parquet", make_tasks(ENCODER.tasks), LOG, probabilities)
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.parquet"]
    table = pl.read_parquet(tmp_path / "predictions.parquet")
    assert table["row"].to_list() == np.flatnonzero(wanted).tolist()
    assert table["user"].to_list() == [f"u{user:04d}" for user in LOG.user[wanted]]
    assert table["item"].to_list() == [f"i{item:02d}" for item in LOG.item[wanted]]
    assert table["time_ms"].to_list() == LOG.time_ms[wanted].tolist()
    assert set(table["period"]) == {TEST}
    for k, task in enumerate(LOG.task_names):
        np.testing.assert_array_equal(table[f"label_{task}"].to_numpy(), LOG.labels[wanted, k])
        np.testing.assert_array_equal(table[f"probability_{task}"].to_numpy(), probabilities[wanted, k])


def test_scoring_beyond_the_training_span_says_once_that_the_model_extrapolates():
    rotary = small_rotary("time_order")
    config = TrainConfig(model=small_config(rotary), inputs=INPUTS, batches=SMALL)
    session = make_session(ENCODER, config)
    params = session.model.initial_state().params
    elapsed = ENCODED.columns["elapsed_seconds"] + 60 * 86_400
    later = dataclasses.replace(ENCODED, columns=ENCODED.columns | {"elapsed_seconds": elapsed})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for encoded in (ENCODED, later, later):
            session.predict(params, encoded, LOG.period == TEST)
    (message,) = [str(warning.message) for warning in caught if "extrapolates" in str(warning.message)]
    assert f"training had {ENCODER.span_days} days and nothing extends them" in message
