"""Bags of values and vectors of numbers: each form is read to the bits of its plain twin."""

import dataclasses
import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_files import START, event_table, read, refusal, write
from test_loop import CONFIG

from siren_rope_jax.data.bags import OTHER, Bag
from siren_rope_jax.data.encode import Encoder, InputConfig
from siren_rope_jax.data.encoder_file import encode_alike, load_encoder, save_encoder
from siren_rope_jax.data.event_log import read_event_log
from siren_rope_jax.data.event_order import event_order
from siren_rope_jax.data.feature_columns import BETWEEN
from siren_rope_jax.data.fingerprint import fingerprint
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.data.simulator import SimulatorConfig, simulate, write_simulated_log
from siren_rope_jax.data.stable_hash import stable_hash
from siren_rope_jax.errors import InputError
from siren_rope_jax.train import cheats
from siren_rope_jax.train.evaluate import score
from siren_rope_jax.train.loop import train
from siren_rope_jax.train.session import load_session

USERS, ITEMS = ["ann", "bob", "eve"], ["x", "y", "z", "w"]
GENRES = [["b", "a"], [], None, ["a", "a", "c d"], ["b"]]
BAG = {"features": {"categorical": [{"column": "genres"}]}}
SPLIT = {"features": {"categorical": [{"column": "genres", "split": "|"}]}}
VECTORS = [[0.5, -1.0, 3.25], None, [1e-3, 0.0, 2.0], [1.0, 1.0, 1.0], [7.0, -8.0, 9.5]]
VECTOR = {"features": {"dense": [{"column": "embedding"}]}}
ONCE = InputConfig(min_count=1)


def table(**columns):
    return event_table(USERS, ITEMS, **columns)


def dense_of(log, config=ONCE):
    """Each event's encoded dense inputs by name, in the order of the log."""
    encoder, encoded = Encoder.fit_encode(log, config)
    found = np.empty_like(encoded.columns["dense"])
    found[encoded.log_index] = encoded.columns["dense"]
    return dict(zip(encoder.input_names, found.T, strict=True))


def write_json_lines(frame, path):
    path.write_text("".join(json.dumps(row) + "\n" for row in frame.to_dicts()))
    return path


def bags(tmp_path):
    """The genres as lists and as texts, by the name of the file."""
    lists = table(genres=GENRES)
    texts = table(genres=[" b |a", "", None, "a|a| c d", "b"])
    printed = table(genres=["['b', 'a']", "[]", "None", "['a', 'a', 'c d']", '["b"]'])
    comma = {"features": {"categorical": [{"column": "genres", "split": ","}]}}
    return {
        "lists.parquet": read([write(lists, tmp_path / "lists.parquet")], **BAG),
        "lists.jsonl": read([write_json_lines(lists, tmp_path / "lists.jsonl")], **BAG),
        "texts.csv": read([write(texts, tmp_path / "texts.csv")], **SPLIT),
        "printed.csv": read([write(printed, tmp_path / "printed.csv")], **comma),
    }


def test_a_bag_is_a_column_for_each_of_its_values_in_every_format(tmp_path):
    expected = {
        f"genres={value}": np.array([float(value in (values or [])) for values in GENRES] * 4)
        for value in ("a", "b", "c d")
    }
    prints = set()
    for name, log in bags(tmp_path).items():
        assert log.bag_names == ("genres",), name
        dense = dense_of(log)
        assert dense.keys() == expected.keys(), name
        for value, column in expected.items():
            np.testing.assert_array_equal(dense[value], column, err_msg=name)
        prints.add(fingerprint(log)["digest"])
        assert EventLogSpec.from_dict(log.spec.to_dict(), tmp_path, "again") == log.spec
    assert len(prints) == 1
    assert fingerprint(read([tmp_path / "texts.csv"]))["digest"] not in prints


def test_numbers_in_lists_are_values_too(tmp_path):
    log = read([write(table(genres=[[3, 12], [], [12]]), tmp_path / "log.parquet")], **BAG)
    assert dense_of(log).keys() == {"genres=3", "genres=12"}


def test_a_bag_of_a_side_table_is_that_of_each_item(tmp_path):
    log_file = write(table(genres=GENRES[:4]), tmp_path / "log.parquet")  # as many as items
    items = pl.DataFrame({"id": ITEMS, "genres": ["b|a", None, "", "a|c d"]})
    side = {"join": "item", "key": "id", "categorical": [{"column": "genres", "split": "|"}]}
    items.write_csv(tmp_path / "items.csv")
    by_side = read([log_file], side_table=[{"file": "items.csv", **side}])
    by_event = read([log_file], **BAG)
    np.testing.assert_equal(dense_of(by_side), dense_of(by_event))
    both = read([log_file], side_table=[{"file": "items.csv", **side}], **BAG)
    assert both.bag_names == ("genres", "items.genres")


