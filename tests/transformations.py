"""Every public op under every transformation of JAX, over four devices, against the same formula in float64.

Prints {row: {column: what came out}} as JSON: "=" where values and gradients are those of float64, the sentence of the
error where it is refused, else what is wrong. test_every_transformation.py runs it and compares `markdown` of it with
ops/README.md.
"""

import functools
import json
import re
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from siren_rope_jax import ops
from siren_rope_jax.ops.attention import cudnn

LARGE = 256  # slots from which "auto" chooses blocks on a CPU
SIZES = {"b": 4, "s": 6, "n": 2, "h": 8, "r": 4, "f": 5, "d": 3, "c": 2, "g": 2, "t": 3, "p": 5, "m": 8}
SYMBOLIC = "b", "s"
OVER = {"b": "data", "n": "model"}  # axis of the mesh that divides an axis of the arrays


class Row(NamedTuple):
    """An op, the same formula without it, and the axes of the arguments: floats, then integers from 0 along s."""

    ours: Callable[..., Any]
    exact: Callable[..., Any]
    floats: tuple[str, ...]
    integers: tuple[str, ...] = ()
    slots: int = SIZES["s"]


def turn(x, angles):
    real, imaginary = jnp.split(x, 2, axis=-1)
    sin, cos = (of(angles)[:, :, None] for of in (jnp.sin, jnp.cos))
    return jnp.concatenate([real * cos - imaginary * sin, real * sin + imaginary * cos], axis=-1)


def network(params, x):
    for index, layer in enumerate(params):
        x = x @ layer["kernel"] + layer["bias"]
        x = jnp.sin(3 * x) if index < len(params) - 1 else x
    return x


def layers(*flat):
    return [{"kernel": kernel, "bias": bias} for kernel, bias in zip(flat[::2], flat[1::2], strict=True)]


def siren(features, *flat):
    return ops.siren_apply({"sine": layers(*flat)}, features, omega0=3.0)


def siren_rope(positions, features, theta, scale, gate, *flat):
    return ops.siren_rope_angles(
        positions, features, theta, {"sine": layers(*flat)}, scale=scale, gate=gate, omega0=3.0
    )


def exact_siren_rope(positions, features, theta, scale, gate, *flat):
    return network(layers(*flat), features) * scale + positions[..., None] * theta * gate


def years(days):
    return jnp.concatenate(ops.rote_factors(days * 90, 4), -1)


def exact_years(days):
    place, days = np.arange(4) / 4, days[..., None] * 90
    levels = ((1.5, 365.25, 6), (1.0, 30.4375, 4), (0.5, 1.0, 2))
    return jnp.concatenate(
        [
            sum(a * turn(days / unit * 10.0 ** (-fall * place)) for a, unit, fall in levels)
            for turn in (jnp.sin, jnp.cos)
        ],
        -1,
    )


def blocks(coordinates, generators, x):
    return ops.rotate_blocks(x, ops.lie_rotations(coordinates, generators))


def exact_blocks(coordinates, generators, x):
    rows, columns = np.triu_indices(3, 1)
    entries = jnp.einsum("bsc,cgt->bsgt", coordinates, generators)
    skew = jnp.zeros((*entries.shape[:-1], 3, 3), entries.dtype).at[..., rows, columns].set(entries)
    rotations = jax.scipy.linalg.expm(skew - jnp.swapaxes(skew, -1, -2))
    return jnp.einsum("bsgij,bsngj->bsngi", rotations, x.reshape(*x.shape[:3], 2, 3)).reshape(x.shape)


def waves(x, theta):
    angles = x[..., None] * theta
    return jnp.stack([jnp.sin(angles), jnp.cos(angles)], -1).reshape(*angles.shape[:-1], -1)


def theta(width):
    return 10_000.0 ** (-np.arange(0, width, 2) / width)


