"""Checkpoints: asynchronous yet exact, never restored with a changed bit, and never lost to what ends a process."""

import concurrent.futures
import contextlib
import multiprocessing
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from multiprocessing import forkserver
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from checkpoint_state import LATEST, MOMENTS, like, save_and_die, state_of
from hypothesis import given, settings
from hypothesis import strategies as st
from one_sentence import raises_one_sentence

from siren_rope_jax.cli import main
from siren_rope_jax.errors import InputError
from siren_rope_jax.train import checkpoint
from siren_rope_jax.train.checkpoint import Checkpoints
from siren_rope_jax.train.checkpoint_list import list_checkpoints
from siren_rope_jax.train.criterion import Judged
from siren_rope_jax.train.retention import CheckpointConfig

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parent


@contextlib.contextmanager
def opened(run, config=None, said=None):
    checkpoints = Checkpoints(run, config, say=(lambda line: None) if said is None else said.append)
    try:
        yield checkpoints
    finally:
        checkpoints.close()


def of_ne(value):
    return None if value is None else Judged("mean_ne", value, maximise=False)


def save_steps(run, mean_nes, config=None):
    with opened(run, config) as checkpoints:
        for step, mean_ne in mean_nes.items():
            checkpoints.save(state_of(step), {"next": step}, judged=of_ne(mean_ne))


def restore(run, said=None, **wanted):
    with opened(run, said=said) as checkpoints:
        return checkpoints.restore(like(state_of(0)), **wanted)


def assert_is_step(restored, step):
    state, progress = restored
    chex.assert_trees_all_equal(state, state_of(step), strict=True)
    assert progress["next"] == step


def files_of(run, step):
    return sorted(path for path in (run / "checkpoints" / str(step)).rglob("*") if path.is_file())


def steps_in(run):
    return sorted(int(path.name) for path in (run / "checkpoints").iterdir() if path.name.isdecimal())


def everything_in(folder):
    return {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    run = tmp_path_factory.mktemp("pristine")
    save_steps(run, {10: 0.8, 20: 0.9})
    return run


@pytest.fixture
def run(pristine, tmp_path):
    return Path(shutil.copytree(pristine, tmp_path / "run"))


def test_a_state_donated_while_it_is_written_keeps_the_values_it_was_saved_with(tmp_path):
    state = state_of(1, size=300_000)
    later = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)
    shapes, config, truths = like(state), CheckpointConfig(latest=9), {}
    with opened(tmp_path, config) as checkpoints:
        for step in (1, 2, 3):
            truths[step] = jax.tree.map(lambda x: np.array(x, copy=True), state)
            checkpoints.save(state, {}, judged=None)
            state = later(state)
        for step, truth in truths.items():
            restored, _ = checkpoints.restore(shapes, step=step)
            chex.assert_trees_all_equal(jax.device_get(restored), truth, strict=True)


def test_a_part_that_is_not_asked_for_is_not_read_and_need_not_be_known(tmp_path):
    save_steps(tmp_path, {1: None})
    with opened(tmp_path) as checkpoints:
        state, _ = checkpoints.restore(like(state_of(0))._replace(optimizer=None, average=None))
    chex.assert_trees_all_equal(state, state_of(1)._replace(optimizer=None, average=None), strict=True)


def test_progress_that_changes_while_it_is_written_keeps_the_values_it_was_saved_with(tmp_path):
    progress = {"next": 1, "best": None, "seconds": 0.1}
    with opened(tmp_path) as checkpoints:
        checkpoints.save(state_of(1), progress, judged=None)
        progress["next"] = 2
        _, restored = checkpoints.restore(like(state_of(1)))
    assert restored == {"next": 1, "best": None, "seconds": 0.1}