@settings(max_examples=30)
@given(
    st.lists(st.lists(st.sampled_from("abcdef"), max_size=4), min_size=1, max_size=30),
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(0, 99),
)
def test_values_that_are_common_in_training_have_columns_and_the_others_share_one(cells, min_count, most, seed):
    texts = pl.Series([BETWEEN.join(sorted(set(cell))) or None for cell in cells], dtype=pl.String)
    bag = Bag.of("genres", texts, slice(None))
    chosen = np.random.default_rng(seed).random(len(cells)) < 0.7
    counts = {value: sum(value in cell for cell, c in zip(cells, chosen, strict=True) if c) for value in "abcdef"}
    frequent = sorted((v for v in counts if counts[v] >= min_count), key=lambda v: (-counts[v], v))[:most]
    rare = [not set(cell) <= set(frequent) for cell in cells]
    other = [OTHER] * (sum(r for r, c in zip(rare, chosen, strict=True) if c) >= min_count)
    values = bag.common_values(chosen, min_count=min_count, most=most)
    assert values == (*sorted(frequent), *other)
    found = bag.indicators(values)
    for column, value in enumerate(values):
        np.testing.assert_array_equal(found[:, column], rare if value == OTHER else [value in cell for cell in cells])


def test_new_values_are_no_columns_and_new_events_need_the_bag(tmp_path):
    path = write(table(genres=GENRES), tmp_path / "log.parquet")
    late = table(genres=[["a", "new"], ["new"]])[:2].with_columns(time=pl.lit(START + 10**6))
    log = read([path], write(late, tmp_path / "new.parquet"), **BAG)
    dense = dense_of(log)
    assert dense.keys() == {"genres=a", "genres=b", "genres=c d"}
    assert [dense["genres=a"][-2], dense["genres=a"][-1]] == [1, 0]
    assert 'the column "genres" ([features] categorical) is not in this file' in refusal(
        [path], write(late.drop("genres"), tmp_path / "new.parquet"), **BAG
    )


def test_values_that_are_only_in_test_move_no_input_of_training(tmp_path):
    early = read([write(table(genres=GENRES), tmp_path / "log.parquet")], **BAG)
    genres = [values if i < 10 else ["x", "y"] for i, values in enumerate(GENRES * 4)]
    late = read([write(table(genres=genres), tmp_path / "late.parquet")], **BAG)
    for name, column in dense_of(early).items():
        np.testing.assert_array_equal(column[:10], dense_of(late)[name][:10])


def test_an_encoder_with_bags_is_saved_and_compared(tmp_path):
    log = read([write(table(genres=GENRES), tmp_path / "log.parquet")], **BAG)
    encoder, _ = Encoder.fit_encode(log, ONCE)
    save_encoder(encoder, tmp_path / "encoder.npz")
    again = load_encoder(tmp_path / "encoder.npz")
    assert again.bag_values == encoder.bag_values == (("a", "b", "c d"),)
    assert encode_alike(encoder, again)
    assert not encode_alike(encoder, dataclasses.replace(again, bag_values=(("a", "b", "e"),)))
    with pytest.raises(InputError, match="the log must have the bag_names"):
        encoder.encode(read([tmp_path / "log.parquet"]))


def test_ties_are_ordered_by_their_bags_not_by_their_outcomes(tmp_path):
    frame = table(genres=[["a"], ["b"]]).with_columns(
        pl.lit("x").alias("item"), time=START + pl.int_range(20, dtype=pl.Int64) // 10
    )
    late = table(genres=GENRES).with_columns(time=pl.lit(START + 9, pl.Int64))
    frame = frame.with_columns(user=pl.lit("ann")).vstack(late)
    places = {}
    for name, part in (("as it is", frame), ("other outcomes", frame.with_columns(click=1 - pl.col("click")))):
        log = read([write(part, tmp_path / "log.parquet")], split={"validation_from": 0.1, "test_from": 0.2}, **BAG)
        order = event_order(log, log.new, stable_hash(log.item_ids, "item"))
        places[name] = [log.bags[0].cells[int(log.bags[0].index[event])] for event in order]
    assert places["as it is"] == places["other outcomes"]


