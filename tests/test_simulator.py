"""The simulated feed: its events, its reproducibility and its files."""

import tomllib
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from siren_rope_jax.data.simulator import (
    SimulatedFeed,
    SimulatorConfig,
    simulate,
    write_simulated_log,
)
from siren_rope_jax.data.simulator_labels import TASKS

DAY = 86_400
MONDAY = 1_704_067_200
EVENT_COLUMNS = ["user_id", "item_id", "time", "topic", "format", "quality", *TASKS]


@pytest.fixture(scope="module")
def feed() -> SimulatedFeed:
    return simulate(SimulatorConfig(users=3_000, seed=7))


@pytest.fixture(scope="module")
def small() -> SimulatedFeed:
    return simulate(SimulatorConfig(users=300, seed=3))


@pytest.mark.slow
def test_events_and_truth_are_aligned_and_complete(feed: SimulatedFeed) -> None:
    assert feed.events.columns == EVENT_COLUMNS
    assert feed.truth.columns == ["user_id", "time"] + [
        f"p_{kind}_{task}" for kind in ("full", "bayes") for task in TASKS
    ]
    assert feed.events.select("user_id", "time").equals(feed.truth.select("user_id", "time"))
    assert feed.events.null_count().sum_horizontal().item() == 0
    assert feed.events["time"].dtype == pl.Int64
    assert feed.events["user_id"].unique().sort().to_list() == list(range(3_000))


@pytest.mark.slow
def test_rows_are_sorted_by_user_and_each_users_times_strictly_increase(feed: SimulatedFeed) -> None:
    user, time = feed.events["user_id"].to_numpy(), feed.events["time"].to_numpy()
    same = user[1:] == user[:-1]
    assert (user[1:] >= user[:-1]).all()
    assert np.diff(time)[same].min() >= 1


def test_no_user_has_over_64_events_or_a_topic_outside_the_eight(feed: SimulatedFeed) -> None:
    counts = feed.events.group_by("user_id").len()["len"]
    assert counts.max() == 64
    assert 50 < counts.to_numpy().mean() < 55
    assert feed.events["topic"].unique().sort().to_list() == list(range(8))
    assert feed.events["format"].unique().sort().to_list() == [0, 1, 2]
    for task in TASKS:
        assert feed.events[task].unique().sort().to_list() == [0, 1]


@pytest.mark.parametrize("days", [7, 56])
def test_all_events_lie_within_the_days_asked_for(days: int) -> None:
    time = simulate(SimulatorConfig(users=200, days=days)).events["time"].to_numpy()
    assert time.min() >= MONDAY
    assert time.max() < MONDAY + days * DAY
    assert time.max() - time.min() > (days - 1) * DAY


def test_gaps_make_ordinal_distance_a_poor_clock(feed: SimulatedFeed) -> None:
    user, time = feed.events["user_id"].to_numpy(), feed.events["time"].to_numpy()
    gaps = np.diff(time)[user[1:] == user[:-1]]
    median, upper, extreme = np.quantile(gaps, [0.5, 0.75, 0.99])
    assert 3.5 * 60 < median < 4.5 * 60
    assert 19 * 3_600 < upper < 23 * 3_600
    assert 240 * 3_600 < extreme < 290 * 3_600


def test_an_items_topic_format_and_quality_are_its_own_whatever_the_seed(
    feed: SimulatedFeed, small: SimulatedFeed
) -> None:
    both = pl.concat([feed.events, small.events])
    described = both.select("item_id", "topic", "format", "quality").unique()
    assert described["item_id"].is_unique().all()
    assert described.height > 3_900


def test_item_marginals_match_the_specification(feed: SimulatedFeed) -> None:
    shares = feed.events["format"].value_counts(normalize=True).sort("format")["proportion"].to_numpy()
    np.testing.assert_allclose(shares, [0.40, 0.35, 0.25], atol=0.006)
    quality = feed.events["quality"].to_numpy()
    assert abs(quality.mean()) < 0.012
    assert abs(quality.std() - 1) < 0.012
    mixes = feed.events.pivot("topic", index="user_id", values="time", aggregate_function="len").drop("user_id")
    topics = mixes.fill_null(0).to_numpy()
    pairs = (topics * (topics - 1)).sum() / (topics.sum(1) * (topics.sum(1) - 1)).sum()
    assert abs(pairs - 1.5 / 5) < 0.012  # two events share a topic: (.5 + 1) / (8 * .5 + 1) under Dirichlet(.5)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    config = SimulatorConfig(users=300, seed=3)
    for name in ("once", "again"):
        write_simulated_log(simulate(config), tmp_path / name)
    write_simulated_log(simulate(SimulatorConfig(users=300, seed=4)), tmp_path / "other")
    assert contents(tmp_path / "once") == contents(tmp_path / "again")
    for name in ("events.parquet", "truth.parquet"):
        assert (tmp_path / "once" / name).read_bytes() != (tmp_path / "other" / name).read_bytes()


