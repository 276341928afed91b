"""How the processes of a job are found, and that they agree."""

import json
import subprocess
import sys

import jax
import pytest
from one_sentence import raises_one_sentence
from sharded_training import environment, free_port

from siren_rope_jax.errors import ProcessLostError
from siren_rope_jax.train import processes
from siren_rope_jax.train.processes import ProcessConfig, decided_by_first, greatest, join

NAMES = ("MEGASCALE_NUM_SLICES", "TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES", "OMPI_COMM_WORLD_SIZE")
SLURM = {"SLURM_STEP_NODELIST": "node[1-2]", "SLURM_PROCID": "0", "SLURM_NTASKS": "8"}


@pytest.fixture
def joined(monkeypatch):
    """What `jax.distributed.initialize` was called with, in a machine that knows of no job."""
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a, **b: calls.append((a, b)))
    monkeypatch.setattr(processes.glob, "glob", lambda pattern: [])
    for name in (*NAMES, *SLURM, "TPU_SKIP_MDS_QUERY"):
        monkeypatch.delenv(name, raising=False)
    return calls


def test_the_flag_to_train_alone_overrules_the_environment(joined, monkeypatch):
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "a,b")
    join(ProcessConfig(count=1))
    assert not joined


def test_a_process_alone_joins_no_job(joined):
    join(ProcessConfig())
    assert not joined


@pytest.mark.parametrize(
    "environment",
    [
        {"TPU_WORKER_HOSTNAMES": "a,b,c,d", "TPU_WORKER_ID": "2"},
        {"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"},
        {"OMPI_COMM_WORLD_SIZE": "4"},
        SLURM,
    ],
    ids=["GKE", "GKE, slices of one host", "Open MPI", "Slurm"],
)
def test_a_job_that_the_environment_names_is_joined(joined, monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    join(ProcessConfig(heartbeat_seconds=30))
    ((arguments, options),) = joined
    assert arguments == (None, None, None)
    assert options["heartbeat_timeout_seconds"] == 30


def test_a_cloud_tpu_vm_joins_its_job_unless_it_is_told_to_skip_the_metadata(joined, monkeypatch):
    monkeypatch.setattr(processes.glob, "glob", lambda pattern: ["/dev/accel0"] if "accel" in pattern else [])
    monkeypatch.setattr(processes.importlib.util, "find_spec", lambda name: object())
    join(ProcessConfig())
    assert len(joined) == 1
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")  # a machine that has no metadata, such as a notebook's
    join(ProcessConfig())
    assert len(joined) == 1


@pytest.mark.parametrize(
    "environment",
    [{"TPU_WORKER_HOSTNAMES": "localhost"}, {"SLURM_STEP_NODELIST": "n", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}],
    ids=["one TPU host", "one task of Slurm"],
)
def test_a_job_of_one_process_is_not_joined(joined, monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    join(ProcessConfig())
    assert not joined


@pytest.mark.slow
def test_a_first_process_that_does_not_answer_is_named_and_the_job_is_not_joined(joined):
    with pytest.raises(ProcessLostError, match=r"process 0 does not answer at localhost:\d+ after 1 s .* start it"):
        join(ProcessConfig(f"localhost:{free_port()}", 2, 1, join_seconds=1))
    assert not joined


def test_flags_go_before_the_environment(joined, monkeypatch):
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "a,b")
    join(ProcessConfig("host:1234", 3, 0))
    assert joined[0][0] == ("host:1234", 3, 0)


def test_a_job_that_cannot_be_joined_ends_in_one_sentence(joined, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("Barrier timed out\nmore than a user wants to read")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    with raises_one_sentence("cannot be joined: Barrier timed out"):
        join(ProcessConfig("host:1234", 2, 0))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"count": 2}, "must be given together, but count is without another"),
        ({"coordinator": "host", "count": 2, "index": 0}, "coordinator must be host:port, but is host"),
        ({"coordinator": "a:1", "index": 0}, "must be given together"),
        ({"coordinator": "a:1", "count": 2, "index": 2}, "index must be below the count, 2, but is 2"),
        ({"coordinator": "a:1", "count": 0, "index": 0}, r"count must lie in \[1, inf\), but is 0"),
        ({"heartbeat_seconds": 0}, "heartbeat_seconds must lie"),
    ],
)
def test_flags_that_fit_no_job_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ProcessConfig(**fields)


def test_alone_the_first_process_decides_for_itself():
    assert decided_by_first(lambda: {"step": 3}) == {"step": 3}
    assert greatest(3, 0) == (3, 0)
    with pytest.raises(ZeroDivisionError):
        decided_by_first(lambda: 1 // 0)


PROGRAM = """
import json, sys, jax
from siren_rope_jax.errors import InputError
from siren_rope_jax.train.processes import ProcessConfig, check_all_same, decided_by_first, greatest, join
index = int(sys.argv[2])
join(ProcessConfig(sys.argv[1], 3, index))
def refuse():
    raise FileExistsError("the folder is taken")
found = [decided_by_first(lambda: {"from": index, "text": "x" * 1000}), greatest(index, 5 - index, -index)]
try:
    decided_by_first(refuse)
except (InputError, FileExistsError) as error:
    found.append(f"{type(error).__name__}: {error}")
check_all_same({"steps": 3}, "never said")
try:
    check_all_same({"steps": max(index, 1)}, "was given other settings")
except InputError as error:
    found.append(str(error))
print(json.dumps(found))
"""


@pytest.mark.slow
def test_three_processes_agree_with_the_first_and_on_the_greatest():
    coordinator = f"localhost:{free_port()}"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, coordinator, str(index)],
            env=environment(devices=1),
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(3)
    ]
    found = [json.loads(process.communicate()[0].splitlines()[-1]) for process in running]
    for index, (decided, largest, failure, differs) in enumerate(found):
        assert decided == {"from": 0, "text": "x" * 1000}
        assert largest == [2, 5, 0]
        kind = "InputError: process 0 stopped" if index else "FileExistsError"
        assert failure == f"{kind}: the folder is taken"
        assert differs == f"{'process 2' if index == 2 else 'another process'} was given other settings"
