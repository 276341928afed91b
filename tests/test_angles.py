"""Angles of every source against float64, what each reduces to, and which shifts leave the logits."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from one_sentence import raises_one_sentence

from siren_rope_jax.ops import (
    apply_rotary,
    calendar_features,
    inverse_frequencies,
    ordinal_angles,
    siren_apply,
    siren_init,
    siren_rope_angles,
    time_order_angles,
)
from siren_rope_jax.ops.angles import content_angles

FREQUENCIES = inverse_frequencies(8)
THETA = reference.inverse_frequencies(8, 10_000.0)
POSITIONS = jnp.asarray(np.tile(np.arange(12), (2, 1)), jnp.int32)
DAYS = jnp.asarray(np.sort(np.random.default_rng(0).integers(0, 16 * 400, (2, 12)), axis=1) / 16, jnp.float32)
LEARNED = jnp.asarray([2.0, 0.7, -0.3, 0.01], jnp.float32)
HEADS = jnp.asarray([[0.5], [2.0]], jnp.float32)
TOKENS = jnp.asarray(np.random.default_rng(3).normal(size=(2, 12, 6)), jnp.float32)
KERNEL = jnp.asarray(np.random.default_rng(4).normal(size=(6, 4)), jnp.float32)
SEMANTIC = siren_init(jax.random.key(1), 6, 4, width=8)
variant = pytest.mark.parametrize("variant", [lambda function: function, jax.jit], ids=["eager", "jit"])


def siren_case():
    generator = np.random.default_rng(1)
    second = jnp.asarray(generator.integers(0, 86_400, (2, 12)), jnp.int32)
    features = calendar_features(DAYS.astype(jnp.int32), second, start_day=0, span_days=400.0)
    return siren_init(jax.random.key(0), 5, 4, width=16), features


@variant
def test_ordinal_angles_are_position_times_frequency(variant):
    positions = jnp.asarray([0, 1, 2, 4095, 100_000], jnp.int32)
    result = variant(ordinal_angles)(positions, FREQUENCIES)
    chex.assert_type(result, jnp.float32)
    chex.assert_trees_all_close(result, np.outer(positions, THETA), rtol=2e-7)


def test_positions_may_be_fractions_of_any_shape():
    positions = jnp.asarray([[[0.5, -2.25]]])
    result = ordinal_angles(positions, FREQUENCIES)
    chex.assert_trees_all_close(result, np.asarray(positions)[..., None] * THETA, rtol=2e-7)


@variant
def test_time_order_angles_mix_order_and_days_on_every_pair(variant):
    result = variant(time_order_angles)(POSITIONS, DAYS, FREQUENCIES, position_scale=0.7, time_scale=0.03)
    chex.assert_type(result, jnp.float32)
    expected = (0.7 * np.float64(POSITIONS) + 0.03 * np.float64(DAYS))[..., None] * THETA
    chex.assert_trees_all_close(result, expected, rtol=5e-7)


def test_scales_per_pair_split_order_and_time_by_dimension():
    order_only = jnp.asarray([1.0, 1.0, 0.0, 0.0])
    result = time_order_angles(POSITIONS, DAYS, FREQUENCIES, position_scale=order_only, time_scale=1 - order_only)
    chex.assert_trees_all_equal(result[..., :2], ordinal_angles(POSITIONS, FREQUENCIES)[..., :2], strict=True)
    chex.assert_trees_all_equal(result[..., 2:], ordinal_angles(DAYS, FREQUENCIES)[..., 2:], strict=True)


# Each kind of scale, and the same with the axes [N, R] written out.
PER_PAIR = {
    "number": (0.7, np.full((1, 4), 0.7)),
    "per pair": (jnp.asarray([1.0, 0.5, -2.0, 0.0]), np.array([[1.0, 0.5, -2.0, 0.0]])),
    "per head": (jnp.asarray([[0.5], [2.0], [-1.0]]), np.array([[0.5], [2.0], [-1.0]])),
    "per head and pair": (jnp.arange(12.0).reshape(3, 4) / 4 - 1, np.arange(12).reshape(3, 4) / 4 - 1),
}
scales = pytest.mark.parametrize("first", PER_PAIR)
other_scales = pytest.mark.parametrize("second", PER_PAIR)


def with_heads_if_any(angles, *scales):
    """[B, S, N, R], or [B, S, R] if no scale is per head."""
    return angles if any(np.ndim(scale) == 2 for scale in scales) else angles[:, :, 0]


@scales
@other_scales
def test_scales_of_time_order_per_pair_and_per_head_equal_float64(first, second):
    (order, exact_order), (time, exact_time) = PER_PAIR[first], PER_PAIR[second]
    frequencies = jnp.asarray([0.3, 0.02, 1.0, 0.0], jnp.float32)
    result = jax.jit(time_order_angles)(
        POSITIONS, DAYS, FREQUENCIES, time_frequencies=frequencies, position_scale=order, time_scale=time
    )
    chex.assert_type(result, jnp.float32)
    position, days = (np.float64(x)[:, :, None, None] for x in (POSITIONS, DAYS))
    expected = position * THETA * exact_order + days * np.float64(frequencies) * exact_time
    chex.assert_trees_all_close(result, with_heads_if_any(expected, order, time), rtol=1e-6, atol=1e-4)


@pytest.mark.slow
@scales
@other_scales
def test_scale_and_gate_of_siren_rope_per_pair_and_per_head_equal_float64(first, second):
    (scale, exact_scale), (gate, exact_gate) = PER_PAIR[first], PER_PAIR[second]
    params, features = siren_case()
    result = jax.jit(siren_rope_angles)(POSITIONS, features, FREQUENCIES, params, scale=scale, gate=gate)
    chex.assert_type(result, jnp.float32)
    learned = reference.siren(params, features, 10.0)[:, :, None] * exact_scale
    expected = learned + np.float64(POSITIONS)[:, :, None, None] * THETA * exact_gate
    chex.assert_trees_all_close(result, with_heads_if_any(expected, scale, gate), rtol=0, atol=2e-5)


def test_split_by_head_is_the_two_sources_side_by_side():
    order_heads = jnp.asarray([[1.0], [0.0], [1.0]])
    result = time_order_angles(POSITIONS, DAYS, FREQUENCIES, position_scale=order_heads, time_scale=1 - order_heads)
    order, time = ordinal_angles(POSITIONS, FREQUENCIES), ordinal_angles(DAYS, FREQUENCIES)
    chex.assert_trees_all_equal(result, jnp.stack([order, time, order], axis=2), strict=True)


def test_time_frequencies_are_those_of_the_days_alone():
    result = time_order_angles(
        POSITIONS, DAYS, FREQUENCIES, time_frequencies=LEARNED, position_scale=0.0, time_scale=1.0
    )
    chex.assert_trees_all_equal(result, ordinal_angles(DAYS, LEARNED), strict=True)


def test_gradient_of_learned_frequencies_equals_float64():
    cotangent = np.random.default_rng(7).normal(size=(2, 12, 4))
    for op, weight in (
        (lambda x: ordinal_angles(POSITIONS, x), np.float64(POSITIONS)),
        (lambda x: time_order_angles(POSITIONS, DAYS, x), np.float64(POSITIONS) + 0.01 * np.float64(DAYS)),
        (lambda x: time_order_angles(POSITIONS, DAYS, FREQUENCIES, time_frequencies=x), 0.01 * np.float64(DAYS)),
    ):
        _, pull_back = jax.vjp(jax.jit(op), LEARNED)
        expected = (weight[..., None] * cotangent).sum(axis=(0, 1))
        chex.assert_trees_all_close(
            pull_back(jnp.asarray(cotangent, jnp.float32))[0], expected, rtol=0, atol=2e-6 * np.abs(weight).sum()
        )


CONTENT_SHAPES = {"shared": (6, 4), "per head": (6, 3, 4)}
content_kernels = pytest.mark.parametrize("shape", CONTENT_SHAPES.values(), ids=CONTENT_SHAPES)


@pytest.mark.slow
@variant
@content_kernels
@pytest.mark.parametrize("bound", [math.pi, 0.5])
def test_content_angles_and_their_gradients_equal_float64(variant, shape, bound):
    generator = np.random.default_rng(8)
    kernel = jnp.asarray(0.5 * generator.normal(size=shape), jnp.float32)
    cotangent = generator.normal(size=(2, 12, *shape[1:]))
    result, pull_back = jax.vjp(variant(lambda x, kernel: content_angles(x, kernel, bound=bound)), TOKENS, kernel)
    tokens, matrix = np.float64(TOKENS), np.float64(kernel).reshape(6, -1)
    tanh = np.tanh(tokens @ matrix)
    chex.assert_type(result, jnp.float32)
    chex.assert_trees_all_close(result, (bound * tanh).reshape(result.shape), rtol=0, atol=2e-6)
    inner = bound * (1 - tanh**2) * cotangent.reshape(2, 12, -1)
    expected = inner @ matrix.T, np.einsum("bsd,bsr->dr", tokens, inner).reshape(shape)
    chex.assert_trees_all_close(pull_back(jnp.asarray(cotangent, jnp.float32)), expected, rtol=0, atol=3e-5)


@content_kernels
def test_content_starts_at_nothing_and_learns_from_there(shape):
    order = ordinal_angles(POSITIONS, FREQUENCIES).reshape(2, 12, *[1] * (len(shape) - 2), 4)

    def angles(kernel):
        return order + content_angles(TOKENS, kernel)

    expected = jnp.broadcast_to(order, (2, 12, *shape[1:]))
    chex.assert_trees_all_equal(angles(jnp.zeros(shape)), expected, strict=True)
    gradient = jax.grad(lambda kernel: jnp.sum(jnp.sin(angles(kernel))))(jnp.zeros(shape))
    assert (np.abs(gradient) > 1e-3).all()


def test_content_never_turns_a_pair_by_more_than_the_bound():
    for bound in (math.pi, 0.25):
        result = content_angles(1e6 * TOKENS, KERNEL, bound=bound)
        assert np.abs(result).max() <= np.float32(bound)
        assert np.abs(result).max() > 0.999 * bound
    half_precision = content_angles(TOKENS.astype(jnp.bfloat16), KERNEL.astype(jnp.bfloat16))
    chex.assert_type(half_precision, jnp.float32)


def test_content_is_projected_in_full_float32_on_every_device():
    """A CPU computes so anyway; GPUs and TPUs round factors to 8 to 11 bits unless they are told not to."""
    assert "HIGHEST" in jax.jit(content_angles).lower(TOKENS, KERNEL).as_text()


def test_time_order_with_time_scale_zero_is_ordinal_rope():
    result = time_order_angles(POSITIONS, DAYS, FREQUENCIES, time_scale=0.0)
    chex.assert_trees_all_equal(result, ordinal_angles(POSITIONS, FREQUENCIES), strict=True)


@pytest.mark.slow
@variant
def test_siren_rope_with_scale_zero_and_gate_one_is_ordinal_rope(variant):
    params, features = siren_case()
    result = variant(siren_rope_angles)(POSITIONS, features, FREQUENCIES, params, scale=0.0, gate=1.0)
    chex.assert_trees_all_equal(result, ordinal_angles(POSITIONS, FREQUENCIES), strict=True)


@variant
def test_siren_rope_equals_its_equation_in_float64(variant):
    params, features = siren_case()
    scale = jnp.asarray([math.pi, 1.0, -2.0, 0.5], jnp.float32)
    result = variant(siren_rope_angles)(POSITIONS, features, FREQUENCIES, params, scale=scale, gate=jnp.asarray(0.044))
    chex.assert_type(result, jnp.float32)
    learned = reference.siren(params, features, 10.0) * np.float64(scale)
    expected = learned + 0.044 * np.float64(POSITIONS)[..., None] * THETA
    chex.assert_trees_all_close(result, expected, rtol=0, atol=1e-5)


def test_siren_rope_without_gate_ignores_the_order():
    params, features = siren_case()
    angles = [
        siren_rope_angles(positions, features, FREQUENCIES, params, scale=math.pi, gate=0.0)
        for positions in (POSITIONS, POSITIONS[:, ::-1])
    ]
    chex.assert_trees_all_equal(*angles, strict=True)


def test_gate_scale_and_network_are_trained_through_the_angles():
    params, features = siren_case()

    def total(params, scale, gate):
        angles = siren_rope_angles(POSITIONS, features, FREQUENCIES, params, scale=scale, gate=gate)
        return jnp.sum(jnp.sin(angles))

    gradients = jax.jit(jax.grad(total, argnums=(0, 1, 2)))(params, jnp.full(4, math.pi), jnp.asarray(1.0))
    chex.assert_tree_all_finite(gradients)
    for gradient in jax.tree.leaves(gradients):
        assert np.abs(gradient).max() > 0


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_new_values_and_outputs_fed_back_compile_nothing_anew(dtype):
    chex.clear_trace_counter()
    ordinal, time_order, siren, rotate = (
        jax.jit(chex.assert_max_traces(op, n=1))
        for op in (ordinal_angles, time_order_angles, siren_rope_angles, apply_rotary)
    )
    params, features = siren_case()
    x = jnp.ones((2, 12, 2, 8), dtype)
    for call in range(3):
        positions, scale = POSITIONS + call, 0.5 * call
        x = rotate(x, ordinal(positions, FREQUENCIES))
        x = rotate(x, time_order(positions, DAYS + call, FREQUENCIES, time_scale=scale))
        x = rotate(x, siren(positions, features + call, FREQUENCIES, params, scale=scale, gate=scale))
    with pytest.raises(AssertionError, match="'apply_rotary' is traced > 1 times"):
        rotate(x[:, :6], ordinal(POSITIONS, FREQUENCIES)[:, :6])


@pytest.mark.slow
def test_numbers_of_python_give_angles_of_a_firm_float32():
    params, features = siren_case()
    position, day = jnp.asarray(3), jnp.asarray(2.0)
    assert position.weak_type
    assert day.weak_type
    for angles in (
        ordinal_angles(position, FREQUENCIES),
        time_order_angles(position, day, FREQUENCIES, position_scale=position * 1.0, time_scale=day),
        siren_rope_angles(position, features[0, 0], FREQUENCIES, params, scale=day, gate=day),
        content_angles(jnp.broadcast_to(day, 6), KERNEL),
    ):
        chex.assert_type(angles, jnp.float32)
        assert not angles.weak_type


@pytest.mark.slow
def test_angles_stay_float32_where_numbers_have_64_bits():
    params, features = siren_case()
    with jax.enable_x64(True):
        positions, days, frequencies = (jnp.asarray(np.float64(x)) for x in (POSITIONS, DAYS, FREQUENCIES))
        by_head = jnp.asarray(np.ones((2, 1)))
        assert {x.dtype for x in (positions, days, frequencies, by_head)} == {jnp.dtype("float64")}
        for angles in (
            ordinal_angles(positions, frequencies),
            time_order_angles(positions, days, frequencies, position_scale=by_head, time_scale=by_head),
            siren_rope_angles(positions, features, frequencies, params, scale=by_head, gate=by_head),
            content_angles(days, jnp.asarray(np.ones((12, 4))), bound=np.float64(0.5)),
        ):
            chex.assert_type(angles, jnp.float32)


def rotated_logits(angles):
    generator = np.random.default_rng(2)
    query, key = (jnp.asarray(generator.normal(size=(2, 12, 2, 8)), jnp.float32) for _ in range(2))
    rotated = (np.float64(apply_rotary(x, angles)) for x in (query, key))
    return np.einsum("bind,bjnd->bnij", *rotated)


# What each source knows of an event; "position" and "days" where only differences of them matter.
SOURCES = {
    "ordinal": {"position"},
    "learned frequencies": {"position"},
    "time_order": {"position", "days"},
    "time_order by head": {"position", "days"},
    "siren": {"position"},
    "siren by head": {"position"},
    "semantic": set(),
    "content": set(),
    "ordinal + content": {"position"},
    "time_order + semantic": {"position", "days"},
}


def angles_of(source, positions=POSITIONS, days=DAYS):
    params, features = siren_case()
    match source:
        case "ordinal":
            return ordinal_angles(positions, FREQUENCIES)
        case "learned frequencies":
            return ordinal_angles(positions, LEARNED)
        case "time_order":
            return time_order_angles(positions, days, FREQUENCIES)
        case "time_order by head":
            return time_order_angles(positions, days, FREQUENCIES, time_frequencies=LEARNED, time_scale=0.01 * HEADS)
        case "siren":
            return siren_rope_angles(positions, features, FREQUENCIES, params, scale=math.pi, gate=1.0)
        case "siren by head":
            return siren_rope_angles(positions, features, FREQUENCIES, params, scale=math.pi * HEADS, gate=HEADS)
        case "semantic":
            return siren_apply(SEMANTIC, TOKENS)
        case "content":
            return content_angles(TOKENS, KERNEL)
        case _:
            return sum(angles_of(part, positions, days) for part in source.split(" + "))


each_source = pytest.mark.parametrize("source", SOURCES)


@pytest.mark.slow
@each_source
def test_rotation_by_any_source_keeps_every_norm_and_changes_the_logits(source):
    x = jnp.asarray(np.random.default_rng(5).normal(size=(2, 12, 2, 8)), jnp.float32)
    rotated = apply_rotary(x, angles_of(source))
    norms = [np.hypot(*np.split(np.float64(side), 2, axis=-1)) for side in (x, rotated)]
    chex.assert_trees_all_close(*norms, rtol=1e-6)
    assert np.abs(rotated_logits(angles_of(source)) - rotated_logits(jnp.zeros((2, 12, 4)))).max() > 0.5


@pytest.mark.slow
@each_source
def test_moving_all_positions_or_times_leaves_the_logits_of_every_source_that_takes_differences(source):
    at_home = rotated_logits(angles_of(source))
    # Angles of up to 220 radians are rounded to 2e-5.
    moved = rotated_logits(angles_of(source, POSITIONS + 100))
    assert np.abs(moved - at_home).max() < 4e-4
    later = rotated_logits(angles_of(source, days=DAYS + 64))
    assert np.abs(later - at_home).max() < 4e-4
    # Not because it would not look: stretched, they count.
    stretched = {"position": angles_of(source, 2 * POSITIONS), "days": angles_of(source, days=2 * DAYS)}
    for name, angles in stretched.items():
        change = np.abs(rotated_logits(angles) - at_home).max()
        assert change > 0.1 if name in SOURCES[source] else change == 0


def test_time_features_of_siren_rope_are_absolute_so_that_moving_time_changes_the_logits():
    """Unlike positions: the network is no linear function of time, and the same hours later mean something else."""
    params, _ = siren_case()
    second = jnp.zeros((2, 12), jnp.int32)

    def logits(days):
        features = calendar_features(days.astype(jnp.int32), second, start_day=0, span_days=500.0)
        return rotated_logits(siren_rope_angles(POSITIONS, features, FREQUENCIES, params, scale=math.pi, gate=1.0))

    assert np.abs(logits(DAYS + 64) - logits(DAYS)).max() > 0.1


def test_frequencies_of_two_dimensions_are_refused_in_one_sentence():
    with raises_one_sentence("frequencies", "one-dimensional", "(1, 4)"):
        ordinal_angles(POSITIONS, FREQUENCIES[None])
    with raises_one_sentence("frequencies", "one-dimensional", "(1, 4)"):
        time_order_angles(POSITIONS, DAYS, FREQUENCIES[None])


def test_days_that_do_not_fit_the_positions_are_refused_in_one_sentence():
    with raises_one_sentence("positions and elapsed_days", "(2, 12)", "(2, 11)"):
        time_order_angles(POSITIONS, DAYS[:, :-1], FREQUENCIES)


def test_features_that_do_not_fit_the_positions_are_refused_in_one_sentence():
    params, features = siren_case()
    with raises_one_sentence("features", "shape of positions", "(2, 12)", "(2, 11, 5)"):
        siren_rope_angles(POSITIONS, features[:, :-1], FREQUENCIES, params, scale=1.0, gate=1.0)


def test_network_with_too_few_outputs_is_refused_in_one_sentence():
    params, features = siren_case()
    with raises_one_sentence("angle network", "one output per frequency", "(8,)", "4"):
        siren_rope_angles(POSITIONS, features, inverse_frequencies(16), params, scale=1.0, gate=1.0)


def test_time_frequencies_of_another_number_are_refused_in_one_sentence():
    for count in (1, 3):
        with raises_one_sentence("time_frequencies", "(4,)", f"({count},)"):
            time_order_angles(POSITIONS, DAYS, FREQUENCIES, time_frequencies=jnp.ones(count))


@pytest.mark.parametrize("shape", [(3,), (1,), (2, 3), (2, 2, 4)])
@pytest.mark.parametrize("name", ["position_scale", "time_scale", "scale", "gate"])
def test_scale_that_fits_neither_pairs_nor_heads_is_refused_in_one_sentence(name, shape):
    params, features = siren_case()
    with raises_one_sentence(name, "[], [4], [N, 1] or [N, 4]", str(shape)):
        if name in ("scale", "gate"):
            siren_rope_angles(
                POSITIONS, features, FREQUENCIES, params, **({"scale": 1.0, "gate": 1.0} | {name: jnp.ones(shape)})
            )
        else:
            time_order_angles(POSITIONS, DAYS, FREQUENCIES, **{name: jnp.ones(shape)})


def test_scales_of_different_numbers_of_heads_are_refused_in_one_sentence():
    params, features = siren_case()
    two, three = jnp.ones((2, 1)), jnp.ones((3, 4))
    with raises_one_sentence("one number of heads", "2 and 3"):
        time_order_angles(POSITIONS, DAYS, FREQUENCIES, position_scale=two, time_scale=three)
    with raises_one_sentence("one number of heads", "3 and 2"):
        siren_rope_angles(POSITIONS, features, FREQUENCIES, params, scale=three, gate=two)


@pytest.mark.parametrize("shape", [(5, 4), (6,), (6, 1, 3, 4)])
def test_content_kernel_that_does_not_fit_the_tokens_is_refused_in_one_sentence(shape):
    with raises_one_sentence("kernel must have shape [6, R] or [6, N, R]", str(shape)):
        content_angles(TOKENS, jnp.zeros(shape))


@pytest.mark.parametrize("bound", [0.0, -1.0, math.inf, math.nan])
def test_bound_that_bounds_nothing_is_refused_in_one_sentence(bound):
    with raises_one_sentence("bound must be a finite number above 0", bound):
        content_angles(TOKENS, KERNEL, bound=bound)
