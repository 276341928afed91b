"""The authors' PyTorch recommenders, reproduced by our model from their weights: logits and gradients."""

import json
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from one_sentence import raises_one_sentence

from siren_rope_jax.interop import from_authors
from siren_rope_jax.ops import siren_apply

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).parent / "golden"
KINDS = ["siren", "ordinal", "torope"]
# A constant added to all angles changes no logit: only differences of angles matter. So the true gradient of the
# angle networks' last biases is zero, and both implementations have nothing there but rounding.
WITHOUT_GRADIENT = {f"{network}.{bias}" for network in ("angle_nn", "action_angle_nn")
                    for bias in ("net.3.bias", "residual.6.bias")}  # fmt: skip


class Golden:
    """One golden file, read by the first part of its keys."""

    def __init__(self, kind):
        with np.load(GOLDEN / f"authors_{kind}.npz") as file:
            self.arrays = {name: file[name] for name in file.files}
        self.kind, self.config = kind, json.loads(str(self.arrays.pop("config")))
        self.state, self.inputs = self.part("state"), self.part("input")
        self.labels = self.inputs.pop("labels")

    def part(self, prefix):
        names = [name for name in self.arrays if name.startswith(f"{prefix}/")]
        return {name.removeprefix(f"{prefix}/"): self.arrays[name] for name in names}


@pytest.fixture(scope="module")
def siren():
    return Golden("siren")


@pytest.fixture(scope="module", params=KINDS)
def differentiated(request):
    """(golden file, logits, mean cross-entropy, gradients), through `from_authors` itself."""
    golden = Golden(request.param)

    def mean_cross_entropy(state):
        logits = from_authors(state, golden.config)(**golden.inputs)
        return jnp.mean(jnp.logaddexp(0, logits) - golden.labels * logits), logits

    state = jax.tree.map(jnp.asarray, golden.state)
    (loss, logits), gradients = jax.jit(jax.value_and_grad(mean_cross_entropy, has_aux=True))(state)
    expected = golden.part("grad")
    gradients = {name: np.asarray(gradients[name]) for name in expected}
    gradients["head.2.weight"] = gradients["head.2.weight"][::16]  # the rows that the golden file keeps
    return golden, logits, loss, gradients


def test_logits_and_loss_equal_the_authors(differentiated):
    golden, logits, loss, _ = differentiated
    outputs = golden.part("output")
    chex.assert_trees_all_equal_shapes_and_dtypes(logits, outputs["logits"])
    assert np.abs(logits - outputs["logits"]).max() < 2e-5
    assert abs(loss - outputs["mean_bce"]) < 1e-6


def test_gradients_equal_the_authors_in_every_tensor(differentiated):
    golden, _, _, gradients = differentiated
    expected = golden.part("grad")
    assert len(expected) > 30
    chex.assert_trees_all_equal_shapes_and_dtypes(gradients, expected)
    largest = max(np.abs(gradient).max() for gradient in expected.values())
    for name, gradient in expected.items():
        error = np.abs(gradients[name] - gradient).max()
        assert error < 1e-4 * largest, name
        if name in WITHOUT_GRADIENT:
            assert max(np.abs(gradient).max(), np.abs(gradients[name]).max()) < 1e-6, name
        else:
            assert error < 1e-4 * np.abs(gradient).max(), name
    assert golden.kind != "siren" or set(expected) >= WITHOUT_GRADIENT


def test_angle_network_equals_the_authors(siren):
    def layer(name):
        return {
            "kernel": jnp.asarray(siren.state[f"angle_nn.{name}.weight"].T),
            "bias": jnp.asarray(siren.state[f"angle_nn.{name}.bias"]),
        }

    params = {
        "sine": [layer(name) for name in ("net.0.linear", "net.1.linear", "net.2.linear", "net.3")],
        "relu": [layer(name) for name in ("residual.0", "residual.2", "residual.4", "residual.6")],
    }
    time = siren.inputs["timestamp"]
    phases = [2 * np.pi * (time % period) / period for period in (86_400, 604_800)]
    cyclic = [wave(phase) for phase in phases for wave in (np.sin, np.cos)]
    features = np.stack([siren.inputs["order_features"], time / 31_536_000 - 55, *cyclic], axis=-1)
    result = siren_apply(params, jnp.asarray(features, jnp.float32), omega0=10.0)
    chex.assert_trees_all_close(result, siren.part("output")["angle_nn_output"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "surplus"), [("ordinal", ["timestamp", "order_features"]), ("torope", ["order_features"])]
)
def test_inputs_that_a_kind_lacks_change_nothing(kind, surplus):
    golden = Golden(kind)
    forward = from_authors(golden.state, golden.config)
    needed = {name: array for name, array in golden.inputs.items() if name not in surplus}
    assert len(needed) + len(surplus) == len(golden.inputs)
    logits, expected = forward(**needed), golden.part("output")["logits"]
    chex.assert_trees_all_equal_shapes_and_dtypes(logits, expected)
    assert np.abs(logits - expected).max() < 2e-5
    chex.assert_trees_all_equal(forward(**golden.inputs), logits, strict=True)


