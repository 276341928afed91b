"""The practitioner's baselines: what they read, what they are fitted and tuned on, and where they are shown."""

import contextlib
import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from small_logs import INPUTS, small_log
from test_cli import TINY

from siren_rope_jax.cli import main
from siren_rope_jax.data.stable_hash import stable_hash
from siren_rope_jax.report.tables import comparison_table
from siren_rope_jax.train import baseline_models
from siren_rope_jax.train.baseline_inputs import baseline_inputs
from siren_rope_jax.train.baseline_kinds import Sample
from siren_rope_jax.train.baseline_models import fit_gradient_boosting, fit_linear, work
from siren_rope_jax.train.baselines import baselines_file, fit_baselines, read_baselines
from siren_rope_jax.train.durable import write_json
from siren_rope_jax.train.run_folder import read_run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("compiled_once")]

DAY = 86_400_000
LENGTHS = [30] * 20


def ignore(done):
    """No progress is shown."""


@pytest.fixture(scope="module")
def log():
    return small_log(LENGTHS)


@pytest.fixture(scope="module")
def results(log):
    return fit_baselines(log, INPUTS)["baselines"]


def test_inputs_stand_in_the_order_of_the_log(log):
    inputs = baseline_inputs(log, INPUTS)
    names = inputs.number_names
    assert inputs.numbers.shape == (len(log.time_ms), len(names))
    events_before = [int((log.user[:row] == user).sum()) for row, user in enumerate(log.user)]
    counted = inputs.numbers[:, names.index("user_events")]
    # More earlier events, a larger counter; as many, the same one.
    assert len(set(zip(events_before, counted.tolist(), strict=True))) == max(events_before) + 1
    assert np.all(np.diff(counted[np.argsort(events_before, kind="stable")]) >= 0)
    hour = np.arctan2(inputs.numbers[:, names.index("day_sin")], inputs.numbers[:, names.index("day_cos")])
    np.testing.assert_allclose(np.mod(hour / (2 * np.pi), 1) * 86_400, log.second, atol=0.1)
    np.testing.assert_allclose(inputs.clock[:, 0] * 3600, log.second, atol=0.1)
    weekday = (np.datetime64("1970-01-01") + log.day).astype(object)
    assert inputs.clock[:, 1].tolist() == [date.weekday() for date in weekday]


def test_the_same_week_later_gives_the_same_inputs_so_that_none_tells_the_date(log):
    later = dataclasses.replace(
        log, time_ms=log.time_ms + 70 * DAY, day=log.day + 70, action_known=log.action_known + 70 * DAY
    )
    now, then = baseline_inputs(log, INPUTS), baseline_inputs(later, INPUTS)
    np.testing.assert_array_equal(then.for_trees(), now.for_trees())
    assert not [name for name in now.number_names if "base_rate" in name]


def test_a_habit_of_the_hour_is_found(results):
    for name in ("logistic_regression", "gradient_boosting"):
        assert results[name]["test"]["like"]["ne"] < 0.9
    assert results["base_rate"]["test"]["like"]["ne"] > 0.98


@pytest.fixture(scope="module")
def wide(log):
    """The log with a column of 40 values, of which the odd ones are clicked."""
    rng = np.random.default_rng(1)
    values = rng.integers(0, 40, len(log.time_ms))
    click = (rng.random(len(log.time_ms)) < np.where(values % 2, 0.95, 0.05)).astype(np.float32)
    labels = np.stack([click, log.labels[:, 1]], axis=1)
    hashes = stable_hash(pl.Series(values).cast(pl.String), "author")[:, None]
    spec = dataclasses.replace(log.spec, categorical=("author",))
    changes = {"categorical": hashes, "categorical_names": ("author",), "labels": labels, "actions": labels}
    return dataclasses.replace(log, spec=spec, **changes), values


def test_a_column_of_many_values_is_read_as_the_rates_of_its_earlier_events_alone(wide):
    log, values = wide
    inputs = baseline_inputs(log, INPUTS)
    assert inputs.codes.shape[1] == 0
    rate = inputs.numbers[:, inputs.number_names.index("author_rate_click")]
    last = log.period == 2
    assert rate[last & (values % 2 == 1)].min() > rate[last & (values % 2 == 0)].max()
    changed = log.actions.copy()
    changed[400:] = 1 - changed[400:]
    later = baseline_inputs(dataclasses.replace(log, labels=changed, actions=changed), INPUTS)
    # Of the same training period, so that nothing is standardised anew.
    assert (log.period == 0).sum() < 400
    np.testing.assert_array_equal(later.numbers[:401], inputs.numbers[:401])
    assert np.any(later.numbers[401:] != inputs.numbers[401:])


