"""Checkpoints of a run: written in the background, and restored only if every bit is as it was written."""

import concurrent.futures
import json
import logging
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from siren_rope_jax.errors import InputError
from siren_rope_jax.train.checkpoint_list import cost_of, steps_in
from siren_rope_jax.train.criterion import Judged
from siren_rope_jax.train.durable import sync
from siren_rope_jax.train.manifest import DamagedError, read_manifest, verify, verify_sizes, write_manifest
from siren_rope_jax.train.processes import decided_by_first, greatest
from siren_rope_jax.train.retention import CheckpointConfig, rank, retained
from siren_rope_jax.train.step import TrainState

# Silences orbax's logs: it also raises its errors, which are reported to the user in one sentence.
logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)

_INCOMPLETE = ".incomplete"  # suffix of a step's folder while it is written or removed


class Checkpoints:
    """Checkpoints of one run, `checkpoints/<step>/` in its folder.

    Each holds the state, written by orbax from all processes, and a manifest, written last by process 0, with the
    hash of every file and `progress`: all other data that resuming needs, as JSON. A folder gets its final name only
    when all of that is on the disk, and only then are older ones removed. Saving requires the run's lock; restoring
    changes nothing. All processes must make the same calls of `save`, `restore`, `steps` and `wait`.
    """

    def __init__(
        self, run: Path, config: CheckpointConfig | None = None, *, say: Callable[[str], None] = print
    ) -> None:
        """Keeps the settings; accesses no file yet.

        Args:
          run: folder of the run, shared by all processes.
          config: rules on which checkpoints to keep.
          say: prints one line to the user.
        """
        self.run = run
        self._folder = run.absolute() / "checkpoints"
        self._config = config or CheckpointConfig()
        self._say = say
        self._background = concurrent.futures.ThreadPoolExecutor(1)
        self._saving: concurrent.futures.Future[None] | None = None
        self._latest: int | None = None
        self._verified: dict[int, dict[str, Any]] = {}

    def save(self, state: TrainState, progress: dict[str, Any], *, judged: Judged | None) -> None:
        """Copies the state and writes it in the background; a step that exists and verifies is not written again.

        Args:
          state: the state, which may be donated or changed as soon as this returns.
          progress: other data for resuming, as JSON.
          judged: result of a validation at this step, if there was one, by which the best checkpoint is chosen.

        Raises:
          InputError: if this checkpoint or the previous one could not be written, for example on a full disk.
        """
        self.wait()
        step = int(state.step)
        if judged is not None and not math.isfinite(judged.value):
            raise ValueError(f"{judged.metric} must be finite, but is {judged.value}")
        content = {"step": step, "judged": judged, "progress": progress, "arrays": _arrays(state)}
        content = json.loads(json.dumps(content))
        try:
            if not decided_by_first(lambda: self._prepare(step)):
                self._latest = step
                return
            orbax = ocp.StandardCheckpointer()  # one per save, since it cannot be used after a failure
            orbax.save(self._folder / f"{step}{_INCOMPLETE}" / "state", state)
        except InputError:
            raise
        except Exception as error:  # orbax and tensorstore raise many types
            raise self._cannot_write(error) from error
        self._saving = self._background.submit(self._finish, orbax, step, content)

    def restore(
        self, like: TrainState, *, best: bool = False, step: int | None = None
    ) -> tuple[TrainState, dict[str, Any]] | None:
        """Restores the newest checkpoint that verifies, and reports newer ones that do not.

        Args:
          like: the state's arrays as `jax.ShapeDtypeStruct`, with the wanted shardings, which may differ from those of
            the saved state. A part that is None is not read.
          best: whether to restore the best by validation; the newest if none was validated.
          step: restores the checkpoint of this step, if given.

        Returns:
          (state, progress), or None if no checkpoint was ever completed.

        Raises:
          InputError: if there are checkpoints but none is usable, or the checkpoint does not fit the model.
        """
        self.wait()
        chosen = decided_by_first(lambda: self._choose(best, step))
        if chosen is None:
            return None
        path = self._folder / str(chosen["step"])
        parts = {name: part for name, part in like._asdict().items() if part is not None}
        wanted = _arrays(parts)
        arrays = {name: array for name, array in chosen["arrays"].items() if name.partition("/")[0] in parts}
        for name in sorted(arrays.keys() | wanted.keys()):
            if arrays.get(name) != wanted.get(name):
                raise InputError(
                    f"checkpoint {path} is of another model: {name} is {arrays.get(name, 'missing')} there, but "
                    f"{wanted.get(name, 'missing')} here"
                )
        try:
            with ocp.PyTreeCheckpointer() as orbax:
                arguments = ocp.checkpoint_utils.construct_restore_args(parts)
                read = ocp.args.PyTreeRestore(parts, restore_args=arguments, partial_restore=True)
                state = like._replace(**orbax.restore(path / "state", read))
        except Exception as error:  # orbax and tensorstore raise many types
            raise InputError(f"checkpoint {path} cannot be read: {_reason(error)}") from error
        self._latest = chosen["step"]
        return state, chosen["progress"]

    def steps(self) -> list[int]:
        """Returns the steps whose checkpoints verify, newest last; reports those that do not.

        Raises:
          InputError: if there are checkpoints, but none verifies.
        """
        self.wait()

        def find() -> list[int]:
            newest_first = sorted(steps_in(self._folder), reverse=True)
            return [content["step"] for content in self._sound(newest_first)][::-1]

        return decided_by_first(find)

    def wait(self) -> None:
        """Waits until the last save is complete in all processes.

        Raises:
          InputError: if it could not be completed; earlier checkpoints are intact.
        """
        failure = self._settle()
        (failed,) = greatest(int(failure is not None))
        if failure is not None:
            raise self._cannot_write(failure) from failure
        if failed:
            raise self._cannot_write(RuntimeError("another process failed, and reports the reason"))

    def close(self) -> None:
        """Completes this process's last save, without communication with the others, and ends its threads.

        Raises:
          InputError: if the save failed.
        """
        failure = self._settle()
        self._background.shutdown()
        if failure is not None:
            raise self._cannot_write(failure) from failure

    def describe_latest(self) -> str:
        """Returns the newest checkpoint that this process has completed or restored, for a message."""
        return "none was written yet" if self._latest is None else str(self.run / "checkpoints" / str(self._latest))

    def _prepare(self, step: int) -> bool:
        """Prepares the folder for a step's checkpoint; returns False if the checkpoint exists and verifies."""
        path = self._folder / str(step)
        self._folder.mkdir(parents=True, exist_ok=True)
        if path.exists():
            try:
                verify(path)
            except DamagedError as error:
                self._set_aside(path, error)
            else:
                return False
        self._remove_leftovers()
        path.with_name(f"{step}{_INCOMPLETE}").mkdir()
        return True

    def _set_aside(self, path: Path, error: DamagedError) -> None:
        damaged = self._folder / "damaged"
        damaged.mkdir(exist_ok=True)
        number = sum(other.name.startswith(f"{path.name}-") for other in damaged.iterdir())
        aside = path.rename(damaged / f"{path.name}-{number}")
        self._say(f"checkpoint {path.name} is written again, and the damaged one kept in {aside}: {error}")

    def _finish(self, orbax: ocp.StandardCheckpointer, step: int, content: dict[str, Any]) -> None:
        """Completes a save, in the background."""
        incomplete = self._folder / f"{step}{_INCOMPLETE}"
        try:
            orbax.close()  # when all processes have written their parts
            if jax.process_index() == 0:
                self._verified[step] = write_manifest(incomplete, content)
                incomplete.rename(self._folder / str(step))
                sync(self._folder)
            self._latest = step
            if jax.process_index() == 0:
                self._remove_old(step)
        except Exception:
            if jax.process_index() == 0:
                _discard(incomplete)  # frees the space on a full disk
            raise

    def _remove_old(self, newest: int) -> None:
        sound = {}
        # Later steps are left from before the run went back to an earlier checkpoint; they will be saved again.
        for step in (step for step in steps_in(self._folder) if step <= newest):
            path = self._folder / str(step)
            try:
                if step in self._verified:
                    verify_sizes(path, self._verified[step])
                else:
                    self._verified[step] = verify(path)
            except DamagedError:
                continue  # neither counted nor removed
            sound[step] = cost_of(self._verified[step])
        for step in sound.keys() - retained(sound, latest=self._config.latest, every=self._config.every):
            path = self._folder / str(step)
            path.rename(path.with_name(f"{step}{_INCOMPLETE}"))  # a partly removed folder would look damaged
        self._remove_leftovers()

    def _remove_leftovers(self) -> None:
        for path in self._folder.glob(f"*{_INCOMPLETE}"):
            shutil.rmtree(path)

    def _choose(self, best: bool, step: int | None) -> dict[str, Any] | None:
        there = sorted(steps_in(self._folder), reverse=True)
        if step is not None and step not in there:
            raise InputError(f"{self._folder} must hold checkpoint {step}, but holds {there or 'none'}")
        wanted = there if step is None else [step]
        return next(self._sound(sorted(wanted, key=self._rank) if best else wanted), None)

    def _rank(self, step: int) -> tuple[float, ...]:
        try:
            return rank(step, cost_of(read_manifest(self._folder / str(step))))
        except DamagedError:
            return (-1,)  # first, so that it is reported: it may have been the best

    def _sound(self, steps: list[int]) -> Iterator[dict[str, Any]]:
        """Yields the manifests of the steps that verify; reports those that do not, and raises if none does."""
        problems = {}
        for step in steps:
            try:
                yield verify(self._folder / str(step))
            except DamagedError as error:
                problems[step] = str(error)
                self._say(f"checkpoint {step} is skipped: {error}")
        if problems and len(problems) == len(steps):
            named = "; ".join(f"{step}: {problem}" for step, problem in problems.items())
            raise InputError(
                f"no checkpoint in {self._folder} is left to restore ({named}): restore the files from a copy, or move "
                "them away to start again from the beginning"
            )

    def _settle(self) -> BaseException | None:
        """Waits for this process's save; returns its error, if any, only once."""
        failure = None if self._saving is None else self._saving.exception()
        self._saving = None
        return failure

    def _cannot_write(self, error: BaseException) -> InputError:
        return InputError(
            f"no checkpoint can be written in {self._folder}: {_reason(error)}; fix this, and the same command "
            f"resumes from the last one that was completed: {self.describe_latest()}"
        )


def _discard(folder: Path) -> None:
    """Removes an incomplete checkpoint; retries, since orbax's threads may still write into it for a moment."""
    for _ in range(100):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.05)


def _arrays(state: PyTree) -> dict[str, str]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): f"{x.dtype}{[*x.shape]}" for path, x in leaves}


def _reason(error: BaseException) -> str:
    """Returns the reason of an error in one short line: the operating system's message, if it has one."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}, at {error.filename}" if error.filename else error.strerror
    text = str(error).strip() or type(error).__name__
    if system := re.search(r"(?:OS error |os_error_code=')(\d+)", text):
        return os.strerror(int(system[1]))
    return text.splitlines()[0].partition(". ")[0][:150]
