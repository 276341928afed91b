"""orbax checkpoints of a run: the latest ones, to resume from, and the best by validation."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import Mesh

from siren_rope_jax.data.schema import InputError
from siren_rope_jax.train.sharding import replicated
from siren_rope_jax.train.step import TrainState


class Checkpoints:
    """Two orbax folders under the run's folder: `checkpoints/` keeps the last two steps, `best/` one.

    Each checkpoint holds the state (parameters, optimizer, step) and `progress`, a JSON mapping with the data
    position and the best validation so far. A new one is complete on disk before an old one is removed.
    """

    def __init__(self, run: Path):
        """Opens the folders, making them if need be."""
        self._latest = _manager(run / "checkpoints", keep=2)
        self._best = _manager(run / "best", keep=1)
        self.run = run

    def save(self, state: TrainState, progress: dict[str, Any], *, best: bool) -> None:
        """Writes the state as the latest checkpoint, and as the best one too if it is; a step saved is kept."""
        step = int(state.step)
        arguments = ocp.args.Composite(state=ocp.args.StandardSave(state), progress=ocp.args.JsonSave(progress))
        # The best one first: should the process die in between, the run resumes before it and comes to it again.
        for manager in (self._best, self._latest) if best else (self._latest,):
            if step not in manager.all_steps():
                manager.save(step, args=arguments)
                manager.wait_until_finished()

    def restore(self, like: TrainState, mesh: Mesh, *, best: bool) -> tuple[TrainState, dict[str, Any]] | None:
        """Reads the latest or the best checkpoint onto the mesh.

        Args:
          like: a state of the same shapes; `jax.eval_shape` of the initial one will do.
          mesh: devices.
          best: the best by validation instead of the latest.

        Returns:
          (state, progress), or None if there is no checkpoint yet.

        Raises:
          InputError: if the checkpoint is damaged, or of another model.
        """
        manager = self._best if best else self._latest
        step = manager.latest_step()
        if step is None:
            return None
        target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated(mesh)), like)
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(target), progress=ocp.args.JsonRestore())
        try:
            restored = manager.restore(step, args=arguments)
        except Exception as error:  # orbax and tensorstore raise what they like
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(f"checkpoint {manager.directory / str(step)} cannot be read: {reason[:200]}") from error
        return restored["state"], restored["progress"]

    def describe_latest(self) -> str:
        """Names the latest checkpoint for a message."""
        step = self._latest.latest_step()
        return "none was written yet" if step is None else str(self.run / "checkpoints" / str(step))

    def close(self) -> None:
        """Ends the background threads."""
        self._latest.close()
        self._best.close()


def _manager(folder: Path, *, keep: int) -> ocp.CheckpointManager:
    return ocp.CheckpointManager(folder.absolute(), options=ocp.CheckpointManagerOptions(max_to_keep=keep))
