"""How far a training is, and how fast."""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Meter:
    """Time of the steps alone, without validation and checkpoints; the rate leaves out the first, which compiles."""

    def __init__(self) -> None:
        """Starts at once."""
        self.seconds, self._steps = 0.0, 0
        self._events, self._rate_seconds = 0, 0.0
        self.start()

    def start(self) -> None:
        """Leaves out what came since the last step."""
        self._started = time.monotonic()

    def stop(self, events: int) -> None:
        """Ends a step of so many events, and starts the next."""
        now = time.monotonic()
        elapsed, self._started = now - self._started, now
        self.seconds += elapsed
        if self._steps:
            self._events += events
            self._rate_seconds += elapsed
        self._steps += 1

    @property
    def rate(self) -> float:
        """Events a second."""
        return self._events / max(self._rate_seconds, 1e-9)


def progress_bar(console: Console) -> Progress:
    """Steps, loss, rate and the time that is left, on a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TextColumn("{task.fields[rate]:,.0f} events/s"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
