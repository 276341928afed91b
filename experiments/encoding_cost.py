"""What does each encoding of position and time cost in a training step, relative to ordinal RoPE?

Command: `python experiments/encoding_cost.py [--rounds 31]`.
Cost: about 5 minutes on 2 CPU cores, half of it compiling.
Expected: the column "cost" of the table in siren_rope_jax/ops/README.md. Every round times one step of each model, in
one process and in an order drawn anew, since a step is slower after one that needs much memory; a model's cost is the
median over the rounds of its time over ordinal RoPE's in the same round.
"""

import dataclasses
import json
import time
from pathlib import Path

import jax
import numpy as np
import tyro
from rich.progress import track
from rich.table import Table

from siren_rope_jax.nn.config import BiasConfig, ModelConfig, RotaryConfig
from siren_rope_jax.nn.features import InputSpec
from siren_rope_jax.ops.calendar import split_unix_time
from siren_rope_jax.report.tables import make_console
from siren_rope_jax.train.optimizer import OptimizerConfig, make_optimizer
from siren_rope_jax.train.sharding import MeshConfig, make_mesh, put_batch
from siren_rope_jax.train.step import compile_model

ORDINAL = "ordinal RoPE"
NO_ROTATION = RotaryConfig("none")
MODELS: dict[str, dict] = {
    ORDINAL: {"rotary": RotaryConfig("ordinal")},
    "none": {"rotary": NO_ROTATION},
    "SIREN-RoPE": {"rotary": RotaryConfig("siren")},
    "SIREN-RoPE per head": {"rotary": RotaryConfig("siren", per_head=True)},
    "TO-RoPE, early fusion": {"rotary": RotaryConfig("time_order")},
    "TO-RoPE by dimension": {"rotary": RotaryConfig("time_order", mixing="by_dim")},
    "TO-RoPE by head": {"rotary": RotaryConfig("time_order", mixing="by_head")},
    "semantic rotation": {"rotary": RotaryConfig("siren", time_inputs=(), metadata=("feature_0",))},
    "content angles": {"rotary": RotaryConfig("ordinal", content_bound=np.pi)},
    "learned frequencies": {"rotary": RotaryConfig("ordinal", learned_frequencies=True)},
    "xPos": {"rotary": RotaryConfig("ordinal", xpos_base=512.0)},
    "partial rotation, 1/4": {"rotary": RotaryConfig("ordinal", partial=0.25)},
    "LieRE, blocks of 4": {"rotary": RotaryConfig("lie", block_size=4)},
    "LieRE, blocks of 8": {"rotary": RotaryConfig("lie", block_size=8)},
    "learned positions": {"rotary": NO_ROTATION, "encodings": ("learned",)},
    "sinusoidal positions": {"rotary": NO_ROTATION, "encodings": ("sinusoidal",)},
    "time features": {"rotary": NO_ROTATION, "encodings": ("calendar",)},
    "Time2Vec": {"rotary": NO_ROTATION, "encodings": ("time2vec",)},
    "ALiBi": {"rotary": NO_ROTATION, "bias": BiasConfig("alibi")},
    "T5 bias": {"rotary": NO_ROTATION, "bias": BiasConfig("t5")},
    "HSTU bias": {"rotary": NO_ROTATION, "bias": BiasConfig("hstu")},
    "TiSASRec": {"rotary": NO_ROTATION, "bias": BiasConfig("tisasrec")},
}


@dataclasses.dataclass(frozen=True)
class EncodingCost:
    """Time one training step of each encoding beside one of ordinal RoPE."""

    rounds: int = 31
    """Steps of each model that are timed, after one that compiles."""
    batch_size: int = 64
    """Rows of a step."""
    length: int = 50
    """Events of a row, of one user."""
    width: int = 128
    """Width of the model; the authors' small setting has 128, with 4 heads and 2 layers."""
    out: Path = Path("runs/encoding_cost.json")
    """Where the ratios are written."""


def make_batch(cost: EncodingCost) -> tuple[InputSpec, dict[str, np.ndarray]]:
    """One row a user, full, of random numbers."""
    rng = np.random.default_rng(0)
    shape = (cost.batch_size, cost.length)
    elapsed = np.cumsum(rng.integers(60, 20_000, shape), axis=1)
    day, second = split_unix_time(elapsed)
    events = {
        "segment": np.ones(shape, np.int32),
        "position": np.broadcast_to(np.arange(cost.length, dtype=np.int32), shape),
        "day": day,
        "second": second,
        "elapsed": elapsed.astype(np.int32),
        "ids": np.zeros((*shape, 0), np.int32),
        "dense": rng.normal(size=(*shape, 32)).astype(np.float32),
        "actions": rng.integers(0, 2, (*shape, 3)).astype(np.float32),
        "context": rng.normal(size=(*shape, 4)).astype(np.float32),
    }
    spec = InputSpec(
        dense_names=tuple(f"feature_{index}" for index in range(32)),
        action_features=3,
        context_features=4,
        span_days=float(day.max() + 1),
        window=cost.length,
    )
    return spec, events | {"labels": rng.integers(0, 2, (*shape, 3)).astype(np.float32)}


def main(cost: EncodingCost) -> None:
    """Compiles every model, times them in turn and prints the ratios."""
    console = make_console()
    spec, batch = make_batch(cost)
    mesh = make_mesh(MeshConfig())
    batch = put_batch(mesh, batch)
    steps, states, parameters = {}, {}, {}
    for name, changes in track(MODELS.items(), description="compiling", console=console):
        model = compile_model(
            ModelConfig(width=cost.width, dropout=0.0, **changes),
            spec,
            (0.0,) * 3,
            make_optimizer(OptimizerConfig(), 100),
            mesh,
            task_weights=(1.0,) * 3,
            seed=0,
        )
        steps[name] = model.train_step
        states[name], _ = model.train_step(model.initial_state(), batch)
        parameters[name] = sum(x.size for x in jax.tree.leaves(states[name].params))
    seconds = {name: np.empty(cost.rounds) for name in MODELS}
    order = np.random.default_rng(0)
    for index in track(range(cost.rounds), description="timing", console=console):
        for name in order.permutation(list(MODELS)).tolist():
            step = steps[name]
            started = time.perf_counter()
            states[name], metrics = step(states[name], batch)
            jax.block_until_ready((states[name], metrics))
            seconds[name][index] = time.perf_counter() - started
    table = Table("encoding", "step / ordinal RoPE's", "half of the rounds", "parameters more")
    results = {}
    for name in MODELS:
        ratios = seconds[name] / seconds[ORDINAL]
        more = parameters[name] - parameters[ORDINAL]
        low, median, high = np.quantile(ratios, (0.25, 0.5, 0.75)).tolist()
        results[name] = {"ratio": median, "quartiles": [low, high], "parameters": more}
        table.add_row(name, f"{median:.2f}", f"{low:.2f} to {high:.2f}", f"{more:,}")
    console.print(table)
    console.print(f"ordinal RoPE: {np.median(seconds[ORDINAL]):.3f} s a step")
    cost.out.parent.mkdir(parents=True, exist_ok=True)
    cost.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main(tyro.cli(EncodingCost))
