"""Checks every jaxtyping annotation of the package while the tests run, and compiles quickly rather than well."""

import dataclasses
import functools
import gc
import os
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Before jax starts: tests run each program a few times only, and most of their time would go into optimising it.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_backend_optimization_level=0",
        "--xla_llvm_disable_expensive_passes=true",
        "--xla_cpu_parallel_codegen_split_count=1",  # many parts cost more than one
        # The older code generator takes a third of the time; later versions have none, and refuse the flag.
        "--xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10.") else "",
    ]
)
# One thread for gradient boosting too: two test processes share two cores.
os.environ["OMP_NUM_THREADS"] = "1"

# One cache of compiled programs for all test processes and the processes that they start.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _cache = tempfile.TemporaryDirectory()
    os.environ |= {"JAX_COMPILATION_CACHE_DIR": _cache.name, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3"}

from jaxtyping import install_import_hook

# As for users and pyright, an int may stand for a float.
install_import_hook("siren_rope_jax", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

# A shared machine is slow at times, which is no failure.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")

# Tracing makes many objects, nearly all of which live on: looking for garbage among them took a twentieth of the time.
gc.set_threshold(100_000, 50, 100)


@pytest.fixture(scope="module")
def compiled_once() -> Iterator[None]:
    """Lets runs of one configuration share their compiled functions: most of a small run's time goes into tracing."""
    from siren_rope_jax.train import session
    from siren_rope_jax.train.config import TrainConfig

    defaults, compile_run = TrainConfig(), session.compile_run
    # When a run is validated and saved: no compiled function knows.
    names = ("best_by", "checkpoints", "evaluations", "patience", "validation_events")
    apart = {name: getattr(defaults, name) for name in names}

    @functools.cache
    def kept(config: TrainConfig, *arguments: Any, devices: tuple[Any, ...] | None, **options: Any) -> Any:
        return compile_run(config, *arguments, devices=devices, **options)

    def once(config: TrainConfig, *arguments: Any, devices: Sequence[Any] | None = None, **options: Any) -> Any:
        devices = None if devices is None else tuple(devices)
        return kept(dataclasses.replace(config, **apart), *arguments, devices=devices, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "compile_run", once)
        yield
