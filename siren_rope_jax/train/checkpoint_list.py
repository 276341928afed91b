"""List of a run's checkpoints, and whether they verify."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from siren_rope_jax.errors import InputError
from siren_rope_jax.train.criterion import Judged
from siren_rope_jax.train.manifest import DamagedError, read_manifest, verify


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Description of one checkpoint."""

    step: int
    judged: Judged | None
    """Result of the validation at this step, if there was one."""
    metrics: dict[str, Any]
    """Metrics of each task, from the same validation."""
    bytes: int
    problem: str | None
    """Reason not to restore the checkpoint; None if it verifies."""


def list_checkpoints(run: Path) -> list[Checkpoint]:
    """Verifies the checkpoints of a run, oldest first; changes nothing.

    Raises:
      InputError: if the folder does not hold a run.
    """
    folder = run / "checkpoints"
    if not folder.is_dir():
        raise InputError(f"{run} must be a folder that `siren-rope train` wrote, but has no checkpoints")
    return [_describe(folder / str(step), step) for step in sorted(steps_in(folder))]


def _describe(path: Path, step: int) -> Checkpoint:
    content, problem = {"progress": {}}, None
    try:
        content = read_manifest(path)
        verify(path)
    except DamagedError as error:
        problem = str(error)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return Checkpoint(step, _judged_in(content), content["progress"].get("metrics") or {}, size, problem)


def cost_of(content: Mapping[str, Any]) -> float | None:
    """Returns the cost of the validation in a manifest's content; None if there was no validation."""
    judged = _judged_in(content)
    return None if judged is None else judged.cost


def _judged_in(content: Mapping[str, Any]) -> Judged | None:
    found = content.get("judged")
    return None if found is None else Judged(*found)


def steps_in(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.iterdir() if path.name.isdecimal()] if folder.is_dir() else []
