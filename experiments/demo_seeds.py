"""Does training come out alike from every seed? The demo's SIREN-RoPE with five seeds, against ordinal RoPE's.

Command: `make demo`, then `python experiments/demo_seeds.py [--out runs/demo] [--seeds 5]`; finished runs are reused.
Cost: 6 minutes on 2 CPU cores.
Expected: .777, .794, .782, .799, .777 captured, a spread of .022 (2026-11-26).
"""

import dataclasses
import json

import numpy as np
import polars as pl
import tyro
from demo import ORDINAL, SIREN, Demo, compare, get_config, read_probabilities
from rich.table import Table

from siren_rope_jax.data.event_log import TEST, read_event_log
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.report.tables import make_console
from siren_rope_jax.train.loop import train


@dataclasses.dataclass(frozen=True)
class Seeds(Demo):
    """Train the demo's SIREN-RoPE with several seeds, and compare the shares that they capture."""

    seeds: int = 5
    """Seeds, from `--seed` on."""


def main(experiment: Seeds) -> None:
    """Trains and compares."""
    console = make_console()
    log = read_event_log(EventLogSpec.from_toml(experiment.out / "feed" / "log.toml"))
    truth = pl.read_parquet(experiment.out / "feed" / "truth.parquet")[log.row[log.period == TEST]]
    oracle = truth.select(f"p_bayes_{task}" for task in log.task_names).to_numpy()
    captured = []
    for seed in range(experiment.seed, experiment.seed + experiment.seeds):
        predicted = {}
        for name in (ORDINAL, SIREN):
            console.print(f"\n{name}, seed {seed}")
            folder = name.replace(" ", "-") + (f"-{seed}" if seed else "")
            config = get_config(name, seed=seed, steps=experiment.steps)
            train(log, config, experiment.out / folder, console=console)
            predicted[name] = read_probabilities(experiment.out / folder, log)
        captured.append(compare(log, oracle, predicted | {"Bayes oracle": oracle})[SIREN]["captured"][0])
    table = Table(*(f"seed {experiment.seed + index}" for index in range(experiment.seeds)), "mean", "spread")
    shown = [*captured, float(np.mean(captured)), max(captured) - min(captured)]
    table.add_row(*(f"{value:.3f}" for value in shown))
    console.print(table)
    (experiment.out / "seeds.json").write_text(json.dumps({"captured": captured}) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Seeds))
