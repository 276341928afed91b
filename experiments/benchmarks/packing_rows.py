"""Events trained per second: our packed rows against PyTorch's batches padded to 64, at the lengths of real logs."""

import tempfile
from pathlib import Path

import numpy as np
from benchmarks.input_pipeline import write_csv_log
from benchmarks.model_rows import HAS_TORCH
from benchmarks.timing import Row, alternate
from benchmarks.workload import SMALL, OurModel, make_batch

from siren_rope_jax.data.batches import pack_rows
from siren_rope_jax.data.encode import Encoder, InputConfig
from siren_rope_jax.data.event_log import read_event_log
from siren_rope_jax.data.periods import TRAIN
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.data.windows import Windows, plan_windows

PADDED_TO, ROW_LENGTH = 64, 128


def lengths_of(log_toml: Path) -> np.ndarray:
    """Returns the lengths of the windows that `train` would cut from a log's training events."""
    log = read_event_log(EventLogSpec.from_toml(log_toml))
    _, encoded = Encoder.fit_encode(log, InputConfig())
    wanted = (log.period == TRAIN)[encoded.log_index]
    return plan_windows(encoded, wanted, window=PADDED_TO, history=PADDED_TO // 2, row_length=ROW_LENGTH).lengths


def all_logs(logs: tuple[Path, ...], rounds: int) -> list[Row]:
    """Times the lengths of the given logs, or of a simulated feed if there are none."""
    if logs:
        return [row for log in logs for row in packing(log.parent.name, lengths_of(log), rounds)]
    with tempfile.TemporaryDirectory() as folder:
        feed = write_csv_log(Path(folder), events=100_000)
        return packing("simulated feed", lengths_of(feed), rounds)


def packing(name: str, lengths: np.ndarray, rounds: int, *, slots: int = 8192) -> list[Row]:
    """Times one step over the same number of slots, packed and padded, in our model and in PyTorch's.

    Args:
      name: of the log.
      lengths: of its windows.
      rounds: timed rounds.
      slots: of a batch, in either layout.
    """
    lengths = np.random.default_rng(0).permutation(lengths)
    padded = np.zeros((slots // PADDED_TO, PADDED_TO), np.int32)
    for row, length in zip(padded, lengths, strict=False):
        row[:length] = 1
    ends = np.cumsum(lengths)
    starts, ends = (ends - lengths).astype(np.int32), ends.astype(np.int32)
    every = np.ones(ends[-1], bool)
    rows = pack_rows(
        Windows(starts, starts, starts, ends), every, np.arange(ends[-1], dtype=np.int32), ROW_LENGTH, seed=0
    )
    packed = np.random.default_rng(1).permutation(rows.segment)[: slots // ROW_LENGTH]  # packed longest first
    ours = {
        where: OurModel(SMALL.model("ordinal"), *make_batch(s)) for where, s in (("packed", packed), ("padded", padded))
    }
    functions = {where: model.train for where, model in ours.items()}
    if HAS_TORCH:
        from benchmarks.torch_model import TorchModel

        functions["PyTorch"] = TorchModel(SMALL, make_batch(padded)[1]).train
    seconds = alternate(functions, rounds, warmup=2)
    gain = (packed != 0).sum() / (padded != 0).sum()
    fill = f"{rows.fill:.0%} of all slots filled, padded {np.minimum(lengths, PADDED_TO).mean() / PADDED_TO:.0%}"
    group = "useful events a second"
    result = [
        Row.of(group, f"ours packed / ours padded, {name}", gain * seconds["padded"] / seconds["packed"], note=fill)
    ]
    if "PyTorch" in seconds:
        ratios = gain * seconds["PyTorch"] / seconds["packed"]
        result.append(Row.of(group, f"ours packed / PyTorch padded, {name}", ratios, target=">= 3"))
    return result
