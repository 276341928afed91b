"""The loss against NumPy, what unobserved labels must not do, and the optimizer's schedule and decay."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from small_logs import SPEC, small_config, small_rotary

from siren_rope_jax.nn.recommender import GenerativeRecommender
from siren_rope_jax.train.loss import multitask_loss
from siren_rope_jax.train.optimizer import OptimizerConfig, make_optimizer, make_schedule, moving_average

compiled = jax.jit(jax.value_and_grad(multitask_loss, has_aux=True))


def naive_loss(logits, labels, weights):
    """The definition, label by label."""
    per_task = []
    for task in range(len(weights)):
        losses = []
        for logit, label in zip(logits[..., task].ravel().tolist(), labels[..., task].ravel().tolist(), strict=True):
            if not math.isnan(label):
                probability = 1 / (1 + math.exp(-logit))
                losses.append(-math.log(probability if label else 1 - probability))
        per_task.append(sum(losses) / len(losses) if losses else 0.0)
    return sum(weight * loss for weight, loss in zip(weights, per_task, strict=True)), per_task


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    observed=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    weights=st.lists(st.floats(0, 10, width=32), min_size=3, max_size=3),
)
def test_loss_equals_the_mean_cross_entropy_of_the_observed_labels_weighted_by_task(seed, observed, weights):
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=4, size=(2, 5, 3)).astype(np.float32)
    labels = np.where(rng.random(logits.shape) < observed, rng.integers(0, 2, logits.shape), np.nan)
    (loss, per_task), gradient = compiled(jnp.asarray(logits), jnp.asarray(labels, jnp.float32), jnp.array(weights))
    expected, expected_per_task = naive_loss(logits, labels, weights)
    np.testing.assert_allclose(loss, expected, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(per_task, expected_per_task, rtol=2e-5, atol=1e-6)
    assert loss >= 0
    assert np.all(np.isfinite(gradient))
    assert np.all(np.asarray(gradient)[np.isnan(labels)] == 0)


@pytest.mark.slow
def test_an_unobserved_label_is_not_a_negative():
    logits = jnp.array([[2.0], [3.0]])
    missing, absent = (
        multitask_loss(x, y, jnp.ones(1))[0]
        for x, y in ((logits, jnp.array([[1.0], [jnp.nan]])), (logits[:1], jnp.array([[1.0]])))
    )
    assert missing == absent


def test_the_gradient_of_each_observed_label_is_probability_minus_label_over_their_number():
    logits, labels = jnp.array([[0.0], [2.0], [5.0]]), jnp.array([[1.0], [0.0], [jnp.nan]])
    _, gradient = compiled(logits, labels, jnp.array([3.0]))
    expected = 3 * (jax.nn.sigmoid(logits) - labels) / 2
    np.testing.assert_allclose(gradient[:2], expected[:2], rtol=1e-5)


@pytest.mark.slow
def test_a_label_of_a_quarter_costs_as_one_positive_and_three_negatives_do():
    logits = jnp.array([[-0.7], [1.3]])
    fractional, _ = multitask_loss(logits, jnp.array([[0.25], [jnp.nan]]), jnp.ones(1))
    four, _ = multitask_loss(jnp.repeat(logits[:1], 4, 0), jnp.array([[1.0], [0.0], [0.0], [0.0]]), jnp.ones(1))
    np.testing.assert_allclose(fractional, four, rtol=1e-6)


def test_very_wrong_predictions_cost_their_logit_and_no_more():
    (loss, _), gradient = compiled(jnp.array([[500.0], [-500.0]]), jnp.array([[0.0], [1.0]]), jnp.ones(1))
    np.testing.assert_allclose(loss, 500.0)
    np.testing.assert_allclose(gradient, [[0.5], [-0.5]])


def schedule_of(steps: int, **changes):
    schedule = make_schedule(OptimizerConfig(**({"learning_rate": 0.1, "warmup": 0.1} | changes)), steps)
    return np.array([float(schedule(step)) for step in range(steps + 1)])


def test_the_learning_rate_rises_to_its_peak_at_the_end_of_the_warmup():
    rates = schedule_of(100)
    np.testing.assert_allclose(rates[:11], np.linspace(0, 0.1, 11), rtol=1e-5)
    assert rates.argmax() == 10


@pytest.mark.parametrize("final", [0.0, 0.2])
def test_the_learning_rate_falls_as_a_cosine_and_ends_at_its_final_fraction(final):
    rates = schedule_of(100, final=final)[10:]
    cosine = (1 + np.cos(np.pi * np.arange(91) / 90)) / 2
    np.testing.assert_allclose(rates, 0.1 * (final + (1 - final) * cosine), rtol=1e-4, atol=1e-8)


def test_without_warmup_the_first_step_takes_the_peak():
    assert schedule_of(100, warmup=0.0)[0] == np.float32(0.1)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_shortest_runs_have_finite_positive_learning_rates(steps):
    rates = schedule_of(steps, warmup=0.05)[:steps]
    assert np.all(np.isfinite(rates) & (rates > 0))


def updates(params, gradient, **changes):
    config = OptimizerConfig(**({"learning_rate": 0.1, "warmup": 0.0} | changes))
    optimizer = make_optimizer(config, 100)
    update, _ = optimizer.update(gradient, optimizer.init(params), params)
    return jax.tree.map(np.asarray, update)


@pytest.mark.slow
def test_weight_decay_shrinks_matrices_and_leaves_vectors_and_scalars_alone():
    params = {"kernel": jnp.full((2, 3), 2.0), "bias": jnp.full(3, 2.0), "gate": jnp.array(2.0)}
    gradient = jax.tree.map(jnp.zeros_like, params)
    update = updates(params, gradient, weight_decay=0.5)
    np.testing.assert_allclose(update["kernel"], -0.1 * 0.5 * 2.0, rtol=1e-6)
    assert np.all(update["bias"] == 0)
    assert update["gate"] == 0


@pytest.mark.slow
def test_angle_network_id_tables_and_context_skip_learn_at_rates_of_their_own_and_all_else_at_the_whole_one():
    config = small_config(small_rotary("siren", separate_action_network=True))
    model = nnx.eval_shape(lambda: GenerativeRecommender(config, SPEC, (0.0,), key=jax.random.key(0)))
    ones = jax.tree.map(lambda x: np.ones(x.shape, np.float32), nnx.state(model))
    own = {"angle_rate": 0.5, "table_rate": 0.25, "context_rate": 3e-3}
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-3, warmup=0.0, weight_decay=0.0, **own), 100)
    steps, _ = jax.jit(lambda params: optimizer.update(params, optimizer.init(params), params))(ones)
    rates = {}
    for path, step in jax.tree_util.tree_leaves_with_path(steps):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        parts = ("networks", "omega0_factors", "tables", "context")
        part = next((part for part in parts if part in name.split("/")), "all else")
        rates.setdefault(part, []).append(np.ravel(step) / -1e-3)
    expected = {"networks": 0.5, "omega0_factors": 0.5, "tables": 0.25, "context": 3.0, "all else": 1.0}
    assert rates.keys() == expected.keys()
    for part, rate in expected.items():
        np.testing.assert_allclose(np.concatenate(rates[part]), rate, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [1e-6, 1e-3, 0.1])
def test_the_context_skip_learns_at_the_same_rate_whatever_that_of_the_rest(rate):
    params = {"context": jnp.zeros((2, 2)), "head": jnp.zeros((2, 2))}
    steps = updates(params, jax.tree.map(jnp.ones_like, params), learning_rate=rate)
    np.testing.assert_allclose(steps["context"], -1e-3, rtol=1e-5)
    np.testing.assert_allclose(steps["head"], -rate, rtol=1e-5)


@pytest.mark.parametrize("decay", [0.5, 0.9])
def test_the_average_follows_the_parameters_and_forgets_faster_while_it_is_young(decay):
    average, expected = {"head": jnp.ones((2, 2))}, np.ones((2, 2))
    for step in range(20):
        params = {"head": np.full((2, 2), 1 - 0.1 * step)}
        average = moving_average(average, jax.tree.map(jnp.float32, params), jnp.int32(step), decay)
        kept = min(decay, (step + 1) / (step + 10))
        expected = kept * expected + (1 - kept) * params["head"]
    np.testing.assert_allclose(average["head"], expected, rtol=1e-5)
    assert not np.allclose(params["head"], expected)


@pytest.mark.slow
def test_a_gradient_beyond_the_bound_acts_like_one_at_the_bound():
    params = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}
    config = OptimizerConfig(clip_norm=1.0, learning_rate=0.1, warmup=0.0)
    optimizer = make_optimizer(config, 100)
    huge = jax.tree.map(lambda x: 1e6 * x, params)
    _, state = optimizer.update(huge, optimizer.init(params), params)
    moments = jax.tree.leaves(optax.tree.get(state, "mu"))
    assert float(optax.tree.norm(moments)) == pytest.approx((1 - config.b1) * 1.0, rel=1e-5)


def test_a_gradient_within_the_bound_is_taken_as_it_is():
    params = {"bias": jnp.zeros(4)}
    gradient = {"bias": jnp.array([0.1, -0.2, 0.3, 0.0])}
    config = OptimizerConfig(clip_norm=1.0, learning_rate=0.1, warmup=0.0)
    optimizer = make_optimizer(config, 100)
    _, state = optimizer.update(gradient, optimizer.init(params), params)
    np.testing.assert_allclose(
        optax.tree.get(state, "mu")["bias"], (1 - config.b1) * gradient["bias"], rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"learning_rate": 0.0}, r"learning_rate must lie in \(0, inf\), but is 0.0"),
        ({"learning_rate": math.inf}, r"learning_rate must lie in \(0, inf\), but is inf"),
        ({"learning_rate": math.nan}, r"learning_rate must lie in \(0, inf\), but is nan"),
        ({"warmup": 1.0}, r"warmup must lie in \[0, 1\), but is 1.0"),
        ({"warmup": -0.1}, r"warmup must lie in \[0, 1\), but is -0.1"),
    ],
)
def test_a_schedule_that_cannot_work_is_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        OptimizerConfig(**changes)
