"""Measures how fast the model is, as ratios of things timed in turn in one process.

Command: `make bench` (`python experiments/bench.py`; `--log LOG.toml`, any number, adds the lengths of real logs).
Cost: under 10 minutes on 2 CPU cores. With the extra `bench` it compares with PyTorch too.
Expected: README.md here, section "Speed"; every row is a median over the rounds, with the least and the greatest.
"""

import dataclasses
import json
import os
import platform
import time
from pathlib import Path
from typing import Literal

import jax
import tyro
from benchmarks import attention_rows, input_rows, loop_rows, model_rows, op_rows, packing_rows
from benchmarks.timing import Row
from benchmarks.workload import LARGE, MID, SMALL
from rich.console import Console
from rich.table import Table

from siren_rope_jax.cli import keep_memory
from siren_rope_jax.report.tables import make_console

Part = Literal["model", "low_precision", "compile", "op", "attention", "packing", "input", "loop", "gpu"]


@dataclasses.dataclass(frozen=True)
class Bench:
    """Time the model, its parts and what a user would pick instead, and print the ratios."""

    rounds: int = 9
    """Number of rounds, in each of which everything is timed once."""
    events: int = 10_000_000
    """Simulated events of the input pipeline."""
    log: tuple[Path, ...] = ()
    """Descriptions of real logs (TOML), whose lengths are packed."""
    only: tuple[Part, ...] = ()
    """Parts to run; all if not given."""
    out: Path = Path("runs/bench.json")
    """JSON file for the rows."""


def on_a_gpu(rounds: int) -> list[Row]:
    """Times the large model, alone and in the training loop, and cuDNN's attention against ours, in bfloat16."""
    attention = attention_rows.lengths(rounds, ("plain", "chunked", "cudnn"), "bfloat16")
    loop = loop_rows.rows(min(rounds, 3), loop_rows.ON_A_GPU, name=LARGE.name, users=2_000)
    return model_rows.on_a_gpu(rounds) + attention + loop


def main(bench: Bench, console: Console) -> None:
    """Runs the parts, prints their rows and writes them."""
    rounds = bench.rounds
    parts = {
        "model": lambda: model_rows.steps(SMALL, rounds) + model_rows.steps(MID, rounds),
        "low_precision": lambda: model_rows.low_precision(SMALL, rounds),
        "compile": lambda: model_rows.compile_times(SMALL),
        "op": lambda: op_rows.rotations(SMALL, 3 * rounds) + op_rows.rotations(MID, 3 * rounds) + op_rows.passes(SMALL),
        "attention": lambda: (
            attention_rows.lengths(rounds, ("plain", "chunked"))
            + attention_rows.against_flax(rounds)
            + attention_rows.batches(rounds)
        ),
        "packing": lambda: packing_rows.all_logs(bench.log, rounds),
        "input": lambda: input_rows.rows(bench.events, rounds),
        "loop": lambda: loop_rows.rows(rounds),
        "gpu": lambda: on_a_gpu(rounds) if jax.default_backend() == "gpu" else [],
    }
    rows: list[Row] = []
    for name in bench.only or parts:
        started = time.perf_counter()
        rows += parts[name]()
        console.print(f"{name}: {time.perf_counter() - started:.0f} s")
    table = Table("what", "ratio", "from", "to", "aim", "note")
    for row in rows:
        table.add_row(
            f"{row.group}: {row.name}", *(f"{x:.3g}" for x in (row.median, row.low, row.high)), row.target, row.note
        )
    console.print(table)
    machine = {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "cores": os.cpu_count(),
        "device": str(jax.devices()[0]),
        "GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", ""),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
    }
    bench.out.parent.mkdir(parents=True, exist_ok=True)
    bench.out.write_text(
        json.dumps({"machine": machine, "rows": [dataclasses.asdict(r) for r in rows]}, indent=1) + "\n"
    )


if __name__ == "__main__":
    keep_memory()
    main(tyro.cli(Bench), make_console())