def test_what_a_column_of_many_values_tells_is_found(wide):
    log, _ = wide
    results = fit_baselines(log, INPUTS)["baselines"]
    for name in ("logistic_regression", "gradient_boosting"):
        assert results[name]["test"]["click"]["auc"] > 0.85


def test_only_observed_labels_are_evaluated(log, results):
    for result in results.values():
        for title, period in (("validation", 1), ("test", 2)):
            observed = ~np.isnan(log.labels[log.period == period])
            assert [result[title][task]["events"] for task in log.task_names] == observed.sum(axis=0).tolist()
            assert observed.sum(axis=0)[0] > observed.sum(axis=0)[1]


def test_the_base_rate_is_that_of_training(log, results):
    for k, task in enumerate(log.task_names):
        rate = np.nanmean(log.labels[log.period == 0, k])
        test = log.labels[log.period == 2, k]
        share = np.nanmean(test)
        expected = -(share * np.log(rate) + (1 - share) * np.log1p(-rate))
        assert results["base_rate"]["test"][task]["log_loss"] == pytest.approx(expected, rel=1e-5)
        assert results["base_rate"]["test"][task]["auc"] == 0.5


def test_outcomes_of_the_test_period_change_neither_the_choice_nor_validation(log, results):
    labels = log.labels.copy()
    labels[log.period == 2] = 1 - labels[log.period == 2]
    other = fit_baselines(dataclasses.replace(log, labels=labels, actions=labels), INPUTS)["baselines"]
    for name, result in results.items():
        assert other[name]["settings"] == result["settings"]
        assert other[name]["validation"] == result["validation"]
        assert other[name]["test"] != result["test"]


@pytest.fixture(scope="module")
def samples():
    """A clear but not certain dependence on the first of three inputs, twice; and its opposite."""
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(800, 3)).astype(np.float32)
    labels = (generator.random(800) < 1 / (1 + np.exp(-3 * inputs[:, 0]))).astype(np.float32)
    train, same = Sample(inputs[:400], labels[:400]), Sample(inputs[400:], labels[400:])
    return train, same, same._replace(labels=1 - same.labels)


def test_the_penalty_is_the_one_that_validation_prefers(samples):
    train, same, opposite = samples
    assert fit_linear(train, opposite, same.inputs, ignore).settings == {"C": 1e-3}
    assert fit_linear(train, same, same.inputs, ignore).settings["C"] > 1e-2


def test_boosting_stops_where_validation_says(samples):
    train, same, opposite = samples
    assert fit_gradient_boosting(train, opposite, same.inputs, ignore).settings["max_iter"] == 1
    assert fit_gradient_boosting(train, same, same.inputs, ignore).settings["max_iter"] > 5


def test_no_neighbouring_number_of_trees_does_better_on_validation(samples):
    train, same, _ = samples
    fitted = fit_gradient_boosting(train, same, same.inputs, ignore)

    def loss(trees):
        settings = fitted.settings | {"max_iter": trees}
        model = HistGradientBoostingClassifier(**settings, early_stopping=False, random_state=0)
        probability = model.fit(*train).predict_proba(same.inputs)[:, 1]
        return -np.mean(np.where(same.labels == 1, np.log(probability), np.log1p(-probability)))

    chosen = fitted.settings["max_iter"]
    assert loss(chosen) <= min(loss(chosen - 1), loss(chosen + 1))
    mine = np.where(same.labels == 1, fitted.predictions, 1 - fitted.predictions)
    assert -np.log(mine).mean() == pytest.approx(loss(chosen), rel=1e-5)


@pytest.mark.parametrize("size", [300, 2_000, 40_000])
def test_the_work_is_bounded_and_known_beforehand(size, monkeypatch):
    """Fits of at most 1,000 events for shapes and 5,000 for the last, where the whole grid would take nine of all."""
    monkeypatch.setattr(baseline_models, "_ROUNDS", ((500, 3), (1_000, 1)))
    monkeypatch.setattr(baseline_models, "_BOOSTING_FITTED", 5_000)
    monkeypatch.setattr(baseline_models, "_LINEAR_TRIED", 500)
    monkeypatch.setattr(baseline_models, "_LINEAR_FITTED", 5_000)
    monkeypatch.setattr(baseline_models, "_MOST_TREES", 3)
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(size, 2)).astype(np.float32)
    sample = Sample(inputs, (rng.random(size) < 0.5).astype(np.float32))
    done = {fit_linear: [], fit_gradient_boosting: []}
    for fit, parts in done.items():
        fit(sample, sample, inputs[:10], parts.append)
    assert tuple(map(sum, done.values())) == work(size)
    assert max(done[fit_gradient_boosting]) <= 5_000
    assert sum(done[fit_gradient_boosting]) <= 8 * 500 + 4 * 1_000 + 5_000


