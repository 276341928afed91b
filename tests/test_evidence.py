"""Grids, cards and statistics of experiments/: what a table says can be rebuilt from the cards, and is fair."""

import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.stats
from one_sentence import raises_one_sentence
from small_logs import small_log

from experiments import report, run
from experiments.demo import read_probabilities
from experiments.evidence.card import CARDS, card_file, grouped, log_file, losses_of, packed, unpacked
from experiments.evidence.claims import verdict_of
from experiments.evidence.forgetting import fsrs_metrics
from experiments.evidence.grid import Cell, digest, grid_names, read_grid, stated
from experiments.evidence.logs import LOGS, read_log, rounded
from experiments.evidence.results import Results, read_results
from experiments.evidence.statistics import Difference, holm, normalized_entropy, paired_difference
from experiments.evidence.variants import ORDINAL, RECOMMENDED
from siren_rope_jax.data.event_log import read_event_log
from siren_rope_jax.data.periods import TEST
from siren_rope_jax.data.reviews import prepare_reviews
from siren_rope_jax.errors import InputError, Interrupted
from siren_rope_jax.train.metrics import expected_ne

EVENTS = np.random.default_rng(0).integers(20, 60, (2, 50)).astype(np.float64)
POSITIVES = np.floor(EVENTS * [[0.3], [0.1]])


def losses(generator, *, seeds=4, effect=0.0, spread=0.0):
    """Of a variant: an effect on every event, one for each seed, and noise of each group."""
    per_event = 0.5 + effect + spread * generator.normal(size=(seeds, 1, 1))
    return EVENTS * per_event + generator.normal(size=(1, *EVENTS.shape))


def test_a_difference_is_that_of_the_normalized_entropies_in_the_mean_over_seeds_and_tasks():
    generator = np.random.default_rng(1)
    variant, base = (losses(generator, spread=0.01) for _ in range(2))
    found = paired_difference(variant, base, EVENTS, POSITIVES)
    naive = []
    for k in range(2):
        rate = POSITIVES[k].sum() / EVENTS[k].sum()
        naive.append((variant - base)[:, k].sum(axis=1) / EVENTS[k].sum() / scipy.stats.entropy([rate, 1 - rate]))
        ne = [normalized_entropy(x[:, k], EVENTS[k], POSITIVES[k]) for x in (variant, base)]
        np.testing.assert_allclose(ne[0] - ne[1], naive[-1])
    assert found.value == pytest.approx(np.mean(naive))
    assert found.low < found.value < found.high
    assert found == paired_difference(variant, base, EVENTS, POSITIVES)  # the draws have a seed
    back = paired_difference(base, variant, EVENTS, POSITIVES)
    np.testing.assert_allclose([back.value, back.low, back.high], [-found.value, -found.high, -found.low])


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "spread"), [(4, 0.0), (4, 0.02), (3, 0.005), (2, 0.01)])
def test_where_nothing_differs_one_in_twenty_intervals_at_most_leaves_out_zero(seeds, spread):
    generator, missed = np.random.default_rng(2), 0
    for number in range(150):
        variant, base = (losses(generator, seeds=seeds, spread=spread) for _ in range(2))
        found = paired_difference(variant, base, EVENTS, POSITIVES, seed=number)
        missed += not found.low <= 0 <= found.high
        assert (found.p < 0.05) == (not found.low <= 0 <= found.high)
    assert missed <= 13  # of a binomial of 150 and .05, 99 % lie here


@pytest.mark.slow
def test_four_in_five_differences_of_the_detectable_size_are_shown():
    generator, shown = np.random.default_rng(3), 0
    sizes = [
        paired_difference(losses(generator, spread=0.02), losses(generator, spread=0.02), EVENTS, POSITIVES).detectable
        for _ in range(20)
    ]
    rates = POSITIVES.sum(axis=1) / EVENTS.sum(axis=1)
    of_loss = np.sqrt(np.mean(np.square(sizes))) / np.mean(
        [1 / scipy.stats.entropy([rate, 1 - rate]) for rate in rates]
    )
    for number in range(60):
        variant, base = losses(generator, effect=of_loss, spread=0.02), losses(generator, spread=0.02)
        shown += paired_difference(variant, base, EVENTS, POSITIVES, seed=number).low > 0
    assert 37 <= shown <= 57


