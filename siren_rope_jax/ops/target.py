"""The device that a computation is traced for."""

import jax


def target_device() -> tuple[str, str]:
    """Returns platform and kind of the mesh in context (`jax.set_mesh`), as ahead of time; else those of the process.

    `jax.lax.platform_dependent` would know the platform even without a mesh, but it traces the code of every platform:
    cuDNN refuses that on machines without it, and plain attention would lose its forward-mode derivative.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device or jax.devices()[0]
    return device.platform, device.device_kind
