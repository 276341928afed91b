"""Pictures and tables show what was learned, and the experiments compare what they say they compare."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
from flax import nnx
from one_sentence import raises_one_sentence
from rich.table import Table
from small_logs import small_log, small_rotary

from experiments.demo import ORDINAL, VARIANTS, compare, get_config, read_probabilities
from experiments.real_logs import difference
from siren_rope_jax.data.outcome_scale import OutcomeScale
from siren_rope_jax.nn.features import InputSpec
from siren_rope_jax.nn.rotary import RotaryConfig, SirenSettings, SourceInputs, make_rotary
from siren_rope_jax.ops.siren import siren_apply
from siren_rope_jax.report import rotation
from siren_rope_jax.report.pictures import draw_mean_cosine, draw_week
from siren_rope_jax.report.rotation import (
    mean_cosine,
    middle_week,
    periodogram,
    rotated_basis,
    time_angles,
    turns_pairs,
)
from siren_rope_jax.report.tables import make_console, metrics_table
from siren_rope_jax.train.predict import write_predictions
from siren_rope_jax.train.tasks import make_tasks

pytestmark = pytest.mark.slow

SPEC = InputSpec(dense_names=("quality",), start_day=19_723, span_days=28.0)
DAY_INPUTS, WEEK_INPUTS = [0, 1], [2, 3]


def rotary_of(inputs) -> Any:
    """A network, drawn at random, that reads only some of the five time features."""
    rotary: Any = make_rotary(RotaryConfig("siren"), SourceInputs(SPEC, 16, 8), nnx.Rngs(params=jax.random.key(0)))
    network = rotary.networks[0].get_value()
    for first, *_ in network.values():
        others = [column for column in range(5) if column not in inputs]
        first["kernel"] = first["kernel"].at[np.array(others, int)].set(0)
    rotary.networks[0].set_value(network)
    return rotary


def test_a_network_of_the_time_of_day_repeats_after_whole_days_only():
    cosines = mean_cosine(rotary_of(DAY_INPUTS), SPEC, np.array([0, 12, 24, 168]))
    np.testing.assert_allclose(cosines[[0, 2, 3]], 1, atol=1e-5)
    assert cosines[1] < 0.99


def test_a_network_of_the_time_of_week_repeats_after_whole_weeks_only():
    cosines = mean_cosine(rotary_of(WEEK_INPUTS), SPEC, np.array([84, 168]))
    assert cosines[0] < 0.99
    np.testing.assert_allclose(cosines[1], 1, atol=1e-5)


def test_a_scale_of_zero_turns_nothing():
    rotary = rotary_of(range(5))
    rotary.scale[...] = 0 * rotary.scale[...]
    np.testing.assert_array_equal(time_angles(rotary, SPEC, np.arange(5)), 0)


@pytest.mark.parametrize(("turns", "share"), [((1, 3.5, 4), 0.0), ((5,), 1.0), ((2, 5, 11), 2 / 3), ((140,), 1.0)])
def test_the_share_of_fast_variance_is_that_of_waves_of_more_than_four_turns_a_day(monkeypatch, turns, share):
    def waves(rotary, spec, seconds):
        days = seconds[:, None] / 86_400
        return np.float32(np.sin(2 * np.pi * days * np.array(turns)) + 0.3 * days)

    monkeypatch.setattr(rotation, "time_angles", waves)
    assert rotation.fast_share(rotary_of(range(5)), SPEC) == pytest.approx(share, abs=0.02)


def test_a_rotation_that_never_turns_has_no_fast_variance_and_a_wild_one_more_than_a_gentle_one():
    def share(**settings):
        config = RotaryConfig("siren", siren=SirenSettings(**settings))
        rotary: Any = make_rotary(config, SourceInputs(SPEC, 16, 8), nnx.Rngs(params=0))
        return rotation.fast_share(rotary, SPEC)

    assert share(zero_last=True) == 0
    assert share(omega0=1.0) < 0.02 < 0.05 < share(omega0=60.0)


def source(kind, **settings) -> Any:
    inputs = SourceInputs(SPEC, 16, 8, key_heads=2)
    return make_rotary(small_rotary(kind, **settings), inputs, nnx.Rngs(params=jax.random.key(3)))


@pytest.mark.parametrize("settings", [{}, {"per_head": True, "partial": 0.5}], ids=["plain", "per head and partial"])
def test_the_angles_of_a_siren_are_those_of_its_network_at_position_zero(settings):
    rotary, seconds = source("siren", **settings), middle_week(SPEC)
    if settings:
        rotary.scale[...] *= np.array([[1], [-0.5]])
    day, second = (jnp.asarray(x, jnp.int32) for x in np.divmod(seconds, 86_400))
    features = rotary.time_features(day + SPEC.start_day, second)
    learned = siren_apply(rotary.angle_networks()[0], features, omega0=rotary.start.omega0)
    expected = np.asarray(learned[:, None] * rotary.scale[...].reshape(-1, learned.shape[1]), np.float64)
    found = time_angles(rotary, SPEC, seconds)
    assert found.shape == (len(seconds), 8)  # of 16 features, or 2 heads of 8
    np.testing.assert_allclose(np.diff(found, axis=0), np.diff(expected.reshape(len(seconds), -1), axis=0), atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"per_head": True, "partial": 0.5}], ids=["plain", "per head and partial"])
def test_the_fast_share_logged_at_validation_is_that_of_the_page(settings):
    rotary = source("siren", omega0=30.0, **settings)
    found = jax.jit(lambda: rotary.diagnosed())()
    assert 0.01 < found["fast_share"] == pytest.approx(rotation.fast_share(rotary, SPEC), rel=1e-2)
    assert not source("ordinal").diagnosed()


def test_the_angles_of_to_rope_grow_with_the_days():
    rotary, seconds = source("time_order", time_scale=0.5), middle_week(SPEC)
    days = (seconds - seconds[0])[:, None] / 86_400
    found = time_angles(rotary, SPEC, seconds)
    np.testing.assert_allclose(found - found[0], 0.5 * days * 10_000.0 ** -(np.arange(8) / 8), atol=1e-4)
    assert rotation.fast_share(rotary, SPEC) == 0  # a line, and rounding


@pytest.mark.parametrize("seconds", [middle_week(SPEC), np.array([0, 7, 40_000])], ids=["week", "far apart"])
def test_pairs_that_turn_faster_than_the_moments_follow_each_other_keep_their_speed(seconds):
    rotary = source("time_scales", shortest_seconds=60.0)
    periods = np.array(rotary.periods, np.float64)
    assert periods.min() < 300
    turns = 2 * np.pi * (seconds - seconds[0])[:, None] / periods
    found = time_angles(rotary, SPEC, seconds)
    np.testing.assert_allclose(found - found[0], turns, atol=1e-5, rtol=1e-7)
    assert rotation.fast_share(rotary, SPEC) == 0


@pytest.mark.parametrize("at_once", [5, 4_096])
@pytest.mark.parametrize("kind", ["siren", "time_order", "lie", "rote"])
def test_the_mean_cosine_is_that_of_rotated_vectors_pair_by_pair(kind, at_once, monkeypatch):
    monkeypatch.setattr(rotation, "_HOURS_AT_ONCE", at_once)
    rotary, spec = source(kind), dataclasses.replace(SPEC, span_days=2.0)
    if kind == "lie":
        rotary.generators[...] += 0.1 * np.random.default_rng(0).normal(size=rotary.generators.shape)
    basis = rotated_basis(rotary, spec, 3_600 * np.arange(48))
    np.testing.assert_allclose(np.linalg.norm(basis, axis=-1), 1, rtol=1e-5)
    lags = np.array([0, 1, 24, 47])
    naive = [np.mean([(basis[t] * basis[t + lag]).sum(axis=-1).mean() for t in range(48 - lag)]) for lag in lags]
    np.testing.assert_allclose(mean_cosine(rotary, spec, lags), naive, atol=1e-6)
    assert turns_pairs(basis) == (kind != "lie")


def test_a_rotation_without_angles_of_time_alone_is_refused():
    lie = source("lie")
    lie.generators[...] += 0.1 * np.random.default_rng(0).normal(size=lie.generators.shape)
    with raises_one_sentence("the rotation must turn pairs"):
        time_angles(lie, SPEC, np.arange(5))
    inputs = SourceInputs(SPEC, 16, 8, metadata_features=1)
    reads = make_rotary(small_rotary("siren", metadata=("quality",)), inputs, nnx.Rngs(params=0))
    with raises_one_sentence("must depend on time alone"):
        mean_cosine(reads, SPEC, np.array([1]))


def test_the_periodogram_of_daily_waves_is_highest_at_a_day():
    hours = np.arange(24 * 28)
    frequencies, shares = periodogram(np.cos(2 * np.pi * hours / 24) + 0.3 * np.cos(2 * np.pi * hours / 168) - hours)
    assert frequencies[np.argmax(shares)] == pytest.approx(1)
    assert shares.sum() == pytest.approx(1)
    assert shares[np.abs(frequencies - 1 / 7) < 0.05].sum() == pytest.approx(0.09 / 1.09, abs=0.03)


def test_lags_beyond_the_span_are_refused():
    with pytest.raises(ValueError, match="below 672 hours"):
        mean_cosine(rotary_of(DAY_INPUTS), SPEC, np.array([672]))


def test_pictures_are_drawn(tmp_path):
    for draw in (draw_mean_cosine, draw_week):
        draw(tmp_path / "picture.png", rotary_of(range(5)), SPEC)
        assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
        (tmp_path / "picture.png").unlink()


def test_a_metric_that_is_not_defined_is_a_dash():
    values = {"ne": None, "auc": 0.5, "gauc": None, "ece": 0.1, "log_loss": 0.2, "events": 3, "positives": 0}
    tables: Any = metrics_table({"test": {"like": values}})
    (table,) = tables.renderables
    assert [next(iter(column.cells)) for column in table.columns[2:5]] == ["-", "0.5000", "-"]


def test_the_oracle_captures_all_and_ordinal_nothing():
    log = small_log([12, 30, 7, 25, 18, 40, 9, 22], seed=0)
    chosen = log.period == 2
    rng = np.random.default_rng(0)
    oracle = rng.uniform(0.1, 0.9, (chosen.sum(), log.labels.shape[1]))
    flat = np.tile(oracle.mean(axis=0), (len(oracle), 1))
    half = (oracle + flat) / 2
    log = dataclasses.replace(log, labels=rng.integers(0, 2, log.labels.shape).astype(np.float32))
    results = compare(log, oracle, {ORDINAL: flat, "half": half, "oracle": oracle})
    assert results[ORDINAL]["captured"][0] == pytest.approx(0)
    assert results["oracle"]["captured"] == pytest.approx([1, 1, 1])
    value, low, high = results["half"]["captured"]
    assert 0 < low <= value <= high < 1
    # A forecast at the base rate has an NE of exactly 1.
    np.testing.assert_allclose(results[ORDINAL]["ne"], 1, rtol=1e-6)


def test_predictions_are_matched_with_the_log_by_row(tmp_path):
    log = small_log([12, 30, 7, 25], seed=1)
    probabilities = np.random.default_rng(2).uniform(size=log.labels.shape).astype(np.float32)
    tasks = make_tasks([OutcomeScale(name) for name in log.task_names])
    write_predictions(tmp_path / "predictions.parquet", tasks, log, probabilities)
    shuffled = pl.read_parquet(tmp_path / "predictions.parquet").sample(fraction=1.0, shuffle=True, seed=3)
    shuffled.write_parquet(tmp_path / "predictions.parquet")
    np.testing.assert_array_equal(read_probabilities(tmp_path, log), probabilities[log.period == 2].astype(np.float64))


def test_the_models_of_the_demo_differ_in_nothing_but_time():
    configs = [get_config(name, seed=3, steps=10) for name in VARIANTS]
    same = {"rotary": RotaryConfig(), "encodings": ()}
    plain = {dataclasses.replace(config, model=dataclasses.replace(config.model, **same)) for config in configs}
    assert len(configs) == 4
    assert len(plain) == 1
    assert len({config.model.rotary.base for config in configs}) == 1


def test_the_interval_of_a_difference_is_students_over_paired_seeds():
    first, second = np.array([1.0, 2.0, 3.0]), np.array([1.1, 2.3, 3.2])
    mean, low, high = difference(first, second)
    assert mean == pytest.approx(0.2)
    # t(0.975, 2) = 4.3027, standard error 0.1 / sqrt(3)
    assert high - mean == pytest.approx(4.30265 * 0.1 / np.sqrt(3), rel=1e-4)
    assert mean - low == pytest.approx(high - mean)
    with pytest.raises(ValueError, match="at least 2 seeds"):
        difference(first[:1], second[:1])


def test_brackets_in_names_of_files_and_columns_are_printed_as_they_are(capsys):
    table = Table("[/task]")
    table.add_row("[log] ratings[v2].csv")
    console = make_console()
    console.print("[log] contradictions in ratings[v2].csv of [/tab]")
    console.print(table)
    printed = capsys.readouterr().out
    assert "[log] contradictions in ratings[v2].csv of [/tab]" in printed
    assert "[/task]" in printed
    assert "[log] ratings[v2].csv" in printed
