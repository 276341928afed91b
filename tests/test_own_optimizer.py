"""Training with an optimizer that the caller passes: the run resumes, and is evaluated by whoever does not have it."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console
from small_logs import small_log, small_rotary

from siren_rope_jax.data.batches import BatchConfig
from siren_rope_jax.data.encode import InputConfig
from siren_rope_jax.errors import InputError
from siren_rope_jax.nn.config import ModelConfig
from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.evaluate import evaluate
from siren_rope_jax.train.loop import train
from siren_rope_jax.train.optimizer import OptimizerConfig, make_optimizer
from siren_rope_jax.train.session import load_session

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("compiled_once")]

LOG = small_log([12, 9, 15, 8, 11, 14])
MODEL = ModelConfig(
    width=8, heads=1, layers=1, head_widths=(8,), action_widths=(8,), context_widths=(), rotary=small_rotary("ordinal")
)
CONFIG = TrainConfig(
    steps=6,
    evaluations=2,
    model=MODEL,
    inputs=InputConfig(item_buckets=64, categorical_buckets=16),
    batches=BatchConfig(window=16, row_length=16, batch_size=4),
)
QUIET = Console(quiet=True)


@functools.cache
def lion():
    """An optimizer whose state has other arrays than the default one's; the same one, so that its runs share a step."""
    return optax.lion(1e-2)


def parameters(run):
    return jax.tree.map(np.asarray, load_session(run)[1])


def trained(run, config=CONFIG, **arguments):
    return train(LOG, config, run, console=QUIET, **arguments)


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_a_run_with_an_optimizer_of_the_callers_resumes_to_the_very_bits_and_is_evaluated_without_it(tmp_path, decay):
    config = dataclasses.replace(CONFIG, optimizer=OptimizerConfig(average_decay=decay))
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    metrics = trained(whole, config, optimizer=lion())
    trained(stopped, config, optimizer=lion(), hooks=[lambda report: report.step == 2])
    assert trained(stopped, config, optimizer=lion()) == metrics
    chex.assert_trees_all_equal(parameters(stopped), parameters(whole))
    assert evaluate(LOG, whole) == metrics


def test_the_default_optimizer_passed_by_hand_trains_to_the_same_bits_and_another_to_others(tmp_path):
    settings = OptimizerConfig(learning_rate=3e-3)
    config = dataclasses.replace(CONFIG, optimizer=settings)
    trained(tmp_path / "default", config)
    trained(tmp_path / "passed", config, optimizer=make_optimizer(settings, CONFIG.steps))
    trained(tmp_path / "other", config, optimizer=lion())
    default, passed, other = (parameters(tmp_path / name) for name in ("default", "passed", "other"))
    chex.assert_trees_all_equal(default, passed)
    kernels = [params["token"]["kernel"][...] for params in (default, other)]
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-3


def test_weights_decay_but_neither_vectors_nor_the_scales_and_gates_of_heads():
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1.0, warmup=0.0, weight_decay=0.1), 10)
    params = {
        "rotary": {"scale": jnp.ones((4, 8)), "gate": jnp.ones((4, 1)), "networks": [{"kernel": jnp.ones((5, 8))}]},
        "token": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)},
    }
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    moved = {
        jax.tree_util.keystr(path): bool(jnp.all(x < 0)) for path, x in jax.tree_util.tree_leaves_with_path(updates)
    }
    assert {path for path, is_less in moved.items() if is_less} == {
        "['rotary']['networks'][0]['kernel']",
        "['token']['kernel']",
    }


def test_hooks_are_told_a_learning_rate_only_where_the_configuration_sets_it(tmp_path):
    reports = []
    trained(tmp_path / "own", optimizer=lion(), hooks=[reports.append])
    assert [report.learning_rate for report in reports] == [None] * CONFIG.steps


def test_a_run_is_resumed_neither_without_its_optimizer_nor_with_another_whose_state_differs(tmp_path):
    run = tmp_path / "run"
    trained(run, optimizer=lion(), hooks=[lambda report: report.step == 2])
    with pytest.raises(InputError, match="optimizer that its caller passed: pass it again"):
        trained(run)
    with pytest.raises(InputError, match=r"is of another model: optimizer"):
        trained(run, optimizer=optax.adamw(1e-3))
