"""The whole model: SIREN against ordinal, against the machine's floor, against PyTorch; and the time to compile it."""

import dataclasses
import importlib.util
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from benchmarks.timing import Row, alternate
from benchmarks.workload import LARGE, OurModel, Setting, full_batch

HAS_TORCH = (
    importlib.util.find_spec("torch") is not None and importlib.util.find_spec("rotary_embedding_torch") is not None
)


def matmuls(dtype: str) -> dict[float, Callable[[], jax.Array]]:
    """Returns products of two matrices that this machine does fast, by their floating-point operations."""

    def product(rows: int, inner: int, columns: int) -> tuple[float, Callable[[], jax.Array]]:
        a, b = jnp.ones((rows, inner), dtype), jnp.ones((inner, columns), dtype)
        compiled = jax.jit(jnp.matmul)
        return 2.0 * rows * inner * columns, lambda: compiled(a, b)

    scale = 1 if jax.default_backend() == "cpu" else 8
    return dict(product(scale * 4096, scale * inner, scale * inner) for inner in (256, 512, 1024))


def steps(setting: Setting, rounds: int) -> list[Row]:
    """Times SIREN over ordinal, the floor over the step, PyTorch over ours, all in turn."""
    spec, batch = full_batch(setting)
    products = matmuls(setting.dtype)
    functions: dict[str, Callable[[], object]] = {f"matmul {flops:.0f}": run for flops, run in products.items()}
    for kind in ("ordinal", "siren"):
        model = OurModel(setting.model(kind), spec, batch)
        functions |= {f"{kind} train": model.train, f"{kind} inference": model.predict}
    if HAS_TORCH and setting.dtype == "float32":
        from benchmarks.torch_model import TorchModel

        for name, compiled in (("eager", False), ("torch.compile", True)):
            theirs = TorchModel(setting, batch, compiled=compiled)
            functions |= {f"{name} train": theirs.train, f"{name} inference": theirs.predict}
    seconds = alternate(functions, rounds, warmup=2)
    rate = max(flops / seconds[f"matmul {flops:.0f}"].min() for flops in products)
    train, inference = seconds["ordinal train"], seconds["ordinal inference"]
    targets = {"small": ">= 0.55", "mid": ">= 0.65"}
    where = f"{setting.name}, {setting.dtype}"
    rows = [
        Row.of("SIREN / ordinal", f"train, {where}", seconds["siren train"] / train, target="<= 1.015"),
        Row.of("SIREN / ordinal", f"inference, {where}", seconds["siren inference"] / inference, target="<= 1.018"),
        Row.of(
            "floor / train step",
            where,
            setting.train_flops() / rate / train,
            target=targets.get(setting.name, "") if setting.dtype == "float32" else "",
            note=_note(setting, train, rate),
        ),
    ]
    for name in ("eager", "torch.compile"):
        if f"{name} train" in seconds:
            rows += [
                Row.of("PyTorch / ours", f"train, {where}, {name}", seconds[f"{name} train"] / train, target=">= 1"),
                Row.of(
                    "PyTorch / ours",
                    f"inference, {where}, {name}",
                    seconds[f"{name} inference"] / inference,
                    target=">= 1",
                ),
            ]
    return rows


def _note(setting: Setting, seconds: np.ndarray, rate: float) -> str:
    return f"{setting.train_flops() / 1e9:.1f} GFLOP in {np.median(seconds):.3f} s; matmul {rate / 1e9:.0f} GFLOP/s"


def low_precision(setting: Setting, rounds: int) -> list[Row]:
    """Times the step in bfloat16 over the floor in bfloat16."""
    setting = dataclasses.replace(setting, dtype="bfloat16")
    products = matmuls("bfloat16")
    model = OurModel(setting.model("ordinal"), *full_batch(setting))
    functions: dict[str, Callable[[], Any]] = {f"{flops:.0f}": run for flops, run in products.items()}
    seconds = alternate(functions | {"train": model.train}, rounds)
    rate = max(flops / seconds[f"{flops:.0f}"].min() for flops in products)
    note = _note(setting, seconds["train"], rate)
    floor = setting.train_flops() / rate / seconds["train"]
    return [Row.of("floor / train step", f"{setting.name}, bfloat16", floor, note=note)]


def compile_times(setting: Setting, layers: tuple[int, ...] = (2, 4, 8)) -> list[Row]:
    """Times the compilation of the step, over that of the fewest layers; there is no scan over the layers."""
    seconds = []
    for count in layers:
        deeper = dataclasses.replace(setting, layers=count)
        model = OurModel(deeper.model("siren"), *full_batch(deeper))
        started = time.perf_counter()
        model.compiled.train_step.lower(model.state, model.batch).compile()  # type: ignore[attr-defined]
        seconds.append(time.perf_counter() - started)
    return [
        Row.single("compile time", f"{count} layers / {layers[0]}", taken / seconds[0], note=f"{taken:.1f} s")
        for count, taken in zip(layers[1:], seconds[1:], strict=True)
    ]


def on_a_gpu(rounds: int) -> list[Row]:
    """Times 12 layers of width 512 at length 1024 in bfloat16, on a GPU."""
    rows = steps(LARGE, rounds)
    stats = jax.devices()[0].memory_stats() or {}
    peak = stats.get("peak_bytes_in_use", 0) / 2**30
    return [*rows, Row.single("peak memory, GiB", LARGE.name, peak)]
