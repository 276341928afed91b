"""Compares the demo's two models of time over five seeds, and shows how far the seeds agree.

Command: `make demo`, then `python experiments/demo_seeds.py [--out runs/demo] [--seeds 5]`; finished runs are reused.
Cost: 20 minutes on 2 CPU cores.
Expected, captured by seeds 0 to 4 with the preset "published", the default then (2026-11-26): SIREN-RoPE .829, .826,
.814, .829, .831, a spread of .017; time in the embedding .856, .864, .864, .859, .850; SIREN-RoPE less time in the
embedding -.033 (-.047 to -.018).
"""

import dataclasses
import json

import numpy as np
import tyro
from demo import EMBEDDING, ORDINAL, SIREN, Demo, compare, get_config, read_oracle, read_probabilities
from real_logs import difference
from rich.table import Table

from siren_rope_jax.data.event_log import read_event_log
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.report.tables import make_console
from siren_rope_jax.train.loop import train


@dataclasses.dataclass(frozen=True)
class Seeds(Demo):
    """Train the demo's models of time with several seeds, and compare the shares that they capture."""

    seeds: int = 5
    """Seeds, at least 2, from `--seed` on."""


def main(experiment: Seeds) -> None:
    """Trains and compares."""
    console = make_console()
    log = read_event_log(EventLogSpec.from_toml(experiment.out / "feed" / "log.toml"))
    oracle = read_oracle(experiment.out / "feed", log)
    captured: dict[str, list[float]] = {name: [] for name in (EMBEDDING, SIREN)}
    for seed in range(experiment.seed, experiment.seed + experiment.seeds):
        predicted = {}
        for name in (ORDINAL, *captured):
            console.print(f"\n{name}, seed {seed}")
            folder = name.replace(" ", "-") + (f"-{seed}" if seed else "")
            config = get_config(name, seed=seed, steps=experiment.steps)
            train(log, config, experiment.out / folder, console=console)
            predicted[name] = read_probabilities(experiment.out / folder, log)
        results = compare(log, oracle, predicted | {"Bayes oracle": oracle})
        for name, shares in captured.items():
            shares.append(results[name]["captured"][0])
    columns = (f"seed {experiment.seed + index}" for index in range(experiment.seeds))
    table = Table("captured", *columns, "mean", "spread")
    for name, shares in captured.items():
        shown = [*shares, float(np.mean(shares)), max(shares) - min(shares)]
        table.add_row(name, *(f"{value:.3f}" for value in shown))
    console.print(table)
    less, low, high = difference(np.array(captured[EMBEDDING]), np.array(captured[SIREN]))
    console.print(f"{SIREN} less {EMBEDDING}: {less:+.3f} ({low:+.3f} to {high:+.3f})")
    (experiment.out / "seeds.json").write_text(json.dumps({"captured": captured}) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Seeds))
