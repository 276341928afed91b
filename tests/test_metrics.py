"""Metrics against scikit-learn and naive loops, and the bootstrap's interval against theory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from siren_rope_jax.train.metrics import cross_entropy, expected_ne, paired_bootstrap, regression_metrics, task_metrics


def entropy(rate):
    return -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))


def naive_grouped_auc(label, probability, user):
    """Weighted mean of scikit-learn's AUC, one user at a time."""
    scores, weights = [], []
    for one in set(user.tolist()):
        own = user == one
        if 0 < label[own].mean() < 1:
            scores.append(roc_auc_score(label[own], probability[own]))
            weights.append(own.sum())
    return np.average(scores, weights=weights) if scores else None


def naive_ece(label, probability):
    """Fifteen slices of equal size of the sorted events; an event that two slices share is in both by its parts."""
    order, size, total = np.argsort(probability), len(label) / 15, 0.0
    for bin_ in range(15):
        parts = [max(0.0, min(i + 1, (bin_ + 1) * size) - max(i, bin_ * size)) for i in range(len(label))]
        total += abs(np.dot(parts, (label - probability)[order]))
    return total / len(label)


@st.composite
def predictions(draw):
    """Labels with gaps, probabilities with many ties and exact 0 and 1, a handful of users."""
    seed, size = draw(st.integers(0, 2**32 - 1)), draw(st.integers(2, 60))
    generator = np.random.default_rng(seed)
    labels = generator.choice([0.0, 1.0, np.nan], size=size, p=[0.6, 0.3, 0.1])
    probabilities = generator.integers(0, draw(st.integers(2, 50)), size=size) / 49
    return labels.astype(np.float32), probabilities.astype(np.float32), generator.integers(0, 5, size=size)


@pytest.mark.slow
@settings(max_examples=100)
@given(predictions())
def test_metrics_agree_with_scikit_learn_on_the_observed_events(case):
    labels, probabilities, user = case
    metrics = task_metrics(labels, probabilities, user)
    seen = ~np.isnan(labels)
    label, probability = labels[seen].astype(np.float64), probabilities[seen].astype(np.float64)
    assert (metrics["events"], metrics["positives"]) == (seen.sum(), label.sum())
    if not seen.any():
        assert metrics["log_loss"] is None
        return
    clipped = np.clip(probability, 1e-7, 1 - 1e-7)
    assert metrics["log_loss"] == pytest.approx(log_loss(label, clipped, labels=[0, 1]), rel=1e-6)
    grouped = naive_grouped_auc(label, probability, user[seen])
    assert metrics["gauc"] == (None if grouped is None else pytest.approx(grouped, abs=1e-12))
    if 0 < label.mean() < 1:
        assert metrics["auc"] == pytest.approx(roc_auc_score(label, probability))
        assert metrics["ne"] == pytest.approx(metrics["log_loss"] / entropy(label.mean()))
    else:
        assert metrics["auc"] is metrics["ne"] is None


@pytest.mark.parametrize("size", [7, 15, 1000, 1003])
def test_ece_agrees_with_a_naive_one_where_no_probabilities_tie(size):
    generator = np.random.default_rng(size)
    probabilities = generator.permutation(np.linspace(0.01, 0.99, size))
    labels = (generator.random(size) < probabilities**2).astype(np.float64)
    ece = task_metrics(labels, probabilities, np.zeros(size, np.int64))["ece"]
    assert ece == pytest.approx(naive_ece(labels, probabilities), abs=1e-12)


@pytest.mark.slow
@settings(max_examples=50)
@given(predictions(), st.lists(st.sampled_from([0, 1, 2, 3, 4]), min_size=60, max_size=60))
def test_a_label_of_k_quarters_counts_as_k_positives_and_the_rest_negatives_of_a_quarter_event(case, quarters):
    labels, probabilities, user = case
    quarters = np.array(quarters[: len(labels)])
    fractional = np.where(np.isnan(labels), np.nan, quarters / 4)
    four = np.where(np.isnan(labels)[:, None], np.nan, np.arange(4) < quarters[:, None])
    metrics = task_metrics(fractional, probabilities, user)
    repeated = task_metrics(four.ravel(), np.repeat(probabilities, 4), np.repeat(user, 4))
    assert metrics["events"] * 4 == repeated["events"]
    assert metrics["positives"] * 4 == repeated["positives"]
    for name in ("ne", "auc", "gauc", "log_loss"):
        expected = repeated[name]
        assert metrics[name] == (None if expected is None else pytest.approx(expected, abs=1e-12)), name


