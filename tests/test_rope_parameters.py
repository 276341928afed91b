"""Hugging Face's dictionaries as published models carry them: against transformers' own numbers, what is read and what
is not, sets per type of layer, the choice by the positions at hand, and bad arguments."""

import json
import warnings
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from one_sentence import raises_one_sentence

from siren_rope_jax.ops import (
    frequencies_at,
    inverse_frequencies,
    ordinal_angles,
    query_growth,
    scaled_frequencies,
)

GOLDEN = json.loads((Path(__file__).parent / "golden" / "rope_parameters.json").read_text())
CASES = GOLDEN["cases"]
LENGTH = "original_max_position_embeddings"
BASE = {"rope_theta": 10_000.0}
LONGROPE = {LENGTH: 512, "short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [2.0, 3.0, 4.0, 5.0]}
MSCALES = {"short_mscale": 1.25, "long_mscale": 1.5}
LAYERS = {"full_attention": BASE | {"rope_type": "linear", "factor": 8.0}, "sliding_attention": BASE}
NO_NUMBERS = ["8", [8.0], True, float("nan"), float("inf"), 1j]


def read(parameters, head_dim=8, *, trained=2048, **more):
    """The result of a dictionary, with a base if it has none, and without the warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return scaled_frequencies(head_dim, BASE | parameters, max_position_embeddings=trained, **more)


def of_case(case, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return scaled_frequencies(
            case["head_dim"],
            case["rope_parameters"],
            max_position_embeddings=case["max_position_embeddings"],
            layer_type=case["layer_type"],
            **more,
        )


def set_of(case):
    return case["rope_parameters"][case["layer_type"]] if case["layer_type"] else case["rope_parameters"]


def test_the_published_configurations_are_of_every_type_that_transformers_knows():
    types = {set_of(case)["rope_type"] for case in CASES}
    assert types >= {"default", "linear", "dynamic", "yarn", "longrope", "su", "llama3", "proportional", "axial"}
    assert len({case["model"] for case in CASES}) >= 80


@pytest.mark.parametrize("index", range(len(CASES)))
def test_published_configurations_have_the_frequencies_and_the_factor_of_transformers(index):
    case = CASES[index]
    result = of_case(case, seq_len=case["seq_len"])
    chex.assert_trees_all_close(result.frequencies, np.float32(case["inv_freq"]), rtol=1e-6, atol=0)
    assert result.attention_factor == pytest.approx(case["attention_factor"], rel=1e-6, abs=0)
    assert result.mrope_section == (tuple(set_of(case).get("mrope_section", ())) or None)


@pytest.mark.parametrize("case", [case for case in CASES if case["seq_len"]], ids=lambda case: case["model"])
def test_positions_of_a_published_length_choose_what_transformers_chooses(case):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        frequencies, factor = frequencies_at(
            jnp.asarray([0, case["seq_len"] - 1]),
            case["head_dim"],
            case["rope_parameters"],
            max_position_embeddings=case["max_position_embeddings"],
        )
    chex.assert_trees_all_close(frequencies, np.float32(case["inv_freq"]), rtol=1e-6, atol=0)
    assert float(factor) == pytest.approx(case["attention_factor"], rel=1e-6, abs=0)


def test_pairs_beyond_a_proportional_share_do_not_turn_and_the_others_turn_as_in_a_whole_head():
    result = read({"rope_type": "proportional", "partial_rotary_factor": 0.25, "factor": 2.0}, 64).frequencies
    chex.assert_trees_all_close(result[:8], inverse_frequencies(64)[:8] / 2, rtol=1e-7)
    np.testing.assert_array_equal(result[8:], 0)
    whole = read({"rope_type": "proportional"}, 64).frequencies
    chex.assert_trees_all_equal(whole, inverse_frequencies(64))
    assert (read({"rope_type": "proportional", "partial_rotary_factor": 0.5}, 10).frequencies > 0).sum() == 2


def test_axial_frequencies_are_those_of_half_a_head():
    result = read({"rope_type": "axial", "partial_rotary_factor": 0.5}, 64)
    chex.assert_trees_all_equal(result.frequencies, inverse_frequencies(32))
    assert result.unread == ("partial_rotary_factor",)


@pytest.mark.parametrize("seq_len", [None, 100, 100_000])
def test_dynamic_with_alpha_is_ntk_by_alpha_at_every_length(seq_len):
    result = read({"rope_type": "dynamic", "alpha": 50.0, "factor": 4.0}, seq_len=seq_len)
    chex.assert_trees_all_equal(result.frequencies, read({"rope_type": "ntk", "factor": 50.0}).frequencies)
    assert result.unread == ("factor",)


def test_dynamic_counts_from_the_trained_length_as_transformers_does_whatever_the_original():
    dynamic = {"rope_type": "dynamic", "factor": 2.0}
    result = read(dynamic | {LENGTH: 512}, seq_len=4096)
    chex.assert_trees_all_equal(result.frequencies, read(dynamic, seq_len=4096).frequencies)
    assert result.unread == (LENGTH,)


@pytest.mark.parametrize(("older", "newer"), [("su", "longrope"), ("mrope", "default")])
@pytest.mark.parametrize("key", ["type", "rope_type"])
def test_older_names_of_a_method_mean_the_newer(key, older, newer):
    keys = LONGROPE if newer == "longrope" else {}
    chex.assert_trees_all_equal(read(keys | {key: older}), read(keys | {"rope_type": newer}))


@pytest.mark.parametrize(("seq_len", "factor"), [(None, 1.25), (512, 1.25), (513, 1.5)])
def test_mscales_of_longrope_stand_for_the_attention_factor_on_their_side_of_the_original_length(seq_len, factor):
    keys = {"rope_type": "longrope", "attention_factor": 9.0} | LONGROPE
    assert read(keys | MSCALES, seq_len=seq_len).attention_factor == factor
    one = read(keys | {"long_mscale": 1.5}, seq_len=seq_len).attention_factor
    assert one == (1.5 if factor == 1.5 else 9.0)


@pytest.mark.parametrize("truncate", [True, False])
def test_equal_betas_make_a_step_out_of_the_ramp_of_yarn(truncate):
    keys = {"rope_type": "yarn", LENGTH: 512, "factor": 4.0, "beta_fast": 1.0, "beta_slow": 1, "truncate": truncate}
    shrunk = inverse_frequencies(64) / read(keys, 64).frequencies
    chex.assert_trees_all_close(np.unique(np.round(shrunk, 5)), np.float32([1, 4]))


def test_equal_frequency_factors_make_a_step_out_of_the_blend_of_llama3():
    keys = {"rope_type": "llama3", LENGTH: 512, "factor": 4.0, "low_freq_factor": 2.0, "high_freq_factor": 2.0}
    before = np.float64(inverse_frequencies(64))
    expected = np.where(512 * before / (2 * np.pi) > 2, before, before / 4)
    chex.assert_trees_all_close(np.float64(read(keys, 64).frequencies), expected, rtol=1e-7)


@pytest.mark.parametrize("rope_type", ["default", "linear", "yarn"])
def test_what_concerns_attention_beside_the_angles_is_returned_for_every_method(rope_type):
    keys = {"rope_type": rope_type, "factor": 4.0, "mrope_section": [1, 3], "mrope_interleaved": True}
    result = read(keys | {LENGTH: 512, "llama_4_scaling_beta": 0.1})
    assert result.mrope_section == (1, 3)
    assert result.mrope_interleaved
    assert result.query_growth == (0.1, 512.0)
    assert LENGTH not in result.unread


def test_growth_of_queries_is_that_of_transformers():
    golden = GOLDEN["query_growth"]
    assert np.isnan(query_growth(jnp.asarray([-1, -700]), 0.1, 512)).all()
    grown = query_growth(jnp.asarray(golden["positions"]), golden["beta"], golden["length"])
    chex.assert_trees_all_close(grown, np.float32(golden["factors"]), rtol=1e-6)


@pytest.mark.parametrize("length", [3, 10, 41, 49, 16384])
def test_queries_grow_just_at_the_multiples_of_the_length_under_jit_too(length):
    positions = np.arange(60 * length, dtype=np.int32)[:: max(length // 64, 1)]
    grown = jax.jit(query_growth, static_argnums=(1, 2))(positions, 0.5, length)
    chex.assert_trees_all_close(grown, np.float32(1 + 0.5 * np.log1p(positions // length)), rtol=1e-6)


def test_keys_that_are_not_read_are_returned_and_named_in_one_warning():
    keys = BASE | {"rope_type": "linear", "factor": 2.0, "finetuned": True, "vendor": {}, "attn_factor": 0.8, "x": None}
    with pytest.warns(UserWarning, match=r"rope_type linear does not read: finetuned, vendor, attn_factor$") as caught:
        result = scaled_frequencies(8, keys, max_position_embeddings=2048)
    assert len(caught) == 1
    assert result.unread == ("finetuned", "vendor", "attn_factor")
    chex.assert_trees_all_equal(result.frequencies, read({"rope_type": "linear", "factor": 2.0}).frequencies)


def test_a_dictionary_that_is_read_whole_gives_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scaled_frequencies(8, BASE | LONGROPE | MSCALES | {"rope_type": "su"}, max_position_embeddings=2048)


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("betafast", "beta_fast"),
        ("Factor", "factor"),
        ("mscale_all", "mscale_all_dim"),
        ("orignal_max_position_embeddings", LENGTH),
        ("partial_rotary_factors", "partial_rotary_factor"),
        ("rope_typ", "rope_type"),
        ("mrope_sections", "mrope_section"),
        ("llama4_scaling_beta", "llama_4_scaling_beta"),
        ("low_freq_facter", "low_freq_factor"),
    ],
)
def test_a_misspelt_key_is_refused_with_the_one_that_is_meant(misspelt, meant):
    for parameters, more in ((BASE, {}), (LAYERS["full_attention"], {})):
        with raises_one_sentence(f"the key {meant} of rope_parameters must be spelt so, but is {misspelt!r}"):
            read(parameters | {misspelt: 2.0}, **more)
    layers = LAYERS | {"full_attention": LAYERS["full_attention"] | {misspelt: 2.0}}
    with raises_one_sentence(f"the key {meant} "):
        scaled_frequencies(8, layers, max_position_embeddings=2048, layer_type="full_attention")


@pytest.mark.parametrize("key", ["scaling_factor", "extrapolation_factor", "interleaved", "xdrope_section", "theta"])
def test_keys_of_others_are_not_taken_for_misspelt(key):
    assert read({key: 1.0}).unread == (key,)


def test_each_type_of_layer_has_the_frequencies_of_its_own_set():
    full, sliding = (
        scaled_frequencies(8, LAYERS, max_position_embeddings=2048, layer_type=layer).frequencies for layer in LAYERS
    )
    chex.assert_trees_all_close(full, inverse_frequencies(8) / 8, rtol=1e-7)
    chex.assert_trees_all_equal(sliding, inverse_frequencies(8))


def test_keys_beside_the_sets_of_layers_are_unread_even_where_a_set_has_them_too():
    beside = {"rope_theta": 5.0, "factor": 3.0}
    with pytest.warns(UserWarning, match="rope_type linear does not read: rope_theta, factor$"):
        result = scaled_frequencies(8, beside | LAYERS, max_position_embeddings=2048, layer_type="full_attention")
    assert result.unread == ("rope_theta", "factor")
    chex.assert_trees_all_close(result.frequencies, inverse_frequencies(8) / 8, rtol=1e-7)


@pytest.mark.parametrize("layer_type", [None, "chunked_attention", "rope_theta", 0, ["full_attention"]])
def test_a_layer_type_that_is_missing_or_unknown_is_refused_with_the_known_ones(layer_type):
    with raises_one_sentence("layer_type must be one of full_attention, sliding_attention, but is ", repr(layer_type)):
        scaled_frequencies(8, LAYERS, max_position_embeddings=2048, layer_type=layer_type)


def test_a_type_of_layer_without_rotation_is_not_among_those_to_choose():
    layers = LAYERS | {"full_attention": None}
    with raises_one_sentence("layer_type must be one of sliding_attention, but is 'full_attention'"):
        scaled_frequencies(8, layers, max_position_embeddings=2048, layer_type="full_attention")


def test_a_layer_type_for_a_dictionary_of_all_layers_is_refused():
    with raises_one_sentence("layer_type must be None for rope_parameters of all layers, but is 'full_attention'"):
        read({}, layer_type="full_attention")


def at(positions, rope_type="longrope", head_dim=8, trained=2048, **changed):
    keys = {"longrope": LONGROPE, "dynamic": {"factor": 4.0}}.get(rope_type, {})
    return frequencies_at(
        positions, head_dim, BASE | keys | {"rope_type": rope_type} | changed, max_position_embeddings=trained
    )


@pytest.mark.parametrize("seq_len", [1, 511, 512, 513, 2048, 2049, 4096, 100_000, 16_000_000])
def test_positions_choose_what_the_host_chooses_by_their_length(seq_len):
    positions = jnp.asarray([0, seq_len - 1, 0], jnp.int32)
    for rope_type, more in (("longrope", MSCALES | LONGROPE), ("dynamic", {"factor": 4.0}), ("default", {})):
        host = read({"rope_type": rope_type} | more, 128 if rope_type == "dynamic" else 8, seq_len=seq_len)
        frequencies, factor = at(positions, rope_type, 128 if rope_type == "dynamic" else 8, **more)
        rtol = 1e-6 if rope_type == "dynamic" else 0
        chex.assert_trees_all_close(frequencies, host.frequencies, rtol=rtol, atol=0)
        assert float(factor) == host.attention_factor


@pytest.mark.parametrize(("factor", "trained"), [(1.0, 2048), (6.0, 32768), (64.0, 75.625), (2.5, 777)])
def test_dynamic_on_the_device_stays_within_1e_6_at_every_length(factor, trained):
    lengths = np.unique(np.geomspace(1, 1.6e7, 300).astype(np.int32))
    frequencies, _ = jax.jit(lambda p: at(p, "dynamic", 64, trained, factor=factor))(lengths[:, None] - 1)
    stretch = 1 + factor * np.maximum(lengths / trained - 1, 0)[:, None]
    expected = 10_000.0 ** (-np.arange(32) / 32) / stretch ** np.linspace(0, 1, 32)
    chex.assert_trees_all_close(np.float64(frequencies), expected, rtol=8e-7, atol=0)


@pytest.mark.parametrize("rope_type", ["longrope", "dynamic", "linear"])
def test_each_sequence_chooses_for_itself_under_jit_and_vmap(rope_type):
    more = {"factor": 4.0} | (MSCALES if rope_type == "longrope" else {})
    positions = jnp.asarray([[0, 511], [0, 512], [9000, 3]])

    def choose(positions):
        frequencies, factor = at(positions, rope_type, **more)
        return frequencies, jnp.broadcast_to(factor, positions.shape[:-1])

    compiled = jax.jit(choose)
    expected = jax.tree.map(lambda *rows: jnp.stack(rows), *[compiled(row) for row in positions])
    for together in (compiled, jax.jit(jax.vmap(choose))):
        chex.assert_trees_all_close(together(positions), expected, rtol=3e-7)
    # Over the whole batch, as transformers does.
    longest, _ = compiled(positions.reshape(-1))
    chex.assert_trees_all_close(longest, expected[0][2], rtol=3e-7)
    angles = jax.vmap(ordinal_angles)(positions, expected[0])
    chex.assert_trees_all_close(angles[1], ordinal_angles(positions[1], expected[0][1]))


@pytest.mark.parametrize("rope_type", ["longrope", "dynamic"])
def test_gradients_towards_positions_are_finite_and_those_of_dynamic_right(rope_type):
    jacobian = jax.jit(jax.jacobian(lambda positions: at(positions, rope_type, factor=4.0)[0]))
    for longest in (100.0, 2047.0, 5000.0, 70_000.0):
        derivatives = jacobian(jnp.asarray([0.0, longest]))
        assert np.isfinite(derivatives).all()
        if rope_type == "dynamic" and longest > 2048:
            stretch = 1 + 4 * ((longest + 1) / 2048 - 1)
            share = np.linspace(0, 1, 4)
            expected = 10_000.0 ** (-np.arange(4) / 4) * -share * stretch ** (-share - 1) * 4 / 2048
            chex.assert_trees_all_close(np.float64(derivatives[:, 1]), expected, rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("rope_type", ["longrope", "dynamic"])
def test_a_nan_among_the_positions_is_seen_in_what_they_choose(rope_type):
    mscales = MSCALES if rope_type == "longrope" else {}
    choose = jax.jit(lambda positions: at(positions, rope_type, **mscales))
    frequencies, factor = choose(jnp.asarray([[0.0, np.nan], [0.0, 5.0]]))
    assert np.isnan(frequencies[0]).all()
    assert np.isfinite(frequencies[1]).all()
    if rope_type == "longrope":
        np.testing.assert_array_equal(factor, [np.nan, 1.25])


def test_no_positions_at_all_are_a_short_sequence():
    chex.assert_trees_all_equal(at(jnp.zeros((2, 0)))[0][1], read(LONGROPE | {"rope_type": "longrope"}).frequencies)


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"mrope_section": [1, 2]}, "mrope_section must share out the 4 rotary pairs, but is [1, 2]"),
        ({"mrope_section": [2, 2, 2]}, "mrope_section must share out the 4 rotary pairs, but is [2, 2, 2]"),
        ({"mrope_section": []}, "mrope_section must share out the 4 rotary pairs, but is []"),
        ({"mrope_section": [1.5, 2.5]}, "mrope_section must be whole numbers of pairs, but is [1.5, 2.5]"),
        ({"mrope_section": [4, 0]}, "mrope_section[1] must be a finite number above 0, but is 0"),
        ({"mrope_section": 4}, "mrope_section must be a list of numbers, but is 4"),
        ({"mrope_section": "4"}, "mrope_section must be a list of numbers, but is '4'"),
        ({"mrope_interleaved": 1}, "mrope_interleaved must be true or false, but is 1"),
        ({"llama_4_scaling_beta": 0.1}, f"must have the key {LENGTH}, but lacks it"),
        ({"llama_4_scaling_beta": -0.1, LENGTH: 8}, "llama_4_scaling_beta must be a finite number of at least 0"),
        ({"rope_type": "dynamic", "alpha": 0.5}, "alpha must be a finite number of at least 1, but is 0.5"),
        ({"rope_type": "axial", "head_dim": 6}, "head_dim must be a multiple of 4 for axial, but is 6"),
        ({"rope_type": "axial", "head_dim": 0}, "head_dim must be a whole number of at least 1, but is 0"),
        ({"rope_type": "proportional", "partial_rotary_factor": 0.1}, "must turn 1 to 4 pairs, but is 0.1, which is 0"),
        ({"rope_type": "proportional", "partial_rotary_factor": 1.5}, "must turn 1 to 4 pairs, but is 1.5, which is 6"),
        ({"rope_type": "proportional", "head_dim": 7}, "must be a positive even number up to head_dim"),
        ({"rope_type": "dynamic", "alpha": 2, "head_dim": 2}, "rotary dimension of at least 4, but it is 2"),
    ],
)
def test_values_that_do_not_fit_are_refused_in_one_sentence(keys, sentence):
    head_dim = keys.pop("head_dim", 8)
    with raises_one_sentence(sentence):
        read(keys, head_dim)


@pytest.mark.parametrize("bad", NO_NUMBERS)
def test_what_is_no_number_is_refused_by_name(bad):
    for key, keys in {
        "alpha": {"rope_type": "dynamic"},
        "short_mscale": {"rope_type": "longrope"} | LONGROPE,
        "long_mscale": {"rope_type": "longrope"} | LONGROPE,
        "llama_4_scaling_beta": {LENGTH: 8},
        "factor": {"rope_type": "proportional"},
    }.items():
        with raises_one_sentence(f"{key} must be a finite number", bad):
            read(keys | {key: bad})
    with raises_one_sentence("mrope_section[0] must be a finite number above 0", bad):
        read({"mrope_section": [bad, 2]})
    for beta, length in ((bad, 8), (0.1, bad)):
        with raises_one_sentence("must be a finite number", bad):
            query_growth(jnp.arange(3), beta, length)


@pytest.mark.parametrize("positions", [np.asarray(["1"]), np.asarray([1], np.float16), jnp.asarray([1], jnp.bfloat16)])
def test_positions_that_are_no_numbers_of_32_bits_are_refused(positions):
    for refused in (lambda: at(positions), lambda: query_growth(positions, 0.1, 8)):
        with raises_one_sentence("positions must be integers or floats of at least 32 bits", positions.dtype):
            refused()


def test_one_position_is_no_sequence():
    with raises_one_sentence("positions must have an axis of slots, but is one number"):
        at(jnp.asarray(3))


def test_settings_of_others_in_a_dictionary_of_their_own_are_no_layers():
    assert read({"vendor": {"colour": "red"}}).unread == ("vendor",)
