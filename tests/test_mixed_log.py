"""A log of two binary outcomes and one number, end to end: training, evaluation, scores, baselines and audit."""

import dataclasses
import io
import json
import os
import signal
from typing import Any

import chex
import jax
import numpy as np
import polars as pl
import pytest
from rich.console import Console
from test_loop import CONFIG, EVERY_STEP, STEPS

from siren_rope_jax.data.encode import Encoder
from siren_rope_jax.data.event_log import read_event_log
from siren_rope_jax.data.periods import TEST, TRAIN
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.data.simulator import SimulatorConfig, simulate, write_simulated_log
from siren_rope_jax.errors import InputError, Interrupted
from siren_rope_jax.report.tables import checkpoints_table, comparison_table, metrics_table, seeds_table
from siren_rope_jax.train import cheats, probes
from siren_rope_jax.train.audit import SmallModels, small
from siren_rope_jax.train.baselines import fit_baselines
from siren_rope_jax.train.checkpoint_list import list_checkpoints
from siren_rope_jax.train.evaluate import evaluate, score
from siren_rope_jax.train.hindsight import look_at_columns, shape_of_ties
from siren_rope_jax.train.inputs import fit_inputs
from siren_rope_jax.train.loop import train
from siren_rope_jax.train.metrics import regression_metrics
from siren_rope_jax.train.probes import Audited
from siren_rope_jax.train.retention import CheckpointConfig
from siren_rope_jax.train.scores import write_scores
from siren_rope_jax.train.session import load_session

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("compiled_once")]