def calendar(second):
    features = ops.calendar_features(second * 3, second * 5000, start_day=2, span_days=9.0, clamp=False)
    turns = ops.calendar_harmonics(second * 3, second * 5000, period="week", harmonics=2)
    return features, turns, ops.elapsed_days(second)


def exact_calendar(second):
    seconds, day = second * 5000, second * 3
    angles = [2 * np.pi * seconds / 86_400, 2 * np.pi * (day % 7 * 86_400 + seconds) / (7 * 86_400)]
    parts = [f(angle) for angle in angles for f in (jnp.cos, jnp.sin)]
    parts.append((day - 2) * (2 / 9) - 1 + seconds * (2 / (86_400 * 9)))
    turns = jnp.stack([f(k * angles[1]) for k in (1, 2) for f in (jnp.cos, jnp.sin)], axis=-1)
    return jnp.stack(parts, axis=-1), turns, second / 86_400


def planar(positions, frequencies, x):
    return blocks(positions[..., None], ops.planar_generators(frequencies, 4)[None], x)


def exact_planar(positions, frequencies, x):
    of_pairs = turn(jnp.concatenate([x[..., 0::2], x[..., 1::2]], -1), positions[..., None] * frequencies)
    return jnp.stack(jnp.split(of_pairs, 2, axis=-1), axis=-1).reshape(x.shape)


def by_length(positions):
    settings = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}
    frequencies, _ = ops.frequencies_at(positions, 8, settings, max_position_embeddings=4)
    return frequencies, ops.query_growth(positions, 0.1, 4)


