"""64-bit integers of the host reach the device whole or not at all."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from one_sentence import raises_one_sentence

from siren_rope_jax.ops.arguments import device_integers


@pytest.mark.parametrize("x", [np.array([2**31 - 1, -(2**31)]), np.array([2**32 - 1], np.uint64), 7, np.int8([-3])])
def test_what_fits_arrives_unchanged(x):
    result = device_integers("times", x)
    assert isinstance(result, jax.Array)
    chex.assert_trees_all_equal(np.asarray(result, np.int64), np.asarray(x).astype(np.int64))


@pytest.mark.parametrize("x", [np.array([0, 2**31]), np.array([-(2**31) - 1]), np.array([2**32], np.uint64), 2**40])
def test_what_would_be_cut_is_refused_in_one_sentence(x):
    with raises_one_sentence("times must fit", "int32, but run from", np.max(x)):
        device_integers("times", x)


def test_arrays_of_the_device_and_tracers_pass():
    x = jnp.arange(3)
    assert device_integers("times", x) is x
    chex.assert_trees_all_equal(jax.jit(lambda x: device_integers("times", x))(x), x)
    assert device_integers("times", np.zeros((0,), np.int64)).shape == (0,)


def test_with_64_bits_nothing_needs_to_be_cut():
    with jax.enable_x64(True):
        assert int(device_integers("times", np.array([2**40]))[0]) == 2**40
