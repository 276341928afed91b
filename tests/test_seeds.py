"""Several seeds trained as one job end as single runs do, in folders that single runs can go on with."""

import dataclasses
import json
import os
import shutil
import signal
from typing import Any

import chex
import jax
import numpy as np
import pytest
from rich.console import Console
from small_logs import INPUTS, small_config, small_log, small_rotary

from siren_rope_jax.cli import main
from siren_rope_jax.data.batches import BatchConfig
from siren_rope_jax.data.simulator import SimulatorConfig, simulate, write_simulated_log
from siren_rope_jax.errors import InputError, Interrupted
from siren_rope_jax.report.tables import seeds_table
from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.loop import train, train_seeds
from siren_rope_jax.train.optimizer import OptimizerConfig
from siren_rope_jax.train.retention import CheckpointConfig
from siren_rope_jax.train.session import load_session

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("compiled_once")]

LOG = small_log([16] * 16)
CONFIG = TrainConfig(
    seed=4,
    steps=6,
    evaluations=2,
    model=small_config(small_rotary("ordinal")),
    inputs=INPUTS,
    batches=BatchConfig(window=16, row_length=16, batch_size=4),
    optimizer=OptimizerConfig(learning_rate=1e-3),
)
SEEDS = (4, 5)


@pytest.fixture(scope="module")
def silent():
    with open(os.devnull, "w") as nowhere:
        yield Console(file=nowhere)


@pytest.fixture(scope="module")
def together(tmp_path_factory, silent):
    run = tmp_path_factory.mktemp("runs") / "together"
    return run, train_seeds(LOG, CONFIG, run, len(SEEDS), console=silent)


def parameters(run):
    return jax.tree.map(np.asarray, load_session(run)[1])


def test_a_seed_among_others_has_the_metrics_and_settings_that_it_has_alone(together, tmp_path, silent):
    index = 1
    run, metrics = together
    alone = train(LOG, dataclasses.replace(CONFIG, seed=SEEDS[index]), tmp_path / "alone", console=silent)
    for period, tasks in alone.items():
        for task, values in tasks.items():
            assert metrics[index][period][task] == pytest.approx(values, rel=1e-4)
    configs = [
        json.loads((folder / "config.json").read_text())
        for folder in (run / f"seed-{SEEDS[index]}", tmp_path / "alone")
    ]
    assert configs[0] == configs[1]


def test_seeds_differ_in_parameters_and_metrics(together):
    run, metrics = together
    assert metrics[0] != metrics[1]
    first, second = (jax.tree.leaves(parameters(run / f"seed-{seed}")) for seed in SEEDS)
    assert any(np.any(a != b) for a, b in zip(first, second, strict=True))


def test_interrupted_seeds_end_with_the_very_bits_of_uninterrupted_ones(together, tmp_path, silent):
    run, metrics = together

    def interrupt(report):
        if report.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match=r"seed-4/checkpoints/3, .*seed-5/checkpoints/3; the same command"):
        train_seeds(LOG, CONFIG, tmp_path, len(SEEDS), console=silent, hooks=[interrupt])
    shutil.rmtree(tmp_path / "seed-5" / "checkpoints" / "3" / "state")  # the newest that both have is now none
    with pytest.raises(InputError, match=r"no checkpoint in .*seed-5/checkpoints is left to restore"):
        train_seeds(LOG, CONFIG, tmp_path, len(SEEDS), console=silent)
    shutil.rmtree(tmp_path / "seed-5" / "checkpoints")
    assert train_seeds(LOG, CONFIG, tmp_path, len(SEEDS), console=silent) == metrics
    for seed in SEEDS:
        chex.assert_trees_all_equal(parameters(tmp_path / f"seed-{seed}"), parameters(run / f"seed-{seed}"))


