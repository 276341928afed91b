"""Trainings as processes of their own: started, watched, struck, and compared with one that nothing disturbed."""

import dataclasses
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import polars as pl
import pytest
from tensorboardX.proto.event_pb2 import Event  # type: ignore[attr-defined]

from siren_rope_jax.train.checkpoint_list import list_checkpoints

STEPS = 24
TINY = ["--steps", str(STEPS), "--evaluations", "4"]  # at 6, 12, 18 and 24
TINY += ["--optimizer.learning-rate", "0.0003"]  # small enough for the last validation to be the best
TINY += ["--model.width", "8", "--model.heads", "1", "--model.layers", "1"]
TINY += ["--model.head-widths", "8", "--model.action-widths", "8", "--model.rotary.siren.width", "8"]
TINY += ["--inputs.item-buckets", "64", "--inputs.categorical-buckets", "16"]
TINY += ["--batches.window", "16", "--batches.row-length", "32", "--batches.batch-size", "8"]
EVERY_STEP = ["--checkpoints.seconds", "0"]

_HERE = Path(__file__).parent
_PATIENCE = 400.0  # seconds until a process must have shown what is waited for, however busy the machine is


def environment(cache: Path, devices: int) -> dict[str, str]:
    """What a training process sees: so many CPU devices, and programs compiled once for all drills."""
    return os.environ | {  # with the flags of tests/conftest.py, by which XLA compiles quickly
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=0",  # set, so that the process does not start itself again
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(_HERE.parents[1]),
    }


@dataclasses.dataclass
class Job:
    """The processes of one training, each writing what it says into a file."""

    processes: list[subprocess.Popen[bytes]]
    outputs: list[Path]

    def said(self, index: int = 0) -> str:
        """Standard output and error of a process so far."""
        return self.outputs[index].read_text()

    def wait_until(self, happened: Callable[[], bool], what: str) -> None:
        """Watches closely until something has happened, as long as every process lives."""
        end = time.monotonic() + _PATIENCE
        while not happened():
            ended = [index for index, process in enumerate(self.processes) if process.poll() is not None]
            assert not ended, f"process {ended[0]} ended before {what}:\n{self.said(ended[0])}"
            assert time.monotonic() < end, f"{what} took longer than {_PATIENCE} s:\n{self.said()}"
            time.sleep(0.002)

    def wait_for_step(self, step: int) -> None:
        """Watches until the validation of that step is shown."""
        self.wait_until(lambda: re.search(rf"^step +{step}:", self.said(), re.MULTILINE) is not None, f"step {step}")

    def kill(self, index: int = 0) -> None:
        """SIGKILL: no handler runs, nothing is flushed."""
        self.processes[index].send_signal(signal.SIGKILL)

    def finish(self) -> list[int]:
        """Waits for every process; exit codes as a shell gives them, 128 + signal for one that a signal ended."""
        try:
            codes = [process.wait(_PATIENCE) for process in self.processes]
        except subprocess.TimeoutExpired:
            shown = "\n".join(f"process {index}:\n{self.said(index)}" for index in range(len(self.outputs)))
            raise AssertionError(f"a process did not end within {_PATIENCE} s:\n{shown}") from None
        return [code if code >= 0 else 128 - code for code in codes]


