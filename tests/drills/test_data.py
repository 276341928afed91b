"""Files of the log that are lost, cut or changed between two parts of a run."""

import signal

import polars as pl
import pytest
from trainer import EVERY_STEP, STEPS, TINY, assert_same


@pytest.mark.drill("missing, cut or changed data shard")
def test_a_run_refuses_other_data_and_goes_on_once_its_own_are_back(drill, trainer, feed, reference, tmp_path):
    events = pl.read_parquet(feed.parent / "events.parquet")
    halves = tmp_path / "0.csv", tmp_path / "1.csv"
    events.filter(pl.col("user_id") < 30).write_csv(halves[0])
    events.filter(pl.col("user_id") >= 30).write_csv(halves[1])
    log, run = tmp_path / "log.toml", tmp_path / "run"
    log.write_text(feed.read_text().replace('["events.parquet"]', '["0.csv", "1.csv"]'))
    command = ["train", log, "--out", run, *TINY, *EVERY_STEP]
    job = trainer.start(*command)
    job.wait_for_step(6)
    job.processes[0].terminate()
    assert job.finish() == [128 + signal.SIGTERM]
    whole = halves[1].read_bytes()
    lines = whole.splitlines(keepends=True)
    saved = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    changed = lines[-1].replace(b"0\n", b"1\n") if lines[-1].endswith(b"0\n") else lines[-1].replace(b"1\n", b"0\n")
    for name, content, expected in (
        ("missing", None, "1.csv"),
        ("empty", b"", "1.csv"),
        ("cut in a line", whole[: -len(lines[-1]) - 12], "fields and no line break, as where a file was cut"),
        ("cut between lines", b"".join(lines[:-100]), "these files have changed since"),
        ("one label changed", b"".join([*lines[:-1], changed]), "these files have changed since"),
    ):
        with drill.run():
            halves[1].unlink() if content is None else halves[1].write_bytes(content)
            said = trainer.run_warm(*command, code=2)
            assert expected in said, name
            assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == saved
    halves[1].write_bytes(whole)
    with drill.run():
        said = trainer.run_warm(*command)
        step = int(said.split("at step ")[1].split()[0])
        assert 6 <= step < STEPS
        assert_same(run, reference)