@pytest.mark.parametrize("kind", ["rope", None])
def test_unknown_kind_is_refused_in_one_sentence(siren, kind):
    with raises_one_sentence('config["kind"]', "siren", "ordinal", "torope", repr(kind)):
        from_authors(siren.state, siren.config | {"kind": kind})


@pytest.mark.parametrize(
    ("kind", "argument"), [("siren", "time_scale"), ("torope", "rope_d_angle"), ("ordinal", "dropout")]
)
def test_argument_that_the_kind_does_not_take_is_refused_in_one_sentence(kind, argument):
    golden = Golden(kind)
    with raises_one_sentence(f"config for kind {kind!r}", f"[{argument!r}]"):
        from_authors(golden.state, golden.config | {argument: 1})


def test_missing_argument_is_refused_in_one_sentence(siren):
    config = {name: value for name, value in siren.config.items() if name != "d_seq"}
    with raises_one_sentence("config must hold", "d_seq"):
        from_authors(siren.state, config)


@pytest.mark.parametrize("name", ["seq_norm.bias", "rope.freq", "angle_nn.residual.4.weight"])
def test_missing_weight_is_refused_in_one_sentence(siren, name):
    state = {key: value for key, value in siren.state.items() if key != name}
    with raises_one_sentence("state_dict must hold", repr(name)):
        from_authors(state, siren.config)


def test_left_over_weight_is_refused_in_one_sentence(siren):
    with raises_one_sentence("does not have", "['head.6.bias']"):
        from_authors(siren.state | {"head.6.bias": np.zeros(3)}, siren.config)


def test_weights_of_the_learned_rotation_are_left_over_for_another_kind(siren):
    config = Golden("ordinal").config
    state = {name: weight for name, weight in siren.state.items() if "angle_nn" not in name}
    with raises_one_sentence("weights that kind 'ordinal' does not have", "['rope.freq', 'rope.order_scale']"):
        from_authors(state, config)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("seq_projection.0.weight", (32, 17)),
        ("seq_norm.weight", (33,)),
        ("head.0.weight", (72, 512)),
        ("transformer_layers.1.ffwd.2.bias", (1,)),
        ("transformer_layers.0.mha.W_q.weight", (48, 32)),
        ("transformer_layers.0.mha.W_k.weight", (16, 32)),
        ("transformer_layers.0.mha.padding_embedding", (64,)),
        ("action_attention.W_v.weight", (32, 16)),
        ("rope.freq", (4,)),
        ("rope.order_scale", (1,)),
        ("angle_nn.net.0.linear.weight", (8, 5)),
        ("angle_nn.net.1.linear.bias", (1,)),
        ("angle_nn.net.3.weight", (4, 8)),
        ("action_angle_nn.residual.6.bias", (4,)),
    ],
)
def test_misshapen_weight_is_refused_in_one_sentence(siren, name, shape):
    expected = siren.state[name].shape
    with raises_one_sentence(name, f"must have shape {expected}", f"has {shape}"):
        from_authors(siren.state | {name: np.zeros(shape, np.float32)}, siren.config)


@pytest.mark.parametrize("angles", [3, 8, 0])
def test_angles_that_do_not_divide_the_pairs_of_a_head_are_refused_in_one_sentence(siren, angles):
    with raises_one_sentence("rope_d_angle", "divide the 4 pairs", f"is {angles}"):
        from_authors(siren.state, siren.config | {"rope_d_angle": angles})


def test_missing_or_unknown_input_is_refused_in_one_sentence(siren):
    forward = from_authors(siren.state, siren.config)
    without = {name: array for name, array in siren.inputs.items() if name != "timestamp"}
    with raises_one_sentence("kind 'siren' needs", "missing ['timestamp']"):
        forward(**without)
    with raises_one_sentence("kind 'siren' needs", "unknown ['timestamps']"):
        forward(**siren.inputs, timestamps=0)


def test_floating_point_timestamps_are_refused_in_one_sentence(siren):
    forward = from_authors(siren.state, siren.config)
    with raises_one_sentence("time must be integers", "float32"):
        forward(**siren.inputs | {"timestamp": siren.inputs["timestamp"].astype(np.float32)})
