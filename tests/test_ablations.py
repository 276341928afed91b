"""Every row of the paper's table of results is a configuration, which differs from ordinal RoPE as the paper says."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small_logs import SPEC, heard, random_events, small_config, small_rotary

from siren_rope_jax.nn.recommender import GenerativeRecommender
from siren_rope_jax.nn.rotary import SirenRotary

pytestmark = pytest.mark.slow

SIREN = {"kind": "siren", "preset": "published"}
SPAN = SIREN | {"time_inputs": ("span",)}
# Row of the table -> fields of the model, fields of the rotation. The log's column "tab" stands for the paper's
# in-network or out-of-network.
ROWS = {
    "Ordinal RoPE": ({}, {"kind": "ordinal"}),
    "Time features in the embedding": ({"encodings": ("calendar",)}, {"kind": "ordinal"}),
    "TO-RoPE": ({}, {"kind": "time_order"}),
    "Semantic rotation (in/out network)": ({}, SIREN | {"time_inputs": (), "metadata": ("tab",)}),
    "SIREN-RoPE, time_in_year only": ({}, SPAN),
    "DNN branch only, time_in_year only": ({}, SPAN | {"branches": ("relu",)}),
    "SIREN branch only, all time features": ({}, SIREN | {"branches": ("sine",)}),
    "DNN branch only, all time features": ({}, SIREN | {"branches": ("relu",)}),
    "SIREN-RoPE, full": ({}, SIREN),
}
EVENTS = random_events(np.ones((2, 8), np.int32))


def config_of(row):
    model, rotary = ROWS[row]
    rotary = dict(rotary)
    return small_config(small_rotary(rotary.pop("kind"), **rotary), **model)


@functools.cache
def logits_and_gradients(row):
    graph, params = nnx.split(heard(GenerativeRecommender(config_of(row), SPEC, (-1.0, 0.5), key=jax.random.key(0))))

    @jax.jit
    def run(params):
        def total(params):
            logits = nnx.merge(graph, params)(EVENTS)
            return jnp.square(logits).sum(), logits

        return jax.value_and_grad(total, has_aux=True)(params)

    (_, logits), gradients = run(params)
    return logits, gradients


@pytest.mark.parametrize("row", ROWS)
def test_every_row_is_a_model_that_can_be_trained(row):
    logits, gradients = logits_and_gradients(row)
    chex.assert_shape(logits, (2, 8, 2))
    chex.assert_tree_all_finite((logits, gradients))
    if config_of(row).rotary.kind == "siren":
        of_networks = jax.tree.leaves(nnx.to_pure_dict(gradients)["rotary"]["networks"])
        assert sum(float(jnp.abs(gradient).sum()) for gradient in of_networks) > 0


def test_no_two_rows_score_alike():
    scores = [np.asarray(logits_and_gradients(row)[0]) for row in ROWS]
    for index, first in enumerate(scores):
        assert all(np.abs(first - second).max() > 1e-6 for second in scores[index + 1 :])


@pytest.mark.parametrize("row", ROWS)
def test_rows_differ_in_rotation_and_encodings_alone(row):
    plain = {"rotary": config_of("Ordinal RoPE").rotary, "encodings": ()}
    assert dataclasses.replace(config_of(row), **plain) == config_of("Ordinal RoPE")
    assert config_of(row).rotary.base == config_of("Ordinal RoPE").rotary.base


@pytest.mark.parametrize(
    ("row", "inputs", "branches"),
    [
        ("Semantic rotation (in/out network)", 4, {"sine", "relu"}),  # the column's embedding
        ("SIREN-RoPE, time_in_year only", 1, {"sine", "relu"}),
        ("DNN branch only, time_in_year only", 1, {"relu"}),
        ("SIREN branch only, all time features", 5, {"sine"}),
        ("DNN branch only, all time features", 5, {"relu"}),
        ("SIREN-RoPE, full", 5, {"sine", "relu"}),
    ],
)
def test_the_angle_network_of_a_row_has_its_inputs_and_branches(row, inputs, branches):
    rotary = GenerativeRecommender(config_of(row), SPEC, (0.0,), key=jax.random.key(0)).rotary
    assert isinstance(rotary, SirenRotary)
    network = rotary.networks[0].get_value()
    assert set(network) == branches
    assert {layers[0]["kernel"].shape[0] for layers in network.values()} == {inputs}
