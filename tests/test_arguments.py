"""What is no array of numbers, or numbers that mean something else, is refused by the ops or visible in the result."""

import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from one_sentence import as_installed, raises_one_sentence

from siren_rope_jax import ops
from siren_rope_jax.ops import (
    alibi_bias,
    apply_rotary,
    calendar_features,
    inverse_frequencies,
    ordinal_angles,
    rotate_pairs,
    split_unix_time,
    strictly_causal_attention,
    time2vec,
    time_order_angles,
)

FREQUENCIES, ONE = inverse_frequencies(4), jnp.ones((1, 1, 4))
ANGLES, IDS = jnp.zeros((1, 2)), jnp.ones((1, 1), int)
DATES, DURATIONS = np.asarray([5], "datetime64[s]"), np.asarray([5], "timedelta64[s]")
QUERY, NONE_SEEN = jnp.ones((1, 1, 1, 2)), jnp.zeros((1, 2))


@pytest.mark.parametrize("given", [None, [[[1.0, 2.0, 3.0, 4.0]]]], ids=["None", "a list"])
def test_what_is_no_array_is_refused_in_one_sentence(given):
    kind = type(given).__name__
    with raises_one_sentence("x must be an array", kind):
        apply_rotary(given, ANGLES)
    with raises_one_sentence("angles must be an array", kind):
        apply_rotary(ONE, given)
    with raises_one_sentence("cos must be an array", kind):
        rotate_pairs(ONE, ANGLES, given)
    with raises_one_sentence("frequencies must be an array", kind):
        ordinal_angles(jnp.arange(3), given)
    for name in ("query", "key", "value", "no_history"):
        arrays = {"query": QUERY, "key": QUERY, "value": QUERY, "no_history": NONE_SEEN} | {name: given}
        with raises_one_sentence(f"{name} must be an array", kind):
            strictly_causal_attention(**arrays, segment_ids=IDS)


@pytest.mark.parametrize(
    "given",
    [None, DATES, DURATIONS, np.asarray([True]), np.asarray([1j]), np.asarray(["3"])],
    ids=["None", "dates", "durations", "truth values", "complex numbers", "text"],
)
def test_positions_that_are_no_numbers_are_refused_in_one_sentence(given):
    with raises_one_sentence("positions must be integers or floats of at least 32 bits", "dtype"):
        ordinal_angles(given, FREQUENCIES)
    with raises_one_sentence("time must be integers", "dtype"):
        split_unix_time(given)


@pytest.mark.parametrize("given", [None, DATES, DURATIONS], ids=["None", "dates", "durations"])
def test_integers_of_another_kind_are_refused_in_one_sentence(given):
    with raises_one_sentence("day must be integers", "dtype"):
        calendar_features(given, np.asarray([5]), start_day=0, span_days=1.0)
    with raises_one_sentence("segment_ids must be integers", "dtype"):
        strictly_causal_attention(QUERY, QUERY, QUERY, segment_ids=given, no_history=NONE_SEEN)
    with raises_one_sentence("positions must be integers", "dtype"):
        alibi_bias(given, jnp.ones(2))


def test_random_keys_are_refused_in_one_sentence():
    keys = jax.random.split(jax.random.key(0), 3)
    for op in (lambda x: ordinal_angles(x, FREQUENCIES), lambda x: alibi_bias(x[None], jnp.ones(2)), ops.sincos):
        with raises_one_sentence("must be", "key<fry>"):
            op(keys)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_positions_and_days_of_16_bits_are_refused_in_one_sentence(dtype):
    """They hold no odd number above 256, or 2,048."""
    with raises_one_sentence("positions must be", "at least 32 bits", jnp.dtype(dtype).name):
        ordinal_angles(jnp.asarray([257.0], dtype), FREQUENCIES)
    with raises_one_sentence("elapsed_days must be", "at least 32 bits", jnp.dtype(dtype).name):
        time_order_angles(jnp.asarray([257]), jnp.asarray([257.0], dtype), FREQUENCIES)
    with raises_one_sentence("time must be", "at least 32 bits", jnp.dtype(dtype).name):
        time2vec(jnp.asarray([257.0], dtype), FREQUENCIES, FREQUENCIES)