@dataclasses.dataclass
class Trainer:
    """Starts `siren-rope` commands and ends those that a failed drill leaves behind."""

    folder: Path  # for outputs and compiled programs
    jobs: list[Job] = dataclasses.field(default_factory=list)
    _warm: subprocess.Popen[str] | None = None

    def start(
        self,
        *arguments: str | Path,
        count: int = 1,
        devices: int = 1,
        faults: Sequence[str] = (),
        setup: Callable[[], None] | None = None,
    ) -> Job:
        """Starts a command, in `count` processes that know of each other if more than one.

        Args:
          arguments: of `siren-rope`.
          count: processes.
          devices: of each process.
          faults: name and step of a fault of faults.py that is injected into every process.
          setup: called in each process before it becomes the command.
        """
        program = [str(_HERE / "faults.py"), *faults] if faults else ["-m", "siren_rope_jax"]
        command = [sys.executable, *program, *map(str, arguments)]
        job = Job([], [])
        coordinator = f"localhost:{_free_port()}"
        for index in range(count):
            place = ["--processes.coordinator", coordinator, "--processes.count", str(count)]
            place += ["--processes.index", str(index), "--processes.heartbeat-seconds", "10"]
            output = self.folder / f"{len(self.jobs)}-{index}.txt"
            with open(output, "wb") as file:
                job.processes.append(
                    subprocess.Popen(
                        command + place * (count > 1),
                        stdin=subprocess.DEVNULL,
                        stdout=file,
                        stderr=subprocess.STDOUT,
                        env=environment(self.folder / "compiled", devices),
                        preexec_fn=setup,
                    )
                )
            job.outputs.append(output)
        self.jobs.append(job)
        return job

    def run(self, *arguments: str | Path, code: int = 0, **options: object) -> str:
        """Runs a command to its end, which must be that exit code in every process; what its first one said."""
        job = self.start(*arguments, **options)  # type: ignore[arg-type]
        codes = job.finish()
        assert set(codes) == {code}, f"exit codes {codes}, expected {code}:\n{job.said()}"
        if code == 2:
            assert "Traceback" not in job.said()
        return job.said()

    def run_warm(self, *arguments: str | Path, code: int = 0) -> str:
        """As `run`, in a process that lives on and need not start anew, for drills of many commands."""
        if self._warm is None:
            self._warm = subprocess.Popen(
                [sys.executable, str(_HERE / "commands.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment(self.folder / "compiled", devices=1),
                text=True,
            )
        assert self._warm.stdin is not None
        assert self._warm.stdout is not None
        print(json.dumps(list(map(str, arguments))), file=self._warm.stdin, flush=True)
        ended, said = json.loads(self._warm.stdout.readline())
        assert ended == code, f"exit code {ended}, expected {code}:\n{said}"
        return said

    def close(self) -> None:
        """Ends what is still running."""
        if self._warm is not None:
            self._warm.communicate()
        for process in (process for job in self.jobs for process in job.processes):
            if process.poll() is None:
                process.kill()
            process.wait()


def losses(run: Path) -> dict[int, set[float]]:
    """Every loss that was recorded of each step, by all the processes that ever trained in the folder."""
    found: dict[int, set[float]] = {}
    for file in (run / "tensorboard").iterdir():
        for event in _events(file.read_bytes()):
            for value in event.summary.value:
                if value.tag == "train/loss":
                    found.setdefault(event.step, set()).add(value.simple_value)
    return found


def assert_same(run: Path, reference: Path) -> None:
    """Checks bit for bit that a finished run is the one of the same layout that nothing disturbed; no step is lost."""
    assert losses(run) == losses(reference) != {}
    assert (run / "metrics.json").read_bytes() == (reference / "metrics.json").read_bytes()
    assert pl.read_parquet(run / "predictions.parquet").equals(pl.read_parquet(reference / "predictions.parquet"))


def assert_close(run: Path, reference: Path) -> None:
    """Checks that a finished run has the losses of one of another layout, up to rounding."""
    expected, found = losses(reference), losses(run)
    assert found.keys() == expected.keys()
    for step, values in found.items():
        assert sorted(values) == pytest.approx(sorted(expected[step]) * len(values), rel=1e-5)


def sound_steps(run: Path) -> list[int]:
    """The steps of the checkpoints that verify, newest last."""
    if not (run / "checkpoints").is_dir():
        return []
    return [checkpoint.step for checkpoint in list_checkpoints(run) if checkpoint.problem is None]


def _events(data: bytes) -> Iterator[Event]:
    """TensorBoard's records, each a length, its checksum, the event and its checksum; the last may be cut."""
    place = 0
    while place + 12 <= len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        if place + 16 + length > len(data):
            return
        yield Event.FromString(data[place + 12 : place + 12 + length])
        place += 16 + length


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]