def test_holm_rejects_as_the_definition_says():
    generator = np.random.default_rng(4)
    for _ in range(200):
        p = generator.choice([0.001, 0.01, 0.02, 0.04, 0.3], generator.integers(0, 7))
        naive, left = np.zeros(len(p), bool), list(range(len(p)))
        while left and p[left].min() <= 0.05 / len(left):
            naive[left.pop(int(np.argmin(p[left])))] = True
        np.testing.assert_array_equal(holm(p), naive)


def test_one_seed_or_other_seeds_are_refused():
    generator = np.random.default_rng(5)
    for variant, base in ((1, 1), (3, 2)):
        with raises_one_sentence("must have one shape, with two seeds or more, but have"):
            paired_difference(losses(generator, seeds=variant), losses(generator, seeds=base), EVENTS, POSITIVES)


def test_sums_over_groups_of_users_are_those_of_all_events_and_a_user_is_never_split():
    log = small_log([8] * 40)
    chosen = log.period == TEST
    columns = np.stack([np.ones(chosen.sum()), np.where(np.arange(chosen.sum()) % 3, 2.0, np.nan)], axis=1)
    sums = grouped(log, columns)
    np.testing.assert_allclose(sums.sum(axis=1), np.nansum(columns, axis=0))
    np.testing.assert_allclose(unpacked(packed(sums), 2), sums)
    assert (sums[0] > 0).sum() <= len(np.unique(log.user[chosen]))


def test_every_grid_has_settings_for_every_cell_and_no_two_variants_share_them():
    for name in grid_names():
        grid = read_grid(name)
        for log in grid.logs:
            configs = [grid.config(Cell(log, variant, 0)) for variant in grid.variants]
            assert len({repr(config) for config in configs}) == len(configs), name
            assert len({json.dumps(stated(config)) for config in configs}) == len(configs), name
    with pytest.raises(InputError, match="grid must be one of"):
        read_grid("nothing")


def folder_of(asked, cell):
    return asked.out / "tiny-feed" / digest(run.read_grid("smoke").config(cell))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grid")
    asked = run.Run("smoke", out=folder / "runs", cards=folder / "cards")
    assert run.main(asked) == 0
    return asked


@pytest.mark.slow
def test_a_grid_leaves_cards_whose_sums_give_the_metrics_of_the_runs(trained):
    log, truth = read_log("tiny feed", trained.data, trained.out / "tiny-feed" / "log")
    of_log = json.loads(log_file(trained.cards, "tiny feed").read_text())
    sizes = [unpacked(of_log[key], 3) for key in ("events", "positives")]
    assert sizes[0].sum() == 3 * (log.period == TEST).sum()
    grid = read_grid("smoke")
    for cell in grid.cells():
        card = json.loads(card_file(trained.cards, cell.log, grid.config(cell)).read_text())
        assert card["settings"] == json.loads(json.dumps(stated(grid.config(cell))))
        steps = [row[0] for row in card["curves"].get("gate", [])]
        assert (steps, len(card["mean_cosine"] or [])) == (([1, 2, 4], 337) if cell.variant == RECOMMENDED else ([], 0))
        assert card["data"] == of_log["data"]["digest"]
        probabilities = read_probabilities(folder_of(trained, cell), log)
        sums = unpacked(card["losses"], 3)
        for k in range(3):
            found = normalized_entropy(sums[None, k], sizes[0][k], sizes[1][k])
            np.testing.assert_allclose(found, expected_ne(truth[:, k], probabilities[:, k]), rtol=1e-5)
    assert np.isnan(losses_of(np.array([[np.nan]]), np.array([[0.5]])))


@pytest.mark.slow
def test_tables_come_from_the_cards_alone_and_finished_cells_are_not_trained_again(trained, capsys, monkeypatch):
    monkeypatch.setattr(run, "train_cell", None)
    assert run.main(trained) == 0
    capsys.readouterr()
    report.main(report.Report("smoke", cards=trained.cards))
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("#")] == ["# smoke: Does the machinery run?", "## tiny feed"]
    row = next(line for line in lines if line.startswith("| SIREN-RoPE, recommended | 2 |"))
    assert " to " in row
    results = read_results(trained.cards, read_grid("smoke"), "tiny feed")
    captured = results.captured(RECOMMENDED, ORDINAL)
    assert f"{np.mean(captured):.3f} ± {np.std(captured, ddof=1):.3f}" in row
    log, truth = read_log("tiny feed", trained.data, trained.out / "tiny-feed" / "log")

    def total(variant, seed):
        predicted = read_probabilities(folder_of(trained, Cell("tiny feed", variant, seed)), log)
        return sum(expected_ne(truth[:, k], predicted[:, k]) for k in range(3))

    best = sum(expected_ne(truth[:, k], truth[:, k]) for k in range(3))
    pairs = [(total(ORDINAL, seed), total(RECOMMENDED, seed)) for seed in range(2)]
    naive = [(ordinal - siren) / (ordinal - best) for ordinal, siren in pairs]
    np.testing.assert_allclose(captured, naive, rtol=1e-3)


