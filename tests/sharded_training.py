"""Trains a small model on meshes of devices, in processes of their own, and keeps what came out.

As a program: `python sharded_training.py FILE.npz '{"name": {"data": 4, "model": 2}, ...}' [COORDINATOR COUNT INDEX]`.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import PartitionSpec as P
from small_logs import compile_small, encode, heard_state, small_config, small_log, small_rotary

from siren_rope_jax.batch import Batch
from siren_rope_jax.data.batches import BatchConfig, batches, make_rows
from siren_rope_jax.train.loss import multitask_loss
from siren_rope_jax.train.optimizer import OptimizerConfig, make_optimizer
from siren_rope_jax.train.sharding import MeshConfig, make_layout

STEPS = 20
SHAPE = BatchConfig(window=16, row_length=16, batch_size=8)
CONFIG = small_config(small_rotary("ordinal"), width=16)  # the angle network would double the time to compile
Meshes = Mapping[str, Mapping[str, Any]]


def train_on(meshes: Meshes) -> dict[str, np.ndarray]:
    """Losses of the steps on each mesh, and a table after them."""
    encoder, encoded = encode(small_log([16] * 16))
    rows = make_rows(encoded, np.ones(len(encoded.user), bool), SHAPE)
    results = {}
    for name, mesh in meshes.items():
        layout = make_layout(MeshConfig(**mesh))
        model = compile_small(encoder, layout, make_optimizer(OptimizerConfig(), 200), config=CONFIG)
        state, losses = heard_state(model), []
        dataset = batches(encoded, rows, SHAPE, seed=0, rows_here=layout.rows_here(SHAPE.batch_size))
        for index in range(STEPS):
            batch = dataset[index]
            state, metrics = model.train_step(state, layout.put_batch(batch, SHAPE.batch_size))
            losses.append(float(metrics["loss"]))
        table = state.params["features"]["tables"][0]["embedding"][...]
        table = multihost_utils.process_allgather(table, tiled=True) if jax.process_count() > 1 else table
        results |= {f"{name} losses": np.array(losses), f"{name} table": np.asarray(table)}
    return results


def gradients() -> dict[str, np.ndarray]:
    """The gradient of one batch by jit over a mesh, by shard_map and by pmap, each over all devices."""
    encoder, encoded = encode(small_log([16] * 16))
    rows = make_rows(encoded, np.ones(len(encoded.user), bool), SHAPE)
    batch = batches(encoded, rows, SHAPE, seed=0)[0]
    batch = batch._replace(labels=np.nan_to_num(batch.labels))  # every device's mean then counts the same
    layout = make_layout(MeshConfig())
    model = compile_small(encoder, layout, config=CONFIG)
    params = jax.tree.map(np.asarray, heard_state(model).params)

    def loss_of(params: Any, batch: Batch) -> jax.Array:
        logits = model.merge(params)(batch.events)
        return multitask_loss(logits, batch.labels, jnp.array([1.0, 2.0]))[0]

    def mean_gradient(params: Any, batch: Batch) -> Any:
        return jax.lax.pmean(jax.grad(loss_of)(params, batch), "data")

    devices = jax.device_count()
    mapped = jax.shard_map(mean_gradient, mesh=layout.mesh, in_specs=(P(), P("data")), out_specs=P(), check_vma=False)
    parted = jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), batch)
    found = {
        "jit": jax.jit(jax.grad(loss_of))(params, layout.put_batch(batch, SHAPE.batch_size)),
        "shard_map": jax.jit(mapped)(params, batch),
        "pmap": jax.tree.map(lambda x: x[0], jax.pmap(mean_gradient, "data", in_axes=(None, 0))(params, parted)),
    }
    return {
        f"{name} {jax.tree_util.keystr(path)}": np.asarray(leaf)
        for name, tree in found.items()
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def environment(devices: int) -> dict[str, str]:
    """Of a process whose CPU passes for so many devices."""
    settings = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    return os.environ | settings | {"PYTHONPATH": str(Path(__file__).parents[1])}


def free_port() -> int:
    with socket.socket() as socket_:
        socket_.bind(("localhost", 0))
        return socket_.getsockname()[1]


def in_processes(file: Path, meshes: Meshes, *, processes: int, devices: int) -> dict[str, np.ndarray]:
    """Runs this program in so many processes of so many devices each; what process 0 found."""
    command = [sys.executable, __file__, str(file), json.dumps(meshes)]
    coordinator = f"localhost:{free_port()}"
    jobs = [[coordinator, str(processes), str(index)] if processes > 1 else [] for index in range(processes)]
    running = [subprocess.Popen([*command, *job], env=environment(devices)) for job in jobs]
    try:
        assert [process.wait() for process in running] == [0] * processes
    finally:
        for process in running:
            process.kill()
    with np.load(file) as results:
        return dict(results)


if __name__ == "__main__":
    file, meshes, *job = sys.argv[1:]
    if job:
        jax.distributed.initialize(job[0], int(job[1]), int(job[2]))
    found = train_on(json.loads(meshes))
    if jax.process_count() == 1 and jax.device_count() > 1:
        found |= gradients()
    if jax.process_index() == 0:
        np.savez(file, **found)