def exact_by_length(positions):
    stretch = jnp.maximum(1 + 2 * ((positions.max(-1, keepdims=True) + 1) / 4 - 1), 1)
    return theta(8) / stretch ** (np.arange(4) / 3), 1 + 0.1 * jnp.log1p(positions // 4)


def t5_bucket(distance):
    log = 4 + jnp.floor(jnp.log(jnp.maximum(distance, 4) / 4) / np.log(20 / 4) * 4 + 1e-9)
    return jnp.where(distance < 4, jnp.maximum(distance, 0), jnp.minimum(log, 7))


def log_time_bucket(seconds):
    return jnp.floor(jnp.log(jnp.maximum(jnp.abs(seconds), 1)) / 0.301)


def buckets(positions):
    pairs = positions[:, :, None] - positions[:, None]
    return ops.t5_buckets(pairs, buckets=8, max_distance=20), ops.log_time_buckets(pairs * 90)


def exact_buckets(positions):
    pairs = positions[:, :, None] - positions[:, None]
    return t5_bucket(pairs), log_time_bucket(pairs * 90)


def intervals(positions):
    pairs, slots = positions[:, :, None] - positions[:, None], jnp.arange(positions.shape[1])
    of_slots = ops.interval_buckets(positions * 7, jnp.ones_like(positions), max_interval=3)
    return jnp.where(pairs > 0, of_slots(slots, slots), 0)


def exact_intervals(positions):
    pairs = positions[:, :, None] - positions[:, None]
    return jnp.where(pairs > 0, jnp.minimum(pairs, 3), 0)


def times_apart(rates, heights, exponents, cosines, sines, damping, positions):
    times, slots = positions * 40_000, jnp.arange(positions.shape[1])
    bias = ops.time_decay_bias(times, rates) + ops.time_decay_bias(times, rates, shape="power")
    bias += ops.time_decay_bias(times, rates**2, shape="stretched", heights=heights, exponents=exponents**2 + 1)
    bias += ops.periodic_bias(times, cosines, sines, damping**2, periods=(86_400, 604_800))
    return jnp.moveaxis(bias(slots, slots), 1, 2)  # heads stand where those of queries do


def exact_times_apart(rates, heights, exponents, cosines, sines, damping, positions):
    seconds = jnp.abs(positions[:, None, :, None] - positions[:, None, None, :]) * 40_000.0
    r, h, b = (x[:, None, None] for x in (rates, heights, exponents))
    x = seconds / 86_400
    # Where x is 0, so is its power, whose logarithm has no derivative there.
    power = jnp.where(x > 0, jnp.where(x > 0, x, 1.0) ** (b**2 + 1), 0.0)
    result = -r * x - r * jnp.log1p(x) + h * jnp.exp(-(r**2) * power)
    for k, period in enumerate((86_400, 604_800)):
        turn = 2 * np.pi * seconds / period
        wave = cosines[k][:, None, None] * jnp.cos(turn) + sines[k][:, None, None] * jnp.sin(turn)
        result += jnp.exp(-(damping[k] ** 2) * turn) * wave
    return jnp.moveaxis(result, 1, 2)


def cycles(second):
    return ops.calendar_angles(second * 3, second * 5000, period="week", turns=(1, 2)), ops.cycle_angles(second, (7, 9))


def exact_cycles(second):
    week = 2 * np.pi * (second * 3 % 7 * 86_400 + second * 5000) / (7 * 86_400)
    turns = jnp.stack([week, 2 * week], -1), 2 * np.pi * second[..., None] / jnp.asarray([7.0, 9.0])
    return tuple((angles + np.pi) % (2 * np.pi) - np.pi for angles in turns)


def exact_polar(x, angles):
    parts = [jax.nn.softplus(x) * of(angles)[:, :, None] for of in (jnp.cos, jnp.sin)]
    return jnp.concatenate(parts, -1)


def path(x, theta, steps, kernel, positions):
    """Two events at each time, in one segment."""
    ids, times, slots = jnp.ones_like(positions), positions // 2, jnp.arange(positions.shape[1])
    bias = jnp.moveaxis(ops.forgetting_bias(x, ids, times=times)(slots, slots), 1, 2)
    causal = times[:, :, None, None] > times[:, None, None]
    angles = ops.selective_angles(steps, theta, ids, times=times)
    mixed = ops.causal_convolution(steps, kernel, ids, times=times)
    return jnp.where(causal, bias, 0), angles, mixed


def exact_path(x, theta, steps, kernel, positions):
    times = positions // 2
    earlier = (times[:, :, None] > times[:, None]).astype(x.dtype)  # [b, q, k]
    own = jnp.eye(times.shape[1], dtype=x.dtype)
    after = jnp.swapaxes(earlier, 1, 2)  # [b, k, event]
    between = earlier[:, :, None] * after[:, None] + own[:, None]  # [b, q, k, event]
    bias = jnp.einsum("bqke,ben->bqnk", between, x) * earlier[:, :, None]
    angles = jnp.einsum("bqe,ber->bqr", earlier + own, steps) * theta
    gap = times[:, :, None] - times[:, None]
    mixed = kernel[0] * steps
    for tap in range(1, kernel.shape[0]):
        mixed += kernel[tap] * jnp.einsum("bqe,ber->bqr", (gap == tap).astype(x.dtype) / 2, steps)
    return bias, angles, mixed


def seen(positions):
    ids = jnp.ones_like(positions)
    counts = ops.visible_counts(ids, times=positions, hide_within=2, window=3)
    return counts, ops.length_temperature(counts, 5), ops.seconds_since(positions * 7, ids)


def exact_seen(positions):
    counts = jnp.clip(positions - 1, 0, 3)
    return counts, jnp.log(jnp.maximum(counts, 1)) / np.log(5), 7 * jnp.minimum(positions, 1)


def attention(implementation, *, rich=False):
    """Strictly causal attention; if rich, with itself, window, sinks, biases, relative embedding and learned scales."""

    def ours(query, key, value, none, *given):
        *learned, positions = given
        how = {"segment_ids": jnp.ones_like(positions), "no_history": none, "implementation": implementation}
        if rich:
            scale, slopes, t5_table, of_position, of_time, of_key, of_value = learned
            bias = ops.alibi_bias(positions, slopes) + ops.t5_bias(positions, t5_table, max_distance=20)
            bias += ops.hstu_bias(positions, positions * 90, of_position, of_time)
            intervals = ops.interval_buckets(positions * 7, jnp.ones_like(positions), max_interval=4)
            relative = ops.RelativeEmbedding(intervals, of_key, of_value)
            how |= {"scale": scale, "bias": bias, "relative": relative, "inclusive": True, "window": 3, "sinks": 1}
        return ops.strictly_causal_attention(query, key, value, chunk=64, **how)

    def exact(query, key, value, none, *given):
        *learned, positions = given
        logits = jnp.einsum("bqnh,bknh->bnqk", query, key)
        pairs = positions[:, None, :, None] - positions[:, None, None, :]
        seen, factor = pairs > 0, query.shape[-1] ** -0.5
        if rich:
            scale, slopes, t5_table, of_position, of_time, of_key, of_value = learned
            interval = jnp.clip(jnp.abs(pairs[:, 0]), 0, 4)
            logits += jnp.einsum("bqnh,bqknh->bnqk", query, of_key[interval])
            seen, factor = (pairs >= 0) & ((pairs < 3) | (positions[:, None, None, :] < 1)), scale[:, None, None]
        logits *= factor
        if rich:
            bucket = t5_bucket(pairs[:, 0]).astype(int)
            time = jnp.minimum(log_time_bucket(pairs[:, 0] * 90).astype(int), of_time.size - 1)
            logits -= slopes[:, None, None] * pairs
            logits += jnp.moveaxis(t5_table[bucket], -1, 1)
            logits += (of_position[jnp.clip(pairs[:, 0], 0, of_position.size - 1)] + of_time[time])[:, None]
        some = seen.any(-1, keepdims=True)
        logits = jnp.where(seen, logits, -jnp.inf)
        weights = jax.nn.softmax(jnp.where(some, logits, 0)) * some
        attended = jnp.einsum("bnqk,bknh->bqnh", weights, value)
        if rich:
            attended += jnp.einsum("bnqk,bqknh->bqnh", weights, of_value[interval])
        return jnp.where(jnp.swapaxes(some, 1, 2), attended, none)

    return ours, exact


def attention_row(implementation, *, rich=False, slots=SIZES["s"]):
    learned = ("n", "n", "m n", "p", "20", "5 n h", "5 n h") if rich else ()
    return Row(*attention(implementation, rich=rich), (*(["b s n h"] * 3), "n h", *learned), ("b s",), slots=slots)


SIREN = "f d", "d", "d r", "r"
ROWS = {
    "ordinal_angles": Row(ops.ordinal_angles, lambda p, theta: p[..., None] * theta, ("b s", "r")),
    "time_order_angles": Row(
        lambda p, days, theta, scale: ops.time_order_angles(p, days, theta, time_scale=scale),
        lambda p, days, theta, scale: (p[..., None] + days[..., None] * scale) * theta,
        ("b s", "b s", "r", "r"),
    ),
    "siren_apply": Row(siren, lambda x, *flat: network(layers(*flat), x), ("b s f", *SIREN)),
    "siren_rope_angles": Row(siren_rope, exact_siren_rope, ("b s", "b s f", "r", "r", "", *SIREN)),
    "content_angles": Row(ops.content_angles, lambda x, kernel: np.pi * jnp.tanh(x @ kernel), ("b s d", "d r")),
    "sincos": Row(ops.sincos, lambda x: (jnp.sin(x), jnp.cos(x)), ("b s r",)),
    "rotate_pairs": Row(lambda x, a: ops.rotate_pairs(x, *ops.sincos(a), angles=a), turn, ("b s n h", "b s r")),
    "apply_rotary, xpos_scale": Row(
        lambda x, a, p: ops.apply_rotary(x, a, scale=ops.xpos_scale(p, 4)),
        lambda x, a, p: turn(x, a) * jnp.tile(((np.arange(4) / 4 + 0.4) / 1.4) ** (p[..., None] / 512), 2)[:, :, None],
        ("b s n h", "b s r", "b s"),
    ),
    "sinusoidal_encoding": Row(lambda p: ops.sinusoidal_encoding(p, 6), lambda p: waves(p, theta(6)), ("b s",)),
    "time2vec": Row(
        ops.time2vec,
        lambda t, w, f: jnp.concatenate([t[..., None] * w[:1] + f[:1], jnp.sin(t[..., None] * w[1:] + f[1:])], -1),
        ("b s", "f", "f"),
    ),
    "rote_factors": Row(years, exact_years, ("b s",)),
    "lie_rotations, rotate_blocks": Row(blocks, exact_blocks, ("b s c", "c g t", "b s n 6")),
    "calendar_features, calendar_harmonics, elapsed_days": Row(calendar, exact_calendar, (), ("b s",)),
    "planar_generators": Row(planar, exact_planar, ("b s", "r", "b s n h")),
    "frequencies_at, query_growth": Row(by_length, exact_by_length, (), ("b s",)),
    "t5_buckets, log_time_buckets": Row(buckets, exact_buckets, (), ("b s",)),
    "time_decay_bias, periodic_bias": Row(times_apart, exact_times_apart, ("n", "n", "n", "2 n", "2 n", "2"), ("b s",)),
    "calendar_angles, cycle_angles": Row(cycles, exact_cycles, (), ("b s",)),
    "section_angles": Row(
        lambda a, b: ops.section_angles([a, b], (1, 3)),
        lambda a, b: jnp.concatenate([a[..., :1], b[..., 1:]], -1),
        ("b s r", "b s r"),
    ),
    "polar_features": Row(ops.polar_features, exact_polar, ("b s n h", "b s h")),
    "forgetting_bias, selective_angles, causal_convolution": Row(
        path, exact_path, ("b s n", "r", "b s r", "3 r"), ("b s",)
    ),
    "visible_counts, length_temperature, seconds_since": Row(seen, exact_seen, (), ("b s",)),
    "interval_buckets": Row(intervals, exact_intervals, (), ("b s",)),
}
for name in ("plain", "chunked", "cudnn", "splash"):
    for slots in (SIZES["s"], LARGE):
        size = "small" if slots < LARGE else f"{LARGE} slots"
        ROWS[f"attention, {name}, {size}"] = attention_row(name, slots=slots)
        if name in ("plain", "chunked"):
            ROWS[f"attention, {name}, biases and window, {size}"] = attention_row(name, rich=True, slots=slots)


def arguments(row, seed):
    generator = np.random.default_rng(seed)
    sizes = SIZES | {"s": row.slots}

    def shape(axes):
        return tuple(sizes.get(axis) or int(axis) for axis in axes.split())

    floats = [generator.normal(size=shape(axes)) for axes in row.floats]
    integers = [np.broadcast_to(np.arange(row.slots), shape(axes)) for axes in row.integers]
    return [jnp.asarray(x, jnp.float32) for x in floats], [jnp.asarray(x, jnp.int32) for x in integers]


def total(function, integers):
    """A loss of the floats with derivatives of every order."""

    def loss(*floats):
        return sum(jnp.sum(jnp.sin(x + 0.3)) for x in jax.tree.leaves(function(*floats, *integers)))

    return loss


def gradients(function, integers):
    def of_floats(*floats):
        return jax.grad(total(function, integers), tuple(range(len(floats))))(*floats)

    return of_floats


def second(function, integers):
    def along(*floats):
        slopes = gradients(function, integers)(*floats)
        return sum(jnp.sum(jnp.cos(x) * slope) for x, slope in zip(floats, slopes, strict=True))

    return lambda *floats: jax.grad(along, tuple(range(len(floats))))(*floats)


def forward(function, integers):
    return lambda *floats: jax.jvp(lambda *x: function(*x, *integers), floats, tuple(0.5 - x for x in floats))[1]


def twice(integers):
    return [jnp.stack([x, x]) for x in integers]


def over_two(function, integers):
    """Gradients of two examples at once, by jax.vmap; values where there are no floats."""

    def both(*pairs):
        return jax.vmap(gradients(function, integers))(*pairs) if pairs else jax.vmap(function)(*twice(integers))

    return both


def in_a_scan(function, integers, *, checkpoint=False):
    """Gradients through a loop over the two examples; values where there are no floats."""

    def wrapped(one):
        return jax.checkpoint(one) if checkpoint else one

    def loss(*pairs):
        def step(so_far, floats):
            return so_far + wrapped(total(function, integers))(*floats), None

        return jax.lax.scan(step, jnp.zeros(()), pairs)[0]

    def both(*pairs):
        if pairs:
            return jax.grad(loss, tuple(range(len(pairs))))(*pairs)
        return jax.lax.map(lambda x: wrapped(function)(*x), twice(integers))

    return both


def spec(axes):
    return P(*(OVER.get(axis) for axis in axes.split()))


def values_and_gradients(function, integers):
    """What a program over several devices, or an exported one, returns."""

    def both(floats):
        values = function(*floats, *integers)
        return values, gradients(function, integers)(*floats) if floats else ()

    return both


def mapped(row, floats, integers):
    mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    specs = tuple(map(spec, (*row.floats, *row.integers)))
    by_heads = any("n" in axes.split() for axes in row.floats)
    shape = jax.eval_shape(row.ours, *floats, *integers)
    out = jax.tree.map(lambda x: P("data", None, "model") if by_heads and x.ndim == 4 else P("data"), shape)
    function = jax.shard_map(row.ours, mesh=mesh, in_specs=specs, out_specs=out)
    return jax.jit(values_and_gradients(function, integers))(floats)


def on_a_mesh(kind, row, floats, integers):
    mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(kind,) * 2)

    def put(arrays, axes):
        return [jax.device_put(x, NamedSharding(mesh, spec(of))) for x, of in zip(arrays, axes, strict=True)]

    with jax.set_mesh(mesh):
        placed = put(floats, row.floats), put(integers, row.integers)
        return jax.jit(lambda floats, integers: values_and_gradients(row.ours, integers)(floats))(*placed)


