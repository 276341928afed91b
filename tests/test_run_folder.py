"""The folder of a run: settings that may change when a run resumes, and others that may not."""

import dataclasses
import json
import time

import numpy as np
import pytest
from small_logs import encode, small_log

from siren_rope_jax.data.encode import InputConfig
from siren_rope_jax.errors import InputError
from siren_rope_jax.nn.config import ModelConfig
from siren_rope_jax.settings import drift_of
from siren_rope_jax.train import processes, run_folder
from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.optimizer import OptimizerConfig
from siren_rope_jax.train.run_folder import open_run, read_run
from siren_rope_jax.train.run_lock import lock_run
from siren_rope_jax.train.sharding import MeshConfig

CONFIG = TrainConfig(steps=4, optimizer=OptimizerConfig(learning_rate=3e-3))
DRIFTED = dataclasses.replace(CONFIG, steps=9, optimizer=OptimizerConfig(learning_rate=0.5))


@pytest.fixture
def opened(tmp_path):
    """Opens the run `tmp_path / "run"` of one log, which is there already; returns what was said."""
    log = small_log([5, 4])

    def reopen(config, log=log, **options):
        with lock_run(tmp_path / "run"):
            said = open_run(tmp_path / "run", log, encode(log)[0], config, **options)()
        return [] if said is None else [said]

    assert reopen(CONFIG) == []
    return reopen


def test_changed_settings_are_named_and_refused_and_the_stored_ones_stay(opened, tmp_path):
    before = (tmp_path / "run" / "config.json").read_bytes()
    with pytest.raises(
        InputError, match=r"config.optimizer.learning_rate \(there 0.003, here 0.5\); config.steps"
    ) as error:
        opened(DRIFTED)
    assert "--allow-drift" in str(error.value)
    assert (tmp_path / "run" / "config.json").read_bytes() == before


def test_an_allowed_change_of_settings_is_said_and_stored(opened, tmp_path):
    (line,) = opened(DRIFTED, allow_drift=True)
    assert "config.optimizer.learning_rate (there 0.003, here 0.5); config.steps (there 4, here 9)" in line
    _, config, _ = read_run(tmp_path / "run")
    assert config == DRIFTED
    assert opened(DRIFTED) == []


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"model": ModelConfig(heads=2)}, "config.model.heads"),
        ({"inputs": InputConfig(item_buckets=32)}, "config.inputs.item_buckets"),
        ({"seed": 7}, "config.seed"),
    ],
)
def test_settings_that_make_another_model_are_refused_even_where_drift_is_allowed(opened, tmp_path, changed, name):
    before = (tmp_path / "run" / "config.json").read_bytes()
    with pytest.raises(InputError, match=f"another model or other data, which differs in {name} "):
        opened(dataclasses.replace(CONFIG, **changed), allow_drift=True)
    assert (tmp_path / "run" / "config.json").read_bytes() == before


def leaves(settings, path=()):
    """Paths of all settings that hold a value."""
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        below = leaves(value, (*path, field.name)) if dataclasses.is_dataclass(value) else [(*path, field.name)]
        yield from below


FREE = """
    mesh.data mesh.model mesh.slices mesh.fsdp mesh.shard_tables
    checkpoints.seconds checkpoints.latest checkpoints.every
"""
ALLOWED = """
    epochs steps evaluations patience validation_events task_weights batches.row_length batches.batch_size
    model.dropout model.id_dropout model.context_dropout model.attention model.dtype
    optimizer.learning_rate optimizer.angle_rate optimizer.table_rate optimizer.context_rate optimizer.warmup
    optimizer.final optimizer.weight_decay optimizer.clip_norm optimizer.b1 optimizer.b2 optimizer.average_decay
"""


def test_a_run_goes_on_with_other_settings_of_its_training_alone():
    every = {".".join(path): drift_of(TrainConfig, path) for path in leaves(TrainConfig())}
    expected = dict.fromkeys(every, "refused") | dict.fromkeys(FREE.split(), "free")
    assert every == expected | dict.fromkeys(ALLOWED.split(), "allowed")
    assert {"seed", "batches.window", "model.width", "model.rotary.kind", "inputs.item_buckets"} <= every.keys()


def test_a_setting_of_another_version_is_refused():
    assert drift_of(TrainConfig, ["model", "unheard_of"]) == drift_of(TrainConfig, ["seed", "below"]) == "refused"


def test_dropout_may_be_changed_on_the_way(opened):
    (line,) = opened(dataclasses.replace(CONFIG, model=ModelConfig(dropout=0.5, context_dropout=0.2)), allow_drift=True)
    assert "config.model.context_dropout (there None, here 0.2); config.model.dropout (there 0.1, here 0.5)" in line


