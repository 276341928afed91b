"""The TPU kernel compiles ahead of time, forwards and backwards, alone and in the train step.

Needs no TPU, but its compiler: `make test-tpu` installs the extra `tpu` for it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from small_logs import compile_small, encode, small_config, small_log

from siren_rope_jax.data.batches import BatchConfig, batches, make_rows
from siren_rope_jax.ops import strictly_causal_attention
from siren_rope_jax.train.sharding import MeshConfig, make_layout
from tpu.aot_compile import NO_TPU_HERE

pytestmark = pytest.mark.tpu
BATCH, LENGTH, HEADS, KEY_HEADS = 8, 300, 4, 2


@pytest.fixture(scope="module", params=[(8, 1), (4, 2)], ids=["8x1", "4x2"])
def layout(request):
    cached = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
    jax.config.update("jax_enable_compilation_cache", False)  # it cannot read what was compiled without a device
    with pytest.MonkeyPatch.context() as environment:
        for name, setting in NO_TPU_HERE.items():
            environment.setenv(name, setting)
        devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x4").devices
        data, model = request.param
        yield make_layout(MeshConfig(data=data, model=model), devices=devices)
    jax.config.update("jax_enable_compilation_cache", cached)


def kernels(lowered):
    """How many kernels the compiled program calls."""
    return lowered.compile().as_text().count('custom_call_target="tpu_custom_call"')


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("implementation", "width"), [("splash", 32), ("splash", 64), ("splash", 128), ("auto", 64)])
def test_value_and_gradient_of_splash_are_three_kernels(layout, dtype, implementation, width):
    by_head, by_row, whole = (NamedSharding(layout.mesh, spec) for spec in (P("data", None, "model"), P("data"), P()))
    arrays = [
        jax.ShapeDtypeStruct((BATCH, LENGTH, heads, width), dtype, sharding=by_head)
        for heads in (HEADS, KEY_HEADS, KEY_HEADS)
    ]
    no_history = jax.ShapeDtypeStruct((HEADS, width), dtype, sharding=whole)
    segment_ids, times = (jax.ShapeDtypeStruct((BATCH, LENGTH), "int32", sharding=by_row) for _ in range(2))

    def value_and_gradients(query, key, value, no_history, segment_ids, times):
        def loss(query, key, value, no_history):
            slots = {"segment_ids": segment_ids, "times": times, "times_ascend": True}
            attended = strictly_causal_attention(
                query, key, value, no_history=no_history, implementation=implementation, **slots
            )
            return jnp.sum(attended.astype(jnp.float32))

        return jax.value_and_grad(loss, argnums=(0, 1, 2, 3))(query, key, value, no_history)

    with jax.set_mesh(layout.mesh):
        traced = jax.jit(value_and_gradients).trace(*arrays, no_history, segment_ids, times)
        assert kernels(traced.lower(lowering_platforms=("tpu",))) == 3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_train_step_of_a_recommender_calls_the_kernels_of_both_its_attentions(layout, dtype):
    encoder, encoded = encode(small_log([16] * 16))
    shape = BatchConfig(window=16, row_length=16, batch_size=8)
    batch = batches(encoded, make_rows(encoded, np.ones(len(encoded.user), bool), shape), shape, seed=0)[0]
    config = small_config(width=256, heads=4, attention="splash", dtype=dtype)
    model = compile_small(encoder, layout, config=config)
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout.batch), batch)
    traced = model.train_step.trace(model.abstract_state, abstract)
    assert kernels(traced.lower(lowering_platforms=("tpu",))) == 2 * 3
