"""Attention alone: cost and memory against length for each implementation, and against Flax's."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from benchmarks.timing import Row, alternate
from benchmarks.workload import MID, OurModel, full_batch
from flax import nnx

from siren_rope_jax.ops import strictly_causal_attention

LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096)
HEADS, WIDTH, SLOTS = 4, 64, 4096


def lengths(rounds: int, implementations: tuple[str, ...], dtype: str = "float32") -> list[Row]:
    """Times value and gradient at 4,096 slots, in ever fewer and longer rows, over length 64; and counts memory."""
    functions: dict[str, Callable[[], object]] = {}
    memory = {}
    for implementation in implementations:
        for length in LENGTHS:
            name = f"{implementation} {length}"
            functions[name], memory[name] = _value_and_gradient(implementation, SLOTS // length, length, dtype)
    seconds = alternate(functions, rounds)
    rows = []
    for implementation in implementations:
        of = {length: memory[f"{implementation} {length}"] / 2**20 for length in LENGTHS}
        for length in LENGTHS[1:]:
            over = seconds[f"{implementation} {length}"] / seconds[f"{implementation} {LENGTHS[0]}"]
            note = f"{of[length]:.0f} MiB of temporaries"
            rows.append(Row.of("attention, 4,096 slots", f"{implementation}, length {length} / 64", over, note=note))
        target = "" if implementation == "plain" else "linear: <= 1"
        growth = of[4096] / of[1024]
        rows.append(
            Row.single("attention memory a slot", f"{implementation}, length 4096 / 1024", growth, target=target)
        )
    plain, *others = implementations
    for other in others:
        for length in LENGTHS:
            ratios = seconds[f"{plain} {length}"] / seconds[f"{other} {length}"]
            rows.append(Row.of("attention, 4,096 slots", f"{plain} / {other}, length {length}", ratios))
    return rows


def batches(rounds: int, factors: tuple[int, ...] = (1, 2, 4)) -> list[Row]:
    """Fits the slope of log time over log tokens of the training step at one length."""
    setting = MID
    models = {}
    for factor in factors:
        larger = dataclasses.replace(setting, batch_size=factor * setting.batch_size // 2)
        models[str(factor)] = OurModel(larger.model("siren"), *full_batch(larger)).train
    seconds = alternate(models, rounds, warmup=2)
    logs = np.stack([np.log(seconds[str(factor)]) for factor in factors])
    slopes = np.polyfit(np.log(factors), logs, 1)[0]
    return [
        Row.of(
            "slope of log time over log tokens",
            f"train, {setting.name}, batch x{factors[-1]}",
            slopes,
            target="<= 1.05",
        )
    ]


def against_flax(rounds: int) -> list[Row]:
    """Times ours, packed and strict, against Flax's attention with a mask: value and gradient, length 256."""
    batch, length = 8, 256
    ours, _ = _value_and_gradient("auto", batch, length)
    query, segment = _inputs(batch, length)
    mask = jnp.tril(jnp.ones((length, length), bool), -1)[None, None] & (
        segment[:, None, :, None] == segment[:, None, None]
    )

    @jax.jit
    def step(query: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        def loss(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
            return (nnx.dot_product_attention(query, key, value, mask=mask) ** 2).sum()

        return jax.value_and_grad(loss, argnums=(0, 1, 2))(query, query, query)

    seconds = alternate({"ours": ours, "flax": lambda: step(query)}, rounds, warmup=2)
    return [
        Row.of(
            "attention alone", "flax.nnx.dot_product_attention / ours, length 256", seconds["flax"] / seconds["ours"]
        )
    ]


def _inputs(batch: int, length: int) -> tuple[jax.Array, jax.Array]:
    query = jax.random.normal(jax.random.key(0), (batch, length, HEADS, WIDTH))
    return query, jnp.ones((batch, length), jnp.int32)


def _value_and_gradient(
    implementation: str, batch: int, length: int, dtype: str = "float32"
) -> tuple[Callable[[], object], int]:
    query, segment = _inputs(batch, length)
    query = query.astype(dtype)

    def loss(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        attended = strictly_causal_attention(
            query,
            key,
            value,
            segment_ids=segment,
            no_history=jnp.zeros((HEADS, WIDTH)),
            implementation=implementation,  # type: ignore[arg-type]
        )
        return (attended.astype(jnp.float32) ** 2).sum()

    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))
    compiled = step.lower(query, query, query).compile()
    memory = compiled.memory_analysis()
    assert memory is not None
    return lambda: compiled(query, query, query), memory.temp_size_in_bytes
