"""The audit of leaks passes what is honest, and finds each kind of leak that is planted."""

import dataclasses
import json

import numpy as np
import polars as pl
import pytest

from siren_rope_jax import cli, commands
from siren_rope_jax.data.bags import Bag
from siren_rope_jax.data.batches import BatchConfig
from siren_rope_jax.data.event_log import read_event_log
from siren_rope_jax.data.periods import TRAIN
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.data.simulator import SimulatorConfig, simulate, write_simulated_log
from siren_rope_jax.nn.config import ModelConfig
from siren_rope_jax.nn.rotary import RotaryConfig
from siren_rope_jax.train import cheats, probes
from siren_rope_jax.train.audit import SmallModels, small
from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.hindsight import look_at_columns, shape_of_ties
from siren_rope_jax.train.inputs import fit_inputs
from siren_rope_jax.train.optimizer import OptimizerConfig
from siren_rope_jax.train.probes import Audited, Finding

pytestmark = pytest.mark.slow

CONFIG = dataclasses.replace(
    small(TrainConfig(model=ModelConfig(width=16, heads=1, rotary=RotaryConfig("ordinal"))), steps=60),
    batches=BatchConfig(window=16, row_length=32, batch_size=16),
    optimizer=OptimizerConfig(learning_rate=1e-2),
)


@pytest.fixture(scope="module")
def feed(tmp_path_factory):
    """A simulated feed that is split by time, with a side table of which two columns were computed with hindsight."""
    folder = tmp_path_factory.mktemp("audit") / "feed"
    described = write_simulated_log(simulate(SimulatorConfig(users=120)), folder)
    items = (
        pl.read_parquet(folder / "events.parquet").group_by("item_id").agg(final_rate=pl.mean("like"), views=pl.len())
    )
    items = items.with_columns(innocent=pl.Series(np.random.default_rng(0).normal(size=items.height)))
    items.write_parquet(folder / "items.parquet")
    side = '[[side_table]]\nfile = "items.parquet"\njoin = "item"\nkey = "item_id"\n'
    side += 'dense = ["final_rate", "views", "innocent"]\n'
    plain = described.read_text().replace('by = "user"\n', "").replace("0.8", "0.5").replace("0.9", "0.6")
    described.write_text(plain)
    (folder / "with_items.toml").write_text(plain.replace("[split]", side + "\n[split]"))
    return folder


@pytest.fixture(scope="module")
def log(feed):
    return cheats.some_of(read_event_log(EventLogSpec.from_toml(feed / "log.toml")), 100_000)


@pytest.fixture(scope="module")
def honest(log):
    models = SmallModels(CONFIG)
    return Audited(models.learn(log), models.learn, lambda one: fit_inputs(one, CONFIG.inputs))


@pytest.mark.parametrize("probe", probes.PROBES, ids=lambda probe: probe.__name__)
def test_on_the_simulated_feed_nothing_planted_is_found_and_nothing_moves(honest, log, probe):
    findings = list(probe(honest, log))
    assert findings
    assert [finding for finding in findings if finding.verdict != "ok"] == []


