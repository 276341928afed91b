"""The ops inside other people's models (Equinox, Flax Linen, Flax NNX, plain JAX) and under JAX's transformations."""

import functools
import inspect

import chex
import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import sharded_ops
from flax import nnx
from sharded_ops import BATCH, FEATURES, HEADS, LENGTH, PAIRS, init_source, rotate, source_angles

from siren_rope_jax import ops
from siren_rope_jax.ops import apply_rotary, rotate_pairs, sincos

pytestmark = pytest.mark.slow


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


HEAD_DIM, WIDTH = 2 * PAIRS, 2 * PAIRS * HEADS
QUERY, POSITIONS, TIME_FEATURES, SOURCE = sharded_ops.arguments()["sequence"]
EVENTS, OWN_HEADS = (POSITIONS, TIME_FEATURES), sharded_ops.arguments()["own_heads"][-1]
X, COTANGENT = QUERY.reshape(BATCH, LENGTH, WIDTH), normal(0, BATCH, LENGTH, WIDTH)


class EquinoxAttention(eqx.Module):
    attention: eqx.nn.MultiheadAttention
    source: dict

    def __init__(self, key):
        self.attention, self.source = eqx.nn.MultiheadAttention(HEADS, WIDTH, key=key), init_source(key)

    def __call__(self, x, positions, features):
        angles = source_angles(self.source, positions, features)
        turn = functools.partial(apply_rotary, angles=angles)
        return self.attention(x, x, x, process_heads=lambda query, key, value: (turn(query), turn(key), value))


def rotating(attend, angles):
    """An `attention_fn` for Flax that turns queries and keys first."""
    turn = functools.partial(apply_rotary, angles=angles)
    return lambda query, key, value, **options: attend(turn(query), turn(key), value, **options)


class LinenAttention(nn.Module):
    @nn.compact
    def __call__(self, x, positions, features):
        angles = source_angles(self.param("source", init_source), positions, features)
        attend = rotating(nn.dot_product_attention, angles)
        return nn.MultiHeadDotProductAttention(HEADS, use_bias=False, attention_fn=attend, name="attention")(x)


class NnxAttention(nnx.Module):
    def __init__(self, key):
        self.attention = nnx.MultiHeadAttention(HEADS, WIDTH, use_bias=False, decode=False, rngs=nnx.Rngs(key))
        self.source = nnx.Param(init_source(key))

    def __call__(self, x, positions, features):
        angles = source_angles(self.source.get_value(), positions, features)
        attend = rotating(nnx.dot_product_attention, angles)
        return nnx.with_attributes(self.attention, attention_fn=attend)(x)


def plain_init(key):
    shapes = dict.fromkeys(("query", "key", "value"), (WIDTH, HEADS, HEAD_DIM))
    shapes |= {"out": (HEADS, HEAD_DIM, WIDTH), "up": (WIDTH, 12), "down": (12, WIDTH)}
    kernels = {name: normal(seed, *shape) * WIDTH**-0.5 for seed, (name, shape) in enumerate(shapes.items())}
    return kernels | {"source": init_source(key)}


def plain_block(params, x, positions, features):
    """A transformer block over a dict of arrays: attention, then a ReLU layer, each added to its input."""
    angles = source_angles(params["source"], positions, features)
    query, key, value = (jnp.einsum("bsd,dnh->bsnh", x, params[name]) for name in ("query", "key", "value"))
    attended = jax.nn.dot_product_attention(apply_rotary(query, angles), apply_rotary(key, angles), value)
    x = x + jnp.einsum("bsnh,nhd->bsd", attended, params["out"])
    return x + jax.nn.relu(x @ params["up"]) @ params["down"]


def equinox_weights(model):
    projections = {name: getattr(model.attention, f"{name}_proj").weight.T for name in ("query", "key", "value")}
    kernels = {name: weight.reshape(WIDTH, HEADS, HEAD_DIM) for name, weight in projections.items()}
    out = model.attention.output_proj.weight.T.reshape(HEADS, HEAD_DIM, WIDTH)
    return kernels | {"out": out, "source": model.source}


def flax_weights(tree):
    params = tree["params"] if isinstance(tree, dict) else nnx.to_pure_dict(nnx.state(tree, nnx.Param))
    kernels = {name: params["attention"][name]["kernel"] for name in ("query", "key", "value", "out")}
    return kernels | {"source": params["source"]}


