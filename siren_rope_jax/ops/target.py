"""Which device a computation is traced for."""

import jax


def target_device() -> tuple[str, str]:
    """Platform and kind of the mesh in context (`jax.set_mesh`), as when compiling ahead of time; else the process's.

    `jax.lax.platform_dependent` would know the platform even without a mesh, but it traces what every platform gets:
    cuDNN refuses that on machines without it, and plain attention would lose its forward-mode derivative.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device or jax.devices()[0]
    return device.platform, device.device_kind
