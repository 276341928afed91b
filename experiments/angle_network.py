"""Looks for the best form of the angle network on two simulated feeds whose best possible prediction is known.

Command: `python experiments/angle_network.py [--out runs/angle-network] [--only "omega0 1"] [--seeds 3]`; cells whose
card is in experiments/results/angle_network are not trained again, so that it can be stopped at any time.
Cost: about 2 minutes a cell on 2 CPU cores.

Variants are judged by the users of validation: the test users, and the feed of `make demo`, are kept for what is
chosen. "captured" is the share of the gap between ordinal RoPE of the same seed and the oracle,
as in demo.py.
"""

import dataclasses
import json
import math
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from demo import get_config, read_oracle, read_probabilities, summed_ne
from rich.table import Table

from siren_rope_jax.data.event_log import EventLog, read_event_log
from siren_rope_jax.data.periods import VALIDATION
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.data.simulator import SimulatorConfig, simulate, write_simulated_log
from siren_rope_jax.nn.rotary import RotaryConfig, SirenRotary, SirenSettings
from siren_rope_jax.report.rotation import fast_share
from siren_rope_jax.report.tables import make_console
from siren_rope_jax.train.durable import write_json
from siren_rope_jax.train.environment import environment
from siren_rope_jax.train.loop import train
from siren_rope_jax.train.metrics import expected_ne
from siren_rope_jax.train.session import load

CARDS = Path(__file__).parent / "results" / "angle_network"
ORDINAL, EMBEDDING = "ordinal", "time in the embedding"
FEEDS = {"56 days": SimulatorConfig(seed=100), "112 days": SimulatorConfig(seed=200, days=112)}
STEPS = 1_400  # of demo.py
# Written out, so that a change of the defaults changes no variant.
_PUBLISHED: dict[str, Any] = {
    "omega0": 10.0,
    "learned_omega0": False,
    "initial_scale": math.pi,
    "branches": ("sine", "relu"),
    "zero_last": False,
}
_GENTLE: dict[str, Any] = {"omega0": 1.0, "initial_scale": 1.0}
_HARMONICS: dict[str, Any] = {"day_harmonics": 4, "week_harmonics": 3}
SIREN: dict[str, dict[str, Any]] = {
    "published": _PUBLISHED,
    "omega0 1": {"omega0": 1.0},
    "omega0 1, scale 1": _GENTLE,
    "omega0 3, scale 1": _GENTLE | {"omega0": 3.0},
    "ReLU alone": {"branches": ("relu",)},
    "zero last layer": {"zero_last": True},
    "omega0 1, zero last layer": {"omega0": 1.0, "zero_last": True},
    "omega0 1, scale 1, harmonics": _GENTLE | _HARMONICS,
    "ReLU alone, harmonics": {"branches": ("relu",)} | _HARMONICS,
    "omega0 1, zero last layer, harmonics": {"omega0": 1.0, "zero_last": True} | _HARMONICS,
    "learned omega0 from 3, scale 1": _GENTLE | {"omega0": 3.0, "learned_omega0": True},
    "omega0 1, scale 1, per head": _GENTLE | {"per_head": True},
    "omega0 1, scale 1, no span": _GENTLE | {"time_inputs": ("day", "week")},
}


@dataclasses.dataclass(frozen=True)
class Search:
    """Train variants of the angle network with several seeds, and compare what they capture."""

    out: Path = Path("runs/angle-network")
    """Folder of the feeds and runs."""
    seeds: int = 3
    """Seeds 0, 1, ..."""
    only: tuple[str, ...] = (ORDINAL, EMBEDDING, *SIREN)
    """Variants to train; the table shows all that have cards."""
    feeds: tuple[str, ...] = tuple(FEEDS)
    """Feeds to train on."""


def config_of(variant: str, seed: int) -> Any:
    """Returns the run of a variant; variants differ only in the rotation, or in the embedding."""
    if variant == EMBEDDING:
        return get_config(EMBEDDING, seed=seed, steps=STEPS)
    config = get_config("SIREN-RoPE", seed=seed, steps=STEPS)
    rotary = (
        RotaryConfig("ordinal")
        if variant == ORDINAL
        else RotaryConfig("siren", siren=SirenSettings(**_PUBLISHED | SIREN[variant]))
    )
    return dataclasses.replace(config, model=dataclasses.replace(config.model, rotary=rotary))


def train_cell(log: EventLog, oracle: np.ndarray, variant: str, seed: int, run: Path) -> dict[str, Any]:
    """Trains one cell and returns its card."""
    started = time.monotonic()
    train(log, config_of(variant, seed), run, console=make_console())
    probabilities = read_probabilities(run, log, VALIDATION)
    model = load(run)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    return {
        "expected_ne": {task: expected_ne(oracle[:, k], probabilities[:, k]) for k, task in enumerate(log.task_names)},
        "total": float(summed_ne(oracle, probabilities).mean()),
        "oracle": float(summed_ne(oracle, oracle).mean()),
        "fast_share": fast_share(model.rotary, model.spec) if isinstance(model.rotary, SirenRotary) else None,
        "rotary": dataclasses.asdict(config_of(variant, seed).model.rotary),
        "seconds": time.monotonic() - started,
        "commit": commit.stdout.strip(),
        "environment": environment(),
    }


def table_of_cards() -> Table:
    """Lays out what each variant captures: mean and range over the seeds, for each feed."""
    cards = {
        tuple(path.stem.rsplit(", seed ", 1)): json.loads(path.read_text()) for path in sorted(CARDS.glob("*.json"))
    }
    table = Table("captured, validation users", *(f"{feed}: mean (seeds)" for feed in FEEDS), "variance above 4/day")
    for variant in (ORDINAL, EMBEDDING, *SIREN):
        cells, fast = [], []
        for feed in FEEDS:
            shares = []
            for (name, seed), card in cards.items():
                base = cards.get((f"{feed}, {ORDINAL}", seed))
                if name == f"{feed}, {variant}" and base:
                    shares.append((base["total"] - card["total"]) / (base["total"] - base["oracle"]))
                    fast += [card["fast_share"]] if card["fast_share"] is not None else []
            cells.append(f"{np.mean(shares):.3f} ({', '.join(f'{x:.3f}' for x in shares)})" if shares else "")
        table.add_row(variant, *cells, f"{np.mean(fast):.2f}" if fast else "")
    return table


def main(search: Search) -> None:
    """Trains the cells that have no card, seed by seed, and prints the table."""
    console = make_console()
    CARDS.mkdir(parents=True, exist_ok=True)
    cells = [
        (seed, feed, variant)
        for seed in range(search.seeds)
        for feed in search.feeds
        for variant in (ORDINAL, EMBEDDING, *SIREN)
    ]
    logs: dict[str, tuple[EventLog, np.ndarray]] = {}
    for seed, feed, variant in cells:
        card = CARDS / f"{feed}, {variant}, seed {seed}.json"
        if card.exists() or variant not in search.only:
            continue
        if feed not in logs:
            folder = search.out / feed.replace(" ", "-")
            log = read_event_log(EventLogSpec.from_toml(write_simulated_log(simulate(FEEDS[feed]), folder)))
            logs[feed] = log, read_oracle(folder, log, VALIDATION)
        log, oracle = logs[feed]
        console.print(f"\n{card.stem}")
        run = search.out / card.stem.replace(", ", "-").replace(" ", "-")
        write_json(card, train_cell(log, oracle, variant, seed, run))
    console.print(table_of_cards())


if __name__ == "__main__":
    main(tyro.cli(Search))
