"""Trains the cells of a grid that have no result card of their settings yet, and leaves a card of each.

Command: `python -m experiments.run main [--data DIR] [--jobs 2] [--only feed "ordinal RoPE"]`; it can be stopped at any
time, and goes on where it was. `python -m experiments.report main` makes the tables from the cards.

A cell that fails is reported at the end, and costs no other.
"""

import dataclasses
import functools
import json
import multiprocessing
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console

from experiments.evidence.card import CARDS, card_file, log_file, make_card, make_log_card
from experiments.evidence.grid import Cell, digest, read_grid
from experiments.evidence.logs import LOGS, read_log
from siren_rope_jax.cli import keep_memory
from siren_rope_jax.data.fingerprint import fingerprint
from siren_rope_jax.errors import InputError, Interrupted
from siren_rope_jax.report.tables import make_console
from siren_rope_jax.train.durable import write_json
from siren_rope_jax.train.hooks import StepReport
from siren_rope_jax.train.loop import train


@dataclasses.dataclass(frozen=True)
class Run:
    """Train the cells of a grid that have no result card yet."""

    grid: tyro.conf.Positional[str]
    """Name of a module of experiments.grids."""
    data: Path = Path("data")
    """Folder of the published logs: deskdrop/, kuairand_pure_slice/data/, noshow/, reviews/."""
    only: tuple[str, ...] = ()
    """Logs and variants to train; all of those of which none is named."""
    seeds: int | None = None
    """Seeds to train, 0 on; those of the grid if not given."""
    jobs: int = 1
    """Cells to train at a time, each on its share of the processors."""
    out: Path = Path("runs/grids")
    """Folder of the prepared logs and the runs."""
    cards: Path = CARDS
    """Folder of the cards."""


def wanted_cells(run: Run) -> list[Cell]:
    """Returns the cells of a grid that are asked for and have no card.

    Raises:
      InputError: if a name is none of the grid's.
    """
    grid = read_grid(run.grid)
    names = set(grid.logs) | set(grid.variants)
    if unknown := set(run.only) - names:
        raise InputError(f"only must hold names of {', '.join(sorted(names))}, but holds {', '.join(sorted(unknown))}")
    logs = set(run.only) & set(grid.logs) or set(grid.logs)
    variants = set(run.only) & set(grid.variants) or set(grid.variants)
    return [
        cell
        for cell in dataclasses.replace(grid, seeds=run.seeds or grid.seeds).cells()
        if cell.log in logs
        and cell.variant in variants
        and not card_file(run.cards, cell.log, grid.config(cell)).exists()
    ]


def _folder(run: Run, log: str) -> Path:
    """Returns the folder of a prepared log, "log", and of its runs."""
    return run.out / log.replace(" ", "-")


def prepare_log(run: Run, name: str) -> None:
    """Prepares a log and writes its card, unless both are there.

    Raises:
      InputError: if there is a card, but of other events.
    """
    card, folder = log_file(run.cards, name), _folder(run, name) / "log"
    if card.exists() and (folder / "log.toml").exists():
        return
    log, truth = read_log(name, run.data, folder)
    if not card.exists():
        card.parent.mkdir(parents=True, exist_ok=True)
        write_json(card, make_log_card(log, truth, LOGS[name]))
    elif (known := json.loads(card.read_text())["data"]) != (here := fingerprint(log)):
        (folder / "log.toml").unlink()  # so that the next call looks again
        raise InputError(f"{name} must hold the events of its cards, {known}, but holds {here}")


class Curves:
    """Keeps what a rotation logs, at steps 1, 2, 4, ... and then every fiftieth step: gate, scales."""

    def __init__(self) -> None:
        self.points: dict[str, list[list[float]]] = {}

    def __call__(self, report: StepReport) -> None:
        """Takes the values of a step."""
        if report.step % 50 and report.step & (report.step - 1):
            return
        for name, value in report.metrics.items():
            if name.startswith("rotary/"):
                kept = [report.step, *(round(float(x), 4) for x in np.ravel(value))]
                self.points.setdefault(name.removeprefix("rotary/"), []).append(kept)


