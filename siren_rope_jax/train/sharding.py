"""The device mesh, and what is laid out on it how."""

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

# One rule for each kind of parameter: the mesh axes that divide each of its own axes. "data" means FSDP, save for the
# rows of tables; "model" means tensor parallelism, by heads and by units of the feed-forward. The optimizer's moments
# bear the names of their parameters.
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
    """Axes of the device mesh, and what is divided over them."""

    data: int | None = None
    """Devices of a slice that share each batch; all that the model axis leaves if not given."""
    model: int = 1
    """Devices that share each attention's heads and each feed-forward's units (tensor parallelism)."""
    slices: int | None = None
    """Slices, joined by the data centre's network: each holds all parameters and shares the batch. Those that the
    devices stand in if not given."""
    fsdp: bool = False
    """Divides the other parameters, and their moments, over the data axis too."""
    shard_tables: bool = True
    """Divides embedding tables, and their moments, by rows over both axes, where these divide the rows."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the arrays of a training lie on the mesh ("slice", "data", "model")."""

    mesh: Mesh | AbstractMesh
    config: MeshConfig
    seeds: int | None = None
    """Models that are trained as one, each array with a leading axis for them; None trains one without that axis."""

    @property
    def _over_seeds(self) -> str | None:
        """Seeds go to devices of their own where they fill the data axis: they have nothing to tell each other."""
        return "data" if self.seeds and self.seeds % self.mesh.shape["data"] == 0 else None

    @property
    def _over_rows(self) -> tuple[str, ...]:
        return ("slice",) if self._over_seeds else ("slice", "data")

    @property
    def row_shares(self) -> int:
        """Parts that the rows of a batch are divided into."""
        return math.prod(self.mesh.shape[name] for name in self._over_rows)

    @property
    def whole(self) -> NamedSharding:
        """Every device holds the whole array."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def batch(self) -> NamedSharding:
        """Rows are divided over slices and data."""
        return NamedSharding(self.mesh, PartitionSpec(*self._leading, self._over_rows))

    @property
    def _leading(self) -> tuple[str | None, ...]:
        return () if self.seeds is None else (self._over_seeds,)

    def place(self, state: Any) -> Any:
        """Gives each array of a state the sharding of its kind.

        Args:
          state: tree of `jax.ShapeDtypeStruct`, or of anything with shape and dtype.

        Returns:
          The same tree of `jax.ShapeDtypeStruct` with shardings. An axis that its devices do not divide stays whole.
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
        """Which rows of each batch the devices of this process hold, ascending."""
        sharding = NamedSharding(self.mesh, PartitionSpec(self._over_rows))
        rows = np.arange(batch_size)
        held = [rows[index] for index in sharding.addressable_devices_indices_map((batch_size,)).values()]
        return np.unique(np.concatenate(held))

    def put_batch(self, batch: Batch, batch_size: int) -> Batch:
        """Makes one global batch of the rows that each process holds, those of `rows_here`."""
        rows_axis = len(self._leading)

        def put(local: np.ndarray) -> jax.Array:
            shape = (*local.shape[:rows_axis], batch_size, *local.shape[rows_axis + 1 :])
            return jax.make_array_from_process_local_data(self.batch, local, shape)

        return jax.tree.map(put, batch)


def make_layout(config: MeshConfig, *, seeds: int | None = None, devices: Sequence[Any] | None = None) -> Layout:
    """Lays out devices as ("slice", "data", "model"); one device is the 1x1x1 mesh.

    Args:
      config: the mesh.
      seeds: models that are trained as one; None for one model without an axis for seeds.
      devices: all that JAX sees if not given.

    Raises:
      ValueError: if the axes do not multiply to the number of devices, or are not as many slices as these stand in.
    """
    devices = jax.devices() if devices is None else devices
    slices_there = len({getattr(device, "slice_index", 0) for device in devices})
    slices = slices_there if config.slices is None else config.slices
    data = len(devices) // max(slices * config.model, 1) if config.data is None else config.data
    shape = (slices, data, config.model)
    if min(shape) < 1 or math.prod(shape) != len(devices):
        raise ValueError(
            f"mesh must use all {len(devices)} devices, but is {slices} slices x {data} data x {config.model} model"
        )
    if slices_there not in (1, slices):
        raise ValueError(f"mesh.slices must be {slices_there}, as the devices stand, but is {slices}")
    if slices_there > 1:
        within, between = (1, data, config.model), (slices, 1, 1)
        array = mesh_utils.create_hybrid_device_mesh(within, between, devices, allow_split_physical_axes=True)
    else:
        array = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return Layout(Mesh(array, ("slice", "data", "model"), axis_types=(AxisType.Auto,) * 3), config, seeds)