def vectors(tmp_path):
    """The embedding in every form, by the name of the file, and the log of plain columns."""
    lists = table(embedding=VECTORS)
    texts = table(embedding=["[0.5, -1, 3.25]", None, "1e-3 0 2", "(1;1;1)", "7|-8|9.5"])
    array = lists.with_columns(pl.col("embedding").cast(pl.Array(pl.Float64, 3)))
    numbered = {
        f"embedding_{k + 9}": [None if vector is None else vector[k] for vector in VECTORS] for k in range(3)
    }  # embedding_9, embedding_10 and embedding_11: not in the order of the alphabet
    pattern = {"features": {"dense": [{"columns": "embedding_*"}]}}
    names = {"features": {"dense": list(numbered)}}
    plain = read([write(table(**numbered), tmp_path / "plain.csv")], **names)
    return plain, {
        "lists.parquet": read([write(lists, tmp_path / "lists.parquet")], **VECTOR),
        "array.parquet": read([write(array, tmp_path / "array.parquet")], **VECTOR),
        "lists.jsonl": read([write_json_lines(lists, tmp_path / "lists.jsonl")], **VECTOR),
        "texts.csv": read([write(texts, tmp_path / "texts.csv")], **VECTOR),
        "numbered.csv": read([write(table(**numbered), tmp_path / "numbered.csv")], **pattern),
    }


def test_a_vector_is_its_numbers_in_every_format(tmp_path):
    plain, others = vectors(tmp_path)
    expected = list(dense_of(plain).values())
    assert len(expected) == 4  # the numbers, and one indicator of missing ones
    for name, log in others.items():
        np.testing.assert_array_equal(log.dense, plain.dense, err_msg=name)
        numbered = [f"embedding_{k + 9}" for k in range(3)]
        expected_names = numbered if name == "numbered.csv" else [f"embedding[{k}]" for k in range(3)]
        assert log.dense_names == tuple(expected_names)
        np.testing.assert_array_equal(list(dense_of(log).values()), expected, err_msg=name)
        assert EventLogSpec.from_dict(log.spec.to_dict(), tmp_path, "again") == log.spec


@pytest.mark.parametrize("form", ["column", "columns", "file"])
def test_vectors_of_items_may_stand_in_their_table_or_beside_it(tmp_path, form):
    vectors = np.array([[1.5, 2], [np.nan, np.nan], [3, -4], [0, 1]])
    items = pl.DataFrame({"id": ITEMS[::-1]})
    side = {"file": "items.parquet", "join": "item", "key": "id", "dense": [{form: "vector*"}]}
    if form == "file":
        side["dense"] = [{"file": "vector.npy"}]
        np.save(tmp_path / "vector.npy", vectors)
    elif form == "columns":
        items = items.with_columns(vector1=vectors[:, 0], vector2=vectors[:, 1])
    else:
        side["dense"] = [{"column": "vector"}]
        items = items.with_columns(vector=pl.Series([None if np.isnan(v).any() else v.tolist() for v in vectors]))
    items.write_parquet(tmp_path / "items.parquet")
    log = read([write(table(), tmp_path / "log.csv")], side_table=[side])
    by_item = dict(zip(ITEMS[::-1], vectors, strict=True))
    np.testing.assert_array_equal(log.dense, np.array([by_item[ITEMS[i % 4]] for i in range(20)], np.float32))
    assert EventLogSpec.from_dict(log.spec.to_dict(), tmp_path / "elsewhere", "again") == log.spec


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((3, 2)), "expected 4 rows, as"),
        (np.zeros(4), "expected numbers with one row for each of"),
        (np.zeros((4, 0)), "expected numbers with one row for each of"),
        (np.array([["a"]] * 4), "expected numbers with one row for each of"),
        (np.full((4, 1), 1e300), "expected finite numbers of float32, or NaN where missing, found another"),
        (np.full((4, 1), np.inf), "expected finite numbers of float32, or NaN where missing, found another"),
        (np.array([[None]] * 4), "expected a NumPy file (.npy) with numbers, found something else"),
        (None, "this file does not exist"),
        (b"rubbish", "expected a NumPy file (.npy) with numbers, found something else"),
    ],
)
def test_a_numpy_file_that_does_not_fit_its_table_is_refused(tmp_path, array, said):
    if isinstance(array, bytes):
        (tmp_path / "vector.npy").write_bytes(array)
    elif array is not None:
        np.save(tmp_path / "vector.npy", array)
    pl.DataFrame({"id": ITEMS}).write_csv(tmp_path / "items.csv")
    side = {"file": "items.csv", "join": "item", "key": "id", "dense": [{"file": "vector.npy"}]}
    assert f"{tmp_path / 'vector.npy'}: {said}" in refusal([write(table(), tmp_path / "log.csv")], side_table=[side])


