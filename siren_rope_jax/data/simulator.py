"""Simulated news feed with known true and best possible (Bayes) probabilities.

Users open the feed in sessions with a daily and weekly rhythm; simulator_labels.py defines how their labels depend on
the past. Since the best possible prediction of every label is known, a model can be scored by the share of the gain
from a baseline to that oracle that it captures.
"""

import dataclasses
import filecmp
import os
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import i0
from scipy.stats import norm

from siren_rope_jax.data.simulator_kernels import KERNELS, KernelName
from siren_rope_jax.data.simulator_labels import (
    CHUNK_USERS,
    MAX_EVENTS,
    TASKS,
    TOPICS,
    Histories,
    draw_labels,
    dwell_seconds,
)

START = 1_704_067_200  # Monday 2024-01-01 00:00:00 UTC

_HOUR, _DAY = 3_600, 86_400
_ITEMS = 4_000
_FORMAT_SHARES = (0.40, 0.35, 0.25)
_CONCENTRATION = 3.5  # concentration of the daily peaks

_DWELL = 'dwell = { column = "dwell_seconds", kind = "continuous", transform = "log1p" }'
_LOG_TOML = """\
# A simulated news feed. The true probabilities, row for row, are in truth.parquet: no model may read them.
[log]
files = ["events.parquet"]
user = "user_id"
item = "item_id"
timestamp = "time"
timestamp_unit = "s"
time_zone = "UTC"

[tasks]
TASKS

[features]
categorical = ["topic", "format"]
dense = ["quality"]

[split]
by = "user"
validation_from = 0.8
test_from = 0.9
"""


@dataclasses.dataclass(frozen=True)
class SimulatorConfig:
    """Settings of a simulated feed; everything else is fixed, so that results are comparable.

    Args:
      users: number of users, about 52 events each.
      seed: seed of the users and their events; the item catalogue is the same for every seed, so that a model can be
        scored on users of another seed.
      days: length of the feed; more days spread the same number of sessions over a longer time.
      kernel: what the labels depend on beside item and affinity: the feed's own kernel of earlier labels; one planted
        relation alone, of a day, a week, an exponential or power-law decay, or of the content (each topic has its own
        daily phase and decay); the hour without any relation; or none of these.
      dwell_seconds: whether events have seconds of dwell, over a minute if long_dwell is 1. The description then has
        the task dwell in place of long_dwell. Nothing else changes.

    Raises:
      TypeError: if a number is not an integer.
      ValueError: if a value is out of range.
    """

    users: int = 20_000
    seed: int = 0
    days: int = 56
    kernel: KernelName = "feed"
    dwell_seconds: bool = False

    def __post_init__(self) -> None:
        if self.kernel not in KERNELS:
            raise ValueError(f"SimulatorConfig.kernel must be one of {', '.join(KERNELS)}, but is {self.kernel!r}")
        for name, low, high in (("users", 1, 10_000_000), ("seed", 0, 2**63 - 1), ("days", 7, 366)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"SimulatorConfig.{name} must be an integer, but is {value!r}")
            if not low <= value <= high:
                raise ValueError(f"SimulatorConfig.{name} must be between {low} and {high}, but is {value}")


@dataclasses.dataclass(frozen=True)
class SimulatedFeed:
    """A simulated log and the probabilities of its labels, row for row.

    Args:
      events: data that a model may read, sorted by user, then time: user_id, item_id, time (Unix seconds, strictly
        increasing within a user), topic, format, quality, like, contribution, long_dwell (0 or 1), and dwell_seconds
        if the config asks for them.
      truth: user_id, time, p_full_<task> (the probability that the label was drawn from) and p_bayes_<task>
        (the best prediction from the event's item and the user's strictly earlier events); with dwell_seconds,
        their median_full.
    """

    events: pl.DataFrame
    truth: pl.DataFrame


def simulate(config: SimulatorConfig) -> SimulatedFeed:
    """Draws a feed and computes its true and Bayes-oracle probabilities.

    Args:
      config: size, length and seed.

    Returns:
      Events and truth, rows aligned. The same config gives the same values.

    Source: our own generative model; its constants are chosen so that ordinal distance is a poor measure of time.
    """
    catalogue = _item_catalogue()
    chunks = [_simulate_users(config, first, catalogue) for first in range(0, config.users, CHUNK_USERS)]
    events = pl.concat([chunk.events for chunk in chunks], rechunk=True)
    return SimulatedFeed(events, pl.concat([chunk.truth for chunk in chunks], rechunk=True))


