"""Probes of an audit: a model must not learn planted noise, and a prediction must depend only on its known past."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32
from sklearn.metrics import roc_auc_score

from siren_rope_jax.data.encode import Encoded, Encoder
from siren_rope_jax.data.encoder_file import encoder_parts
from siren_rope_jax.data.event_log import EventLog
from siren_rope_jax.data.periods import TEST, TRAIN
from siren_rope_jax.train.cheats import (
    CHEATS,
    Cheat,
    as_new,
    flipped,
    gathered,
    moved_within_seconds,
    rows_of,
    with_milliseconds,
    with_new,
    without_repeats,
)

Verdict = Literal["ok", "LEAK", "look at it", "inconclusive", "for information"]
TOLERANCE = 1e-6  # for sums in another order
_STANDARD_ERRORS = 4
_WANTED = 400
_FEW = 100  # test events of the rarer outcome
_SPREAD = 1e-4


@runtime_checkable
class Predict(Protocol):
    """Predictions of chosen events, as `Session.predict_targets` gives them after `Encoder.encode`."""

    def __call__(
        self, log: EventLog, wanted: Bool[np.ndarray, " E"], *, as_history: bool = False
    ) -> Float32[np.ndarray, "E K"]: ...


@dataclasses.dataclass(frozen=True)
class Audited:
    """Functions under test."""

    predict: Predict
    learn: Callable[[EventLog], Predict]
    """Function that trains a new small model."""
    fit_inputs: Callable[[EventLog], tuple[Encoder, Encoded]]
    """Function that returns everything that training reads of a log."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One row of an audit."""

    probe: str
    tried: str
    moved: str
    verdict: Verdict


def find_planted(audited: Audited, log: EventLog) -> Iterator[Finding]:
    """Trains on planted outcomes that no honest model can predict, and measures how well the test is predicted."""
    for seed, plant in enumerate(CHEATS):
        yield find_one(audited, log, plant, seed)


def find_one(audited: Audited, log: EventLog, plant: Callable[[EventLog, int], Cheat], seed: int = 0) -> Finding:
    """Trains on one planted outcome, and measures the task, one of each kind, that predicts it best."""
    cheat = plant(log, seed)
    labels = cheat.log.labels[cheat.scored, 0]
    positives, events = int(labels.sum()), len(labels)
    said = (plant.__doc__ or "").partition("\n")[0].rstrip(".")
    finding = Finding("planted", said, "", "inconclusive")
    if min(positives, events - positives) < _FEW:
        return dataclasses.replace(finding, moved=f"only {events:,} test events, {positives:,} of them clicked")
    predicted = audited.learn(cheat.log)(cheat.log, cheat.scored)[cheat.scored]
    kinds = [signal.kind for signal in log.spec.tasks]
    aucs = [_auc(labels, predicted[:, kinds.index(kind)]) for kind in dict.fromkeys(kinds)]
    auc = max(aucs, key=lambda auc: abs(auc - 0.5) if np.isfinite(auc) else np.inf)
    error = np.sqrt((events + 1) / (12 * positives * (events - positives)))
    return dataclasses.replace(
        finding,
        moved=f"test AUC {auc:.4f} of {events:,} events, {(auc - 0.5) / error:+.1f} standard errors of {error:.4f}",
        verdict="ok" if abs(auc - 0.5) <= _STANDARD_ERRORS * error else "LEAK",
    )


def _auc(labels: Float32[np.ndarray, " N"], predicted: Float32[np.ndarray, " N"]) -> float:
    return float(roc_auc_score(labels, predicted)) if np.isfinite(predicted).all() else np.nan


def change_the_future(audited: Audited, log: EventLog) -> Iterator[Finding]:
    """Flips all outcomes that are not known yet at two moments, then removes all later events."""
    log = gathered(log)
    second, known = log.time_ms // 1000, -(-log.action_known // 1000)
    flips, removals, predictions = [], [], []
    for share in (0.5, 0.9):
        now = second[int(share * len(second))]
        wanted = _last(second <= now)
        before = audited.predict(log, wanted)[wanted]
        late = second >= now
        other = flipped(log, late, (known > now) | late[:, None])
        flips.append(audited.predict(other, wanted)[wanted] - before)
        kept = np.flatnonzero(second <= now)
        removals.append(audited.predict(rows_of(log, kept), wanted[kept])[wanted[kept]] - before)
        predictions.append(before)
    yield _moved("future", "every outcome that is not known yet is flipped", flips, predictions)
    yield _moved("future", "every later event is removed", removals, predictions)


def change_what_training_must_not_see(audited: Audited, log: EventLog) -> Iterator[Finding]:
    """Flips every outcome after the training period, after which no bit that training reads may change.

    The log is split by time here: in a split by users, other users' outcomes are legitimate history.
    """
    second = log.time_ms // 1000
    later = second >= second[int(0.7 * len(second))]
    log = dataclasses.replace(log, period=np.where(later, TEST, TRAIN).astype(np.int8))
    actions = np.repeat(later[:, None], log.actions.shape[1], axis=1)
    seen, other = (_training_inputs(one, *audited.fit_inputs(one)) for one in (log, flipped(log, later, actions)))
    changed = [name for name in seen if not _same(seen[name], other[name])]
    yield Finding(
        "split",
        f"the outcomes of the last {later.mean():.0%} of the events are flipped",
        f"{', '.join(changed) or 'nothing'} of what training reads: {len(seen)} arrays and settings",
        "LEAK" if changed else "ok",
    )