def exported(row, floats, integers):
    sizes = dict(zip(SYMBOLIC, export.symbolic_shape(", ".join(SYMBOLIC)), strict=True))

    def abstract(arrays, axes):
        shapes = [
            tuple(sizes.get(axis, size) for axis, size in zip(of.split(), x.shape, strict=True))
            for x, of in zip(arrays, axes, strict=True)
        ]
        return [jax.ShapeDtypeStruct(shape, x.dtype) for shape, x in zip(shapes, arrays, strict=True)]

    program = jax.jit(lambda floats, integers: values_and_gradients(row.ours, integers)(floats))
    return export.export(program)(abstract(floats, row.floats), abstract(integers, row.integers)).call(floats, integers)


VALUES, GRADIENTS, BOTH = "values", "gradients", "both"
COLUMNS = {  # what is computed, and what it must equal
    "eager": (lambda row, floats, integers: row.ours(*floats, *integers), VALUES),
    "jit": (lambda row, floats, integers: jax.jit(row.ours)(*floats, *integers), VALUES),
    "grad": (lambda row, floats, integers: jax.jit(gradients(row.ours, integers))(*floats), GRADIENTS),
    "grad of grad": (lambda row, floats, integers: jax.jit(second(row.ours, integers))(*floats), "second"),
    "jvp": (lambda row, floats, integers: jax.jit(forward(row.ours, integers))(*floats), "forward"),
    "vmap": (lambda row, pairs, integers: jax.jit(over_two(row.ours, integers))(*pairs), "pairs"),
    "scan": (lambda row, pairs, integers: jax.jit(in_a_scan(row.ours, integers))(*pairs), "pairs"),
    "remat": (lambda row, pairs, integers: jax.jit(in_a_scan(row.ours, integers, checkpoint=True))(*pairs), "pairs"),
    "shard_map": (mapped, BOTH),
    "Auto mesh": (functools.partial(on_a_mesh, AxisType.Auto), BOTH),
    "Explicit mesh": (functools.partial(on_a_mesh, AxisType.Explicit), BOTH),
    "export": (exported, BOTH),
}


