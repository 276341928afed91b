"""Four processes that train one model, and lose one of them."""

import random
import re
import shutil
import signal
import time

import pytest
from trainer import STEPS, TINY, assert_close, assert_same, sound_steps

# Of a process that has lost another: in its own words, or in those of the runtime, which aborts it.
SAID = {75: "start all again with the same command", 128 + signal.SIGABRT: "another task died"}


@pytest.fixture(scope="module")
def command(feed):
    return ["train", feed, *TINY]


@pytest.fixture(scope="module")
def reference_of_four(trainer, command, reference, tmp_path_factory):
    """The run of four processes that nothing disturbs."""
    run = tmp_path_factory.mktemp("four") / "run"
    trainer.run(*command, "--out", run, count=4)
    assert_close(run, reference)
    return run


@pytest.mark.parametrize(
    "victim",
    [
        pytest.param(2, marks=pytest.mark.drill("SIGKILL of one of four processes")),
        pytest.param(0, marks=pytest.mark.drill("SIGKILL of the coordinator of four processes")),
    ],
)
def test_a_lost_process_ends_the_others_and_the_run_goes_on_from_what_was_saved(
    drill, trainer, command, reference_of_four, reference, tmp_path, victim
):
    run = tmp_path / "run"
    with drill.run():
        job = trainer.start(*command, "--out", run, count=4)
        job.wait_until(lambda: bool(sound_steps(run)), "a checkpoint is written")
        saved = sound_steps(run)[-1]
        time.sleep(random.Random(victim).uniform(0, 0.2))
        job.kill(victim)
        for index, code in enumerate(job.finish()):
            assert code == 128 + signal.SIGKILL if index == victim else SAID[code] in job.said(index)
        shutil.copytree(run, tmp_path / "copy")
        said = trainer.run(*command, "--out", run, count=4)
        resumed = int(re.findall(rf"at step (\d+) of {STEPS}", said)[0])
        assert resumed >= saved
        assert_same(run, reference_of_four)
    with drill.run():  # the same on a single device
        said = trainer.run(*command, "--out", tmp_path / "copy")
        assert f"at step {resumed} of {STEPS}" in said
        assert_close(tmp_path / "copy", reference)


@pytest.mark.drill("SIGTERM to one of four processes")
def test_a_process_that_is_asked_to_stop_takes_the_others_along_at_the_same_step(
    drill, trainer, command, reference_of_four, tmp_path
):
    run = tmp_path / "run"
    with drill.run():
        job = trainer.start(*command, "--out", run, count=4)
        job.wait_for_step(6)
        job.processes[2].terminate()
        assert job.finish() == [128 + signal.SIGTERM] * 4
        stopped = [re.findall(rf"stopped at step (\d+) of {STEPS}", job.said(index)) for index in range(4)]
        assert stopped == [stopped[0]] * 4
        step = int(stopped[0][0])
        assert sound_steps(run)[-1] == step
        assert f"at step {step} of {STEPS}" in trainer.run(*command, "--out", run, count=4)
        assert_same(run, reference_of_four)
