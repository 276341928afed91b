"""Which checkpoints a run holds, and whether they verify."""

import dataclasses
from pathlib import Path
from typing import Any

from siren_rope_jax.errors import InputError
from siren_rope_jax.train.manifest import DamagedError, read_manifest, verify


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What `list_checkpoints` says of one."""

    step: int
    mean_ne: float | None
    """Of the validation at this step, if there was one."""
    metrics: dict[str, Any]
    """Of each task, from the same validation."""
    bytes: int
    problem: str | None
    """Why it will not be restored; None if it verifies."""


def list_checkpoints(run: Path) -> list[Checkpoint]:
    """Verifies the checkpoints of a run, oldest first; changes nothing.

    Raises:
      InputError: if the folder is not that of a run.
    """
    folder = run / "checkpoints"
    if not folder.is_dir():
        raise InputError(f"{run} must be a folder that `siren-rope train` wrote, but has no checkpoints")
    return [_describe(folder / str(step), step) for step in sorted(steps_in(folder))]


def _describe(path: Path, step: int) -> Checkpoint:
    content, problem = {"mean_ne": None, "progress": {}}, None
    try:
        content = read_manifest(path)
        verify(path)
    except DamagedError as error:
        problem = str(error)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return Checkpoint(step, content["mean_ne"], content["progress"].get("metrics") or {}, size, problem)


def steps_in(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.iterdir() if path.name.isdecimal()] if folder.is_dir() else []