def write_simulated_log(feed: SimulatedFeed, folder: Path | str) -> Path:
    """Writes events.parquet, truth.parquet and log.toml, each atomically, log.toml last.

    Args:
      feed: feed that `simulate` returned.
      folder: target folder; created if absent. Writing the same feed again changes nothing.

    Returns:
      Path of log.toml, which refers only to events.parquet.

    Raises:
      FileExistsError: if `folder` is a file or already holds a different log; nothing is changed then.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"Cannot write the simulated log: {folder} must be a folder, but is a file")
    folder.mkdir(parents=True, exist_ok=True)
    names = ("events.parquet", "truth.parquet", "log.toml")
    with tempfile.TemporaryDirectory(prefix=".simulated-", dir=folder) as scratch_name:
        scratch = Path(scratch_name)
        feed.events.write_parquet(scratch / "events.parquet")
        feed.truth.write_parquet(scratch / "truth.parquet")
        measured = "dwell_seconds" in feed.events.columns
        tasks = [_DWELL if measured and task == "long_dwell" else f'{task} = "{task}"' for task in TASKS]
        described = _LOG_TOML.replace("TASKS", "\n".join(tasks))
        (scratch / "log.toml").write_text(described, encoding="utf-8", newline="\n")
        for name in names:
            if (folder / name).exists() and not filecmp.cmp(folder / name, scratch / name, shallow=False):
                raise FileExistsError(
                    f"Cannot write the simulated log: {folder / name} already holds a different log; "
                    "choose an empty folder or remove it first"
                )
        for name in names:
            os.replace(scratch / name, folder / name)
    return folder / "log.toml"


def _simulate_users(config: SimulatorConfig, first: int, catalogue: pl.DataFrame) -> SimulatedFeed:
    users = min(CHUNK_USERS, config.users - first)
    rng = np.random.Generator(np.random.PCG64([config.seed, first]))
    time, valid = _draw_times(rng, users, config.days)
    topic_mix = rng.dirichlet(np.full(TOPICS, 0.5), users).cumsum(1)[:, None, :-1]
    topic = (rng.random((users, MAX_EVENTS, 1)) > topic_mix).sum(-1)
    item = topic + TOPICS * rng.integers(_ITEMS // TOPICS, size=topic.shape)  # item i has topic i % TOPICS
    item_format = catalogue["format"].to_numpy().astype(np.int64)[item]
    quality = catalogue["quality"].to_numpy().astype(np.float64)[item]
    histories = Histories(time, topic, item_format, quality, valid)
    drawn = draw_labels(rng, histories, config.kernel)

    user_id = first + np.nonzero(valid)[0]
    events = pl.DataFrame(
        {"user_id": user_id, "item_id": item[valid], "time": time[valid]}
        | {"topic": topic[valid].astype(np.int8), "format": item_format[valid].astype(np.int8)}
        | {"quality": quality[valid].astype(np.float32)}
        | {task: drawn.labels[valid][:, k].astype(np.int8) for k, task in enumerate(TASKS)}
    )
    truth = pl.DataFrame(
        {"user_id": user_id, "time": time[valid]}
        | {f"p_full_{task}": drawn.full[valid][:, k] for k, task in enumerate(TASKS)}
        | {f"p_bayes_{task}": drawn.bayes[valid][:, k] for k, task in enumerate(TASKS)}
    )
    if config.dwell_seconds:
        dwell, median = (seconds[valid].astype(np.float32) for seconds in dwell_seconds(drawn))
        events = events.with_columns(dwell_seconds=dwell)
        truth = truth.with_columns(median_full_dwell_seconds=median)
    return SimulatedFeed(events, truth)


def _item_catalogue() -> pl.DataFrame:
    """Makes format and quality of each item; every topic has exactly the given shares and normal quantiles."""
    rng = np.random.Generator(np.random.PCG64(20_240_101))
    per_topic = _ITEMS // TOPICS
    formats = np.repeat(np.arange(3, dtype=np.int8), [round(share * per_topic) for share in _FORMAT_SHARES])
    quality = norm.ppf((np.arange(per_topic) + 0.5) / per_topic).astype(np.float32)
    return pl.DataFrame(
        {
            "format": np.stack([rng.permutation(formats) for _ in range(TOPICS)], axis=1).ravel(),
            "quality": np.stack([rng.permutation(quality) for _ in range(TOPICS)], axis=1).ravel(),
        }
    )


def _draw_times(rng: np.random.Generator, users: int, days: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Draws Unix seconds [users, 64] of each user's first events, strictly increasing, and whether each is real."""
    sessions = np.clip(rng.poisson(26, users), 8, 48)
    starts = _draw_session_starts(rng, users, days)
    sizes = np.minimum(14, 1 + np.floor(1.2 * rng.pareto(1.6, starts.shape)))
    gaps = rng.lognormal(4.2, 0.9, (*starts.shape, 14))
    gaps[..., 0] = 0.0
    real = (np.arange(14) < sizes[..., None]) & (np.arange(starts.shape[1]) < sessions[:, None])[..., None]
    elapsed = np.where(real, starts[..., None] + gaps.cumsum(-1), np.inf).reshape(users, -1)
    elapsed = np.sort(elapsed, axis=1)[:, :MAX_EVENTS]
    horizon = days * _DAY
    seconds = np.minimum(elapsed, horizon).astype(np.int64)
    position = np.arange(MAX_EVENTS)
    seconds = np.maximum.accumulate(seconds - position, axis=1) + position  # at least 1 s apart
    return START + seconds, seconds < horizon


