"""Saves from two processes of two devices, or restores what they saved in one: run by test_checkpoint.py."""

import sys
from pathlib import Path

import jax
import numpy as np
from checkpoint_state import state_of
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from siren_rope_jax.errors import InputError
from siren_rope_jax.train import checkpoint
from siren_rope_jax.train.checkpoint import Checkpoints
from siren_rope_jax.train.criterion import Judged
from siren_rope_jax.train.processes import ProcessConfig, join


def spread(state, shape):
    """Shardings of the state over a mesh: the kernel in blocks, vectors in pieces, numbers everywhere."""
    devices = np.array(jax.devices()[: shape[0] * shape[1]]).reshape(shape)
    mesh = jax.sharding.Mesh(devices, ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    specs = {2: P("data", "model"), 1: P("model")}

    def place(x):
        whole = x.ndim == 0 or x.size < 4  # the key is two numbers
        return NamedSharding(mesh, P() if whole else specs[x.ndim])

    return jax.tree.map(place, state)


def shaped(state, shape):
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state, spread(state, shape)
    )


def made(step, shape):
    state = state_of(step)
    return jax.tree.map(
        lambda x, sharding: jax.make_array_from_callback(x.shape, sharding, lambda index: np.asarray(x)[index]),
        state,
        spread(state, shape),
    )


def check(restored, step):
    """Compares what this process holds of the restored state with the truth."""
    state, progress = restored
    assert progress == {"next": step}
    for x, truth in zip(jax.tree.leaves(state), jax.tree.leaves(state_of(step)), strict=True):
        for shard in x.addressable_shards:
            np.testing.assert_array_equal(shard.data, np.asarray(truth)[shard.index], strict=True)


def no_space(*_):
    raise OSError(28, "No space left on device")


def together(run, index, port):
    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    join(ProcessConfig(coordinator=f"localhost:{port}", count=2, index=index))
    checkpoints = Checkpoints(run)
    for step in (10, 20):
        checkpoints.save(
            made(step, (2, 2)), {"next": step if index == 0 else -1}, judged=Judged("mean_ne", 1 / step, maximise=False)
        )
    check(checkpoints.restore(shaped(state_of(0), (2, 2))), 20)
    check(checkpoints.restore(shaped(state_of(0), (1, 4)), step=10), 10)
    assert checkpoints.steps() == [10, 20]
    checkpoint.write_manifest = no_space
    checkpoints.save(made(30, (2, 2)), {}, judged=None)
    try:
        checkpoints.wait()
    except InputError as error:
        print(error)
    checkpoints.close()


def alone(run):
    jax.config.update("jax_num_cpu_devices", 4)
    checkpoints = Checkpoints(run)
    for shape in ((1, 4), (4, 1), (1, 1)):
        check(checkpoints.restore(shaped(state_of(0), shape)), 20)
    checkpoints.close()


if __name__ == "__main__":
    run, *job = sys.argv[1:]
    if job:
        together(Path(run), *map(int, job))
    else:
        alone(Path(run))
