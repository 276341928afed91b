"""What encoding promises: it learns from training alone, and shows nothing before it is known."""

import dataclasses

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_logs import INPUTS, START_DAY, encode, small_log

from siren_rope_jax.data.batches import BatchConfig, batches, make_rows
from siren_rope_jax.data.encode import Encoder, InputConfig
from siren_rope_jax.data.encoder_file import load_encoder, save_encoder
from siren_rope_jax.data.event_log import EventLog, read_event_log
from siren_rope_jax.data.periods import TRAIN
from siren_rope_jax.data.schema import EventLogSpec

LOG = small_log([30, 25, 40, 3, 1, 12])
TRAINING = LOG.period == TRAIN


def replace(log: EventLog, **columns) -> EventLog:
    return dataclasses.replace(log, **columns)


def by_event(encoded) -> dict[str, np.ndarray]:
    """The encoded columns in the order of the log."""
    return {name: column[np.argsort(encoded.log_index)] for name, column in encoded.columns.items()}


def assert_same_events(first, second, chosen):
    for name in first:
        np.testing.assert_array_equal(first[name][chosen], second[name][chosen], err_msg=name)


def test_events_stand_user_after_user_in_the_order_of_time():
    _, encoded = encode(LOG)
    assert np.all(np.diff(encoded.user) >= 0)
    np.testing.assert_array_equal(encoded.user, LOG.user[encoded.log_index])
    for user in range(6):
        np.testing.assert_array_equal(encoded.log_index[encoded.user == user], np.flatnonzero(LOG.user == user))