def expected(row, floats, pairs, integers):
    """In float64, without any transformation but the derivative itself."""
    with jax.enable_x64(True):
        wide = [jnp.asarray(np.asarray(x), jnp.float64) for x in floats]
        two = [jnp.asarray(np.asarray(x), jnp.float64) for x in pairs]
        integers = [jnp.asarray(np.asarray(x), jnp.int64) for x in integers]
        values, slopes = jax.jit(row.exact)(*wide, *integers), ()
        results = {VALUES: values, BOTH: (values, slopes), "pairs": jax.tree.map(lambda x: jnp.stack([x, x]), values)}
        if floats:
            gradient = jax.jit(gradients(row.exact, integers))
            each = [gradient(*(x[i] for x in two)) for i in range(2)]
            results |= {GRADIENTS: each[0], BOTH: (values, each[0])}
            results["pairs"] = jax.tree.map(lambda *x: jnp.stack(x), *each)
            results["second"] = jax.jit(second(row.exact, integers))(*wide)
            results["forward"] = jax.jit(forward(row.exact, integers))(*wide)
        return jax.tree.map(np.asarray, results)


def verdict(compute, wanted, tolerance):
    """ "=" if the numbers are right; what an error says, or how far off they are."""
    try:
        found = jax.tree.map(np.asarray, compute())
    except (ValueError, TypeError, NotImplementedError) as error:
        return re.split(r"\.\s", str(error))[0] or f"{type(error).__name__} without a word"
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
    worst = max(float(np.abs(a - b).max() / (np.abs(b).max() + 1e-3)) for a, b in pairs)
    return "=" if worst < tolerance else f"off by {worst:.0e}"


