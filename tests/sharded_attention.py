"""Attention over four devices, batch and heads divided, whose results test_attention_choice.py compares with one's."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from siren_rope_jax.ops import strictly_causal_attention

BATCH, LENGTH, HEADS, WIDTH = 4, 40, 4, 8
WAYS = ("plain", "chunked", "splash")


def arguments(groups):
    generator = np.random.default_rng(0)
    shapes = [(BATCH, LENGTH, heads, WIDTH) for heads in (HEADS, groups, groups)]
    arrays = [jnp.asarray(generator.normal(size=shape), jnp.float32) for shape in (*shapes, (HEADS, WIDTH))]
    segment_ids = np.sort(generator.integers(0, 4, (BATCH, LENGTH)), axis=1)
    times = np.cumsum(generator.integers(0, 2, (BATCH, LENGTH)), axis=1)
    return arrays, jnp.asarray(segment_ids, jnp.int32), jnp.asarray(times, jnp.int32)


def result_and_gradients(arrays, segment_ids, times, implementation):
    def loss(query, key, value, no_history):
        attended = strictly_causal_attention(
            query,
            key,
            value,
            segment_ids=segment_ids,
            no_history=no_history,
            times=times,
            implementation=implementation,
            chunk=16,
            times_ascend=True,
        )
        return jnp.sum(attended * jnp.cos(jnp.arange(attended.size)).reshape(attended.shape)), attended

    gradients, attended = jax.grad(loss, argnums=(0, 1, 2, 3), has_aux=True)(*arrays)
    return dict(zip(("query", "key", "value", "no_history", "result"), (*gradients, attended), strict=True))


def run(implementation, groups, mesh=None):
    arrays, segment_ids, times = arguments(groups)
    compiled = jax.jit(result_and_gradients, static_argnums=3)
    if mesh is None:
        return compiled(arrays, segment_ids, times, implementation)
    over_heads, over_rows = (NamedSharding(mesh, spec) for spec in (P("data", None, "model"), P("data")))
    divided = [jax.device_put(x, over_heads if x.shape[-2] == HEADS else over_rows) for x in arrays[:3]]
    with jax.set_mesh(mesh):
        placed = ([*divided, arrays[3]], *(jax.device_put(x, over_rows) for x in (segment_ids, times)))
        program = compiled.lower(*placed, implementation).compile().as_text() or ""
        if groups == HEADS:
            assert "all-to-all" not in program
            assert "collective-permute" not in program
            assert "all-gather" not in program
        return compiled(*placed, implementation)


if __name__ == "__main__":
    assert jax.device_count() == 4
    mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    results = {}
    for groups in (HEADS, 1):  # one head of keys cannot be divided over two devices
        results[f"{groups}/one"] = run("plain", groups)
        results |= {f"{groups}/{way}": run(way, groups, mesh) for way in WAYS}
    leaves = {f"{way}/{name}": np.asarray(x) for way, given in results.items() for name, x in given.items()}
    np.savez(sys.argv[1], allow_pickle=False, **leaves)
