"""`from siren_rope_jax import ...`: the few names that most users need, each imported when it is asked for."""

import inspect
import subprocess
import sys

import polars as pl
import pytest
from flax import nnx
from rich.console import Console
from small_logs import small_config

import siren_rope_jax
from siren_rope_jax import TrainConfig, evaluate, load, read_event_log, score, train
from siren_rope_jax.data.simulator import SimulatorConfig, simulate, write_simulated_log

LAZY = """
import sys
import siren_rope_jax

assert not {"flax", "polars", "optax", "orbax", "grain", "jax"} & set(sys.modules)
assert set(siren_rope_jax.__all__) <= set(dir(siren_rope_jax))
from siren_rope_jax import TrainConfig, evaluate, from_authors, load, read_event_log, score, train

assert all(map(callable, (TrainConfig, evaluate, from_authors, load, read_event_log, score, train)))
import siren_rope_jax.train.loop

assert siren_rope_jax.train.train is siren_rope_jax.train.loop.train
"""


@pytest.mark.slow
def test_importing_the_package_imports_nothing_until_a_name_is_asked_for():
    finished = subprocess.run([sys.executable, "-c", LAZY], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr


def test_an_unknown_name_is_refused_as_by_any_module():
    with pytest.raises(AttributeError, match="'siren_rope_jax' has no attribute 'trian'"):
        siren_rope_jax.trian  # noqa: B018
    with pytest.raises(ImportError):
        exec("from siren_rope_jax import trian")


def test_train_is_the_function_and_the_package_of_its_parts():
    assert list(inspect.signature(train).parameters)[:3] == ["log", "config", "run"]
    assert siren_rope_jax.train.TrainConfig is TrainConfig


@pytest.mark.slow
def test_a_log_is_trained_on_evaluated_and_scored_by_the_names_of_the_door_and_plain_paths(tmp_path):
    description = write_simulated_log(simulate(SimulatorConfig(users=60)), tmp_path / "feed")
    run, new = str(tmp_path / "run"), str(tmp_path / "new.csv")
    log = read_event_log(str(description))
    config = TrainConfig(steps=2, evaluations=1, model=small_config())
    metrics = train(log, config, run, console=Console(quiet=True))
    assert evaluate(log, run) == metrics
    pl.read_parquet(log.spec.files[0]).head(3).write_csv(new)
    assert score(read_event_log(str(description), new_events=new), run).shape == (3, len(log.task_names))
    assert isinstance(load(run), nnx.Module)
