"""Drawn negatives: from what was known at the time, whatever the order of rows, and without a leak."""

import collections
import dataclasses

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_files import START
from sklearn.metrics import roc_auc_score
from test_loop import CONFIG

from siren_rope_jax.data.event_log import read_event_log
from siren_rope_jax.data.fingerprint import fingerprint
from siren_rope_jax.data.negatives import Negatives, with_negatives
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.errors import InputError
from siren_rope_jax.train import cheats
from siren_rope_jax.train.loop import train
from siren_rope_jax.train.session import load_session


def rows_of(events):
    """Rows as they are read, of (user, item, second) and a feature."""
    users, items, seconds = zip(*events, strict=True)
    return pl.DataFrame(
        {
            "user": [f"u{user}" for user in users],
            "item": [f"i{item}" for item in items],
            "time_ms": [1000 * (START + second) for second in seconds],
            "outcome 0": pl.Series([1.0] * len(events), dtype=pl.Float32),
            "outcome 1": pl.Series([0.5] * len(events), dtype=pl.Float32),
            "dense 0": pl.Series([float(s % 7) for s in seconds], dtype=pl.Float32),
        }
    ).with_row_index("row")


events = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 8), st.integers(0, 12)), min_size=1, max_size=60, unique=True
)
how = st.builds(
    Negatives,
    st.integers(1, 4),
    by=st.sampled_from(["popularity", "uniform"]),
    exclude_seen=st.booleans(),
    seed=st.integers(0, 5),
)


