"""The angle network: published initial distributions, and its value against float64."""

import itertools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from flax.core import FrozenDict
from one_sentence import raises_one_sentence

from siren_rope_jax.ops.siren import siren_apply, siren_init

DRAWS = 64
apply = jax.jit(siren_apply, static_argnames="omega0")


def many_draws(in_features, width, omega0):
    """The weights of many networks, stacked: enough numbers to tell a distribution."""
    keys = jax.random.split(jax.random.key(0), DRAWS)
    return jax.vmap(lambda key: siren_init(key, in_features, 3, width=width, omega0=omega0))(keys)


def check_uniform(values, bound):
    """Bounds reached but not passed; mean and variance within five standard errors of those of U(-bound, bound)."""
    values = np.float64(values).ravel()
    # float32 rounds the bound itself.
    assert np.abs(values).max() <= bound * (1 + 1e-6)
    assert values.min() < -bound * (1 - 20 / values.size)
    assert values.max() > bound * (1 - 20 / values.size)
    assert abs(values.mean()) < 5 * bound / math.sqrt(3 * values.size)
    # The squares of U(-1, 1) have mean 1/3 and standard deviation sqrt(1/5 - 1/9).
    assert abs((values**2).mean() / bound**2 - 1 / 3) < 5 * math.sqrt((1 / 5 - 1 / 9) / values.size)


@pytest.mark.slow
@pytest.mark.parametrize(("in_features", "width", "omega0"), [(5, 64, 10.0), (6, 16, 30.0), (37, 24, 1.0)])
def test_initial_weights_follow_the_published_distributions(in_features, width, omega0):
    params = many_draws(in_features, width, omega0).branches
    assert set(params) == {"sine", "relu"}
    sizes = [in_features, width, width, 3]
    for branch, layers in params.items():
        chex.assert_shape([layer["kernel"] for layer in layers], [(DRAWS, *pair) for pair in itertools.pairwise(sizes)])
        for index, (layer, n_in) in enumerate(zip(layers, sizes[:-1], strict=True)):
            first_or_later = 1 / n_in if index == 0 else math.sqrt(6 / n_in) / omega0
            check_uniform(layer["kernel"], first_or_later if branch == "sine" else 1 / math.sqrt(n_in))
            check_uniform(layer["bias"], 1 / math.sqrt(n_in))


@pytest.mark.slow
def test_no_two_draws_of_a_network_share_their_random_numbers():
    params = many_draws(16, 16, 10.0).branches
    arrays = [layer[name] for layers in params.values() for layer in layers[:2] for name in ("kernel", "bias")]
    rows = np.stack([np.asarray(array).reshape(DRAWS, -1)[:, :16].ravel() for array in arrays])
    correlation = np.corrcoef(rows) - np.eye(len(rows))
    assert np.abs(correlation).max() < 5 / math.sqrt(rows.shape[1])


def test_one_key_repeats_its_draw_and_another_key_does_not():
    first, again = (siren_init(jax.random.key(1), 5, 2, width=8) for _ in range(2))
    chex.assert_trees_all_equal(first, again, strict=True)
    other = siren_init(jax.random.key(2), 5, 2, width=8)
    assert not any(jax.tree.leaves(jax.tree.map(np.array_equal, first, other)))


def test_a_network_whose_last_layers_start_at_zero_answers_zero_and_has_the_other_layers_of_one_without():
    usual, zero = (siren_init(jax.random.key(4), 5, 2, width=8, zero_last=x) for x in (False, True))
    features = jax.random.normal(jax.random.key(5), (7, 5))
    chex.assert_trees_all_equal(siren_apply(zero, features), jnp.zeros((7, 2)), strict=True)
    for branch, layers in zero.branches.items():
        chex.assert_trees_all_equal(layers[:-1], usual.branches[branch][:-1], strict=True)
        gradient = jax.grad(lambda params: siren_apply(params, features).sum())(zero).branches[branch][-1]
        assert all(jnp.abs(x).max() > 0 for x in jax.tree.leaves(gradient))  # so that it leaves 0 again


