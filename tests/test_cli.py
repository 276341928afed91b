"""The command line as users meet it: one process a command, exit codes and one sentence for bad input."""

import json
import os
import re
import signal
import subprocess
import sys

import polars as pl
import pytest

from siren_rope_jax.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("compiled_once")]

TINY = ["--steps", "4", "--evaluations", "2", "--model.width", "8", "--model.heads", "1", "--model.layers", "1"]
TINY += ["--model.head-widths", "8", "--model.action-widths", "8", "--model.rotary.siren.width", "8"]
TINY += ["--inputs.item-buckets", "64", "--inputs.categorical-buckets", "16"]
TINY += ["--batches.window", "16", "--batches.row-length", "32", "--batches.batch-size", "4"]


@pytest.fixture(scope="module")
def feed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "feed"
    main(["simulate", "--out", str(folder), "--users", "60"])
    return folder


@pytest.fixture(scope="module")
def run(feed):
    folder = feed.parent / "run"
    main(["train", str(feed / "log.toml"), "--out", str(folder), *TINY])
    return folder


def _refused(capsys, arguments, *fragments, code=2):
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert caught.value.code == code
    message = capsys.readouterr().err
    assert "Traceback" not in message
    if not message.startswith(" Value error"):  # tyro frames what a setting's own check says
        assert message.startswith("siren-rope: ")
        assert len(message.strip().splitlines()) == 1
    for fragment in fragments:
        assert fragment in message


def test_nested_settings_can_be_overridden_by_name(run):
    config = json.loads((run / "config.json").read_text())["config"]
    assert config["model"]["width"] == 8
    assert config["model"]["rotary"]["siren"]["width"] == 8
    assert config["batches"] == {"window": 16, "row_length": 32, "batch_size": 4}