LINEN = LinenAttention()
FRAMEWORKS = {  # init from a key; apply to parameters, x, positions, features; weights of parameters; jit; grad
    "equinox": (EquinoxAttention, lambda m, *x: jax.vmap(m)(*x), equinox_weights, eqx.filter_jit, eqx.filter_grad),
    "flax.linen": (lambda key: LINEN.init(key, X, *EVENTS), LINEN.apply, flax_weights, jax.jit, jax.grad),
    "flax.nnx": (NnxAttention, NnxAttention.__call__, flax_weights, nnx.jit, nnx.grad),
    "plain jax": (plain_init, plain_block, dict, jax.jit, jax.grad),
}


def float64_angles(source, positions, features):
    learned = reference.siren(source["network"], features, 10.0) * np.float64(source["scale"])
    order = np.asarray(positions, np.float64)[..., None] * reference.inverse_frequencies(HEAD_DIM, 10_000)
    return learned + order * np.float64(source["gate"])


def float64_attention(query, key, value, query_angles, key_angles):
    """All queries [B, Q, N, H] attend to all keys, each pair of both turned as a complex number."""
    query = reference.rotate(query, np.repeat(query_angles[:, :, None], HEADS, axis=2))
    key = reference.rotate(key, np.repeat(key_angles[:, :, None], HEADS, axis=2))
    weights = np.exp(np.einsum("bqnh,bknh->bnqk", query, key) / np.sqrt(HEAD_DIM))
    return np.einsum("bnqk,bknh->bqnh", weights / weights.sum(-1, keepdims=True), np.float64(value))


def float64_model(weights, x, positions, features):
    x, angles = np.float64(x), float64_angles(weights["source"], positions, features)
    query, key, value = (np.einsum("bsd,dnh->bsnh", x, weights[name]) for name in ("query", "key", "value"))
    attended = float64_attention(query, key, value, angles, angles)
    attended = np.einsum("bsnh,nhd->bsd", attended, weights["out"])
    x = x + attended
    return attended if "up" not in weights else x + np.maximum(x @ weights["up"], 0) @ weights["down"]


@pytest.fixture(scope="module", params=FRAMEWORKS.values(), ids=list(FRAMEWORKS))
def model(request):
    """Output, eager, and (gradients, output), compiled, of x, positions and features; parameters; float64 of them."""
    init, apply, weights, jit, grad = request.param
    params = jit(init)(jax.random.key(3))

    def loss(params, *args):
        output = apply(params, *args)
        return (output * COTANGENT).sum(), output

    eager, compiled = (functools.partial(f, params) for f in (apply, jit(grad(loss, has_aux=True))))
    return eager, compiled, params, lambda params: jax.tree.map(np.float64, weights(params))


def test_attention_of_another_library_rotated_by_ops_is_the_complex_rotation_and_relative(model):
    eager, compiled, params, float64_weights = model
    expected = float64_model(float64_weights(params), X, POSITIONS, TIME_FEATURES)
    for output in (eager(X, *EVENTS), compiled(X, *EVENTS)[1]):
        chex.assert_type(output, jnp.float32)
        chex.assert_trees_all_close(output, expected, rtol=0, atol=1e-5)
    # float32 holds the angles of positions near 64 to 4e-6.
    chex.assert_trees_all_close(compiled(X, POSITIONS + 64, TIME_FEATURES)[1], expected, rtol=0, atol=3e-5)
    assert np.abs(compiled(X, 2 * POSITIONS, TIME_FEATURES)[1] - expected).max() > 1e-2


def test_the_angle_source_is_trained_inside_another_library(model):
    _, compiled, params, float64_weights = model
    gradients = float64_weights(compiled(X, *EVENTS)[0])
    (leaves, structure), generator = jax.tree.flatten(float64_weights(params)), np.random.default_rng(4)

    def moved_loss(index, move):
        moved = [leaf + move if index == other else leaf for other, leaf in enumerate(leaves)]
        return np.sum(float64_model(structure.unflatten(moved), X, *EVENTS) * np.float64(COTANGENT))

    for index, gradient in enumerate(jax.tree.leaves(gradients)):
        step = 1e-6 * generator.normal(size=gradient.shape)
        difference = (moved_loss(index, step) - moved_loss(index, -step)) / 2
        error = np.abs(np.sum(gradient * step) - difference)
        assert error < 2e-5 * max(np.linalg.norm(gradient), 1) * np.linalg.norm(step)
    # The biases of a last layer turn all queries and keys alike, so nothing depends on them; on all else it does.
    norms = jax.tree.map(np.linalg.norm, gradients)
    last_biases = [layers[-1].pop("bias") for layers in norms["source"]["network"].branches.values()]
    assert max(last_biases) < 1e-5 < 1e-3 < min(jax.tree.leaves(norms))