DAMAGES = {
    "truncate": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "delete": lambda path: path.unlink(),
    "flip": lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_checkpoint_with_any_damaged_file_is_named_and_skipped_for_the_one_before(run, damage):
    whole = {path: path.read_bytes() for path in files_of(run, 20)}
    assert {"manifest.json", "manifest.ocdbt", "_METADATA"} <= {path.name for path in whole}
    for path, content in whole.items():
        if not content and damage != "delete":
            continue
        DAMAGES[damage](path)
        said = []
        assert_is_step(restore(run, said), 10)
        (line,) = said
        assert line.startswith(f"checkpoint 20 is skipped: {path.relative_to(run / 'checkpoints' / '20')} ")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    assert_is_step(restore(run), 20)


@settings(max_examples=40)
@given(st.data())
def test_a_checkpoint_with_a_bit_flipped_anywhere_is_skipped_for_the_one_before(pristine, data):
    with tempfile.TemporaryDirectory() as folder:
        run = Path(shutil.copytree(pristine, Path(folder) / "run"))
        path = data.draw(st.sampled_from([path for path in files_of(run, 20) if path.stat().st_size]))
        content = bytearray(path.read_bytes())
        bit = data.draw(st.integers(0, 8 * len(content) - 1))
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        said = []
        assert_is_step(restore(run, said), 10)
        assert len(said) == 1


def test_damage_to_every_checkpoint_is_refused_with_each_named_and_nothing_changed(run):
    files_of(run, 10)[0].unlink()
    os.truncate(files_of(run, 20)[-1], 1)
    before = everything_in(run)
    for read in (lambda one: one.restore(like(state_of(0))), lambda one: one.steps()):
        with opened(run) as checkpoints, pytest.raises(InputError, match=r"no checkpoint .* \(20: .*; 10: .*\)"):
            read(checkpoints)
    assert everything_in(run) == before


def test_a_run_without_checkpoints_has_nothing_to_restore_and_no_folder_is_made(tmp_path):
    with opened(tmp_path / "new") as checkpoints:
        assert checkpoints.restore(like(state_of(0))) is None
        assert checkpoints.steps() == []
        assert checkpoints.describe_latest() == "none was written yet"
    assert not (tmp_path / "new").exists()


def test_what_reads_checkpoints_leaves_them_as_they_are(run):
    os.truncate(files_of(run, 20)[0], 1)
    (run / "checkpoints" / "30.incomplete").mkdir()
    before = everything_in(run)
    restore(run)
    list_checkpoints(run)
    with opened(run) as checkpoints:
        assert checkpoints.steps() == [10]
    assert everything_in(run) == before


def test_the_best_is_the_least_mean_ne_that_verifies(tmp_path):
    save_steps(tmp_path, {10: 0.8, 20: 0.7, 30: None, 40: 0.7, 50: 0.9}, CheckpointConfig(latest=9))
    assert_is_step(restore(tmp_path, best=True), 20)
    said = []
    for path in (files_of(tmp_path, 20)[0], files_of(tmp_path, 40)[-1]):
        path.write_bytes(b"damaged")
    assert_is_step(restore(tmp_path, said, best=True), 10)
    assert [line.split(":")[0] for line in said] == ["checkpoint 20 is skipped", "checkpoint 40 is skipped"]


def test_without_a_validation_the_newest_is_the_best(tmp_path):
    save_steps(tmp_path, {10: None, 20: None})
    assert_is_step(restore(tmp_path, best=True), 20)


def test_a_wanted_step_is_itself_restored_or_refused(run):
    assert_is_step(restore(run, step=10), 10)
    with raises_one_sentence("must hold checkpoint 15", [20, 10]):
        restore(run, step=15)
    files_of(run, 10)[0].unlink()
    with pytest.raises(InputError, match="no checkpoint"):
        restore(run, step=10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda params: params | {"bias": params["bias"][:500]}, "bias is float32[1000] there, but float32[500] here"),
        (lambda params: params | {"bias": params["bias"].astype("bfloat16")}, "but bfloat16[1000] here"),
        (lambda params: params | {"gate": params["bias"]}, "gate is missing there, but float32[1000] here"),
        (lambda params: {"bias": params["bias"]}, "kernel is float32[4, 1000] there, but missing here"),
    ],
    ids=["shape", "dtype", "more", "less"],
)
def test_a_checkpoint_of_another_model_is_refused_with_what_differs(run, change, message):
    state = state_of(0)
    with opened(run) as checkpoints, raises_one_sentence("checkpoints/20 is of another model: params/", message):
        checkpoints.restore(like(state._replace(params=change(state.params))))


def test_saving_a_step_again_changes_nothing(run):
    before = everything_in(run)
    save_steps(run, {20: 0.1})
    assert everything_in(run) == before


