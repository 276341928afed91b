"""Where parameters and batches lie on a mesh, and that a training does not depend on it."""

import dataclasses
import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sharded_training
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P
from small_logs import compile_small, encode, small_log

from siren_rope_jax.data.batches import BatchConfig, batches, make_rows
from siren_rope_jax.train.sharding import Layout, MeshConfig, make_layout

pytestmark = pytest.mark.slow

ENCODER, ENCODED = encode(small_log([16] * 16))
FSDP = MeshConfig(fsdp=True)


@functools.cache
def abstract_state():
    return compile_small(ENCODER, make_layout(MeshConfig()), config=sharded_training.CONFIG).abstract_one


def layout_of(slices, data, model, config=FSDP, seeds=None):
    mesh = AbstractMesh((slices, data, model), ("slice", "data", "model"), axis_types=(AxisType.Auto,) * 3)
    return Layout(mesh, config, seeds)


def specs(layout, state=None):
    placed = jax.tree_util.tree_leaves_with_path(layout.place(state or abstract_state()))
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf.sharding.spec for path, leaf in placed}


def spec_of(found, name):
    """The spec of a parameter, which its moments and its average must share."""
    matching = {tuple(spec) for path, spec in found.items() if name in path}
    assert len(matching) == 1, (name, matching)
    assert sum(name in path for path in found) == 4, "parameter, two moments and average"
    return P(*matching.pop())


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("features.tables.0.embedding", P(("data", "model"), None)),
        ("blocks.0.attention.query.kernel", P(("data",), ("model",))),
        ("blocks.0.attention.key.kernel", P(("data",), ("model",))),
        ("blocks.0.attention.value.kernel", P(("data",), ("model",))),
        ("blocks.0.attention.output.kernel", P(("model",), ("data",))),
        ("blocks.0.attention.no_history", P(("model",))),
        ("blocks.0.feed_forward.layers.0.kernel", P(("data",), ("model",))),
        ("blocks.0.feed_forward.layers.0.bias", P(("model",))),
        ("blocks.0.feed_forward.layers.1.kernel", P(("model",), ("data",))),
        ("actions.layers.0.kernel", P(None, ("data",))),
        ("blocks.0.attention_norm.scale", P()),
    ],
)
def test_each_kind_of_parameter_lies_where_its_rule_says_and_its_moments_and_average_with_it(name, spec):
    assert spec_of(specs(layout_of(2, 2, 2)), name) == spec


def test_without_fsdp_the_data_axis_divides_tables_alone():
    found = specs(layout_of(1, 2, 2, MeshConfig()))
    tables = {path for path in found if "tables.0" in path}  # the other has 5 rows, which 4 devices cannot share
    assert {path for path, spec in found.items() if "data" in str(spec)} == tables
    assert not any("data" in str(spec) for spec in specs(layout_of(1, 2, 2, MeshConfig(shard_tables=False))).values())


@settings(max_examples=30)
@given(
    st.sampled_from([1, 2, 3]), st.sampled_from([1, 2, 3, 4, 8, 16]), st.sampled_from([1, 2, 3, 4, 8]), st.booleans()
)
def test_every_mesh_divides_every_array_evenly_and_none_over_slices(slices, data, model, fsdp):
    layout = layout_of(slices, data, model, MeshConfig(fsdp=fsdp))
    for leaf in jax.tree.leaves(layout.place(abstract_state())):
        for size, axes in zip(leaf.shape, leaf.sharding.spec, strict=False):
            axes = (axes,) if isinstance(axes, str) else axes or ()
            assert size % math.prod(layout.mesh.shape[axis] for axis in axes) == 0
            assert "slice" not in axes


def test_seeds_get_devices_of_their_own_where_they_fill_the_data_axis():
    state = jax.tree.map(lambda x: jax.ShapeDtypeStruct((4, *x.shape), x.dtype), abstract_state())
    filling, not_filling = layout_of(1, 4, 2, seeds=4), layout_of(1, 8, 1, seeds=4)
    found = specs(filling, state)
    assert all(spec[0] == "data" and "data" not in spec[1:] for spec in found.values())
    assert filling.batch.spec == P("data", ("slice",))
    assert filling.row_shares == 1
    assert all(spec[0] is None for spec in specs(not_filling, state).values())
    assert not_filling.batch.spec == P(None, ("slice", "data"))
    assert not_filling.row_shares == 8


@pytest.mark.parametrize(
    "config",
    [MeshConfig(data=3), MeshConfig(model=2), MeshConfig(model=0), MeshConfig(data=0), MeshConfig(slices=2)],
)
def test_a_mesh_that_does_not_fit_the_devices_is_refused(config):
    with pytest.raises(ValueError, match=r"must be 1, the number of devices, but is \w+ x \w+ x \d"):
        make_layout(config)


