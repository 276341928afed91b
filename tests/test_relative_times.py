"""Times that are relative to an unknown moment: models read how far apart events are, and no calendar."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
from flax import nnx
from log_files import START, event_table, read, refusal, write
from small_logs import SPEC, small_rotary
from test_loop import CONFIG

from siren_rope_jax.data.encode import Encoder, InputConfig
from siren_rope_jax.errors import InputError
from siren_rope_jax.nn.rotary import SourceInputs, make_rotary
from siren_rope_jax.train.baseline_inputs import baseline_inputs
from siren_rope_jax.train.loop import train
from siren_rope_jax.train.session import input_spec, make_session

USERS, ITEMS = ["ann", "bob"], ["x", "y", "z"]
ONCE = InputConfig(min_count=1)


def log_of(folder, name, time, **log):
    frame = event_table(USERS, ITEMS).with_columns(time=time)
    return read([write(frame, folder / name)], log=log)


@pytest.mark.parametrize(("unit", "seconds"), [("d", 86_400), ("h", 3_600), ("s", 1), ("ms", 1e-3)])
@pytest.mark.parametrize("name", ["log.csv", "log.parquet"])
def test_relative_times_are_read_as_the_seconds_between_events(tmp_path, unit, seconds, name):
    since = [5_400 * i - 7_200 for i in range(20)]  # some before 0
    time = pl.Series([s / seconds for s in since])
    plain = log_of(tmp_path, "plain.csv", pl.Series([START + s for s in since]))
    log = log_of(tmp_path, name, time, timestamp_unit=unit, calendar=False)
    np.testing.assert_array_equal(log.time_ms, np.array(since) * 1000)
    elapsed = [Encoder.fit_encode(one, ONCE)[1].columns["elapsed_seconds"] for one in (plain, log)]
    np.testing.assert_array_equal(*elapsed)
    assert any("the times have no calendar" in note for note in log.notes)
    assert not any("multiples" in note or "every time is" in note for note in log.notes)
    assert read([tmp_path / name], log=log.spec.to_dict()["log"]).spec.to_dict() == log.spec.to_dict()


def test_relative_times_that_lost_digits_are_refused(tmp_path):
    frame = event_table(USERS, ITEMS).with_columns(time=pl.Series(range(20), dtype=pl.Float32))
    said = refusal([write(frame, tmp_path / "log.parquet")], log={"timestamp_unit": "d"})
    assert "holds Float32, which keeps 7 digits" in said
    frame = frame.with_columns(time=pl.Series([f"{i}.1e+03" for i in range(20)]))
    assert "with all its digits" in refusal([write(frame, tmp_path / "log.csv")], log={"timestamp_unit": "h"})


def test_small_numbers_are_no_mistake_where_times_are_relative(tmp_path, recwarn):
    log_of(tmp_path, "log.csv", pl.Series([5.0 + i for i in range(20)]), timestamp_unit="d")
    assert not [warning for warning in recwarn if "look like seconds" in str(warning.message)]


def test_without_a_calendar_no_input_tells_hour_or_weekday(tmp_path):
    log = log_of(tmp_path, "log.csv", pl.Series([0.37 * i for i in range(20)]), timestamp_unit="d")
    encoder, _ = Encoder.fit_encode(log, ONCE)
    spec = input_spec(encoder, CONFIG)
    features = np.asarray(spec.time_features(jnp.asarray(log.day), jnp.asarray(log.second)))
    assert (features[:, :4] == 0).all()
    assert len(set(features[:, 4])) > 5  # the place in the training span is known
    inputs = baseline_inputs(log, ONCE)
    circles = [inputs.number_names.index(name) for name in ("day_cos", "day_sin", "week_cos", "week_sin")]
    assert (inputs.numbers[:, circles] == 0).all()
    assert (inputs.clock == 0).all()


def test_an_angle_network_without_any_input_is_refused(tmp_path):
    spec = dataclasses.replace(SPEC, calendar=False)
    inputs = SourceInputs(spec, 4, 8)
    rotary = small_rotary("siren", time_inputs=("day", "week"))
    with pytest.raises(ValueError, match='time_inputs must hold "span", or metadata a column, as the log has no'):
        make_rotary(rotary, inputs, nnx.Rngs(0))
    log = log_of(tmp_path, "log.csv", pl.Series([0.37 * i for i in range(20)]), timestamp_unit="d")
    config = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, rotary=rotary))
    with pytest.raises(InputError, match="as the log has no calendar"):
        make_session(Encoder.fit_encode(log, ONCE)[0], config)


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ({"timestamp_unit": "d", "calendar": True}, 'calendar: expected false, as times in "d" have no date'),
        ({"timestamp_unit": "d", "time_zone": "UTC"}, "time_zone: this key is of no use, as the times have no"),
        ({"timestamp_unit": "d", "utc_offset_hours": 1}, "utc_offset_hours: this key is of no use"),
        ({"calendar": "no"}, "calendar: expected true or false, found 'no'"),
        ({"timestamp_unit": "w"}, "expected 's' or 'ms' or 'us' or 'ns' or 'iso' or 'h' or 'd', found 'w'"),
    ],
)  # fmt: skip
def test_keys_that_contradict_relative_times_are_refused(tmp_path, log, said):
    assert said in refusal([write(event_table(USERS, ITEMS), tmp_path / "log.csv")], log=log)


@pytest.mark.parametrize("cell", ["soon", "", "30000", "nan"])
def test_a_cell_that_is_no_relative_time_is_refused_with_its_line(tmp_path, cell):
    frame = event_table(USERS, ITEMS).with_columns(time=pl.Series([*map(str, range(19)), cell]))
    said = refusal([write(frame, tmp_path / "log.csv")], log={"timestamp_unit": "d"})
    assert 'line 21, column "time": expected a relative time in days, within 60 years of 0, found' in said


def test_relative_times_are_split_by_fractions_alone(tmp_path):
    frame = event_table(USERS, ITEMS).with_columns(time=pl.int_range(20))
    dates = {"validation_from": "2022-01-01", "test_from": "2022-02-01"}
    said = refusal([write(frame, tmp_path / "log.csv")], log={"timestamp_unit": "d"}, split=dates)
    assert "must be fractions, as the times have no calendar" in said


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_once")
def test_a_model_of_relative_times_is_the_same_wherever_the_unknown_moment_lies(tmp_path):
    found = []
    for shift in (0, -40):  # days
        rng = np.random.default_rng(0)
        frame = pl.concat([event_table([f"u{i}" for i in range(7)], ITEMS) for _ in range(10)])
        time = np.sort(rng.random(200) * 30) + shift
        frame = frame.with_columns(time=time, click=pl.Series(rng.integers(0, 2, 200)))
        log = read([write(frame, tmp_path / "log.csv")], log={"timestamp_unit": "d"})
        train(log, CONFIG, tmp_path / f"run{shift}")
        told = pl.read_parquet(tmp_path / f"run{shift}" / "predictions.parquet")
        found.append(told.sort("row")["probability_click"].to_numpy())
    np.testing.assert_array_equal(*found)
