"""Checkpoints whose files are cut, lost, emptied or flipped, and those whose writer is killed."""

import random
import re
import shutil
import signal
import time

import pytest
from trainer import EVERY_STEP, STEPS, TINY, assert_same, sound_steps

from siren_rope_jax.train.checkpoint_list import list_checkpoints

KILLS, DAMAGES = 20, 50


def truncate(path, draw):
    """Keeps a part of the file."""
    path.write_bytes(path.read_bytes()[: draw.randrange(1, path.stat().st_size)])


def empty(path, draw):
    """Keeps the name alone."""
    path.write_bytes(b"")


def flip(path, draw):
    """Turns one bit over."""
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def delete(path, draw):
    """Loses the file."""
    path.unlink()


@pytest.fixture(scope="module")
def command(feed):
    return ["train", feed, *TINY, *EVERY_STEP]


@pytest.fixture(scope="module")
def stopped(trainer, command, tmp_path_factory):
    """A run that was asked to stop after step 18, with several checkpoints."""
    run = tmp_path_factory.mktemp("stopped") / "run"
    job = trainer.start(*command, "--out", run)
    job.wait_for_step(18)
    job.processes[0].terminate()
    assert job.finish() == [128 + signal.SIGTERM]
    assert len(sound_steps(run)) >= 2
    return run


@pytest.mark.drill("checkpoint file cut, lost, emptied or flipped")
def test_a_run_with_a_damaged_checkpoint_file_goes_on_from_the_newest_sound_checkpoint(
    drill, trainer, command, stopped, reference, tmp_path
):
    draw = random.Random(5)
    files = sorted(path for path in (stopped / "checkpoints").rglob("*") if path.is_file() and path.stat().st_size > 1)
    for number in range(DAMAGES):
        damage, file = draw.choice((truncate, empty, flip, delete)), draw.choice(files)
        run = tmp_path / str(number)
        shutil.copytree(stopped, run)
        damage(run / file.relative_to(stopped), draw)
        step = int(file.relative_to(stopped / "checkpoints").parts[0])
        with drill.run():
            sound = [other for other in sound_steps(stopped) if other != step]
            assert sound_steps(run) == sound, f"{damage.__name__} {file}"
            listed = trainer.run_warm("checkpoints", run)
            assert file.name in re.sub(r"[\s│]", "", listed)  # the table breaks long lines
            said = trainer.run_warm(*command, "--out", run)
            assert f"at step {sound[-1]} of {STEPS}" in said
            assert step < sound[-1] or f"checkpoint {step} is skipped: " in said
            assert_same(run, reference)
        shutil.rmtree(run)


@pytest.mark.drill("every checkpoint damaged")
def test_a_run_whose_checkpoints_are_all_damaged_is_refused_until_one_is_put_back(
    drill, trainer, command, stopped, reference, tmp_path
):
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    draw = random.Random(6)
    for step in sound_steps(run):
        files = [path for path in (run / "checkpoints" / str(step)).rglob("*") if path.is_file()]
        flip(max(files, key=lambda path: path.stat().st_size), draw)
    with drill.run():
        said = trainer.run_warm(*command, "--out", run, code=2)
        for step in sound_steps(stopped):
            assert f"{step}: " in said
        assert "restore the files" in said
        step = sound_steps(stopped)[0]
        shutil.rmtree(run / "checkpoints" / str(step))
        shutil.copytree(stopped / "checkpoints" / str(step), run / "checkpoints" / str(step))
        assert f"at step {step} of {STEPS}" in trainer.run_warm(*command, "--out", run)
        assert_same(run, reference)


@pytest.mark.drill("SIGKILL while a checkpoint is written")
def test_a_killed_writer_leaves_what_was_saved_sound_and_the_run_goes_on_from_it(drill, trainer, command, tmp_path):
    run, reference = tmp_path / "run", tmp_path / "reference"
    long = [*command, "--steps", "120"]
    trainer.run(*long, "--out", reference)
    folder, draw, hits = run / "checkpoints", random.Random(7), 0

    def unfinished():
        names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        return {name for name in names if not name.isdecimal() and name != "damaged"}

    while hits < KILLS:
        before, earlier = unfinished(), sound_steps(run)
        job = trainer.start(*long, "--out", run)
        job.wait_until(lambda before=before: bool(unfinished() - before), "a checkpoint is written")
        saved = sound_steps(run)
        time.sleep(draw.uniform(0, 0.2))
        job.kill()
        assert job.finish() == [128 + signal.SIGKILL]
        hits += bool(unfinished())
        with drill.run():
            left = list_checkpoints(run)
            assert [checkpoint.problem for checkpoint in left] == [None] * len(left)
            assert [checkpoint.step for checkpoint in left][-1:] >= saved[-1:]
            resumed = re.findall(r"at step (\d+) of", job.said())
            assert resumed == [str(step) for step in earlier[-1:]]
    trainer.run(*long, "--out", run)
    assert_same(run, reference)
    assert not unfinished()
