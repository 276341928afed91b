"""Kinds of tasks against naive float64: loss, gradient, link, metrics, and the choice of the best checkpoint."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from one_sentence import raises_one_sentence

from siren_rope_jax.data.outcome_scale import OutcomeScale, fit_scale
from siren_rope_jax.data.signals import SIGNALS
from siren_rope_jax.train.baseline_kinds import MODELS
from siren_rope_jax.train.criterion import Criterion, Judged, choose_criterion, mean_of
from siren_rope_jax.train.loss import multitask_loss
from siren_rope_jax.train.metrics import regression_metrics
from siren_rope_jax.train.retention import best_step
from siren_rope_jax.train.tasks import TASKS, Evaluated, kind_of, linked, losses_of, make_tasks, restored

SCALES = (
    OutcomeScale("like", mean=0.2),
    OutcomeScale("dwell", "continuous", "log1p", mean=40.0, centre=3.0, std=1.5),
    OutcomeScale("share", "continuous", mean=0.4, centre=0.4, std=0.2),
)
MIXED = make_tasks(SCALES)
NUMBERS = [False, True, True]
WEIGHTS = jnp.array([1.0, 2.0, 0.5])


def loss(outputs, targets):
    return multitask_loss(outputs, targets, WEIGHTS, lambda x, y: losses_of(MIXED, x, y))


compiled = jax.jit(jax.value_and_grad(loss, has_aux=True))


def drawn(seed, rows=4, slots=6, unobserved=0.3):
    rng = np.random.default_rng(seed)
    outputs = rng.normal(0, 2, (rows, slots, 3)).astype(np.float32)
    targets = np.where(NUMBERS, rng.normal(0, 2, outputs.shape), rng.random(outputs.shape) < 0.5).astype(np.float32)
    targets[rng.random(outputs.shape) < unobserved] = np.nan
    return outputs, targets


def naive_loss(outputs, targets):
    """Mean loss of each task, and the gradient of their weighted sum, one number after the other in float64."""
    per_task, gradient = [], np.zeros(outputs.shape)
    for task, number in enumerate(NUMBERS):
        places = [place for place in np.ndindex(outputs.shape[:2]) if not np.isnan(targets[place][task])]
        total = 0.0
        for place in places:
            x, y = float(outputs[place][task]), float(targets[place][task])
            if number:
                error = x - y
                total += error**2 / 2 if abs(error) <= 1 else abs(error) - 1 / 2
                slope = np.clip(error, -1, 1)
            else:
                p = 1 / (1 + np.exp(-x))
                total -= y * np.log(p) + (1 - y) * np.log(1 - p)
                slope = p - y
            gradient[(*place, task)] = float(WEIGHTS[task]) * slope / len(places)
        per_task.append(total / max(len(places), 1))
    return np.array(per_task), gradient


@pytest.mark.slow
@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), unobserved=st.sampled_from([0.0, 0.3, 0.9, 1.0]))
def test_losses_and_gradients_of_mixed_tasks_are_those_of_their_definition(seed, unobserved):
    outputs, targets = drawn(seed, unobserved=unobserved)
    (total, per_task), gradient = compiled(outputs, targets)
    expected, expected_gradient = naive_loss(outputs, targets)
    np.testing.assert_allclose(per_task, expected, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(total, np.asarray(WEIGHTS, np.float64) @ expected, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=2e-5, atol=1e-6)


@pytest.mark.slow
@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), other=st.sampled_from([0.0, -30.0, 1e4]))
def test_an_unobserved_label_moves_neither_loss_nor_gradient(seed, other):
    outputs, targets = drawn(seed)
    changed = np.where(np.isnan(targets), np.float32(other), outputs)
    (total, per_task), gradient = compiled(outputs, targets)
    (other_total, other_per_task), other_gradient = compiled(changed, targets)
    assert total == other_total
    np.testing.assert_array_equal(per_task, other_per_task)
    np.testing.assert_array_equal(gradient, other_gradient)
    assert np.all(gradient[np.isnan(targets)] == 0)


@pytest.mark.parametrize("task", range(3))
def test_a_nan_among_the_outputs_stays_visible_in_its_task(task):
    outputs, targets = drawn(0, unobserved=0.0)
    outputs[1, 2, task] = np.nan
    (_, per_task), _ = compiled(outputs, targets)
    assert np.isnan(per_task).tolist() == [k == task for k in range(3)]


def test_binary_tasks_alone_are_computed_as_if_no_other_kind_existed():
    outputs, targets = drawn(1)
    targets[..., 1:] = targets[..., :1]
    binary = make_tasks([OutcomeScale(name) for name in "abc"])
    compiled_alone = jax.jit(lambda x, y: multitask_loss(x, y, WEIGHTS, lambda x, y: losses_of(binary, x, y)))
    plain = jax.jit(lambda x, y: multitask_loss(x, y, WEIGHTS))
    assert compiled_alone.lower(outputs, targets).as_text() == plain.lower(outputs, targets).as_text()
    np.testing.assert_array_equal(linked(binary, jnp.asarray(outputs)), jax.nn.sigmoid(outputs))


def test_a_task_starts_at_its_base_rate_or_mean():
    assert 1 / (1 + np.exp(-MIXED[0].start)) == pytest.approx(0.2)
    assert [task.start for task in MIXED[1:]] == [0.0, 0.0]
    rare, sure = make_tasks([OutcomeScale("rare", mean=0.0), OutcomeScale("sure", mean=1.0)])
    assert rare.start == pytest.approx(-sure.start) == pytest.approx(np.log(1e-4 / (1 - 1e-4)))
    predictions = restored(MIXED, np.asarray(linked(MIXED, jnp.array([[task.start for task in MIXED]]))))
    np.testing.assert_allclose(predictions, [[0.2, np.expm1(3.0), 0.4]], rtol=1e-6)


def test_predictions_are_probabilities_and_numbers_on_the_scale_of_the_log():
    outputs = np.array([[0.5, 0.5, -1.0], [-9.0, -9.0, 4.0]], np.float32)
    predictions = restored(MIXED, np.asarray(linked(MIXED, jnp.asarray(outputs))))
    expected = [[1 / (1 + np.exp(-0.5)), np.expm1(3.75), 0.2], [1 / (1 + np.exp(9.0)), 0.0, 1.2]]  # never below 0
    np.testing.assert_allclose(predictions, expected, rtol=1e-5)
    assert [task.column for task in MIXED] == ["probability_like", "predicted_dwell", "predicted_share"]


@settings(max_examples=50)
@given(
    values=st.lists(st.floats(0, 1e6, width=32), min_size=2, max_size=30),
    transform=st.sampled_from(["none", "log1p"]),
)
def test_a_number_is_standardised_by_training_and_restored(values, transform):
    values = np.array(values, np.float32)
    with_missing = np.append(values, np.float32(np.nan))
    scale = fit_scale("dwell", "continuous", transform, with_missing, np.ones_like(with_missing))
    standard = scale.standardise(with_missing)
    assert np.isnan(standard[-1])
    naive = np.log1p(values.astype(np.float64)) if transform == "log1p" else values.astype(np.float64)
    np.testing.assert_allclose(standard[:-1], (naive - naive.mean()) / (naive.std() or 1), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(scale.restore(standard)[:-1], values, rtol=1e-5, atol=1e-3 * (1 + values.max() * 1e-3))
    assert scale.mean == pytest.approx(values.mean(dtype=np.float64))


def test_a_prediction_that_diverged_is_infinite_and_one_that_is_nan_stays_so():
    restored_values = SCALES[1].restore(np.array([1e5, np.nan], np.float32))
    assert np.isposinf(restored_values[0])
    assert np.isnan(restored_values[1])


# Metrics


@st.composite
def regressions(draw):
    size = draw(st.integers(2, 40))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    labels = np.round(rng.lognormal(1, 1, size), draw(st.integers(0, 3))).astype(np.float32)  # few decimals: ties
    predictions = np.round(labels + rng.normal(0, 2, size), draw(st.integers(0, 3))).astype(np.float32)
    missing = rng.random(size) < draw(st.sampled_from([0.0, 0.4]))
    return np.where(missing, np.float32(np.nan), labels), predictions


@pytest.mark.slow
@settings(max_examples=100)
@given(case=regressions(), training_mean=st.floats(0, 10))
def test_metrics_of_numbers_are_those_of_sklearn_and_scipy(case, training_mean):
    labels, predictions = case
    seen = ~np.isnan(labels)
    found = regression_metrics(labels, predictions, training_mean=training_mean)
    label, predicted = labels[seen].astype(np.float64), predictions[seen].astype(np.float64)
    assert found["events"] == seen.sum()
    if not seen.any():
        assert {value for name, value in found.items() if name != "events"} == {None}
        return
    base = np.full_like(label, training_mean)
    for name, guess in (("", predicted), ("base_", base)):
        assert found[f"{name}rmse"] == pytest.approx(sklearn.metrics.root_mean_squared_error(label, guess))
        assert found[f"{name}mae"] == pytest.approx(sklearn.metrics.mean_absolute_error(label, guess))
    if len(np.unique(label)) == 1:
        assert found["r2"] is found["spearman"] is None
        return
    assert found["relative_rmse"] == pytest.approx(found["rmse"] / found["base_rmse"])
    assert found["r2"] == pytest.approx(sklearn.metrics.r2_score(label, predicted))
    if len(np.unique(predicted)) > 1:
        expected: Any = scipy.stats.spearmanr(label, predicted)
        assert found["spearman"] == pytest.approx(expected.statistic, abs=1e-9)
    else:
        assert found["spearman"] is None


@pytest.mark.parametrize(
    ("labels", "predictions", "undefined"),
    [
        ([3.0], [2.0], {"r2", "spearman"}),
        ([3.0, 3.0], [2.0, 4.0], {"r2", "spearman"}),
        ([3.0, 4.0], [2.0, 2.0], {"spearman"}),
        ([5.0, 5.0], [5.0, 5.0], {"r2", "spearman", "relative_rmse"}),
        ([np.nan], [2.0], {"rmse", "mae", "r2", "spearman", "relative_rmse", "base_rmse", "base_mae"}),
    ],
    ids=["one event", "equal labels", "equal predictions", "the training mean itself", "nothing observed"],
)
def test_what_is_not_defined_is_none(labels, predictions, undefined):
    found = regression_metrics(np.array(labels, np.float32), np.array(predictions, np.float32), training_mean=5.0)
    assert {name for name, value in found.items() if value is None} == undefined
    assert all(np.isfinite(value) for value in found.values() if value is not None)


def test_predicting_the_training_mean_has_a_relative_rmse_of_1_and_no_r2_above_0():
    labels = np.random.default_rng(0).lognormal(size=500).astype(np.float32)
    found = regression_metrics(labels, np.full(500, 1.5, np.float32), training_mean=1.5)
    assert found["relative_rmse"] == pytest.approx(1)
    assert found["r2"] <= 0


def test_metrics_tell_their_kind_of_task():
    ones = np.ones(2, np.float32)
    found = [task.measure(Evaluated(ones, ones, np.arange(2), ones, np.zeros(2))) for task in MIXED]
    assert [kind_of(metrics) for metrics in found] == [type(task) for task in MIXED]
    for task, metrics in zip(MIXED, found, strict=True):
        assert {*task.metrics, *task.shown, *task.headline, *task.of_seeds, task.compared} <= {*metrics}


def test_every_kind_of_outcome_has_a_kind_of_task_and_baselines():
    assert SIGNALS.keys() == TASKS.keys() == MODELS.keys()


# The best checkpoint


def test_by_default_the_mean_ne_of_the_binary_tasks_decides():
    criterion = choose_criterion(None, MIXED)
    assert criterion == Criterion("mean_ne", maximise=False)
    metrics = {
        "like": {"ne": 0.8, "positives": 50, "events": 100},
        "click": {"ne": 0.6, "positives": 50, "events": 100},
        "dwell": {"relative_rmse": 0.1, "events": 100},
    }
    assert criterion.judge(metrics) == Judged("mean_ne", pytest.approx(0.7), maximise=False)
    assert criterion.title == "mean NE"


def test_without_binary_tasks_the_mean_relative_rmse_decides():
    criterion = choose_criterion(None, MIXED[1:])
    assert criterion == Criterion("mean_relative_rmse", maximise=False)
    metrics = {name: {"relative_rmse": value, "events": 50} for name, value in (("dwell", 0.9), ("share", 0.5))}
    judged = criterion.judge(metrics)
    assert judged is not None
    assert judged.value == pytest.approx(0.7)
    assert criterion.judge({"dwell": {"relative_rmse": None, "events": 0}}) is None
    few = metrics | {"share": {"relative_rmse": 9.0, "events": 3}}
    assert mean_of(few, "relative_rmse") == 0.9


@pytest.mark.parametrize(
    ("name", "maximise"), [("like.auc", True), ("like.ne", False), ("dwell.rmse", False), ("dwell.spearman", True)]
)
def test_the_metric_of_one_task_decides_in_its_own_direction(name, maximise):
    criterion = choose_criterion(name, MIXED)
    assert criterion.maximise is maximise
    task, metric = name.split(".")
    judged = [criterion.judge({task: {metric: value}}) for value in (0.3, 0.5, None)]
    assert judged[2] is None
    costs = {step: None if one is None else one.cost for step, one in enumerate(judged)}
    assert best_step(costs) == (1 if maximise else 0)


@pytest.mark.parametrize("name", ["like.rmse", "dwell.base_rmse", "dwell.events", "likes.auc", "auc", "mean_auc"])
def test_what_no_task_has_is_refused_with_what_there_is(name):
    there_is = ("mean_ne, mean_relative_rmse or TASK.METRIC", "auc, gauc, ece, log_loss of like", "spearman")
    with raises_one_sentence(f'but is "{name}"', *there_is, "of dwell, share"):
        choose_criterion(name, MIXED)
