"""Time and memory from a CSV of millions of events to packed batches, and the time that a training step waits for data.

Measured in a process of its own, so that the peak of memory is that of the input pipeline alone.
"""

import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import grain
import numpy as np
import polars as pl
from rich.progress import track

from siren_rope_jax.batch import Batch
from siren_rope_jax.data.batches import BatchConfig, PackedRows, batches, make_rows
from siren_rope_jax.data.encode import Encoded, Encoder, InputConfig
from siren_rope_jax.data.event_log import read_event_log
from siren_rope_jax.data.periods import TRAIN
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.data.simulator import SimulatorConfig, simulate, write_simulated_log

_SIMULATED_EVENTS = 1_000_000
_EVENTS_PER_USER = 52
_EVENTS_PER_SLICE = 50_000  # written at a time
_GIB_IN_KIB = 2**20


@dataclasses.dataclass(frozen=True, kw_only=True)
class PipelineCost:
    """Time and memory from a log's files to packed batches."""

    events: int
    seconds: dict[str, float]  # by stage
    peak_gib: float  # of resident memory, mapped pages of the CSV included

    @property
    def events_per_second(self) -> float:
        """Events over the time of all stages."""
        return self.events / sum(self.seconds.values())


def write_csv_log(folder: Path, *, events: int = 10_000_000, seed: int = 0) -> Path:
    """Writes a simulated news feed as one CSV in order of time, its users interleaved as in a real log.

    At most a million events are simulated, 52 per user; a longer log repeats them under new user ids, at the same
    times and with the same items, features and labels, so that one simulated event gives several users' rows.

    Args:
      folder: new or empty; receives events.csv and log.toml.
      events: rows of the CSV.
      seed: of the feed.

    Returns:
      Path of log.toml.
    """
    users = -(-min(events, _SIMULATED_EVENTS) // _EVENTS_PER_USER) + 100  # enough, since users differ in length
    feed = simulate(SimulatorConfig(users=users, seed=seed))
    with tempfile.TemporaryDirectory() as simulated:
        _, description = write_simulated_log(feed, simulated).read_text().split("\n", 1)  # less the note on its truth
    once = feed.events.head(min(events, _SIMULATED_EVENTS)).sort("time", maintain_order=True)
    copies = -(-events // once.height)
    folder.mkdir(parents=True, exist_ok=True)
    left = events
    with (folder / "events.csv").open("wb") as csv:
        for first in track(range(0, once.height, _EVENTS_PER_SLICE), description="writing events"):
            piece = once[first : first + _EVENTS_PER_SLICE]
            copy = np.tile(np.arange(copies), piece.height)
            piece = piece[np.repeat(np.arange(piece.height), copies)].head(left)
            left -= piece.height
            piece = piece.with_columns(pl.col("user_id") + users * pl.Series(copy).head(piece.height))
            piece.write_csv(csv, include_header=first == 0)
    log_toml = folder / "log.toml"
    log_toml.write_text(description.replace("events.parquet", "events.csv"))
    return log_toml


def in_another_format(log_toml: Path, form: Literal["iso", "jsonl"]) -> Path:
    """Writes the events of `write_csv_log` again, with times as ISO 8601 texts or as JSON Lines, and describes them."""
    frame, folder = pl.scan_csv(log_toml.with_name("events.csv")), log_toml.parent
    toml = log_toml.read_text()
    if form == "iso":
        frame = frame.with_columns(pl.from_epoch("time", time_unit="s").dt.strftime("%Y-%m-%d %H:%M:%S"))
        frame.sink_csv(folder / "iso.csv")
        toml = toml.replace("events.csv", "iso.csv").replace('timestamp_unit = "s"', 'timestamp_unit = "iso"')
    else:
        frame.sink_ndjson(folder / "events.jsonl")
        toml = toml.replace("events.csv", "events.jsonl")
    described = folder / f"{form}.toml"
    described.write_text(toml)
    return described


def measure_pipeline(log_toml: Path, *, timeout: float = 600.0) -> PipelineCost:
    """Reads, encodes and packs a log and takes its first batches, in a process of its own.

    Args:
      log_toml: describes the log.
      timeout: seconds after which it is given up.

    Raises:
      subprocess.TimeoutExpired: if it takes longer.
      subprocess.CalledProcessError: if it fails; the reason is on standard error, as is the progress.
    """
    command = [sys.executable, __file__, str(log_toml)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=timeout, text=True)
    return PipelineCost(**json.loads(done.stdout))


def waiting_share(
    encoded: Encoded, rows: PackedRows, config: BatchConfig, step: Callable[[Batch], Any], *, steps: int
) -> tuple[float, float]:
    """Measures the share of a training step that is spent on fetching the next batch, as the training loop does.

    Args:
      encoded: arrays of events.
      rows: where the events stand.
      config: shape of the batches.
      step: trains on one batch and returns when that is done.
      steps: how many are timed, after one that is not.

    Returns:
      Median seconds of fetching a batch, and its median share of the step, fetching included.
    """
    # Without threads, as in train/fit.py.
    stream = iter(batches(encoded, rows, config, seed=0).to_iter_dataset(grain.ReadOptions(0, 0)))
    fetching, shares = [], []
    for _ in range(1 + steps):
        start = time.perf_counter()
        batch = next(stream)
        fetched = time.perf_counter()
        step(batch)
        fetching.append(fetched - start)
        shares.append(fetching[-1] / (time.perf_counter() - start))
    return float(np.median(fetching[1:])), float(np.median(shares[1:]))


def _run_pipeline(log_toml: Path) -> PipelineCost:
    seconds: dict[str, float] = {}
    started = time.perf_counter()

    def done(stage: str) -> None:
        nonlocal started
        seconds[stage] = time.perf_counter() - started
        print(f"{stage}: {seconds[stage]:.1f} s, peak {_peak_gib():.2f} GiB", file=sys.stderr, flush=True)
        started = time.perf_counter()

    config = BatchConfig()
    log = read_event_log(EventLogSpec.from_toml(log_toml))
    done("read")
    _, encoded = Encoder.fit_encode(log, InputConfig())
    done("fit and encode")
    rows = make_rows(encoded, log.period[encoded.log_index] == TRAIN, config)
    done("pack")
    dataset = batches(encoded, rows, config, seed=0)
    for index in range(8):
        dataset[index]
    done("8 batches")
    return PipelineCost(events=len(log.time_ms), seconds=seconds, peak_gib=_peak_gib())


def _peak_gib() -> float:
    # Not from getrusage, whose peak a child inherits from the process that started it.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / _GIB_IN_KIB


if __name__ == "__main__":
    print(json.dumps(dataclasses.asdict(_run_pipeline(Path(sys.argv[1])))))
