"""Training end to end on small logs: the run folder, exact resumption, and stopping on what must not go on."""

import dataclasses
import io
import json
import os
import shutil
import signal

import chex
import jax
import numpy as np
import polars as pl
import pytest
from flax import nnx
from rich.console import Console

from siren_rope_jax.data.batches import BatchConfig
from siren_rope_jax.data.encode import InputConfig
from siren_rope_jax.data.event_log import read_event_log
from siren_rope_jax.data.periods import VALIDATION
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.data.simulator import SimulatorConfig, simulate, write_simulated_log
from siren_rope_jax.errors import InputError, Interrupted, NonFiniteError
from siren_rope_jax.nn.config import ModelConfig
from siren_rope_jax.nn.rotary import RotaryConfig, SirenSettings
from siren_rope_jax.train.checkpoint_list import list_checkpoints
from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.evaluate import evaluate
from siren_rope_jax.train.loop import train
from siren_rope_jax.train.optimizer import OptimizerConfig
from siren_rope_jax.train.predict import steering_events
from siren_rope_jax.train.retention import CheckpointConfig
from siren_rope_jax.train.run_lock import lock_run
from siren_rope_jax.train.session import load, load_session
from siren_rope_jax.train.sharding import MeshConfig

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("compiled_once")]

STEPS = 8
CONFIG = TrainConfig(
    steps=STEPS,
    evaluations=2,
    model=ModelConfig(
        width=8,
        heads=1,
        layers=1,
        head_widths=(8,),
        action_widths=(8,),
        rotary=RotaryConfig(siren=SirenSettings(width=8)),
    ),
    inputs=InputConfig(item_buckets=64, categorical_buckets=16),
    batches=BatchConfig(window=16, row_length=32, batch_size=4),
    optimizer=OptimizerConfig(learning_rate=3e-3),
)
EVERY_STEP = dataclasses.replace(CONFIG, evaluations=STEPS, optimizer=OptimizerConfig(learning_rate=3e-3, warmup=0.0))


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    folder = tmp_path_factory.mktemp("feed")
    return read_event_log(EventLogSpec.from_toml(write_simulated_log(simulate(SimulatorConfig(users=60)), folder)))


