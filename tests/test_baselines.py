"""The practitioner's baselines: what they read, what they are fitted and tuned on, and what the command writes."""

import dataclasses
import json

import numpy as np
import polars as pl
import pytest
from small_logs import INPUTS, small_log

from experiments.baselines import (
    Sample,
    baseline_inputs,
    compare,
    fit_gradient_boosting,
    fit_logistic_regression,
    main,
)

DAY = 86_400_000
LENGTHS = [30] * 20


@pytest.fixture(scope="module")
def log():
    return small_log(LENGTHS)


@pytest.fixture(scope="module")
def results(log):
    return compare(log, INPUTS, "counters+calendar")


def test_inputs_stand_in_the_order_of_the_log(log):
    inputs, names = baseline_inputs(log, INPUTS, "counters+calendar")
    assert inputs.shape == (len(log.time), len(names))
    events_before = [int((log.user[:row] == user).sum()) for row, user in enumerate(log.user)]
    counted = inputs[:, names.index("user_events")]
    # More earlier events, a larger counter; as many, the same one.
    assert len(set(zip(events_before, counted.tolist(), strict=True))) == max(events_before) + 1
    assert np.all(np.diff(counted[np.argsort(events_before, kind="stable")]) >= 0)
    hour = np.arctan2(inputs[:, names.index("day_sin")], inputs[:, names.index("day_cos")])
    np.testing.assert_allclose(np.mod(hour / (2 * np.pi), 1) * 86_400, log.second, atol=0.1)


def test_the_same_week_later_gives_the_same_inputs_so_that_none_tells_the_date(log):
    later = dataclasses.replace(
        log, time=log.time + 70 * DAY, day=log.day + 70, action_known=log.action_known + 70 * DAY
    )
    inputs, names = baseline_inputs(log, INPUTS, "counters+calendar")
    np.testing.assert_array_equal(baseline_inputs(later, INPUTS, "counters+calendar")[0], inputs)
    assert not [name for name in names if "base_rate" in name]


def test_the_calendar_adds_four_columns_and_nothing_else_changes(log):
    inputs, names = baseline_inputs(log, INPUTS, "counters+calendar")
    without, fewer = baseline_inputs(log, INPUTS, "counters")
    calendar = ["day_cos", "day_sin", "week_cos", "week_sin"]
    assert sorted(names) == sorted([*fewer, *calendar])
    np.testing.assert_array_equal(inputs[:, [names.index(name) for name in fewer]], without)


@pytest.mark.parametrize("baseline", ["logistic_regression", "gradient_boosting"])
def test_a_habit_of_the_hour_is_found_with_the_calendar_and_not_without(log, results, baseline):
    without = compare(log, INPUTS, "counters")[baseline]["test"]["like"]
    assert results[baseline]["test"]["like"]["ne"] < 0.9
    assert without["ne"] > 0.95


def test_only_observed_labels_are_evaluated(log, results):
    for result in results.values():
        for title, period in (("validation", 1), ("test", 2)):
            observed = ~np.isnan(log.labels[log.period == period])
            assert [result[title][task]["events"] for task in log.task_names] == observed.sum(axis=0).tolist()
            assert observed.sum(axis=0)[0] > observed.sum(axis=0)[1]


def test_outcomes_of_the_test_period_change_neither_the_choice_nor_validation(log, results):
    labels = log.labels.copy()
    labels[log.period == 2] = 1 - labels[log.period == 2]
    other = compare(dataclasses.replace(log, labels=labels, actions=labels), INPUTS, "counters+calendar")
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
    assert fit_logistic_regression(train, opposite).settings == {"C": 1e-3}
    assert fit_logistic_regression(train, same).settings["C"] > 1e-2


def test_boosting_stops_where_validation_says(samples):
    train, same, opposite = samples
    fitted = fit_gradient_boosting(train, opposite)
    assert fitted.settings["max_iter"] == fitted.model.n_iter_ == 1
    fitted = fit_gradient_boosting(train, same)
    assert 5 < fitted.settings["max_iter"] == fitted.model.n_iter_


def test_no_neighbouring_number_of_trees_does_better_on_validation(samples):
    train, same, _ = samples
    fitted = fit_gradient_boosting(train, same)

    def loss(trees):
        probability = fitted.model.__class__(
            **fitted.model.get_params() | {"max_iter": trees}
        ).fit(*train).predict_proba(same.inputs)[:, 1]  # fmt: skip
        return -np.mean(np.where(same.labels == 1, np.log(probability), np.log1p(-probability)))

    chosen = fitted.settings["max_iter"]
    assert loss(chosen) <= min(loss(chosen - 1), loss(chosen + 1))


def test_a_task_that_validation_never_observes_is_named(log):
    labels = log.labels.copy()
    labels[log.period == 1, 1] = np.nan
    with pytest.raises(ValueError, match="the task like has no observed label in validation"):
        compare(dataclasses.replace(log, labels=labels), INPUTS, "counters")


@pytest.fixture
def described(tmp_path):
    """A log on disk: its description."""
    generator = np.random.default_rng(0)
    size = 300
    pl.DataFrame(
        {
            "user": generator.integers(0, 10, size),
            "item": generator.integers(0, 10, size),
            "time": 1_650_000_000 + np.sort(generator.integers(0, 30 * 86_400, size)),
            "click": (generator.random(size) < 0.4).astype(int),
        }
    ).write_csv(tmp_path / "events.csv")
    description = tmp_path / "log.toml"
    description.write_text(
        '[log]\nfiles = ["events.csv"]\nuser = "user"\nitem = "item"\ntimestamp = "time"\ntimestamp_unit = "s"\n'
        '[tasks]\nclick = "click"\n[split]\nvalidation_from = 0.6\ntest_from = 0.8\n'
    )
    return description


def test_the_command_prints_the_test_ne_that_it_writes_and_a_second_run_writes_the_same(described, tmp_path, capsys):
    out = tmp_path / "runs" / "baselines"
    main([str(described), "--out", str(out)])
    written = (out / "metrics.json").read_bytes()
    metrics = json.loads(written)
    printed = capsys.readouterr().out
    assert metrics["features"] == "counters+calendar"
    assert set(metrics["baselines"]) == {"logistic_regression", "gradient_boosting"}
    for result in metrics["baselines"].values():
        assert f"{result['test']['click']['ne']:.4f}" in printed
        assert result["test"]["click"]["events"] == 60
    main([str(described), "--out", str(out)])
    assert (out / "metrics.json").read_bytes() == written


def test_the_metrics_of_a_run_are_never_overwritten(described, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.json", "metrics.json"):
        (run / name).write_text("{}")
    with pytest.raises(SystemExit) as stopped:
        main([str(described), "--out", str(run)])
    assert stopped.value.code == 2
    assert "holds something else" in capsys.readouterr().err
    assert (run / "metrics.json").read_text() == "{}"


def test_a_description_that_does_not_exist_is_one_sentence_and_nothing_is_written(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path / "absent.toml"), "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert "absent.toml" in message
    assert message.count("\n") == 1
    assert not (tmp_path / "out").exists()
