"""The TPU kernel compiles ahead of time, forwards and backwards, alone and in the train step.

Needs no TPU, but its compiler: `make test-tpu` installs the extra `tpu` for it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import mesh_utils, topologies
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from small_logs import compile_small, encode, small_config, small_log

from siren_rope_jax.data.batches import BatchConfig, batches, make_rows
from siren_rope_jax.ops import strictly_causal_attention

pytestmark = pytest.mark.tpu
# Of a machine without a TPU; the last lets two processes compile at once.
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_ID": "0",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
BATCH, LENGTH, HEADS, KEY_HEADS = 8, 300, 4, 2


@pytest.fixture(scope="module", params=[(8, 1), (4, 2)], ids=["8x1", "4x2"])
def mesh(request):
    cached = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)  # it cannot read what was compiled without a device
    with pytest.MonkeyPatch.context() as environment:
        for name, setting in ENVIRONMENT.items():
            environment.setenv(name, setting)
        devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x4").devices
        layout = mesh_utils.create_device_mesh(request.param, devices, allow_split_physical_axes=True)
        yield Mesh(layout, ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    jax.config.update("jax_enable_compilation_cache", cached)


def kernels(lowered):
    """How many kernels the compiled program calls."""
    return lowered.compile().as_text().count('custom_call_target="tpu_custom_call"')


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("implementation", "width"), [("splash", 32), ("splash", 64), ("splash", 128), ("auto", 64)])
def test_value_and_gradient_of_splash_are_three_kernels(mesh, dtype, implementation, width):
    by_head, by_row, whole = (NamedSharding(mesh, spec) for spec in (P("data", None, "model"), P("data"), P()))
    arrays = [
        jax.ShapeDtypeStruct((BATCH, LENGTH, heads, width), dtype, sharding=by_head)
        for heads in (HEADS, KEY_HEADS, KEY_HEADS)
    ]
    no_history = jax.ShapeDtypeStruct((HEADS, width), dtype, sharding=whole)
    segment_ids, times = (jax.ShapeDtypeStruct((BATCH, LENGTH), "int32", sharding=by_row) for _ in range(2))

    def value_and_gradients(query, key, value, no_history, segment_ids, times):
        def loss(query, key, value, no_history):
            layout = {"segment_ids": segment_ids, "times": times, "times_ascend": True}
            attended = strictly_causal_attention(
                query, key, value, no_history=no_history, implementation=implementation, **layout
            )
            return jnp.sum(attended.astype(jnp.float32))

        return jax.value_and_grad(loss, argnums=(0, 1, 2, 3))(query, key, value, no_history)

    with jax.set_mesh(mesh):
        traced = jax.jit(value_and_gradients).trace(*arrays, no_history, segment_ids, times)
        assert kernels(traced.lower(lowering_platforms=("tpu",))) == 3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_train_step_of_a_recommender_calls_the_kernels_of_both_its_attentions(mesh, dtype):
    encoder, encoded = encode(small_log([16] * 16))
    shape = BatchConfig(window=16, row_length=16, batch_size=8)
    batch = batches(encoded, make_rows(encoded, np.ones(len(encoded.user), bool), shape), shape, seed=0)[0]
    batch.pop("event")
    config = small_config(width=256, heads=4, attention="splash", dtype=dtype)
    model = compile_small(encoder, mesh, config=config)

    def placed(spec):
        return lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))

    state = jax.tree.map(placed(P()), jax.eval_shape(model.initial_state))
    traced = model.train_step.trace(state, jax.tree.map(placed(P("data")), batch))
    assert kernels(traced.lower(lowering_platforms=("tpu",))) == 2 * 3
