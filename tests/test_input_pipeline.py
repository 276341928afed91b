"""The benchmark of the input pipeline: the log it writes is as long and as real as it says, and what it measures."""

import time

import polars as pl
import pytest
from small_logs import sequences

from experiments.benchmarks import input_pipeline
from experiments.benchmarks.input_pipeline import measure_pipeline, waiting_share, write_csv_log
from siren_rope_jax.data.batches import BatchConfig, make_rows


def test_a_log_longer_than_its_simulation_repeats_it_under_new_users_in_order_of_time(tmp_path, monkeypatch):
    monkeypatch.setattr(input_pipeline, "_SIMULATED_EVENTS", 1000)
    write_csv_log(tmp_path / "once", events=1000)
    write_csv_log(tmp_path / "repeated", events=2500)
    once, repeated = (pl.read_csv(tmp_path / name / "events.csv") for name in ("once", "repeated"))
    assert repeated.height == 2500
    assert repeated["time"].is_sorted()
    assert not repeated.is_duplicated().any()
    assert repeated["user_id"].n_unique() > 2 * once["user_id"].n_unique()
    seen = repeated.drop("user_id").unique()
    assert seen.join(once, on=seen.columns, how="semi").height == seen.height


@pytest.mark.slow
def test_every_event_is_measured_in_a_process_of_its_own(tmp_path):
    cost = measure_pipeline(write_csv_log(tmp_path, events=3000), timeout=3600)
    assert cost.events == 3000
    assert all(seconds > 0 for seconds in cost.seconds.values())
    assert cost.events_per_second == pytest.approx(3000 / sum(cost.seconds.values()))
    assert 0.05 < cost.peak_gib < 2


def test_the_share_of_waiting_leaves_out_the_step_itself():
    encoded = sequences([8] * 20)
    config = BatchConfig(window=8, row_length=8, batch_size=4)
    rows = make_rows(encoded, encoded.user >= 0, config)
    seconds, share = waiting_share(encoded, rows, config, lambda batch: time.sleep(0.02), steps=3)
    assert 0 < share < seconds / 0.02
