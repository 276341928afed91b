"""NaN in the data, in a batch and in a gradient; a clock that jumps."""

import math

import polars as pl
import pytest
from trainer import EVERY_STEP, STEPS, TINY, assert_same, losses


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param("nan-batch", marks=pytest.mark.drill("NaN in a batch")),
        pytest.param("nan-gradient", marks=pytest.mark.drill("NaN in a gradient")),
    ],
)
def test_a_diverged_step_ends_the_run_which_goes_on_from_the_step_before(
    drill, trainer, feed, reference, tmp_path, fault
):
    run = tmp_path / "run"
    command = ["train", feed, "--out", run, *TINY, *EVERY_STEP]
    with drill.run():
        said = trainer.run(*command, faults=(fault, "9"), code=3)
        assert "step 9: the loss is" in said
        assert "nan" in said
        assert "last good checkpoint" in said
        assert "checkpoints/8" in said
        assert max(losses(run)) == 8
        assert f"at step 8 of {STEPS}" in trainer.run(*command)
        assert_same(run, reference)


@pytest.mark.drill("NaN and infinity in the log")
def test_no_nan_or_infinity_of_a_log_reaches_the_loss(drill, trainer, feed, tmp_path):
    events = pl.read_parquet(feed.parent / "events.parquet")
    every_third = pl.int_range(pl.len()) % 3 == 0
    command = ["train", tmp_path / "log.toml", "--out", tmp_path / "run", *TINY]
    (tmp_path / "log.toml").write_text(feed.read_text())
    planted = {
        "quality": (math.inf, "quality"),
        "time": (math.nan, "time"),
    }
    for column, (value, named) in planted.items():
        with drill.run():
            bad = pl.when(every_third).then(value).otherwise(pl.col(column).cast(pl.Float64)).alias(column)
            events.with_columns(bad).write_parquet(tmp_path / "events.parquet")
            said = trainer.run(*command, code=2)
            assert f'"{named}"' in said
            assert "events.parquet" in said
            assert not (tmp_path / "run").exists()
    with drill.run():  # NaN among the numbers is what a missing one is
        missing = pl.when(every_third).then(math.nan).otherwise("quality").alias("quality")
        events.with_columns(missing).write_parquet(tmp_path / "events.parquet")
        trainer.run(*command)
        assert all(math.isfinite(loss) for step in losses(tmp_path / "run").values() for loss in step)


@pytest.mark.drill("clock jumping back by a day")
def test_a_clock_that_jumps_back_changes_nothing_that_is_saved_or_resumed(drill, trainer, feed, reference, tmp_path):
    run = tmp_path / "run"
    command = ["train", feed, "--out", run, *TINY, *EVERY_STEP]
    with drill.run():  # in mid-run
        trainer.run(*command, faults=("clock", "9"))
        assert_same(run, reference)
    run = tmp_path / "resumed"
    command = ["train", feed, "--out", run, *TINY, *EVERY_STEP]
    with drill.run():  # between two runs: the newest checkpoint has the older time
        for faults, step in (((), 6), (("clock", "0"), 12)):
            job = trainer.start(*command, faults=faults)
            job.wait_for_step(step)
            job.processes[0].terminate()
            assert job.finish() == [143]
        trainer.run(*command)
        assert_same(run, reference)
