"""The order of rows within one second of a user is no input: not in data, training, evaluation or scoring."""

import dataclasses

import jax
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_files import START, event_table, read, write
from sklearn.metrics import roc_auc_score
from small_logs import NO_ROTATION, compile_small, encode, slate_log, small_bias, small_config, small_rotary

from siren_rope_jax.data.batches import BatchConfig, batches, make_rows
from siren_rope_jax.data.encode import Encoder
from siren_rope_jax.data.periods import NEW, TEST, TRAIN
from siren_rope_jax.nn.rotary import ROTARIES
from siren_rope_jax.train.cheats import rows_of
from siren_rope_jax.train.predict import predict_events
from siren_rope_jax.train.sharding import MeshConfig, make_layout

pytestmark = pytest.mark.slow

CONFIG = BatchConfig(window=16, row_length=32, batch_size=8)
LAYOUT = make_layout(MeshConfig())


def within_seconds(log, seed):
    """Moves rows about within their user and second: other rows, other milliseconds, the same events."""
    rng = np.random.default_rng(seed)
    key = np.stack([log.user, log.time_ms // 1000])
    order = np.lexsort((rng.random(len(log.time_ms)), *key))
    back = np.lexsort((np.arange(len(log.time_ms)), *key))
    permutation = np.empty_like(order)
    permutation[back] = order
    return permutation


def stream_of(log, encoder, history, as_history=False):
    """Every batch of a log's training events, or of its new ones."""
    encoded = encoder.encode(log, as_history=as_history)
    wanted = log.new if np.any(log.new) else log.period == TRAIN
    rows = make_rows(encoded, wanted[encoded.log_index], CONFIG, history=history)
    return list(batches(encoded, rows, CONFIG, seed=0)[: len(rows.row_index) // CONFIG.batch_size + 1])


@settings(max_examples=25)
@given(
    seed=st.integers(0, 99),
    size=st.integers(2, 40),
    history=st.sampled_from([8, 15]),
    new=st.sampled_from(["none", "alone", "as history"]),
)
def test_a_permutation_of_tied_rows_changes_no_bit_of_any_batch(seed, size, history, new):
    log = slate_log(users=3, slates=6, size=size, seed=seed)
    if new != "none":
        period = log.period.copy()
        period[-3 * size :] = NEW
        log = dataclasses.replace(log, period=period)
    # Outcomes of two events of one user, item and second are told apart by content alone if all differs: time does not.
    log = dataclasses.replace(log, time_ms=log.time_ms // 1000 * 1000)
    encoder = Encoder.fit(log, encode(log)[0].config)
    moved = rows_of(log, within_seconds(log, seed))
    ours, theirs = (stream_of(one, encoder, history, new == "as history") for one in (log, moved))
    for a, b in zip(ours, theirs, strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b)


def test_predictions_follow_the_rows_bit_by_bit_wherever_they_stand_in_the_file():
    log = slate_log(users=4, slates=8, size=5)
    encoder = Encoder.fit(log, encode(log)[0].config)
    model = compile_small(encoder, LAYOUT)
    params = shaken(model.initial_state().params)
    order = within_seconds(log, 1)
    order = order[np.argsort(log.time_ms[order], kind="stable")]
    everything = np.ones(len(log.time_ms), bool)
    ours, theirs = (
        predict_events(model.predict, params, encoder.encode(one), everything, CONFIG, LAYOUT)
        for one in (log, rows_of(log, order))
    )
    np.testing.assert_array_equal(ours[order], theirs)


def shaken(params):
    """Parameters none of which is zero, so that every part of the model acts."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(7), len(leaves))
    return jax.tree.unflatten(
        tree, [x + 0.3 * jax.random.normal(key, x.shape, x.dtype) for x, key in zip(leaves, keys, strict=True)]
    )


@pytest.mark.parametrize(
    "config",
    [
        *(small_config(small_rotary(kind)) for kind in ROTARIES),
        small_config(NO_ROTATION, bias=small_bias("hstu")),
    ],
    ids=[*ROTARIES, "hstu"],
)
def test_a_label_placed_by_the_order_of_rows_cannot_be_predicted(config):
    logs = [slate_log(users=60, slates=20, size=5, clicked=clicked) for clicked in ("first", "last")]
    encoder, _ = encode(logs[0])
    model = compile_small(encoder, LAYOUT, config=config)
    for log in logs:
        encoded = encoder.encode(log)
        rows = make_rows(encoded, (log.period == TRAIN)[encoded.log_index], CONFIG)
        state = model.initial_state()
        for batch in batches(encoded, rows, CONFIG, seed=0)[:60]:
            state, _ = model.train_step(state, LAYOUT.put_batch(batch, CONFIG.batch_size))
        wanted = log.period == TEST
        predicted = predict_events(model.predict, state.params, encoded, wanted, CONFIG, LAYOUT)
        # 1,200 events of which a fifth are clicks: four standard errors are .08.
        assert abs(roc_auc_score(log.labels[wanted, 0], predicted[wanted, 0]) - 0.5) < 0.08


def test_events_of_one_second_never_part_at_the_edge_of_a_period(tmp_path):
    table = event_table(["a", "b"], ["x", "y"])
    # Two events a second, 500 ms apart, but one in the first: each period would begin with the second of a pair.
    number = pl.int_range(20) + 1
    table = table.with_columns(time=START * 1000 + number // 2 * 60_000 + number % 2 * 500)
    log = read([write(table, tmp_path / "log.csv")], log={"timestamp_unit": "ms"})
    for second in np.unique(log.time_ms // 1000):
        assert len(set(log.period[log.time_ms // 1000 == second])) == 1
