"""Rotation by learned angles over several devices, whose results test_importable.py compares with those of one."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from siren_rope_jax.ops import apply_rotary, inverse_frequencies, siren_init, siren_rope_angles

BATCH, LENGTH, HEADS, PAIRS, FEATURES = 2, 8, 4, 2, 5
SOURCE = {"network": P(), "scale": P(), "gate": P()}
# What of x, positions, features and the source a device holds: some slots, whose angles it computes; some heads, with
# the angles of all; or some heads with scales of their own.
OVER = {
    "sequence": (P(None, "device"), P(None, "device"), P(None, "device"), SOURCE),
    "heads": (P(None, None, "device"), P(), P(), SOURCE),
    "own_heads": (P(None, None, "device"), P(), P(), SOURCE | {"scale": P("device"), "gate": P("device")}),
}


def init_source(key):
    """An angle source {network, scale, gate}: a plain pytree, which every framework holds as it likes."""
    network = siren_init(key, FEATURES, PAIRS, width=8, hidden_layers=1)
    return {"network": network, "scale": jnp.asarray([2.0, 3.0]), "gate": jnp.float32(0.7)}


def source_angles(source, positions, features):
    frequencies, learned = inverse_frequencies(2 * PAIRS), source["network"]
    return siren_rope_angles(positions, features, frequencies, learned, scale=source["scale"], gate=source["gate"])


def rotate(x, positions, features, source):
    return apply_rotary(x, source_angles(source, positions, features))


@jax.jit
def arguments():
    """For each way to divide: x, positions, features and source."""
    keys = jax.random.split(jax.random.key(0), 4)
    source = init_source(keys[0])
    per_head = {"scale": jax.random.uniform(keys[1], (HEADS, PAIRS)), "gate": jnp.linspace(0.5, 1, HEADS)[:, None]}
    x = jax.random.normal(keys[2], (BATCH, LENGTH, HEADS, 2 * PAIRS))
    positions = jnp.broadcast_to(jnp.arange(LENGTH), (BATCH, LENGTH))
    features = jax.random.normal(keys[3], (BATCH, LENGTH, FEATURES))
    return {over: (x, positions, features, source | (per_head if over == "own_heads" else {})) for over in OVER}


def rotated_and_gradients(arguments, rotations):
    def loss(x, source, positions, features, rotate):
        rotated = rotate(x, positions, features, source)
        return jnp.sum(rotated * jnp.cos(jnp.arange(x.size)).reshape(x.shape)), rotated

    return {
        over: jax.grad(loss, argnums=(0, 1), has_aux=True)(x, source, positions, features, rotations[over])
        for over, (x, positions, features, source) in arguments.items()
    }


def one_device():
    return jax.jit(lambda given: rotated_and_gradients(given, dict.fromkeys(OVER, rotate)))(arguments())


def with_shard_map():
    mesh = jax.make_mesh((jax.device_count(),), ("device",), axis_types=(AxisType.Auto,))
    rotations = {
        over: jax.shard_map(rotate, mesh=mesh, in_specs=specs, out_specs=specs[0]) for over, specs in OVER.items()
    }
    return jax.jit(lambda given: rotated_and_gradients(given, rotations))(arguments())


def with_named_sharding(axis_type):
    """Lays the arguments out over the devices; the compiler (Auto) or the types (Explicit) divide the work."""
    mesh = jax.make_mesh((jax.device_count(),), ("device",), axis_types=(axis_type,))
    given = {over: tuple(put(mesh, *pair) for pair in zip(arguments()[over], OVER[over], strict=True)) for over in OVER}
    with jax.set_mesh(mesh):
        compiled = jax.jit(lambda given: rotated_and_gradients(given, dict.fromkeys(OVER, rotate)))
        compiled = compiled.lower(given).compile()
        result = compiled(given)
    # Sums over devices for the gradients of what is shared; no activation travels.
    program = compiled.as_text() or ""
    assert "all-reduce" in program
    for moves in ("all-gather", "all-to-all", "collective-permute"):
        assert moves not in program, moves
    for over, (_, rotated) in result.items():
        assert rotated.sharding.is_equivalent_to(NamedSharding(mesh, OVER[over][0]), rotated.ndim), over
    return result


def put(mesh, argument, spec):
    """One argument on the devices; the source, a dict, has a spec for each entry."""
    if isinstance(spec, dict):
        return {name: jax.device_put(leaf, NamedSharding(mesh, spec[name])) for name, leaf in argument.items()}
    return jax.device_put(argument, NamedSharding(mesh, spec))


WAYS = {
    "shard_map": with_shard_map,
    "auto": functools.partial(with_named_sharding, AxisType.Auto),
    "explicit": functools.partial(with_named_sharding, AxisType.Explicit),
}


def flat(result):
    """{path: leaf}, as NumPy arrays, of a pytree."""
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(result)}


def on_four_devices(script, file):
    """Runs a script that writes a file, in a process whose CPU passes for four devices."""
    settings = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "4", "PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([sys.executable, str(script), str(file)], check=True, env=os.environ | settings)


def four_devices(file):
    """Results of all ways, {path: leaf}, over four devices."""
    on_four_devices(__file__, file)
    with np.load(file) as leaves:
        return dict(leaves)


if __name__ == "__main__":
    assert jax.device_count() == 4
    np.savez(sys.argv[1], allow_pickle=False, **flat({way: run() for way, run in WAYS.items()}))