@dataclasses.dataclass(frozen=True)
class _Device:
    """What a mesh asks a device for."""

    id: int
    slice_index: int
    process_index: int = 0
    platform: str = "cpu"
    device_kind: str = "cpu"


def test_rows_of_the_mesh_never_cross_the_slices_that_the_devices_stand_in():
    devices = [_Device(id=index, slice_index=index // 4) for index in range(8)]
    array = make_layout(MeshConfig(model=2), devices=devices).mesh.devices
    assert array.shape == (2, 2, 2)
    assert [{device.slice_index for device in part.flat} for part in array] == [{0}, {1}]
    with pytest.raises(ValueError, match=r"mesh\.slices must be 2, the slices of the devices, but is 4"):
        make_layout(MeshConfig(slices=4), devices=devices)


EIGHT = {
    "fsdp and tensor": {"data": 4, "model": 2, "fsdp": True},
    "slices": {"slices": 2, "data": 2, "model": 2, "fsdp": True},
    "tensor": {"data": 1, "model": 8},
}


@pytest.fixture(scope="module")
def one():
    return sharded_training.train_on({"one": {}})


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    return sharded_training.in_processes(tmp_path_factory.mktemp("eight") / "eight.npz", EIGHT, processes=1, devices=8)


def assert_same_training(found, name, one):
    assert np.ptp(one["one losses"]) > 0.1, "nothing was learned"
    np.testing.assert_allclose(found[f"{name} losses"], one["one losses"], rtol=1e-5)
    np.testing.assert_allclose(found[f"{name} table"], one["one table"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("mesh", EIGHT)
def test_a_mesh_of_eight_devices_trains_to_the_losses_of_one(eight, one, mesh):
    assert_same_training(eight, mesh, one)


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    mesh = {"data": 2, "model": 2, "fsdp": True}
    file = tmp_path_factory.mktemp("two") / "two.npz"
    return sharded_training.in_processes(file, {"two": mesh}, processes=2, devices=2)


def test_two_processes_train_to_the_losses_of_one(two_processes, one):
    assert_same_training(two_processes, "two", one)


@pytest.mark.parametrize("way", ["shard_map", "pmap"])
def test_gradients_of_a_data_parallel_step_do_not_depend_on_how_it_is_written(eight, way):
    names = [name.removeprefix("jit ") for name in eight if name.startswith("jit ")]
    assert len(names) == len(jax.tree.leaves(abstract_state().params))
    for name in names:
        np.testing.assert_allclose(eight[f"{way} {name}"], eight[f"jit {name}"], rtol=1e-4, atol=1e-7, err_msg=name)
    assert any(np.abs(eight[f"{way} {name}"]).max() > 1e-3 for name in names)


def test_five_seeds_in_one_job_train_as_five_jobs_do():
    shape = BatchConfig(window=16, row_length=16, batch_size=4)
    config, steps = sharded_training.CONFIG, 5
    rows = make_rows(ENCODED, np.ones(len(ENCODED.user), bool), shape)

    def batches_of(seed):
        for index in range(steps):
            batch = batches(ENCODED, rows, shape, seed=seed)[index]
            yield batch

    together, alone = (make_layout(MeshConfig(), seeds=seeds) for seeds in (5, None))
    five, single = (
        compile_small(ENCODER, layout, optax.sgd(0.1), config=config, seed=3) for layout in (together, alone)
    )
    state, losses = five.initial_state(), []
    starts = five.split(state)
    for parts in zip(*(batches_of(seed) for seed in range(3, 8)), strict=True):
        batch = jax.tree.map(lambda *x: np.stack(x), *parts)
        state, metrics = five.train_step(state, together.put_batch(batch, 4))
        losses.append(np.asarray(metrics["loss"]))
    first = single.initial_state()
    jax.tree.map(np.testing.assert_array_equal, starts[0], first)  # its own draw, bit for bit
    for index, (start, end) in enumerate(zip(starts, five.split(state), strict=True)):
        one, of_one = start, []
        for batch in batches_of(3 + index):
            one, metrics = single.train_step(one, alone.put_batch(batch, 4))
            of_one.append(float(metrics["loss"]))
        np.testing.assert_allclose(np.array(losses)[:, index], of_one, rtol=1e-5)
        # Not AdamW: it blows rounding up to whole steps where the true gradient is 0.
        chex.assert_trees_all_close(end.params, one.params, rtol=1e-5, atol=1e-6)
        assert jnp.array_equal(end.key, one.key)
    assert len(set(np.array(losses)[-1].tolist())) == 5
