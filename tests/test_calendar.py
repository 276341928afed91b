"""Exact calendar: the host's split of Unix time and the five features on the device."""

import datetime
import zoneinfo

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import example, given, settings
from hypothesis import strategies as st
from one_sentence import as_installed, raises_one_sentence

from siren_rope_jax.ops.calendar import calendar_features, calendar_harmonics, split_unix_time

YEAR_2200 = 7_258_118_400  # 2200-01-01T00:00:00Z
DAYS_TO_2200 = YEAR_2200 // 86_400
ZONES = ["America/Sao_Paulo", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"]
# Two UTC days around each change: Sao Paulo changes at midnight, Lord Howe by 30 minutes.
CLOCK_CHANGES = [
    ("America/Sao_Paulo", "2018-02-17"),
    ("America/Sao_Paulo", "2018-11-03"),
    ("Europe/Berlin", "2024-03-30"),
    ("Europe/Berlin", "2024-10-26"),
    ("Australia/Lord_Howe", "2024-04-05"),
    ("Australia/Lord_Howe", "2024-10-04"),
    ("Asia/Kolkata", "2024-03-30"),
]
seconds_to_2200 = st.integers(-YEAR_2200, YEAR_2200)


def local_time(unix_seconds, zone):
    moment = datetime.datetime.fromtimestamp(unix_seconds, zoneinfo.ZoneInfo(zone))
    day = moment.date() - datetime.date(1970, 1, 1)
    return day.days, moment.hour * 3600 + moment.minute * 60 + moment.second


@given(st.lists(seconds_to_2200, min_size=1, max_size=20))
@example([0, 86_399, 86_400, -1, -86_400, -86_401, YEAR_2200 - 1])
def test_split_of_seconds_loses_nothing(times):
    day, second = split_unix_time(np.array(times))
    chex.assert_type([day, second], np.int32)
    assert [(int(d), int(s)) for d, s in zip(day, second, strict=True)] == [divmod(t, 86_400) for t in times]


@given(st.lists(st.integers(-1000 * YEAR_2200, 1000 * YEAR_2200), min_size=1, max_size=20))
@example([-1, 999, -1000, -1001, 86_399_999])
def test_split_of_milliseconds_rounds_down_to_the_second(times):
    day, second = split_unix_time(np.array(times), unit="ms")
    expected = [divmod(t // 1000, 86_400) for t in times]
    assert [(int(d), int(s)) for d, s in zip(day, second, strict=True)] == expected


@given(st.lists(st.tuples(seconds_to_2200, st.integers(-86_400, 86_400)), min_size=1, max_size=20))
def test_every_event_is_moved_by_its_own_offset(events):
    times, offsets = np.array(events).T
    day, second = split_unix_time(times, utc_offset=offsets)
    assert [divmod(t + o, 86_400) for t, o in events] == list(zip(day.tolist(), second.tolist(), strict=True))


def test_one_offset_moves_all_events_and_the_shape_is_kept():
    times = np.array([[0, 1_700_000_000], [-5, 4_000_000_000]])
    day, second = split_unix_time(times, utc_offset=28_800)
    chex.assert_shape([day, second], (2, 2))
    chex.assert_trees_all_equal(day.astype(np.int64) * 86_400 + second, times + 28_800, strict=True)


@settings(max_examples=30)
@given(st.sampled_from(ZONES), st.lists(seconds_to_2200, min_size=1, max_size=10))
def test_any_time_in_a_zone_is_what_datetime_says(zone, times):
    day, second = split_unix_time(np.array(times), time_zone=zone)
    assert [local_time(t, zone) for t in times] == list(zip(day.tolist(), second.tolist(), strict=True))


@pytest.mark.parametrize(("zone", "date"), CLOCK_CHANGES)
def test_days_of_a_clock_change_are_what_datetime_says(zone, date):
    start = int(datetime.datetime.fromisoformat(f"{date}T00:00:00+00:00").timestamp())
    around = np.arange(0, 3 * 86_400, 1800)
    times = start + np.concatenate([around - 1, around, around + 1, around + 777])
    day, second = split_unix_time(times.reshape(4, -1), time_zone=zone)
    expected = np.array([local_time(int(t), zone) for t in times])
    chex.assert_trees_all_equal((day.ravel(), second.ravel()), (expected[:, 0], expected[:, 1]))


def test_the_chosen_days_do_change_their_clocks():
    def change(zone, date):
        noon = datetime.datetime.fromisoformat(f"{date}T00:00:00").replace(tzinfo=zoneinfo.ZoneInfo(zone))
        return abs((noon + datetime.timedelta(days=3)).utcoffset() - noon.utcoffset()).total_seconds()

    assert [change(*case) for case in CLOCK_CHANGES] == [3600, 3600, 3600, 3600, 1800, 1800, 0]


def test_zone_works_in_milliseconds_and_for_no_events():
    day, second = split_unix_time(np.array([1_720_000_000_999]), unit="ms", time_zone="Asia/Kolkata")
    assert (day[0], second[0]) == local_time(1_720_000_000, "Asia/Kolkata")
    chex.assert_shape(split_unix_time(np.array([], np.int64), time_zone="Europe/Berlin"), (0,))


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (([1.5e9],), ("time", "integers", "float64")),
        ((["2024-01-01"],), ("time", "integers")),
        (([2**60],), ("years 1 to 9999", 2**60)),
        (([-(2**60)],), ("years 1 to 9999",)),
    ],
)
def test_bad_time_is_refused_in_one_sentence(arguments, parts):
    with raises_one_sentence(*parts):
        split_unix_time(*arguments)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"unit": "us"}, ("unit", '"s" or "ms"', "'us'")),
        ({"utc_offset": 5.5}, ("utc_offset", "integer seconds", "float64")),
        ({"utc_offset": 90_000}, ("utc_offset", "within a day", "90000")),
        ({"utc_offset": [0, 3600]}, ("utc_offset", "(3,)", "(2,)")),
        ({"utc_offset": [[0], [0]]}, ("utc_offset", "(3,)", "(2, 1)")),
        ({"time_zone": "Mars/Olympus"}, ("time_zone", "'Mars/Olympus'")),
        ({"time_zone": "../etc/passwd"}, ("time_zone", "'../etc/passwd'")),
        ({"time_zone": "Europe/Berlin", "utc_offset": 3600}, ("time_zone or utc_offset", "'Europe/Berlin'")),
    ],
)
def test_bad_option_of_the_split_is_refused_in_one_sentence(options, parts):
    with raises_one_sentence(*parts):
        split_unix_time(np.array([0, 1, 2]), **options)