_read_log = functools.lru_cache(1)(read_log)


def train_cell(run: Run, cell: Cell) -> float:
    """Trains one cell, writes its card, and returns the seconds that it took."""
    started = time.monotonic()
    log, truth = _read_log(cell.log, run.data, _folder(run, cell.log) / "log")
    config = read_grid(run.grid).config(cell)
    folder, card = _folder(run, cell.log) / digest(config), card_file(run.cards, cell.log, config)
    console = make_console() if run.jobs == 1 else Console(quiet=True)
    curves = Curves()
    train(log, config, folder, console=console, hooks=[curves])
    command = ["python", "-m", "experiments.run", run.grid, "--only", cell.log, cell.variant]
    made = make_card(folder, log, truth, config, command=shlex.join(command), curves=curves.points)
    write_json(card, made)
    return time.monotonic() - started


def outcomes(run: Run, cells: list[Cell]) -> Iterator[tuple[Cell, float | Exception]]:
    """Trains cells and yields each with its seconds, or with what went wrong."""
    if run.jobs == 1:
        for cell in cells:
            try:
                yield cell, train_cell(run, cell)
            except Interrupted:
                raise
            except Exception as error:  # costs this cell alone
                yield cell, error
        return
    context = multiprocessing.get_context("spawn")
    turns = context.Value("i", 0)
    with ProcessPoolExecutor(run.jobs, context, initializer=_take_processors, initargs=(turns, run.jobs)) as pool:
        futures = {pool.submit(_train_in_worker, run, cell): cell for cell in cells}
        try:
            for future in as_completed(futures):
                error = future.exception()
                if isinstance(error, Interrupted):
                    raise error
                yield futures[future], error if isinstance(error, Exception) else future.result()
        except BaseException:
            for worker in multiprocessing.active_children():
                worker.terminate()  # a training then saves its work and stops
            raise
        finally:
            pool.shutdown(cancel_futures=True)


_stopped: Interrupted | None = None


def _train_in_worker(run: Run, cell: Cell) -> float:
    """Trains one cell; a worker that was told to stop trains none of those that it has been sent already."""
    global _stopped
    if _stopped is not None:
        raise _stopped
    try:
        return train_cell(run, cell)
    except Interrupted as interrupted:
        _stopped = interrupted
        raise


def _take_processors(turns: Any, jobs: int) -> None:
    """Leaves a worker its share of the processors: JAX starts as many threads as it may use."""
    with turns.get_lock():
        turn, turns.value = turns.value, turns.value + 1
    processors = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, processors[turn % jobs :: jobs] or processors)


def main(run: Run) -> int:
    """Trains the cells, says how long the others will take, and returns the number of those that failed."""
    console, cells, failed, total = make_console(), wanted_cells(run), [], 0.0
    console.print(f"{run.grid}: {len(cells)} cells to train; {read_grid(run.grid).question}")
    for log in dict.fromkeys(cell.log for cell in cells):
        console.print(f"preparing {log}")
        prepare_log(run, log)
    for done, (cell, outcome) in enumerate(outcomes(run, cells), start=1):
        if isinstance(outcome, Exception):
            failed.append(cell)
            console.print(f"{cell} failed: {type(outcome).__name__}: {outcome}")
            continue
        total += outcome
        left = total / (done - len(failed)) * (len(cells) - done) / run.jobs / 60
        console.print(f"{done} of {len(cells)}: {cell}, {outcome:.0f} s; {left:.0f} minutes left")
    return len(failed)


if __name__ == "__main__":
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", "runs/compiled")  # seeds share their programs
    keep_memory()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        sys.exit(min(main(tyro.cli(Run)), 1))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except InputError as error:
        sys.exit(f"experiments.run: {error}")
    except Interrupted as interrupted:
        print(f"experiments.run: {interrupted}", file=sys.stderr)
        sys.exit(interrupted.exit_code)