@pytest.mark.parametrize("branch", ["sine", "relu"])
def test_leaving_one_branch_out_keeps_the_draw_of_the_other(branch):
    both = siren_init(jax.random.key(3), 5, 2, width=8)
    alone = siren_init(jax.random.key(3), 5, 2, width=8, branches=(branch,))
    chex.assert_trees_all_equal(alone.branches, {branch: both.branches[branch]}, strict=True)


@pytest.mark.slow
@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("branches", [("sine", "relu"), ("sine",), ("relu",)])
def test_network_equals_float64(jit, branches):
    params = siren_init(jax.random.key(4), 5, 3, width=16, hidden_layers=2, branches=branches)
    features = jax.random.uniform(jax.random.key(5), (2, 7, 5), minval=-1, maxval=1)
    result = (apply if jit else siren_apply)(params, features)
    chex.assert_type(result, jnp.float32)
    chex.assert_trees_all_close(result, reference.siren(params.branches, features, 10.0), rtol=0, atol=3e-6)


def test_omega0_is_the_frequency_of_the_sine_layers():
    params = siren_init(jax.random.key(6), 5, 3, width=16, omega0=2.5)
    features = jax.random.uniform(jax.random.key(7), (7, 5), minval=-1, maxval=1)
    result = apply(params, features)
    chex.assert_trees_all_equal(apply(params, features, omega0=2.5), result)
    chex.assert_trees_all_equal(apply(params.branches, features, omega0=2.5), result)
    chex.assert_trees_all_close(result, reference.siren(params.branches, features, 2.5), rtol=0, atol=3e-6)
    assert np.abs(result - reference.siren(params.branches, features, 10.0)).max() > 0.01


@pytest.mark.slow
def test_branches_add():
    params = siren_init(jax.random.key(8), 5, 3, width=16)
    features = jax.random.normal(jax.random.key(9), (4, 5))
    apart = [apply({branch: layers}, features, omega0=10.0) for branch, layers in params.branches.items()]
    chex.assert_trees_all_close(apply(params, features), apart[0] + apart[1], rtol=1e-6)


def test_another_omega0_than_the_one_of_the_weights_is_refused_in_one_sentence():
    params = siren_init(jax.random.key(6), 5, 3, width=8, omega0=2.5)
    with raises_one_sentence("omega0", "drawn for, 2.5", "10.0"):
        siren_apply(params, jnp.zeros((2, 5)), omega0=10.0)
    with raises_one_sentence("omega0", "missing"):
        siren_apply(params.branches, jnp.zeros((2, 5)))


def test_the_weights_keep_their_omega0_through_transformations_of_trees():
    params = siren_init(jax.random.key(6), 5, 3, width=8, omega0=2.5)
    leaves, structure = jax.tree.flatten(jax.tree.map(lambda x: x / 2, params))
    assert jax.jit(lambda p: p)(structure.unflatten(leaves)).omega0 == 2.5


def test_every_weight_and_feature_has_a_gradient():
    params = siren_init(jax.random.key(10), 5, 3, width=16)
    features = jax.random.normal(jax.random.key(11), (32, 5))
    gradients = jax.jit(jax.grad(lambda p, x: jnp.sum(apply(p, x) ** 2), argnums=(0, 1)))(params, features)
    chex.assert_tree_all_finite(gradients)
    for gradient in jax.tree.leaves(gradients):
        assert np.abs(gradient).max() > 0


def test_bfloat16_features_give_float32_outputs():
    params = siren_init(jax.random.key(12), 5, 3, width=16)
    features = jax.random.normal(jax.random.key(13), (4, 5), jnp.bfloat16)
    result = apply(params, features)
    chex.assert_type(result, jnp.float32)
    chex.assert_trees_all_close(result, apply(params, features.astype(jnp.float32)), rtol=1e-6)


@pytest.mark.parametrize("name", ["in_features", "out_features", "width", "hidden_layers"])
def test_size_below_one_is_refused_in_one_sentence(name):
    sizes = {"in_features": 5, "out_features": 3, "width": 8, "hidden_layers": 2} | {name: 0}
    with raises_one_sentence(name, "at least 1", "0"):
        siren_init(jax.random.key(0), sizes.pop("in_features"), sizes.pop("out_features"), **sizes)


