"""A part that is switched off is off: predictions are those of the model with its weights set to 0."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small_logs import (
    INPUTS,
    SPEC,
    encode,
    heard_state,
    random_events,
    small_bias,
    small_config,
    small_log,
    small_rotary,
)

from siren_rope_jax.data.batches import BatchConfig
from siren_rope_jax.data.periods import TRAIN, VALIDATION
from siren_rope_jax.nn.recommender import GenerativeRecommender
from siren_rope_jax.nn.rotary import SirenRotary
from siren_rope_jax.report.attention_mass import EDGES, attention_mass, mass_by_elapsed
from siren_rope_jax.report.intervals import differences
from siren_rope_jax.report.knock_outs import knock_outs
from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.predict import evaluated
from siren_rope_jax.train.session import make_session
from siren_rope_jax.train.step import compile_predict

pytestmark = pytest.mark.slow

LOG = small_log([25, 30, 17, 11, 28])
ENCODER, ENCODED = encode(LOG)
CHOSEN = LOG.period == VALIDATION
BATCHES = BatchConfig(window=16, row_length=24, batch_size=4)
SIREN = small_config(small_rotary("siren"), bias=small_bias("t5"))


def session_of(model):
    """A compiled model none of whose parameters is where it starts."""
    session = make_session(ENCODER, TrainConfig(model=model, inputs=INPUTS, batches=BATCHES))
    params = heard_state(session.model).params
    return session, jax.tree.map(
        lambda x: x + 0.3 * jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape), params
    )


@pytest.fixture(scope="module")
def siren():
    session, params = session_of(SIREN)
    before = jax.tree.map(np.array, params)
    found = {one.part: one.costs for one in knock_outs(session, params, LOG, ENCODED, CHOSEN)}
    assert jax.tree.all(jax.tree.map(np.array_equal, before, params))  # the parameters are as they were
    return session, params, found


def predictions(session, params, edit=lambda model: None):
    """Of the model after an edit of its parameters."""
    model = session.model.merge(jax.tree.map(jnp.asarray, params))
    edit(model)
    return session.predict(nnx.state(model), ENCODED, CHOSEN)


def costs(session, without, whole):
    """The rise of each task's metric, with its interval."""
    pairs = ([evaluated(task, LOG, x[:, k], CHOSEN) for x in (without, whole)] for k, task in enumerate(session.tasks))
    return {task.name: differences(task, *pair)[task.compared] for task, pair in zip(session.tasks, pairs, strict=True)}


def zero(get):
    def edit(model):
        param = get(model)
        param.set_value(jnp.zeros_like(param[...]))

    return edit


def zero_branch(branch):
    def edit(model):
        (param,) = model.rotary.networks
        network = jax.tree.map(jnp.asarray, param.get_value())
        network[branch][-1] = jax.tree.map(jnp.zeros_like, network[branch][-1])
        param.set_value(network)

    return edit


def zero_bias(model):
    for attention in model.attentions().values():
        zero(lambda _, attention=attention: attention.bias.table)(model)


EDITS = {
    "positions in the rotation": zero(lambda model: model.rotary.gate),
    "all times in the rotation": zero(lambda model: model.rotary.scale),
    "sine branch": zero_branch("sine"),
    "ReLU branch": zero_branch("relu"),
    "attention bias": zero_bias,
}


def test_every_part_is_switched_off_once(siren):
    assert set(siren[2]) == {*EDITS, "time input day", "time input week", "time input span"}


@pytest.mark.parametrize("part", EDITS)
def test_a_part_costs_what_the_model_loses_with_its_weights_at_zero(siren, part):
    session, params, found = siren
    expected = costs(session, predictions(session, params, EDITS[part]), predictions(session, params))
    for task, cost in found[part].items():
        np.testing.assert_allclose(cost, expected[task], atol=2e-5)
        assert cost.value != 0


def test_a_time_input_that_is_switched_off_is_its_mean_over_training(siren, monkeypatch):
    session, params, found = siren
    whole, features, week = predictions(session, params), SirenRotary.time_features, np.array([2, 3])
    model, train = session.model.merge(params), LOG.period == TRAIN
    of_training = features(model.rotary, jnp.asarray(LOG.day[train]), jnp.asarray(LOG.second[train]))
    mean = np.asarray(of_training, np.float64).mean(axis=0)[week]

    def fixed(self, day, second):
        return features(self, day, second).at[..., week].set(mean)

    monkeypatch.setattr(SirenRotary, "time_features", fixed)
    graph, same = nnx.split(model)
    traced_anew = session.model._replace(predict=compile_predict(graph, session.tasks, session.layout))
    without = predictions(dataclasses.replace(session, model=traced_anew), same)
    for task, cost in costs(session, without, whole).items():
        np.testing.assert_allclose(found["time input week"][task], cost, atol=2e-5)