def table(rows):
    cudnn._KERNEL = "xla"  # the same call with the kernel that runs anywhere
    cudnn._TYPES = (["float32"],)
    result = {}
    for name in rows:
        row = ROWS[name]
        floats, integers = arguments(row, 0)
        others, _ = arguments(row, 1)
        pairs = [jnp.stack(x) for x in zip(floats, others, strict=True)]
        wanted = expected(row, floats, pairs, integers)
        result[name] = {}
        for column, (compute, kind) in COLUMNS.items():
            if kind not in wanted:
                continue
            given = pairs if kind == "pairs" else floats
            tolerance = 1e-4 if kind == "second" else 2e-5  # float32 rounds what the second derivative multiplies
            result[name][column] = verdict(functools.partial(compute, row, given, integers), wanted[kind], tolerance)
        print(name, result[name], file=sys.stderr, flush=True)
    return result


def markdown(found):
    """The table of ops/README.md, and the sentences that it refers to."""
    sentences = sorted({word for row in found.values() for word in row.values() if word != "="})
    marks = {"=": "=", None: ""} | {sentence: chr(ord("a") + index) for index, sentence in enumerate(sentences)}
    head = f"| op | {' | '.join(COLUMNS)} |\n|{'---|' * (1 + len(COLUMNS))}"
    lines = [f"| {name} | {' | '.join(marks[row.get(column)] for column in COLUMNS)} |" for name, row in found.items()]
    notes = [f"- {marks[sentence]}: {sentence}" for sentence in sentences]
    return "\n".join([head, *lines, "", *notes])


if __name__ == "__main__":
    assert jax.device_count() == 4
    print(json.dumps(table(sys.argv[1:] or ROWS)))
