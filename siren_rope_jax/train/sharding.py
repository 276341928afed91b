"""The device mesh, and what is laid out on it how."""

import dataclasses

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Axes of the device mesh."""

    data: int | None = None
    """Devices that share each batch; all that the model axis leaves if not given."""
    model: int = 1
    """Devices of the model axis."""


def make_mesh(config: MeshConfig) -> Mesh:
    """Lays out all devices as ("data", "model"); one device is the 1x1 mesh.

    Raises:
      ValueError: if the axes do not multiply to the number of devices.
    """
    devices = jax.device_count()
    data = devices // max(config.model, 1) if config.data is None else config.data
    if config.model < 1 or data < 1 or data * config.model != devices:
        raise ValueError(f"mesh must use all {devices} devices, but is {data} x {config.model}")
    return jax.make_mesh((data, config.model), ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def put_batch(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Makes one global batch, its rows sharded over "data", of the shares that the processes hold."""
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    return {name: jax.make_array_from_process_local_data(sharding, x) for name, x in batch.items()}
