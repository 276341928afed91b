"""History counters against a naive loop, and their promise: nothing from the future or not yet known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siren_rope_jax.data.counters import history_counters


def logit(rate):
    return np.log(rate / (1 - rate))


def naive_counters(time, user, item, actions, known, pending, smoothing, counted, numbers=()):
    """The definition, event by event: what each counter may count is decided for every pair of events."""
    result = []
    for now in range(len(time)):
        earlier = [event for event in range(len(time)) if time[event] < time[now] and counted[event]]

        def rate_parts(action, events, now=now):
            seen = [
                actions[event, action] if known[event, action] <= time[now] else pending[action] for event in events
            ]
            seen = [value for value in seen if not np.isnan(value)]
            return float(sum(seen)), float(len(seen))

        base_rates = []
        for action in range(actions.shape[1]):
            positives, observed = rate_parts(action, earlier)
            base_rates.append((positives + (action not in numbers)) / (observed + 20))
        row = []
        for key in (user[:, None], item[:, None], np.stack([user, item], axis=1)):
            own = [event for event in earlier if (key[event] == key[now]).all()]
            row.append(np.log1p(len(own)))
            for action, base_rate in enumerate(base_rates):
                positives, observed = rate_parts(action, own)
                rate = (positives + smoothing * base_rate) / (observed + smoothing)
                row.append(rate if action in numbers else logit(rate))
        result.append(row)
    return np.array(result)


@st.composite
def logs(draw):
    """Small logs, in any row order, crowded with ties, repeated users and items, and late outcomes."""
    size = draw(st.integers(1, 30))

    def column(values):
        return np.array(draw(st.lists(values, min_size=size, max_size=size)))

    time = column(st.integers(0, 12)).astype(np.int64) * 1000 + 1_650_000_000_000
    outcome = st.lists(st.sampled_from([0.0, 1.0, np.nan]), min_size=2, max_size=2)
    delay = st.lists(st.sampled_from([-5, 0, 0, 1, 1000, 3500, 10**9]), min_size=2, max_size=2)
    return {
        "time": time,
        "user": column(st.integers(0, 3)).astype(np.int32),
        "item": column(st.integers(0, 3)).astype(np.int32),
        "actions": column(outcome).astype(np.float32),
        "action_known": time[:, None] + column(delay).astype(np.int64),
        "action_pending": np.array([0.0, np.nan], np.float32),
    }


@pytest.mark.slow
@settings(max_examples=150)
@given(log=logs(), smoothing=st.sampled_from([0.5, 10.0]), uncounted=st.sampled_from([0.0, 0.3, 1.0]))
def test_counters_equal_their_definition_event_by_event(log, smoothing, uncounted):
    counted = np.random.default_rng(0).random(len(log["time"])) >= uncounted
    counters, _ = history_counters(**log, smoothing=smoothing, counted=counted)
    expected = naive_counters(*log.values(), smoothing, counted)
    np.testing.assert_allclose(counters, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@settings(max_examples=60)
@given(log=logs(), seed=st.integers(0, 1000), data=st.data())
def test_a_number_is_counted_by_its_mean_whatever_the_order_of_rows_and_never_before_it_is_known(log, seed, data):
    rng = np.random.default_rng(seed)
    unobserved = np.isnan(log["actions"][:, 1])
    log["actions"][:, 1] = np.where(unobserved, np.nan, rng.normal(0, 3, len(unobserved)).clip(-5, 5))
    numbers = [False, True]
    counters, names = history_counters(**log, action_names=["like", "dwell"], numbers=numbers)
    assert [name for name in names if name.endswith("dwell")] == [
        f"{k}_mean_dwell" for k in ("user", "item", "user_item")
    ]
    expected = naive_counters(*log.values(), 10.0, np.ones(len(unobserved), bool), numbers=(1,))
    np.testing.assert_allclose(counters, expected, rtol=1e-5, atol=1e-5)
    order = rng.permutation(len(unobserved))
    shuffled = {name: column if name == "action_pending" else column[order] for name, column in log.items()}
    np.testing.assert_array_equal(counters[order], history_counters(**shuffled, numbers=numbers)[0])
    now = data.draw(st.integers(0, len(unobserved) - 1))
    hidden = (log["time"][:, None] >= log["time"][now]) | (log["action_known"] > log["time"][now])
    hidden[:, 0] = False
    changed = log | {"actions": np.where(hidden, np.float32(-2.5), log["actions"])}
    np.testing.assert_array_equal(counters[now], history_counters(**changed, numbers=numbers)[0][now])


@pytest.mark.slow
@settings(max_examples=80)
@given(log=logs(), data=st.data())
def test_an_outcome_that_has_not_happened_or_is_not_known_yet_changes_no_counter(log, data):
    now = data.draw(st.integers(0, len(log["time"]) - 1))
    moment = log["time"][now]
    hidden = (log["time"][:, None] >= moment) | (log["action_known"] > moment)
    other = data.draw(st.sampled_from([0.0, 1.0, np.nan]))
    changed = log | {"actions": np.where(hidden, np.float32(other), log["actions"])}
    np.testing.assert_array_equal(history_counters(**log)[0][now], history_counters(**changed)[0][now])


@pytest.mark.slow
@settings(max_examples=80)
@given(log=logs(), data=st.data())
def test_removing_all_later_events_changes_no_counter(log, data):
    now = data.draw(st.integers(0, len(log["time"]) - 1))
    kept = log["time"] <= log["time"][now]
    past = {name: column[kept] for name, column in log.items() if name != "action_pending"}
    counters, _ = history_counters(**log)
    np.testing.assert_array_equal(counters[kept], history_counters(**past, action_pending=log["action_pending"])[0])


@pytest.mark.slow
@settings(max_examples=80)
@given(log=logs(), data=st.data())
def test_row_order_among_events_at_the_same_time_changes_no_counter(log, data):
    order = np.array(data.draw(st.permutations(range(len(log["time"])))))
    shuffled = {name: column[order] for name, column in log.items() if name != "action_pending"}
    counters, _ = history_counters(**log)
    np.testing.assert_array_equal(
        counters[order], history_counters(**shuffled, action_pending=log["action_pending"])[0]
    )


def two_views(pending):
    """One user views an item at 0 ms and reacts at 500 ms; the counters are read at 400 and at 500 ms."""
    return history_counters(
        time=np.array([0, 400, 500]),
        user=np.zeros(3, np.int32),
        item=np.array([0, 1, 2], np.int32),
        actions=np.array([[1], [np.nan], [np.nan]], np.float32),
        action_known=np.array([[500], [400], [500]]),
        action_pending=np.array([pending], np.float32),
        action_names=["like"],
        smoothing=10.0,
    )


def test_a_late_positive_is_a_none_yet_before_it_happens_and_counts_from_then_on():
    counters, names = two_views(pending=0.0)
    rate = 1 / (1 + np.exp(-counters[:, names.index("user_rate_like")]))
    # The second view's outcome is known to be unobserved at once, so it never counts.
    np.testing.assert_allclose(rate, [1 / 20, (10 * 1 / 21) / 11, (1 + 10 * 2 / 21) / 11], rtol=1e-6)


def test_an_outcome_hidden_until_known_counts_as_nothing_before():
    counters, names = two_views(pending=np.nan)
    rate = 1 / (1 + np.exp(-counters[:, names.index("user_rate_like")]))
    np.testing.assert_allclose(rate, [1 / 20, 1 / 20, (1 + 10 * 2 / 21) / 11], rtol=1e-6)


def test_names_follow_the_columns():
    counters, names = two_views(pending=0.0)
    kinds = ("user", "item", "user_item")
    assert names == tuple(name for kind in kinds for name in (f"{kind}_events", f"{kind}_rate_like"))
    assert counters.dtype == np.float32
    np.testing.assert_allclose(counters[:, names.index("user_events")], np.log1p([0, 1, 2]), rtol=1e-6)
    np.testing.assert_array_equal(counters[:, names.index("item_events")], 0)


def test_an_empty_log_has_no_counters_but_all_names():
    counters, names = history_counters(
        time=np.zeros(0, np.int64),
        user=np.zeros(0, np.int32),
        item=np.zeros(0, np.int32),
        actions=np.zeros((0, 2), np.float32),
        action_known=np.zeros((0, 2), np.int64),
        action_pending=np.zeros(2, np.float32),
    )
    assert counters.shape == (0, len(names)) == (0, 9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actions": np.full((3, 1), 0.5, np.float32)}, "actions must be 0, 1 or NaN"),
        ({"action_pending": np.ones(1, np.float32)}, "action_pending must be 0 or NaN"),
        ({"smoothing": 0.0}, "smoothing must be a positive number of events, but is 0.0"),
        ({"action_names": ["like", "share"]}, "action_names must have 1 entries, but have 2"),
    ],
)
def test_wrong_input_is_named(change, message):
    valid = {
        "time": np.arange(3),
        "user": np.zeros(3, np.int32),
        "item": np.zeros(3, np.int32),
        "actions": np.zeros((3, 1), np.float32),
        "action_known": np.arange(3)[:, None],
        "action_pending": np.zeros(1, np.float32),
    }
    with pytest.raises(ValueError, match=message):
        history_counters(**valid | change)