@pytest.mark.parametrize(
    "command", ["train", "evaluate", "score", "baselines", "audit", "checkpoints", "report", "simulate", "prepare"]
)
def test_help_explains_every_option(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    expected = {"train": ["--seed", "--model.rotary.kind", "--optimizer.learning-rate", "--batches.window", "--out"]}
    for option in expected.get(command, []):
        assert option in shown
    # tyro writes a default without a sentence before it where a field has no help.
    assert not re.findall(r"^ ?.? *--[^\n]*\n[^\w\n]*\(default", shown, re.MULTILINE)


def test_python_m_runs_the_command_line():
    done = subprocess.run(
        [sys.executable, "-m", "siren_rope_jax", "--help"], capture_output=True, text=True, check=True
    )
    assert all(
        command in done.stdout for command in ("train", "evaluate", "score", "checkpoints", "simulate", "prepare")
    )


@pytest.mark.parametrize("chosen", [None, "glibc.malloc.hugetlb=0"], ids=["unset", "by the user"])
def test_huge_pages_are_turned_on_and_said_unless_the_user_has_set_them(chosen):
    code = "from siren_rope_jax.cli import keep_memory as p; p(); import os, sys; print(os.environ, sys.argv)"
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    if chosen is not None:
        environment["GLIBC_TUNABLES"] = chosen
    command = [sys.executable, "-c", code, "an argument"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    asked_for = chosen or ("glibc.malloc.hugetlb=1:" if sys.platform == "linux" else None)
    assert ("GLIBC_TUNABLES" in done.stdout) == (asked_for is not None)
    assert "'an argument'" in done.stdout
    assert asked_for is None or f"'GLIBC_TUNABLES': '{asked_for}" in done.stdout
    said = "GLIBC_TUNABLES=glibc.malloc.hugetlb=1:" in done.stderr and "set it yourself" in done.stderr
    assert said == (chosen is None and asked_for is not None)


def test_evaluate_leaves_the_metrics_of_a_run_as_they_are(run, capsys):
    before = (run / "metrics.json").read_bytes()
    main(["evaluate", str(run)])
    assert (run / "metrics.json").read_bytes() == before
    assert "long_dwell" in capsys.readouterr().out


def test_scores_follow_the_rows_of_the_file(run, feed, tmp_path):
    events = pl.read_parquet(feed / "events.parquet")
    last = events["time"].max()
    known = events.filter(pl.col("user_id") == 7).tail(3)
    unknown = known.with_columns(pl.col("user_id", "item_id") + 10**9)
    new = pl.concat([known, unknown]).drop("like", "contribution", "long_dwell")
    new = new.with_columns(time=last + 100 + pl.int_range(pl.len()))
    scores = {}
    for name, order in (("forward", [0, 1, 2, 3, 4, 5]), ("shuffled", [4, 0, 5, 2, 1, 3])):
        new[order].write_csv(tmp_path / f"{name}.csv")
        main(
            [
                "score",
                str(run),
                "--events",
                str(tmp_path / f"{name}.csv"),
                "--out",
                str(tmp_path / f"{name}_scores.csv"),
            ]
        )
        scores[name] = pl.read_csv(tmp_path / f"{name}_scores.csv")
        assert scores[name].columns == ["like", "contribution", "long_dwell"]
        assert scores[name].select(pl.all().is_between(0, 1, closed="none").all()).row(0) == (True, True, True)
    assert scores["shuffled"].equals(scores["forward"][[4, 0, 5, 2, 1, 3]])


def test_new_events_that_match_nothing_are_refused_unless_that_is_allowed(run, feed, tmp_path, capsys):
    new = pl.read_parquet(feed / "events.parquet").unique("user_id", keep="last", maintain_order=True).tail(4)
    new.with_columns(user_id=pl.format("u{}", "user_id")).write_csv(tmp_path / "new.csv")
    score = ["score", str(run), "--events", str(tmp_path / "new.csv"), "--out", str(tmp_path / "scores.csv")]
    _refused(capsys, score, "new.csv: the log knows the user of 0 of 4 new events", "--allow-unmatched")
    assert not (tmp_path / "scores.csv").exists()
    main([*score, "--allow-unmatched"])
    assert pl.read_csv(tmp_path / "scores.csv").height == 4
    assert "the log knows the item of 4 of 4 new events" in capsys.readouterr().out


def test_events_that_came_after_training_are_history_and_said(run, feed, tmp_path, capsys):
    events = pl.read_parquet(feed / "events.parquet")
    described = json.loads((run / "config.json").read_text())
    described["log"]["log"]["files"] = [str(tmp_path / "events.parquet")]
    copy = tmp_path / "run"
    subprocess.run(["cp", "-r", str(run), str(copy)], check=True)
    (copy / "config.json").write_text(json.dumps(described))
    last = events["time"].max()
    later = events.filter(pl.col("user_id") == 7).head(2).with_columns(time=last + 500 + pl.int_range(pl.len()))
    events.filter(pl.col("user_id") == 7).tail(1).with_columns(time=pl.lit(last + 1_000)).write_csv(
        tmp_path / "new.csv"
    )
    scores = []
    for grown in (events, pl.concat([events, later])):
        grown.write_parquet(tmp_path / "events.parquet")
        main(["score", str(copy), "--events", str(tmp_path / "new.csv"), "--out", str(tmp_path / "scores.csv")])
        scores.append(pl.read_csv(tmp_path / "scores.csv").row(0))
        assert ("the log has grown by 2 events" in capsys.readouterr().out) == (grown is not events)
    assert scores[0] != scores[1]
    changed = pl.concat([events, later]).with_columns(like=1 - pl.col("like"))
    changed.write_parquet(tmp_path / "events.parquet")
    _refused(
        capsys,
        ["score", copy, "--events", tmp_path / "new.csv", "--out", tmp_path / "scores.csv"],
        "--allow-changed-log",
    )


def test_scores_are_written_over_earlier_scores_and_nothing_else(run, feed, tmp_path, capsys):
    events = pl.read_parquet(feed / "events.parquet").filter(pl.col("user_id") == 7).tail(2)
    events.write_csv(tmp_path / "new.csv")
    command = ["score", str(run), "--events", str(tmp_path / "new.csv"), "--out"]
    scores, notes = tmp_path / "scores.csv", tmp_path / "notes.csv"
    for _ in range(2):
        main([*command, str(scores)])
    notes.write_text("precious")
    for kept, problem in (
        (notes, "a new file or earlier scores"),
        (feed / "truth.parquet", "a new file or earlier scores"),
        (feed / "log.toml", "must end in one of .csv, .tsv, .parquet"),
    ):
        before = kept.read_bytes()
        _refused(capsys, [*command, kept], problem)
        assert kept.read_bytes() == before


def test_scores_are_never_written_over_what_is_read(run, feed, tmp_path, capsys):
    events = pl.read_parquet(feed / "events.parquet").filter(pl.col("user_id") == 7).tail(2)
    tasks = ["like", "contribution", "long_dwell"]
    events.select(pl.exclude(tasks), *(pl.col(task).cast(pl.Float64) for task in tasks)).write_csv(tmp_path / "new.csv")
    before = (tmp_path / "new.csv").read_bytes()
    (tmp_path / "link.csv").symlink_to(tmp_path / "new.csv")
    for out in ("new.csv", "link.csv"):
        command = ["score", run, "--events", tmp_path / "new.csv", "--out", tmp_path / out]
        _refused(capsys, command, "is read: it holds events or features")
    _refused(capsys, ["score", run, "--events", tmp_path / "new.csv", "--out", feed / "events.parquet"], "is read")
    events.select(pl.exclude(tasks), *tasks).write_csv(tmp_path / "labelled.csv")  # another log of the same tasks
    command = ["score", run, "--events", tmp_path / "new.csv", "--out", tmp_path / "labelled.csv"]
    _refused(capsys, command, "must be a new file or earlier scores")
    assert (tmp_path / "new.csv").read_bytes() == before
    events.with_columns(raw=pl.lit(b"x"), took=pl.duration(seconds=1)).write_parquet(tmp_path / "new.parquet")
    for column in ("raw", "took"):
        command = ["score", run, "--events", tmp_path / "new.parquet", "--columns", column, "--out"]
        _refused(capsys, [*command, tmp_path / "scores.csv"], "cannot; give --out as .parquet")
        main([*map(str, command), str(tmp_path / "scores.parquet")])


def test_scores_carry_columns_and_are_the_same_in_every_format(run, feed, tmp_path, capsys):
    events = pl.read_parquet(feed / "events.parquet").filter(pl.col("user_id") == 7).tail(3)
    events = events.with_columns(request=pl.Series(["a, b", None, '"']), shown=pl.lit([1, 2]))
    events.write_parquet(tmp_path / "new.parquet")
    command = ["score", str(run), "--events", str(tmp_path / "new.parquet"), "--out"]
    readers = {
        "csv": pl.read_csv,
        "tsv": lambda path: pl.read_csv(path, separator="\t"),
        "jsonl": pl.read_ndjson,
        "parquet": pl.read_parquet,
    }
    for _ in range(2):  # written over what was written before
        for ending, read in readers.items():
            main([*command, str(tmp_path / f"scores.{ending}"), "--columns", "item_id", "request", "user_id"])
            scores = read(tmp_path / f"scores.{ending}")
            assert scores.columns == ["item_id", "request", "user_id", "like", "contribution", "long_dwell"]
            assert scores[:, :3].rows() == events["item_id", "request", "user_id"].rows()
            plain = scores[:, 3:].cast(pl.Float32) if ending == "csv" else plain
            assert scores[:, 3:].cast(pl.Float32).equals(plain)
    out = str(tmp_path / "new_scores.csv")
    _refused(capsys, [*command, out, "--columns", "colour"], 'the column "colour" (--columns) is not in this file')
    _refused(capsys, [*command, out, "--columns", "item_id", "item_id"], 'but "item_id" is there twice')
    _refused(capsys, [*command, out, "--columns", "like"], 'but "like" is there twice')
    _refused(capsys, [*command, out, "--columns", "shown"], "which", "cannot; give --out as .parquet or .jsonl")
    main([*command, str(tmp_path / "lists.jsonl"), "--columns", "shown"])
    assert pl.read_ndjson(tmp_path / "lists.jsonl")["shown"].to_list() == [[1, 2]] * 3


def test_later_rows_of_a_file_see_earlier_ones_only_as_history(run, feed, tmp_path):
    events = pl.read_parquet(feed / "events.parquet")
    new = events.filter(pl.col("user_id") == 7).tail(4)
    new = new.with_columns(time=events["time"].max() + 100 * (1 + pl.int_range(pl.len())))
    new.write_csv(tmp_path / "all.csv")
    new.tail(1).write_csv(tmp_path / "last.csv")

    def last_score(name, *flags):
        main(["score", str(run), "--events", str(tmp_path / name), "--out", str(tmp_path / "scores.csv"), *flags])
        return pl.read_csv(tmp_path / "scores.csv").row(-1)

    assert last_score("all.csv") == pytest.approx(last_score("last.csv"), abs=1e-6)
    assert last_score("all.csv", "--as-history") != pytest.approx(last_score("last.csv"), abs=1e-6)


def test_a_score_equals_what_evaluation_predicts_of_the_same_event(run, feed, tmp_path, capsys):
    # The last test event of a user, taken out of the log and scored as a new one, has the same history.
    predictions = pl.read_parquet(run / "predictions.parquet").filter(pl.col("period") == 2)
    final = predictions.sort("time_ms").group_by("user", maintain_order=True).last().head(1)
    events = pl.read_parquet(feed / "events.parquet")
    row = events[final["row"][0]]
    row.drop("like", "contribution", "long_dwell").write_csv(tmp_path / "new.csv")
    spec = json.loads((run / "config.json").read_text())
    events.filter(pl.int_range(pl.len()) != final["row"][0]).write_parquet(tmp_path / "events.parquet")
    spec["log"]["log"]["files"] = [str(tmp_path / "events.parquet")]
    copy = tmp_path / "run"
    subprocess.run(["cp", "-r", str(run), str(copy)], check=True)
    (copy / "config.json").write_text(json.dumps(spec))
    command = ["score", str(copy), "--events", str(tmp_path / "new.csv"), "--out", str(tmp_path / "scores.csv")]
    _refused(capsys, command, "have been changed or removed")  # the log lacks an event that it was trained on
    main([*command, "--allow-changed-log"])
    assert "have been changed or removed" in capsys.readouterr().out
    scored = pl.read_csv(tmp_path / "scores.csv")
    for task in scored.columns:
        assert scored[task][0] == pytest.approx(final[f"probability_{task}"][0], abs=1e-6)


def test_a_run_of_another_version_names_the_setting_that_is_unknown(run, tmp_path, capsys):
    copy = tmp_path / "run"
    subprocess.run(["cp", "-r", str(run), str(copy)], check=True)
    described = json.loads((copy / "config.json").read_text())
    described["config"]["model"]["time_in_embedding"] = False
    (copy / "config.json").write_text(json.dumps(described))
    _refused(capsys, ["evaluate", copy], "ModelConfig has no setting time_in_embedding in this version")


def test_bad_input_is_refused_without_a_traceback_and_leaves_no_files_behind(feed, run, tmp_path, capsys):
    out = tmp_path / "out"
    missing = tmp_path / "missing.toml"
    _refused(capsys, ["train", missing, "--out", out], str(missing))
    text = (feed / "log.toml").read_text()
    misspelt = feed / "misspelt.toml"
    misspelt.write_text(text.replace('user = "user_id"', 'user = "user_idd"'))
    _refused(capsys, ["train", misspelt, "--out", out], "user_idd", '"user_id"')
    unknown = feed / "unknown.toml"
    unknown.write_text(text.replace("timestamp_unit", "timestamp_units"))
    _refused(capsys, ["train", unknown, "--out", out], "timestamp_units")
    _refused(
        capsys, ["train", feed / "log.toml", "--out", out, "--model.width", "10", "--model.heads", "4"], "width", "10"
    )
    _refused(capsys, ["train", feed / "log.toml", "--out", out, "--batches.window", "7"], "window", "7")
    _refused(capsys, ["train", feed / "log.toml", "--out", run, *TINY, "--seed", "9"], "config.seed")
    _refused(capsys, ["evaluate", tmp_path / "nowhere"], "nowhere")
    _refused(capsys, ["score", run, "--events", tmp_path / "no.csv", "--out", f"{out}.csv"], "no.csv")
    for precious in (feed / "events.parquet", run / "config.json"):
        before = precious.read_bytes()
        _refused(capsys, ["score", run, "--events", feed / "events.parquet", "--out", precious], str(precious))
        assert precious.read_bytes() == before
    _refused(capsys, ["simulate", "--out", feed, "--users", "61"], str(feed))
    _refused(capsys, ["simulate", "--out", out, "--users", "0"], "users")
    assert not out.exists()


def test_sigterm_saves_the_work_and_says_where_the_run_stopped_and_how_to_resume(feed, tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "siren_rope_jax", "train", str(feed / "log.toml"), "--out", str(run), *TINY]
    command += ["--steps", "100000", "--evaluations", "1000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step"):
            break
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert "the same command resumes" in error
    assert "Traceback" not in error
    saved = max(int(name) for name in os.listdir(run / "checkpoints") if name.isdigit())
    assert f"stopped at step {saved} of 100000" in error