def test_a_damaged_step_is_put_aside_and_written_anew_when_training_comes_to_it_again(run):
    for number in (0, 1):
        damaged = files_of(run, 20)[-1]
        damaged.write_bytes(b"precious")
        said = []
        with opened(run, said=said) as checkpoints:
            checkpoints.save(state_of(20), {"next": 20}, judged=None)
        assert "checkpoint 20 is written again" in said[0]
        assert_is_step(restore(run), 20)
        aside = run / "checkpoints" / "damaged" / f"20-{number}"
        assert (aside / damaged.relative_to(run / "checkpoints" / "20")).read_bytes() == b"precious"


@settings(max_examples=10)
@given(
    st.lists(st.one_of(st.none(), st.sampled_from([0.5, 0.7, 0.9])), min_size=1, max_size=7),
    st.integers(1, 3),
    st.one_of(st.none(), st.integers(1, 4)),
)
def test_the_latest_the_best_and_every_so_many_checkpoints_are_kept_and_no_others(mean_nes, latest, every):
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        save_steps(run, dict(enumerate(mean_nes, 1)), CheckpointConfig(latest=latest, every=every))
        steps = range(1, len(mean_nes) + 1)
        known = [ne for ne in mean_nes if ne is not None]
        best = {mean_nes.index(min(known)) + 1} if known else set()
        expected = set(steps[-latest:]) | best | set(steps[every - 1 :: every] if every else ())
        assert set(steps_in(run)) == expected
        with opened(run) as checkpoints:
            assert checkpoints.steps() == sorted(expected)


def test_a_damaged_checkpoint_stays_where_older_ones_are_removed(run):
    os.truncate(files_of(run, 20)[3], 0)
    save_steps(run, {30: 0.95}, CheckpointConfig(latest=2))
    assert steps_in(run) == [10, 20, 30]
    save_steps(run, {40: 0.5}, CheckpointConfig(latest=2))
    assert steps_in(run) == [20, 30, 40]


@pytest.mark.parametrize(("damaged", "mean_ne", "latest"), [(20, 0.5, 2), (10, 0.95, 1)], ids=["latest", "best"])
def test_a_damaged_checkpoint_takes_the_place_of_no_sound_one(run, damaged, mean_ne, latest):
    """The newest but one is no second latest, and the best is none: 10, or 20, is kept in its place."""
    os.truncate(files_of(run, damaged)[3], 0)
    save_steps(run, {30: mean_ne}, CheckpointConfig(latest=latest))
    assert steps_in(run) == [10, 20, 30]


def test_a_run_that_is_set_back_keeps_what_it_saves_next(run):
    with opened(run, CheckpointConfig(latest=1)) as checkpoints:
        checkpoints.restore(like(state_of(0)), step=10)
        checkpoints.save(state_of(15), {"next": 15}, judged=None)
        checkpoints.wait()
        assert checkpoints.steps() == [10, 15, 20]  # 10 is the best
        checkpoints.save(state_of(20), {"next": 20}, judged=None)
        checkpoints.wait()
        assert checkpoints.describe_latest() == f"{run}/checkpoints/20"
        checkpoints.save(state_of(30), {"next": 30}, judged=None)
        assert checkpoints.steps() == [10, 30]


def test_the_latest_is_the_checkpoint_that_was_last_restored_or_saved(run):
    with opened(run) as checkpoints:
        checkpoints.restore(like(state_of(0)), step=10)
        assert checkpoints.describe_latest() == f"{run}/checkpoints/10"
        checkpoints.save(state_of(30), {}, judged=None)
        checkpoints.wait()
        assert checkpoints.describe_latest() == f"{run}/checkpoints/30"


@pytest.fixture(scope="module")
def forks():
    """Starts processes that have imported what they need."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["checkpoint_state"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS.parent), str(TESTS)]))  # or it cannot, on Python 3.11
        forkserver.ensure_running()
    return context


@pytest.mark.parametrize("moment", [*MOMENTS, 0.03, 0.1, 0.17, 0.24])
def test_a_process_killed_while_it_saves_leaves_the_last_completed_checkpoint_sound(run, forks, moment):
    process = forks.Process(target=save_and_die, args=(str(run), moment))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    completed = int((run / "completed").read_text()) if (run / "completed").exists() else 20
    said = []
    restored = restore(run, said)
    assert said == []
    step = int(restored[0].step)
    assert step in (completed, completed + 10)
    assert_is_step(restored, step)
    save_steps(run, {step + 10: None}, CheckpointConfig(latest=LATEST))
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"10", str(step), str(step + 10)}


@contextlib.contextmanager
def no_file_larger_than(size):
    """Stands in for a full disk, whoever runs the tests."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [100, 30_000], ids=["state", "manifest"])