def test_two_steps_of_a_plain_transformer_block_lower_the_loss():
    params, target = plain_init(jax.random.key(7)), jnp.roll(X, 1, axis=1)
    step = jax.jit(jax.value_and_grad(lambda params: jnp.mean((plain_block(params, X, *EVENTS) - target) ** 2)))
    losses = []
    for _ in range(3):
        loss, gradients = step(params)
        losses.append(float(loss))
        params = jax.tree.map(lambda leaf, gradient: leaf - 0.02 * gradient, params, gradients)
    assert losses[2] < losses[1] < losses[0]


def test_requests_attend_to_a_history_of_another_length_by_the_time_between_them():
    query, request_features = normal(9, BATCH, 3, HEADS, HEAD_DIM), normal(10, BATCH, 3, FEATURES)
    key, value = normal(11, 2, BATCH, LENGTH, HEADS, HEAD_DIM)
    request_positions = jnp.asarray([[2, 5, 6], [0, 6, 6]])

    @jax.jit
    def attend(request_positions, event_positions):
        rotated_query = rotate(query, request_positions, request_features, SOURCE)
        rotated_key = rotate(key, event_positions, TIME_FEATURES, SOURCE)
        return jax.nn.dot_product_attention(rotated_query, rotated_key, value)

    of_requests = float64_angles(SOURCE, request_positions, request_features)
    expected = float64_attention(query, key, value, of_requests, float64_angles(SOURCE, *EVENTS))
    attended = attend(request_positions, POSITIONS)
    chex.assert_trees_all_close(attended, expected, rtol=0, atol=1e-5)
    chex.assert_trees_all_close(attend(request_positions + 64, POSITIONS + 64), attended, rtol=0, atol=3e-5)
    assert np.abs(attend(request_positions + 64, POSITIONS) - attended).max() > 1e-2


def assert_close(actual, expected):
    chex.assert_trees_all_equal_shapes_and_dtypes(actual, expected)
    # A gradient sums up to 256 terms of size 1, in another order.
    chex.assert_trees_all_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_vmap_over_the_batch_over_heads_and_over_sources_is_the_whole():
    def one_head(x, angles):
        return apply_rotary(x[..., None, :], angles)[..., 0, :]

    for source, axis in ((SOURCE, None), (OWN_HEADS, 2)):
        whole = jax.jit(rotate)(QUERY, *EVENTS, source)
        assert_close(jax.jit(jax.vmap(rotate, in_axes=(0, 0, 0, None)))(QUERY, *EVENTS, source), whole)
        over_heads = jax.jit(jax.vmap(one_head, in_axes=(2, axis), out_axes=2))
        assert_close(over_heads(QUERY, source_angles(source, *EVENTS)), whole)
    sources = [SOURCE, init_source(jax.random.key(1))]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *sources)
    over_sources = jax.jit(jax.vmap(rotate, in_axes=(None, None, None, 0)))(QUERY, *EVENTS, stacked)
    assert_close(over_sources, jnp.stack([jax.jit(rotate)(QUERY, *EVENTS, source) for source in sources]))


def value_and_gradients(rotate):
    loss = jax.value_and_grad(lambda x, source: jnp.vdot(COTANGENT, rotate(x, *EVENTS, source)), argnums=(0, 1))
    return lambda: loss(QUERY, SOURCE)


def test_remat_changes_neither_values_nor_gradients():
    assert_close(jax.jit(value_and_gradients(jax.checkpoint(rotate)))(), jax.jit(value_and_gradients(rotate))())


def test_scan_over_layers_shares_the_angles_computed_once():
    kernels = normal(12, 3, HEAD_DIM, HEAD_DIM) / 2

    def layer(x, kernel, sin, cos):
        return rotate_pairs(jnp.tanh(x @ kernel), sin, cos)

    def scanned(x, positions, features, source, *, layer):
        sin, cos = sincos(source_angles(source, positions, features))
        return jax.lax.scan(lambda x, kernel: (layer(x, kernel, sin, cos), None), x, kernels)[0]

    def layer_by_layer(x, *events_and_source):
        for kernel in kernels:
            x = rotate(jnp.tanh(x @ kernel), *events_and_source)
        return x

    expected = jax.jit(value_and_gradients(layer_by_layer))()
    for body in (layer, jax.checkpoint(layer)):
        assert_close(jax.jit(value_and_gradients(functools.partial(scanned, layer=body)))(), expected)


def test_four_devices_rotate_and_differentiate_as_one_does_over_sequence_and_heads(tmp_path):
    one = sharded_ops.flat(dict.fromkeys(sharded_ops.WAYS, sharded_ops.one_device()))
    assert min(np.abs(leaf).max() for leaf in one.values()) > 1e-3
    assert_close(sharded_ops.four_devices(tmp_path / "four.npz"), one)


