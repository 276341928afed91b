"""Result cards: what one training has reached, in one small file that needs neither the log nor the machine.

Intervals resample users. A card keeps sums over groups of users, which a hash of the user's id assigns: a few hundred
groups give the variance that single users would, to some five per cent, and fit into a file that can be committed.
"""

import base64
import hashlib
import json
import subprocess
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from experiments.demo import read_probabilities
from siren_rope_jax.data.event_log import EventLog
from siren_rope_jax.data.periods import TEST
from siren_rope_jax.data.stable_hash import stable_hash
from siren_rope_jax.train.durable import write_json
from siren_rope_jax.train.metrics import cross_entropy

CARDS = Path(__file__).parents[1] / "results"
GROUPS = 400


def grouped(log: EventLog, columns: Float[np.ndarray, "E K"]) -> Float[np.ndarray, "K G"]:
    """Sums columns over the test events of each group of users; NaN counts as 0."""
    group = (stable_hash(log.user_ids, "group") % np.uint64(GROUPS)).astype(np.int64)[log.user[log.period == TEST]]
    return np.stack([np.bincount(group, np.nan_to_num(column), GROUPS) for column in columns.T])


def losses_of(truth: Float[np.ndarray, "E K"], probabilities: Float[np.ndarray, "E K"]) -> Float[np.ndarray, "E K"]:
    """Computes the cross-entropy of each event and task against labels, or against true probabilities."""
    return np.where(np.isnan(truth), np.nan, cross_entropy(np.nan_to_num(truth), probabilities))


def write_log_card(file: Path, log: EventLog, truth: Float[np.ndarray, "E K"], data: dict[str, Any]) -> None:
    """Writes what all cards of a log share: tasks, data, and the events and positives of each group of users."""
    oracle = grouped(log, losses_of(truth, truth)) if ((truth > 0) & (truth < 1)).any() else None
    card = {
        "tasks": list(log.task_names),
        "data": data,
        "events": packed(grouped(log, np.where(np.isnan(truth), np.nan, 1.0))),
        "positives": packed(grouped(log, truth)),
        "oracle": None if oracle is None else packed(oracle),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, card)


def make_card(run: Path, log: EventLog, truth: Float[np.ndarray, "E K"], *, command: str) -> dict:
    """Makes the card of a finished run.

    Args:
      run: its folder.
      log: its log.
      truth: labels or true probabilities of the test events.
      command: command that trained it.
    """
    described = json.loads((run / "config.json").read_text())
    settings = json.dumps(described["config"], sort_keys=True)
    training = json.loads((run / "training.json").read_text())
    return {
        "command": command,
        "commit": _git("rev-parse", "--short", "HEAD") + ("+" if _git("status", "--porcelain", "-uno") else ""),
        "environment": json.loads((run / "environment.json").read_text()),
        "settings": hashlib.sha256(settings.encode()).hexdigest()[:16],
        "model": described["config"]["model"],
        "data": described["data"]["digest"],
        "seconds": training["seconds"],  # over all interruptions
        "steps": training["steps"],
        "parameters": training["parameters"],
        "metrics": json.loads((run / "metrics.json").read_text())["test"],
        "losses": packed(grouped(log, losses_of(truth, read_probabilities(run, log)))),
    }


def packed(sums: Float[np.ndarray, "K G"]) -> str:
    """Packs sums as text: float32, compressed."""
    return base64.b85encode(zlib.compress(sums.astype("<f4").tobytes(), 9)).decode()


def unpacked(text: str, tasks: int) -> Float[np.ndarray, "K G"]:
    """Returns sums that `packed` made."""
    return np.frombuffer(zlib.decompress(base64.b85decode(text)), "<f4").reshape(tasks, -1).astype(np.float64)


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=CARDS.parent, check=True)
    return done.stdout.strip()
