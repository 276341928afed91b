"""Lock of a run's folder, so that only one job at a time trains in it."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from siren_rope_jax.errors import InputError
from siren_rope_jax.train.processes import decided_by_first


@contextlib.contextmanager
def lock_run(run: Path) -> Iterator[None]:
    """Creates the folder if necessary and locks it against other jobs; the lock ends with process 0, even if killed.

    Raises:
      InputError: if another job holds the lock, or the folder holds files that do not belong to a run.
    """
    with contextlib.ExitStack() as stack:
        decided_by_first(lambda: stack.enter_context(_locked(run)))
        yield


@contextlib.contextmanager
def _locked(run: Path) -> Iterator[None]:
    # A process that died while it made the folder may have left these; the folder is still usable.
    ours = {"lock", "lost+found", "encoder.npz", "environment.json", "environment.json.tmp", "config.json.tmp"}
    foreign = run.exists() and (not run.is_dir() or {path.name for path in run.iterdir()} - ours)
    if foreign and not (run / "config.json").exists():
        raise InputError(f"{run} must be a new folder or that of an earlier run, but holds something else")
    if "[" in str(run.absolute()):
        # orbax treats the path as a glob pattern when it merges the parts of a checkpoint, and silently finds none.
        raise InputError(f"{run.absolute()} must be a path without [, or its checkpoints would hold no parameters")
    run.mkdir(parents=True, exist_ok=True)
    with open(run / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{run} is being trained by another process: wait for it, or give another --out") from None
        yield
