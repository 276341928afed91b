"""Tests whether bfloat16 costs accuracy: SIREN-RoPE on the demo's feed, in float32 and in bfloat16, paired by seed.

Command: `python experiments/precision.py [--seeds 3]`, after `make demo`, whose feed it reads.
Cost: about 1 minute a run on 2 CPU cores, where bfloat16 is no faster; it is for TPUs and GPUs.
Expected: README.md here, section "bfloat16". NE is the expected one on the test users, against the oracle.
"""

import dataclasses
from pathlib import Path

import numpy as np
import polars as pl
import tyro
from demo import SIREN, get_config, read_probabilities
from real_logs import difference
from rich.table import Table

from siren_rope_jax.data.event_log import read_event_log
from siren_rope_jax.data.periods import TEST
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.report.tables import make_console
from siren_rope_jax.train.loop import train
from siren_rope_jax.train.metrics import expected_ne

DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Precision:
    """Train in both precisions and compare the NE."""

    feed: Path = Path("runs/demo/feed")
    """Folder of the simulated feed."""
    out: Path = Path("runs/precision")
    """Folder of the runs."""
    seeds: int = 3
    """Runs of each precision."""
    steps: int = 1_000
    """Training steps of a run."""


def main(experiment: Precision) -> None:
    """Trains, compares and prints."""
    console = make_console()
    log = read_event_log(EventLogSpec.from_toml(experiment.feed / "log.toml"))
    truth = pl.read_parquet(experiment.feed / "truth.parquet")[log.row[log.period == TEST]]
    oracle = truth.select(f"p_bayes_{task}" for task in log.task_names).to_numpy()
    ne: dict[str, list[list[float]]] = {dtype: [] for dtype in DTYPES}
    for seed in range(experiment.seeds):
        for dtype in DTYPES:
            console.print(f"\n{dtype}, seed {seed}")
            config = get_config(SIREN, seed=seed, steps=experiment.steps)
            config = dataclasses.replace(config, model=dataclasses.replace(config.model, dtype=dtype))
            run = experiment.out / f"{dtype}-{seed}"
            train(log, config, run, console=console)
            predicted = read_probabilities(run, log)
            ne[dtype].append([expected_ne(oracle[:, k], predicted[:, k]) for k in range(oracle.shape[1])])
    table = Table("NE", *DTYPES, "bfloat16 - float32 (95 % over seeds)")
    values = {dtype: np.column_stack([np.array(ne[dtype]), np.mean(ne[dtype], axis=1)]) for dtype in DTYPES}
    for k, task in enumerate((*log.task_names, "mean")):
        mean, low, high = difference(*(values[dtype][:, k] for dtype in DTYPES))
        cells = [f"{values[dtype][:, k].mean():.4f} ± {values[dtype][:, k].std(ddof=1):.4f}" for dtype in DTYPES]
        table.add_row(task, *cells, f"{mean:+.4f} ({low:+.4f} to {high:+.4f})")
    console.print(table)


if __name__ == "__main__":
    main(tyro.cli(Precision))