@pytest.mark.parametrize(
    ("cell", "found"),
    [("1 2", "'1 2'"), ("1 2 x", "'1 2 x'"), ("1 2 inf", "'1 2 inf'"), ("1 2 nan", "'1 2 nan'")],
)
def test_a_cell_that_is_no_vector_is_refused_with_its_line(tmp_path, cell, found):
    path = write(table(embedding=["1 2 3"] * 18 + [cell, "4 5 6"]), tmp_path / "log.csv")
    assert (
        f'{path}: line 20, column "embedding": expected 3 finite numbers, as in the first vector, or an empty cell, '
        f"found {found}" in refusal([path], **VECTOR)
    )


def test_files_and_new_events_have_vectors_of_one_length(tmp_path):
    paths = [write(table(embedding=[[1.0] * n]), tmp_path / f"{n}.parquet") for n in (2, 3)]
    said = "expected the numbers of vectors that"
    assert f"{paths[1]}: {said} {paths[0]} has, found embedding[2] in place of none" in refusal(paths, **VECTOR)
    assert said in refusal(paths[:1], paths[1], **VECTOR)


def test_numbered_columns_are_matched_by_name_and_never_take_an_outcome_in(tmp_path):
    one = write(table(e_0=[1.0], e_1=[2.0]), tmp_path / "one.csv")
    other = write(table(e_1=[1.0], e_2=[2.0]), tmp_path / "other.csv")
    numbered = {"features": {"dense": [{"columns": "e_*"}]}}
    assert "found e_2 in place of e_0" in refusal([one, other], **numbered)
    assert "found e_2 in place of e_0" in refusal([one], other, **numbered)
    for pattern in ("cl*", "*", "*c?*"):
        told = refusal([one], features={"dense": [{"columns": pattern}]})
        assert '"click" in, which tells the outcome or the split' in told
    odd = write(table(**{"e_2": [1.0], "e_10": [2.0], "e_\u00b2": [3.0]}), tmp_path / "odd.csv")
    assert read([odd], **numbered).dense_names == ("e_2", "e_10", "e_\u00b2")


def test_decimal_commas_of_vectors_are_no_separators(tmp_path):
    texts = table(embedding=["[0,5 1,25]", "2;-1,5"])
    path = tmp_path / "log.csv"
    texts.write_csv(path, separator="|")
    log = read([path], log={"separator": "|", "decimal_comma": True}, **VECTOR)
    np.testing.assert_array_equal(log.dense, [[0.5, 1.25], [2, -1.5]] * 10)


@pytest.mark.parametrize("empty", ["new.jsonl", "new.parquet", "new.csv"])
def test_new_events_may_lack_every_value_of_a_column(tmp_path, empty):
    columns = {"genres": GENRES, "embedding": VECTORS, "length": [1.5, None]}
    features = {"features": {"categorical": [{"column": "genres"}], "dense": ["length", {"column": "embedding"}]}}
    if empty == "new.csv":
        columns |= {"genres": ["a|b", ""], "embedding": ["1 2 3", None]}
        features["features"]["categorical"][0]["split"] = "|"
    path = write(table(**columns), tmp_path / ("log.csv" if empty == "new.csv" else "log.parquet"))
    new = table()[:2].with_columns(time=pl.lit(START + 10**6), click=None, genres=None, embedding=None, length=None)
    written = write_json_lines(new, tmp_path / empty) if empty == "new.jsonl" else write(new, tmp_path / empty)
    log = read([path], written, **features)
    assert np.isnan(log.dense[log.new]).all()
    assert np.isnan(log.labels[log.new]).all()
    assert [log.bags[0].cells[int(place)] for place in log.bags[0].index[log.new]] == [None, None]


def test_an_empty_list_is_a_missing_vector_and_whole_floats_are_values_as_integers(tmp_path):
    log = read([write(table(embedding=[[], [1.0, 2.0]]), tmp_path / "log.parquet")], **VECTOR)
    assert np.isnan(log.dense).all(axis=1).tolist() == [True, False] * 10
    whole = write(table(genres=[[1, 2], [2]]), tmp_path / "whole.parquet")
    floats = write(table(genres=[[1.0, 2.0], [2.0]]), tmp_path / "floats.parquet")
    assert fingerprint(read([whole], **BAG)) == fingerprint(read([floats], **BAG))