@pytest.mark.slow
def test_a_log_of_other_events_than_its_card_is_refused_and_one_of_the_same_is_not_examined_again(trained, tmp_path):
    again = dataclasses.replace(trained, out=tmp_path / "runs", cards=tmp_path / "cards")
    card = log_file(again.cards, "tiny feed")
    card.parent.mkdir(parents=True)
    card.write_text(log_file(trained.cards, "tiny feed").read_text())
    written = card.stat().st_mtime_ns
    run.prepare_log(again, "tiny feed")
    assert card.stat().st_mtime_ns == written
    card.write_text(card.read_text().replace('"events": 1', '"events": 2', 1))
    (again.out / "tiny-feed" / "log" / "log.toml").unlink()
    for _ in range(2):
        with pytest.raises(InputError, match="tiny feed must hold the events of its cards"):
            run.prepare_log(again, "tiny feed")


@pytest.mark.slow
def test_a_cell_that_fails_costs_no_other(trained, tmp_path, monkeypatch, capsys):
    cells = read_grid("smoke").cells()

    def train_cell(asked, cell):
        if cell == cells[1]:
            raise ValueError("broken")
        return 1.0

    monkeypatch.setattr(run, "train_cell", train_cell)
    asked = run.Run("smoke", out=trained.out, cards=tmp_path)
    assert [isinstance(outcome, Exception) for _, outcome in run.outcomes(asked, cells)] == [False, True, False, False]
    assert run.main(asked) == 1
    assert f"{cells[1]} failed: ValueError: broken" in capsys.readouterr().out
    with pytest.raises(InputError, match="only must hold names of"):
        run.wanted_cells(run.Run("smoke", only=("nothing",)))
    assert set(LOGS) >= {"feed", "flights"}


def test_a_worker_that_was_stopped_begins_none_of_the_cells_that_it_was_sent_already(monkeypatch):
    begun = []

    def train_cell(asked, cell):
        begun.append(cell)
        raise Interrupted("stopped at step 3", 15)

    monkeypatch.setattr(run, "train_cell", train_cell)
    monkeypatch.setattr(run, "_stopped", None)
    cells = read_grid("smoke").cells()
    for cell in cells:
        with pytest.raises(Interrupted, match="stopped at step 3"):
            run._train_in_worker(run.Run("smoke"), cell)
    assert begun == cells[:1]


@pytest.mark.slow
def test_a_card_of_other_settings_is_neither_shown_nor_taken_for_finished(trained, monkeypatch, capsys):
    assert not run.wanted_cells(trained)
    grid = read_grid("smoke")
    changed = dataclasses.replace(grid, variants=grid.variants | {RECOMMENDED: {"model.head_calendar": False}})
    for module in (run, report):
        monkeypatch.setattr(module, "read_grid", lambda name: changed)
    assert {cell.variant for cell in run.wanted_cells(trained)} == {RECOMMENDED}
    assert not folder_of(trained, Cell("tiny feed", RECOMMENDED, 0)).exists()
    report.main(report.Report("smoke", cards=trained.cards))
    assert RECOMMENDED not in capsys.readouterr().out


