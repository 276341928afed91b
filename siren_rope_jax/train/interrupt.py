"""Ctrl-C and SIGTERM as a request that the loop handles between two steps."""

import signal
from types import FrameType


class InterruptRequest:
    """Context manager in which the first SIGINT or SIGTERM only sets `received`; a second one acts as usual."""

    def __init__(self) -> None:
        """Starts with no signal received."""
        self.received: int | None = None
        self._previous: dict[int, signal.Handlers] = {}

    def __enter__(self) -> "InterruptRequest":
        """Installs the handlers."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._handle)  # type: ignore[assignment]
        return self

    def __exit__(self, *_: object) -> None:
        """Restores the previous handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self.__exit__()
