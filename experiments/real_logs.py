"""Compares ordinal RoPE and SIREN-RoPE on two real event logs, Deskdrop and KuaiRand-Pure, with 3 seeds each.

Command: `siren-rope prepare deskdrop .../users_interactions.csv.zip --out runs/deskdrop-log`, then
`python experiments/real_logs.py deskdrop runs/deskdrop-log/log.toml --out runs/deskdrop`; likewise for kuairand-pure.
Cost: 6 runs of about 1 minute on one CPU core, for each log.
Expected, test NE, mean over the seeds (README.md here has the whole table, with `siren-rope baselines`):

    Deskdrop        like             contribution     long_dwell
    ordinal         .8476            .8832            .9637
    siren           .8507            .8852            .9681

    KuaiRand-Pure   click            long_view        like             contribution
    ordinal         .8595            .8677            .7478            .9378
    siren           .8597            .8679            .7470            .9377

Settings were chosen on validation, and are the same for both rotations. The same seeds start alike
and see the same batches, so the difference is taken seed by seed, and its interval is Student's t over the seeds. Users
are not resampled: on these logs the spread between seeds is the larger one.
"""

import dataclasses
import json
from pathlib import Path
from typing import Literal

import numpy as np
import scipy.stats
import tyro
from rich.table import Table

from siren_rope_jax.data.batches import BatchConfig
from siren_rope_jax.data.encode import InputConfig
from siren_rope_jax.data.event_log import read_event_log
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.nn.config import ModelConfig
from siren_rope_jax.nn.rotary import RotaryConfig, SirenSettings
from siren_rope_jax.report.tables import make_console
from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.durable import write_json
from siren_rope_jax.train.loop import train
from siren_rope_jax.train.optimizer import OptimizerConfig

Source = Literal["deskdrop", "kuairand-pure"]
Rotation = Literal["ordinal", "siren"]
ROTATIONS: tuple[Rotation, ...] = ("ordinal", "siren")


@dataclasses.dataclass(frozen=True)
class RealLogs:
    """Train ordinal RoPE and SIREN-RoPE on a real log with several seeds, and compare them seed by seed."""

    source: tyro.conf.Positional[Source]
    """Log whose settings are used."""
    log: tyro.conf.Positional[Path]
    """TOML file that `siren-rope prepare` wrote."""
    out: Path
    """Folder of the runs and of results.json; finished runs are read back."""
    seeds: int = 3
    """Number of seeds: 0, 1, ..."""


def get_config(source: Source, rotation: Rotation, seed: int) -> TrainConfig:
    """Returns the run of one rotation and seed."""
    small = source == "deskdrop"  # so small that ids, which most test items lack, only invite overfitting
    siren = SirenSettings(omega0=1.0) if small else SirenSettings()
    rotary = RotaryConfig(rotation)
    if rotation == "siren":
        rotary = RotaryConfig(rotation, preset="published", siren=siren)
    return TrainConfig(
        seed=seed,
        epochs=16 if small else 4,
        evaluations=10 if small else 8,
        model=ModelConfig(
            width=32,
            heads=2,
            dropout=0.2 if small else 0.1,
            rotary=rotary,
        ),
        inputs=InputConfig(item_buckets=1, categorical_buckets=1, counter_smoothing=5.0) if small else InputConfig(),
        batches=BatchConfig(batch_size=16),
        optimizer=OptimizerConfig(learning_rate=3e-3),
    )


def difference(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    """Computes the mean of second - first over paired seeds, and its 95 % interval by Student's t.

    Args:
      first: one value a seed.
      second: one value a seed, of the same seeds.

    Raises:
      ValueError: if there are fewer than two seeds.
    """
    if len(first) < 2:
        raise ValueError(f"an interval over seeds needs at least 2 seeds, but is given {len(first)}")
    differences = second - first
    mean = float(differences.mean())
    half = float(scipy.stats.t.ppf(0.975, len(differences) - 1) * scipy.stats.sem(differences))
    return mean, mean - half, mean + half


def main(experiment: RealLogs) -> None:
    """Trains, compares and prints."""
    console = make_console()
    log = read_event_log(EventLogSpec.from_toml(experiment.log))
    values: dict[str, dict[str, np.ndarray]] = {"ne": {}, "auc": {}}
    costs = []
    for rotation in ROTATIONS:
        runs = []
        for seed in range(experiment.seeds):
            console.print(f"\n{experiment.source}, {rotation}, seed {seed}")
            run = experiment.out / f"{rotation}-{seed}"
            runs.append(train(log, get_config(experiment.source, rotation, seed), run, console=console)["test"])
            costs.append(json.loads((run / "training.json").read_text()) | {"rotation": rotation, "seed": seed})
        for metric, by_rotation in values.items():
            by_rotation[rotation] = np.array([[run[task][metric] for task in log.task_names] for run in runs])
    table = Table("task", *(f"{rotation} NE / AUC" for rotation in ROTATIONS), "siren - ordinal, NE (95 % over seeds)")
    results = {}
    for k, task in enumerate(log.task_names):
        cells = []
        for rotation in ROTATIONS:
            ne, auc = values["ne"][rotation][:, k], values["auc"][rotation][:, k]
            cells.append(f"{ne.mean():.4f} ± {ne.std(ddof=1):.4f} / {auc.mean():.4f}")
        mean, low, high = difference(*(values["ne"][rotation][:, k] for rotation in ROTATIONS))
        table.add_row(task, *cells, f"{mean:+.4f} ({low:+.4f} to {high:+.4f})")
        results[task] = {
            "ne": {rotation: values["ne"][rotation][:, k].tolist() for rotation in ROTATIONS},
            "auc": {rotation: values["auc"][rotation][:, k].tolist() for rotation in ROTATIONS},
            "difference_ne": [mean, low, high],
        }
    write_json(experiment.out / "results.json", {"tasks": results, "training": costs})
    console.print(table)


if __name__ == "__main__":
    main(tyro.cli(RealLogs))
