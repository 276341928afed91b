"""The compiled training step: it learns, repeats itself exactly, and does the same on one device and on eight."""

import chex
import jax
import numpy as np
import optax
import pytest
from flax import nnx
from sklearn.metrics import roc_auc_score
from small_logs import compile_small, encode, small_config, small_log, small_rotary

from siren_rope_jax.data.batches import BatchConfig, batches, make_rows
from siren_rope_jax.data.periods import TEST, TRAIN
from siren_rope_jax.train.predict import predict_events
from siren_rope_jax.train.sharding import MeshConfig, make_layout
from siren_rope_jax.train.step import CompiledModel

pytestmark = pytest.mark.slow

CONFIG = BatchConfig(window=16, row_length=16, batch_size=4)
STEPS = 60
ENCODER, ENCODED = encode(small_log([16] * 16))
ROWS = make_rows(ENCODED, np.ones(len(ENCODED.user), bool), CONFIG)
LAYOUT = make_layout(MeshConfig())


def batch_of(step: int):
    batch = batches(ENCODED, ROWS, CONFIG, seed=0)[step]
    return LAYOUT.put_batch(batch, CONFIG.batch_size)


@pytest.fixture(scope="module")
def model() -> CompiledModel:
    return compile_small(ENCODER, LAYOUT)


@pytest.fixture(scope="module")
def training(model):
    """Final state and the metrics of every step."""
    state, history = model.initial_state(), []
    for step in range(STEPS):
        state, metrics = model.train_step(state, batch_of(step))
        history.append(jax.tree.map(np.asarray, metrics))
    return state, history


def test_the_loss_falls_by_a_fifth_on_a_log_that_can_be_learned(training):
    _, history = training
    losses = [metrics["loss"] for metrics in history]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


@pytest.mark.parametrize("kind", ["none", "siren"])
def test_a_label_that_depends_on_the_hour_alone_is_learned_with_any_rotation(kind):
    log = small_log([40] * 40)  # a like follows the hour
    encoder, encoded = encode(log)
    rows = make_rows(encoded, (log.period == TRAIN)[encoded.log_index], CONFIG)
    found = {}
    for told in (True, False) if kind == "none" else (True,):
        config = small_config(small_rotary(kind), head_calendar=told)
        model = compile_small(encoder, LAYOUT, config=config)
        state = model.initial_state()
        for batch in batches(encoded, rows, CONFIG, seed=0)[:150]:
            state, _ = model.train_step(state, LAYOUT.put_batch(batch, CONFIG.batch_size))
        wanted = (log.period == TEST) & ~np.isnan(log.labels[:, 1])
        predicted = predict_events(model.predict, state.evaluated, encoded, wanted, CONFIG, LAYOUT)
        found[told] = roc_auc_score(log.labels[wanted, 1], predicted[wanted, 1])
    assert found[True] > 0.7
    if kind == "none":
        assert found[False] < 0.65


def test_every_parameter_that_matters_is_trained(model, training):
    states = model.initial_state(), training[0]
    before, after = (jax.tree_util.tree_leaves_with_path(state.params) for state in states)
    still = [jax.tree_util.keystr(path) for (path, a), (_, b) in zip(before, after, strict=True) if np.all(a == b)]
    assert not still


def test_the_step_counts_and_its_metrics_are_finite(training):
    state, history = training
    assert int(state.step) == STEPS
    for metrics in history:
        of_rotation = {"rotary/gate", "rotary/scale", "rotary/omega0"}
        assert set(metrics) == {"loss", "task_losses", "gradient_norm"} | of_rotation
        chex.assert_tree_all_finite(metrics)
        chex.assert_trees_all_close(metrics["loss"], metrics["task_losses"] @ [1, 2], rtol=1e-5)
        assert metrics["gradient_norm"] > 0


def test_steps_and_predictions_of_one_shape_compile_once(model, training, caplog):
    params, state, batch = training[0].params, model.initial_state(), batch_of(1)
    wider = jax.tree.map(lambda leaf: np.concatenate([leaf, leaf]), batch)
    model.predict(params, batch_of(0))
    with jax.log_compiles():
        model.predict(params, batch)
        model.train_step(state, batch)
        assert not caplog.messages
        model.predict(params, wider)
        assert "Compiling jit(predict)" in caplog.text


def test_gate_and_scales_are_reported_as_they_are_after_the_step(training):
    state, history = training
    rotary = state.params["rotary"]
    reported = history[-1]["rotary/gate"], history[-1]["rotary/scale"]
    chex.assert_trees_all_equal(reported, (rotary["gate"][...], rotary["scale"][...]), strict=True)


def test_the_same_seed_trains_bit_identically(model, training):
    state = model.initial_state()
    for step in range(3):
        state, metrics = model.train_step(state, batch_of(step))
        chex.assert_trees_all_equal(metrics, training[1][step], strict=True)


def test_dropout_differs_from_step_to_step(model):
    def loss_at(step):
        state = model.initial_state()
        for index in range(3):  # the head starts at zero, whatever reaches it
            state, _ = model.train_step(state, batch_of(index))
        state = state._replace(step=jax.device_put(np.int32(step), state.step.sharding))
        return float(model.train_step(state, batch_of(0))[1]["loss"])

    assert loss_at(3) == loss_at(3)
    assert loss_at(3) != loss_at(4)


def test_another_seed_starts_elsewhere():
    config = small_config(small_rotary("none"), layers=0)
    first, second = (compile_small(ENCODER, LAYOUT, optax.sgd(0.1), config=config, seed=seed) for seed in (0, 1))
    leaves = (jax.tree.leaves(model.initial_state().params) for model in (first, second))
    assert any(np.any(a != b) for a, b in zip(*leaves, strict=True))


def test_the_state_is_donated_so_that_memory_holds_it_once(model):
    state = model.initial_state()
    model.train_step(state, batch_of(0))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))


def test_prediction_is_the_probability_of_the_merged_model_without_dropout(model, training):
    params, batch = training[0].params, batch_of(0)
    probabilities = model.predict(params, batch)
    chex.assert_trees_all_equal(probabilities, model.predict(params, batch), strict=True)
    chex.assert_shape(probabilities, (4, 16, 2))
    assert np.all((probabilities > 0) & (probabilities < 1))
    assert isinstance(nnx.state(model.merge(params)), nnx.State)


def test_a_rotation_without_gate_reports_none():
    other = compile_small(ENCODER, LAYOUT, config=small_config(small_rotary("ordinal")))
    _, metrics = jax.eval_shape(other.train_step, jax.eval_shape(other.initial_state), batch_of(0))
    assert set(metrics) == {"loss", "task_losses", "gradient_norm"}


def test_a_weight_for_each_task_is_demanded():
    with pytest.raises(ValueError, match="task_weights must hold 2 weights, one per task, but hold 1"):
        compile_small(ENCODER, LAYOUT, task_weights=(1.0,))


def test_one_device_is_the_one_by_one_mesh():
    assert dict(LAYOUT.mesh.shape) == {"slice": 1, "data": 1, "model": 1}
