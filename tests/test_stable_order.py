"""Stable sorting: what NumPy's stable argsort gives."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_sentence import raises_one_sentence

from siren_rope_jax.data.stable_order import stable_order


@given(codes=st.lists(st.sampled_from([0, 1, 2, 7, 2**31 - 1]), max_size=30))
def test_equal_codes_keep_their_order(codes):
    codes = np.array(codes, np.int64)
    np.testing.assert_array_equal(stable_order(codes), np.argsort(codes, kind="stable"))


@pytest.mark.parametrize("code", [-1, 2**31])
def test_a_code_that_would_overflow_is_refused(code):
    with raises_one_sentence("codes must lie between 0 and 2147483647, but run from", code):
        stable_order(np.array([code, 5]))
