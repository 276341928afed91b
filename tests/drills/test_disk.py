"""A disk that fills up while a checkpoint is written, and folders that must not be written."""

import contextlib
import ctypes
import resource
import subprocess
import time

import pytest
from trainer import EVERY_STEP, STEPS, TINY, assert_same, sound_steps

from siren_rope_jax.train.checkpoint_list import list_checkpoints

_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE = 24, 1


@contextlib.contextmanager
def small_disk(folder):
    """A disk of 8 MB where this user may mount one; yields what fills it up for a process, and what frees it."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True)
    filler = folder / "filler"

    def fill(process):
        with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
            while True:
                file.write(b"0" * 4096)

    def limit(process):  # where none can be mounted: no file of the process may grow beyond this
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (20_000, 20_000))

    try:
        yield (limit if mounted.returncode else fill), lambda: filler.unlink(missing_ok=True)
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(EVERY_STEP, marks=pytest.mark.drill("full disk while a checkpoint is written")),
        pytest.param(
            ["--steps", "600", "--evaluations", "2"], marks=pytest.mark.drill("full disk between two checkpoints")
        ),
    ],
)
def test_a_full_disk_ends_the_run_which_goes_on_from_what_was_saved_once_there_is_room(
    drill, trainer, feed, tmp_path, flags
):
    reference = tmp_path / "reference"
    command = ["train", feed, *TINY, *flags]
    trainer.run(*command, "--out", reference)
    with drill.run(), small_disk(tmp_path / "disk") as (fill, free):
        run = tmp_path / "disk" / "run"
        job = trainer.start(*command, "--out", run)
        job.wait_until(lambda: bool(sound_steps(run)), "a checkpoint is written")
        saved = sound_steps(run)[-1]
        end = time.monotonic() + 60
        while job.processes[0].poll() is None:
            assert time.monotonic() < end, f"it hangs: {job.said()}"
            fill(job.processes[0])  # again and again, as old checkpoints are removed
            time.sleep(0.05)
        assert job.finish() == [2]
        assert "No space left on device" in job.said() or "File too large" in job.said()
        assert "the same command resumes from" in job.said()
        assert "Traceback" not in job.said()
        left = list_checkpoints(run)
        assert [checkpoint.problem for checkpoint in left] == [None] * len(left)
        assert left[-1].step >= saved
        free()
        assert f"at step {left[-1].step} of" in trainer.run(*command, "--out", run)
        assert_same(run, reference)


def obey_modes():
    """Makes the modes of files hold for this process even if it is root's."""
    ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, 0, 0, 0)


@contextlib.contextmanager
def read_only(folder):
    """Takes the right to write in a folder, its files and the folders below."""
    below = [folder, *folder.rglob("*")]
    modes = {path: path.stat().st_mode for path in below}
    for path in below:
        path.chmod(modes[path] & ~0o222)
    try:
        yield
    finally:
        for path in below:
            path.chmod(modes[path])


@pytest.mark.drill("read-only run folder")
def test_a_read_only_run_folder_is_named_and_costs_nothing_that_was_saved(drill, trainer, feed, reference, tmp_path):
    run = tmp_path / "run"
    command = ["train", feed, "--out", run, *TINY, *EVERY_STEP]
    with drill.run():  # where it should be made
        with read_only(tmp_path):
            said = trainer.run(*command, setup=obey_modes, code=2)
        assert f"{run}: Permission denied" in said
    with drill.run():  # in mid-run
        job = trainer.start(*command, setup=obey_modes)
        job.wait_for_step(6)
        saved = list_checkpoints(run)[-1].step
        (run / "checkpoints").chmod(0o555)
        assert job.finish() == [2]
        (run / "checkpoints").chmod(0o755)
        assert f"no checkpoint can be written in {run / 'checkpoints'}: Permission denied" in job.said()
        left = [checkpoint.step for checkpoint in list_checkpoints(run) if checkpoint.problem is None]
        assert left[-1] >= saved
    with drill.run(), read_only(run):  # on resumption; reading goes on to work
        said = trainer.run(*command, setup=obey_modes, code=2)
        assert str(run) in said
        assert "Permission denied" in said
        assert str(left[-1]) in trainer.run("checkpoints", run, setup=obey_modes)
        events, scores = feed.parent / "events.parquet", tmp_path / "scores.csv"
        trainer.run("score", run, "--events", events, "--out", scores, setup=obey_modes)
    with drill.run():
        assert f"at step {left[-1]} of {STEPS}" in trainer.run(*command, setup=obey_modes)
        assert_same(run, reference)