@pytest.mark.parametrize(
    ("features", "said"),
    [
        ({"categorical": ["genres"]}, 'the column "genres" holds List(String), expected text or numbers; lists'),
        ({"categorical": [{"column": "user"}]}, 'holds String, expected lists; for texts such as "a|b" give split'),
        ({"categorical": [{"column": "nested"}]}, "expected lists of texts or numbers"),
        ({"categorical": [{"split": "|"}]}, "column: this key is missing"),
        ({"categorical": [{"colum": "a"}]}, '[features] categorical has no key "colum" (did you mean "column"?)'),
        ({"categorical": ["genres", {"column": "genres"}]}, '"genres" is listed twice'),
        ({"categorical": [{"column": "click", "split": "|"}]}, '"click" belongs to the outcome click'),
        ({"dense": [{"column": "click"}]}, '"click" belongs to the outcome click'),
        ({"dense": [{"column": "time"}]}, "holds Int64, expected lists of numbers"),
        ({"dense": [{"column": "genres"}]}, "holds List(String), expected lists of numbers"),
        ({"dense": [{"column": "empty"}]}, "holds no vector, expected at least one"),
        ({"dense": [{"columns": "embed*"}]}, 'no column of this file is named like "embed*"'),
        ({"dense": [{"column": "a", "columns": "b"}]}, "expected one of column, columns, found column, columns"),
        ({"dense": [{"file": "a.npy"}]}, 'has no key "file"'),
        ({"dense": [3]}, "expected a list of texts in quotes, found [3]"),
    ],
)  # fmt: skip
def test_a_feature_that_cannot_be_is_refused_in_one_sentence(tmp_path, features, said):
    empty = pl.Series([None] * 20, dtype=pl.List(pl.Float64))
    nested = pl.Series([[["a"]]] * 20)
    path = write(table(genres=GENRES).with_columns(empty=empty, nested=nested), tmp_path / "log.parquet")
    assert said in refusal([path], features=features)


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_once")
def test_a_model_of_bags_and_vectors_trains_scores_as_it_evaluates_and_learns_from_them(tmp_path):
    described = write_simulated_log(simulate(SimulatorConfig(users=60)), tmp_path)
    events = pl.read_parquet(tmp_path / "events.parquet")
    # The outcome is in the bag and in the vector, so that a model that reads them must see it.
    like = pl.col("like")
    events = events.with_columns(
        genres=pl.when(like == 1).then(pl.lit(["liked", "news"])).otherwise(pl.lit(["news"])),
        embedding=pl.concat_list(like.cast(pl.Float64), pl.lit(0.5)),
    )
    events.write_parquet(tmp_path / "events.parquet")
    toml = described.read_text().replace(
        'categorical = ["topic", "format"]\n', 'categorical = ["topic", { column = "genres" }]\n'
    )
    described.write_text(toml.replace('dense = ["quality"]', 'dense = ["quality", { column = "embedding" }]'))
    log = read_event_log(described)
    metrics = train(log, dataclasses.replace(CONFIG, steps=60), tmp_path / "run")
    assert metrics["test"]["like"]["auc"] > 0.95
    final = int(np.flatnonzero(log.period == 2)[-1])
    row = events[int(log.row[final])]
    row.write_parquet(tmp_path / "new.parquet")
    events.filter(pl.int_range(pl.len()) != int(log.row[final])).write_parquet(tmp_path / "events.parquet")
    with_new = read_event_log(described, new_events=tmp_path / "new.parquet")
    scores = score(with_new, tmp_path / "run", allow_changed=True, say=lambda _: None)
    told = pl.read_parquet(tmp_path / "run" / "predictions.parquet").filter(pl.col("row") == int(log.row[final]))
    expected = [told[f"probability_{name}"][0] for name in log.task_names]
    assert scores[0].tolist() == pytest.approx(expected, abs=1e-6)
    # Permuted ties score the same.
    session, params = load_session(tmp_path / "run")
    moved = cheats.moved_within_seconds(log, 0)
    by_row = []
    for one in (log, moved):
        wanted = one.period == 2
        by_row.append(session.predict(params, session.encoder.encode(one), wanted)[np.argsort(one.row)])
    np.testing.assert_array_equal(*by_row)
