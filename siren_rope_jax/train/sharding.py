"""Device mesh, and the sharding of parameters and batches over it."""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int

from siren_rope_jax.batch import Batch

# One rule for each kind of parameter: the mesh axes that divide each of its own axes. "data" means FSDP, except for the
# rows of tables; "model" means tensor parallelism, by heads and by units of the feed-forward. The optimizer's moments
# match by the names of their parameters.
_TABLES = r"tables\.\d+\.embedding\b"
_RULES: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...] = (
    (_TABLES, (("data", "model"), ())),
    (r"\b(query|key|value)\.kernel\b", (("data",), ("model",))),
    (r"\boutput\.kernel\b", (("model",), ("data",))),
    (r"\bno_history\b", (("model",),)),
    (r"\bfeed_forward\.layers\.0\.kernel\b", (("data",), ("model",))),
    (r"\bfeed_forward\.layers\.0\.bias\b", (("model",),)),
    (r"\bfeed_forward\.layers\.1\.kernel\b", (("model",), ("data",))),
    (r"\bkernel\b", ((), ("data",))),
)


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Axes of the device mesh, and the arrays divided over them."""

    data: int | None = None
    """Number of devices per slice that share each batch; all that the model axis leaves if not given."""
    model: int = 1
    """Number of devices that share the heads of attention and the units of the feed-forward (tensor parallelism)."""
    slices: int | None = None
    """Number of slices, joined by the data centre's network: each holds all parameters and a share of the batch; the
    slices of the devices if not given."""
    fsdp: bool = False
    """Whether the data axis also divides the other parameters and their moments."""
    shard_tables: bool = True
    """Whether both axes divide the rows of embedding tables and of their moments, if the number of rows allows it."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """Sharding of a training's arrays on the mesh ("slice", "data", "model")."""

    mesh: Mesh | AbstractMesh
    config: MeshConfig
    seeds: int | None = None
    """Number of models trained as one, on a leading axis of each array; None trains one model without that axis."""

    @property
    def _over_seeds(self) -> str | None:
        """Mesh axis that divides the seeds if they fill it, since seeds need no communication; else None."""
        return "data" if self.seeds and self.seeds % self.mesh.shape["data"] == 0 else None

    @property
    def _over_rows(self) -> tuple[str, ...]:
        return ("slice",) if self._over_seeds else ("slice", "data")

    @property
    def row_shares(self) -> int:
        """Number of parts that the rows of a batch are divided into."""
        return math.prod(self.mesh.shape[name] for name in self._over_rows)

    @property
    def whole(self) -> NamedSharding:
        """Sharding of an array that every device holds whole."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def batch(self) -> NamedSharding:
        """Sharding of a batch, whose rows are divided over slices and data."""
        return NamedSharding(self.mesh, PartitionSpec(*self._leading, self._over_rows))

    @property
    def _leading(self) -> tuple[str | None, ...]:
        return () if self.seeds is None else (self._over_seeds,)

    def place(self, state: Any) -> Any:
        """Gives each array of a state the sharding of its kind.

        Args:
          state: tree of `jax.ShapeDtypeStruct`, or of anything with shape and dtype.

        Returns:
          The same tree of `jax.ShapeDtypeStruct` with shardings. An axis that the devices do not divide evenly stays
          whole.
        """

        def place_leaf(path: Any, leaf: Any) -> jax.ShapeDtypeStruct:
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            own = leaf.shape[len(self._leading) :]
            rule = next((rule for pattern, rule in _RULES if re.search(pattern, name)), ())
            is_table = re.search(_TABLES, name) is not None
            usable = self._usable(is_table)
            spec = [self._dividing(axes, size, usable) for axes, size in zip(rule, own, strict=False)]
            sharding = NamedSharding(self.mesh, PartitionSpec(*self._leading, *spec))
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

        return jax.tree_util.tree_map_with_path(place_leaf, state)

    def _usable(self, is_table: bool) -> set[str]:
        axes = {"data", "model"}
        if is_table and not self.config.shard_tables:
            axes = set()
        elif not is_table and not self.config.fsdp:
            axes = {"model"}
        return axes - {self._over_seeds}

    def _dividing(self, axes: tuple[str, ...], size: int, usable: set[str]) -> tuple[str, ...] | None:
        chosen: tuple[str, ...] = ()
        for axis in axes:
            shares = math.prod(self.mesh.shape[name] for name in (*chosen, axis))
            if axis in usable and size % shares == 0:
                chosen = (*chosen, axis)
        return chosen or None

    def rows_here(self, batch_size: int) -> Int[np.ndarray, " b"]:
        """Returns the rows of each batch that the devices of this process hold, ascending."""
        sharding = NamedSharding(self.mesh, PartitionSpec(self._over_rows))
        rows = np.arange(batch_size)
        held = [rows[index] for index in sharding.addressable_devices_indices_map((batch_size,)).values()]
        return np.unique(np.concatenate(held))

    def put_batch(self, batch: Batch, batch_size: int) -> Batch:
        """Makes one global batch from the rows that each process holds, those of `rows_here`."""
        rows_axis = len(self._leading)
        arrays, tree = jax.tree.flatten(batch)
        shapes = [(*x.shape[:rows_axis], batch_size, *x.shape[rows_axis + 1 :]) for x in arrays]
        # All at once: one call for each array takes twice as long.
        return jax.tree.unflatten(tree, jax.make_array_from_process_local_data(self.batch, arrays, shapes))


def make_layout(config: MeshConfig, *, seeds: int | None = None, devices: Sequence[Any] | None = None) -> Layout:
    """Lays out devices as ("slice", "data", "model"); one device is the 1x1x1 mesh.

    Args:
      config: settings of the mesh.
      seeds: number of models trained as one; None for one model without an axis for seeds.
      devices: all devices that JAX finds if not given.

    Raises:
      ValueError: if the axes do not multiply to the number of devices, or the slices are not those of the devices.
    """
    devices = jax.devices() if devices is None else devices
    slices_there = len({getattr(device, "slice_index", 0) for device in devices})
    slices = slices_there if config.slices is None else config.slices
    data = len(devices) // max(slices * config.model, 1) if config.data is None else config.data
    shape = (slices, data, config.model)
    if min(shape) < 1 or math.prod(shape) != len(devices):
        given = f"{slices} x {'any' if config.data is None else data} x {config.model}"
        raise ValueError(
            f"mesh.slices x mesh.data x mesh.model must be {len(devices)}, the number of devices, but is {given}"
        )
    if slices_there not in (1, slices):
        raise ValueError(f"mesh.slices must be {slices_there}, the slices of the devices, but is {slices}")
    if slices_there > 1:
        within, between = (1, data, config.model), (slices, 1, 1)
        array = mesh_utils.create_hybrid_device_mesh(within, between, devices, allow_split_physical_axes=True)
    else:
        array = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return Layout(Mesh(array, ("slice", "data", "model"), axis_types=(AxisType.Auto,) * 3), config, seeds)
