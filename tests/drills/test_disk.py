"""A disk that fills up while a checkpoint is written, and folders that must not be written."""

import contextlib
import ctypes
import resource
import subprocess

import pytest
from trainer import EVERY_STEP, STEPS, TINY, assert_same

from siren_rope_jax.train.checkpoint_list import list_checkpoints

_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE = 24, 1


@contextlib.contextmanager
def small_disk(folder):
    """A disk of 8 MB where this user may mount one; yields how it is filled up beside a process, and freed."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True)
    filler = folder / "filler"

    def fill(process):
        with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
            while True:
                file.write(b"0" * 4096)

    def limit(process):  # no disk can be mounted here: nor can this process write files beyond this size
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, 0))

    try:
        yield (limit if mounted.returncode else fill), lambda: filler.unlink(missing_ok=True)
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.drill("full disk")
def test_a_full_disk_would_hang_the_run_or_cost_what_was_saved(drill, trainer, feed, reference, tmp_path):
    with drill.run(), small_disk(tmp_path / "disk") as (fill, free):
        run = tmp_path / "disk" / "run"
        command = ["train", feed, "--out", run, *TINY, *EVERY_STEP]
        job = trainer.start(*command)
        job.wait_for_step(6)
        saved = list_checkpoints(run)[-1].step
        with contextlib.suppress(subprocess.TimeoutExpired):
            for _ in range(600):  # again and again, as old checkpoints are removed
                fill(job.processes[0])
                job.processes[0].wait(0.1)
                break
        assert job.finish() == [2]
        assert "no checkpoint can be written in" in job.said()
        assert "No space left on device" in job.said() or "File too large" in job.said()
        assert "the same command goes on from the last one" in job.said()
        left = list_checkpoints(run)
        assert [checkpoint.problem for checkpoint in left] == [None] * len(left)
        assert left[-1].step >= saved
        free()
        assert f"at step {left[-1].step} of {STEPS}" in trainer.run(*command)
        assert_same(run, reference, resumed=left[-1].step)


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
def test_a_read_only_run_folder_would_be_a_puzzle_or_cost_what_was_saved(drill, trainer, feed, reference, tmp_path):
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
        assert_same(run, reference, resumed=left[-1])
