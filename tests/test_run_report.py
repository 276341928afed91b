"""The page of a run: what applies is there, what does not is not, and nothing but the page is written."""

import dataclasses
import json
import re
import shutil

import numpy as np
import polars as pl
import pytest
from log_files import START
from one_sentence import raises_one_sentence
from page_reader import check_page
from rich.console import Console
from test_loop import CONFIG

from siren_rope_jax.cli import main
from siren_rope_jax.data.event_log import read_event_log
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.nn.rotary import RotaryConfig
from siren_rope_jax.report import run_report
from siren_rope_jax.report.run_report import write_report
from siren_rope_jax.train.loop import train

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("compiled_once")]

SECTIONS = ("run", "metrics", "calibration", "rotation", "training", "knock-outs", "attention", "made")
HOSTILE = "<script>alert('$x^2$')</script>"
SHORT = dataclasses.replace(CONFIG, steps=3, evaluations=1)


def write_log(folder, *, tasks, **log):
    """A log of twelve users over three weeks, whose every name is hostile, and its description."""
    folder.mkdir(parents=True)
    rng, count = np.random.default_rng(0), 700
    table = pl.DataFrame(
        {
            "<b>user": [f"<i>{user}</i>" for user in rng.integers(0, 12, count)],
            "item&": [f"${item}$" for item in rng.integers(0, 9, count)],
            "time": START + np.sort(rng.integers(0, 21 * 86_400, count)),
            HOSTILE: rng.integers(0, 2, count),
            "<dwell>": rng.exponential(5, count),
        }
    )
    table.write_parquet(folder / "a<b>&.parquet")
    sections = {"files": ["a<b>&.parquet"], "user": "<b>user", "item": "item&", "timestamp": "time"} | log
    lines = ["[log]", *(f"{name} = {json.dumps(value)}" for name, value in sections.items()), "[tasks]"]
    lines += [f"{json.dumps(name)} = {value}" for name, value in tasks.items()]
    lines += ["[split]", "validation_from = 0.6", "test_from = 0.8"]
    path = folder / "<img src=x>&.toml"
    path.write_text("\n".join(lines))
    return read_event_log(EventLogSpec.from_toml(path))


BOTH = {"like": json.dumps(HOSTILE), "_dwell": '{ column = "<dwell>", kind = "continuous" }'}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a log with a binary and a continuous task."""
    folder = tmp_path_factory.mktemp("reports")
    log = write_log(folder / "log", tasks=BOTH)
    train(log, SHORT, folder / "<u>$run&", console=Console(quiet=True))
    return folder / "<u>$run&"


@pytest.fixture(scope="module")
def rival(run):
    """The same run with other predictions."""
    shutil.copytree(run, run.parent / "rival")
    predictions = pl.read_parquet(run / "predictions.parquet")
    predictions.with_columns(pl.col("^probability_.*$") * 0.5).write_parquet(
        run.parent / "rival" / "predictions.parquet"
    )
    return run.parent / "rival"


def files_of(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def page(run, rival, tmp_path_factory):
    before = files_of(run.parent)
    out = tmp_path_factory.mktemp("out") / "report.html"
    baselines = {"gradient_boosting": json.loads((run / "metrics.json").read_text())}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_report, "read_baselines", lambda *_: (baselines, None))
        write_report(run, out, against=rival)
    assert files_of(run.parent) == before
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]
    return out.read_text()


def sections_of(page):
    return tuple(re.findall(r'<h2 id="([^"]+)"', page))


def test_a_run_has_every_section_in_order_and_its_names_are_shown_and_obeyed_nowhere(page, run):
    reader = check_page(page)
    assert sections_of(page) == SECTIONS
    for shown in ("like", "_dwell", "<img src=x>&.toml", "<u>$run&", "siren_rope_jax", "gradient boosting", "rival"):
        assert shown in reader.text
    assert 'name="viewport"' in page
    texts = ["".join(svg.itertext()) for svg in reader.drawings]
    assert any("all times in the rotation" in text for text in texts)
    assert any("24 h" in text for text in texts)


def test_the_metrics_of_the_page_are_those_of_the_run(page, run):
    metrics = json.loads((run / "metrics.json").read_text())
    for period in ("validation", "test"):
        assert f"{metrics[period]['like']['ne']:.4f}<br>" in page
        assert f"{metrics[period]['_dwell']['rmse']:.4f}<br>" in page


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run that lacks what can be lacking: calendar, binary tasks, times in the rotation, event files."""
    folder = tmp_path_factory.mktemp("plain")
    log = write_log(folder / "log", tasks={"_dwell": BOTH["_dwell"]}, calendar=False)
    model = dataclasses.replace(SHORT.model, rotary=RotaryConfig("ordinal"), action_fusion="interleaved")
    train(log, dataclasses.replace(SHORT, model=model), folder / "run", console=Console(quiet=True))
    shutil.rmtree(folder / "run" / "tensorboard")
    return folder / "run"


def test_sections_that_do_not_apply_are_absent(plain, tmp_path):
    main(["report", str(plain), "--out", str(tmp_path / "report.html")])
    page = (tmp_path / "report.html").read_text()
    assert sections_of(page) == tuple(name for name in SECTIONS if name not in ("rotation", "training"))
    text = check_page(page).text
    assert "positions in the rotation" in text
    assert "all times in the rotation" not in text
    assert "relative RMSE" in text


def test_what_cannot_be_reported_is_refused_in_one_sentence_and_nothing_is_written(run, plain, tmp_path):
    out = tmp_path / "report.html"
    with raises_one_sentence(f"{plain} must be a run of the same events, tasks and split"):
        write_report(run, out, against=plain)
    (tmp_path / "seeds").mkdir()
    (tmp_path / "seeds" / "seed-3").symlink_to(run)
    with raises_one_sentence("must be one run, but holds 1: name one, such as", "seed-3"):
        write_report(tmp_path / "seeds", out)
    with raises_one_sentence("has no config.json"):
        write_report(run.parent / "log", out)
    with raises_one_sentence("must be a new file or an earlier report, but is in"):
        write_report(run, run / "report.html")
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    predictions = pl.read_parquet(copy / "predictions.parquet")
    for rows in (predictions.head(9), pl.concat([predictions, predictions.head(1)]), predictions.drop("row")):
        rows.write_parquet(copy / "predictions.parquet")
        with raises_one_sentence("siren-rope evaluate"):
            write_report(copy, out)
    (copy / "predictions.parquet").unlink()
    with raises_one_sentence("must hold the predictions of a finished training", "siren-rope evaluate"):
        write_report(copy, out)
    assert not out.exists()
