"""Processes of one training job: how they connect, and how they agree on decisions."""

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
    """Settings of the processes of a job; on GKE, Cloud TPU VMs, Slurm and Open MPI they are found automatically."""

    coordinator: str | None = None
    """Address of process 0, host:port; given together with count and index."""
    count: int | None = None
    """Number of processes of the job; 1 trains alone in any environment."""
    index: int | None = None
    """Index of this process, from 0."""
    join_seconds: int = 300
    """Seconds that the processes wait for each other at the start."""
    heartbeat_seconds: int = 100
    """Seconds of silence after which a process counts as lost; more than the longest pause of a healthy process."""

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
    """Connects this process with the others of its job, before JAX is used; does nothing for a single process.

    Raises:
      InputError: if the processes of the job cannot be determined or connected.
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
    """Waits until process 0 accepts connections; without an answer the runtime would abort with a stack trace."""
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
        return True  # a Cloud TPU VM: JAX reads the rest from its metadata
    step_of_slurm = "SLURM_STEP_NODELIST" in environment and "SLURM_PROCID" in environment
    tasks = environment.get("SLURM_NTASKS") if step_of_slurm else environment.get("OMPI_COMM_WORLD_SIZE")
    return int(tasks or 1) > 1


def decided_by_first(decide: Callable[[], Any]) -> Any:
    """Lets process 0 decide for all processes, for example when it writes files that all of them read.

    Args:
      decide: called by process 0 alone; returns JSON.

    Returns:
      The decision, in every process.

    Raises:
      InputError: in the other processes, if `decide` raised any exception in process 0.
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
    """Raises InputError in every process, a process's name and the complaint, unless all give the same JSON."""
    differs = decided_by_first(lambda: value) != value
    (any_differs,) = greatest(int(differs))
    if any_differs:
        who = f"process {jax.process_index()}" if differs else "another process"
        raise InputError(f"{who} {complaint}")


def greatest(*values: int) -> tuple[int, ...]:
    """Returns the maximum of each value over all processes."""
    if jax.process_count() == 1:
        return values
    gathered = multihost_utils.process_allgather(np.array(values, np.int32))
    return tuple(np.asarray(gathered).max(axis=0).tolist())
