"""One process that is asked to stop, killed while it writes, or joined by a second trainer."""

import re
import signal

import pytest
from trainer import EVERY_STEP, STEPS, TINY, assert_same

RESUMES = "the same command resumes"


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGTERM, marks=pytest.mark.drill("SIGTERM")),
        pytest.param(signal.SIGINT, marks=pytest.mark.drill("Ctrl-C")),
    ],
)
def test_a_run_that_is_asked_to_stop_resumes_at_its_step_and_ends_as_an_undisturbed_one(
    drill, trainer, feed, reference, tmp_path, number
):
    run = tmp_path / "run"
    command = ["train", feed, "--out", run, *TINY, *EVERY_STEP]
    with drill.run():
        job = trainer.start(*command)
        job.wait_for_step(6)
        job.processes[0].send_signal(number)
        assert job.finish() == [128 + number]
        assert RESUMES in job.said()
        stopped = int(re.findall(rf"stopped at step (\d+) of {STEPS}", job.said())[0])
        assert 6 <= stopped < STEPS
        assert f"at step {stopped} of {STEPS}" in trainer.run(*command)
        assert_same(run, reference)


@pytest.mark.drill("second trainer on one run folder")
def test_a_second_trainer_is_refused_and_leaves_the_first_undisturbed(drill, trainer, feed, reference, tmp_path):
    run = tmp_path / "run"
    command = ["train", feed, "--out", run, *TINY, *EVERY_STEP]
    with drill.run():  # one after the other
        first = trainer.start(*command)
        first.wait_for_step(6)
        said = trainer.run(*command, code=2)
        assert f"{run} is being trained by another process: wait for it, or give another --out" in said
        assert first.finish() == [0]
        assert_same(run, reference)
    run = tmp_path / "both"
    command = ["train", feed, "--out", run, *TINY]
    with drill.run():  # both at once, on a new folder
        jobs = [trainer.start(*command), trainer.start(*command)]
        ended = sorted((job.finish()[0], job.said()) for job in jobs)
        assert [code for code, _ in ended] == [0, 2]
        assert "is being trained by another process" in ended[1][1]
        assert_same(run, reference)
