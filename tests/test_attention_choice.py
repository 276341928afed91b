"""What implementation="auto" picks, and attention over several devices."""

from pathlib import Path
from typing import get_args

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sharded_ops
from jax.sharding import AbstractDevice, AbstractMesh

from siren_rope_jax.ops import alibi_bias, alibi_slopes, strictly_causal_attention
from siren_rope_jax.ops.attention import Implementation, implementations

CPU, TPU = ("cpu", "cpu"), ("tpu", "TPU v5 lite")
NVIDIA, AMD = ("gpu", "NVIDIA H100 80GB HBM3"), ("gpu", "AMD Instinct MI300X")
HALF, SINGLE = jnp.bfloat16, jnp.float32
TIES, ORDER = {"times": True}, {"times": True, "times_ascend": True}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("device", "dtype", "length", "changes", "expected"),
    [
        (CPU, SINGLE, 64, {}, "plain"),
        (CPU, SINGLE, 255, {}, "plain"),
        (CPU, SINGLE, 256, {}, "chunked"),
        (CPU, HALF, 256, {"bias": True}, "chunked"),
        (NVIDIA, HALF, 64, TIES, "cudnn"),
        (NVIDIA, HALF, 4096, {}, "cudnn"),
        (NVIDIA, SINGLE, 64, {}, "plain"),
        (NVIDIA, HALF, 1023, {"bias": True}, "plain"),
        (NVIDIA, HALF, 1024, {"bias": True}, "chunked"),
        (AMD, HALF, 64, {}, "plain"),
        (AMD, HALF, 1024, {}, "chunked"),
        (TPU, HALF, 128, {}, "splash"),
        (TPU, SINGLE, 4096, ORDER, "splash"),
        (TPU, SINGLE, 127, {}, "plain"),
        (TPU, SINGLE, 512, TIES, "plain"),
        (TPU, SINGLE, 1024, TIES, "chunked"),
        (TPU, SINGLE, 1024, {"bias": True}, "chunked"),
    ],
)
def test_auto_takes_what_suits_the_device_the_length_and_the_arguments(
    monkeypatch, device, dtype, length, changes, expected
):
    taken = []
    for name, entry in implementations.IMPLEMENTATIONS.items():
        noting = entry._replace(attend=lambda operands, name=name: taken.append(name) or operands.value)
        monkeypatch.setitem(implementations.IMPLEMENTATIONS, name, noting)
    monkeypatch.setattr(implementations, "target_device", lambda: device)
    x, positions = jnp.zeros((1, length, 2, 8), dtype), jnp.arange(length)[None]
    options = {
        "bias": alibi_bias(positions, alibi_slopes(2)) if changes.get("bias") else None,
        "times": positions if changes.get("times") else None,
        "times_ascend": changes.get("times_ascend", False),
    }
    ones = jnp.ones((1, length), jnp.int32)
    jax.eval_shape(
        lambda x: strictly_causal_attention(x, x, x, segment_ids=ones, no_history=jnp.zeros((2, 8)), **options), x
    )
    assert taken == [expected]


def test_every_implementation_can_be_named():
    assert set(get_args(Implementation)) == {"auto", *implementations.IMPLEMENTATIONS}


@pytest.mark.slow
def test_the_mesh_in_context_says_what_a_program_is_compiled_for():
    """As ahead of time, on a machine without the device."""
    mesh = AbstractMesh((1, 1), ("data", "model"), abstract_device=AbstractDevice("TPU v5 lite", 1, "tpu"))
    x, ones = jnp.zeros((1, 256, 2, 8)), jnp.ones((1, 256), jnp.int32)

    def attend(x):
        return strictly_causal_attention(x, x, x, segment_ids=ones, no_history=jnp.zeros((2, 8)))

    assert "splash" not in str(jax.make_jaxpr(attend)(x))
    with jax.sharding.use_abstract_mesh(mesh):
        assert "splash" in str(jax.make_jaxpr(attend)(x))


@pytest.mark.slow
def test_over_four_devices_every_implementation_gives_the_numbers_of_one(tmp_path):
    file = tmp_path / "results.npz"
    sharded_ops.on_four_devices(Path(__file__).with_name("sharded_attention.py"), file)
    with np.load(file) as results:
        for heads in (4, 1):
            one, *ways = (
                {name: results[f"{heads}/{way}/{name}"] for name in ("result", "query", "key", "value", "no_history")}
                for way in ("one", "plain", "chunked", "splash")
            )
            for found in ways:
                chex.assert_trees_all_close(found, one, rtol=1e-5, atol=1e-5)