def test_the_calibration_error_of_fractional_labels_is_that_of_their_sums():
    probabilities = np.linspace(0.01, 0.99, 60)
    metrics = task_metrics(probabilities.copy(), probabilities, np.zeros(60, np.int64))
    assert metrics["ece"] == pytest.approx(0, abs=1e-12)
    assert metrics["positives"] == pytest.approx(30)
    shifted = task_metrics(np.clip(probabilities + 0.01, 0, 1), probabilities, np.zeros(60, np.int64))
    assert shifted["ece"] == pytest.approx(0.01)


@pytest.mark.slow
@settings(max_examples=50)
@given(predictions(), st.randoms(use_true_random=False))
def test_row_order_changes_no_metric(case, random):
    order = list(range(len(case[0])))
    random.shuffle(order)
    shuffled = task_metrics(*(column[order] for column in case))
    for name, value in task_metrics(*case).items():
        assert shuffled[name] == (None if value is None else pytest.approx(value, abs=1e-12)), name


def test_a_constant_prediction_of_the_base_rate_has_ne_one_auc_half_and_no_calibration_error():
    labels = np.tile([1.0, 0.0, 0.0, 0.0], 100)
    metrics = task_metrics(labels, np.full(400, 0.25), np.repeat(np.arange(100), 4))
    assert metrics["ne"] == pytest.approx(1)
    assert metrics["auc"] == metrics["gauc"] == 0.5
    assert metrics["ece"] == pytest.approx(0, abs=1e-12)


@pytest.mark.slow
@settings(max_examples=50)
@given(predictions(), st.lists(st.integers(0, 3), min_size=60, max_size=60))
def test_a_weight_of_w_counts_as_w_events(case, weights):
    labels, probabilities, user = case
    weight = np.array(weights[: len(labels)], np.float32)
    repeated = [np.repeat(column, weight.astype(int)) for column in case]
    for weighted, plain in (
        (task_metrics(*case, weight), task_metrics(*repeated)),
        (
            regression_metrics(3 * labels + user, probabilities, training_mean=0.7, weight=weight),
            regression_metrics(3 * repeated[0] + repeated[2], repeated[1], training_mean=0.7),
        ),
    ):
        for name in weighted.keys() - {"events", "positives"}:
            expected = plain[name]
            assert weighted[name] == (None if expected is None else pytest.approx(expected, abs=1e-9)), name
        counted = ~np.isnan(labels) & (weight > 0)
        assert weighted["events"] == counted.sum()
        assert weighted.get("positives", labels[counted].sum()) == labels[counted].sum()


@settings(max_examples=20)
@given(predictions(), st.integers(0, 99))
def test_weights_agree_with_scikit_learn_and_their_scale_does_not_matter(case, seed):
    labels, probabilities, _ = case
    weight = np.random.default_rng(seed).exponential(size=len(labels))
    seen = ~np.isnan(labels)
    metrics, scaled = task_metrics(*case, weight), task_metrics(*case, 8 * weight)
    assert {name: scaled[name] for name in metrics} == pytest.approx(metrics)
    assert regression_metrics(labels, probabilities, training_mean=0.5, weight=weight) == pytest.approx(
        regression_metrics(labels, probabilities, training_mean=0.5, weight=8 * weight)
    )
    if 0 < np.nanmean(labels) < 1:
        expected = roc_auc_score(labels[seen], probabilities[seen], sample_weight=weight[seen])
        assert metrics["auc"] == pytest.approx(expected)
        clipped = np.clip(probabilities[seen].astype(np.float64), 1e-7, 1 - 1e-7)
        assert metrics["log_loss"] == pytest.approx(
            log_loss(labels[seen], clipped, sample_weight=weight[seen]), rel=1e-6
        )


def test_a_weight_that_is_none_is_refused():
    columns = np.array([0.0, 1.0]), np.array([0.2, 0.7])
    for weight in ([-1.0, 1.0], [np.nan, 1.0], [np.inf, 1.0]):
        with pytest.raises(ValueError, match="weight must be finite and not negative"):
            task_metrics(*columns, np.zeros(2), np.array(weight))
        with pytest.raises(ValueError, match="weight must be finite and not negative"):
            regression_metrics(*columns, training_mean=0.5, weight=np.array(weight))


def test_users_may_be_named_by_strings():
    labels, probabilities = np.array([1.0, 0.0, 0.0, 1.0]), np.array([0.9, 0.1, 0.2, 0.1])
    assert task_metrics(labels, probabilities, np.array(["a", "a", "b", "b"]))["gauc"] == 0.5