@pytest.mark.slow
def test_fsrs_predicts_a_second_review_by_its_power_law_of_the_days_since_the_first(tmp_path):
    """By the formula that Ye et al. publish: (1 + f t / S) ** -0.1542, S = 2.3065 days after a first "good"."""
    grades = [3] * 20 + [1, 3, 3, 3] * 5
    rows = [f"{i % 20},{grade},2024-03-{1 + 10 * (i // 20):02}T10:00:{i:02}+00:00,9" for i, grade in enumerate(grades)]
    table = tmp_path / "reviews.csv"
    table.write_text("\n".join(["card_id,review_rating,review_time,review_duration", *rows, ""]))
    log = read_event_log(prepare_reviews(table, tmp_path / "log"))
    found = fsrs_metrics(log)["FSRS"]["test"]["recalled"]
    factor = 0.9 ** (-1 / 0.1542) - 1
    known = (1 + factor * 10 / 2.3065) ** -0.1542
    recalled = log.labels[log.period == TEST, 0]
    naive = -np.where(recalled == 1, np.log(known), np.log1p(-known)).mean()
    assert (found["events"], found["log_loss"]) == (8, pytest.approx(naive))


@pytest.mark.slow
def test_a_log_of_coarse_times_keeps_rows_and_oracle(tmp_path):
    (fine, truth), (coarse, same) = (
        (read_event_log(source.prepare(tmp_path, tmp_path / name)), pl.read_parquet(tmp_path / name / "truth.parquet"))
        for name, source in (("fine", LOGS["tiny feed"]), ("coarse", rounded("tiny feed", 3_600)))
    )
    assert truth.equals(same)
    fine_times = dict(zip(fine.row, fine.time_ms // 1_000, strict=True))
    expected = [fine_times[row] // 3_600 * 3_600 for row in coarse.row]
    np.testing.assert_array_equal(coarse.time_ms // 1_000, expected)
    assert len(coarse.row) > 0.99 * len(fine.row)  # a few rows are now equal in every column


def difference(value, half, p):
    return Difference(value, value - half, value + half, p, detectable=1.5 * half)


LOWER, HIGHER = difference(-0.01, 0.005, 0.001), difference(0.01, 0.005, 0.001)
SAME, UNKNOWN = difference(0.0, 0.001, 1.0), difference(0.0, 0.05, 1.0)


@pytest.mark.parametrize(
    ("differences", "better", "not_better"),
    [
        ([], "no cards yet", "no cards yet"),
        ([LOWER, UNKNOWN], "supported", "not supported"),
        ([HIGHER, UNKNOWN], "not supported", "supported"),
        ([SAME, UNKNOWN], "not supported", "supported"),
        ([LOWER, SAME], "depends on the log", "depends on the log"),
        ([LOWER, HIGHER], "depends on the log", "depends on the log"),
        ([UNKNOWN, UNKNOWN], "not decidable", "not decidable"),
        ([difference(-0.01, 0.0099, 0.04), UNKNOWN], "not decidable", "not decidable"),  # does not pass over the logs
    ],
)
def test_a_verdict_follows_from_the_intervals(differences, better, not_better):
    by_log = {f"log {number}": one for number, one in enumerate(differences)}
    assert verdict_of(by_log, better=True) == better
    assert verdict_of(by_log, better=False) == not_better


def test_a_training_that_went_astray_is_counted():
    losses = [packed(np.full((1, 4), loss)) for loss in (0.5, 0.5, 0.501, 0.6)]
    sizes = {"tasks": ["click"], "events": packed(np.ones((1, 4))), "positives": packed(np.full((1, 4), 0.5))}
    results = Results(sizes, {"some": {seed: {"losses": loss} for seed, loss in enumerate(losses)}})
    assert results.strays("some") == [3]


@pytest.mark.slow
def test_the_pages_hold_what_the_committed_cards_say_and_every_card_belongs_to_a_grid():
    page = Path(report.__file__).with_name("README.md")
    evidence, used = report.read_evidence(CARDS), set()
    assert report.filled(page.read_text(), evidence) == page.read_text()
    for name in grid_names():
        grid, file = read_grid(name), CARDS.parent / f"{name}.md"
        assert report.tables_of(name, evidence[name]) == (file.read_text() if file.exists() else "")
        used |= {card_file(CARDS, cell.log, grid.config(cell)) for cell in grid.cells()}
        used |= {log_file(CARDS, log) for log in grid.logs}
    cards = set(CARDS.glob("*/*"))
    assert not cards - used
    assert sum(file.stat().st_size for file in CARDS.parent.rglob("*") if file.is_file()) < 20e6


def test_a_worker_can_say_that_it_was_interrupted():
    sent = pickle.loads(pickle.dumps(Interrupted("stopped at step 3", 2)))
    assert (str(sent), sent.signal, sent.exit_code) == ("stopped at step 3", 2, 130)