def place_in_second(log):
    """What the order of rows says, and what positions within a second once said."""
    key = pl.DataFrame({"user": log.user, "second": log.time_ms // 1000, "one": 1})
    return key.select(pl.col("one").cum_sum().over("user", "second")).to_series().to_numpy()


def outcome_of_others(log):
    """What the other events of a second, on the other side of the split, came to."""
    key = pl.DataFrame({"user": log.user, "second": log.time_ms // 1000, "outcome": log.labels[:, 0]})
    others = (pl.col("outcome").sum() - pl.col("outcome")) / (pl.len() - 1).clip(1)
    return key.select(others.over("user", "second")).to_series().to_numpy()


KNOWN = {
    "clicks_first": place_in_second,
    "clicks_last": place_in_second,
    "by_file_order": lambda log: log.row,
    "by_milliseconds": lambda log: log.time_ms % 1000,
    "by_item_ids": lambda log: log.item,
    "by_user_ids": lambda log: log.user,
    "across_the_split": outcome_of_others,
}


@pytest.mark.parametrize("cheat", KNOWN)
def test_a_model_that_knows_where_the_outcomes_are_planted_is_found_out(honest, log, cheat):
    def told(log):
        return dataclasses.replace(log, dense=KNOWN[cheat](log).astype(np.float32)[:, None])

    def learn(log):
        predict = honest.learn(told(log))
        return lambda log, wanted, **options: predict(told(log), wanted, **options)

    broken = dataclasses.replace(honest, learn=learn)
    assert probes.find_one(broken, log, getattr(cheats, cheat)).verdict == "LEAK"


def test_a_model_that_sees_within_a_second_is_found_out(honest, log):
    seeing = dataclasses.replace(CONFIG, steps=120, model=dataclasses.replace(CONFIG.model, hide_ties=False))
    broken = dataclasses.replace(honest, learn=SmallModels(seeing).learn)
    assert probes.find_one(broken, log, cheats.clicks_first).verdict == "LEAK"


@pytest.mark.parametrize(
    ("added", "probe", "found"),
    [
        (lambda log: np.nanmean(log.labels), probes.change_the_future, ["LEAK", "LEAK"]),
        (lambda log: np.arange(len(log.time_ms))[:, None] % 2, probes.permute_ties, ["LEAK", "LEAK"]),
        (lambda log: log.time_ms[:, None] % 1000 / 1000, probes.permute_ties, ["ok", "LEAK"]),
        (lambda log: log.new.any(), probes.score_as_evaluated, ["LEAK", "LEAK"]),
        (lambda log: log.new.mean(), probes.score_candidates_apart, ["LEAK"]),
    ],
    ids=["the future", "the order of rows", "milliseconds", "being scored", "other candidates"],
)
def test_a_prediction_that_something_else_moves_is_found_out(honest, log, added, probe, found):
    def predict(log, wanted, **options):
        return honest.predict(log, wanted, **options) + np.float32(1e-2) * np.float32(added(log))

    broken = dataclasses.replace(honest, predict=predict)
    assert [finding.verdict for finding in probe(broken, log)] == found


def test_inputs_that_are_fitted_on_what_comes_after_training_are_found_out(honest, log):
    def fit_later(log):
        encoder, _ = fit_inputs(dataclasses.replace(log, period=np.full_like(log.period, TRAIN)), CONFIG.inputs)
        return encoder, encoder.encode(log)

    (finding,) = probes.change_what_training_must_not_see(dataclasses.replace(honest, fit_inputs=fit_later), log)
    assert finding.verdict == "LEAK"
    assert "context_mean, context_std, context_transform" in finding.moved


def test_a_prediction_that_nothing_can_move_proves_nothing(honest, log):
    constant = dataclasses.replace(honest, predict=lambda log, wanted, **_: np.full_like(log.labels, 0.5))
    for probe in probes.PROBES:
        if probe not in (probes.find_planted, probes.change_what_training_must_not_see):
            assert {finding.verdict for finding in probe(constant, log)} == {"inconclusive"}


def test_too_few_test_events_prove_nothing(honest, log):
    few = cheats.rows_of(log, np.arange(len(log.time_ms))[:: len(log.time_ms) // 200])
    assert probes.find_one(honest, few, cheats.by_item_ids).verdict == "inconclusive"


def test_columns_of_a_side_table_that_know_what_came_later_are_to_be_looked_at(feed):
    log = read_event_log(EventLogSpec.from_toml(feed / "with_items.toml"))
    verdicts = {finding.tried: finding.verdict for finding in look_at_columns(log)}
    flagged = {"column final_rate", "column views"}
    innocent = {"column innocent", "column quality", "column topic", "column format"}
    assert verdicts == dict.fromkeys(flagged, "look at it") | dict.fromkeys(innocent, "ok")


def test_a_bag_that_tells_the_outcome_is_to_be_looked_at(log):
    told = pl.Series(np.where(log.labels[:, 0] > 0, "liked\x1fnews", "news"))
    other = pl.Series(np.where(np.arange(len(told)) % 2, "a", "b"))
    bags = tuple(Bag.of(name, texts, slice(None)) for name, texts in (("telling", told), ("innocent", other)))
    shared = np.where(np.arange(len(told))[:, None] % 50, log.labels, 0.5)  # of rows that contradict each other
    for labels in (log.labels, shared.astype(np.float32)):
        bearing = dataclasses.replace(log, bags=bags, labels=labels)
        verdicts = {found.tried: found.verdict for found in look_at_columns(bearing)}
        assert (verdicts["column telling"], verdicts["column innocent"]) == ("look at it", "ok")


def test_the_shape_of_a_log_tells_the_share_of_shared_seconds(log):
    assert shape_of_ties(log, 64)[0].moved.startswith("0.00% of")
    ties, _ = shape_of_ties(cheats.gathered(log), 64)
    share = float(ties.moved.split("%")[0])
    assert 90 < share < 100
    assert "at most 4 together" in ties.moved


def test_the_command_audits_a_run_and_writes_its_findings(feed, tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "findings.json"
    flags = "--steps 6 --evaluations 1 --batches.window 16 --batches.row-length 32 --model.width 8 --model.heads 1"
    flags += " --model.layers 1 --model.head-widths 8 --model.action-widths 8 --model.rotary.kind ordinal"
    cli.main(["train", str(feed / "log.toml"), "--out", str(run), *flags.split()])
    # So few that the outcomes planted say nothing: they train no models of the run.
    cli.main(["audit", str(run), "--events", "200", "--out", str(out)])
    findings = json.loads(out.read_text())
    assert {finding["probe"] for finding in findings} >= {"shape", "planted", "future", "split", "ties", "scoring"}
    assert all(finding["verdict"] != "LEAK" for finding in findings)
    shown = capsys.readouterr().out
    assert all(finding["probe"] in shown for finding in findings)


def test_the_command_ends_with_4_where_something_leaks(feed, monkeypatch, capsys):
    monkeypatch.setattr(commands, "audit", lambda *_, **__: iter([Finding("ties", "a trick", "everything", "LEAK")]))
    with pytest.raises(SystemExit) as caught:
        cli.main(["audit", str(feed / "log.toml")])
    assert caught.value.code == 4
    assert "1 of 1 probes" in capsys.readouterr().err