@pytest.mark.parametrize("second", [-1, 86_400, 1_700_000_000])
def test_a_second_outside_the_day_is_refused_on_the_host_and_nan_on_the_device(second):
    with raises_one_sentence("second must lie within a day", second):
        calendar_features(np.asarray([3, 3]), np.asarray([second, 0]), start_day=0, span_days=9.0)
    features = jax.jit(lambda second: calendar_features(jnp.asarray([3, 3]), second, start_day=0, span_days=9.0))
    result = features(jnp.asarray([second, 86_399]))
    assert np.isnan(result[0]).all()
    assert np.isfinite(result[1]).all()


@pytest.mark.parametrize("time", [1_700_000_000, 1_711_846_800], ids=["an ordinary day", "the day of a clock change"])
def test_one_time_in_a_zone_is_that_of_many(time):
    day, second = split_unix_time(time, time_zone="Europe/Paris")
    days, seconds = split_unix_time([time, time], time_zone="Europe/Paris")
    assert day.shape == second.shape == ()
    assert (int(day), int(second)) == (days[0], seconds[0])


@pytest.mark.parametrize("zone", [["Europe/Paris"], 3, "Atlantis"])
def test_what_is_no_zone_is_refused_in_one_sentence(zone):
    with raises_one_sentence("time_zone must be an IANA zone", zone):
        split_unix_time([0], time_zone=zone)