def without(arrays, name):
    return {other: array for other, array in arrays.items() if other != name}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda arrays: without(arrays, "context_transform"), "damaged, missing or of another version: it must hold"),
        (lambda arrays: arrays | {"context_transform": np.zeros((3, 4))}, "damaged, missing or of another version"),
        (lambda arrays: arrays | {"dense_mean": np.float32(1)}, "damaged, missing or of another version"),
        (
            lambda arrays: arrays | {"known_ids_0": np.append(arrays["known_ids_0"], np.uint64(1))},
            "holds something else",
        ),
        (lambda arrays: arrays | {"context_std": arrays["context_std"] * 1.01}, "holds something else"),
        (lambda arrays: arrays | {"context_transform": np.ones((2, 6))}, "holds something else"),
    ],
)
def test_a_run_goes_on_only_with_the_inputs_that_it_began_with(opened, tmp_path, damage, said):
    path = tmp_path / "run" / "encoder.npz"
    with np.load(path) as file:
        np.savez(path, **damage(dict(file)))
    before = path.read_bytes()
    with pytest.raises(InputError, match=said):
        opened(CONFIG)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda described: described | {"data": None}, "damaged: it lacks a part; train again"),
        (
            lambda described: described | {"config": described["config"] | {"model": None}},
            "must be a table of settings",
        ),
        (
            lambda described: described | {"config": described["config"] | {"model": {"omega0": 3}}},
            r"omega0.*train again",
        ),
    ],
)
def test_a_description_that_is_damaged_or_of_another_version_is_refused_in_one_sentence(opened, tmp_path, change, said):
    path = tmp_path / "run" / "config.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(InputError, match=said) as caught:
        read_run(tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_a_run_goes_on_where_means_are_rounded_in_another_way(opened, tmp_path):
    path = tmp_path / "run" / "encoder.npz"
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **arrays | {"context_mean": np.nextafter(arrays["context_mean"], np.float32(9))})
    assert opened(CONFIG) == []


def test_a_path_that_orbax_takes_for_a_pattern_is_refused_and_nothing_is_made(tmp_path):
    with pytest.raises(InputError, match=r"must be a path without \["), lock_run(tmp_path / "run[1]"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_that_another_process_does_not_see_is_refused(opened, monkeypatch):
    monkeypatch.setattr(run_folder, "greatest", lambda unseen: (1,))  # as another process finds
    with pytest.raises(InputError, match="must be a folder that all processes share"):
        opened(CONFIG)


def test_processes_that_share_no_folder_are_refused_after_a_wait(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "_SEEN_SECONDS", 0.3)
    monkeypatch.setattr(run_folder, "decided_by_first", lambda decide: None)  # process 0 writes to files of its own
    (tmp_path / "run" / "config.json").unlink()
    began = time.monotonic()
    with pytest.raises(InputError, match="must be a folder that all processes share"):
        opened(CONFIG)
    assert time.monotonic() - began >= 0.3


def test_a_folder_that_is_shown_late_is_waited_for(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "_SEEN_SECONDS", 1200)
    monkeypatch.setattr(run_folder, "decided_by_first", lambda decide: None)  # process 0 is another
    path, waited = tmp_path / "run" / "config.json", []
    hidden = path.rename(tmp_path / "hidden")

    def sleep(seconds):
        waited.append(seconds)
        if len(waited) == 3:
            hidden.rename(path)

    monkeypatch.setattr(run_folder.time, "sleep", sleep)
    assert opened(CONFIG) == []
    assert len(waited) == 3


def test_a_fresh_volume_with_its_lost_and_found_is_accepted_as_a_run_folder(tmp_path):
    (tmp_path / "lost+found").mkdir()
    with lock_run(tmp_path):
        pass


def test_a_run_goes_on_with_another_mesh_and_stores_it(opened, tmp_path):
    spread = dataclasses.replace(CONFIG, mesh=MeshConfig(model=2))
    assert opened(spread) == []
    assert json.loads((tmp_path / "run" / "config.json").read_text())["config"]["mesh"]["model"] == 2


@pytest.mark.parametrize("allow_drift", [False, True])
def test_other_data_are_refused_even_where_drift_is_allowed(opened, allow_drift):
    changed = "was trained on 9 events of log.csv, but these files have changed since and hold 10 events now"
    with pytest.raises(InputError, match=changed):
        opened(CONFIG, log=small_log([5, 5]), allow_drift=allow_drift)


def test_processes_that_read_different_events_are_refused(opened, monkeypatch):
    monkeypatch.setattr(processes, "decided_by_first", lambda decide: decide() | {"digest": "of process 0"})
    with pytest.raises(InputError, match="process 0 reads other events than process 0: give all"):
        opened(CONFIG)


def test_old_rows_that_moved_within_their_files_are_no_change(opened):
    log = small_log([5, 4])
    moved = dataclasses.replace(log, row=log.row + 5)  # behind five rows that were dropped as duplicates
    assert opened(CONFIG, log=moved) == []