def test_seeds_of_different_newest_steps_resume_the_common_one_with_the_very_bits(together, tmp_path, silent):
    """One seed's newest checkpoint is damaged: both go back to the one before, though the other's is sound."""
    run, metrics = together
    every = dataclasses.replace(CONFIG, checkpoints=CheckpointConfig(every=1, latest=9))
    train_seeds(LOG, every, tmp_path, len(SEEDS), console=silent, hooks=[lambda report: report.step == 4])
    newest = max(int(path.name) for path in (tmp_path / "seed-4" / "checkpoints").iterdir())
    assert 4 <= newest < CONFIG.steps
    shutil.rmtree(tmp_path / "seed-5" / "checkpoints" / str(newest) / "state")
    told = []
    assert train_seeds(LOG, every, tmp_path, len(SEEDS), console=silent, hooks=[told.append]) == metrics
    assert [report.step for report in told] == list(range(newest, CONFIG.steps + 1))
    for seed in SEEDS:
        chex.assert_trees_all_equal(parameters(tmp_path / f"seed-{seed}"), parameters(run / f"seed-{seed}"))


def test_seeds_without_a_step_in_common_and_settings_unfit_for_seeds_are_refused(together, tmp_path, silent):
    run = shutil.copytree(together[0], tmp_path / "runs")
    shutil.rmtree(run / "seed-5" / "checkpoints")
    with pytest.raises(InputError, match="have no checkpoint of the same step: restore files from a copy"):
        train_seeds(LOG, CONFIG, run, len(SEEDS), console=silent)
    once = dataclasses.replace(CONFIG, checkpoints=CheckpointConfig(latest=1))
    with pytest.raises(InputError, match="latest must be at least 2 with seeds, but is 1"):
        train_seeds(LOG, once, tmp_path / "new", len(SEEDS), console=silent)
    with pytest.raises(InputError, match="seed must lie in"):
        train_seeds(LOG, dataclasses.replace(CONFIG, seed=2**32 - 1), tmp_path / "new", 2, console=silent)
    assert not (tmp_path / "new").exists()


def test_seeds_go_on_from_the_newest_step_that_they_have_in_common(together, tmp_path, silent):
    run = shutil.copytree(together[0], tmp_path / "runs")
    with open(tmp_path / "said", "w") as file:
        longer = dataclasses.replace(CONFIG, steps=CONFIG.steps + 1)
        train_seeds(LOG, longer, run, len(SEEDS), console=Console(file=file, width=300), allow_drift=True)
    assert f"seed-5 at step {CONFIG.steps} of {CONFIG.steps + 1}" in (tmp_path / "said").read_text()


def test_the_table_of_seeds_shows_means_and_how_far_the_seeds_differ():
    metrics = [{"test": {"like": {"ne": ne, "auc": 0.5, "log_loss": None}}, "validation": {}} for ne in (0.8, 0.9, 1.0)]
    tables: Any = seeds_table(metrics)
    cells = [list(column.cells) for column in tables.renderables[0].columns]
    # Student's t of 2 degrees, 4.3027, times .1 / sqrt(3)
    assert cells == [["test"], ["like"], ["0.9000 ± 0.2484"], ["0.5000 ± 0.0000"], ["-"]]


def test_the_command_trains_as_many_seeds_as_asked_for_and_refuses_zero(tmp_path, capsys):
    log = write_simulated_log(simulate(SimulatorConfig(users=40)), tmp_path / "feed")
    small = "--model.width 8 --model.heads 1 --model.layers 0 --model.rotary.kind none --steps 1 --evaluations 1"
    main(
        [
            "train",
            str(log),
            "--out",
            str(tmp_path / "runs"),
            "--seeds",
            "2",
            *small.split(),
            "--batches.batch-size",
            "4",
        ]
    )
    assert "2 seeds, mean ± 95 %" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"seed-0", "seed-1"}
    with pytest.raises(SystemExit) as stopped:
        main(["train", str(log), "--out", str(tmp_path / "runs"), "--seeds", "0"])
    assert stopped.value.code == 2
    assert "seeds must lie in [1, inf), but is 0" in capsys.readouterr().err