def test_a_certain_and_wrong_prediction_costs_a_finite_loss():
    loss = cross_entropy(np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    np.testing.assert_allclose(loss, -np.log(1e-7), rtol=1e-6)


def test_expected_ne_is_the_mean_of_ne_over_drawn_labels():
    generator = np.random.default_rng(0)
    truth = generator.beta(1, 4, size=20_000)
    prediction = np.clip(truth * 1.3, 0, 1)
    drawn = (generator.random((20, truth.size)) < truth).astype(np.float64)
    losses = cross_entropy(drawn, np.broadcast_to(prediction, drawn.shape)).mean(axis=1)
    expected = expected_ne(truth, prediction)
    standard_error = losses.std() / np.sqrt(20)
    assert abs(losses.mean() - expected * entropy(truth.mean())) < 4 * standard_error
    assert expected_ne(truth, truth) < expected
    assert expected_ne(truth, np.full_like(truth, truth.mean())) == pytest.approx(1)


def test_bootstrap_interval_of_a_mean_matches_the_standard_error_of_user_totals():
    generator = np.random.default_rng(1)
    users, events_per_user = 800, 5
    user = np.repeat(generator.permutation(users), events_per_user)
    values = np.repeat(generator.normal(2.0, 1.0, users), events_per_user)
    columns = np.stack([values, np.ones_like(values)], axis=1)
    value, low, high = paired_bootstrap(
        user, columns, lambda totals: totals[..., 0] / totals[..., 1], samples=4000, seed=2
    )
    half_width = 1.96 * values[::events_per_user].std() / np.sqrt(users)
    assert value == pytest.approx(values.mean())
    # 4,000 resamples place each quantile within about 5 % of the half width.
    assert low == pytest.approx(value - half_width, abs=0.15 * half_width)
    assert high == pytest.approx(value + half_width, abs=0.15 * half_width)


def test_bootstrap_is_paired_so_a_constant_gap_between_systems_has_no_spread():
    generator = np.random.default_rng(3)
    loss = generator.exponential(size=500)
    columns = np.stack([loss, loss + 0.5, np.ones(500)], axis=1)
    user = generator.integers(0, 50, size=500)
    interval = paired_bootstrap(user, columns, lambda t: (t[..., 1] - t[..., 0]) / t[..., 2], samples=200)
    np.testing.assert_allclose(interval, 0.5)


def test_bootstrap_repeats_itself_for_one_seed_in_any_row_order():
    generator = np.random.default_rng(4)
    columns = generator.integers(0, 100, size=(300, 2)).astype(np.float64)
    user = generator.integers(0, 20, size=300)
    order = generator.permutation(300)

    def interval(rows, seed):
        return paired_bootstrap(
            user[rows], columns[rows], lambda totals: totals[..., 0] / totals[..., 1], samples=100, seed=seed
        )

    assert interval(np.arange(300), 0) == interval(order, 0)
    assert interval(np.arange(300), 0)[1:] != interval(np.arange(300), 1)[1:]


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -0.1, 1.1])
def test_an_impossible_probability_is_named_with_its_event(wrong):
    probabilities = np.array([0.5, wrong])
    with pytest.raises(ValueError, match=r"probabilities must lie within \[0, 1\], but is .* at event 1"):
        task_metrics(np.array([0.0, 1.0]), probabilities, np.array([0, 1]))


@pytest.mark.parametrize("label", [2.0, -0.5, np.inf])
def test_a_label_that_is_no_probability_is_refused(label):
    with pytest.raises(ValueError, match=r"labels must be within \[0, 1\] or NaN"):
        task_metrics(np.array([0.0, label]), np.array([0.1, 0.2]), np.array([0, 1]))


def test_a_base_rate_without_entropy_is_refused():
    with pytest.raises(ValueError, match=r"strictly between 0 and 1, but has 0\.0"):
        expected_ne(np.zeros(3), np.full(3, 0.5))


def test_an_infinite_summand_is_refused():
    with pytest.raises(ValueError, match="columns must be finite"):
        paired_bootstrap(np.array([0, 1]), np.array([[1.0], [np.nan]]), lambda totals: totals[..., 0])


@pytest.mark.parametrize(
    "call",
    [
        lambda: task_metrics(np.zeros(3), np.zeros(2), np.zeros(3, np.int64)),
        lambda: task_metrics(np.zeros(3), np.zeros(3), np.zeros(2, np.int64)),
        lambda: expected_ne(np.full(3, 0.5), np.full(2, 0.5)),
        lambda: paired_bootstrap(np.zeros(2, np.int64), np.zeros((3, 1)), lambda totals: totals[..., 0]),
    ],
)
def test_columns_of_different_lengths_are_refused(call):
    # A TypeError where the shapes in the signatures are checked, a ValueError otherwise.
    with pytest.raises((TypeError, ValueError)):
        call()
