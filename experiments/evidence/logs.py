"""The logs that grids train on, and the settings that all variants share on each.

Published logs lie in one folder, each in a folder of its own as published; flights are read from an installed package.
The settings were chosen with ordinal RoPE on validation.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from experiments.demo import ORDINAL, get_config, read_oracle
from experiments.evidence.forgetting import fsrs_metrics
from siren_rope_jax.data import (
    BatchConfig,
    InputConfig,
    SimulatorConfig,
    prepare_deskdrop,
    prepare_flights,
    prepare_kuairand_pure,
    prepare_noshow,
    prepare_reviews,
    simulate,
    write_simulated_log,
)
from siren_rope_jax.data.event_log import EventLog, read_event_log
from siren_rope_jax.data.flights import installed_flights
from siren_rope_jax.data.periods import TEST
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.data.simulator_kernels import KERNELS
from siren_rope_jax.nn.config import ModelConfig
from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.optimizer import OptimizerConfig


@dataclasses.dataclass(frozen=True)
class LogSource:
    """One log.

    Args:
      prepare: function of the folder of published logs and of the folder for log.toml, which it writes.
      config: settings of its trainings.
      truth: whether truth.parquet beside log.toml has the best possible prediction of every event.
      metadata: columns that are known of each event, which a semantic rotation reads.
      rival: function of the log that evaluates models of its own field: name -> "test" -> task -> metrics.
    """

    prepare: Callable[[Path, Path], Path]
    config: TrainConfig
    truth: bool = False
    metadata: tuple[str, ...] = ()
    rival: Callable[[EventLog], dict[str, Any]] = lambda log: {}


def _feed(config: SimulatorConfig) -> Callable[[Path, Path], Path]:
    return lambda data, folder: write_simulated_log(simulate(config), folder)


# What grids/settings.py begins with: far more steps than a few epochs of a short log would be.
START = TrainConfig(
    steps=1_000,
    model=ModelConfig(width=32, heads=2, dropout=0.2),
    batches=BatchConfig(batch_size=8),
    optimizer=OptimizerConfig(learning_rate=3e-3),
)


def _config(*, epochs: float, batch_size: int = 16, dropout: float = 0.1) -> TrainConfig:
    model, batches = dataclasses.replace(START.model, dropout=dropout), BatchConfig(batch_size=batch_size)
    return dataclasses.replace(START, steps=None, epochs=epochs, evaluations=6, model=model, batches=batches)


def _of_feed(steps: int) -> TrainConfig:
    return get_config(ORDINAL, seed=0, steps=steps)


# Most test items of Deskdrop are new: ids only invite overfitting.
_DESKDROP = dataclasses.replace(
    _config(epochs=16, dropout=0.2),
    inputs=InputConfig(item_buckets=1, categorical_buckets=1, counter_smoothing=5.0),
)
LOGS = {
    "tiny feed": LogSource(_feed(SimulatorConfig(users=200, seed=7)), _of_feed(4), truth=True),
    "feed": LogSource(_feed(SimulatorConfig(seed=1)), _of_feed(1_400), truth=True, metadata=("topic", "format")),
    # One planted relation each: does an encoding find what is there, and nothing where there is none?
    **{
        f"planted {kernel}": LogSource(
            _feed(SimulatorConfig(users=8_000, seed=2, kernel=kernel)), _of_feed(700), truth=True
        )
        for kernel in KERNELS
        if kernel != "feed"
    },
    "deskdrop": LogSource(
        lambda data, folder: prepare_deskdrop(data / "deskdrop" / "users_interactions.csv", folder), _DESKDROP
    ),
    "kuairand": LogSource(
        lambda data, folder: prepare_kuairand_pure(data / "kuairand_pure_slice" / "data", folder), _config(epochs=4)
    ),
    "flights": LogSource(
        lambda data, folder: prepare_flights(installed_flights(), folder),
        _config(epochs=3, batch_size=32),
        metadata=("carrier", "origin", "dest"),
    ),
    "noshow": LogSource(
        lambda data, folder: prepare_noshow(data / "noshow" / "KaggleV2-May-2016.csv", folder),
        # What is known at booking tells most; bins of it in the features won .006 on validation.
        dataclasses.replace(START, model=dataclasses.replace(START.model, dense_bins=True)),
        metadata=("lead_days", "age", "reminder"),
    ),
    "reviews": LogSource(
        lambda data, folder: prepare_reviews(data / "reviews" / "reviews.csv.gz", folder),
        START,
        rival=fsrs_metrics,
    ),
}


def rounded(name: str, seconds: int) -> LogSource:
    """Returns a log whose times are rounded down: what an export that keeps the hour or the day alone leaves."""
    source = LOGS[name]

    def prepare(data: Path, folder: Path) -> Path:
        description = source.prepare(data, folder)
        (file,) = EventLogSpec.from_toml(description).files
        table = pl.read_parquet(file, memory_map=False)
        table.with_columns(pl.col("time") // seconds * seconds).write_parquet(file)
        return description

    return dataclasses.replace(source, prepare=prepare)


LOGS |= {
    f"{name}, times to the {unit}": rounded(name, seconds)
    for name in ("feed", "flights")
    for unit, seconds in (("minute", 60), ("hour", 3_600), ("day", 86_400))
}
for _users in (5_000, 80_000):
    LOGS[f"feed of {_users:,} users"] = dataclasses.replace(
        LOGS["feed"], prepare=_feed(SimulatorConfig(seed=1, users=_users))
    )


def read_log(name: str, data: Path, folder: Path) -> tuple[EventLog, np.ndarray]:
    """Prepares a log, unless it is, and reads it.

    Args:
      name: one of `LOGS`.
      data: folder of published logs.
      folder: folder for log.toml.

    Returns:
      The log, and what its tasks are scored against on the test events, [E, K]: the labels, NaN where unobserved, or
      the best possible predictions, which have far less noise.
    """
    source, description = LOGS[name], folder / "log.toml"
    if not description.exists():
        source.prepare(data, folder)
    log = read_event_log(description)
    if not source.truth:
        return log, log.labels[log.period == TEST]
    return log, read_oracle(folder, log)