def naive_mass(weights, elapsed, scored):
    """Attention and even attention of each scored event, pair by pair."""
    sums, slots = np.zeros((2, len(EDGES))), weights.shape[-1] // elapsed.shape[1]
    for row, event in zip(*np.nonzero(scored), strict=True):
        of_query = weights[row, :, slots * event].mean(axis=0, dtype=np.float64)
        seen = np.flatnonzero(of_query)
        sums[:, -1] += bool(len(seen))
        for slot in seen:
            apart = int(elapsed[row, event]) - int(elapsed[row, slot // slots])
            place = max(number for number, edge in enumerate(EDGES[:-1]) if apart >= edge)
            sums[:, place] += of_query[slot], 1 / len(seen)
    return sums


@pytest.mark.parametrize("slots", [1, 2], ids=["one slot an event", "two slots an event"])
def test_mass_is_summed_by_the_time_between_two_events(slots):
    rng = np.random.default_rng(0)
    weights = np.tril(rng.random((2, 3, 7 * slots, 7 * slots)), -1)
    weights /= np.maximum(weights.sum(axis=-1, keepdims=True), 1e-9)
    elapsed = np.cumsum(rng.choice([0, 30, 5_000, 200_000, 10_000_000], (2, 7)), axis=1).astype(np.int32)
    scored = rng.random((2, 7)) < 0.7
    scored[:, 0] = True  # sees nothing
    np.testing.assert_allclose(mass_by_elapsed(weights, elapsed, scored), naive_mass(weights, elapsed, scored))


MIXING = {
    "grouped queries and t5": small_config(
        small_rotary("siren", per_head=True), key_heads=1, attention="chunked", bias=small_bias("t5")
    ),
    "interleaved and intervals": small_config(
        small_rotary("ordinal"), action_fusion="interleaved", bias=small_bias("tisasrec")
    ),
}


@pytest.mark.parametrize("model", MIXING.values(), ids=MIXING)
def test_the_weights_of_an_attention_mix_its_values_into_what_it_returns(model):
    """Without the vectors that TiSASRec adds to values, which are no event's, and what stands for no history."""
    attention = GenerativeRecommender(model, SPEC, (0.0, 0.0), key=jax.random.key(0)).blocks[0].attention
    bias: Any = attention.bias
    if model.bias.kind == "tisasrec":
        bias.value.set_value(jnp.zeros_like(bias.value[...]))
    rng, events = np.random.default_rng(0), random_events(np.repeat([[1, 2, 0]], [5, 4, 3], axis=1))
    x, value = (jnp.asarray(rng.normal(size=(1, 12, 8)), jnp.float32) for _ in range(2))

    @jax.jit
    def run(x, value, events):
        weights = attention.weights(x, events, None, None)
        heads = attention.value(value).reshape(1, 12, -1, attention.head_dim)
        heads = jnp.repeat(heads, weights.shape[1] // heads.shape[2], axis=2)
        mixed = jnp.einsum("bnqk,bknh->bqnh", weights, heads)
        return weights, attention.output(mixed.reshape(1, 12, 8)), attention(x, value, events, None, None)

    weights, mixed, attended = map(np.asarray, run(x, value, events))
    real = np.asarray(events.segment) > 0
    np.testing.assert_allclose(mixed[real], attended[real], atol=1e-5)
    starts = np.isin(np.arange(12), [0, 5, 9, 10, 11])  # of segments, and padding: they see nothing
    np.testing.assert_allclose(weights.sum(axis=-1)[0, 0], ~starts, atol=1e-5)


@pytest.mark.parametrize("fusion", ["mixed_value", "interleaved"])
def test_the_mass_of_every_attention_sums_to_one(siren, fusion):
    session, params = siren[:2] if fusion == "mixed_value" else session_of(MIXING["interleaved and intervals"])
    found = attention_mass(session, params, ENCODED, CHOSEN)
    assert list(found) == ["layer 1", "past actions"] if fusion == "mixed_value" else ["layer 1"]
    for one in found.values():
        np.testing.assert_allclose([one.mass.sum(), one.even.sum()], 1, rtol=1e-5)
    assert attention_mass(session, params, ENCODED, LOG.time_ms == LOG.time_ms.min()) == {}  # has no history