POSITIONS, FEATURES = jnp.broadcast_to(jnp.arange(3), (2, 3)), jnp.ones((2, 3, 5))
HEADS, ROTATED = jnp.ones((2, 3, 2, 8)), jnp.ones((2, 3, 4))
PAIRS, SLOTS = inverse_frequencies(8), jnp.arange(3)
NETWORK = ops.siren_init(jax.random.key(0), 5, 4, width=3, hidden_layers=1)
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}
# Each op with the arrays that it takes.
TAKING = {
    "ordinal_angles": (ordinal_angles, POSITIONS, PAIRS),
    "time_order_angles": (
        lambda p, days, w, of_time, scale: time_order_angles(p, days, w, time_frequencies=of_time, time_scale=scale),
        *(POSITIONS, jnp.ones((2, 3)), PAIRS, PAIRS, jnp.ones(4)),
    ),
    "siren_apply": (lambda x: ops.siren_apply(NETWORK, x), FEATURES),
    "siren_rope_angles": (
        lambda p, x, w, scale, gate: ops.siren_rope_angles(p, x, w, NETWORK, scale=scale, gate=gate),
        *(POSITIONS, FEATURES, PAIRS, jnp.ones(4), jnp.ones((2, 1))),
    ),
    "section_angles": (lambda a, b: ops.section_angles([a, b], (1, 3)), ROTATED, ROTATED),
    "cycle_angles": (lambda t: ops.cycle_angles(t, (60, 90)), POSITIONS),
    "polar_features": (ops.polar_features, HEADS, jnp.ones((2, 3, 8))),
    "forgetting_bias": (
        lambda x, ids, t: ops.forgetting_bias(x, ids, times=t)(SLOTS, SLOTS),
        *(ROTATED, POSITIONS, POSITIONS),
    ),
    "selective_angles": (
        lambda x, w, ids, t: ops.selective_angles(x, w, ids, times=t),
        *(ROTATED, PAIRS, POSITIONS, POSITIONS),
    ),
    "causal_convolution": (
        lambda x, w, ids, t: ops.causal_convolution(x, w, ids, times=t),
        *(ROTATED, jnp.ones((3, 4)), POSITIONS, POSITIONS),
    ),
    "seconds_since": (ops.seconds_since, POSITIONS, POSITIONS),
    "length_temperature": (lambda n: ops.length_temperature(n, 5), POSITIONS),
    "visible_counts": (
        lambda ids, t, of_keys, at: ops.visible_counts(ids, times=t, key_segment_ids=of_keys, key_times=at),
        *(POSITIONS, POSITIONS, POSITIONS, POSITIONS),
    ),
    "content_angles": (ops.content_angles, FEATURES, jnp.ones((5, 4))),
    "sincos": (ops.sincos, ROTATED),
    "rotate_pairs": (lambda x, s, c, a: rotate_pairs(x, s, c, angles=a), HEADS, ROTATED, ROTATED, ROTATED),
    "apply_rotary": (lambda x, a, scale: apply_rotary(x, a, scale=scale), HEADS, ROTATED, ROTATED),
    "rote_factors": (lambda d: ops.rote_factors(d, 2), jnp.ones((2, 3))),
    "xpos_scale": (lambda p: ops.xpos_scale(p, 4), POSITIONS),
    "lie_rotations": (ops.lie_rotations, jnp.ones((2, 3, 2)), jnp.ones((2, 2, 3))),
    "rotate_blocks": (ops.rotate_blocks, jnp.ones((2, 3, 2, 6)), jnp.ones((2, 3, 2, 3, 3))),
    "planar_generators": (lambda w: ops.planar_generators(w, 4), PAIRS),
    "sinusoidal_encoding": (lambda p: ops.sinusoidal_encoding(p, 8), POSITIONS),
    "time2vec": (time2vec, jnp.ones((2, 3)), jnp.ones(4), jnp.ones(4)),
    "calendar_features": (lambda d, s: calendar_features(d, s, start_day=0, span_days=3.0), POSITIONS, POSITIONS),
    "calendar_angles": (
        lambda d, s: ops.calendar_angles(d, s, period="year", turns=(1, 2)),
        *(POSITIONS, POSITIONS),
    ),
    "calendar_harmonics": (
        lambda d, s: ops.calendar_harmonics(d, s, period="year", harmonics=2),
        *(POSITIONS, POSITIONS),
    ),
    "elapsed_days": (ops.elapsed_days, POSITIONS),
    "alibi_bias": (lambda p, m: alibi_bias(p, m)(SLOTS, SLOTS), POSITIONS, jnp.ones(2)),
    "t5_bias": (lambda p, w: ops.t5_bias(p, w)(SLOTS, SLOTS), POSITIONS, jnp.ones((8, 2))),
    "hstu_bias": (
        lambda p, t, u, w: ops.hstu_bias(p, t, u, w)(SLOTS, SLOTS),
        *(POSITIONS, POSITIONS, jnp.ones(9), jnp.ones(9)),
    ),
    "interval_buckets": (lambda t, ids: ops.interval_buckets(t, ids, max_interval=3), POSITIONS, POSITIONS),
    "t5_buckets": (ops.t5_buckets, POSITIONS),
    "log_time_buckets": (ops.log_time_buckets, POSITIONS),
    "query_growth": (lambda p: ops.query_growth(p, 0.1, 4), POSITIONS),
    "frequencies_at": (lambda p: ops.frequencies_at(p, 8, DYNAMIC, max_position_embeddings=4), POSITIONS),
    "strictly_causal_attention": (
        lambda q, k, v, none, scale, ids: strictly_causal_attention(
            q, k, v, segment_ids=ids, no_history=none, scale=scale
        ),
        *(HEADS, HEADS, HEADS, jnp.ones((2, 8)), jnp.ones(2), POSITIONS),
    ),
}
NO_NUMBERS = {
    "text": lambda x: "x",
    "dates": lambda x: np.zeros(x.shape, "datetime64[s]"),
    "durations": lambda x: np.zeros(x.shape, "timedelta64[s]"),
    "truth values": lambda x: np.ones(x.shape, bool),
    "complex numbers": lambda x: np.ones(x.shape, complex),
    "objects": lambda x: np.ones(x.shape, object),
}


@pytest.mark.parametrize("kind", NO_NUMBERS)
@pytest.mark.parametrize("name", TAKING)
def test_no_op_takes_what_is_no_array_of_real_numbers(name, kind):
    op, *arrays = TAKING[name]
    for index in range(len(arrays)):
        given = [NO_NUMBERS[kind](x) if i == index else x for i, x in enumerate(arrays)]
        with raises_one_sentence("must"):
            op(*given)


def attended(**settings):
    return strictly_causal_attention(QUERY, QUERY, QUERY, segment_ids=IDS, no_history=NONE_SEEN, **settings)


def drawn(in_features=5, out_features=4, **settings):
    return ops.siren_init(jax.random.key(0), in_features, out_features, **settings)