@pytest.mark.parametrize("omega0", [0.0, -1.0, float("inf"), float("nan")])
def test_omega0_without_a_meaning_is_refused_in_one_sentence(omega0):
    with raises_one_sentence("omega0 must be a finite number above 0", omega0):
        siren_init(jax.random.key(0), 5, 3, omega0=omega0)


@pytest.mark.parametrize("branches", [(), ("sine", "sine"), ("dnn",), ("sine", "dnn")])
def test_unknown_branches_are_refused_in_one_sentence(branches):
    with raises_one_sentence("branches", '"sine", "relu" or both', branches):
        siren_init(jax.random.key(0), 5, 3, branches=branches)


def test_params_without_a_known_branch_are_refused_in_one_sentence():
    params = siren_init(jax.random.key(0), 5, 3, width=8)
    for wrong in ({}, {"dnn": params.branches["relu"]}):
        with raises_one_sentence("params", '"sine", "relu" or both', sorted(wrong)):
            siren_apply(wrong, jnp.zeros((2, 5)))


def test_features_that_do_not_fit_the_network_are_refused_in_one_sentence():
    params = siren_init(jax.random.key(0), 5, 3, width=8)
    with raises_one_sentence("layer 0 of the sine branch must have a kernel of shape [6, out]", "(5, 8)"):
        siren_apply(params, jnp.zeros((2, 6)))


def test_layers_that_do_not_fit_each_other_are_refused_in_one_sentence():
    params = siren_init(jax.random.key(0), 5, 4, width=8)
    params.branches["relu"][1] = {"kernel": jnp.zeros((7, 8)), "bias": jnp.zeros(8)}
    with raises_one_sentence("layer 1 of the relu branch must have a kernel of shape [8, out]", "(7, 8)"):
        siren_apply(params, jnp.zeros((2, 5)))


def test_branches_of_two_widths_are_refused_in_one_sentence():
    wide, narrow = (siren_init(jax.random.key(0), 5, width).branches for width in (3, 1))
    with raises_one_sentence("both branches must have one number of outputs", "3", "1"):
        siren_apply({"sine": wide["sine"], "relu": narrow["relu"]}, jnp.zeros((2, 5)), omega0=10.0)


KERNEL, BIAS = jnp.zeros((5, 3)), jnp.zeros(3)


@pytest.mark.parametrize(
    ("layers", "parts"),
    [
        ([{"kernel": KERNEL}], ("layer 0 of the sine branch must hold a kernel and a bias", "['kernel']")),
        ([{"weight": KERNEL, "bias": BIAS}], ("must hold a kernel and a bias", "weight")),
        ([KERNEL], ("must hold a kernel and a bias", "Array")),
        (
            [{"kernel": KERNEL, "bias": BIAS[:1]}],
            ("must have a kernel of shape [5, out] and a bias", "(5, 3) and (1,)"),
        ),
        ([{"kernel": KERNEL[0], "bias": BIAS}], ("must have a kernel of shape [5, out] and a bias", "(3,)")),
        ([{"kernel": [[1.0]], "bias": BIAS}], ("the kernel of layer 0 of the sine branch must be an array", "list")),
        (None, ("the sine branch must be a list of layers", "None")),
        ({"kernel": KERNEL, "bias": BIAS}, ("the sine branch must be a list of layers", "kernel")),
    ],
)
def test_layers_of_another_form_are_refused_in_one_sentence(layers, parts):
    with raises_one_sentence(*parts):
        siren_apply({"sine": layers}, jnp.zeros((2, 5)), omega0=10.0)


@pytest.mark.slow
def test_any_mapping_of_sequences_holds_branches():
    params = siren_init(jax.random.key(0), 5, 3, width=4)
    features = jax.random.normal(jax.random.key(1), (2, 5))
    for branches in (FrozenDict(params.branches), {name: tuple(layers) for name, layers in params.branches.items()}):
        chex.assert_trees_all_equal(siren_apply(branches, features, omega0=10.0), siren_apply(params, features))


def test_a_branch_without_layers_is_refused_in_one_sentence():
    with raises_one_sentence("the sine branch must be a list of layers, but is []"):
        siren_apply({"sine": []}, jnp.zeros((2, 5)), omega0=10.0)
