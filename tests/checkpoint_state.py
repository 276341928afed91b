"""A small training state whose every bit follows from its step, and processes that die while they save it."""

import os
import shutil
import signal
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from siren_rope_jax.train import checkpoint, durable
from siren_rope_jax.train.checkpoint import Checkpoints
from siren_rope_jax.train.retention import CheckpointConfig
from siren_rope_jax.train.step import TrainState

LATEST = 2


def state_of(step, size=1000):
    values = jnp.asarray(np.random.default_rng(step).standard_normal((4, size)), jnp.float32)
    parts = {
        "params": {"kernel": values, "bias": values[0]},
        "optimizer": {"moment": values[1], "count": jnp.asarray(7 * step, jnp.int32)},
        "step": jnp.asarray(step, jnp.int32),
        "key": jnp.asarray([step, 3], jnp.uint32),
        "average": {"kernel": values + 1},
    }
    return TrainState(**{name: parts[name] for name in TrainState._fields})


def like(state, sharding=None):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding or x.sharding), state)


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def _die_half_way_through_removal(path, **_):
    next(file for file in path.rglob("*") if file.is_file()).unlink()
    die()


# What is replaced by death.
MOMENTS = {
    "the files are complete": (checkpoint, "write_manifest", die),
    "the manifest lacks its name": (durable.os, "replace", die),
    "the new one has its name": (checkpoint, "sync", die),
    "an old one is half removed": (shutil, "rmtree", _die_half_way_through_removal),
}


def save_and_die(run, moment):
    """Saves steps 20, 30, ... and dies at the named moment, or so many seconds after the first save began."""
    checkpoints = Checkpoints(Path(run), CheckpointConfig(latest=LATEST))
    states = {step: state_of(step) for step in range(20, 200, 10)}
    if moment in MOMENTS:
        module, name, replacement = MOMENTS[moment]
        setattr(module, name, replacement)
    else:
        threading.Timer(float(moment), die).start()
    for step, state in states.items():
        checkpoints.save(state, {"next": step}, judged=None)
        checkpoints.wait()
        # In one go: the process may die between opening a file and filling it.
        written = Path(run) / "completed.new"
        written.write_text(str(step))
        written.replace(Path(run) / "completed")
    threading.Event().wait(10)
