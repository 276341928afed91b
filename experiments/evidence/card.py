"""Result cards: what one training has reached, in one small file that needs neither the log nor the machine.

Intervals resample users. A card keeps sums over groups of users, which a hash of the user's id assigns: a few hundred
groups give the variance that single users would, to some five per cent, and fit into a file that can be committed.
"""

import base64
import dataclasses
import json
import subprocess
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from experiments.demo import read_probabilities
from experiments.evidence.grid import digest, stated
from experiments.evidence.logs import LogSource
from siren_rope_jax.data.event_log import EventLog
from siren_rope_jax.data.fingerprint import fingerprint
from siren_rope_jax.data.periods import TEST
from siren_rope_jax.data.stable_hash import stable_hash
from siren_rope_jax.nn.rotary import SirenRotary
from siren_rope_jax.report.rotation import mean_cosine
from siren_rope_jax.train.audit import audit
from siren_rope_jax.train.baselines import fit_baselines
from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.metrics import cross_entropy
from siren_rope_jax.train.session import load

CARDS = Path(__file__).parents[1] / "results" / "cards"
GROUPS = 400
_LAG_HOURS = 14 * 24 + 1


def grouped(log: EventLog, columns: Float[np.ndarray, "E K"]) -> Float[np.ndarray, "K G"]:
    """Sums columns over the test events of each group of users; NaN counts as 0."""
    group = (stable_hash(log.user_ids, "group") % np.uint64(GROUPS)).astype(np.int64)[log.user[log.period == TEST]]
    return np.stack([np.bincount(group, np.nan_to_num(column), GROUPS) for column in columns.T])


def losses_of(truth: Float[np.ndarray, "E K"], probabilities: Float[np.ndarray, "E K"]) -> Float[np.ndarray, "E K"]:
    """Computes the cross-entropy of each event and task against labels, or against true probabilities."""
    return np.where(np.isnan(truth), np.nan, cross_entropy(np.nan_to_num(truth), probabilities))


def log_file(cards: Path, log: str) -> Path:
    """Returns the file of a log's card."""
    return cards / log / "log.json"


def card_file(cards: Path, log: str, config: TrainConfig) -> Path:
    """Returns the file of the card of a run: grids that share a run share its card."""
    return cards / log / f"{digest(config)}.json"


def make_log_card(log: EventLog, truth: Float[np.ndarray, "E K"], source: LogSource) -> dict[str, Any]:
    """Makes the card of a log: what all cards of its runs share, and what a reader asks about the log itself.

    Args:
      log: the log.
      truth: labels or true probabilities of the test events.
      source: where it comes from.

    Returns:
      "tasks", "data", "events" and "positives" of each group of users; for a simulated log "oracle", its losses; for
      others "baselines", what boosting, logistic regression and the log's own rival reach on the same events, and
      "audit" for leaks.
    """
    card = {
        "tasks": list(log.task_names),
        "data": fingerprint(log),
        "events": packed(grouped(log, np.where(np.isnan(truth), np.nan, 1.0))),
        "positives": packed(grouped(log, truth)),
    }
    if source.truth:
        return card | {"oracle": packed(grouped(log, losses_of(truth, truth)))}
    baselines = fit_baselines(log, source.config.inputs)["baselines"] | source.rival(log)
    return card | {"baselines": baselines, "audit": [dataclasses.asdict(finding) for finding in audit(log)]}


def make_card(
    run: Path,
    log: EventLog,
    truth: Float[np.ndarray, "E K"],
    config: TrainConfig,
    *,
    command: str,
    curves: dict[str, list[list[float]]],
) -> dict:
    """Makes the card of a finished run.

    Args:
      run: its folder.
      log: its log.
      truth: labels or true probabilities of the test events.
      config: settings that it was asked to train with.
      command: command that trained it.
      curves: what the rotation logged during training: name -> a row [step, value, ...] each.
    """
    described = json.loads((run / "config.json").read_text())
    training = json.loads((run / "training.json").read_text())
    metrics = json.loads((run / "metrics.json").read_text())
    return {
        "command": command,
        "commit": _git("rev-parse", "--short", "HEAD") + ("+" if _git("status", "--porcelain", "-uno") else ""),
        "environment": json.loads((run / "environment.json").read_text()),
        "settings": stated(config),
        "data": described["data"]["digest"],
        "seconds": training["seconds"],  # over all interruptions
        "steps": training["steps"],
        "parameters": training["parameters"],
        "validation": metrics["validation"],
        "metrics": metrics["test"],
        "curves": curves,
        "mean_cosine": _mean_cosine(run),
        "losses": packed(grouped(log, losses_of(truth, read_probabilities(run, log)))),
    }


def _mean_cosine(run: Path) -> list[float] | None:
    """Returns the mean cosine of the learned angles' difference by the hour over two weeks, if time drives them."""
    model = load(run)
    if not isinstance(model.rotary, SirenRotary) or model.rotary.metadata_features:
        return None
    lags = np.arange(min(_LAG_HOURS, int(model.spec.span_days * 24)))
    return np.round(mean_cosine(model.rotary, model.spec, lags), 3).tolist()


def packed(sums: Float[np.ndarray, "K G"]) -> str:
    """Packs sums as text: float32, compressed."""
    return base64.b85encode(zlib.compress(sums.astype("<f4").tobytes(), 9)).decode()


def unpacked(text: str, tasks: int) -> Float[np.ndarray, "K G"]:
    """Returns sums that `packed` made."""
    return np.frombuffer(zlib.decompress(base64.b85decode(text)), "<f4").reshape(tasks, -1).astype(np.float64)


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=CARDS.parent, check=True)
    return done.stdout.strip()
