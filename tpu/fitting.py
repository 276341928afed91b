"""Which other settings, and which larger slices, a training that does not fit would fit, by estimate."""

import dataclasses
import math
from collections.abc import Callable, Iterator

import jax
from topologies import TOPOLOGIES, Topology

from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.sharding import Layout
from siren_rope_jax.train.step import CompiledModel

Prepare = Callable[[TrainConfig, Topology], tuple[Layout, CompiledModel]]


def what_would_fit(config: TrainConfig, topology: Topology, needed: int, prepare: Prepare) -> list[str]:
    """Names changes, each by itself, with which a device would have room.

    Args:
      config: the run that does not fit.
      topology: the slice that it does not fit.
      needed: bytes that it needs of each device there.
      prepare: lays out a run on a slice and prepares its functions, or raises a ValueError where that cannot be.

    Returns:
      Each change as a flag, with the GiB that it is estimated to need: the state as it would be divided, twice the
      parameters for the gradient and the update, and the rest in proportion to the rows of a device.
    """
    layout, model = prepare(config, topology)
    per_row = max(needed - _state_bytes(model), 0) / (config.batches.batch_size / layout.row_shares)
    found: dict[str, str] = {}
    for kind, flag, changed, place in _changes(config, topology):
        if kind in found:
            continue
        try:
            layout, model = prepare(changed, place)
        except ValueError:
            continue
        estimate = _state_bytes(model) + per_row * changed.batches.batch_size / layout.row_shares
        if estimate <= place.hbm_bytes_per_device:
            found[kind] = f"{flag} ({estimate / 2**30:.1f} GiB)"
    return list(found.values())


def _changes(config: TrainConfig, topology: Topology) -> Iterator[tuple[str, str, TrainConfig, Topology]]:
    """Kind, flag, configuration and slice of each change, the smallest of a kind first."""
    mesh, batches = config.mesh, config.batches
    if not mesh.fsdp:
        yield "fsdp", "--mesh.fsdp", _with_mesh(config, fsdp=True), topology
    for model in (2, 4, 8):
        if model > mesh.model:
            yield "model", f"--mesh.model {model}", _with_mesh(config, model=model, data=None), topology
    for halvings in range(1, batches.batch_size.bit_length()):
        rows = batches.batch_size >> halvings
        smaller = dataclasses.replace(config, batches=dataclasses.replace(batches, batch_size=rows))
        yield "batch", f"--batches.batch-size {rows}", smaller, topology
    for larger in TOPOLOGIES.values():
        if larger.generation is topology.generation and larger.chips > topology.chips:
            yield "topology", f"--topology {larger.name}", _with_mesh(config, data=None), larger


def _with_mesh(config: TrainConfig, **changes: int | bool | None) -> TrainConfig:
    return dataclasses.replace(config, mesh=dataclasses.replace(config.mesh, **changes))  # type: ignore[arg-type]


def _state_bytes(model: CompiledModel) -> int:
    """Bytes of the state on a device, and of a gradient and an update of its share of the parameters."""
    return _device_bytes(model.abstract_state) + 2 * _device_bytes(model.abstract_state.params)


def _device_bytes(tree: object) -> int:
    """Bytes of a device's shares of all arrays of a tree of `jax.ShapeDtypeStruct` with shardings."""
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
