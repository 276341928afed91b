"""A grid of trainings: every variant on every log with every seed."""

import dataclasses
import hashlib
import importlib
import json
import pkgutil
from collections.abc import Mapping
from typing import Any, NamedTuple

from experiments.evidence.logs import LOGS
from siren_rope_jax.errors import InputError
from siren_rope_jax.train.config import TrainConfig


class Cell(NamedTuple):
    """One training."""

    log: str
    variant: str
    seed: int

    def __str__(self) -> str:
        return f"{self.log}, {self.variant}, seed {self.seed}"


@dataclasses.dataclass(frozen=True)
class Grid:
    """What is trained for one table.

    Args:
      question: what the table answers, in one sentence.
      logs: names in `LOGS`.
      variants: name -> settings in which the variant differs from those of the log, such as {"model.width": 64}; a
        function is called with the name of the log.
      base: variant that the others are compared with.
      seeds: number of seeds, 0 on.
      settings: settings of the training that all cells share and that differ from those of the log.
    """

    question: str
    logs: tuple[str, ...]
    variants: Mapping[str, Mapping[str, Any]]
    base: str
    seeds: int = 5
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if unknown := set(self.logs) - set(LOGS):
            raise ValueError(f"logs must be among {', '.join(LOGS)}, but are {', '.join(sorted(unknown))}")
        if self.base not in self.variants:
            raise ValueError(f"base must be one of {', '.join(self.variants)}, but is {self.base}")

    def cells(self) -> list[Cell]:
        """Returns all cells, seed by seed, so that a grid that is stopped has all variants of the first seeds."""
        return [
            Cell(log, variant, seed) for seed in range(self.seeds) for log in self.logs for variant in self.variants
        ]

    def config(self, cell: Cell) -> TrainConfig:
        """Returns the settings of a cell; those of one log and seed differ in the variant alone."""
        config = LOGS[cell.log].config
        own = {**self.settings, **self.variants[cell.variant], "seed": cell.seed}
        for name, value in own.items():
            config = _with_setting(config, name, value(cell.log) if callable(value) else value)
        return config


def _with_setting(config: Any, name: str, value: Any) -> Any:
    """Returns settings in which the one of a dotted name is replaced."""
    first, _, rest = name.partition(".")
    return dataclasses.replace(config, **{first: _with_setting(getattr(config, first), rest, value) if rest else value})


def stated(config: Any, name: str = "") -> dict[str, Any]:
    """Returns the settings that differ from the defaults, by dotted names, as JSON holds them."""
    found, defaults = {}, type(config)()
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            found |= stated(value, f"{name}{field.name}.")
        elif value != getattr(defaults, field.name):
            found[name + field.name] = list(value) if isinstance(value, tuple) else value
    return found


def digest(config: TrainConfig) -> str:
    """Returns a name for settings: two runs on one log share it if and only if they are to be the same."""
    return hashlib.sha256(json.dumps(stated(config), sort_keys=True).encode()).hexdigest()[:12]


def grid_names() -> list[str]:
    """Returns the names of all grids: the modules of experiments.grids."""
    package = importlib.import_module("experiments.grids")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def read_grid(name: str) -> Grid:
    """Returns a grid by its name.

    Raises:
      InputError: if there is none of that name.
    """
    if name not in grid_names():
        raise InputError(f"grid must be one of {', '.join(grid_names())}, but is {name}")
    return importlib.import_module(f"experiments.grids.{name}").GRID
