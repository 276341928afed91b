"""Inverse frequencies of the rotary pairs, and their scalings: against other people's numbers, against each method's
formula written once more in float64, in the limits, and with bad arguments."""

import json
import math
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from one_sentence import raises_one_sentence

from siren_rope_jax.ops.angles import ordinal_angles
from siren_rope_jax.ops.frequencies import inverse_frequencies, scaled_frequencies

GOLDEN = json.loads((Path(__file__).parent / "golden" / "rope_scaling.json").read_text())["cases"]
ROUNDED_ONCE = 2**-24 + 1e-12  # half the spacing of float32, and what the order of float64 operations may add
LENGTH = "original_max_position_embeddings"

# Every key that each method takes beside rope_type, rope_theta and partial_rotary_factor.
REQUIRED = {
    "default": {},
    "linear": {"factor": 4.0},
    "ntk": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "yarn": {LENGTH: 512},
    "longrope": {LENGTH: 512, "short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [2.0, 3.0, 4.0, 5.0]},
    "llama3": {LENGTH: 512, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
}
MSCALES = {"mscale": 1.0, "mscale_all_dim": 0.5}
OPTIONAL = {
    "yarn": {"factor": 4.0, "attention_factor": 1.5, "beta_fast": 32, "beta_slow": 1, "truncate": False} | MSCALES,
    "longrope": {"factor": 4.0, "attention_factor": 1.5},
}
METHODS = list(REQUIRED)
COMMON = {"rope_theta": 10_000.0, "partial_rotary_factor": 1.0}
FULL = {name: COMMON | REQUIRED[name] | OPTIONAL.get(name, {}) for name in METHODS}
ALL_KEYS = {key: value for parameters in FULL.values() for key, value in parameters.items()}
every_method = pytest.mark.parametrize("rope_type", METHODS)


def scaled(rope_type, head_dim=8, *, without=(), max_position_embeddings=2048, seq_len=None, **changed):
    """The method with its required keys, of which some are changed, added or left out."""
    parameters = {"rope_type": rope_type, "rope_theta": 10_000.0} | REQUIRED.get(rope_type, {}) | changed
    parameters = {key: value for key, value in parameters.items() if key not in without}
    return scaled_frequencies(head_dim, parameters, max_position_embeddings=max_position_embeddings, seq_len=seq_len)


def naive(d, parameters, trained, seq_len):
    """(frequencies, attention factor) in plain float64, one pair after the other, from the published formulas."""
    kind, base, s = parameters["rope_type"], parameters["rope_theta"], parameters.get("factor")
    original = parameters.get(LENGTH)
    attention = 1.0
    if kind in ("yarn", "longrope"):
        s = s or trained / original
    if kind == "ntk":
        base *= s ** (d / (d - 2))
    if kind == "dynamic":
        reached = max(seq_len or 0, trained)
        base *= (s * reached / trained - (s - 1)) ** (d / (d - 2))
    if kind == "yarn":
        fast, slow = parameters.get("beta_fast", 32), parameters.get("beta_slow", 1)
        low, high = (d * math.log(original / (2 * math.pi * n)) / (2 * math.log(base)) for n in (fast, slow))
        if parameters.get("truncate", True):
            low, high = math.floor(low), math.ceil(high)
        low, high = (min(max(end, 0), d - 1) for end in (low, high))
        high += 0.001 if low == high else 0
        attention = 1 + 0.1 * math.log(s)
        m, m_all = parameters.get("mscale"), parameters.get("mscale_all_dim")
        if m and m_all:
            attention = (1 + 0.1 * m * math.log(s)) / (1 + 0.1 * m_all * math.log(s))
    if kind == "longrope" and s > 1:
        attention = math.sqrt(1 + math.log(s) / math.log(original))

    frequencies = []
    for j in range(d // 2):
        theta = base ** (-2 * j / d)
        if kind == "linear":
            theta = theta / s
        elif kind == "yarn":
            r = min(max((j - low) / (high - low), 0), 1)
            theta = r * theta / s + (1 - r) * theta
        elif kind == "longrope":
            theta /= parameters["long_factor" if seq_len and seq_len > original else "short_factor"][j]
        elif kind == "llama3":
            wavelength = 2 * math.pi / theta
            few, many = parameters["low_freq_factor"], parameters["high_freq_factor"]
            if wavelength > original / few:
                theta = theta / s
            elif wavelength >= original / many:
                q = (original / wavelength - few) / (many - few)
                theta = (1 - q) * theta / s + q * theta
        frequencies.append(theta)
    return np.array(frequencies), parameters.get("attention_factor", attention)


@pytest.mark.parametrize("head_dim", [2, 8, 64, 256])
@pytest.mark.parametrize("base", [2.0, 10_000.0, 500_000.0])
def test_frequencies_are_the_float64_powers_rounded_once(head_dim, base):
    result = inverse_frequencies(head_dim, base=base)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, reference.inverse_frequencies(head_dim, base).astype(np.float32))


def test_first_pair_turns_one_radian_and_later_pairs_turn_slower():
    result = np.asarray(inverse_frequencies(64))
    assert result[0] == 1
    assert (np.diff(result) < 0).all()
    assert result[-1] > 1e-4


@pytest.mark.parametrize("head_dim", [0, -2, 7])
def test_odd_or_empty_head_is_refused_in_one_sentence(head_dim):
    with raises_one_sentence("head_dim", "positive even", head_dim):
        inverse_frequencies(head_dim)


@pytest.mark.parametrize("base", [1.0, 0.0, -5.0, float("inf"), float("nan")])
def test_base_without_descending_frequencies_is_refused_in_one_sentence(base):
    with raises_one_sentence("base", "above 1", base):
        inverse_frequencies(8, base=base)


@pytest.mark.parametrize("index", range(33))
def test_hugging_face_computes_the_same_frequencies_and_attention_factor(index):
    case = GOLDEN[index]
    parameters = case["rope_parameters"] | {key: case[key] for key in ("rope_type", "rope_theta")}
    result = scaled_frequencies(
        case["head_dim"],
        parameters,
        max_position_embeddings=case["max_position_embeddings"],
        seq_len=case["seq_len"],
    )
    chex.assert_trees_all_close(result.frequencies, np.float32(case["inv_freq"]), rtol=1e-6, atol=0)
    assert result.attention_factor == pytest.approx(case["attention_factor"], rel=1e-6, abs=0)


@st.composite
def cases(draw, rope_type):
    """(rotary dimension, rope_parameters, max_position_embeddings, seq_len), lengths whole or not, below 1 too."""
    d = 2 * draw(st.integers(2, 40))
    shortest = 2 if rope_type == "longrope" else 0.05  # whose attention factor has the logarithm of a length
    trained = draw(st.integers(16, 200_000) | st.floats(shortest, 200_000))
    seq_len = draw(st.none() | st.integers(1, 1_000_000) | st.floats(0.05, 1_000_000))
    keys = {"rope_theta": st.floats(2, 1e6), "factor": st.integers(1, 64) | st.floats(1, 64)}
    optional = {}
    if rope_type in ("yarn", "longrope", "llama3"):
        # Up to the whole length, so that a factor that is left out is at least 1.
        keys[LENGTH] = st.floats(shortest, trained)
    if rope_type == "yarn":
        optional = {
            "factor": keys.pop("factor"),
            "attention_factor": st.floats(0.1, 2),
            "beta_fast": st.floats(8, 64),
            "beta_slow": st.floats(0.5, 4),
            "mscale": st.floats(0, 2),
            "mscale_all_dim": st.floats(0, 2),
            "truncate": st.booleans(),
        }
    elif rope_type == "longrope":
        optional = {"factor": keys.pop("factor"), "attention_factor": st.floats(0.1, 2)}
        keys |= dict.fromkeys(
            ("short_factor", "long_factor"), st.lists(st.floats(0.5, 64), min_size=d // 2, max_size=d // 2)
        )
    elif rope_type == "llama3":
        keys |= {"low_freq_factor": st.floats(0.1, 4), "high_freq_factor": st.floats(5, 32)}
    elif rope_type == "default":
        del keys["factor"]
    return d, draw(st.fixed_dictionaries(keys, optional=optional)) | {"rope_type": rope_type}, trained, seq_len


@pytest.mark.slow
@every_method
@settings(max_examples=60)
@given(st.data())
def test_each_method_is_its_published_formula_rounded_once(rope_type, data):
    d, parameters, trained, seq_len = data.draw(cases(rope_type))
    result = scaled_frequencies(d, parameters, max_position_embeddings=trained, seq_len=seq_len)
    frequencies, attention_factor = naive(d, parameters, trained, seq_len)
    chex.assert_type(result.frequencies, np.float32)
    chex.assert_trees_all_close(np.float64(result.frequencies), frequencies, rtol=ROUNDED_ONCE, atol=0)
    assert isinstance(result.attention_factor, float)
    assert result.attention_factor == pytest.approx(attention_factor, rel=1e-12, abs=0)


@every_method
def test_scaled_frequencies_under_jit_are_those_outside(rope_type):
    inside = jax.jit(lambda: scaled(rope_type, seq_len=5000).frequencies)()
    chex.assert_trees_all_equal(inside, scaled(rope_type, seq_len=5000).frequencies, strict=True)


@pytest.mark.slow
@pytest.mark.parametrize("rope_type", ["linear", "ntk", "dynamic", "yarn", "llama3"])
@settings(max_examples=20)
@given(st.integers(2, 64), st.floats(1.1, 1e6), st.floats(1, 1e5))
def test_factor_one_changes_no_frequency(rope_type, pairs, base, length):
    lengths = {LENGTH: length} if LENGTH in REQUIRED[rope_type] else {}
    result = scaled(rope_type, 2 * pairs, rope_theta=base, factor=1, **lengths)
    chex.assert_trees_all_equal(result.frequencies, inverse_frequencies(2 * pairs, base=base), strict=True)
    assert result.attention_factor == 1


@pytest.mark.parametrize("parameters", [{}, {"rope_type": "default"}, {"type": "default"}, {"rope_type": None}])
def test_no_rope_type_means_no_scaling(parameters):
    result = scaled_frequencies(64, parameters | {"rope_theta": 5e5}, max_position_embeddings=8192, seq_len=100_000)
    chex.assert_trees_all_equal(result.frequencies, inverse_frequencies(64, base=5e5), strict=True)
    assert result[1:] == (1.0, None, False, None, ())


@pytest.mark.parametrize("factor", [1, 2.0, 7.5])
def test_ntk_keeps_the_fastest_pair_and_stretches_the_slowest_by_the_factor(factor):
    before, after = inverse_frequencies(64), scaled("ntk", 64, factor=factor).frequencies
    assert after[0] == 1
    np.testing.assert_allclose(before[-1] / after[-1], factor, rtol=3e-7)
    assert (np.diff(before / after) >= -1e-6).all()


@pytest.mark.parametrize("seq_len", [None, 1, 2047.5, 2048])
def test_dynamic_leaves_sequences_of_the_trained_length_alone(seq_len):
    result = scaled("dynamic", 64, factor=8.0, seq_len=seq_len)
    chex.assert_trees_all_equal(result.frequencies, inverse_frequencies(64), strict=True)


def test_dynamic_stretches_no_more_than_the_sequence_needs():
    # At twice the trained length, factor 1 is ntk by 2; the factor says how much further each more length goes.
    reached = scaled("dynamic", 64, factor=1, seq_len=4096).frequencies
    chex.assert_trees_all_equal(reached, scaled("ntk", 64, factor=2).frequencies)
    further = scaled("dynamic", 64, factor=3, seq_len=4096).frequencies
    chex.assert_trees_all_equal(further, scaled("ntk", 64, factor=4).frequencies)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rope_type", "many", "few", "options"),
    [
        ("yarn", 32, 1, {}),
        ("yarn", 32, 1, {"truncate": False}),
        ("yarn", 16, 2.5, {"beta_fast": 16, "beta_slow": 2.5}),
        ("llama3", 4, 1, {}),
        ("llama3", 8, 0.5, {"low_freq_factor": 0.5, "high_freq_factor": 8}),
    ],
)
@settings(max_examples=30)
@given(st.integers(2, 64), st.floats(100, 1e6), st.floats(10, 1e5), st.floats(1, 64))
def test_pairs_of_many_turns_are_kept_and_those_of_few_divided(
    rope_type, many, few, options, pairs, base, length, factor
):
    parameters = {"rope_theta": base, LENGTH: length, "factor": factor} | options
    before = np.float64(inverse_frequencies(2 * pairs, base=base))
    after = np.float64(scaled(rope_type, 2 * pairs, **parameters).frequencies)
    turns = before * length / (2 * np.pi)  # within the trained length
    kept, divided = turns > many * (1 + 1e-6), turns < few * (1 - 1e-6)
    # The first pair starts yarn's ramp even where it turns less than once.
    divided[0] &= rope_type != "yarn"
    np.testing.assert_array_equal(after[kept], before[kept])
    np.testing.assert_allclose(after[divided], before[divided] / factor, rtol=2e-7)
    assert (after <= before).all()
    assert (after >= before / factor * (1 - 2e-7)).all()


@pytest.mark.parametrize(("length", "stretched"), [(1.0, 4.0), (1e15, 1.0)])
def test_yarn_is_not_turned_around_where_no_pair_lies_on_its_ramp(length, stretched):
    # One unit is less than a sixth of the fastest turn; in 1e15 the slowest pair turns more than 32 times.
    after = scaled("yarn", 64, factor=4.0, **{LENGTH: length}).frequencies
    np.testing.assert_allclose(inverse_frequencies(64)[1:] / after[1:], stretched, rtol=3e-7)


def test_longrope_divides_by_the_short_factors_up_to_the_original_length_and_by_the_long_beyond():
    before = np.float64(inverse_frequencies(8))
    for seq_len, divisors in [(None, "short"), (512, "short"), (512.5, "long"), (513, "long")]:
        after = scaled("longrope", seq_len=seq_len).frequencies
        np.testing.assert_allclose(after, before / REQUIRED["longrope"][f"{divisors}_factor"], rtol=2e-7)


@pytest.mark.parametrize("length", [1, 512])
def test_longrope_that_extends_nothing_leaves_attention_alone(length):
    assert scaled("longrope", factor=1, **{LENGTH: length}).attention_factor == 1


@pytest.mark.parametrize("rope_type", ["yarn", "longrope"])
@pytest.mark.parametrize("absent", [{}, {"factor": None}])
def test_absent_factor_is_the_ratio_of_the_two_lengths(rope_type, absent):
    chex.assert_trees_all_equal(scaled(rope_type, **absent), scaled(rope_type, factor=4.0))


@pytest.mark.parametrize("given_one", [{"mscale": 0.7}, {"mscale_all_dim": 0.7}, {"mscale": 0.7, "mscale_all_dim": 0}])
def test_yarn_needs_both_mscales_or_uses_neither(given_one):
    assert scaled("yarn", **given_one).attention_factor == scaled("yarn").attention_factor
    assert scaled("yarn", mscale=0.7, mscale_all_dim=0.7).attention_factor == 1


@pytest.mark.parametrize("rope_type", ["yarn", "longrope"])
def test_given_attention_factor_replaces_the_computed_one(rope_type):
    given_one, computed = scaled(rope_type, attention_factor=0.9), scaled(rope_type)
    assert given_one.attention_factor == 0.9
    assert computed.attention_factor > 1
    chex.assert_trees_all_equal(given_one.frequencies, computed.frequencies)


@every_method
def test_part_of_the_head_is_scaled_as_a_smaller_head(rope_type):
    part = scaled(rope_type, 32, partial_rotary_factor=0.25, seq_len=5000)
    chex.assert_trees_all_equal(part, scaled(rope_type, 8, seq_len=5000))


def test_linear_scaling_lays_a_longer_span_of_days_over_the_trained_one():
    days = jnp.asarray([0.0, 10.5, 30.25])
    frequencies = scaled("linear", factor=2.5, max_position_embeddings=75.625).frequencies
    expected = ordinal_angles(days, inverse_frequencies(8))
    chex.assert_trees_all_close(ordinal_angles(2.5 * days, frequencies), expected, rtol=3e-7)


@every_method
def test_null_is_absent_and_the_older_name_of_rope_type_is_known(rope_type):
    nulls = dict.fromkeys(ALL_KEYS.keys() - REQUIRED[rope_type].keys() - {"rope_theta"})
    older = REQUIRED[rope_type] | nulls | {"type": rope_type, "rope_theta": 10_000.0}
    before = dict(older)
    result = scaled_frequencies(8, older, max_position_embeddings=2048)
    chex.assert_trees_all_equal(result, scaled(rope_type))
    assert older == before


def test_rope_type_wins_over_its_older_name():
    result = scaled("linear", type="dynamic")
    np.testing.assert_array_equal(result.frequencies, inverse_frequencies(8) / 4)


@every_method
def test_every_key_of_another_method_is_returned_as_unread_and_changes_nothing(rope_type):
    full = scaled(rope_type, **FULL[rope_type])
    assert full.unread == ()
    others = {key: value for key, value in ALL_KEYS.items() if key not in FULL[rope_type]}
    with pytest.warns(UserWarning, match=f"rope_type {rope_type} does not read: {', '.join(others)}$"):
        result = scaled(rope_type, **FULL[rope_type], **others)
    assert result.unread == tuple(others)
    chex.assert_trees_all_equal(result._replace(unread=()), full)


@every_method
def test_every_missing_key_is_named(rope_type):
    for key in [*REQUIRED[rope_type], "rope_theta"]:
        for missing in ({"without": [key]}, {key: None}):
            with raises_one_sentence(f"rope_type {rope_type} must have the key {key},", "lacks"):
                scaled(rope_type, **missing)


LEAST = {"factor": 1, "mscale": 0, "mscale_all_dim": 0}
NO_NUMBERS = ["8", [8.0], True, float("nan"), float("inf"), -float("inf"), 1j]


@every_method
def test_what_is_no_number_or_outside_its_range_is_refused_by_name(rope_type):
    numbers = FULL[rope_type].keys() - {"truncate", "short_factor", "long_factor"}
    for key in sorted(numbers | {"max_position_embeddings", "seq_len"}):
        least = LEAST.get(key)
        outside = least - 0.01 if least is not None else 1.0 if key == "rope_theta" else 0
        interval = f"of at least {least}" if least is not None else f"above {int(outside)}"
        for bad in [*NO_NUMBERS, outside, -3]:
            with raises_one_sentence(f"{key} must be a finite number {interval}, but is ", bad):
                scaled(rope_type, **{key: bad})


@pytest.mark.parametrize("key", ["short_factor", "long_factor"])
def test_bad_lists_of_longrope_are_refused_by_name(key):
    for numbers in ([], [1.0] * 3, [1.0] * 5):
        with raises_one_sentence(key, "one number per rotary pair, 4,", f"has {len(numbers)}"):
            scaled("longrope", **{key: numbers})
    for bad in [*NO_NUMBERS, 0, -1.0]:
        with raises_one_sentence(f"{key}[2] must be a finite number above 0, but is ", bad):
            scaled("longrope", **{key: [1.0, 1.0, bad, 1.0]})
    for bad in (2.0, "1234", {"0": 1.0}):
        with raises_one_sentence(f"{key} must be a list of numbers, but is ", bad):
            scaled("longrope", **{key: bad})


@pytest.mark.parametrize("bad", ["sue", "Linear", "", "dynamic with alpha", 3, ["yarn"], True])
@pytest.mark.parametrize("key", ["rope_type", "type"])
def test_unknown_rope_type_is_refused_with_the_known_ones(key, bad):
    with raises_one_sentence("rope_type must be one of", *METHODS, repr(bad)):
        scaled_frequencies(8, {key: bad, "rope_theta": 10_000.0}, max_position_embeddings=2048)


@pytest.mark.parametrize("bad", [None, [("rope_type", "linear")], "linear"])
def test_parameters_that_are_no_dictionary_are_refused_in_one_sentence(bad):
    with raises_one_sentence("rope_parameters must be a dictionary", repr(bad)):
        scaled_frequencies(8, bad, max_position_embeddings=2048)


@pytest.mark.parametrize(
    ("rope_type", "changed", "parts"),
    [
        ("llama3", {"low_freq_factor": 5}, ("low_freq_factor must be at most high_freq_factor", "5.0 and 4.0")),
        ("yarn", {"beta_slow": 40}, ("beta_fast must be at least beta_slow", "32.0 and 40.0")),
        ("yarn", {"truncate": 1}, ("truncate must be true or false", "1")),
        ("yarn", {"truncate": "false"}, ("truncate must be true or false", "'false'")),
        ("yarn", {LENGTH: 4096}, ("max_position_embeddings must be at least", LENGTH, "2048.0 and 4096.0")),
        ("longrope", {LENGTH: 4096}, ("max_position_embeddings must be at least", LENGTH, "2048.0 and 4096.0")),
        ("longrope", {LENGTH: 1}, (f"{LENGTH} must be above 1", "no attention_factor", "is 1.0")),
    ],
)
def test_values_that_contradict_each_other_are_refused_in_one_sentence(rope_type, changed, parts):
    with raises_one_sentence(*parts):
        scaled(rope_type, **changed)


@every_method
@pytest.mark.parametrize(("head_dim", "share", "rotary_dim"), [(7, 1.0, 7), (10, 0.5, 5), (8, 0.1, 0), (8, 1.5, 12)])
def test_rotary_dimension_without_pairs_is_refused_in_one_sentence(rope_type, head_dim, share, rotary_dim):
    with raises_one_sentence("positive even number", "head_dim", f"{rotary_dim} for {head_dim} and {share}"):
        scaled(rope_type, head_dim, partial_rotary_factor=share)


@pytest.mark.parametrize("bad", [0, -8, True, "8", None, 8.5])
def test_head_dimension_that_is_no_whole_number_is_refused_in_one_sentence(bad):
    with raises_one_sentence("head_dim must be a whole number of at least 1", bad):
        scaled("linear", bad)


@pytest.mark.parametrize("rope_type", ["ntk", "dynamic"])
def test_one_pair_cannot_be_kept_and_stretched(rope_type):
    with raises_one_sentence("rotary dimension of at least 4", "2"):
        scaled(rope_type, 2)


def test_an_integer_beyond_float64_is_refused_in_one_sentence():
    with raises_one_sentence("factor must be a finite number of at least 1, but is 1000"):
        scaled("linear", factor=10**400)