DWELL = 2  # its place among the tasks
NUMBERS = {"rmse", "mae", "r2", "spearman", "relative_rmse", "base_rmse", "base_mae", "events"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A feed with seconds of dwell, a tenth of which is unobserved."""
    folder = tmp_path_factory.mktemp("feed")
    feed = simulate(SimulatorConfig(users=60, dwell_seconds=True))
    hidden = np.random.default_rng(0).random(feed.events.height) < 0.1
    dwell = pl.when(pl.lit(pl.Series(~hidden))).then(pl.col("dwell_seconds"))
    write_simulated_log(dataclasses.replace(feed, events=feed.events.with_columns(dwell)), folder)
    return folder


@pytest.fixture(scope="module")
def log(folder):
    return read_event_log(EventLogSpec.from_toml(folder / "log.toml"))


def _train(log, config, run, **options):
    with io.StringIO() as said:
        return train(log, config, run, console=Console(file=said, width=1000), **options), said.getvalue()


@pytest.fixture(scope="module")
def finished(log, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "run"
    metrics, said = _train(log, dataclasses.replace(EVERY_STEP, checkpoints=CheckpointConfig(every=1)), run)
    return run, metrics, said


def _parameters(run):
    return jax.tree.map(np.asarray, load_session(run)[1])


def test_every_task_has_the_metrics_of_its_kind_and_evaluation_reports_those_of_training(log, finished):
    run, metrics, said = finished
    assert log.task_names == ("like", "contribution", "dwell")
    for period in ("validation", "test"):
        assert set(metrics[period]["dwell"]) == NUMBERS
        assert {"ne", "auc"} <= set(metrics[period]["like"]) == set(metrics[period]["contribution"])
        chosen = (log.period == {"validation": 1, "test": 2}[period]) & ~np.isnan(log.labels[:, DWELL])
        assert metrics[period]["dwell"]["events"] == chosen.sum() < (log.period == 2).sum() + (log.period == 1).sum()
        mean = np.nanmean(log.labels[log.period == TRAIN, DWELL], dtype=np.float64)
        expected = np.sqrt(np.mean((log.labels[chosen, DWELL] - mean) ** 2))
        assert metrics[period]["dwell"]["base_rmse"] == pytest.approx(expected)
    assert "the lowest mean NE (--best-by)" in said
    assert "validation NE/AUC like" in said
    assert "; RMSE/Spearman dwell" in said
    assert json.loads((run / "metrics.json").read_text()) == evaluate(log, run) == metrics


def test_predictions_are_on_the_scale_of_the_log_and_give_the_metrics(log, finished):
    run, metrics, _ = finished
    table = pl.read_parquet(run / "predictions.parquet").filter(pl.col("period") == TEST)
    columns = [f"{kind}_{task}" for task in ("like", "contribution") for kind in ("label", "probability")]
    assert table.columns[5:] == [*columns, "label_dwell", "predicted_dwell"]
    predicted, label = table["predicted_dwell"].to_numpy(), table["label_dwell"].to_numpy()
    assert np.isfinite(predicted).all()
    assert np.nanmin(label) < predicted.min() < predicted.max() < np.nanmax(label)
    mean = np.nanmean(log.labels[log.period == TRAIN, DWELL], dtype=np.float64)
    found = dict(metrics["test"]["dwell"])
    seen, known = ~np.isnan(label), log.labels[log.period == TRAIN, DWELL].astype(np.float64)
    error = np.log1p(predicted[seen].astype(np.float64)) - np.log1p(label[seen].astype(np.float64))
    base = np.nanmean(np.log1p(known)) - np.log1p(label[seen].astype(np.float64))
    expected = np.sqrt(np.mean(error**2) / np.mean(base**2))
    assert found.pop("relative_rmse") == pytest.approx(expected, rel=1e-5)
    on_scale = regression_metrics(label, predicted, training_mean=mean)
    assert found == {name: value for name, value in on_scale.items() if name != "relative_rmse"}


def test_an_interrupted_run_ends_with_the_very_bits_of_an_uninterrupted_one(log, finished, tmp_path):
    run = tmp_path / "run"
    config = dataclasses.replace(EVERY_STEP, checkpoints=CheckpointConfig(every=1))

    def stop(report):
        return os.kill(os.getpid(), signal.SIGTERM) if report.step == STEPS // 2 else None

    with pytest.raises(Interrupted):
        _train(log, config, run, hooks=[stop])
    metrics, _ = _train(log, config, run)
    chex.assert_trees_all_equal(_parameters(run), _parameters(finished[0]), strict=True)
    assert metrics == finished[1]


def test_a_score_equals_what_evaluation_predicts_of_the_same_event(log, finished, folder, tmp_path):
    run, _, _ = finished
    table = pl.read_parquet(run / "predictions.parquet")
    final = table.filter(pl.col("period") == TEST).sort("time_ms").group_by("user", maintain_order=True).last().head(1)
    events = pl.read_parquet(folder / "events.parquet")
    place = final["row"][0]
    events[place].drop("like", "contribution", "long_dwell", "dwell_seconds").write_csv(tmp_path / "new.csv")
    events.filter(pl.int_range(pl.len()) != place).write_parquet(tmp_path / "events.parquet")
    spec = dataclasses.replace(log.spec, files=(tmp_path / "events.parquet",))
    with_new = read_event_log(spec, new_events=tmp_path / "new.csv")
    write_scores(tmp_path / "scores.csv", with_new, score(with_new, run, allow_changed=True, say=lambda _: None))
    scores = pl.read_csv(tmp_path / "scores.csv")
    assert scores.columns == list(log.task_names)
    names = ("probability_like", "probability_contribution", "predicted_dwell")
    assert scores.row(0) == pytest.approx([final[name][0] for name in names], rel=1e-5)


@pytest.mark.parametrize(("best_by", "better"), [("dwell.rmse", min), ("dwell.spearman", max)])
def test_the_best_checkpoint_is_that_of_the_metric_that_was_asked_for(log, tmp_path, best_by, better):
    run = tmp_path / "run"
    config = dataclasses.replace(EVERY_STEP, best_by=best_by, checkpoints=CheckpointConfig(every=1))
    _, said = _train(log, config, run)
    assert f"{'lowest' if better is min else 'highest'} {best_by.split('.')[0]} " in said
    found = list_checkpoints(run)
    task, metric = best_by.split(".")
    values = {checkpoint.step: checkpoint.metrics[task][metric] for checkpoint in found}
    assert {checkpoint.step: checkpoint.judged.value for checkpoint in found} == values
    best = better(values, key=values.__getitem__)
    state, _ = load_session(run)[0], None
    assert state.config.best_by == best_by
    rows = list(zip(*(column.cells for column in checkpoints_table(found).columns), strict=True))
    assert [row[0] for row in rows if row[-1] == "yes, the best"] == [str(best)]
    with pytest.raises(InputError, match="best_by"):
        _train(log, dataclasses.replace(config, best_by=None), run)


def test_an_unknown_criterion_is_refused_before_a_folder_is_made(log, tmp_path):
    with pytest.raises(InputError, match="best_by must be mean_ne, mean_relative_rmse or TASK"):
        _train(log, dataclasses.replace(CONFIG, best_by="dwell.auc"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_numbers_alone_are_steered_by_their_relative_rmse(log, tmp_path):
    spec = dataclasses.replace(log.spec, tasks=log.spec.tasks[DWELL:])
    alone = dataclasses.replace(log, spec=spec, labels=log.labels[:, DWELL:], task_names=("dwell",))
    metrics, said = _train(alone, dataclasses.replace(CONFIG, steps=2, evaluations=1), tmp_path / "run")
    assert "the lowest mean relative RMSE (--best-by)" in said
    (found,) = list_checkpoints(tmp_path / "run")
    assert found.judged.metric == "mean_relative_rmse"
    assert found.judged.value == found.metrics["dwell"]["relative_rmse"]
    assert set(metrics["test"]) == {"dwell"}


def test_tables_have_a_part_for_each_kind(finished, log):
    _, metrics, _ = finished
    tables: Any = metrics_table(metrics)
    binary, numbers = tables.renderables
    assert [column.header for column in binary.columns][:3] == ["period", "task", "NE"]
    assert [column.header for column in numbers.columns][2:] == [
        "RMSE",
        "MAE",
        "R2",
        "Spearman",
        "RMSE of the mean",
        "MAE of the mean",
        "events",
    ]
    assert [len(table.rows) for table in (binary, numbers)] == [4, 2]
    tables = seeds_table([metrics, metrics])
    assert [len(table.rows) for table in tables.renderables] == [4, 2]


def test_baselines_of_a_number_are_the_training_mean_ridge_regression_and_boosted_regression(log, finished):
    results = fit_baselines(log, CONFIG.inputs)["baselines"]
    of_binary = {"base_rate", "logistic_regression", "gradient_boosting"}
    assert {name for name in results if "like" in results[name]["test"]} == of_binary
    of_numbers = {"training_mean", "ridge_regression", "gradient_boosting"}
    assert {name for name in results if "dwell" in results[name]["test"]} == of_numbers
    of_mean = results["training_mean"]["test"]["dwell"]
    assert (of_mean["rmse"], of_mean["mae"]) == pytest.approx((of_mean["base_rmse"], of_mean["base_mae"]))
    assert set(results["ridge_regression"]["settings"]["dwell"]) == {"alpha"}
    for name in ("ridge_regression", "gradient_boosting"):
        assert results[name]["test"]["dwell"]["spearman"] > 0.05
        assert results[name]["test"]["dwell"]["mae"] < results["training_mean"]["test"]["dwell"]["mae"]
    tables: Any = comparison_table(results, [finished[1]])
    binary, numbers = tables.renderables
    assert list(numbers.columns[1].cells) == ["training mean", "ridge regression", "gradient boosting", "recommender"]
    assert list(binary.columns[1].cells) == 2 * ["base rate", "logistic regression", "gradient boosting", "recommender"]


# Leaks

PROBED = dataclasses.replace(
    small(dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, width=16)), steps=60),
    batches=CONFIG.batches,
    optimizer=dataclasses.replace(CONFIG.optimizer, learning_rate=1e-2),
)


@pytest.fixture(scope="module")
def some(log):
    """The log, split by time."""
    late = np.arange(len(log.time_ms)) / len(log.time_ms)
    return cheats.some_of(dataclasses.replace(log, period=(1 * (late > 0.5) + (late > 0.6)).astype(np.int8)), 100_000)


@pytest.fixture(scope="module")
def honest(some):
    models = SmallModels(PROBED)
    return Audited(models.learn(some), models.learn, lambda one: fit_inputs(one, PROBED.inputs))


@pytest.mark.parametrize(
    "probe",
    [
        probes.change_the_future,
        probes.change_what_training_must_not_see,
        probes.permute_ties,
        probes.score_as_evaluated,
    ],
    ids=lambda probe: probe.__name__,
)
def test_nothing_that_is_not_known_yet_moves_a_prediction_of_a_number(honest, some, probe):
    assert {finding.verdict for finding in probe(honest, some)} == {"ok"}


def test_a_planted_outcome_is_not_found_by_any_kind_of_task(honest, some):
    assert probes.find_one(honest, some, cheats.by_milliseconds).verdict == "ok"


def test_a_number_that_is_predicted_from_itself_is_found_out(honest, some):
    def told(log):
        return dataclasses.replace(log, dense=np.nan_to_num(log.labels[:, DWELL:]))

    def learn(log):
        predict = honest.learn(told(log))
        return lambda log, wanted, **options: predict(told(log), wanted, **options)

    assert probes.find_one(dataclasses.replace(honest, learn=learn), some, cheats.by_milliseconds).verdict == "LEAK"

    def predict(log, wanted, **options):
        moved = honest.predict(log, wanted, **options)
        moved[:, DWELL] += np.float32(1e-4 * np.nanmean(log.labels[:, DWELL]))
        return moved

    found = probes.change_the_future(dataclasses.replace(honest, predict=predict), some)
    assert [finding.verdict for finding in found] == ["LEAK", "LEAK"]


def test_a_random_number_is_not_predicted(honest, some):
    rng = np.random.default_rng(0)
    dwell = rng.permutation(some.labels[:, DWELL])
    labels, actions = some.labels.copy(), some.actions.copy()
    labels[:, DWELL] = actions[:, DWELL] = dwell
    random = dataclasses.replace(some, labels=labels, actions=actions)
    encoder = Encoder.fit(random, PROBED.inputs)
    wanted = random.period == TEST
    predicted = encoder.tasks[DWELL].restore(honest.learn(random)(random, wanted)[wanted, DWELL])
    found = regression_metrics(labels[wanted, DWELL], predicted, training_mean=encoder.tasks[DWELL].mean)
    assert found["r2"] < 0.02
    assert abs(found["spearman"]) < 4 / np.sqrt(found["events"])


def test_columns_are_looked_at_for_what_they_tell_of_a_number(some):
    assert {finding.verdict for finding in look_at_columns(some)} <= {"ok", "inconclusive"}
    told = dataclasses.replace(some, dense=some.labels[:, DWELL:] ** 2)
    assert next(finding.verdict for finding in look_at_columns(told)) == "look at it"
    assert "dwell" in shape_of_ties(cheats.gathered(some), 64)[0].moved
