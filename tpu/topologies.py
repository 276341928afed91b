"""TPU slices that exist, and their names in jax, GKE and Cloud TPU.

    python -m tpu.topologies            # all of them, as a table
    python -m tpu.topologies v5e:4x4    # one

Machine types, labels and shapes are those of Google's pages "Plan TPUs in GKE" and of xpk's table of systems, which
also say that Cloud TPU counts two cores per chip of v4, v5p and 7x, and chips of the others. Larger v4, v5p and 7x
slices of other multiples of 4 can be had too; here are the common ones. Chips per host, devices per chip and the memory
that a program may use come from the compiler (libtpu); the tests marked `tpu` compare this table with it.
"""

import dataclasses
import math
import re
import sys

_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16")


@dataclasses.dataclass(frozen=True)
class Generation:
    """The facts that all slices of one generation of TPUs share."""

    name: str
    """Name in jax."""
    hbm_gib: float
    """Memory of a chip that a program may use: the 16, 32, 95 or 192 GB sold, less the part that the system keeps."""
    devices_per_chip: int
    """Devices that jax sees in a chip; each has its share of the memory."""
    gke_accelerator: str
    """Label cloud.google.com/gke-tpu-accelerator."""
    machine: str
    """Machine type less the number of its chips."""
    cloud_type: str
    """Prefix of the accelerator type."""
    cores_per_chip: int
    """Factor from chips to the number in the accelerator type: 2 where it counts cores, 1 where it counts chips."""
    runtime: str | None
    """Software version of a TPU VM; None where Cloud TPU's own interface does not serve the generation."""
    shapes: tuple[str, ...]
    """Slices, in chips."""


_GENERATIONS = (
    Generation(
        name="v4",
        hbm_gib=30.75,
        devices_per_chip=1,
        gke_accelerator="tpu-v4-podslice",
        machine="ct4p-hightpu",
        cloud_type="v4",
        cores_per_chip=2,
        runtime="tpu-ubuntu2204-base",
        shapes=_CUBES,
    ),
    Generation(
        name="v5e",
        hbm_gib=15.75,
        devices_per_chip=1,
        gke_accelerator="tpu-v5-lite-podslice",
        machine="ct5lp-hightpu",
        cloud_type="v5litepod",
        cores_per_chip=1,
        runtime="v2-alpha-tpuv5-lite",
        shapes=_FLAT,
    ),
    Generation(
        name="v5p",
        hbm_gib=95.74,
        devices_per_chip=1,
        gke_accelerator="tpu-v5p-slice",
        machine="ct5p-hightpu",
        cloud_type="v5p",
        cores_per_chip=2,
        runtime="v2-alpha-tpuv5",
        shapes=(*_CUBES, "16x16x16", "16x16x24"),
    ),
    Generation(
        name="v6e",
        hbm_gib=31.25,
        devices_per_chip=1,
        gke_accelerator="tpu-v6e-slice",
        machine="ct6e-standard",
        cloud_type="v6e",
        cores_per_chip=1,
        runtime="v2-alpha-tpuv6e",
        shapes=_FLAT,
    ),
    Generation(
        name="tpu7x",
        hbm_gib=189.5,
        devices_per_chip=2,
        gke_accelerator="tpu7x",
        machine="tpu7x-standard",
        cloud_type="tpu7x",
        cores_per_chip=2,
        runtime=None,
        shapes=(*_CUBES, "16x16x16", "16x16x24", "16x24x24"),
    ),
)
GENERATIONS = {generation.name: generation for generation in _GENERATIONS}


@dataclasses.dataclass(frozen=True)
class Topology:
    """One slice: chips that are wired to each other, spread over hosts."""

    generation: Generation
    shape: str
    """Chips along each axis, in the form of GKE's label cloud.google.com/gke-tpu-topology."""

    @property
    def name(self) -> str:
        """Name for jax.experimental.topologies."""
        return f"{self.generation.name}:{self.shape}"

    @property
    def chips(self) -> int:
        """Chips of the slice."""
        return math.prod(map(int, self.shape.split("x")))

    @property
    def devices(self) -> int:
        """Devices that jax sees in the slice."""
        return self.chips * self.generation.devices_per_chip

    @property
    def chips_per_host(self) -> int:
        """Chips of each host; eight only where they are the whole slice."""
        return self.chips if self.chips <= 4 or self.shape == "2x4" else 4

    @property
    def hosts(self) -> int:
        """Hosts of the slice, each of which runs one process."""
        return self.chips // self.chips_per_host

    @property
    def hbm_bytes_per_device(self) -> int:
        """Memory of a device that a program may use."""
        return int(self.generation.hbm_gib * 2**30) // self.generation.devices_per_chip

    @property
    def machine_type(self) -> str:
        """Machine type of a host, for a node pool of GKE."""
        return f"{self.generation.machine}-{self.chips_per_host}t"

    @property
    def accelerator_type(self) -> str:
        """Name in Cloud TPU: v5litepod-16 counts chips, v4-32 counts cores."""
        return f"{self.generation.cloud_type}-{self.chips * self.generation.cores_per_chip}"

    @property
    def description(self) -> dict[str, object]:
        """Arguments of jax.experimental.topologies.get_topology_desc, which describes the slice without having it."""
        bounds = {1: [1, 1, 1], 4: [2, 2, 1], 8: [2, 4, 1]}[self.chips_per_host]
        # Without this the compiler takes a chip of v4 for two devices.
        cores = {"chip_config_name": "megacore"} if self.generation.name == "v4" else {}
        return {"platform": "tpu", "topology_name": self.name, "chips_per_host_bounds": bounds, **cores}


TOPOLOGIES = {
    topology.name: topology
    for generation in GENERATIONS.values()
    for topology in (Topology(generation, shape) for shape in generation.shapes)
}


def find_topology(name: str) -> Topology:
    """Finds the slice of a name.

    Args:
      name: generation and chips along each axis, "v5e:4x4", or an accelerator type of Cloud TPU, "v5litepod-16".

    Raises:
      ValueError: if there is none; the message names the nearest ones of the generation.
    """
    by_type = {topology.accelerator_type: topology for topology in TOPOLOGIES.values()}
    names = TOPOLOGIES if ":" in name else by_type
    if name in names:
        return names[name]
    kind, wanted = _kind_and_size(name)
    distances = {other: abs(_kind_and_size(other)[1] - wanted) for other in names if _kind_and_size(other)[0] == kind}
    near = sorted(distances, key=distances.__getitem__)[:3] or ["v5e:4x4", "v5litepod-16"]
    raise ValueError(f"{name!r} is no TPU slice; among those that exist are {', '.join(near)}")


def _kind_and_size(name: str) -> tuple[str, int]:
    kind, *size = re.split("[:-]", name, maxsplit=1)
    return kind, math.prod(int(number) for number in re.findall(r"\d+", "".join(size)))


def _line(topology: Topology) -> str:
    generation = topology.generation
    memory = f"{generation.hbm_gib:.2f} GiB"
    hosts = f"{topology.hosts} x {topology.chips_per_host}"
    return (
        f"{topology.name:15} {topology.chips:6} {hosts:>8} {memory:>11}"
        f"  {topology.machine_type:17} {topology.accelerator_type:13} {generation.runtime or '-'}"
    )


if __name__ == "__main__":
    try:
        chosen = [find_topology(name) for name in sys.argv[1:]]
    except ValueError as error:
        sys.exit(f"topologies.py: {error}")
    if not chosen:
        print("slice            chips    hosts x    memory  machine type      accelerator   software")
    print("\n".join(map(_line, chosen or TOPOLOGIES.values())))