COUNTS = {
    "attention's chunk": lambda x: attended(chunk=x),
    "attention's window": lambda x: attended(window=x),
    "attention's sinks": lambda x: attended(window=1, sinks=x),
    "attention's hide_within": lambda x: attended(times=IDS, hide_within=x),
    "visible_counts' window": lambda x: ops.visible_counts(IDS, window=x),
    "time_scale_periods' pairs": lambda x: ops.time_scale_periods(x, shortest=60, longest=900),
    "xpos_scale's pairs": lambda x: ops.xpos_scale(SLOTS, x),
    "alibi_slopes' heads": ops.alibi_slopes,
    "t5_buckets' buckets": lambda x: ops.t5_buckets(SLOTS, buckets=x),
    "t5_buckets' max_distance": lambda x: ops.t5_buckets(SLOTS, max_distance=x),
    "t5_bias' max_distance": lambda x: ops.t5_bias(POSITIONS, jnp.ones((8, 2)), max_distance=x),
    "log_time_buckets' buckets": lambda x: ops.log_time_buckets(SLOTS, buckets=x),
    "interval_buckets' max_interval": lambda x: ops.interval_buckets(POSITIONS, POSITIONS, max_interval=x),
    "inverse_frequencies' head_dim": inverse_frequencies,
    "scaled_frequencies' head_dim": lambda x: ops.scaled_frequencies(x, DYNAMIC, max_position_embeddings=4),
    "sinusoidal_encoding's width": lambda x: ops.sinusoidal_encoding(SLOTS, x),
    "rote_factors' pairs": lambda x: ops.rote_factors(jnp.ones(3), x),
    "planar_generators' block": lambda x: ops.planar_generators(PAIRS, x),
    "siren_init's in_features": lambda x: drawn(x),
    "siren_init's out_features": lambda x: drawn(out_features=x),
    "siren_init's width": lambda x: drawn(width=x),
    "siren_init's hidden_layers": lambda x: drawn(hidden_layers=x),
    "calendar_harmonics' harmonics": lambda x: ops.calendar_harmonics(SLOTS, SLOTS, period="day", harmonics=x),
    "calendar_features' start_day": lambda x: calendar_features(SLOTS, SLOTS, start_day=x, span_days=3.0),
}
NUMBERS = {
    "inverse_frequencies' base": lambda x: inverse_frequencies(4, base=x),
    "sinusoidal_encoding's base": lambda x: ops.sinusoidal_encoding(SLOTS, 4, base=x),
    "xpos_scale's gamma": lambda x: ops.xpos_scale(SLOTS, 4, gamma=x),
    "xpos_scale's scale_base": lambda x: ops.xpos_scale(SLOTS, 4, scale_base=x),
    "content_angles' bound": lambda x: ops.content_angles(FEATURES, jnp.ones((5, 4)), bound=x),
    "siren_init's omega0": lambda x: drawn(omega0=x),
    "SirenParams' omega0": lambda x: ops.SirenParams(NETWORK.branches, x),
    "siren_apply's omega0": lambda x: ops.siren_apply(NETWORK.branches, FEATURES, omega0=x),
    "calendar_features' span_days": lambda x: calendar_features(SLOTS, SLOTS, start_day=0, span_days=x),
    "time_scale_periods' shortest": lambda x: ops.time_scale_periods(2, shortest=x, longest=900),
    "time_scale_periods' longest": lambda x: ops.time_scale_periods(2, shortest=60, longest=x),
    "length_temperature's trained_length": lambda x: ops.length_temperature(SLOTS, x),
    "query_growth's beta": lambda x: ops.query_growth(SLOTS, x, 4),
    "query_growth's length": lambda x: ops.query_growth(SLOTS, 0.1, x),
    "max_position_embeddings": lambda x: ops.scaled_frequencies(8, DYNAMIC, max_position_embeddings=x),
    "seq_len": lambda x: ops.scaled_frequencies(8, DYNAMIC, max_position_embeddings=4, seq_len=x),
}
FLAGS = {
    "attention's inclusive": lambda x: attended(inclusive=x),
    "visible_counts' inclusive": lambda x: ops.visible_counts(IDS, inclusive=x),
    "section_angles' interleaved": lambda x: ops.section_angles([ROTATED, ROTATED], (2, 2), interleaved=x),
    "attention's times_ascend": lambda x: attended(times_ascend=x),
    "rotate_pairs' interleaved": lambda x: rotate_pairs(HEADS, ROTATED, ROTATED, interleaved=x),
    "rotate_pairs' partial": lambda x: rotate_pairs(HEADS, ROTATED, ROTATED, partial=x),
    "apply_rotary's interleaved": lambda x: apply_rotary(HEADS, ROTATED, interleaved=x),
    "siren_init's zero_last": lambda x: drawn(zero_last=x),
    "calendar_features' clamp": lambda x: calendar_features(SLOTS, SLOTS, start_day=0, span_days=3.0, clamp=x),
}
UNFIT = [
    "3",
    b"3",
    [3],
    (),
    {},
    3j,
    jnp.asarray(3),
    np.ones((2, 1)),
    np.datetime64("now"),
    jax.ShapeDtypeStruct((), int),
]
UNFIT_COUNTS = [*UNFIT, None, True, 2.5, 3.0, float("nan"), -(10**400), 10**400, 2**40]
UNFIT_NUMBERS = [*UNFIT, None, True, float("nan"), float("inf"), -float("inf"), -1.5, 10**400]
UNFIT_FLAGS = [*UNFIT, 0, 1, 1.0, "False"]
OPTIONAL = {
    ("attention's window", None),
    ("visible_counts' window", None),
    ("siren_apply's omega0", None),
    ("seq_len", None),
}


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [(COUNTS, UNFIT_COUNTS), (NUMBERS, UNFIT_NUMBERS), (FLAGS, UNFIT_FLAGS)],
    ids=["counts", "numbers", "flags"],
)
def test_a_setting_of_another_kind_is_refused_in_one_sentence(settings, wrong):
    for name, op in settings.items():
        for given in wrong:
            if given is None and (name, None) in OPTIONAL:
                continue
            with raises_one_sentence(f"{name.split()[-1]} must be "):
                op(given)