def _draw_session_starts(rng: np.random.Generator, users: int, days: int) -> NDArray[np.float64]:
    """Draws seconds since the start [users, 48], unsorted, by inverse CDF of the hourly intensity."""
    cumulative = np.pad(_hourly_intensity(rng, users, days).cumsum(1), ((0, 0), (1, 0)))
    cumulative /= cumulative[:, -1:]
    row = np.arange(users)[:, None]
    drawn = rng.random((users, 48))
    # Rows shifted by their index form one ascending array, so that one search serves all users.
    hour = np.searchsorted((cumulative + row).ravel(), (drawn + row).ravel(), side="right").reshape(users, 48)
    hour = np.clip(hour - 1 - row * cumulative.shape[1], 0, days * 24 - 1)
    low, high = cumulative[row, hour], cumulative[row, hour + 1]
    return _HOUR * (hour + np.clip((drawn - low) / (high - low), 0.0, 1.0))


def _hourly_intensity(rng: np.random.Generator, users: int, days: int) -> NDArray[np.float64]:
    """Draws the rate of sessions [users, 24 days]: a daily rhythm, another at weekends, and periods of absence."""
    centres = rng.normal([8.0, 20.5, 13.0], [1.2, 1.5, 1.0], (users, 3))
    weights = rng.dirichlet([1.2, 1.2, 0.6], users)
    weekday = _daily_rhythm(centres, weights)
    weekend = _daily_rhythm(centres + 1.5, rng.permuted(weights, axis=1))
    volume = rng.lognormal(-0.2, 0.5, (users, 1))
    week = np.concatenate([weekday] * 5 + [weekend * volume] * 2, axis=1)
    hours = days * 24
    rhythm = np.tile(week, (1, -(-days // 7)))[:, :hours]

    switches = 24 * np.clip(rng.pareto(1.3, (users, hours // 8 + 1)), 1 / 3, 14).cumsum(1)
    user, column = np.nonzero(switches < hours)
    flips = np.bincount(user * hours + switches[user, column].astype(np.int64), minlength=users * hours)
    away = (flips.reshape(users, hours).cumsum(1) + rng.integers(2, size=(users, 1))) % 2
    return rhythm * np.where(away, 0.06, 1.0)


def _daily_rhythm(centres: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the intensity per hour [users, 24]: a mixture of von Mises densities plus a small constant."""
    phase = 2 * np.pi * (np.arange(24) + 0.5 - centres[..., None]) / 24
    density = np.exp(_CONCENTRATION * np.cos(phase)) / (24 * i0(_CONCENTRATION))
    return (weights[..., None] * density).sum(1) + 0.01
