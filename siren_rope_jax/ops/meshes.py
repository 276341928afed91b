"""The mesh in context: its device, which a computation is traced for, and its explicit and manual axes."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from jaxtyping import Array


def target_device() -> tuple[str, str]:
    """Returns platform and kind of the mesh in context (`jax.set_mesh`), as ahead of time; else those of the process.

    `jax.lax.platform_dependent` would know the platform even without a mesh, but it traces the code of every platform:
    cuDNN refuses that on machines without it, and the kernels would lose their other derivatives everywhere.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device or jax.devices()[0]
    return device.platform, device.device_kind


def explicit_axes() -> tuple[str, ...]:
    """Returns the axes of the mesh in context over which types say how arrays are divided."""
    mesh = jax.sharding.get_abstract_mesh()
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return tuple(name for name, kind in kinds if kind == AxisType.Explicit)


def on_auto_axes(function: Callable[..., Array], *, like: Array, axes: int = 3) -> Callable[..., Array]:
    """Lets the compiler divide the work of a function, also where the axes of the mesh are explicit.

    Args:
      function: a function of arrays; closes over none that are traced.
      like: array whose first axes are divided as those of the result.
      axes: how many of them.
    """
    if not (names := explicit_axes()):
        return function
    spec = jax.typeof(like).sharding.spec
    divided: Any = jax.sharding.auto_axes(function, axes=names, out_sharding=P(*spec[:axes]))
    return divided


def vary_alike(arrays: Any) -> Any:
    """Lets all arrays of a pytree vary over each axis of `jax.shard_map` that any of them varies over.

    What a loop carries must, and so must a linear function's arguments and residuals.
    """
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return arrays
    marks = [jnp.zeros_like(x, bool, shape=()) for x in jax.tree.leaves(arrays)]
    mark = functools.reduce(jnp.logical_or, marks)
    return jax.tree.map(lambda x: jnp.where(mark, x, x), arrays)