def test_written_log_reads_back_and_its_toml_never_names_the_truth(small: SimulatedFeed, tmp_path: Path) -> None:
    path = write_simulated_log(small, tmp_path / "new" / "feed")
    spec = tomllib.loads(path.read_text(encoding="utf-8"))
    assert spec == {
        "log": {
            "files": ["events.parquet"],
            "user": "user_id",
            "item": "item_id",
            "timestamp": "time",
            "timestamp_unit": "s",
            "time_zone": "UTC",
        },
        "tasks": {task: task for task in TASKS},
        "features": {"categorical": ["topic", "format"], "dense": ["quality"]},
        "split": {"by": "user", "validation_from": 0.8, "test_from": 0.9},
    }
    assert sorted(contents(path.parent)) == ["events.parquet", "log.toml", "truth.parquet"]
    assert pl.read_parquet(path.parent / spec["log"]["files"][0]).equals(small.events)
    assert pl.read_parquet(path.parent / "truth.parquet").equals(small.truth)
    assert not any(column.startswith("p_") for column in small.events.columns)


def test_writing_the_same_feed_again_is_harmless(small: SimulatedFeed, tmp_path: Path) -> None:
    write_simulated_log(small, tmp_path)
    before = contents(tmp_path)
    write_simulated_log(small, tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("occupied", ["events.parquet", "truth.parquet", "log.toml"])
def test_a_folder_with_a_different_log_is_refused_and_left_as_it_was(
    small: SimulatedFeed, tmp_path: Path, occupied: str
) -> None:
    (tmp_path / occupied).write_bytes(b"somebody's work")
    with pytest.raises(FileExistsError, match=rf"{occupied} already holds a different log; choose"):
        write_simulated_log(small, tmp_path)
    assert contents(tmp_path) == {occupied: b"somebody's work"}


def test_a_file_in_place_of_the_folder_is_refused(small: SimulatedFeed, tmp_path: Path) -> None:
    (tmp_path / "feed").write_bytes(b"somebody's work")
    with pytest.raises(FileExistsError, match="must be a folder, but is a file"):
        write_simulated_log(small, tmp_path / "feed")
    assert contents(tmp_path) == {"feed": b"somebody's work"}


def test_a_write_that_fails_midway_leaves_nothing_behind(
    small: SimulatedFeed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_simulated_log(small, tmp_path)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"users": 0}, ValueError, r"users must be between 1 and \d+, but is 0$"),
        ({"users": 2.5}, TypeError, "users"),  # the words are the type checker's where it is on
        ({"users": True}, TypeError, r"users must be an integer, but is True$"),
        ({"seed": -1}, ValueError, r"seed must be between 0 and \d+, but is -1$"),
        ({"days": 6}, ValueError, r"days must be between 7 and 366, but is 6$"),
    ],
)
def test_a_bad_config_is_refused_in_one_sentence(arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SimulatorConfig(**arguments)


def test_seconds_of_dwell_change_nothing_else_and_are_long_where_the_label_says_so(tmp_path: Path) -> None:
    plain, measured = (simulate(SimulatorConfig(users=300, seed=3, dwell_seconds=dwell)) for dwell in (False, True))
    assert measured.events.drop("dwell_seconds").equals(plain.events)
    assert measured.truth.drop("median_full_dwell_seconds").equals(plain.truth)
    dwell, median = measured.events["dwell_seconds"].to_numpy(), measured.truth["median_full_dwell_seconds"].to_numpy()
    np.testing.assert_array_equal(dwell > 60, plain.events["long_dwell"].to_numpy() == 1)
    assert np.mean(dwell > median) == pytest.approx(0.5, abs=0.02)  # four standard errors
    noise = np.log(dwell / median) / 0.7
    assert noise.std() == pytest.approx(np.pi / np.sqrt(3), rel=0.03)  # of the standard logistic distribution
    assert abs(np.corrcoef(noise, np.log(median))[0, 1]) < 0.04
    described = tomllib.loads(write_simulated_log(measured, tmp_path).read_text())
    dwell_task = {"column": "dwell_seconds", "kind": "continuous", "transform": "log1p"}
    assert described["tasks"] == {"like": "like", "contribution": "contribution", "dwell": dwell_task}
