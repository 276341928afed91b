"""tpu/topologies.py: what it finds, and, in the tests marked `tpu`, what the compiler says of the same slices."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from jax.experimental import topologies as jax_topologies
from jax.sharding import SingleDeviceSharding
from one_sentence import raises_one_sentence

from tpu.render import xla_flags
from tpu.topologies import GENERATIONS, TOPOLOGIES, find_topology

ROOT = Path(__file__).parents[1]

# Of a machine without a TPU; the last lets two processes compile at once.
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_ID": "0",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@pytest.mark.parametrize(
    ("name", "accelerator_type", "machine_type", "hosts", "chips_per_host"),
    [
        ("v4:2x2x4", "v4-32", "ct4p-hightpu-4t", 4, 4),
        ("v5e:1x1", "v5litepod-1", "ct5lp-hightpu-1t", 1, 1),
        ("v5e:2x2", "v5litepod-4", "ct5lp-hightpu-4t", 1, 4),
        ("v5e:2x4", "v5litepod-8", "ct5lp-hightpu-8t", 1, 8),
        ("v5e:4x4", "v5litepod-16", "ct5lp-hightpu-4t", 4, 4),
        ("v5p:2x2x1", "v5p-8", "ct5p-hightpu-4t", 1, 4),
        ("v6e:16x16", "v6e-256", "ct6e-standard-4t", 64, 4),
        ("tpu7x:2x2x2", "tpu7x-16", "tpu7x-standard-4t", 2, 4),
    ],
)
def test_a_slice_has_the_names_and_hosts_that_google_gives_it(
    name, accelerator_type, machine_type, hosts, chips_per_host
):
    slice_ = find_topology(name)
    assert slice_ is find_topology(accelerator_type)
    assert (slice_.name, slice_.accelerator_type, slice_.machine_type) == (name, accelerator_type, machine_type)
    assert (slice_.hosts, slice_.chips_per_host) == (hosts, chips_per_host)
    assert slice_.hosts * slice_.chips_per_host == slice_.chips


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("v5e:3x3", "v5e:2x4"),
        ("v5e:4x4x4", "v5e:8x8"),
        ("v5p:2x2", "v5p:2x2x1"),
        ("v5litepod-12", "v5litepod-16"),
        ("v4-31", "v4-32"),
        ("v5e", "v5e:4x4"),
        ("", "v5litepod-16"),
    ],
)
def test_a_slice_that_does_not_exist_is_answered_with_some_that_do(name, near):
    with raises_one_sentence(f"{name!r} is no TPU slice", near):
        find_topology(name)


def test_the_table_for_people_and_scripts_names_every_slice_and_ends_with_the_software():
    command = [sys.executable, "-m", "tpu.topologies"]
    table = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.split()[0] for line in table[1:]] == list(TOPOLOGIES)
    one = subprocess.run([*command, "v5e:4x4"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert one.split()[-2:] == ["v5litepod-16", "v2-alpha-tpuv5-lite"]


@pytest.fixture
def compiler(monkeypatch):
    for name, setting in ENVIRONMENT.items():
        monkeypatch.setenv(name, setting)


@pytest.mark.tpu
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_the_compiler_sees_the_same_devices_and_hosts(compiler, name):
    topology = TOPOLOGIES[name]
    devices = jax_topologies.get_topology_desc(**topology.description).devices
    assert len(devices) == topology.devices
    assert len({device.process_index for device in devices}) == topology.hosts


@pytest.mark.tpu
@pytest.mark.parametrize("name", GENERATIONS)
def test_the_compiler_gives_a_program_the_same_memory(compiler, name):
    topology = next(topology for topology in TOPOLOGIES.values() if topology.generation.name == name)
    device = jax_topologies.get_topology_desc(**topology.description).devices[0]
    too_much = jax.ShapeDtypeStruct((2**40,), "float32", sharding=SingleDeviceSharding(device))
    lowered = jax.jit(lambda x: x + 1).trace(too_much).lower(lowering_platforms=("tpu",))
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED") as error:
        lowered.compile()
    (available,) = re.findall(r"available HBM \(([\d.]+)G\)", str(error.value))
    assert abs(topology.hbm_bytes_per_device - float(available) * 2**30) < 0.01 * 2**30


COMPILE = """
import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

device = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices[0]
x = jax.ShapeDtypeStruct((256, 256), "float32", sharding=SingleDeviceSharding(device))
jax.jit(lambda x: x @ x).trace(x).lower(lowering_platforms=("tpu",)).compile()
print("compiled")
"""


@pytest.mark.tpu
@pytest.mark.parametrize(
    ("planted", "complaint"), [("", None), (" --xla_tpu_no_such_flag=true", "xla_tpu_no_such_flag")]
)
def test_the_compiler_takes_every_flag_and_a_planted_one_is_found(planted, complaint):
    environment = os.environ | ENVIRONMENT | {"JAX_PLATFORMS": "cpu", "LIBTPU_INIT_ARGS": xla_flags() + planted}
    command = [sys.executable, "-c", COMPILE]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    said = finished.stdout + finished.stderr
    assert ("compiled" in said) == (complaint is None)
    assert ("ERROR" in said) == (complaint is not None)
    assert complaint is None or complaint in said
