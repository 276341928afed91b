"""Checks every jaxtyping annotation of the package while the tests run, and compiles quickly rather than well."""

import os
import tempfile

# Before jax starts: tests run each program a few times only, and most of their time would go into optimising it.
# One thread for gradient boosting too: two test processes share two cores.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"

import jax
from jaxtyping import install_import_hook

# As for users and pyright, an int may stand for a float.
install_import_hook("siren_rope_jax", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")
_cache = tempfile.TemporaryDirectory()
jax.config.update("jax_compilation_cache_dir", _cache.name)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
