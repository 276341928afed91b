"""The examples of the page for contributors run as they stand, and what they add is a kind like the others."""

import dataclasses
import re
from pathlib import Path
from unittest import mock

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from one_sentence import raises_one_sentence
from small_logs import SPEC, compile_small, encode, random_events, small_bias, small_config, small_log, small_rotary

from siren_rope_jax.data.batches import BatchConfig, batches, make_rows
from siren_rope_jax.nn.bias import BIASES, BiasConfig, T5Settings
from siren_rope_jax.nn.recommender import GenerativeRecommender
from siren_rope_jax.nn.rotary import ROTARIES, RotaryConfig, SirenSettings
from siren_rope_jax.train.sharding import MeshConfig, make_layout

PAGE = (Path(__file__).parents[1] / ".github" / "CONTRIBUTING.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
EVENTS = random_events(np.ones((2, 8), np.int32))


@pytest.fixture
def configs():
    """Tiny models of the kinds that the examples add, which are gone afterwards."""
    with mock.patch.dict(ROTARIES), mock.patch.dict(BIASES):
        old = {*ROTARIES, *BIASES}
        for example in EXAMPLES:
            exec(example, {})
        (rotary,), (bias,) = (table.keys() - old for table in (ROTARIES, BIASES))
        yield {
            "rotary": small_config(small_rotary(rotary)),
            "bias": small_config(small_rotary("none"), bias=small_bias(bias)),
        }


def logits_and_gradient(config):
    """Compiled, of a model none of whose parameters is where it starts."""
    graph, params = nnx.split(GenerativeRecommender(config, SPEC, (0.0, 0.0), key=jax.random.key(0)))
    moved = jax.tree.map(lambda x: x + 0.3 * jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape), params)

    def total(params, events):
        logits = nnx.merge(graph, params)(events)
        return jnp.square(logits).sum(), logits

    run = jax.jit(jax.grad(total, has_aux=True))
    return lambda events: reversed(run(moved, events))


def test_an_example_is_about_twenty_lines():
    assert len(EXAMPLES) == 2
    for example in EXAMPLES:
        assert len([line for line in example.splitlines() if line.strip()]) <= 25


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "name"), [("rotary", "rotary/amounts"), ("bias", "blocks/0/attention/bias/decay")], ids=["rotary", "bias"]
)
def test_an_example_acts_on_scores_which_depend_on_no_later_event(configs, part, name):
    run, other = logits_and_gradient(configs[part]), random_events(np.ones((2, 8), np.int32), seed=1)
    logits, gradient = run(EVENTS)
    learned = {"/".join(map(str, path)): value for path, value in nnx.to_flat_state(gradient)}
    assert np.all(np.abs(learned[name][...]) > 1e-6)
    later = jax.tree.map(lambda a, b: a.at[:, 5:].set(b[:, 5:]), EVENTS, other)
    prefix = later._replace(segment=EVENTS.segment.at[:, 5:].set(0))
    for changed in (later, prefix):
        chex.assert_trees_all_equal(next(run(changed))[:, :5], logits[:, :5], strict=True)
    assert np.abs(next(run(later))[:, 5:] - logits[:, 5:]).max() > 1e-3


@pytest.mark.slow
def test_the_example_of_a_source_is_trained_and_logged(configs):
    encoder, encoded = encode(small_log([40] * 6))
    layout, config = make_layout(MeshConfig()), BatchConfig(window=16, row_length=32, batch_size=4)
    model = compile_small(encoder, layout, config=dataclasses.replace(configs["rotary"], layers=0))
    rows = make_rows(encoded, np.ones(len(encoded.log_index), bool), config)
    state, logged = model.initial_state(), []
    for batch in batches(encoded, rows, config, seed=0)[:8]:
        state, metrics = model.train_step(state, layout.put_batch(batch, config.batch_size))
        logged.append(np.asarray(metrics["rotary/amounts"]))
    assert np.all(logged[-1] != 0)
    chex.assert_trees_all_equal(logged[-1], np.asarray(state.params["rotary"]["amounts"][...]))


def test_settings_of_other_kinds_are_refused_beside_an_example(configs):
    with raises_one_sentence("rotary.siren.width must be left at 64 with rotary.kind weekly, but is 8"):
        RotaryConfig("weekly", siren=SirenSettings(width=8))
    with raises_one_sentence("bias.t5.buckets must be left at 32 with bias.kind kerple, but is 4"):
        BiasConfig("kerple", t5=T5Settings(buckets=4))