def on_slots(make):
    return lambda *args: make(*args)(jnp.arange(3), jnp.arange(3))


def taking_times(op):
    return lambda *args: op(*args[:-1], times=args[-1])


def attend_to_itself(x, no_history, segment_ids, times):
    return ops.strictly_causal_attention(x, x, x, segment_ids=segment_ids, no_history=no_history, times=times)


def frequencies_at_both_lengths(positions):
    extended = {"rope_theta": 1e4, "factor": 2.0, "original_max_position_embeddings": 4, "short_factor": [1.0, 1.0]}
    longrope = extended | {"rope_type": "longrope", "long_factor": [2.0, 3.0], "short_mscale": 1.0, "long_mscale": 1.5}
    dynamic = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    return [ops.frequencies_at(positions, 4, each, max_position_embeddings=4)[0] for each in (longrope, dynamic)]


HEADS_4, TURNS, DAYS, FREQUENCIES = normal(0, 2, 3, 4, 4), normal(0, 2, 3, 2), normal(0, 2, 3), normal(0, 2)
PLACES, TIMES = jnp.arange(6, dtype=jnp.int32).reshape(2, 3), jnp.asarray([[0, 9, 70], [5, 5, 6]], jnp.int32)
# dtype of the result ("" for that of the first argument), the op, its arguments; the first, if a float, may be narrow.
CASES = {
    "alibi_bias": ("float32", on_slots(lambda slopes, p: ops.alibi_bias(p, slopes)), normal(0, 4), PLACES),
    "apply_rotary": ("", apply_rotary, HEADS_4, TURNS),
    "calendar_angles": (
        "float32",
        lambda *d: ops.calendar_angles(*d, period="week", turns=(1, 3)),
        *(TIMES, TIMES),
    ),
    "calendar_features": ("float32", lambda *d: ops.calendar_features(*d, start_day=0, span_days=9), TIMES, TIMES),
    "calendar_harmonics": (
        "float32",
        lambda *d: ops.calendar_harmonics(*d, period="year", harmonics=2),
        *(TIMES, TIMES),
    ),
    "causal_convolution": ("float32", taking_times(ops.causal_convolution), TURNS, normal(0, 2, 2), PLACES // 4, TIMES),
    "content_angles": ("float32", ops.content_angles, TURNS, normal(0, 2, 2)),
    "cycle_angles": ("float32", lambda seconds: ops.cycle_angles(seconds, (60, 3_600)), TIMES),
    "elapsed_days": ("float32", ops.elapsed_days, TIMES),
    "forgetting_bias": ("float32", on_slots(taking_times(ops.forgetting_bias)), TURNS, PLACES // 4, TIMES),
    "frequencies_at": ("float32", frequencies_at_both_lengths, PLACES),
    "hstu_bias": ("float32", on_slots(ops.hstu_bias), PLACES, TIMES, normal(0, 3), normal(0, 9)),
    "interval_buckets": ("int32", on_slots(lambda *t: ops.interval_buckets(*t, max_interval=4)), TIMES, PLACES // 4),
    "length_temperature": ("float32", lambda counts: ops.length_temperature(counts, 5), PLACES),
    "lie_rotations": ("float32", ops.lie_rotations, TURNS, normal(0, 2, 1, 6)),
    "log_time_buckets": ("int32", ops.log_time_buckets, TIMES),
    "ordinal_angles": ("float32", ops.ordinal_angles, DAYS, FREQUENCIES),
    "planar_generators": ("float32", lambda frequencies: ops.planar_generators(frequencies, 4), FREQUENCIES),
    "periodic_bias": (
        "float32",
        on_slots(lambda a, b, g, t: ops.periodic_bias(t, a, b, g, periods=(60, 3_600))),
        *(normal(0, 2, 4), normal(0, 2, 4), normal(0, 2), TIMES),
    ),
    "polar_features": ("", ops.polar_features, HEADS_4, normal(0, 2, 3, 4)),
    "rotate_blocks": ("", ops.rotate_blocks, HEADS_4, normal(0, 2, 3, 2, 2, 2)),
    "rotate_pairs": ("", rotate_pairs, HEADS_4, TURNS, TURNS),
    "rote_factors": ("float32", lambda days: ops.rote_factors(days, 2), DAYS),
    "seconds_since": ("uint32", ops.seconds_since, TIMES, PLACES // 4),
    "section_angles": ("float32", lambda a, b: ops.section_angles([a, b], (1, 1)), TURNS, TURNS),
    "selective_angles": ("float32", taking_times(ops.selective_angles), TURNS, FREQUENCIES, PLACES // 4, TIMES),
    "sincos": ("float32", sincos, TURNS),
    "query_growth": ("float32", lambda positions: ops.query_growth(positions, 0.1, 3), PLACES),
    "sinusoidal_encoding": ("float32", lambda positions: ops.sinusoidal_encoding(positions, 4), PLACES),
    "siren_apply": ("float32", lambda x, params: ops.siren_apply(params, x), TIME_FEATURES, SOURCE["network"]),
    "siren_init": ("float32", lambda seed: ops.siren_init(jax.random.key(seed), 1, 2, width=2), jnp.int32(0)),
    "siren_rope_angles": ("float32", lambda x, source: source_angles(source, POSITIONS, x), TIME_FEATURES, SOURCE),
    "strictly_causal_attention": ("", attend_to_itself, HEADS_4, normal(0, 4, 4), PLACES // 4, TIMES),
    "t5_bias": ("float32", on_slots(lambda table, positions: ops.t5_bias(positions, table)), normal(0, 8, 4), PLACES),
    "t5_buckets": ("int32", ops.t5_buckets, PLACES),
    "time2vec": ("float32", ops.time2vec, DAYS, FREQUENCIES, FREQUENCIES),
    "time_decay_bias": ("float32", on_slots(lambda rates, t: ops.time_decay_bias(t, rates)), normal(0, 4), TIMES),
    "time_order_angles": ("float32", lambda days, f: ops.time_order_angles(PLACES, days, f), DAYS, FREQUENCIES),
    "visible_counts": ("int32", lambda ids, t: ops.visible_counts(ids, times=t), PLACES // 4, TIMES),
    "xpos_scale": ("float32", lambda positions: ops.xpos_scale(positions, 2), PLACES),
}
# Positions and times of 16 bits are refused, since they round whole numbers.
NEVER_OF_16_BITS = {
    CASES[name][1]
    for name in (
        "lie_rotations",
        "ordinal_angles",
        "rote_factors",
        "section_angles",
        "time2vec",
        "time_order_angles",
    )
}
each_op = pytest.mark.parametrize(
    ("dtype", "op", "args"), [(d, op, args) for d, op, *args in CASES.values()], ids=CASES
)


def test_no_public_op_is_missing_from_the_cases():
    public = {name: getattr(ops, name) for name in ops.__all__}
    functions = {name for name, op in public.items() if inspect.isroutine(op) or isinstance(op, jax.custom_jvp)}
    on_the_host = {"alibi_slopes", "inverse_frequencies", "scaled_frequencies", "split_unix_time", "time_scale_periods"}
    assert functions <= on_the_host | set(CASES)


@each_op
def test_a_compiled_op_is_traced_once_for_all_values_of_one_shape(dtype, op, args):
    chex.clear_trace_counter()
    compiled = jax.jit(chex.assert_max_traces(lambda *args: op(*args), n=1))
    for _ in range(3):
        compiled(*args)
        args = jax.tree.map(lambda leaf: np.asarray(leaf) + 1, args)


def test_a_compiled_rotation_takes_any_python_number_as_its_scales_in_one_trace():
    def rotated(factor, order, time):
        turns = ops.time_order_angles(PLACES, DAYS, FREQUENCIES, position_scale=order, time_scale=time)
        return apply_rotary(HEADS_4, turns, scale=factor)

    chex.clear_trace_counter()
    compiled = jax.jit(chex.assert_max_traces(rotated, n=1))
    for numbers in ((1.0, 1.0, 1.0), (0.5, 3.0, 0.0), (2.0, 0.0, -1.5)):
        assert_close(compiled(*numbers), rotated(*numbers))


@each_op
def test_an_op_returns_its_documented_dtype_and_never_a_weak_type(dtype, op, args):
    def returned(args):
        results = jax.tree.leaves(jax.eval_shape(op, *args))
        return {(result.dtype.name, result.weak_type) for result in results}

    assert returned(args) == {(dtype or "float32", False)}
    weak = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.5 if leaf.dtype == jnp.float32 else 1), args)
    assert all(leaf.weak_type for leaf in jax.tree.leaves(weak))
    assert returned(weak) == returned(args)
    for narrow in ("bfloat16", "float16") if args[0].dtype == jnp.float32 and op not in NEVER_OF_16_BITS else ():
        assert returned([args[0].astype(narrow), *args[1:]]) == {(dtype or narrow, False)}
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: leaf.astype(leaf.dtype.name.replace("32", "64")), args)
        assert returned(wide) == {(dtype or "float64", False)}
