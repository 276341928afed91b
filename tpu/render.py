"""Writes a launch file for another TPU slice, or for several; topologies.py has all that depends on the slice.

    python -m tpu.render jobset --topology v5p:2x2x2 --slices 2 | envsubst | kubectl apply -f -
    python -m tpu.render sky --topology v6e:4x4 >sky_v6e.yaml && sky jobs launch sky_v6e.yaml ...

The files beside this one are for a v5e-16 slice; the tests compare them with the output for that slice.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from tpu.topologies import Topology, find_topology

_HERE = Path(__file__).parent


def xla_flags() -> str:
    """Reads the flags of xla_flags.txt, for LIBTPU_INIT_ARGS."""
    return " ".join(line for line in (_HERE / "xla_flags.txt").read_text("utf-8").splitlines() if line[:2] == "--")


def _render_jobset(document: dict[str, Any], topology: Topology, slices: int) -> None:
    if slices > 1 and topology.hosts == 1:
        raise ValueError(f"GKE joins slices of several hosts only, but {topology.name} is one host")
    (job,) = document["spec"]["replicatedJobs"]
    job["replicas"] = slices
    spec = job["template"]["spec"]
    spec["parallelism"] = spec["completions"] = topology.hosts
    pod = spec["template"]["spec"]
    pod["nodeSelector"] = {
        "cloud.google.com/gke-tpu-accelerator": topology.generation.gke_accelerator,
        "cloud.google.com/gke-tpu-topology": topology.shape,
    }
    (container,) = pod["containers"]
    container["resources"]["limits"]["google.com/tpu"] = topology.chips_per_host
    container["env"] = [{"name": "LIBTPU_INIT_ARGS", "value": xla_flags()}]


def _render_sky(document: dict[str, Any], topology: Topology, slices: int) -> None:
    if slices > 1:
        raise ValueError(
            f"SkyPilot starts one slice, but {slices} are wanted; a JobSet or a queued resource has several"
        )
    if topology.generation.runtime is None:
        raise ValueError(
            f"SkyPilot starts TPU VMs, which {topology.generation.name} does not have; a JobSet runs on it"
        )
    document["resources"]["accelerators"] = f"tpu-{topology.accelerator_type}"
    document["resources"]["accelerator_args"] = {"runtime_version": topology.generation.runtime}


_RENDER = {"jobset": _render_jobset, "sky": _render_sky}


def render(kind: str, topology: Topology, slices: int) -> dict[str, Any]:
    """Reads a launch file and changes it to run on other slices.

    Args:
      kind: "jobset" for GKE, or "sky" for SkyPilot.
      topology: one slice.
      slices: number of slices; their processes train one model.

    Returns:
      The parsed file.

    Raises:
      ValueError: if it cannot run on them.
    """
    if slices < 1:
        raise ValueError(f"slices must be at least 1, but are {slices}")
    document = yaml.safe_load((_HERE / f"{kind}.yaml").read_text("utf-8"))
    _RENDER[kind](document, topology, slices)
    return document


def main() -> None:
    """Prints the rendered file; exits with 2 if it cannot run on the slices."""
    parser = argparse.ArgumentParser(description="Write a launch file for other TPU slices.")
    parser.add_argument("kind", choices=_RENDER, help="which file")
    parser.add_argument("--topology", default="v5e:4x4", help="one slice, as topologies.py lists it")
    parser.add_argument("--slices", type=int, default=1, help="how many slices train one model")
    arguments = parser.parse_args()
    try:
        document = render(arguments.kind, find_topology(arguments.topology), arguments.slices)
    except ValueError as error:
        parser.error(str(error))
    yaml.safe_dump(document, sys.stdout, sort_keys=False, width=120)


if __name__ == "__main__":
    main()
