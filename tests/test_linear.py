"""A linear function with a transpose of its own: the derivatives of one without, in each mode and any batch."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from siren_rope_jax.ops.linear import linear_call

KERNEL = np.random.default_rng(0).normal(size=(3, 4))
X = jnp.asarray(np.random.default_rng(1).normal(size=4), jnp.float32)


def matrix(weights):
    return jnp.cos(weights) * KERNEL


def called(weights, x):
    return linear_call(lambda w, x: matrix(w) @ x, lambda w, y: matrix(w).T @ y, weights, x)


def plain(weights, x):
    return matrix(weights) @ x


def loss(function):
    return lambda weights, x: jnp.sum(jnp.tanh(function(weights, x)) ** 2)


MODES = {
    "value": lambda f: f,
    "transpose": lambda f: lambda w, x: jax.linear_transpose(lambda y: f(w, y), x)(jnp.ones(3)),
    "transpose of transpose": lambda f: (
        lambda w, x: jax.linear_transpose(lambda z: jax.linear_transpose(lambda y: f(w, y), x)(z)[0], jnp.ones(3))(x)
    ),
    "forward": lambda f: lambda w, x: jax.jvp(f, (w, x), (x[0] * w, 0.5 - x)),
    "reverse": lambda f: jax.grad(loss(f), (0, 1)),
    "hessian": lambda f: jax.hessian(loss(f), (0, 1)),
    "reverse over reverse": lambda f: jax.grad(
        lambda w, x: sum(jnp.sum(jnp.sin(g)) for g in jax.grad(loss(f), (0, 1))(w, x)), (0, 1)
    ),
    "gradient of a checkpoint": lambda f: jax.grad(jax.checkpoint(loss(f)), (0, 1)),
}
BATCHES = {
    "one": lambda f: lambda w, x: f(w, x),
    "of both": lambda f: lambda w, x: jax.vmap(f)(jnp.stack([w, 2 * w]), jnp.stack([x, -x])),
    "of residuals": lambda f: lambda w, x: jax.vmap(f, (0, None))(jnp.stack([w, 2 * w]), x),
    "of arguments": lambda f: lambda w, x: jax.vmap(f, (None, 1))(w, jnp.stack([x, -x], axis=1)),
}


@pytest.mark.slow
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("mode", MODES)
def test_each_mode_in_each_batch_is_that_of_the_plain_function(mode, batch):
    weights = jnp.float32(0.7)
    found, expected = (jax.jit(BATCHES[batch](MODES[mode](f)))(weights, X) for f in (called, plain))
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("varying", ["residual", "argument"])
@pytest.mark.parametrize("mode", ["value", "forward", "reverse"])
def test_inside_a_checked_shard_map_residuals_and_arguments_may_vary_apart(mode, varying):
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = (P("data"), P()) if varying == "residual" else (P(), P("data"))
    weights = jnp.full(4, 0.7)

    def of_columns(weights, x):
        return linear_call(lambda w, x: KERNEL @ (w * x), lambda w, y: w * (KERNEL.T @ y), weights, x)

    def of_mode(function):
        return lambda w, x: MODES[mode](function)(w, x)

    found = jax.shard_map(of_mode(of_columns), mesh=mesh, in_specs=specs, out_specs=P("data"))(weights, X)
    chex.assert_trees_all_close(found, of_mode(lambda w, x: KERNEL @ (w * x))(weights, X), rtol=1e-5, atol=1e-6)


def test_the_given_transpose_is_the_one_that_is_used():
    pulled = jax.grad(lambda x: jnp.sum(linear_call(lambda _, x: x, lambda _, y: 7 * y, (), x)))(X)
    chex.assert_trees_all_close(pulled, jnp.full(4, 7.0))