@pytest.mark.parametrize("notice", ["wait", "save", "restore", "close"])
def test_a_full_disk_is_said_in_one_sentence_and_harms_nothing_that_was_saved(run, notice, size):
    checkpoints = Checkpoints(run)
    checkpoints.restore(like(state_of(0)))
    calls = {
        "wait": checkpoints.wait,
        "close": checkpoints.close,
        "save": lambda: checkpoints.save(state_of(40), {}, judged=None),
        "restore": lambda: checkpoints.restore(like(state_of(0))),
    }
    with no_file_larger_than(size):
        checkpoints.save(state_of(30), {"much": "x" * 50_000}, judged=None)
        concurrent.futures.wait([checkpoints._saving])  # says nothing of it yet
    with pytest.raises(InputError, match=r"checkpoints: File too large.*; fix this.*checkpoints/20") as error:
        calls[notice]()
    assert "\n" not in str(error.value)
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"10", "20"}
    assert_is_step(restore(run), 20)
    if notice != "close":
        checkpoints.save(state_of(30), {"next": 30}, judged=None)
        checkpoints.close()
        assert_is_step(restore(run), 30)


def test_a_folder_that_cannot_be_written_is_refused_with_the_reason_and_the_path(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(30, os.strerror(30), "checkpoints/1.incomplete")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with opened(tmp_path) as checkpoints, pytest.raises(InputError, match="Read-only file system, at checkpoints/1"):
        checkpoints.save(state_of(1), {}, judged=None)


def test_old_checkpoints_stay_until_the_new_one_is_complete(run, monkeypatch):
    def fail(*_):
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_manifest", fail)
        with pytest.raises(InputError, match="No space left on device"):
            save_steps(run, {30: None}, CheckpointConfig(latest=1))
    assert steps_in(run) == [10, 20]


def test_the_list_shows_what_is_there_and_what_is_damaged(tmp_path, capsys):
    metrics = {"like": {"ne": 0.81234, "auc": 0.7, "log_loss": 0.5}}
    with opened(tmp_path, CheckpointConfig(latest=9)) as checkpoints:
        checkpoints.save(state_of(10), {"metrics": metrics}, judged=of_ne(0.8))
        checkpoints.save(state_of(20), {}, judged=None)
        checkpoints.save(state_of(30), {}, judged=of_ne(0.7))
    files_of(tmp_path, 30)[0].unlink()
    first, second, third = list_checkpoints(tmp_path)
    assert (first.step, first.judged, first.metrics, first.problem) == (10, of_ne(0.8), metrics, None)
    assert first.bytes == sum(path.stat().st_size for path in files_of(tmp_path, 10))
    assert (second.step, second.judged, second.metrics, second.problem) == (20, None, {}, None)
    assert third.step == 30
    assert "is missing" in third.problem
    main(["checkpoints", str(tmp_path)])
    shown = capsys.readouterr().out
    for text in ("like NE / AUC", "0.8123 / 0.7000", "yes, the best", "is missing", "kB"):
        assert text in shown
    with raises_one_sentence("must be a folder that `siren-rope train` wrote", tmp_path / "nowhere"):
        list_checkpoints(tmp_path / "nowhere")


@pytest.mark.parametrize(("field", "value"), [("seconds", -1.0), ("latest", 0), ("every", 0)])
def test_checkpoint_settings_outside_their_range_are_refused(field, value):
    with raises_one_sentence(field, value):
        CheckpointConfig(**{field: value})


def test_a_mean_ne_that_no_other_can_be_compared_with_is_refused(tmp_path):
    with opened(tmp_path) as checkpoints, raises_one_sentence("mean_ne must be finite", "nan"):
        checkpoints.save(state_of(1), {}, judged=of_ne(float("nan")))


def test_a_checkpoint_of_two_processes_is_restored_over_other_meshes_and_by_one_process(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]

    def start(*job):
        command = [sys.executable, str(TESTS / "checkpoint_processes.py"), str(tmp_path), *map(str, job)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    processes = [start(index, port) for index in range(2)]
    (first, first_error), (second, second_error) = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], first_error + second_error
    assert "No space left on device" in first
    assert "another process failed" in second
    assert steps_in(tmp_path) == [10, 20]
    alone = start()
    _, error = alone.communicate()
    assert alone.returncode == 0, error