def test_time_and_labels_pass_unchanged_and_elapsed_counts_from_the_start_of_training():
    columns = by_event(encode(LOG)[1])
    np.testing.assert_array_equal(columns["day"], LOG.day)
    np.testing.assert_array_equal(columns["second"], LOG.second)
    np.testing.assert_array_equal(columns["labels"], LOG.labels)
    np.testing.assert_array_equal(columns["elapsed_seconds"], LOG.time_ms // 1000 - LOG.time_ms[0] // 1000)


def test_the_calendar_span_is_that_of_training_alone():
    encoder, _ = encode(LOG)
    assert encoder.start_day == START_DAY
    assert encoder.start_day + encoder.span_days == LOG.day[TRAINING].max() + 1 <= LOG.day.max()


@pytest.mark.slow
@settings(max_examples=25)
@given(data=st.data())
def test_nothing_after_the_training_period_changes_how_training_is_encoded(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    later = ~TRAINING
    count = later.sum()
    changes = {
        "dense": np.where(later[:, None], rng.normal(1e6, 1e5, LOG.dense.shape), LOG.dense).astype(np.float32),
        "labels": np.where(later[:, None], 1, LOG.labels).astype(np.float32),
        "actions": np.where(later[:, None], 1, LOG.actions).astype(np.float32),
        "categorical": np.where(later[:, None], rng.integers(0, 99, LOG.categorical.shape, np.uint64), LOG.categorical),
        "item": np.where(later, rng.integers(0, 12, len(later)), LOG.item).astype(np.int32),
        "user": np.where(later, rng.integers(0, 6, len(later)), LOG.user).astype(np.int32),
    }
    chosen = data.draw(st.sets(st.sampled_from(sorted(changes)), min_size=1))
    changed = replace(LOG, **{name: changes[name] for name in chosen})
    before, after = encode(LOG), encode(changed)
    assert count > 20
    assert_same_events(by_event(before[1]), by_event(after[1]), TRAINING)
    for field in dataclasses.fields(Encoder):
        np.testing.assert_equal(getattr(before[0], field.name), getattr(after[0], field.name), err_msg=field.name)


def test_numbers_are_standardised_on_training_and_missing_ones_become_the_mean():
    columns = by_event(encode(LOG)[1])
    missing = np.isnan(LOG.dense)
    assert columns["dense"].shape == (len(LOG.time_ms), 3)
    for column in (0, 1):
        present = TRAINING & ~missing[:, column]
        raw = LOG.dense[:, column]
        expected = (raw - raw[present].mean()) / raw[present].std()
        expected = np.clip(np.where(missing[:, column], 0, expected), -5, 5)
        np.testing.assert_allclose(columns["dense"][:, column], expected, rtol=1e-4, atol=1e-5)


def test_a_column_with_gaps_in_training_gets_an_indicator_of_them():
    encoder, encoded = encode(LOG)
    assert encoder.input_names == ("length", "age", "age_missing")
    np.testing.assert_array_equal(by_event(encoded)["dense"][:, 2], np.isnan(LOG.dense[:, 1]))


def test_a_gap_that_training_never_saw_is_the_mean_and_needs_no_column():
    dense = LOG.dense.copy()
    dense[-1, 0] = np.nan
    columns = by_event(encode(replace(LOG, dense=dense))[1])
    assert columns["dense"].shape[1] == 3
    assert columns["dense"][-1, 0] == 0


@pytest.mark.parametrize("value", [7.0, np.nan])
def test_a_constant_or_absent_column_is_encoded_as_zero(value):
    dense = LOG.dense.copy()
    dense[:, 0] = value
    np.testing.assert_array_equal(encode(replace(LOG, dense=dense))[1].columns["dense"][:, 0], 0)


def test_one_absurd_number_is_held_at_five_standard_deviations():
    dense = LOG.dense.copy()
    dense[-1, 0], dense[-2, 0] = 3e38, -3e38
    columns = by_event(encode(replace(LOG, dense=dense))[1])
    assert columns["dense"][-2:, 0].tolist() == [-5, 5]


def test_history_counters_are_standardised_on_training():
    encoder, encoded = encode(LOG)
    context = by_event(encoded)["context"]
    assert context.shape[1] == len(encoder.context_names) == 9
    inside = np.abs(context).max(axis=0) < 5
    assert inside.sum() >= 4
    np.testing.assert_allclose(context[TRAINING][:, inside].mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(context[TRAINING][:, inside].std(axis=0), 1, atol=1e-3)


@pytest.mark.slow
def test_the_mean_of_the_history_counters_is_not_lost_in_a_long_log():
    log = small_log([4] * 50_000)  # summed one by one in float32, this many would miss the mean by 0.0006
    encoder, encoded = encode(log)
    events_of_user = by_event(encoded)["context"][log.period == TRAIN, encoder.context_names.index("user_events")]
    assert abs(events_of_user.mean(dtype=np.float64)) < 1e-6


def test_task_rates_are_those_of_the_observed_training_labels():
    encoder, _ = encode(LOG)
    for task, rate in enumerate(scale.mean for scale in encoder.tasks):
        labels = LOG.labels[TRAINING, task]
        assert rate == pytest.approx(labels[~np.isnan(labels)].mean())


@pytest.mark.slow
@settings(max_examples=30)
@given(
    item_buckets=st.integers(1, 40),
    categorical_buckets=st.integers(1, 12),
    min_count=st.integers(1, 12),
    seed=st.integers(0, 5),
)
def test_ids_are_buckets_within_the_table_and_rare_or_new_ones_are_unknown(
    item_buckets, categorical_buckets, min_count, seed
):
    log = small_log([20, 30, 5], seed=seed)
    config = InputConfig(item_buckets, categorical_buckets, min_count)
    encoder = Encoder.fit(log, config)
    ids = by_event(encoder.encode(log))["ids"]
    assert encoder.id_buckets == (item_buckets, min(categorical_buckets, 1 + len(encoder.known_ids[1])))
    for column, values in enumerate((log.item, log.categorical[:, 0])):
        buckets = ids[:, column]
        assert np.all((buckets >= 0) & (buckets < encoder.id_buckets[column]))
        distinct, counts = np.unique(values[log.period == TRAIN], return_counts=True)
        known = np.isin(values, distinct[counts >= min_count])
        np.testing.assert_array_equal(buckets != 0, known & (encoder.id_buckets[column] > 1))
        assert all(len(set(buckets[values == value])) == 1 for value in np.unique(values))


def test_a_column_of_few_values_has_a_bucket_for_each_and_one_of_many_has_counters_too():
    few = Encoder.fit(LOG, InputConfig(min_count=1))
    buckets = by_event(few.encode(LOG))["ids"][:, 1]
    tabs = set(LOG.categorical[TRAINING, 0].tolist())
    assert few.id_buckets[1] == 1 + len(tabs)
    assert set(buckets[TRAINING]) == set(range(1, 1 + len(tabs)))
    assert not [name for name in few.context_names if name.startswith("tab_")]
    many = Encoder.fit(LOG, InputConfig(min_count=1, counters_above=len(tabs) - 1))
    assert many.id_buckets[1] == 1_024
    columns = [name for name in many.context_names if name.startswith("tab_")]
    assert columns == ["tab_events", "tab_rate_click", "tab_rate_like"]
    # Counted as items are: a log whose items are its tabs has them as counters of the item.
    codes = np.unique(LOG.categorical[:, 0], return_inverse=True)[1].astype(np.int32)
    by_tab = replace(LOG, item=codes, item_ids=pl.Series([str(code) for code in range(codes.max() + 1)]))
    of_items = Encoder.fit(by_tab, InputConfig(min_count=1))
    context, expected = (by_event(e.encode(log))["context"] for e, log in ((many, LOG), (of_items, by_tab)))
    found = [many.context_names.index(name) for name in columns]
    wanted = [of_items.context_names.index(name.replace("tab", "item")) for name in columns]
    np.testing.assert_array_equal(context[:, found], expected[:, wanted])


def test_a_large_table_keeps_items_apart_and_the_bucket_follows_the_id_not_its_index():
    encoder = Encoder.fit(LOG, InputConfig(min_count=1))
    ids = by_event(encoder.encode(LOG))["ids"][:, 0]
    assert len(set(ids)) == len(set(LOG.item[TRAINING]))
    more = pl.concat([pl.Series(["a new item that sorts first"]), LOG.item_ids])
    moved = by_event(encoder.encode(replace(LOG, item=LOG.item + 1, item_ids=more)))["ids"][:, 0]
    np.testing.assert_array_equal(ids, moved)


def shown_actions(log: EventLog) -> np.ndarray:
    """What later events see of the actions of each event (values, then observed flags), in the order of the log."""
    encoded = encode(log)[1]
    config = BatchConfig(window=64, row_length=64, batch_size=len(log.user_ids))
    rows = make_rows(encoded, encoded.user >= 0, config)
    (batch,) = batches(encoded, rows, config, seed=None)
    actions = batch.events.actions[: len(rows.scored)]
    shown = np.empty((len(log.time_ms), actions.shape[-1]))
    shown[encoded.log_index[rows.row_index[rows.scored]]] = actions[rows.scored]
    return shown


def one_user(known: list[int], pending: float, actions: list[float]) -> np.ndarray:
    """What later events see of one action (value, observed) of a user with an event every 10 seconds."""
    log = small_log([len(known), 1])
    events = np.flatnonzero(log.user == 0)
    time = log.time_ms.copy()
    time[events] = 10_000 * np.arange(len(events))
    shown, known_at = log.actions.copy(), np.repeat(time[:, None], 2, axis=1)
    shown[events, 0], known_at[events, 0] = actions, 1000 * np.array(known)
    log = replace(
        log, time_ms=time, actions=shown, action_known=known_at, action_pending=np.array([pending, np.nan], np.float32)
    )
    return shown_actions(log)[events][:, [0, 2]]


@pytest.mark.parametrize(("pending", "hidden"), [(np.nan, [0, 0]), (0.0, [0, 1])])
def test_an_action_is_shown_to_the_next_event_only_once_it_is_known(pending, hidden):
    # Events at 0, 10, 20, 30 s; their outcomes are known at once, just in time, one second late, and at once.
    seen = one_user([0, 20, 31, 30], pending, [1, 1, 1, 1])
    assert seen.tolist() == [[1, 1], [1, 1], hidden, [1, 1]]


def test_an_unobserved_action_is_shown_as_unobserved_not_as_negative():
    assert one_user([0, 10, 20], np.nan, [0, np.nan, 1]).tolist() == [[0, 1], [0, 0], [1, 1]]


def test_an_action_is_not_shown_to_another_event_of_its_own_second():
    # Three events in one second, known at once, 5 s and 20 s later; the next second's event comes after 10 s.
    log = small_log([4, 1])
    events = np.flatnonzero(log.user == 0)
    time = log.time_ms.copy()
    time[events] = np.array([0, 300, 900, 10_000]) + 1_650_000_000_000
    order = np.argsort(time, kind="stable")
    known = np.repeat(time[:, None], 2, axis=1)
    known[events[:3], 0] += np.array([0, 5_000, 20_000])
    actions = np.ones_like(log.actions)
    pending = np.full(2, np.nan, np.float32)
    log = replace(log, time_ms=time, actions=actions, action_known=known, action_pending=pending)
    fields = {name: getattr(log, name)[order] for name in ("time_ms", "user", "item", "actions", "action_known")}
    shown = shown_actions(replace(log, **fields))
    own = np.flatnonzero(fields["user"] == 0)
    np.testing.assert_array_equal(shown[own, 2], [1, 1, 0, 1])


def test_the_moment_an_action_is_known_counts_from_the_users_own_next_event():
    log = small_log([2, 2])
    log = replace(
        log,
        user=np.array([0, 1, 0, 1], np.int32),
        time_ms=np.array([0, 10_000, 20_000, 30_000]),
        actions=np.ones((4, 2), np.float32),
        action_known=np.repeat([[15_000], [35_000], [20_000], [30_000]], 2, axis=1),
    )
    shown = shown_actions(log)
    np.testing.assert_array_equal(shown[:2], [[1, 1, 1, 1], [0, 0, 0, 0]])


def test_fitting_and_encoding_at_once_gives_what_one_after_the_other_does():
    encoder, encoded = Encoder.fit_encode(LOG, INPUTS)
    alone = Encoder.fit(LOG, INPUTS)
    for field in dataclasses.fields(Encoder):
        np.testing.assert_equal(getattr(encoder, field.name), getattr(alone, field.name), err_msg=field.name)
    again = alone.encode(LOG)
    assert_same_events(encoded.columns, again.columns, slice(None))
    np.testing.assert_array_equal(encoded.log_index, again.log_index)


def test_encoding_leaves_the_log_as_it_was():
    before = {name: getattr(LOG, name).copy() for name in ("dense", "labels", "actions")}
    encode(LOG)
    for name, column in before.items():
        np.testing.assert_array_equal(getattr(LOG, name), column, err_msg=name)


def test_saving_and_loading_is_the_identity(tmp_path):
    encoder, encoded = encode(LOG)
    save_encoder(encoder, tmp_path / "encoder.npz")
    loaded = load_encoder(tmp_path / "encoder.npz")
    for field in dataclasses.fields(Encoder):
        before, after = getattr(encoder, field.name), getattr(loaded, field.name)
        assert type(before) is type(after), field.name
        np.testing.assert_equal(after, before, err_msg=field.name)
    for name, column in loaded.encode(LOG).columns.items():
        assert column.dtype == encoded.columns[name].dtype
        np.testing.assert_array_equal(column, encoded.columns[name])


def test_a_log_without_features_is_encoded_by_item_and_counters():
    bare = replace(
        LOG,
        categorical=LOG.categorical[:, :0],
        categorical_names=(),
        dense=LOG.dense[:, :0],
        dense_names=(),
    )
    encoder, encoded = encode(bare)
    assert encoder.id_names == ("item",)
    assert encoder.input_names == ()
    assert encoded.columns["ids"].shape == (len(LOG.time_ms), 1)
    assert encoded.columns["dense"].shape == (len(LOG.time_ms), 0)


def write(path, rows):
    pl.DataFrame(rows, schema=["user", "item", "time", "click", "tab", "length"], orient="row").write_csv(path)


def test_new_events_leave_the_encoding_of_the_history_as_it_was(tmp_path):
    start = START_DAY * 86_400
    rng = np.random.default_rng(0)
    history = [
        (f"u{i % 5}", f"i{rng.integers(6)}", start + 600 * i, int(rng.integers(2)), i % 3, float(rng.normal()))
        for i in range(60)
    ]
    write(tmp_path / "log.csv", history)
    fresh = [("a", "a", start + 99_000, 1, 9, 5.0), ("u2", "zz", start + 98_000, 0, 1, 1.0)]
    write(tmp_path / "new.csv", [*fresh, ("u4", "i1", start + 99_001, 1, 1, 0.0)])
    sections = {
        "log": {"files": ["log.csv"], "user": "user", "item": "item", "timestamp": "time"},
        "tasks": {"click": "click"},
        "features": {"categorical": ["tab"], "dense": ["length"]},
        "split": {"validation_from": 0.7, "test_from": 0.85},
    }
    spec = EventLogSpec.from_dict(sections, tmp_path, "log.toml")
    log, longer = read_event_log(spec), read_event_log(spec, new_events=tmp_path / "new.csv")
    encoder = Encoder.fit(log, INPUTS)
    before, after = by_event(encoder.encode(log)), by_event(encoder.encode(longer))
    assert len(longer.time_ms) == 63
    assert longer.user_ids[0] == "a", "the case needs indices that move"
    for name, column in before.items():
        np.testing.assert_array_equal(column, after[name][~longer.new], err_msg=name)
    order = np.argsort(longer.row[longer.new])
    assert after["ids"][longer.new][order][:2, 0].tolist() == [0, 0]
    assert after["ids"][longer.new][order][2, 0] == before["ids"][log.item == log.item_ids.index_of("i1")][0, 0]


@pytest.mark.parametrize(
    ("what", "columns"),
    [
        ("task_names", {"task_names": ("click", "share")}),
        ("action_names", {"action_names": ("like", "click")}),
        ("dense_names", {"dense_names": ("length",), "dense": LOG.dense[:, :1]}),
        ("categorical_names", {"categorical_names": (), "categorical": LOG.categorical[:, :0]}),
        ("categorical_names", {"categorical_names": ("colour",)}),
    ],
)
def test_a_log_with_other_columns_is_refused(what, columns):
    encoder, _ = encode(LOG)
    with pytest.raises(ValueError, match=f"the log must have the {what} ") as caught:
        encoder.encode(replace(LOG, **columns))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["item_buckets", "categorical_buckets", "min_count"])
def test_a_table_without_rows_is_refused(name):
    with pytest.raises(ValueError, match=rf"{name} must lie in \[1, .*, but is 0"):
        InputConfig(**{name: 0})
