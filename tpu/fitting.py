"""Estimates with which other settings, or on which larger slices, a training would fit that does not."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.sharding import Layout
from siren_rope_jax.train.step import CompiledModel
from tpu.topologies import TOPOLOGIES, Topology


class Share(NamedTuple):
    """The share of a run that one device holds."""

    fixed: int
    """Bytes that do not depend on its rows: state, and one gradient and one update of the parameters."""
    rows: float
    """Rows of each batch."""


def share_of_device(config: TrainConfig, layout: Layout, model: CompiledModel) -> Share:
    """Reads the share of each device from the shardings of a run."""
    state = model.abstract_state
    return Share(_bytes(state) + 2 * _bytes(state.params), config.batches.rows / layout.row_shares)


def _bytes(tree: Any) -> int:
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def what_would_fit(
    config: TrainConfig, topology: Topology, needed: int, measure: Callable[[TrainConfig, Topology], Share]
) -> list[str]:
    """Names changes, each of which alone would make the run fit.

    Args:
      config: the run that does not fit.
      topology: the slice that it does not fit.
      needed: bytes that it needs of each device there.
      measure: returns a device's share of a run on a slice, or raises a ValueError where the run is impossible.

    Returns:
      The smallest sufficient change of each kind, as a flag, with the GiB that a device is estimated to need: the fixed
      part there, and the rest in proportion to its rows.
    """
    fixed, rows = measure(config, topology)
    per_row = max(needed - fixed, 0) / rows
    found: dict[str, str] = {}
    for flag, changed, place in _changes(config, topology):
        kind = flag.split()[0]
        if kind in found:
            continue
        try:
            fixed, rows = measure(changed, place)
        except ValueError:  # the mesh does not divide the run
            continue
        if fixed + per_row * rows <= place.hbm_bytes_per_device:
            found[kind] = f"{flag} ({(fixed + per_row * rows) / 2**30:.1f} GiB)"
    return list(found.values())


def _changes(config: TrainConfig, topology: Topology) -> Iterator[tuple[str, TrainConfig, Topology]]:
    """Yields flag, configuration and slice of each change, the smallest of a kind first."""
    mesh, batches = config.mesh, config.batches
    if not mesh.fsdp:
        yield "--mesh.fsdp", _with_mesh(config, fsdp=True), topology
    if not mesh.shard_tables:
        yield "--mesh.shard-tables", _with_mesh(config, shard_tables=True), topology
    for model in (2, 4, 8):
        if model > mesh.model:
            yield f"--mesh.model {model}", _with_mesh(config, model=model, data=None), topology
    for halvings in range(1, batches.rows.bit_length()):
        smaller = dataclasses.replace(batches, batch_size=batches.rows >> halvings)
        flag = f"--batches.batch-size {smaller.batch_size}"
        yield flag, dataclasses.replace(config, batches=smaller), topology
    for larger in TOPOLOGIES.values():
        if larger.generation is topology.generation and larger.chips > topology.chips:
            yield f"--topology {larger.name}", _with_mesh(config, data=None), larger


def _with_mesh(config: TrainConfig, **changes: Any) -> TrainConfig:
    return dataclasses.replace(config, mesh=dataclasses.replace(config.mesh, **changes))