@pytest.fixture(scope="module")
def finished(log, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "run"
    metrics = train(log, CONFIG, run, console=_silent())
    return run, metrics


def _silent():
    return Console(file=open(os.devnull, "w"))


def _parameters(run):
    _, params = load_session(run)
    return jax.tree.map(np.asarray, params)


def _kill_at(step, number):
    """A hook that signals this process once that step is finished; a few later ones may be under way."""
    return lambda report: os.kill(os.getpid(), number) if report.step == step else None


def _steps_of(run):
    return json.loads((run / "training.json").read_text())["steps"]


def stop_of(values, patience):
    """Where a run ends whose validations come to these values: after so many without a better one."""
    for step in range(1, len(values) + 1):
        if patience is not None and step - 1 - int(np.argmin(values[:step])) >= patience:
            return step
    return len(values)


@pytest.fixture(scope="module")
def wavering(log, tmp_path_factory):
    """A run that is never stopped, and its validations, which do not only get better."""
    config = dataclasses.replace(
        EVERY_STEP,
        patience=None,
        optimizer=OptimizerConfig(learning_rate=0.02, context_rate=0.05, warmup=0.25, average_decay=0.0),
        checkpoints=CheckpointConfig(every=1),
    )
    run = tmp_path_factory.mktemp("wavering") / "run"
    train(log, config, run, console=_silent())
    values = [found.judged.value for found in list_checkpoints(run)]
    assert len(values) == STEPS
    assert len({stop_of(values, patience) for patience in (None, 1, 2)}) == 3, values
    return config, values


@pytest.mark.parametrize("patience", [None, 1, 2])
def test_training_stops_after_as_many_vain_validations_as_patience_and_keeps_the_best(
    log, wavering, tmp_path, patience
):
    (config, values), run = wavering, tmp_path / "run"
    stop, checkpoints = stop_of(values, patience), CheckpointConfig()
    config = dataclasses.replace(config, patience=patience, checkpoints=checkpoints)
    train(log, config, run, console=_silent())
    assert _steps_of(run) == stop
    best = 1 + int(np.argmin(values[:stop]))
    assert {found.step for found in list_checkpoints(run)} == {best, stop - 1, stop}
    before = _parameters(run)
    with io.StringIO() as said:
        train(log, config, run, console=Console(file=said))
        assert ("give a larger --patience" in said.getvalue()) == (stop < STEPS)
    chex.assert_trees_all_equal(before, _parameters(run))


def test_an_interrupted_run_stops_where_the_uninterrupted_one_does(log, wavering, tmp_path):
    (config, values), run = wavering, tmp_path / "run"
    config = dataclasses.replace(config, patience=1)
    stop = stop_of(values, 1)
    with pytest.raises(Interrupted):
        train(log, config, run, console=_silent(), hooks=[_kill_at(stop - 1, signal.SIGTERM)])
    train(log, config, run, console=_silent())
    assert _steps_of(run) == stop


def test_a_validation_that_tells_nothing_is_not_in_vain(log, wavering, tmp_path):
    config, values = wavering
    assert stop_of(values, 1) < STEPS
    silent = dataclasses.replace(log, labels=np.where((log.period == VALIDATION)[:, None], 0, log.labels))
    train(silent, dataclasses.replace(config, patience=1), tmp_path / "run", console=_silent())
    assert _steps_of(tmp_path / "run") == STEPS


def test_training_is_steered_by_the_validation_events_of_as_many_users_as_asked_for(log, tmp_path):
    events = {}
    for name, wanted in (("few", 40), ("all", 10**6)):
        train(log, dataclasses.replace(CONFIG, validation_events=wanted), tmp_path / name, console=_silent())
        (events[name],) = {found.metrics["like"]["events"] for found in list_checkpoints(tmp_path / name)}
        chosen = steering_events(log, wanted)
        assert events[name] == chosen.sum()
        np.testing.assert_array_equal(chosen, (log.period == VALIDATION) & np.isin(log.user, log.user[chosen]))
    assert 40 <= events["few"] < events["all"] == (log.period == VALIDATION).sum()


def test_a_hook_is_told_of_every_step_in_order_and_its_end_leaves_a_run_that_goes_on(log, finished, tmp_path):
    run, told = tmp_path / "run", []
    metrics = train(log, CONFIG, run, console=_silent(), hooks=[lambda report: told.append(report) or report.step == 2])
    stopped = _steps_of(run)
    assert 2 <= stopped < STEPS
    assert [report.step for report in told] == list(range(1, stopped + 1))
    assert metrics == json.loads((run / "metrics.json").read_text())
    assert {found.step for found in list_checkpoints(run)} == {stopped}
    assert train(log, CONFIG, run, console=_silent(), hooks=[lambda report: told.append(report)]) == finished[1]
    assert [report.step for report in told] == list(range(1, STEPS + 1))
    for report in told:
        assert set(report.metrics) >= {"loss", "task_losses", "gradient_norm", "rotary/gate"}
        assert report.metrics["loss"] == pytest.approx(report.metrics["task_losses"].sum(), rel=1e-5)
    chex.assert_trees_all_equal(_parameters(run), _parameters(finished[0]), strict=True)


def test_the_folder_of_a_finished_run_holds_every_part_and_nothing_else(finished, log):
    run, metrics = finished
    expected = {
        "config.json",
        "environment.json",
        "encoder.npz",
        "metrics.json",
        "training.json",
        "predictions.parquet",
    }
    assert expected | {"checkpoints", "tensorboard", "lock"} == {path.name for path in run.iterdir()}
    assert json.loads((run / "metrics.json").read_text()) == metrics
    for period in ("validation", "test"):
        for task in log.task_names:
            assert set(metrics[period][task]) == {"ne", "auc", "gauc", "ece", "log_loss", "events", "positives"}
    assert json.loads((run / "environment.json").read_text())["packages"]["jax"] == jax.__version__
    predictions = pl.read_parquet(run / "predictions.parquet")
    assert sorted(predictions["row"]) == sorted(log.row[log.period > 0])
    assert predictions.select(pl.col("^probability_.*$").is_between(0, 1).all()).row(0) == (True,) * len(log.task_names)


@pytest.mark.parametrize(("number", "step"), [(signal.SIGINT, 1), (signal.SIGTERM, STEPS // 2)])
def test_an_interrupted_run_ends_with_the_very_bits_of_an_uninterrupted_one(log, finished, tmp_path, number, step):
    run = tmp_path / "run"
    with pytest.raises(Interrupted, match=rf"stopped at step \d of {STEPS}") as caught:
        train(log, CONFIG, run, console=_silent(), hooks=[_kill_at(step, number)])
    assert caught.value.signal == number
    (found,) = list_checkpoints(run)
    assert step <= found.step < STEPS
    assert f"stopped at step {found.step} " in str(caught.value)
    assert not (run / "metrics.json").exists()
    metrics = train(log, CONFIG, run, console=_silent())
    whole, whole_metrics = finished
    chex.assert_trees_all_equal(_parameters(run), _parameters(whole), strict=True)
    assert metrics == whole_metrics


def test_a_second_call_on_a_finished_run_trains_nothing_and_returns_its_metrics(log, finished):
    (run, metrics), before, told = finished, _parameters(finished[0]), []
    assert train(log, CONFIG, run, console=_silent(), hooks=[told.append]) == metrics
    assert told == []
    chex.assert_trees_all_equal(before, _parameters(run), strict=True)


def test_evaluate_reports_the_metrics_of_training(log, finished):
    run, metrics = finished
    assert evaluate(log, run) == metrics


def test_a_run_with_the_mesh_of_a_pod_is_evaluated_without_one(log, finished, tmp_path):
    run, metrics = finished
    copy = shutil.copytree(run, tmp_path / "copy")
    described = json.loads((copy / "config.json").read_text())
    described["config"]["mesh"] |= {"data": 8, "model": 4, "slices": 2, "fsdp": True}
    (copy / "config.json").write_text(json.dumps(described))
    assert evaluate(log, copy) == metrics


def test_a_log_that_hides_every_outcome_can_be_trained_on(log, tmp_path):
    none = {"actions": log.actions[:, :0], "action_known": log.action_known[:, :0], "action_names": ()}
    spec = dataclasses.replace(log.spec, actions=())
    blind = dataclasses.replace(log, spec=spec, action_pending=log.action_pending[:0], **none)
    metrics = train(blind, dataclasses.replace(CONFIG, steps=2), tmp_path / "run", console=_silent())
    assert metrics["test"]["like"]["ne"] > 0


def test_a_folder_that_another_trainer_holds_is_refused(log, finished):
    run, _ = finished
    with lock_run(run), pytest.raises(InputError, match="being trained by another process"):
        train(log, CONFIG, run, console=_silent())


def test_evaluate_refuses_a_log_that_changed(log, finished):
    run, _ = finished
    changed = dataclasses.replace(log, labels=1 - log.labels)
    with pytest.raises(InputError, match="have changed since"):
        evaluate(changed, run)


def test_a_run_refuses_other_settings_and_names_both_values(log, finished):
    run, _ = finished
    other = dataclasses.replace(CONFIG, optimizer=OptimizerConfig(learning_rate=0.5))
    with pytest.raises(InputError, match=r"config.optimizer.learning_rate \(there 0.003, here 0.5\)"):
        train(log, other, run, console=_silent())


def test_a_finished_run_keeps_the_settings_that_it_was_trained_with(log, finished, tmp_path):
    run, metrics = finished
    copy = shutil.copytree(run, tmp_path / "copy")
    before = (copy / "config.json").read_bytes()
    other = dataclasses.replace(CONFIG, optimizer=OptimizerConfig(learning_rate=0.5))
    assert train(log, other, copy, console=_silent(), allow_drift=True) == metrics
    with pytest.raises(InputError, match=rf"steps must be at least {STEPS}, which .* has reached, but are 4"):
        train(log, dataclasses.replace(CONFIG, steps=4), copy, console=_silent(), allow_drift=True)
    assert (copy / "config.json").read_bytes() == before


def test_more_steps_can_be_added_and_are_said_and_stored(log, finished, tmp_path):
    run, _ = finished
    copy = shutil.copytree(run, tmp_path / "copy")
    longer = dataclasses.replace(CONFIG, steps=STEPS + 2, evaluations=1)
    with open(tmp_path / "said", "w") as file:
        train(log, longer, copy, console=Console(file=file, width=300), allow_drift=True)
    assert (
        f"resumes with other settings: config.evaluations (there 2, here 1); config.steps (there {STEPS}"
        in (tmp_path / "said").read_text()
    )
    assert json.loads((copy / "config.json").read_text())["config"]["steps"] == STEPS + 2
    assert max(int(path.name) for path in (copy / "checkpoints").iterdir() if path.name.isdigit()) == STEPS + 2


@pytest.mark.parametrize(
    ("checkpoints", "steps"),
    [
        (CheckpointConfig(seconds=0, latest=3), {STEPS - 2, STEPS - 1, STEPS}),
        (CheckpointConfig(every=3, latest=1), {3, 6, STEPS}),
    ],
    ids=["seconds", "every"],
)
def test_checkpoints_are_written_when_they_are_asked_for(log, tmp_path, checkpoints, steps):
    config = dataclasses.replace(CONFIG, evaluations=1, checkpoints=checkpoints)
    train(log, config, tmp_path / "run", console=_silent())
    assert {int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir()} == steps


def test_a_folder_with_other_files_is_refused_and_left_as_it_was(log, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="holds something else"):
        train(log, CONFIG, tmp_path, console=_silent())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_no_checkpoint_is_written_after_a_step_that_diverged(log, tmp_path):
    run = tmp_path / "run"
    # The second step goes to the end of float32's range, and the loss of the third is no number.
    config = dataclasses.replace(CONFIG, optimizer=OptimizerConfig(learning_rate=1e38, warmup=0.25))
    config = dataclasses.replace(config, checkpoints=CheckpointConfig(every=2))
    with pytest.raises(NonFiniteError, match=r"step 3: the loss is (nan|inf) .*checkpoints/2"):
        train(log, config, run, console=_silent())
    assert [found.step for found in list_checkpoints(run)] == [2]
    assert list_checkpoints(run)[0].problem is None
    chex.assert_tree_all_finite(_parameters(run))


def test_a_configuration_that_does_not_fit_is_refused_and_no_folder_is_left(log, tmp_path):
    run = tmp_path / "run"
    unknown = SirenSettings(metadata=("nonsense",))
    for config, message in (
        (dataclasses.replace(CONFIG, task_weights=(1.0,)), "task_weights"),
        (dataclasses.replace(CONFIG, mesh=MeshConfig(model=3)), "mesh"),
        (dataclasses.replace(CONFIG, model=ModelConfig(rotary=RotaryConfig(siren=unknown))), "nonsense"),
    ):
        with pytest.raises(InputError, match=message):
            train(log, config, run, console=_silent())
    assert not run.exists()


def test_tensorboard_holds_what_users_watch(finished):
    run, _ = finished
    written = b"".join(path.read_bytes() for path in (run / "tensorboard").iterdir())
    for name in ("loss", "learning_rate", "gradient_norm", "events_per_second", "fill", "loss_like"):
        assert f"train/{name}".encode() in written
    for name in (b"rotary/gate", b"rotary/scale_0", b"rotary/fast_share", b"validation/like/ne", b"validation/mean_ne"):
        assert name in written


def test_the_loaded_recommender_has_the_parameters_of_the_best_checkpoint(finished):
    run, _ = finished
    model = load(run)
    _, params = load_session(run)
    chex.assert_trees_all_equal(jax.tree.leaves(params), jax.tree.leaves(nnx.state(model)), strict=True)


def test_evaluate_refuses_a_folder_that_is_no_run(log, finished, tmp_path):
    with pytest.raises(InputError, match="must be a folder that `siren-rope train` wrote"):
        evaluate(log, tmp_path / "nowhere")