def moments_to_2200():
    generator = np.random.default_rng(0)
    day = generator.integers(0, DAYS_TO_2200, 20_000)
    second = generator.integers(0, 86_400, 20_000)
    second[:6000] = np.resize([0, 1, 21_600, 43_199, 43_200, 43_201, 64_800, 86_399], 6000)
    return jnp.asarray(day, jnp.int32), jnp.asarray(second, jnp.int32)


@pytest.mark.slow
@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize(("start_day", "span_days"), [(0, float(DAYS_TO_2200)), (19_000, 0.7), (20_000, 365.0)])
def test_features_keep_1e_6_from_1970_to_2200(jit, start_day, span_days):
    day, second = moments_to_2200()

    def features(day, second):
        return calendar_features(day, second, start_day=start_day, span_days=span_days)

    result = np.asarray((jax.jit(features) if jit else features)(day, second))
    chex.assert_type(result, np.float32)
    expected = reference.calendar_features(day, second, start_day, span_days)
    assert np.abs(result - expected).max() < 1e-6
    assert np.abs(result[:, 4]).max() <= 1


PERIODS = {"day": 86_400, "week": 7 * 86_400, "year": 31_556_952}


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("period", PERIODS)
def test_every_harmonic_keeps_1e_6_for_any_date(period, jit):
    generator = np.random.default_rng(1)
    day = np.concatenate([generator.integers(-(2**31), 2**31, 300), [-(2**31), 2**31 - 1, 0, -1, 365, 10_957]])
    second = generator.integers(0, 86_400, len(day))
    second[-4:] = [0, 86_399, 0, 1]

    def turns(day, second):
        return calendar_harmonics(day, second, period=period, harmonics=64)

    result = np.asarray((jax.jit(turns) if jit else turns)(jnp.asarray(day, jnp.int32), jnp.asarray(second, jnp.int32)))
    chex.assert_type(result, np.float32)
    # In integers of Python, as float64 would lose digits of the phase.
    since = [(int(d) * 86_400 + int(s)) % PERIODS[period] for d, s in zip(day, second, strict=True)]
    phase = 2 * np.pi * np.array([[k * t % PERIODS[period] for k in range(1, 65)] for t in since]) / PERIODS[period]
    expected = np.stack([np.cos(phase), np.sin(phase)], axis=-1).reshape(len(day), 128)
    assert np.abs(result - expected).max() < 1e-6


def test_the_first_harmonics_of_day_and_week_are_the_calendar_features_bit_for_bit():
    day, second = moments_to_2200()
    features = calendar_features(day, second, start_day=0, span_days=9.0)
    for period, columns in (("day", slice(0, 2)), ("week", slice(2, 4))):
        first = calendar_harmonics(day, second, period=period, harmonics=1)
        chex.assert_trees_all_equal(first, features[:, columns], strict=True)