@pytest.mark.parametrize("rate", [0.3, 0.01])
def test_thinning_keeps_the_rate_the_span_of_time_and_enough_of_the_rarer_outcome(rate):
    rng = np.random.default_rng(0)
    labels = (rng.random(200_000) < rate).astype(np.float32)
    sample = Sample(np.arange(200_000, dtype=np.float32)[:, None], labels)
    thinned = sample.thinned(20_000)
    assert thinned.labels.mean() == pytest.approx(labels.mean(), rel=0.01)
    assert thinned.labels.sum() >= min(0.03 * rate * 200_000, 600)
    assert 20_000 <= len(thinned.labels) <= 60_002
    assert np.all(np.diff(thinned.inputs[:, 0]) > 0)
    quarters = np.histogram(thinned.inputs[:, 0], bins=4, range=(0, 200_000))[0]
    np.testing.assert_allclose(quarters, len(thinned.labels) / 4, rtol=0.03)
    assert sample.thinned(200_000) is sample


def test_a_task_that_validation_never_observes_is_named(log):
    labels = log.labels.copy()
    labels[log.period == 1, 1] = np.nan
    with pytest.raises(ValueError, match="the task like has no observed label in validation"):
        fit_baselines(dataclasses.replace(log, labels=labels), INPUTS)


def test_baselines_are_found_for_their_own_data_and_inputs_alone(log, results, tmp_path):
    description = tmp_path / "log.toml"
    assert read_baselines(description, log, INPUTS) == (None, None)
    assert read_baselines(None, log, INPUTS) == (None, None)
    write_json(baselines_file(description), fit_baselines(log, INPUTS))
    assert baselines_file(description) == tmp_path / "log.baselines.json"
    assert read_baselines(description, log, INPUTS) == (results, None)
    more_rows = dataclasses.replace(INPUTS, item_buckets=32)
    assert read_baselines(description, log, more_rows) == (results, None)  # nothing that baselines feel
    changed = log.dense.copy()
    changed[3, 0] += 1
    period = np.where(np.arange(len(log.time_ms)) == np.flatnonzero(log.period == 1)[0], 0, log.period)
    for other in (dataclasses.replace(log, dense=changed), dataclasses.replace(log, period=period)):
        found, said = read_baselines(description, other, INPUTS)
        assert found is None
        assert "of other data" in said
        assert f"siren-rope baselines {description}" in said
    found, said = read_baselines(description, log, dataclasses.replace(INPUTS, counter_smoothing=3.0))
    assert found is None
    assert "--inputs.counter-smoothing 3.0" in said
    baselines_file(description).write_text("{")
    found, said = read_baselines(description, log, INPUTS)
    assert found is None
    assert "not what `siren-rope baselines` writes" in said


def test_the_table_sets_each_model_against_gradient_boosting():
    def of(ne):
        return {"validation": {"click": {"ne": 0.5, "auc": 0.6}}, "test": {"click": {"ne": ne, "auc": None}}}

    baselines = {"base_rate": of(1.0), "logistic_regression": of(0.85), "gradient_boosting": of(0.8)}
    tables: Any = comparison_table(baselines, [of(0.78), of(0.76)])
    (table,) = tables.renderables
    rows = list(zip(*(column.cells for column in table.columns), strict=True))
    assert rows[0] == ("click", "base rate", "0.5000 / 0.6000", "1.0000 / -", "+0.2000")
    assert rows[2][1:] == ("gradient boosting", "0.5000 / 0.6000", "0.8000 / -", "")
    assert rows[3][1:] == ("recommender, mean of 2 seeds", "0.5000 / 0.6000", "0.7700 / -", "-0.0300")


def _write_log(folder, size=300):
    generator = np.random.default_rng(0)
    pl.DataFrame(
        {
            "user": generator.integers(0, 10, size),
            "item": generator.integers(0, 10, size),
            "time": 1_650_000_000 + np.sort(generator.integers(0, 30 * 86_400, size)),
            "click": (generator.random(size) < 0.4).astype(int),
        }
    ).write_csv(folder / "events.csv")
    description = folder / "log.toml"
    description.write_text(
        '[log]\nfiles = ["events.csv"]\nuser = "user"\nitem = "item"\ntimestamp = "time"\ntimestamp_unit = "s"\n'
        '[tasks]\nclick = "click"\n[split]\nvalidation_from = 0.6\ntest_from = 0.8\n'
    )
    return description


