"""Intervals of metrics over users, and calibration: equal to naive float64 references."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from siren_rope_jax.data.outcome_scale import OutcomeScale
from siren_rope_jax.report.curves import calibration
from siren_rope_jax.report.intervals import SUMMANDS, differences, intervals, summands
from siren_rope_jax.train.metrics import paired_bootstrap, resampled_totals
from siren_rope_jax.train.tasks import TASKS, BinaryTask, ContinuousTask, Evaluated

BINARY = BinaryTask(OutcomeScale("like"))
NUMBER = ContinuousTask(OutcomeScale("dwell", "continuous", "log1p", mean=4.0, centre=1.0, std=0.7))


def events_of(task, *, seed=0, users=40, weighted=False):
    """Outcomes, a tenth of them unobserved, and predictions that know something of them; ties among both."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), rng.integers(2, 30, users))
    truth = rng.normal(size=len(user)) + rng.normal(size=users)[user]
    if task is BINARY:
        labels, predictions = rng.random(len(user)) < 1 / (1 + np.exp(-truth)), 1 / (1 + np.exp(-np.round(truth, 1)))
    else:
        labels, predictions = np.exp(truth) + rng.exponential(1, len(user)), np.exp(np.round(truth, 1)) + 1
    labels = np.where(rng.random(len(user)) < 0.1, np.nan, labels).astype(np.float32)
    weight = rng.integers(0, 4, len(user)).astype(np.float32) if weighted else None
    return Evaluated(labels, predictions.astype(np.float32), user, weight)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("task", [BINARY, NUMBER], ids=["binary", "continuous"])
def test_a_metric_with_an_interval_has_the_value_that_evaluation_reports(task, weighted):
    events = events_of(task, weighted=weighted)
    found, measured = intervals(task, events), task.measure(events)
    assert set(task.shown) & set(found) >= ({"ne", "auc", "log_loss"} if task is BINARY else {"rmse", "mae", "r2"})
    for name, (value, low, high) in found.items():
        assert value == pytest.approx(measured[name], rel=1e-6), name
        assert low < value < high


def test_every_kind_of_task_has_summands_for_the_metric_that_compares_tasks():
    for kind in TASKS.values():
        task = BINARY if kind is BinaryTask else NUMBER
        assert kind in SUMMANDS
        assert kind.compared in summands(task, events_of(task)).metrics


def resamples(events, samples=1000, seed=0):
    """Each resample's events, user by user, drawn as `resampled_totals` draws."""
    of_users = [np.flatnonzero(events.user == user) for user in np.unique(events.user)]
    for drawn in np.random.default_rng(seed).integers(len(of_users), size=(samples, len(of_users))):
        yield np.concatenate([of_users[user] for user in drawn])


def naive_ne(labels, predictions):
    rate = labels.mean()
    log_loss = -(labels * np.log(predictions) + (1 - labels) * np.log(1 - predictions)).mean()
    return log_loss / -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))


@pytest.mark.parametrize(
    ("name", "metric", "share"), [("ne", naive_ne, 1e-6), ("auc", roc_auc_score, 0.1)], ids=["NE", "AUC"]
)
def test_an_interval_is_that_of_metrics_computed_anew_on_resampled_users(name, metric, share):
    """To a share of its length: the AUC's is of first order."""
    events = events_of(BINARY, users=60)
    seen = np.flatnonzero(~np.isnan(events.labels))
    labels, predictions = (x[seen].astype(np.float64) for x in (events.labels, events.predictions))
    values = [metric(labels[i], predictions[i]) for i in resamples(events._replace(user=events.user[seen]))]
    low, high = np.quantile(values, (0.025, 0.975))
    np.testing.assert_allclose(intervals(BINARY, events)[name][1:], (low, high), atol=share * (high - low))


@pytest.mark.parametrize("task", [BINARY, NUMBER], ids=["binary", "continuous"])
def test_a_difference_is_paired_and_that_of_a_model_from_itself_is_zero(task):
    events = events_of(task)
    worse = events._replace(predictions=events.predictions * 0.9)
    ours, theirs = intervals(task, events), intervals(task, worse)
    for name, (value, low, high) in differences(task, events, worse).items():
        assert value == pytest.approx(ours[name].value - theirs[name].value, abs=1e-9)
        assert high - low <= ours[name].high - ours[name].low + theirs[name].high - theirs[name].low
    for interval in differences(task, events, events).values():
        assert tuple(interval) == pytest.approx((0, 0, 0), abs=1e-12)


def test_outcomes_that_are_all_alike_or_all_unobserved_have_no_interval():
    events = events_of(BINARY)
    alike = intervals(BINARY, events._replace(labels=np.ones_like(events.labels)))
    assert np.isnan(alike["ne"]).all()
    assert np.isnan(alike["auc"]).all()
    assert intervals(BINARY, events._replace(labels=np.full_like(events.labels, np.nan))) == {}


def test_resampled_totals_are_those_of_the_bootstrap():
    events = events_of(BINARY, users=9)
    column = np.nan_to_num(events.labels)[:, None].astype(np.float64)
    actual, resampled = resampled_totals(events.user, column)
    value, low, high = paired_bootstrap(events.user, column, lambda totals: totals[..., 0])
    assert (actual[0], *np.quantile(resampled, (0.025, 0.975))) == (value, low, high)
    naive = [column[index].sum() for index in resamples(events)]
    np.testing.assert_allclose(resampled[:, 0], naive)


def naive_calibration(events, edges):
    """Mean prediction and outcome between edges, event by event."""
    bins = [[] for _ in range(len(edges) + 1)]
    weight = np.ones(len(events.labels)) if events.weight is None else events.weight
    for label, prediction, w in zip(events.labels, events.predictions, weight, strict=True):
        if not np.isnan(label) and w:
            bins[sum(prediction > edge for edge in edges)].append((w, w * prediction, w * label))
    sums = np.array([np.sum(one, axis=0, dtype=np.float64) for one in bins if one])
    return sums[:, 1] / sums[:, 0], sums[:, 2] / sums[:, 0]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("task", [BINARY, NUMBER], ids=["binary", "continuous"])
def test_calibration_has_the_means_of_bins_of_equally_many_events(task, weighted):
    events = events_of(task, weighted=weighted, users=60)
    found = calibration(events, bins=5)
    counts = ~np.isnan(events.labels) & (True if events.weight is None else events.weight > 0)
    edges = np.unique(np.quantile(events.predictions[counts], [0.2, 0.4, 0.6, 0.8]))
    predicted, observed = naive_calibration(events, edges)
    np.testing.assert_allclose(found.predicted, predicted, rtol=1e-6)
    np.testing.assert_allclose(found.observed, observed, rtol=1e-6)
    assert (np.diff(found.predicted) > 0).all()
    assert ((found.low <= found.observed) & (found.observed <= found.high)).all()


def test_equal_predictions_share_a_bin_and_no_outcome_has_none():
    events = events_of(BINARY)
    assert len(calibration(events._replace(predictions=np.full_like(events.predictions, 0.4))).predicted) == 1
    assert calibration(events._replace(labels=np.full_like(events.labels, np.nan))) is None
