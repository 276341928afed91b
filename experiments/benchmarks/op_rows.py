"""The rotation alone: against other libraries' and against a copy of the same bytes; and its passes in the step."""

import math
import re
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from benchmarks.timing import Row, alternate
from benchmarks.workload import OurModel, Setting, full_batch

from siren_rope_jax import ops


def rotations(setting: Setting, rounds: int) -> list[Row]:
    """Times `apply_rotary` and `sincos` against a copy, and against Equinox's and Flax's own."""
    batch, length, heads = setting.batch_size, setting.length, setting.heads
    width = setting.width // heads
    x = jax.random.normal(jax.random.key(0), (batch, length, heads, width))
    one_row = ops.ordinal_angles(jnp.arange(length)[None], ops.inverse_frequencies(width))
    angles = jnp.broadcast_to(one_row, (batch, length, width // 2))
    wide_angles = jax.random.normal(jax.random.key(1), x.shape)
    copy, rotate, sine = jax.jit(jnp.negative), jax.jit(ops.apply_rotary), jax.jit(jnp.sin)
    equinox = jax.jit(jax.vmap(jax.vmap(eqx.nn.RotaryPositionalEmbedding(width), in_axes=1, out_axes=1)))
    sine_and_cosine, both = jax.jit(ops.sincos), jax.jit(lambda a: (-a, a + 1))
    functions: dict[str, Callable[[], object]] = {
        "copy": lambda: copy(x),
        "rotate": lambda: rotate(x, angles),
        "equinox": lambda: equinox(x),
        "copies": lambda: both(wide_angles),
        "sincos": lambda: sine_and_cosine(wide_angles),
        "sine": lambda: sine(wide_angles),
    }
    seconds = alternate(functions, rounds, warmup=3)

    def row(name: str, over: str, under: str, target: str = "") -> Row:
        return Row.of("rotation alone", f"{name}, {setting.name}", seconds[over] / seconds[under], target=target)

    return [
        row("memory copy (negation) / apply_rotary", "copy", "rotate", ">= 0.7"),
        row("two memory copies / sincos", "copies", "sincos"),
        row("Equinox's RotaryPositionalEmbedding / apply_rotary", "equinox", "rotate"),
        row("jnp.sin alone / sincos", "sine", "sincos"),
    ]


def passes(setting: Setting) -> list[Row]:
    """Counts the operations that the rotation adds and that write an array as large as queries or keys."""
    counts = {}
    for kind in ("none", "ordinal"):
        model = OurModel(setting.model(kind), *full_batch(setting))
        train = model.compiled.train_step.lower(model.state, model.batch)  # type: ignore[attr-defined]
        predict = model.compiled.predict.lower(model.state.params, model.batch)  # type: ignore[attr-defined]
        for what, lowered in (("train", train), ("inference", predict)):
            counts[what, kind] = _large_writes(lowered.compile().as_text(), setting.slots * setting.width)
    return [
        Row.single(
            "rotation in the compiled program",
            f"passes that ordinal RoPE adds to {counts[what, 'none']}, {what}, {setting.name}",
            counts[what, "ordinal"] - counts[what, "none"],
            target="0",
        )
        for what in ("train", "inference")
    ]


def _large_writes(program: str, size: int) -> int:
    entry = program[program.index("ENTRY ") :]
    shapes = re.findall(r" = [a-z0-9]+\[([\d,]+)\]\S* (?!parameter|bitcast|get-tuple-element)[a-z-]+\(", entry)
    return sum(math.prod(map(int, shape.split(","))) >= size for shape in shapes)
