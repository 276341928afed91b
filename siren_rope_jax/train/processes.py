"""Several processes that train one model: how they find each other, and how they agree."""

import dataclasses
import glob
import importlib.util
import json
import os
import re
import socket
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from siren_rope_jax.errors import InputError, ProcessLostError
from siren_rope_jax.settings import check_settings


@dataclasses.dataclass(frozen=True)
class ProcessConfig:
    """The processes of a job; GKE, a Cloud TPU VM, Slurm and Open MPI tell all of it by themselves."""

    coordinator: str | None = None
    """Address of process 0, host:port; together with the other two."""
    count: int | None = None
    """Processes of the job; 1 trains alone whatever the environment says."""
    index: int | None = None
    """Which of them this is, from 0."""
    join_seconds: int = 300
    """How long the processes wait for each other at the start."""
    heartbeat_seconds: int = 100
    """Silence after which a process counts as dead; more than the longest pause of a healthy one."""

    def __post_init__(self) -> None:
        check_settings(self, count="[1, inf)", index="[0, inf)")
        check_settings(self, join_seconds="[1, inf)", heartbeat_seconds="[1, inf)")
        if self.coordinator is not None and not re.fullmatch(r".+:\d{1,5}", self.coordinator):
            raise ValueError(f"coordinator must be host:port, but is {self.coordinator}")
        given = [name for name in ("coordinator", "count", "index") if getattr(self, name) is not None]
        if len(given) in (1, 2) and self.count != 1:
            raise ValueError(f"coordinator, count and index must be given together, but {given[0]} is without another")
        if self.count is not None and self.index is not None and self.index >= self.count:
            raise ValueError(f"index must be below the count, {self.count}, but is {self.index}")


def join(config: ProcessConfig) -> None:
    """Connects this process with the others of its job, before JAX is used; alone, it does nothing.

    Raises:
      InputError: if it cannot be told who they are.
      ProcessLostError: if process 0 does not answer.
    """
    if config.count == 1 or (config.count is None and not _named_by_environment()):
        return
    if config.coordinator is not None and config.index:
        _wait_for(config.coordinator, config.join_seconds)
    try:
        jax.distributed.initialize(
            config.coordinator,
            config.count,
            config.index,
            initialization_timeout=config.join_seconds,
            heartbeat_timeout_seconds=config.heartbeat_seconds,
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(
            f"the processes of this job cannot be joined: {str(error).splitlines()[0]} (--processes.coordinator, "
            ".count and .index name them; --processes.count 1 trains alone)"
        ) from error


def _wait_for(coordinator: str, seconds: int) -> None:
    """Where nobody answers, the runtime would abort this process with a stack of its own calls."""
    host, port = coordinator.rsplit(":", 1)
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise ProcessLostError(
                    f"process 0 does not answer at {coordinator} after {seconds} s ({error}): start it with the same "
                    "command, or correct --processes.coordinator"
                ) from None
        time.sleep(0.5)


def _named_by_environment() -> bool:
    environment = os.environ
    if int(environment.get("MEGASCALE_NUM_SLICES") or 1) > 1:
        return True
    if hosts := environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES"):
        return "," in hosts
    asks_metadata = "TPU_SKIP_MDS_QUERY" not in environment and importlib.util.find_spec("libtpu")
    if asks_metadata and (glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*")):
        return True  # a Cloud TPU VM, whose metadata tell the rest
    step_of_slurm = "SLURM_STEP_NODELIST" in environment and "SLURM_PROCID" in environment
    tasks = environment.get("SLURM_NTASKS") if step_of_slurm else environment.get("OMPI_COMM_WORLD_SIZE")
    return int(tasks or 1) > 1


def decided_by_first(decide: Callable[[], Any]) -> Any:
    """Lets process 0 decide for all, as where files are written that all of them see.

    Args:
      decide: called by process 0 alone; returns what JSON can hold.

    Returns:
      What it returned, in every process.

    Raises:
      InputError: in the other processes, whatever `decide` raised in process 0.
    """
    if jax.process_count() == 1:
        return decide()
    decided, failure = {}, None
    if jax.process_index() == 0:
        try:
            decided = {"value": decide()}
        except Exception as error:
            decided, failure = {"error": str(error) or type(error).__name__}, error
    text = np.frombuffer(json.dumps(decided).encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    text = np.asarray(multihost_utils.broadcast_one_to_all(np.resize(text, length)))
    decided = json.loads(text.tobytes())
    if failure is not None:
        raise failure
    if "error" in decided:
        raise InputError(f"process 0 stopped: {decided['error']}")
    return decided["value"]


def check_all_same(value: Any, complaint: str) -> None:
    """Raises an InputError in every process, the complaint after the name of one, unless all give the same JSON."""
    differs = decided_by_first(lambda: value) != value
    (any_differs,) = greatest(int(differs))
    if any_differs:
        who = f"process {jax.process_index()}" if differs else "another process"
        raise InputError(f"{who} {complaint}")


def greatest(*values: int) -> tuple[int, ...]:
    """The greatest of each value over all processes."""
    if jax.process_count() == 1:
        return values
    gathered = multihost_utils.process_allgather(np.array(values, np.int32))
    return tuple(np.asarray(gathered).max(axis=0).tolist())
