"""The paper's claims, each as comparisons of variants, and the verdict that the cards give."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import numpy as np
import scipy.stats

from experiments.evidence.results import Results, passing
from experiments.evidence.statistics import Difference
from experiments.evidence.tables import markdown, said
from experiments.evidence.variants import (
    EMBEDDING,
    ORDINAL,
    PUBLISHED,
    RECOMMENDED,
    RELU,
    SCALAR,
    SEMANTIC,
    SINE,
    TO_ROPE,
)

Evidence = Mapping[str, Mapping[str, Results]]  # grid -> log -> results
_SMALL = 0.002  # of NE: a difference that no user would notice


@dataclasses.dataclass(frozen=True)
class Claim:
    """One claim.

    Args:
      text: the claim.
      grid: grid whose cards decide.
      variant: variant that is said to be better in NE.
      base: variant that it is compared with.
      better: whether the claim is that the variant is better, or that it is not.
    """

    text: str
    grid: str
    variant: str
    base: str
    better: bool = True


CLAIMS = (
    Claim("1. Rotation beats the embedding for the same time signals", "main", RECOMMENDED, EMBEDDING),
    Claim("1. The same with the start as published", "main", PUBLISHED, EMBEDDING),
    Claim("1. The same if the head does not know the hour", "calendar", RECOMMENDED, EMBEDDING),
    Claim("SIREN-RoPE, as published, beats ordinal RoPE", "main", PUBLISHED, ORDINAL),
    Claim("SIREN-RoPE, as recommended, beats ordinal RoPE", "main", RECOMMENDED, ORDINAL),
    Claim("2. TO-RoPE does not beat ordinal RoPE", "main", TO_ROPE, ORDINAL, better=False),
    Claim("3. Cyclical inputs beat a scalar", "ablation", PUBLISHED, SCALAR),
    Claim("4. The sine branch alone is worse than ordinal RoPE", "ablation", ORDINAL, SINE),
    Claim("5. The ReLU branch alone has a lower NE than both", "ablation", RELU, PUBLISHED),
    Claim("7. Semantic rotation does not beat ordinal RoPE", "ablation", SEMANTIC, ORDINAL, better=False),
)

Verdict = Literal["supported", "not supported", "depends on the log", "not decidable", "no cards yet"]


def verdict_of(differences: Mapping[str, Difference], *, better: bool) -> Verdict:
    """Returns whether differences to a base support the claim that a variant is better, or that it is not.

    A log speaks for "better" if its difference is below 0 and passes Holm's procedure over the logs, and against it if
    it is above 0 and passes, or if its whole interval lies above minus the smallest difference of interest.
    """
    if not differences:
        return "no cards yet"
    passed = passing(differences)
    lower = {log for log, one in differences.items() if passed[log] and one.value < 0}
    no_lower = {log for log, one in differences.items() if one.low > -_SMALL or (passed[log] and one.value > 0)} - lower
    if lower and no_lower:
        return "depends on the log"
    if lower:
        return "supported" if better else "not supported"
    if no_lower:
        return "not supported" if better else "supported"
    return "not decidable"


def verdict_table(evidence: Evidence) -> str:
    """Makes a row for each claim: the difference on each log, bold if it passes over the logs, and the verdict."""
    rows = []
    for claim in CLAIMS:
        differences = {
            log: one
            for log, results in evidence[claim.grid].items()
            if (one := results.difference(claim.variant, claim.base)) is not None
        }
        passed = passing(differences)
        shown = "; ".join(f"{log} {said(one, passed=passed[log])}" for log, one in differences.items())
        rows.append([claim.text, shown, verdict_of(differences, better=claim.better)])
    rows.append(_ranking(evidence["ablation"]))
    return markdown(["claim", "NE of the first less the second (95 %)", "verdict"], rows)


def _ranking(found: Mapping[str, Results]) -> list[str]:
    """Makes the row of the claim on AUC, whose intervals are Student's t over the paired seeds."""
    shown, signs = [], []
    for log, results in found.items():
        both, one = (_mean_auc(results, name) for name in (PUBLISHED, RELU))
        if len(shared := sorted(both.keys() & one.keys())) > 1:
            less = np.array([both[seed] - one[seed] for seed in shared])
            half = float(scipy.stats.t(len(less) - 1).ppf(0.975) * less.std(ddof=1) / np.sqrt(len(less)))
            shown.append(f"{log} AUC {less.mean():+.4f} ({less.mean() - half:+.4f} to {less.mean() + half:+.4f})")
            signs.append(0 if abs(less.mean()) < half else np.sign(less.mean()))
    verdict = "no cards yet" if not signs else "not decidable"
    if any(signs):
        verdict = "supported" if max(signs) > 0 else "not supported"
        verdict = "depends on the log" if {-1, 1} <= {*signs} else verdict
    return ["6. Both branches rank better than the ReLU branch alone", "; ".join(shown), verdict]


def _mean_auc(results: Results, variant: str) -> dict[int, float]:
    return {
        seed: float(np.mean([card["metrics"][task]["auc"] for task in results.tasks]))
        for seed, card in results.cards.get(variant, {}).items()
    }


def learned_table(found: Mapping[str, Results]) -> str:
    """Makes the table of what the angle networks learn: the last gate, and the mean cosine at chosen lags."""
    rows = []
    for log, results in found.items():
        for name in (PUBLISHED, RECOMMENDED):
            of_seeds = results.cards.get(name, {}).values()
            cosines = [card["mean_cosine"] for card in of_seeds if len(card["mean_cosine"] or ()) > 168]
            gates = [gate[-1][1] for card in of_seeds if (gate := card["curves"].get("gate"))]
            if cosines and gates:
                at = [f"{np.mean([cosine[hours] for cosine in cosines]):.2f}" for hours in (12, 24, 60, 84, 168)]
                rows.append([log, name, f"{min(gates):.2f} to {max(gates):.2f}", *at])
    return markdown(["log", "", "gate at the end", "12 h", "24 h", "2.5 d", "3.5 d", "7 d"], rows)
