"""Metrics of the order of predictions within groups, such as the candidates of one request."""

import numpy as np
import polars as pl
from jaxtyping import Float, Float64, Shaped

from siren_rope_jax.train.metrics import check_events, grouped_auc

CUTOFFS = (5, 10)
RANKING = {f"{name.lower()}@{k}": f"{name}@{k}" for name in ("NDCG", "recall") for k in CUTOFFS}
"""Name of each metric -> its title."""
RANKING |= {"mrr": "MRR", "group_auc": "AUC of groups"}


def ranking_metrics(
    labels: Float[np.ndarray, " E"], scores: Float[np.ndarray, " E"], group: Shaped[np.ndarray, " E"]
) -> dict[str, float | int | None]:
    """Computes how well scores order the events of each group, averaged over groups.

    Only groups with a positive and a negative count, since any order is right in the others. Events of equal scores are
    in random order: each metric is its expectation over these orders, so that the order of rows cannot matter.

    Args:
      labels: 0 or 1, NaN where the outcome was not observed. A label between 0 and 1 is a gain of that size, and is
        positive from .5 on.
      scores: score of every event.
      group: group of each event, as a code or an id.

    Returns:
      For k of `CUTOFFS`, `ndcg@k` (gain = label, discount 1 / log2(rank + 1)) and `recall@k` (share of the group's
      positives among its first k); `mrr` (1 / rank of the first positive); `group_auc` (AUC within groups, weighted by
      their events); and the number of `groups`. All but the last are None if no group counts.

    Raises:
      ValueError: if shapes differ.

    Source: Järvelin and Kekäläinen 2002; ties as McSherry and Najork 2008.
    """
    check_events("scores", scores, labels.shape)
    check_events("group", group, labels.shape)
    seen = ~np.isnan(labels)
    _, code = np.unique(group[seen], return_inverse=True)
    events = pl.DataFrame({"group": code, "score": scores[seen], "gain": labels[seen].astype(np.float64)})
    hits = (pl.col("gain") >= 0.5).sum()
    events = events.filter(((hits > 0) & (hits < pl.len())).over("group"))
    if events.is_empty():
        return dict.fromkeys(RANKING) | {"groups": 0}
    ties = (
        events.group_by("group", "score")
        .agg(pl.col("gain").sum(), hits=hits, n=pl.len().cast(pl.Int64))
        .sort("group", "score", descending=[False, True])
        .with_columns(before=pl.col("n").cum_sum().over("group") - pl.col("n"))
    )
    gain, n, before = (ties[name].to_numpy() for name in ("gain", "n", "before"))
    group_of_tie = np.unique(ties["group"].to_numpy(), return_inverse=True)[1]
    groups = int(group_of_tie.max()) + 1

    def per_group(values: np.ndarray, of: np.ndarray = group_of_tie) -> Float64[np.ndarray, " G"]:
        return np.bincount(of, weights=values, minlength=groups)

    best = events.sort("group", "gain", descending=[False, True])
    group_of_event = np.unique(best["group"].to_numpy(), return_inverse=True)[1]
    rank = np.arange(len(group_of_event)) - np.searchsorted(group_of_event, group_of_event)
    # Sums over the first ranks: one table for all groups.
    discounts = np.r_[0.0, np.cumsum(1 / np.log2(np.arange(int(rank.max()) + 1) + 2))]
    found: dict[str, float | int | None] = {}
    for k in CUTOFFS:
        first, last = np.minimum(before, k), np.minimum(before + n, k)
        dcg = per_group(gain / n * (discounts[last] - discounts[first]))
        ideal = per_group(best["gain"].to_numpy() * np.where(rank < k, 1 / np.log2(rank + 2), 0), group_of_event)
        found[f"ndcg@{k}"] = float((dcg / ideal).mean())
        found[f"recall@{k}"] = float((per_group(gain / n * (last - first)) / per_group(gain)).mean())
    leading = ties.filter(pl.col("hits") > 0).group_by("group", maintain_order=True).first()
    shapes = leading.group_by("before", "n", "hits").len().rows()
    found["mrr"] = sum(_first_hit(before, n, hits) * count for before, n, hits, count in shapes) / groups
    found["group_auc"] = grouped_auc(*(events[name].to_numpy() for name in ("gain", "score", "group")))
    return {name: found[name] for name in RANKING} | {"groups": groups}


def _first_hit(before: int, n: int, hits: int) -> float:
    """Returns the expected 1 / rank of the first of `hits` among `n` events in random order, after `before` others."""
    place = np.arange(n - hits + 1)
    following = (n - place - hits) / np.maximum(n - place - 1, 1)  # P(first at place + 1) / P(first at place)
    chance = hits / n * np.r_[1.0, np.cumprod(following[:-1])]
    return float((chance / (before + place + 1)).sum())
