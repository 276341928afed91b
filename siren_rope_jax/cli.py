"""The command line: parses flags, runs one command, and turns each failure into a sentence and an exit code."""

import logging
import os
import sys
import time
import traceback
from typing import NoReturn

import jax
import tyro

from siren_rope_jax.commands import COMMANDS
from siren_rope_jax.errors import SirenRopeError
from siren_rope_jax.report.tables import (
    make_console,
)

_TUNABLES = "GLIBC_TUNABLES"
_LAST_SECONDS = 3
_ALLOCATION = {"hugetlb": 1, "arena_max": 1, "mmap_max": 0, "trim_threshold": 2**33}


def keep_memory() -> None:
    """Restarts this process with memory in huge pages that are kept, unless the user has set how memory is allocated.

    XLA allocates the temporary memory of each step on a CPU anew. In small pages, returned to the system in between,
    that costs a fifth to a half of the time. glibc reads the setting only at the start of a process.
    """
    if sys.platform != "linux" or _TUNABLES in os.environ:
        return
    os.environ[_TUNABLES] = ":".join(f"glibc.malloc.{name}={value}" for name, value in _ALLOCATION.items())
    print(
        f"{_TUNABLES}={os.environ[_TUNABLES]} is set, for speed on a CPU; set it yourself to change it", file=sys.stderr
    )
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def main(arguments: list[str] | None = None) -> None:
    """Runs one command; its exit code tells a supervisor whether to restart it.

    No restart helps after 2 (bad input or settings), 3 (diverged) and 4 (an audit found a leak). A restart resumes
    after 75 (another process is gone) and 128 + signal (interrupted, after a checkpoint).
    """
    if arguments is None:
        keep_memory()
    # Silences the tracebacks of orbax's tasks after a checkpoint that cannot be written: our sentence reports it.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    try:
        command = tyro.extras.subcommand_cli_from_dict(
            COMMANDS,  # type: ignore[arg-type]
            prog="siren-rope",
            description="SIREN-RoPE recommenders on event logs: train, evaluate, score.",
            args=arguments,
        )
    except ValueError as error:  # a setting that its own dataclass refuses; tyro itself reports some of these
        _fail(str(error), 2)
    try:
        command(make_console())
    except SirenRopeError as error:
        _fail(str(error), error.exit_code)
    except FileExistsError as error:
        _fail(str(error), 2)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror or error}", 2)
    except Exception:
        if not jax.distributed.is_initialized():
            raise
        traceback.print_exc()
        _exit(1)
    except KeyboardInterrupt:
        _fail("interrupted; the checkpoints saved before are whole, and the same command resumes from there", 130)


def _fail(message: str, code: int) -> NoReturn:
    print(f"siren-rope: {message}", file=sys.stderr, flush=True)
    _exit(code)


def _exit(code: int) -> NoReturn:
    if jax.distributed.is_initialized():
        # A regular exit would wait for processes that are gone or do not know of this failure, and be aborted.
        # Process 0 exits last, so that the others can report their own failures first.
        sys.stdout.flush()
        if jax.process_index() == 0:
            time.sleep(_LAST_SECONDS)
        os._exit(code)
    sys.exit(code)
