"""What the embedding of an event may and may not mix up: columns, unknown ids, training and evaluation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small_logs import SPEC, random_events

from siren_rope_jax.nn.column_transform import ColumnTransform
from siren_rope_jax.nn.features import InputFeatures, InputSpec

EVENTS = random_events(np.ones((40, 25), np.int32))
IDS = np.asarray(EVENTS.ids)


def features(id_dropout: float = 0.0, spec: InputSpec = SPEC) -> InputFeatures:
    return InputFeatures(spec, embedding_dim=4, id_dropout=id_dropout, rngs=nnx.Rngs(params=0))


@pytest.mark.slow
def test_an_event_is_the_embeddings_of_its_ids_then_its_dense_columns():
    module = features()
    result = module(EVENTS)
    assert result.shape[-1] == module.out_features == 4 + 4 + 2
    for column in (0, 1):
        rows = module.tables[column].embedding[...][EVENTS.ids[..., column]]
        np.testing.assert_array_equal(result[..., 4 * column : 4 * column + 4], rows)
    np.testing.assert_array_equal(result[..., 8:], EVENTS.dense)


@pytest.mark.slow
def test_dense_columns_pass_their_part_of_the_transform_and_are_still_found_by_name():
    columns = np.random.default_rng(0).normal(size=(4_000, 5)).astype(np.float32)  # three counters come first
    spec = dataclasses.replace(SPEC, context_features=3, context_transform=ColumnTransform.fit(columns, columns[:, :1]))
    module = InputFeatures(spec, embedding_dim=4, id_dropout=0.0, dense_bins=True, rngs=nnx.Rngs(params=0))
    result = module(EVENTS)
    assert result.shape[-1] == module.out_features == 4 + 4 + 2 + 2 * 8
    whole = spec.context_transform(jnp.concatenate([jnp.zeros((*EVENTS.dense.shape[:2], 3)), EVENTS.dense], axis=-1))
    of_dense = [
        k for k, column in enumerate([*range(5), *(bin_[0] for bin_ in spec.context_transform.bins)]) if column > 2
    ]
    np.testing.assert_allclose(result[..., 8:], whole[..., np.array(of_dense)], rtol=1e-6)
    length, age = module.columns(("length", "age"))
    np.testing.assert_array_equal(result[..., [length, age]], result[..., 8:10])


def test_each_column_has_a_table_of_its_own():
    item, tab = (table.embedding[...] for table in features().tables)
    assert item.shape == (11, 4)
    assert tab.shape == (5, 4)
    assert not np.isclose(item[:5], tab).any()


def test_named_columns_are_found_where_they_stand_in_the_vector():
    module = features()
    names = ("length", "tab", "age")
    chosen = module(EVENTS)[..., jnp.array(module.columns(names))]
    tab = module.tables[1].embedding[...][EVENTS.ids[..., 1]]
    np.testing.assert_array_equal(chosen, np.concatenate([EVENTS.dense[..., :1], tab, EVENTS.dense[..., 1:]], axis=-1))


def test_an_unknown_metadata_column_is_named_with_those_that_exist():
    with pytest.raises(ValueError, match=r"item, tab, length, age, but 'lenght' is not one"):
        features().columns(("tab", "lenght"))


def test_training_hides_ids_at_the_given_rate_and_shows_the_unknown_embedding_instead():
    module = features(id_dropout=0.3)
    kept = module(EVENTS)
    trained = module(EVENTS, dropout_key=jax.random.key(1))
    for column, table in enumerate(module.tables):
        part = slice(4 * column, 4 * column + 4)
        known = IDS[..., column] != 0
        changed = np.any(np.asarray(trained != kept)[..., part], axis=-1)
        assert abs(changed[known].mean() - 0.3) < 0.06  # 4 standard deviations of 900 draws
        assert not changed[~known].any()
        unknown = np.broadcast_to(table.embedding[...][0], (changed.sum(), 4))
        np.testing.assert_array_equal(np.asarray(trained)[..., part][changed], unknown)
    np.testing.assert_array_equal(trained[..., 8:], EVENTS.dense)


def test_ids_are_hidden_one_by_one_and_differently_for_another_key():
    module = features(id_dropout=0.3)
    first, second = (np.asarray(module(EVENTS, dropout_key=jax.random.key(seed))) for seed in (1, 2))
    assert np.any(first != second)
    kept = np.asarray(module(EVENTS))
    item_hidden, tab_hidden = (np.any((first != kept)[..., part], -1) for part in (slice(4), slice(4, 8)))
    assert np.any(item_hidden & ~tab_hidden)
    assert np.any(tab_hidden & ~item_hidden)


def test_ids_are_never_hidden_outside_training_or_at_rate_zero():
    np.testing.assert_array_equal(features(id_dropout=1.0)(EVENTS), features()(EVENTS))
    np.testing.assert_array_equal(features()(EVENTS, dropout_key=jax.random.key(1)), features()(EVENTS))


def test_a_log_without_id_columns_is_embedded_by_its_numbers():
    module = features(spec=dataclasses.replace(SPEC, id_names=(), id_buckets=()))
    events = EVENTS._replace(ids=EVENTS.ids[..., :0])
    np.testing.assert_array_equal(module(events), EVENTS.dense)
    assert module.columns(("age",)) == [1]


def test_names_without_sizes_are_refused():
    with pytest.raises(ValueError, match=r"id_buckets must hold one size for each of .*'tab'.* but are \(11,\)"):
        InputSpec(id_names=("item", "tab"), id_buckets=(11,))


def test_an_event_without_any_input_is_refused():
    with pytest.raises(ValueError, match="id_names and dense_names must hold at least one column"):
        InputSpec()
