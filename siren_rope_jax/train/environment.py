"""Environment that a run was started in: machine, devices, and versions of packages."""

import importlib.metadata
import os
import platform
from typing import Any

import jax

_PACKAGES = (
    "siren-rope-jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "numpy",
    "polars",
)


def environment() -> dict[str, Any]:
    """Returns the environment of this process, as `environment.json` stores it."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "devices": [device.device_kind for device in jax.devices()],
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
        return None
