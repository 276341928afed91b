"""Every derivative written by hand: in forward and reverse mode and in each of their products, against float64."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from siren_rope_jax.nn.block import silu
from siren_rope_jax.ops import rotate_pairs, sincos, strictly_causal_attention
from siren_rope_jax.ops.lie import lie_rotations

LENGTH, HEADS, PAIRS = 5, 4, 3
SCALED = 3  # a constant factor of sine and cosine, as of xPos


class Case(NamedTuple):
    """A function with a derivative of its own, the same function without, and the arrays that both take."""

    ours: Callable[..., Any]
    plain: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    refused: str = ""  # the mode that the function refuses


def rotated(x, angles, *, ours, interleaved=False):
    if ours:
        parts = (SCALED * part for part in sincos(angles))
        return rotate_pairs(x, *parts, angles=angles, interleaved=interleaved, partial=True)
    turned, rest = x[..., : 2 * PAIRS], x[..., 2 * PAIRS :]
    real, imaginary = (turned[..., 0::2], turned[..., 1::2]) if interleaved else jnp.split(turned, 2, axis=-1)
    if angles.ndim < x.ndim:
        angles = angles[..., None, :]
    angles = jnp.repeat(angles, x.shape[-2] // angles.shape[-2], axis=-2)
    result = SCALED * jnp.exp(1j * angles) * jax.lax.complex(real, imaginary)
    parts = result.real, result.imag
    joined = jnp.stack(parts, -1).reshape(turned.shape) if interleaved else jnp.concatenate(parts, -1)
    return jnp.concatenate([joined, rest], -1)


def attended(query, key, value, no_history, *, ours):
    if ours:
        ids = jnp.ones(query.shape[:2], int)
        return strictly_causal_attention(
            query, key, value, segment_ids=ids, no_history=no_history, implementation="chunked", chunk=2
        )
    logits = jnp.einsum("bqnh,bsnh->bnqs", query, key)[:, :, 1:] / query.shape[-1] ** 0.5
    seen = np.arange(LENGTH)[None] < np.arange(1, LENGTH)[:, None]
    later = jnp.einsum("bnqs,bsnv->bqnv", jax.nn.softmax(jnp.where(seen, logits, -jnp.inf)), value)
    return jnp.concatenate([jnp.broadcast_to(no_history, later[:, :1].shape), later], axis=1)


def turned_by_matrices(generators, coordinates, *, ours):
    if ours:
        return lie_rotations(coordinates, generators)
    rows, columns = np.triu_indices(3, 1)
    entries = jnp.einsum("bsc,cgt->bsgt", coordinates, generators)
    skew = jnp.zeros((*entries.shape[:-1], 3, 3), entries.dtype).at[..., rows, columns].set(entries)
    return jax.scipy.linalg.expm(skew - jnp.swapaxes(skew, -1, -2))


def case(function, *shapes, refused="", **options):
    ours, plain = (functools.partial(function, ours=ours, **options) for ours in (True, False))
    return Case(ours, plain, shapes, refused)


X = (2, LENGTH, HEADS, 2 * PAIRS + 2)
EACH = (1, LENGTH, HEADS, 4)
CASES = {
    "sincos": Case(lambda a: jnp.stack(sincos(9 * a)), lambda a: jnp.stack([jnp.sin(9 * a), jnp.cos(9 * a)]), ((7,),)),
    "silu": Case(silu, jax.nn.silu, ((7,),)),
    "rotation": case(rotated, X, (2, LENGTH, PAIRS)),
    "interleaved": case(rotated, X, (2, LENGTH, PAIRS), interleaved=True),
    "rotation of one row": case(rotated, X, (1, LENGTH, PAIRS)),
    "rotation by group, one slot": case(rotated, X, (1, 1, 2, PAIRS)),
    "rotation by three heads": case(rotated, (2, LENGTH, 3, 2 * PAIRS), (2, 1, 3, PAIRS)),
    "chunked attention": case(attended, EACH, EACH, EACH, (HEADS, 4)),
    "block rotation": case(turned_by_matrices, (2, 1, 3), (1, LENGTH, 2), refused="reverse over reverse"),
}


def gradient(function):
    return lambda *arrays: jax.grad(function, tuple(range(len(arrays))))(*arrays)


def slope(function):
    """The derivative along the direction 0.5 - x."""
    return lambda *arrays: jax.jvp(function, arrays, tuple(0.5 - x for x in arrays))[1]


def total_slope(function):
    """A number that depends on all gradients."""
    return lambda *arrays: sum(jnp.sum((0.5 - x) * x_bar) for x, x_bar in zip(arrays, function(*arrays), strict=True))


MODES = {
    "forward": slope,
    "reverse": gradient,
    "reverse over reverse": lambda function: gradient(total_slope(gradient(function))),
    "forward over reverse": lambda function: slope(gradient(function)),
}


def loss(function):
    """A loss of the results with a second derivative of its own."""
    return lambda *arrays: jnp.sum(jnp.tanh(function(*arrays)) ** 3 + function(*arrays) ** 2)


def check(name, mode, variant):
    ours, plain, shapes, refused = CASES[name]
    generator = np.random.default_rng(3)
    arrays = [generator.normal(size=shape) for shape in shapes]
    differentiated = variant(MODES[mode](loss(ours)))
    given = [jnp.asarray(x, jnp.float32) for x in arrays]
    if mode == refused:
        with pytest.raises(ValueError, match="Reverse-mode differentiation does not work"):
            differentiated(*given)
        return
    result = differentiated(*given)
    with jax.enable_x64(True):
        expected = MODES[mode](loss(plain))(*(jnp.asarray(np.float32(x), jnp.float64) for x in arrays))
    for one, exact in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, exact, rtol=2e-5, atol=2e-5 * float(np.abs(exact).max()))
    chex.assert_tree_all_finite(result)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CASES)
def test_derivatives_equal_float64_or_are_refused(name, mode):
    check(name, mode, jax.jit)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_gradients_without_jit_are_those_of_float64(name):
    check(name, "reverse", lambda function: function)
