"""The training loop around the compiled step: time added by the host to each step."""

import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from benchmarks.timing import Row
from benchmarks.workload import LARGE
from rich.console import Console
from rich.progress import track

from siren_rope_jax.data import (
    BatchConfig,
    EventLog,
    SimulatorConfig,
    batches,
    make_rows,
    read_event_log,
    simulate,
    write_simulated_log,
)
from siren_rope_jax.data.periods import TRAIN
from siren_rope_jax.nn.config import ModelConfig
from siren_rope_jax.train import TrainConfig, train
from siren_rope_jax.train.inputs import fit_inputs
from siren_rope_jax.train.session import make_session

# Bound by the host: the step itself takes next to no time.
TINY = TrainConfig(
    steps=200,
    evaluations=1,
    model=ModelConfig(
        width=8, heads=1, layers=1, head_widths=(8,), action_widths=(8,), context_widths=(), context_dropout=0.4
    ),
    batches=BatchConfig(window=16, row_length=16, batch_size=4),
)
# Bound by the device, where it is a GPU.
ON_A_GPU = TrainConfig(
    steps=100,
    evaluations=1,
    model=LARGE.model("siren"),
    batches=BatchConfig(window=LARGE.length, row_length=LARGE.length, batch_size=LARGE.batch_size),
)


def rows(rounds: int, config: TrainConfig = TINY, *, name: str = "tiny", users: int = 60) -> list[Row]:
    """Compares the median time between two steps of `train` with the step alone, on a batch on the device."""
    with tempfile.TemporaryDirectory() as folder:
        log = read_event_log(write_simulated_log(simulate(SimulatorConfig(users=users)), Path(folder) / "feed"))
        step = _StepAlone(log, config)
        step.seconds()  # compiles
        looped, alone = [], []
        for index in track(range(rounds), description="timing", transient=True):
            alone.append(step.seconds())
            looped.append(_between_steps(log, config, Path(folder) / f"run-{index}"))
    ratios = np.array(looped) / np.array(alone)
    gap = 1000 * float(np.median(np.array(looped) - np.array(alone)))
    note = f"{1000 * float(np.median(alone)):.2f} ms alone, {gap:.2f} ms more in the loop"
    return [Row.of("loop, time of a step", f"loop / step alone, {name} model", ratios, note=note)]


def _between_steps(log: EventLog, config: TrainConfig, run: Path) -> float:
    times: list[float] = []
    hook = lambda _: times.append(time.perf_counter())  # noqa: E731
    train(log, config, run, console=Console(quiet=True), hooks=[hook])
    return float(np.median(np.diff(times)[len(times) // 4 :]))


class _StepAlone:
    def __init__(self, log: EventLog, config: TrainConfig):
        assert config.steps
        self._steps = config.steps
        encoder, encoded = fit_inputs(log, config.inputs)
        packed = make_rows(encoded, log.period[encoded.log_index] == TRAIN, config.batches)
        session = make_session(encoder, config, steps=self._steps)
        self._step, self._state = session.model.train_step, session.model.initial_state()
        batch = next(iter(batches(encoded, packed, config.batches, seed=0)))
        self._batch = session.layout.put_batch(batch, config.batches.rows)

    def seconds(self) -> float:
        started = time.perf_counter()
        for _ in range(self._steps):
            self._state, _ = self._step(self._state, self._batch)
        jax.block_until_ready(self._state)
        return (time.perf_counter() - started) / self._steps