def test_the_phase_of_the_year_is_within_two_days_of_the_date():
    dates = [datetime.date(year, month, 1) for year in range(1970, 2200) for month in range(1, 13)]
    days = jnp.array([(date - datetime.date(1970, 1, 1)).days for date in dates], jnp.int32)
    turns = np.asarray(calendar_harmonics(days, jnp.zeros_like(days), period="year", harmonics=1))
    phase = np.arctan2(turns[:, 1], turns[:, 0]) / (2 * np.pi) * 365.2425
    since_new_year = [(date - date.replace(month=1)).days for date in dates]
    away = (phase - since_new_year + 182) % 365.2425 - 182
    assert np.abs(away).max() < 2


def test_harmonics_of_a_second_outside_the_day_are_nan():
    turns = jax.jit(lambda second: calendar_harmonics(jnp.zeros_like(second), second, period="year", harmonics=2))
    assert np.isnan(turns(jnp.array([-1, 86_400]))).all()
    assert np.isfinite(turns(jnp.array([0, 86_399]))).all()


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"period": "month", "harmonics": 1}, ("period", "day, week, year", "'month'")),
        ({"period": "day", "harmonics": 0}, ("harmonics", "0")),
        ({"period": "day", "harmonics": 65}, ("harmonics", "64", "65")),
        ({"period": "day", "harmonics": 1.5}, ("harmonics", "1.5")),
    ],
)
def test_harmonics_without_a_meaning_are_refused_in_one_sentence(options, parts):
    with raises_one_sentence(*parts):
        calendar_harmonics(jnp.array([1]), jnp.array([2]), **options)


@pytest.mark.slow
@settings(max_examples=30)
@given(st.integers(0, DAYS_TO_2200), st.floats(0.5, 40_000.0))
def test_long_range_offset_spans_exactly_minus_one_to_one(start_day, span_days):
    steps = np.linspace(-1.0, 2.0, 31) * span_days
    day, second = np.divmod(np.round((start_day + steps) * 86_400).astype(np.int64), 86_400)
    offset = np.asarray(
        calendar_features(
            jnp.asarray(day, jnp.int32),
            jnp.asarray(second, jnp.int32),
            start_day=start_day,
            span_days=span_days,
        )
    )[:, 4]
    assert (np.abs(offset) <= 1).all()
    assert (offset[:10] == -1).all()
    assert (offset[21:] == 1).all()
    expected = reference.calendar_features(day, second, start_day, span_days)[:, 4]
    assert np.abs(offset - expected).max() < 1e-6


@pytest.mark.slow
def test_without_the_clamp_the_offset_goes_on_outside_the_training_span():
    day, second = moments_to_2200()
    result = np.asarray(calendar_features(day, second, start_day=20_000, span_days=100.0, clamp=False))
    expected = reference.calendar_features(day, second, 20_000, 100.0, clamp=False)
    assert expected[:, 4].max() > 1000
    assert (np.abs(result - expected) / np.maximum(1, np.abs(expected))).max() < 1e-6


@pytest.mark.slow
def test_days_before_1970_keep_their_weekday():
    day = jnp.arange(-20, 0, dtype=jnp.int32)
    second = jnp.full(20, 40_000, jnp.int32)
    result = calendar_features(day, second, start_day=-20, span_days=40.0)
    chex.assert_trees_all_close(result, reference.calendar_features(day, second, -20, 40.0), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("day", "second", "span_days", "parts"),
    [
        ([1.5], [0], 1.0, ("integers", "float32")),
        ([1], [0.5], 1.0, ("integers", "float32")),
        ([1, 2], [0], 1.0, ("one shape", "(2,)", "(1,)")),
        ([1], [0], 0.0, ("span_days must be a finite number above 0", "0.0")),
        ([1], [0], float("nan"), ("span_days must be a finite number above 0", "nan")),
    ],
)
def test_bad_moment_or_span_is_refused_in_one_sentence(day, second, span_days, parts):
    with raises_one_sentence(*parts):
        calendar_features(jnp.asarray(day), jnp.asarray(second), start_day=0, span_days=span_days)


@pytest.mark.slow
@pytest.mark.parametrize(("day_type", "second_type"), [("int16", "int32"), ("uint16", "uint32"), ("int64", "uint32")])
def test_narrow_and_unsigned_integers_do_not_wrap_around(day_type, second_type):
    day, second = np.array([19_000, 18_980, 19_005]), np.array([80_000, 50_000, 86_399])
    with as_installed():
        result = calendar_features(day.astype(day_type), second.astype(second_type), start_day=18_990, span_days=30.0)
    exact = reference.calendar_features(day, second, 18_990, 30.0)
    chex.assert_trees_all_close(result, exact, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_span_of_64_bits_makes_no_features_of_64_bits():
    with jax.enable_x64(True):
        day, second = jnp.asarray([19_000], jnp.int32), jnp.asarray([80_000], jnp.int32)
        features = calendar_features(day, second, start_day=18_990, span_days=np.float64(30))
        chex.assert_type(features, jnp.float32)
