"""The README's example and description run as they stand."""

import re
from pathlib import Path

import numpy as np
import polars as pl

from siren_rope_jax.data.event_log import read_event_log
from siren_rope_jax.data.schema import EventLogSpec

README = (Path(__file__).parents[1] / "README.md").read_text()


def _block(language):
    return re.search(rf"```{language}\n(.*?)```", README, re.DOTALL).group(1)


def test_the_example_of_the_ops_runs():
    scope = {}
    exec(_block("python"), scope)
    assert scope["attended"].shape == (1, 3, 8, 64)
    assert np.isfinite(scope["attended"]).all()
    assert len(_block("python").splitlines()) < 25


def test_the_log_description_reads_a_log_of_its_columns(tmp_path):
    (tmp_path / "my_log.toml").write_text(_block("toml"))
    events, rng = 60, np.random.default_rng(0)
    time = 1_650_000_000 + 3_600 * np.arange(events)
    pl.DataFrame(
        {
            "user_id": rng.integers(0, 5, events),
            "movie_id": rng.integers(0, 9, events),
            "time": time,
            "is_click": rng.integers(0, 2, events),
            "rating": rng.integers(1, 11, events),
            "is_comment": rng.integers(0, 2, events),
            "is_follow": rng.integers(0, 2, events),
            "dwell60": rng.integers(0, 2, events),
            "dwell_observed": rng.integers(0, 2, events),
            "next_event_time": time + 61,
            "is_like": rng.integers(0, 2, events),
            "like_time": time + 90,
            "tab": rng.integers(0, 3, events),
            "duration_ms": rng.integers(1_000, 9_000, events),
        }
    ).write_csv(tmp_path / "ratings.csv")
    pl.DataFrame({"movie_id": range(9), "genre": ["drama", "news", "short"] * 3}).write_csv(tmp_path / "movies.csv")
    log = read_event_log(EventLogSpec.from_toml(tmp_path / "my_log.toml"))
    assert log.task_names == ("click", "like", "contribution", "long_dwell")
    assert log.categorical_names == ("tab", "genre")
    assert (log.period == 0).sum() == 42