@pytest.mark.parametrize("number", [np.int64, np.int8])
def test_a_setting_may_be_a_number_of_numpy(number):
    with as_installed():
        chex.assert_trees_all_equal(ops.alibi_slopes(number(4)), ops.alibi_slopes(4))
        chex.assert_trees_all_equal(
            ops.t5_buckets(jnp.arange(200), buckets=number(32), max_distance=number(100)),
            ops.t5_buckets(jnp.arange(200), max_distance=100),
        )
        of_numpy = inverse_frequencies(number(100), base=np.float32(100))
        chex.assert_trees_all_equal(of_numpy, inverse_frequencies(100, base=100.0))


def test_seconds_that_are_passed_as_milliseconds_are_told_of():
    with pytest.warns(UserWarning, match='look like seconds, but unit is "ms", which puts them from 1970-01-20'):
        split_unix_time([1_700_000_000, 1_700_086_400], unit="ms")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for times in ([0, 999], [1_700_000_000_000], [5, 1_700_000_000]):
            split_unix_time(times, unit="ms")
        split_unix_time([1_700_000_000])


@pytest.mark.slow
@pytest.mark.parametrize("name", TAKING)
def test_an_op_works_under_the_strict_settings_of_jax(name):
    """No implicit promotion of types or ranks, no infinity on the way, no tracer kept."""
    op, *arrays = TAKING[name]
    moved = [i for i, x in enumerate(arrays) if jnp.issubdtype(x.dtype, jnp.floating)]

    def total(*some):
        given = [some[moved.index(i)] if i in moved else x for i, x in enumerate(arrays)]
        return sum(jnp.sum(x.astype(jnp.float32)) for x in jax.tree.leaves(op(*given)) if isinstance(x, jax.Array))

    floats = [arrays[i] for i in moved]
    expected = jax.jit(jax.value_and_grad(total, tuple(range(len(moved)))) if moved else total)(*floats)
    strict = jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"), jax.debug_infs(True)
    with strict[0], strict[1], strict[2], jax.checking_leaks():
        found = jax.jit(jax.value_and_grad(total, tuple(range(len(moved)))) if moved else total)(*floats)
    chex.assert_trees_all_equal(found, expected)
