"""Trains a small model on meshes of devices, in processes of their own, and keeps the losses.

As a program: `python sharded_training.py FILE.npz '{"name": {"data": 4, "model": 2}, ...}' [COORDINATOR COUNT INDEX]`.
"""

import json
import sys

import numpy as np

STEPS = 20


def losses_of(meshes: dict[str, dict[str, object]]) -> dict[str, np.ndarray]:
    """Losses of the steps on each mesh, and the parameters after them."""
    from jax.experimental import multihost_utils
    from small_logs import compile_small, encode, small_config, small_log

    from siren_rope_jax.data.batches import BatchConfig, batches, make_rows
    from siren_rope_jax.train.optimizer import OptimizerConfig, make_optimizer
    from siren_rope_jax.train.sharding import MeshConfig, make_layout

    encoder, encoded = encode(small_log([16] * 16))
    shape = BatchConfig(window=16, row_length=16, batch_size=8)
    rows = make_rows(encoded, np.ones(len(encoded.user), bool), shape)
    results = {}
    for name, mesh in meshes.items():
        layout = make_layout(MeshConfig(**mesh))
        optimizer = make_optimizer(OptimizerConfig(), 200)
        model = compile_small(encoder, layout, optimizer, config=small_config(heads=4, width=32, layers=2))
        state, losses = model.initial_state(), []
        dataset = batches(encoded, rows, shape, seed=0, rows_here=layout.rows_here(shape.batch_size))
        for index in range(STEPS):
            batch = dataset[index]
            batch.pop("event")
            state, metrics = model.train_step(state, layout.put_batch(batch, shape.batch_size))
            losses.append(float(metrics["loss"]))
        results[f"{name} losses"] = np.array(losses)
        table = state.params["features"]["tables"][0]["embedding"][...]
        results[f"{name} table"] = np.asarray(multihost_utils.process_allgather(table, tiled=True))
    return results


if __name__ == "__main__":
    file, meshes, *job = sys.argv[1:]
    import jax

    if job:
        jax.distributed.initialize(job[0], int(job[1]), int(job[2]), heartbeat_timeout_seconds=100)
    results = losses_of(json.loads(meshes))
    if jax.process_index() == 0:
        np.savez(file, **results)
