"""Progress and speed of a training."""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Meter:
    """Clock of the steps without validation and checkpoints; the rate omits the first step, which compiles."""

    def __init__(self) -> None:
        """Starts the clock."""
        self.seconds, self._steps = 0.0, 0
        self._events, self._rate_seconds = 0, 0.0
        self.start()

    def start(self) -> None:
        """Restarts the clock, so that the time since the last step does not count."""
        self._started = time.monotonic()

    def stop(self, events: int) -> None:
        """Ends a step with the given number of events, and starts the next."""
        now = time.monotonic()
        elapsed, self._started = now - self._started, now
        self.seconds += elapsed
        if self._steps:
            self._events += events
            self._rate_seconds += elapsed
        self._steps += 1

    @property
    def rate(self) -> float:
        """Events per second."""
        return self._events / max(self._rate_seconds, 1e-9)


def progress_bar(console: Console) -> Progress:
    """Makes the bar of steps, loss, rate and remaining time; shown only on a terminal."""
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
