"""Inverse frequencies of the rotary pairs."""

import numpy as np
import pytest
import reference
from one_sentence import raises_one_sentence

from siren_rope_jax.ops.frequencies import inverse_frequencies


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
