"""Measures the cost of each encoding of position and time in a training step, relative to ordinal RoPE.

Command: `python experiments/encoding_cost.py [--rounds 31]`.
Cost: about 5 minutes on 2 CPU cores, half of it compiling.
Expected: the column "cost" of the table in siren_rope_jax/ops/README.md. Every round times one step of each model, in
one process and in an order drawn anew, since a step is slower after one that needs much memory; a model's cost is the
median over the rounds of its time over ordinal RoPE's in the same round.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import tyro
from benchmarks.timing import alternate
from benchmarks.workload import OurModel, make_batch
from rich.progress import track
from rich.table import Table

from siren_rope_jax.nn.bias import BiasConfig
from siren_rope_jax.nn.config import ModelConfig
from siren_rope_jax.nn.rotary import LieSettings, RotaryConfig, SirenSettings, TimeOrderSettings
from siren_rope_jax.report.tables import make_console

ORDINAL = "ordinal RoPE"
NO_ROTATION = RotaryConfig("none")
MODELS: dict[str, dict] = {
    ORDINAL: {"rotary": RotaryConfig("ordinal")},
    "none": {"rotary": NO_ROTATION},
    "SIREN-RoPE": {"rotary": RotaryConfig("siren")},
    "SIREN-RoPE per head": {"rotary": RotaryConfig("siren", siren=SirenSettings(per_head=True))},
    "TO-RoPE, early fusion": {"rotary": RotaryConfig("time_order")},
    "TO-RoPE by dimension": {"rotary": RotaryConfig("time_order", time_order=TimeOrderSettings("by_dim"))},
    "TO-RoPE by head": {"rotary": RotaryConfig("time_order", time_order=TimeOrderSettings("by_head"))},
    "semantic rotation": {"rotary": RotaryConfig("siren", siren=SirenSettings((), ("feature_0",)))},
    "content angles": {"rotary": RotaryConfig("ordinal", content_bound=np.pi)},
    "learned frequencies": {"rotary": RotaryConfig("ordinal", learned_frequencies=True)},
    "xPos": {"rotary": RotaryConfig("ordinal", xpos_base=512.0)},
    "partial rotation, 1/4": {"rotary": RotaryConfig("ordinal", partial=0.25)},
    "LieRE, blocks of 4": {"rotary": RotaryConfig("lie", lie=LieSettings(4))},
    "LieRE, blocks of 8": {"rotary": RotaryConfig("lie", lie=LieSettings(8))},
    "RoTE": {"rotary": RotaryConfig("rote")},
    "time scales": {"rotary": RotaryConfig("time_scales")},
    "several axes": {"rotary": RotaryConfig("axes")},
    "p-RoPE, 3/4": {"rotary": RotaryConfig("ordinal", partial=0.75, proportional=True)},
    "PoPE": {"rotary": RotaryConfig("pope")},
    "Selective RoPE": {"rotary": RotaryConfig("selective")},
    "temperature": {"rotary": RotaryConfig("ordinal"), "temperature": "learned_log_length"},
    "late logs": {"rotary": RotaryConfig("ordinal"), "hide_within": 3_600},
    "learned positions": {"rotary": NO_ROTATION, "encodings": ("learned",)},
    "sinusoidal positions": {"rotary": NO_ROTATION, "encodings": ("sinusoidal",)},
    "time features": {"rotary": NO_ROTATION, "encodings": ("calendar",)},
    "Time2Vec": {"rotary": NO_ROTATION, "encodings": ("time2vec",)},
    "ALiBi": {"rotary": NO_ROTATION, "bias": BiasConfig("alibi")},
    "T5 bias": {"rotary": NO_ROTATION, "bias": BiasConfig("t5")},
    "HSTU bias": {"rotary": NO_ROTATION, "bias": BiasConfig("hstu")},
    "time decay, power": {"rotary": NO_ROTATION, "bias": BiasConfig("time_decay")},
    "damped waves": {"rotary": NO_ROTATION, "bias": BiasConfig("periodic")},
    "FoX": {"rotary": NO_ROTATION, "bias": BiasConfig("forgetting")},
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
    """JSON file for the ratios."""


def main(cost: EncodingCost) -> None:
    """Compiles every model, times them in turn and prints the ratios."""
    console = make_console()
    spec, batch = make_batch(np.ones((cost.batch_size, cost.length), np.int32))
    models = {}
    for name, changes in track(MODELS.items(), description="compiling", console=console):
        models[name] = OurModel(ModelConfig(width=cost.width, dropout=0.0, **changes), spec, batch)
        models[name].train()
    seconds = alternate({name: model.train for name, model in models.items()}, cost.rounds)
    table = Table("encoding", "step / ordinal RoPE's", "half of the rounds", "parameters more")
    results = {}
    for name in MODELS:
        ratios = seconds[name] / seconds[ORDINAL]
        more = models[name].parameters - models[ORDINAL].parameters
        low, median, high = np.quantile(ratios, (0.25, 0.5, 0.75)).tolist()
        results[name] = {"ratio": median, "quartiles": [low, high], "parameters": more}
        table.add_row(name, f"{median:.2f}", f"{low:.2f} to {high:.2f}", f"{more:,}")
    console.print(table)
    console.print(f"ordinal RoPE: {np.median(seconds[ORDINAL]):.3f} s a step")
    cost.out.parent.mkdir(parents=True, exist_ok=True)
    cost.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main(tyro.cli(EncodingCost))
