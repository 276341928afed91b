"""One of the runs that are trained as one: its rows, settings, checkpoints and progress."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from siren_rope_jax.data.batches import PackedRows
from siren_rope_jax.errors import NonFiniteError
from siren_rope_jax.train.checkpoint import Checkpoints
from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.criterion import Judged
from siren_rope_jax.train.run_log import RunLog


@dataclasses.dataclass
class Member:
    """One of the runs that are trained as one."""

    run: Path
    rows: PackedRows
    config: TrainConfig
    checkpoints: Checkpoints
    describe: Callable[[], str | None] = lambda: None
    """Function that writes the settings to resume with, and returns a note on changes in them."""
    log: RunLog = dataclasses.field(init=False)
    progress: dict[str, Any] = dataclasses.field(
        default_factory=lambda: {"next_example": 0, "seconds": 0.0, "least_cost": None, "since_best": 0}
    )

    def count(self, judged: Judged, *, patiently: bool) -> None:
        """Counts a validation without improvement, unless `patiently`, and keeps the least cost."""
        least = self.progress["least_cost"]
        better = least is None or judged.cost < least
        since = 0 if better or patiently else self.progress["since_best"] + 1
        self.progress = self.progress | {"least_cost": judged.cost if better else least, "since_best": since}

    def not_finite(self, what: str) -> NonFiniteError:
        """Returns an error that names the value that is not finite and the last good checkpoint."""
        self.checkpoints.wait()
        return NonFiniteError(
            f"{what}, which must be finite; last good checkpoint: {self.checkpoints.describe_latest()}; lower the "
            "learning rate (--optimizer.learning-rate), or look for extreme numbers in the log"
        )

    @property
    def exhausted(self) -> bool:
        """Whether the patience is exhausted, so that no later step can become the best."""
        return self.config.patience is not None and self.progress["since_best"] >= self.config.patience


def latest(members: list[Member]) -> str:
    """Returns the newest checkpoint of each run, for a message."""
    return ", ".join(member.checkpoints.describe_latest() for member in members)
