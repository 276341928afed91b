"""Ctrl-C and SIGTERM as a request that the loop answers between two steps."""

import signal
from types import FrameType


class InterruptRequest:
    """Within its `with` block the first SIGINT or SIGTERM only sets `received`; a second one acts as usual."""

    def __init__(self) -> None:
        """Nothing is received yet."""
        self.received: int | None = None
        self._previous: dict[int, signal.Handlers] = {}

    def __enter__(self) -> "InterruptRequest":
        """Installs the handlers."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._handle)  # type: ignore[assignment]
        return self

    def __exit__(self, *_: object) -> None:
        """Puts the former handlers back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self.__exit__()