def test_the_command_prints_the_test_ne_that_it_writes_and_a_second_run_writes_the_same(tmp_path, capsys):
    description = _write_log(tmp_path)
    main(["baselines", str(description)])
    out = tmp_path / "log.baselines.json"
    written = out.read_bytes()
    metrics = json.loads(written)
    printed = capsys.readouterr().out
    assert set(metrics["baselines"]) == {"base_rate", "logistic_regression", "gradient_boosting"}
    assert {"hour", "weekday", "user_rate_click"} <= set(metrics["features"])
    for result in metrics["baselines"].values():
        assert f"{result['test']['click']['ne']:.4f}" in printed
        assert result["test"]["click"]["events"] == 60
    main(["baselines", str(description)])
    assert out.read_bytes() == written


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A log with its baselines, and what training a run on it printed."""
    folder = tmp_path_factory.mktemp("trained")
    _write_log(folder)
    back = os.getcwd()
    os.chdir(folder)
    try:
        main(["baselines", "log.toml"])
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            main(["train", "log.toml", "--out", "run", *TINY])
    finally:
        os.chdir(back)
    return folder, printed.getvalue()


def test_train_and_evaluate_show_baselines_of_the_same_data_and_say_which_they_leave_out(trained, capsys):
    folder, shown = trained
    run, kept = folder / "run", folder / "log.baselines.json"
    main(["evaluate", str(run)])
    ne = json.loads((run / "metrics.json").read_text())["test"]["click"]["ne"]
    for printed in (shown, capsys.readouterr().out):
        assert [line for line in printed.splitlines() if "recommender" in line and f"{ne:.4f}" in line]
        assert "gradient boosting" in printed
    whole = kept.read_text()
    stale = json.loads(whole)
    stale["data"]["training"]["digest"] = "0" * 32
    kept.write_text(json.dumps(stale))
    main(["evaluate", str(run)])
    kept.write_text(whole)
    printed = capsys.readouterr().out
    assert "are left out, as they are of other data" in printed
    assert "recommender" not in printed


def test_a_run_tells_where_the_description_of_its_log_is_and_one_that_does_not_is_read(trained, tmp_path):
    folder, _ = trained
    run = tmp_path / "run"
    shutil.copytree(folder / "run", run)
    described = json.loads((run / "config.json").read_text())
    assert described["log_file"] == str(folder / "log.toml")
    assert read_run(run)[0].description == folder / "log.toml"
    (run / "config.json").write_text(json.dumps({k: v for k, v in described.items() if k != "log_file"}))
    assert read_run(run)[0].description is None
    (run / "config.json").write_text(json.dumps(described | {"log_file": "/elsewhere/log.toml"}))
    main(["train", str(folder / "log.toml"), "--out", str(run), *TINY])  # a description that has moved is no difference


def test_nothing_but_earlier_baselines_is_overwritten(tmp_path, capsys):
    description = _write_log(tmp_path)
    precious = tmp_path / "metrics.json"
    precious.write_text("{}")
    for out in (precious, description, tmp_path):
        before = description.read_bytes()
        with pytest.raises(SystemExit) as stopped:
            main(["baselines", str(description), "--out", str(out)])
        assert stopped.value.code == 2
        assert "is something else" in capsys.readouterr().err
        assert (precious.read_text(), description.read_bytes()) == ("{}", before)


def test_a_description_that_does_not_exist_is_one_sentence_and_nothing_is_written(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["baselines", str(tmp_path / "absent.toml"), "--out", str(tmp_path / "out" / "baselines.json")])
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert "absent.toml" in message
    assert message.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_ctrl_c_writes_nothing_and_says_so(tmp_path):
    description = _write_log(tmp_path, size=100_000)
    command = [sys.executable, "-m", "siren_rope_jax", "baselines", str(description)]
    names = set(os.listdir(tmp_path))
    environment = os.environ | {"GLIBC_TUNABLES": "glibc.malloc.arena_max=1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("fitting"):
            break
    error = None
    while error is None:
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        # Python drops an interrupt that comes within a callback of ctypes: a user presses again.
        with contextlib.suppress(subprocess.TimeoutExpired):
            _, error = process.communicate(timeout=100)
    assert process.returncode == 130
    assert "nothing was written" in error
    assert "Traceback" not in error
    assert set(os.listdir(tmp_path)) == names


def test_a_label_between_0_and_1_counts_as_both_in_its_proportion():
    labels = np.repeat(np.array([0.25, 0.0, 1.0, np.nan], np.float32), 2_000)
    sample = Sample.of(np.zeros((8_000, 1), np.float32), labels, np.ones(8_000, bool))
    assert len(sample.labels) == 6_000
    assert sample.labels[:2_000].mean() == pytest.approx(0.25, abs=0.04)  # four standard errors
    assert set(sample.labels[2_000:4_000]) == {0.0}
    assert set(sample.labels[4_000:]) == {1.0}