@pytest.mark.slow
@settings(max_examples=60)
@given(events, how)
def test_a_negative_is_another_item_known_before_beside_its_positive(events, negatives):
    table, notes = with_negatives(rows_of(events), negatives, "outcome 0")
    first = {}
    for _, item, second in events:
        first[f"i{item}"] = min(first.get(f"i{item}", 99), second)
    own = {(f"u{user}", f"i{item}", second) for user, item, second in events}
    drawn = table.filter("drawn")
    kinds = [(row["user"], row["item"], row["time_ms"] // 1000 - START) for row in table.to_dicts()]
    assert len(set(kinds)) == len(kinds)
    of_second: dict = collections.defaultdict(lambda: [0, 0])
    for row in table.to_dicts():
        of_second[row["user"], row["time_ms"]][int(row["drawn"])] += row["outcome 0"] is not None
        second = row["time_ms"] // 1000 - START
        if not row["drawn"]:
            # The first event of an item, and one without all its negatives, tell nothing.
            assert row["outcome 0"] is None or (row["outcome 0"] == 1 and first[row["item"]] < second)
            assert row["outcome 1"] == 0.5
            continue
        assert first[row["item"]] < second
        assert (row["outcome 0"], row["outcome 1"], row["dense 0"]) == (0, None, second % 7)
        seen = [s for user, item, s in own if (user, item) == (row["user"], row["item"])]
        assert not any(s <= second if negatives.exclude_seen else s == second for s in seen)
    for positives, others in of_second.values():
        assert others == negatives.per_positive * positives
    assert f"negatives drawn: {drawn.height} for " in notes[0]


@pytest.mark.slow
@settings(max_examples=40)
@given(events, how, st.randoms(use_true_random=False))
def test_neither_the_order_of_rows_nor_what_follows_changes_a_draw(events, negatives, random):
    def drawn(events):
        table, _ = with_negatives(rows_of(events), negatives, "outcome 0")
        return set(table.filter("drawn").select("user", "item", "time_ms", "dense 0").rows())

    shuffled = random.sample(events, len(events))
    assert drawn(shuffled) == drawn(events)
    early = [event for event in events if event[2] < 7]
    if early:
        assert drawn(early) == {row for row in drawn(events) if row[2] < 1000 * (START + 7)}


def test_popular_items_are_drawn_as_often_as_they_occurred_and_others_alike():
    history = [(user, 0 if user % 4 else 1, second) for user, second in zip(range(400), range(400), strict=True)]
    later = [(1000 + k, 2, 500 + k) for k in range(2000)]
    found = {}
    for by in ("popularity", "uniform"):
        negatives = Negatives(1, by=by, exclude_seen=False)
        rows = rows_of([*history, (999, 2, 450), *later])
        table, _ = with_negatives(rows, negatives, "outcome 0")
        drawn = table.filter(pl.col("drawn") & (pl.col("time_ms") >= 1000 * (START + 500)))
        found[by] = collections.Counter(drawn["item"])
    # i0 occurred 300 times and i1 100 times; i2 is always the positive's own.
    assert found["uniform"]["i1"] == pytest.approx(1000, abs=100)
    assert found["popularity"]["i1"] == pytest.approx(500, abs=80)
    assert found["uniform"].total() == found["popularity"].total() == 2000


def test_no_feature_of_a_row_tells_positives_from_negatives():
    # Purchases with up to three lines, of heavy users of few items, most of whom have had them all by the end.
    generator = np.random.default_rng(1)
    seconds = np.sort(generator.choice(20_000, 2_000, replace=False))
    lines = generator.choice(3, 2_000, p=[0.8, 0.15, 0.05]) + 1
    bought = np.stack([generator.integers(0, 20, 2_000), generator.integers(0, 40, 2_000), seconds], axis=1).tolist()
    events = [event for event, count in zip(bought, lines, strict=True) for _ in range(count)]
    line = np.concatenate([np.arange(1, count + 1) for count in lines])
    table, notes = with_negatives(rows_of(events).with_columns(line=pl.Series(line)), Negatives(2), "outcome 0")
    seen = pl.col("item").is_first_distinct().over("user").cum_sum().over("user")
    table = table.sort("time_ms", "drawn").with_columns(had=pl.when(~pl.col("drawn")).then(seen).forward_fill())
    told = table.drop_nulls("outcome 0")
    for feature in ("line", "had"):
        shares = told.group_by(feature).agg(pl.col("outcome 0").mean())["outcome 0"]
        np.testing.assert_allclose(shares, 1 / 3, rtol=1e-6)
    shuffled = rows_of(events).with_columns(line=pl.Series(line)).sample(fraction=1, shuffle=True, seed=2)
    again, _ = with_negatives(shuffled, Negatives(2), "outcome 0")
    kinds = ["user", "item", "time_ms", "line", "outcome 0", "drawn"]
    assert again[kinds].sort(kinds).equals(table[kinds].sort(kinds))
    assert any(note.startswith("events for which too few other items were known") for note in notes)
    assert any(note.startswith("positive events of items that their users had before") for note in notes)


def test_a_feature_of_items_among_those_of_events_is_refused(tmp_path):
    table = log_file(tmp_path)
    toml = TOML + '[features]\ncategorical = ["genre"]\ndense = ["length"]\n'
    both = table.with_columns(genre=pl.format("g{}", pl.col("item") % 3), length=pl.col("stars") * 1.5)
    both.write_parquet(tmp_path / "log.parquet")
    with pytest.raises(InputError, match=r'the feature "genre" must be given in a \[\[side_table\]\] of items'):
        read_event_log(described(tmp_path, toml))
    both.with_columns(genre=pl.format("g{}", pl.col("stars") % 3)).write_parquet(tmp_path / "log.parquet")
    assert read_event_log(described(tmp_path, toml)).drawn.any()


def test_another_seed_draws_others():
    generator = np.random.default_rng(0)
    events = [(int(user), int(item), s) for s, (user, item) in enumerate(generator.integers(0, 30, (300, 2)))]
    drawn = [
        with_negatives(rows_of(events), Negatives(2, seed=seed), "outcome 0")[0].filter("drawn")["item"].to_list()
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def log_file(folder, users=60, events=3000, items=40):
    """Views of random items at random times: no model can know what a user takes."""
    generator = np.random.default_rng(3)
    table = pl.DataFrame(
        {
            "user": generator.integers(0, users, events),
            "item": generator.integers(0, items, events),
            "time": START + np.sort(generator.integers(0, 40 * 86_400, events)),
            "stars": generator.integers(1, 6, events),
        }
    )
    table.write_parquet(folder / "log.parquet")
    return table


TOML = """
[log]
files = ["log.parquet"]
user = "user"
item = "item"
timestamp = "time"

[negatives]
per_positive = 2
exclude_seen = false

[tasks]
good = { column = "stars", at_least = 4 }

[split]
validation_from = 0.7
test_from = 0.8
"""


def described(folder, toml=TOML):
    (folder / "log.toml").write_text(toml)
    return folder / "log.toml"


def test_a_log_of_positives_gets_a_task_and_its_description_is_stored_whole(tmp_path):
    table = log_file(tmp_path)
    log = read_event_log(described(tmp_path))
    assert log.task_names == ("positive", "good")
    assert log.drawn.sum() == pytest.approx(2 * table.height, rel=0.05)
    np.testing.assert_array_equal(log.labels[log.drawn, 0], 0)
    assert np.isnan(log.labels[log.drawn, 1]).all()
    assert np.isnan(log.labels[~log.drawn, 0]).sum() == 40  # the first of each item
    again = read_event_log(EventLogSpec.from_dict(log.spec.to_dict(), tmp_path, "again"))
    assert fingerprint(again) == fingerprint(log)
    alone = read_event_log(described(tmp_path, TOML.replace('[tasks]\ngood = { column = "stars", at_least = 4 }', "")))
    assert alone.task_names == ("positive",)


def test_new_events_are_positives_for_later_ones_and_none_are_drawn_for_them(tmp_path):
    table = log_file(tmp_path)
    table.tail(3).with_columns(pl.col("time") + 10**6).write_parquet(tmp_path / "new.parquet")
    log = read_event_log(described(tmp_path), new_events=tmp_path / "new.parquet")
    assert log.new.sum() == 3
    assert (log.labels[log.new, 0] == 1).all()  # seen as history alone, and by nothing if they are candidates
    assert not log.drawn[log.new].any()


PER = "per_positive = 2"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (PER, "", "[negatives] per_positive: expected a whole number of at least 1, found None"),
        (PER, "per_positive = 1.5", "expected a whole number of at least 1, found 1.5"),
        (PER, "per_positive = true", "expected a whole number of at least 1, found True"),
        (PER, f"{PER}\nseed = -1", "expected a whole number of at least 0, found -1"),
        (PER, f"{PER}\nby = 'luck'", "expected 'popularity' or 'uniform', found 'luck'"),
        (PER, f"{PER}\ntask = 'good'", 'expected a name of its own, found the task "good"'),
        ("exclude_seen = false", "exclude_seen = 0", "exclude_seen: expected true or false, found 0"),
        ("[tasks]", "[tasks]\na.always = true\nb.always = true", "[tasks] b: expected one outcome that is always"),
        (
            f"[negatives]\n{PER}\nexclude_seen = false\n\n[tasks]",
            "[tasks]\na.always = true",
            "always positive needs [neg",
        ),
        ("[tasks]", "[tasks]\na = { always = true, at_least = 1 }", "goes with column, not with always"),
        ("[tasks]", "[tasks]\na = { always = true, column = 'x' }", "exactly one of column, any_of and always"),
    ],
)
def test_negatives_that_cannot_be_are_refused_in_one_sentence(tmp_path, old, new, said):
    log_file(tmp_path, events=200)
    with pytest.raises(InputError) as caught:
        read_event_log(described(tmp_path, TOML.replace(old, new)))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_once")
@pytest.mark.parametrize("by", ["popularity", "uniform"])
def test_a_model_of_random_items_finds_no_difference_between_positives_and_negatives(tmp_path, by):
    log_file(tmp_path)
    toml = TOML.replace("exclude_seen", f'by = "{by}"\nexclude_seen')
    log = read_event_log(described(tmp_path, toml))
    config = dataclasses.replace(CONFIG, steps=200, evaluations=4, patience=None)
    train(log, config, tmp_path / "run")
    told = pl.read_parquet(tmp_path / "run" / "predictions.parquet")
    told = told.filter(~pl.col("label_positive").is_nan())
    assert told["drawn"].to_list() == (told["label_positive"] == 0).to_list()
    auc = roc_auc_score(told["label_positive"].to_numpy(), told["probability_positive"].to_numpy())
    assert abs(auc - 0.5) < 0.05  # of some 600 positives: a standard deviation is about .015
    session, params = load_session(tmp_path / "run")
    moved = cheats.moved_within_seconds(log, 0)
    keys = ["user", "item", "time_ms"]
    found = []
    for one in (log, moved):
        wanted = one.period == 2
        predicted = session.predict(params, session.encoder.encode(one), wanted)[wanted, 0]
        columns = {"user": one.user[wanted], "item": one.item[wanted], "time_ms": one.time_ms[wanted]}
        found.append(pl.DataFrame({**columns, "predicted": predicted}).sort(keys)["predicted"].to_numpy())
    np.testing.assert_array_equal(*found)
