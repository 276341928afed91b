"""What FSRS, a model of memory, predicts for reviews of cards: the rival to beat on the log of reviews."""

from datetime import UTC
from typing import Any

import numpy as np
import polars as pl
from sklearn.linear_model import LogisticRegression

from siren_rope_jax.data.event_log import EventLog
from siren_rope_jax.data.periods import TEST, TRAIN
from siren_rope_jax.train.metrics import task_metrics

_CLIP = 0.01  # FSRS counts whole days: on the same day it is certain of a recall


def fsrs_metrics(log: EventLog) -> dict[str, Any]:
    """Evaluates FSRS at its default parameters on the test reviews.

    The retrievability at the time of a review depends on earlier reviews of the card and on their grades alone. A first
    review, of which FSRS says nothing, has the training rate of first reviews.

    Args:
      log: a log that `prepare_reviews` described.

    Returns:
      Metrics of "FSRS", its predictions as they are, within .01 and .99, and of "FSRS, calibrated": its log-odds and
      whether the review is a first one, in a logistic regression fitted in training.

    Source: package fsrs (Ye et al. 2022, doi 10.1145/3534678.3539081).
    """
    from fsrs import Card, Rating, Scheduler  # of the extra "experiments"

    table = pl.read_csv(log.spec.files[0]).with_columns(pl.col("review_time").str.to_datetime(time_zone="UTC"))[log.row]
    scheduler = Scheduler(enable_fuzzing=False)
    cards: dict[int, Card] = {}
    known = np.full(len(table), np.nan)
    for i, (card_id, rating, when) in enumerate(table.select("card_id", "review_rating", "review_time").iter_rows()):
        if card_id in cards:
            known[i] = scheduler.get_card_retrievability(cards[card_id], when.astimezone(UTC))
        card = cards.get(card_id, Card(card_id=card_id))
        cards[card_id], _ = scheduler.review_card(card, Rating(rating), when.astimezone(UTC))
    recalled, training, test = log.labels[:, 0], log.period == TRAIN, log.period == TEST
    first = np.isnan(known)
    plain = np.clip(np.where(first, recalled[training & first].mean(), known), _CLIP, 1 - _CLIP)
    inputs = np.stack([np.log(plain / (1 - plain)), first], axis=1)
    calibrated = LogisticRegression(C=1e6).fit(inputs[training], recalled[training]).predict_proba(inputs)[:, 1]
    return {
        name: {"test": {"recalled": task_metrics(recalled[test], predicted[test], log.user[test])}}
        for name, predicted in (("FSRS", plain), ("FSRS, calibrated", calibrated))
    }
