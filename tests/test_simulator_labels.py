"""The simulated labels are calibrated to their probabilities; the oracle is the best the past allows."""

import math

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from siren_rope_jax.data.simulator import SimulatedFeed, SimulatorConfig, simulate
from siren_rope_jax.data.simulator_kernels import KERNELS, KernelName
from siren_rope_jax.data.simulator_labels import TASKS, bayes_probabilities, kernel_features

DAY = 86_400
MONDAY = 1_704_067_200

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def feed() -> SimulatedFeed:
    return simulate(SimulatorConfig(users=3_000, seed=7))


@pytest.fixture(scope="module")
def small() -> SimulatedFeed:
    return simulate(SimulatorConfig(users=300, seed=3))


def entropy(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    return cross_entropy(probability, probability)


def cross_entropy(target: NDArray[np.float64], probability: NDArray[np.float64]) -> NDArray[np.float64]:
    return -(target * np.log(probability) + (1 - target) * np.log1p(-probability))


def probabilities(feed: SimulatedFeed, kind: str) -> NDArray[np.float64]:
    return feed.truth.select(f"p_{kind}_{task}" for task in TASKS).to_numpy()


@pytest.mark.parametrize("kind", ["full", "bayes"])
def test_labels_are_calibrated_to_the_probabilities(feed: SimulatedFeed, kind: str) -> None:
    for k, task in enumerate(TASKS):
        probability, label = probabilities(feed, kind)[:, k], feed.events[task].to_numpy()
        for rows in np.array_split(np.argsort(probability), 10):
            p = probability[rows]
            assert abs((label[rows] - p).sum()) < 3.5 * math.sqrt((p * (1 - p)).sum()), task


def test_label_rates_match_the_specification(feed: SimulatedFeed) -> None:
    rates = feed.events.select(pl.col(*TASKS).cast(pl.Float64).mean()).row(0)
    np.testing.assert_allclose(rates, [0.1215, 0.0522, 0.2951], atol=0.006)


def test_oracle_is_as_good_as_the_specification_says(feed: SimulatedFeed) -> None:
    bayes, labels = probabilities(feed, "bayes"), feed.events.select(TASKS).to_numpy()
    normalized = entropy(bayes).mean(0) / entropy(labels.mean(0))
    np.testing.assert_allclose(normalized, [0.7918, 0.7461, 0.8138], atol=0.02)
    auc = [roc_auc_score(labels[:, k], bayes[:, k]) for k in range(3)]
    np.testing.assert_allclose(auc, [0.7785, 0.8041, 0.7773], atol=0.012)


def test_knowing_the_affinity_is_worth_something_beyond_the_oracle(feed: SimulatedFeed) -> None:
    assert (entropy(probabilities(feed, "full")).mean(0) < entropy(probabilities(feed, "bayes")).mean(0)).all()


def test_oracle_of_the_events_alone_equals_the_truth_table(small: SimulatedFeed) -> None:
    np.testing.assert_allclose(bayes_probabilities(small.events), probabilities(small, "bayes"), rtol=0, atol=1e-12)


@pytest.mark.parametrize("position", [0, 1, 20, 45])
@pytest.mark.parametrize("function", [kernel_features, bayes_probabilities])
def test_labels_from_now_on_do_not_change_the_oracle_up_to_now(small, function, position: int) -> None:
    place = pl.int_range(pl.len()).over("user_id")
    changed = small.events.with_columns(
        pl.when(place >= position).then(1 - pl.col(task)).otherwise(pl.col(task)).alias(task) for task in TASKS
    )
    past = small.events.select(place).to_series().to_numpy() <= position
    before, after = function(small.events), function(changed)
    np.testing.assert_array_equal(before[past], after[past])
    assert (before[~past] != after[~past]).any(1).mean() > 0.5


def test_appending_events_does_not_change_the_oracle_of_earlier_ones(small: SimulatedFeed) -> None:
    whole = bayes_probabilities(small.events)
    first = small.events.select(pl.int_range(pl.len()).over("user_id")).to_series().to_numpy() < 17
    np.testing.assert_array_equal(bayes_probabilities(small.events.filter(first)), whole[first])


def test_other_users_and_topics_do_not_change_the_oracle(small: SimulatedFeed) -> None:
    apart = (pl.col("user_id") % 2 == 1) | (pl.col("topic") % 2 == 1)
    changed = small.events.with_columns(
        pl.when(apart).then(1 - pl.col(task)).otherwise(pl.col(task)).alias(task) for task in TASKS
    )
    kept = ~small.events.select(apart).to_series().to_numpy()
    np.testing.assert_array_equal(bayes_probabilities(changed)[kept], bayes_probabilities(small.events)[kept])


# By task: base, off, tau, kappa, m, beta, qual, load, sigma, fmt, restated from the specification.
SPECIFICATION = {
    "like": (0.12, -0.43, 3, 2.5, 0.3, 3.6, 0.5, 1.0, (1.2, 0.8, 0.4), (0.0, 0.1, -0.1)),
    "contribution": (0.05, -0.60, 3, 2.5, 0.2, 3.6, 0.5, 0.8, (0.8, 1.4, 0.3), (0.1, 0.0, -0.1)),
    "long_dwell": (0.30, -0.15, 8, 1.0, 0.6, 2.8, 0.4, 0.6, (0.2, 0.2, 1.4), (-0.3, 0.0, 0.3)),
}


def reference(history: list[dict], kernel: str) -> tuple[list[list[float]], list[list[float]]]:
    """z and Bayes probabilities of one user's events on one topic, by the formula and a fine grid."""
    grid = np.linspace(-3.2, 3.2, 3_201)
    log_density = -0.5 * (grid / 0.4) ** 2
    kernels, probabilities = [], []
    for i, event in enumerate(history):
        curves = []
        kernels.append([reference_kernel(event, history[:i], task, kernel) for task in TASKS])
        for task, z in zip(TASKS, kernels[-1], strict=True):
            base, off, _, _, _, beta, qual, load, _, fmt = SPECIFICATION[task]
            known = math.log(base / (1 - base)) + off + fmt[event["format"]] + qual * event["quality"] + beta * z
            if kernel == "hour":
                known += 0.8 * math.cos(2 * math.pi * (event["time"] % DAY / 3_600 - 20) / 24)
            curves.append(1 / (1 + np.exp(-(known + load * grid))))
        density = np.exp(log_density - log_density.max())
        probabilities.append([(density * curve).sum() / density.sum() for curve in curves])
        for task, curve in zip(TASKS, curves, strict=True):
            log_density = log_density + np.log(curve if event[task] else 1 - curve)
    return kernels, probabilities


def reference_kernel(event: dict, past: list[dict], task: str, kernel: str) -> float:
    sigma = SPECIFICATION[task][8]
    total, normaliser = 0.0, 0.25
    for earlier in past:
        weight = reference_weight(event, earlier, task, kernel)
        total += weight * sum(s * (earlier[t] - SPECIFICATION[t][0]) for s, t in zip(sigma, TASKS, strict=True))
        normaliser += weight
    return total / normaliser


def reference_weight(event: dict, earlier: dict, task: str, kernel: str) -> float:
    _, _, tau, kappa, other_kind, _, _, _, _, _ = SPECIFICATION[task]
    days = (event["time"] - earlier["time"]) / DAY

    def wave(days: float, sharpness: float = kappa) -> float:
        return math.exp(sharpness * (math.cos(2 * math.pi * days) - 1))

    match kernel:
        case "feed":
            return math.exp(-days / tau) * wave(days) * (1 if is_weekend(event) == is_weekend(earlier) else other_kind)
        case "daily" | "weekly":
            return wave(days if kernel == "daily" else days / 7)
        case "exponential":
            return math.exp(-days / tau)
        case "power":
            return 1 / (1 + days / (1 if task == "long_dwell" else 0.25))
        case "content":
            forgotten = {0: 1, 1: 16, 2: 4, 3: 2, 4: 16, 5: 1, 6: 2, 7: 4}[event["topic"]]
            return wave(days - event["topic"] / 8, 2.5) * math.exp(-days / forgotten)
    return 0.0


def is_weekend(event: dict) -> bool:
    return (event["time"] - MONDAY) // DAY % 7 >= 5


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernel_and_oracle_equal_the_specification_computed_naively(kernel: KernelName) -> None:
    feed = simulate(SimulatorConfig(users=15, seed=8, kernel=kernel))
    events = feed.events
    kernels, bayes = kernel_features(events, kernel), bayes_probabilities(events, kernel)
    np.testing.assert_allclose(bayes, feed.truth.select(f"p_bayes_{task}" for task in TASKS), rtol=1e-12)
    grouped = events.with_row_index("row").group_by("user_id", "topic", maintain_order=True)
    for _, group in grouped:
        rows = group["row"].to_numpy()
        naive_kernels, naive_bayes = reference(group.to_dicts(), kernel)
        np.testing.assert_allclose(kernels[rows], naive_kernels, rtol=0, atol=1e-9)
        np.testing.assert_allclose(bayes[rows], naive_bayes, rtol=0, atol=1e-5)


def test_logistic_regression_on_the_true_kernel_comes_close_to_the_oracle(feed: SimulatedFeed) -> None:
    fmt = feed.events["format"].to_numpy()
    features = np.column_stack([kernel_features(feed.events), feed.events["quality"].to_numpy(), fmt == 1, fmt == 2])
    bayes = probabilities(feed, "bayes")
    fit = feed.events["user_id"].to_numpy() < 2_400
    gaps = []
    for k, task in enumerate(TASKS):
        label = feed.events[task].to_numpy()
        model = LogisticRegression(C=100.0).fit(features[fit], label[fit])
        predicted = model.predict_proba(features[~fit])[:, 1]
        oracle = bayes[~fit, k]
        excess = cross_entropy(oracle, predicted).mean() - entropy(oracle).mean()
        gaps.append(excess / entropy(oracle.mean()))
    assert max(gaps) < 0.004


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda e: e.drop("topic"), "missing: topic"),
        (lambda e: e.clear(), "at least one row"),
        (lambda e: e.reverse(), "sorted by user_id, then strictly increasing time"),
        (lambda e: pl.concat([e.head(1), e]), "sorted by user_id, then strictly increasing time"),
        (lambda e: e.with_columns(like=pl.lit(2)), "like must lie between 0 and 1, but is 2"),
        (lambda e: e.with_columns(topic=pl.lit(-1)), "topic must lie between 0 and 7, but is -1"),
        (lambda e: e.with_columns(like=pl.lit(0.5)), "like must hold an integer in every row, but has Float64"),
        (lambda e: e.with_columns(quality=pl.lit(math.nan)), "quality must hold a finite float"),
        (
            lambda e: e.with_columns(user_id=pl.lit(1), time=MONDAY + pl.int_range(pl.len())),
            "at most 64 events",
        ),
    ],
)
@pytest.mark.parametrize("function", [kernel_features, bayes_probabilities])
def test_malformed_events_are_refused_in_one_sentence(small: SimulatedFeed, function, spoil, message) -> None:
    with pytest.raises(ValueError, match=message):
        function(spoil(small.events))
