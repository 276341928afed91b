"""Every exception that a user is to act on; each is one sentence, and knows the exit code of the command line."""


class SirenRopeError(Exception):
    """Kind of all of them."""

    exit_code: int


class InputError(SirenRopeError, ValueError):
    """Bad input or settings, not to be tried again."""

    exit_code = 2


class NonFiniteError(SirenRopeError, RuntimeError):
    """Loss or gradient became infinite or NaN."""

    exit_code = 3


class LeakError(SirenRopeError, RuntimeError):
    """An audit found a leak."""

    exit_code = 4


class ProcessLostError(SirenRopeError, RuntimeError):
    """Another process of the job, or a device, is gone; all must start again."""

    exit_code = 75


class Interrupted(SirenRopeError):
    """The run stopped on request after a checkpoint; `signal` says on which."""

    def __init__(self, message: str, number: int):
        """Keeps the signal's number for the exit code, by convention 128 more."""
        super().__init__(message)
        self.signal = number
        self.exit_code = 128 + number
