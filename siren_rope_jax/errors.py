"""Exceptions for the user to act on; each message is one sentence, and each class has a command-line exit code."""


class SirenRopeError(Exception):
    """Base class of the project's exceptions."""

    exit_code: int


class InputError(SirenRopeError, ValueError):
    """Bad input or settings; trying again does not help."""

    exit_code = 2


class NonFiniteError(SirenRopeError, RuntimeError):
    """Loss or gradient became infinite or NaN."""

    exit_code = 3


class LeakError(SirenRopeError, RuntimeError):
    """An audit found a leak."""

    exit_code = 4


class ProcessLostError(SirenRopeError, RuntimeError):
    """Another process of the job, or a device, was lost; all processes must start again."""

    exit_code = 75


class Interrupted(SirenRopeError):
    """The run stopped on request after a checkpoint; `signal` is the number of the signal that requested it."""

    def __init__(self, message: str, number: int):
        """Keeps the number of the signal; the exit code is by convention 128 more."""
        super().__init__(message)
        self.signal = number
        self.exit_code = 128 + number

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[str, int]]:
        """Lets a worker process send the exception."""
        return type(self), (str(self), self.signal)
