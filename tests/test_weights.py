"""Weights of events: in the loss, in the base rate and in every metric, and nowhere else."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
from log_files import START, event_table, read, refusal, write
from rich.console import Console
from sklearn.metrics import log_loss, roc_auc_score
from test_loop import CONFIG

from siren_rope_jax.data.encode import Encoder, InputConfig
from siren_rope_jax.data.event_log import read_event_log
from siren_rope_jax.data.fingerprint import fingerprint
from siren_rope_jax.data.outcome_scale import OutcomeScale
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.data.simulator import SimulatorConfig, simulate, write_simulated_log
from siren_rope_jax.report.tables import metrics_table
from siren_rope_jax.train.baseline_kinds import Numbers, Sample
from siren_rope_jax.train.baselines import fit_baselines
from siren_rope_jax.train.loop import train
from siren_rope_jax.train.loss import multitask_loss
from siren_rope_jax.train.session import load_session
from siren_rope_jax.train.tasks import BinaryTask, Evaluated

USERS, ITEMS = ["ann", "bob"], ["x", "y", "z"]
WEIGHTS = [0.5, 2, 0, 1.5, 1]


def table(**columns):
    return event_table(USERS, ITEMS, **columns)


@pytest.mark.parametrize("name", ["log.csv", "log.parquet"])
def test_weights_are_read_and_scaled_to_a_mean_of_1_in_training(tmp_path, name):
    log = read([write(table(weight=WEIGHTS), tmp_path / name)], log={"weight": "weight"})
    np.testing.assert_array_equal(log.weight, np.tile(np.float32(WEIGHTS), 4))
    train = log.period == 0
    encoder, encoded = Encoder.fit_encode(log, InputConfig(min_count=1))
    assert encoded.weight[train[encoded.log_index]].mean() == pytest.approx(1)
    assert encoder.tasks[0].mean == pytest.approx(np.average(log.labels[train, 0], weights=log.weight[train]))
    assert fingerprint(log) != fingerprint(dataclasses.replace(log, weight=2 * log.weight))
    assert read([tmp_path / name]).weight is None


def test_equal_weights_encode_as_none(tmp_path):
    log = read([write(table(weight=[3.3]), tmp_path / "log.csv")], log={"weight": "weight"})
    _, encoded = Encoder.fit_encode(log, InputConfig(min_count=1))
    assert (encoded.weight == 1).all()


@pytest.mark.parametrize("cell", [None, "-1", "much", "nan", "inf", "1e39"])
def test_a_cell_that_is_no_weight_is_refused_with_its_line(tmp_path, cell):
    path = write(table(weight=["1"] * 19 + [cell]), tmp_path / "log.csv")
    said = refusal([path], log={"weight": "weight"})
    assert f'{path}: line 21, column "weight": expected a weight: a finite number of at least 0, found' in said


def test_events_of_weight_0_are_no_labels_and_no_part_of_a_group(tmp_path):
    frame = table(weight=[1.0]).with_columns(weight=pl.when(pl.col("click") == 0).then(0.0).otherwise(1.0))
    path = write(frame, tmp_path / "log.csv")
    assert "has no negatives among the" in refusal([path], log={"weight": "weight"})
    task = BinaryTask(OutcomeScale("click"))
    labels, scores = np.array([1, 0, 1, 0], np.float32), np.array([0.2, 0.3, 0.4, 0.1], np.float32)
    weight = np.array([1, 0, 1, 1], np.float32)
    found = task.measure(Evaluated(labels, scores, np.zeros(4), weight, np.array([0, 0, 1, 1])))
    assert found["groups"] == 1
    assert found["ndcg@5"] == 1


def test_weights_of_nothing_are_refused_and_new_events_need_none(tmp_path):
    path = write(table(weight=[0.0] * 12 + [1.0] * 8), tmp_path / "log.csv")
    assert "holds no weight above 0 among the training events" in refusal([path], log={"weight": "weight"})
    path = write(table(weight=WEIGHTS), tmp_path / "log.csv")
    new = write(table()[:2].with_columns(time=pl.lit(START + 10**6)), tmp_path / "new.csv")
    assert read([path], new, log={"weight": "weight"}).weight[-2:].tolist() == [1, 1]


def test_an_event_of_weight_w_counts_as_w_events_in_the_loss():
    generator = np.random.default_rng(0)
    outputs, weight = jnp.asarray(generator.normal(size=(40, 2)), jnp.float32), generator.integers(0, 4, 40)
    targets = jnp.asarray(generator.choice([0, 1, np.nan], (40, 2)), jnp.float32)
    task_weights = jnp.array([1.0, 0.5])

    def loss(outputs, targets, weight):
        return multitask_loss(outputs, targets, task_weights, event_weight=weight)

    (value, per_task), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(
        outputs, targets, jnp.asarray(weight, jnp.float32)
    )
    observed = ~np.isnan(targets)
    cells = np.where(observed, np.logaddexp(0, outputs) - np.nan_to_num(targets) * outputs, 0).astype(np.float64)
    expected = [np.repeat(cells[:, k], weight).sum() / observed[:, k].sum() for k in range(2)]
    np.testing.assert_allclose(per_task, expected, rtol=1e-5)
    np.testing.assert_allclose(value, task_weights @ jnp.array(expected), rtol=1e-5)
    of_one = jax.grad(lambda x: loss(x, targets, jnp.ones(40))[0])(outputs)
    np.testing.assert_allclose(gradient, of_one * weight[:, None], rtol=1e-5, atol=1e-8)


def test_a_baseline_is_fitted_to_each_event_as_often_as_its_weight_says():
    weight = np.repeat([0.0, 0.25, 1.0, 2.75], 1_000).astype(np.float32)
    inputs, labels = np.arange(4_000.0)[:, None], np.tile([0.0, 1.0], 2_000).astype(np.float32)
    for sample in (Sample, Numbers):
        drawn = sample.of(inputs, labels, np.ones(4_000, bool), weight)
        times = np.bincount(drawn.inputs[:, 0].astype(int), minlength=4_000)
        assert np.all(np.abs(times - weight) < 1)
        assert times.reshape(4, -1).mean(axis=1) == pytest.approx([0, 0.25, 1, 2.75], abs=0.06)
        np.testing.assert_array_equal(drawn.labels, labels[drawn.inputs[:, 0].astype(int)])


@pytest.fixture(scope="module")
def feed(tmp_path_factory):
    """A feed with weights, some of them 0, and requests of four events."""
    folder = tmp_path_factory.mktemp("feed")
    described = write_simulated_log(simulate(SimulatorConfig(users=60)), folder)
    generator = np.random.default_rng(0)
    events = pl.read_parquet(folder / "events.parquet")
    events = events.with_columns(
        weight=generator.choice([0.0, 0.5, 3.0], events.height), one=pl.lit(3.3), request=pl.int_range(pl.len()) // 4
    )
    events.write_parquet(folder / "events.parquet")
    return described


def _log(feed, **keys):
    spec = EventLogSpec.from_toml(feed)
    return read_event_log(dataclasses.replace(spec, **keys))


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_once")
def test_metrics_are_those_of_the_weights_and_groups_in_the_predictions(feed, tmp_path, capsys):
    log = _log(feed, weight="weight", group="request")
    metrics = train(log, dataclasses.replace(CONFIG, best_by="like.ndcg@10"), tmp_path / "run")
    assert metrics == json.loads((tmp_path / "run" / "metrics.json").read_text())
    told = pl.read_parquet(tmp_path / "run" / "predictions.parquet").filter(pl.col("period") == 2)
    told = told.filter(~pl.col("label_like").is_nan())
    weights = told["weight"].to_numpy().astype(np.float64)
    columns = told["label_like"].to_numpy(), told["probability_like"].to_numpy().astype(np.float64)
    assert metrics["test"]["like"]["auc"] == pytest.approx(roc_auc_score(*columns, sample_weight=weights))
    assert metrics["test"]["like"]["log_loss"] == pytest.approx(log_loss(*columns, sample_weight=weights))
    told = told.filter(pl.col("weight") > 0)
    both = told.group_by("group").agg(pl.col("label_like").min() != pl.col("label_like").max())["label_like"].sum()
    assert metrics["test"]["like"]["groups"] == both
    Console(width=200).print(metrics_table(metrics))
    assert "order within groups" in capsys.readouterr().out
    baselines = fit_baselines(log, InputConfig())["baselines"]
    base = np.average(log.labels[log.period == 0, 0], weights=log.weight[log.period == 0])
    name = log.task_names[0]
    seen = log.period == 2
    labels, of = log.labels[seen, 0], log.weight[seen]
    rate = np.average(labels, weights=of)
    expected = -(rate * np.log(base) + (1 - rate) * np.log1p(-base))
    assert next(iter(baselines.values()))["test"][name]["log_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_once")
def test_equal_weights_train_the_model_of_no_weights_bit_for_bit(feed, tmp_path):
    runs = {}
    for name, keys in (("plain", {}), ("equal", {"weight": "one"}), ("other", {"weight": "weight"})):
        metrics = train(_log(feed, **keys), CONFIG, tmp_path / name)
        _, params = load_session(tmp_path / name)
        runs[name] = metrics, jax.tree.leaves(params)
    for mine, theirs in zip(runs["plain"][1], runs["equal"][1], strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert runs["equal"][0]["test"]["like"] == pytest.approx(runs["plain"][0]["test"]["like"])
    assert any(not np.array_equal(a, b) for a, b in zip(runs["plain"][1], runs["other"][1], strict=True))


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_once")
def test_a_weight_is_never_an_input(feed, tmp_path):
    log = _log(feed, weight="weight")
    train(log, CONFIG, tmp_path / "run")
    session, params = load_session(tmp_path / "run")
    wanted = log.period == 2
    with_labels = np.where(log.labels[:, 0] > 0, 5.0, 0.1).astype(np.float32)
    found = [
        session.predict(params, session.encoder.encode(dataclasses.replace(log, weight=weight)), wanted)[wanted]
        for weight in (log.weight, with_labels)
    ]
    np.testing.assert_array_equal(*found)