def permute_ties(audited: Audited, log: EventLog) -> Iterator[Finding]:
    """Permutes the rows of each second, then draws new times within each second."""
    log = gathered(log)
    yield _in_other_rows(audited, log, moved_within_seconds(log, seed=1), "the rows of each second are permuted", 0)
    # Removes items shown twice in a second: a hash of the time decides legitimately which of the two a window keeps.
    log = without_repeats(log, log.time_ms)
    log = dataclasses.replace(log, row=np.arange(len(log.time_ms)))
    drawn = with_milliseconds(log, np.random.default_rng(2).integers(0, 1000, len(log.time_ms)))
    yield _in_other_rows(audited, log, drawn, "the milliseconds of each event are drawn again", TOLERANCE)


def _in_other_rows(audited: Audited, log: EventLog, moved: EventLog, tried: str, tolerance: float) -> Finding:
    wanted = _last(np.ones(len(log.time_ms), bool))
    before = audited.predict(log, wanted)
    after = audited.predict(moved, wanted[moved.row])
    differences = (after - before[moved.row])[wanted[moved.row]]
    return _moved("ties", tried, [differences], [before[wanted]], tolerance=tolerance)


def score_as_evaluated(audited: Audited, log: EventLog) -> Iterator[Finding]:
    """Moves the last events to a file of new events; then scores copies of them as candidates."""
    last = _last(np.ones(len(log.time_ms), bool))
    evaluated = audited.predict(log, last)
    scored = audited.predict(as_new(log, last), last, as_history=True)
    yield _moved(
        "scoring", f"the last {last.sum()} events come from a file", [(scored - evaluated)[last]], [evaluated[last]]
    )
    beside, copied = with_new(log, np.flatnonzero(last))
    alone = audited.predict(beside, beside.new)[beside.new]
    yield _moved(
        "scoring", "each of them is scored as if it were the only one", [alone - evaluated[copied]], [evaluated[last]]
    )


def score_candidates_apart(audited: Audited, log: EventLog) -> Iterator[Finding]:
    """Scores candidates in one file, some of them twice, and then some of them in separate files."""
    drawn = np.random.default_rng(3).integers(0, len(log.time_ms), _WANTED // 2)
    beside, copied = with_new(log, np.concatenate([drawn, drawn[:20]]))
    together = audited.predict(beside, beside.new)[beside.new]
    differences = []
    for index in range(0, len(copied), len(copied) // 5):
        single, _ = with_new(log, copied[index : index + 1])
        differences.append(audited.predict(single, single.new)[single.new] - together[index])
    yield _moved("scoring", f"candidates stand beside {len(copied) - 1} others", differences, [together])


PROBES: tuple[Callable[[Audited, EventLog], Iterator[Finding]], ...] = (
    find_planted,
    change_the_future,
    change_what_training_must_not_see,
    permute_ties,
    score_as_evaluated,
    score_candidates_apart,
)


def _last(chosen: Bool[np.ndarray, " E"]) -> Bool[np.ndarray, " E"]:
    """Returns the last of the chosen events, by time."""
    return chosen & (np.cumsum(chosen[::-1])[::-1] <= _WANTED)


def _moved(
    probe: str,
    tried: str,
    differences: list[np.ndarray],
    predictions: list[np.ndarray],
    *,
    tolerance: float = TOLERANCE,
) -> Finding:
    most = float(np.abs(np.concatenate(differences)).max())
    spread = float(np.concatenate(predictions).std(axis=0).min())
    verdict: Verdict = "ok" if most <= tolerance else "LEAK"  # also if NaN
    if verdict == "ok" and spread < _SPREAD:
        verdict = "inconclusive"  # a constant never moves
    count = sum(map(len, differences))
    limit = f"at most {tolerance:g}" if tolerance else "no bit"
    return Finding(probe, tried, f"{count:,} predictions by {most:.2g} ({limit}); they spread by {spread:.2g}", verdict)


def _training_inputs(log: EventLog, encoder: Encoder, encoded: Encoded) -> dict[str, np.ndarray]:
    training = (log.period == TRAIN)[encoded.log_index]
    inputs = {name: column[training] for name, column in encoded.columns.items()}
    inputs |= {"log_index": encoded.log_index[training], "user": encoded.user[training]}
    if encoded.late is not None:
        inputs |= {"known": encoded.late.known[training], "pending": encoded.late.pending}
    for name, value in encoder_parts(encoder).items():
        inputs[name] = value if isinstance(value, np.ndarray) else np.array(repr(value), object)
    return inputs


def _same(first: np.ndarray, second: np.ndarray) -> bool:
    return np.array_equal(first, second, equal_nan=first.dtype.kind == "f")
