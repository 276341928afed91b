"""Metrics of order within groups, against every order that ties allow, and the groups of a log."""

import itertools
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_files import START, event_table, read, refusal, write
from sklearn.metrics import ndcg_score, roc_auc_score

from siren_rope_jax.errors import InputError
from siren_rope_jax.train.criterion import choose_criterion
from siren_rope_jax.train.ranking import CUTOFFS, RANKING, ranking_metrics
from siren_rope_jax.train.tasks import tasks_of


def naive(labels, scores, group):
    """Means over groups of means over all orders in which scores do not ascend."""
    found, aucs, sizes = {name: [] for name in RANKING}, [], []
    for one in sorted(set(group)):
        own = [(s, g) for s, g, of in zip(scores, labels, group, strict=True) if of == one and not math.isnan(g)]
        positives = sum(g >= 0.5 for _, g in own)
        if not 0 < positives < len(own):
            continue
        in_order = [
            order for order in itertools.permutations(own) if all(a[0] >= b[0] for a, b in itertools.pairwise(order))
        ]
        best = sorted((g for _, g in own), reverse=True)
        for k in CUTOFFS:
            ideal = dcg(best, k)
            found[f"ndcg@{k}"].append(np.mean([dcg([g for _, g in order], k) / ideal for order in in_order]))
            share = [sum(g for _, g in order[:k]) / sum(best) for order in in_order]
            found[f"recall@{k}"].append(np.mean(share))
        first = [next(i for i, (_, g) in enumerate(order) if g >= 0.5) for order in in_order]
        found["mrr"].append(np.mean([1 / (1 + i) for i in first]))
        pairs = [
            (g * (1 - h), (s > t) + (s == t) / 2) for (s, g), (t, h) in itertools.product(own, own)
        ]  # each event is g of a positive and 1 - g of a negative one
        aucs.append(sum(mass * right for mass, right in pairs) / sum(mass for mass, _ in pairs))
        sizes.append(len(own))
    if not aucs:
        return dict.fromkeys(RANKING) | {"groups": 0}
    means = {name: float(np.mean(values)) for name, values in found.items() if values}
    return means | {"group_auc": float(np.average(aucs, weights=sizes)), "groups": len(aucs)}


def dcg(gains, k):
    return sum(gain / math.log2(rank + 2) for rank, gain in enumerate(gains[:k]))


@st.composite
def slates(draw):
    """Up to five groups of up to six events, with ties, unobserved labels and labels between 0 and 1."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))
    total = sum(sizes)
    labels = draw(st.lists(st.sampled_from([0.0, 0.0, 1.0, 0.75, math.nan]), min_size=total, max_size=total))
    scores = draw(st.lists(st.integers(0, 3), min_size=total, max_size=total))
    group = np.repeat(np.arange(len(sizes)), sizes)
    order = draw(st.permutations(range(total)))
    return tuple(np.array(x, np.float64)[list(order)] for x in (labels, scores, group))


@settings(max_examples=60)
@given(slates())
def test_metrics_are_means_over_every_order_that_ties_allow(case):
    assert ranking_metrics(*case) == pytest.approx(naive(*(column.tolist() for column in case)), abs=1e-12)


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.integers(2, 40))
def test_metrics_agree_with_scikit_learn_in_one_group(seed, size):
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.r_[0.0, 1.0, generator.integers(0, 2, size)])
    scores = generator.normal(size=len(labels)).round(1)
    found = ranking_metrics(labels, scores, np.zeros(len(labels)))
    for k in CUTOFFS:
        assert found[f"ndcg@{k}"] == pytest.approx(ndcg_score([labels], [scores], k=k))
    assert found["group_auc"] == pytest.approx(roc_auc_score(labels, scores))


def test_a_constant_score_ranks_as_chance_wherever_the_positives_stand():
    group = np.repeat(np.arange(100), 5)
    for place in range(5):
        labels = np.tile(np.arange(5) == place, 100).astype(np.float32)
        found = ranking_metrics(labels, np.full(500, 0.3, np.float32), group)
        assert found["group_auc"] == 0.5
        assert found["mrr"] == pytest.approx(np.mean([1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]))
        assert found["ndcg@5"] == pytest.approx(np.mean([1 / math.log2(rank + 2) for rank in range(5)]))
        assert found["recall@5"] == found["recall@10"] == 1


USERS, ITEMS = ["ann", "bob"], ["x", "y", "z"]


def same_partition(one, other):
    return len(set(one)) == len(set(other)) == len(set(zip(one, other, strict=True)))


def test_a_group_is_a_request_of_one_user_and_an_event_without_one_is_alone(tmp_path):
    requests = ["r1"] * 6 + ["r2"] * 6 + [None] * 4 + ["r3"] * 4
    log = read([write(event_table(USERS, ITEMS, request=requests), tmp_path / "log.csv")], log={"group": "request"})
    assert same_partition(log.group.tolist(), [(USERS[i % 2], request or i) for i, request in enumerate(requests)])


def test_events_of_one_user_and_second_may_be_the_groups(tmp_path):
    number = pl.int_range(20)
    time = START * 1000 + number // 4 * 1500 + number % 4 * 100
    table = event_table(USERS, ITEMS).with_columns(time=time)
    log = read(
        [write(table, tmp_path / "log.csv")],
        log={"group_by_second": True, "timestamp_unit": "ms"},
        split={"validation_from": 0.3, "test_from": 0.9},
    )
    expected = list(zip(log.user.tolist(), (log.time_ms // 1000).tolist(), strict=True))
    assert same_partition(log.group.tolist(), expected)


def test_new_events_need_no_group(tmp_path):
    path = write(event_table(USERS, ITEMS, request=["r1", "r2"]), tmp_path / "log.csv")
    new = write(event_table(USERS, ITEMS)[:2].with_columns(time=pl.lit(START + 10**6)), tmp_path / "new.csv")
    assert read([path], new, log={"group": "request"}).period.tolist()[-2:] == [3, 3]
    assert 'the column "request" ([log] group) is not in this file' in refusal([new], log={"group": "request"})
    assert "expected one of group and group_by_second" in refusal(
        [path], log={"group": "request", "group_by_second": True}
    )


def test_the_best_checkpoint_may_be_chosen_by_order_within_groups_where_there_are_groups(tmp_path):
    log = read([write(event_table(USERS, ITEMS, request=["r1", "r2"]), tmp_path / "log.csv")], log={"group": "request"})
    criterion = choose_criterion("click.ndcg@10", tasks_of(log), grouped=True)
    assert (criterion.maximise, criterion.title) == (True, "click NDCG@10")
    assert criterion.judge({"click": {"ndcg@10": 0.25}}).cost == -0.25
    with pytest.raises(InputError, match="best_by must be mean_ne or"):
        choose_criterion("click.ndcg@10", tasks_of(log))
