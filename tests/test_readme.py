"""The examples, descriptions, flags, commands and links of the README files work as they stand."""

import re
from pathlib import Path
from unittest.mock import create_autospec

import numpy as np
import polars as pl
import pytest
import tyro

import siren_rope_jax
from siren_rope_jax import ops
from siren_rope_jax.commands import COMMANDS
from siren_rope_jax.data.event_log import read_event_log
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.nn.config import ModelConfig
from siren_rope_jax.train.config import TrainConfig

ROOT = Path(__file__).parents[1]
README, OPS, DATA, TRAIN = (
    folder + "README.md" for folder in ("", "siren_rope_jax/ops/", "siren_rope_jax/data/", "siren_rope_jax/train/")
)
EXPERIMENTS, TPU, CONTRIBUTING = "experiments/README.md", "tpu/README.md", ".github/CONTRIBUTING.md"
PAGES = (README, OPS, DATA, TRAIN, EXPERIMENTS, TPU, CONTRIBUTING)
TEXT = {page: (ROOT / page).read_text("utf-8") for page in PAGES}


def _blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT[page], re.DOTALL)


def _shown_lines(page):
    """Lines of shell blocks, indented or fenced; continued lines are one, comments are gone."""
    text = re.sub(r" *\\\n *", " ", TEXT[page])
    fenced = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
    indented = "\n".join(re.findall(r"^    (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE))
    return [line.split(" #")[0].strip() for line in f"{fenced}\n{indented}".splitlines()]


def _anchors(text):
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short_enough_to_be_read_to_the_end():
    assert len(TEXT[README].split()) <= 1_350


@pytest.mark.slow
def test_the_example_of_the_ops_runs():
    (example,) = _blocks(README, "python")
    scope = {}
    exec(example, scope)
    assert scope["attended"].shape == (1, 3, 8, 64)
    assert np.isfinite(scope["attended"]).all()
    assert len(example.splitlines()) < 25


@pytest.mark.slow
def test_the_examples_of_the_page_on_the_ops_run():
    scope = {}
    for example in _blocks(OPS, "python"):
        exec(example, scope)
    assert scope["q"].shape == (5, 4, 64)
    np.testing.assert_allclose(np.linalg.norm(scope["q"], axis=-1), 8, rtol=1e-5)
    assert scope["attended"].shape == (1, 6, 4, 8)
    np.testing.assert_array_equal(scope["attended"][0, [0, 3, 5]], 0)  # no_history
    norms = np.linalg.norm(scope["rotated"], axis=-1)
    np.testing.assert_allclose(norms, 8 * scope["scaled"].attention_factor, rtol=1e-5)


def test_the_example_of_training_calls_the_public_functions_as_they_are(monkeypatch):
    for name in ("evaluate", "load", "read_event_log", "score", "train"):
        monkeypatch.setattr(siren_rope_jax, name, create_autospec(getattr(siren_rope_jax, name)))
    (example,) = _blocks(TRAIN, "python")
    scope = {}
    exec(example, scope)
    assert scope["train"].call_args.args[1] == TrainConfig(seed=3)
    assert scope["score"].call_args.args == (scope["read_event_log"].return_value, "runs/mine")


def test_the_page_on_the_ops_names_every_public_encoding_and_shows_three_pictures():
    for name in ops.__all__:
        if name.endswith(("_angles", "_bias", "_encoding", "_rotations", "_scale", "_features")):
            assert f"`{name}" in TEXT[OPS], name
    assert len(re.findall(r"\]\((.*?png)\)", TEXT[OPS])) == 3


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_leads_to_a_file_and_a_heading_that_exist(page):
    links = [link for link in re.findall(r"\]\((\S+?)\)", TEXT[page]) if "://" not in link]
    assert links or page == CONTRIBUTING
    for link in links:
        path, _, anchor = link.partition("#")
        file = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert file.is_file(), link
        assert not anchor or anchor in _anchors(file.read_text("utf-8")), link


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_a_page_shows_exists_and_takes_the_flags_shown(page):
    make = (ROOT / "Makefile").read_text("utf-8")
    for line in _shown_lines(page):
        program, *arguments = line.split() or [""]
        if program.endswith("siren-rope"):
            command, *rest = arguments
            if "..." not in rest:
                tyro.cli(COMMANDS[command], args=[argument.replace("$", "") for argument in rest])
        elif program.endswith("python"):
            file = arguments[1].replace(".", "/") + ".py" if arguments[0] == "-m" else arguments[0]
            assert (ROOT / file).is_file(), line
        elif program == "make":
            assert re.search(rf"^{arguments[0]}:", make, re.MULTILINE), line


@pytest.mark.slow
def test_the_settings_that_the_page_on_training_shows_are_taken():
    shown = re.search(r"one argument away.*?\n\n(.*?)\n\n", TEXT[TRAIN], re.DOTALL).group(1)
    lines = [line.split("#")[0] for line in shown.replace("\\\n", "").splitlines()]
    assert len(lines) == 12
    for line in lines:
        settings = [argument.replace("--model.", "--") for argument in line.split()]
        assert tyro.cli(ModelConfig, args=settings) != ModelConfig()


def test_every_flag_of_training_that_a_page_names_is_a_setting(capsys):
    with pytest.raises(SystemExit):
        tyro.cli(COMMANDS["train"], args=["--help"])
    known = set(re.findall(r"--[\w.-]+", capsys.readouterr().out))
    sections = "|".join(field for field in TrainConfig.__dataclass_fields__ if field not in ("seed", "epochs", "steps"))
    for page in set(PAGES) - {CONTRIBUTING}:  # whose examples add settings of their own
        for flag in re.findall(rf"--(?:{sections})\.[\w.-]*\w", TEXT[page]):
            assert flag in known, f"{page}: {flag}"


def _write_log(folder, description):
    (folder / "my_log.toml").write_text(description)
    events, rng = 60, np.random.default_rng(0)
    time = 1_650_000_000 + 3_600 * np.arange(events)
    pl.DataFrame(
        {
            "user_id": rng.integers(0, 5, events),
            "movie_id": rng.integers(0, 9, events),
            "time": time,
            "is_click": rng.integers(0, 2, events),
            "rating": rng.integers(1, 11, events),
            "event": rng.choice(["view", "transaction"], events),
            "is_comment": rng.integers(0, 2, events),
            "is_follow": rng.integers(0, 2, events),
            "dwell60": rng.integers(0, 2, events),
            "dwell_observed": rng.integers(0, 2, events),
            "seconds": rng.integers(0, 300, events),
            "next_event_time": time + 61,
            "is_like": rng.integers(0, 2, events),
            "like_time": time + 90,
            "tab": rng.integers(0, 3, events),
            "duration_ms": rng.integers(1_000, 9_000, events),
            "tags": rng.choice(["new|short", "", "new"], events),
            "text_vector": rng.choice(["[0.5, 1]", "[2, -1]"], events),
        }
    ).write_csv(folder / "ratings.csv")
    pl.DataFrame({"movie_id": range(9), "genre": ["drama", "news", "short"] * 3}).write_csv(folder / "movies.csv")
    return read_event_log(EventLogSpec.from_toml(folder / "my_log.toml"))


def test_the_short_log_description_of_the_readme_reads_a_log_of_its_columns(tmp_path):
    (description,) = _blocks(README, "toml")
    log = _write_log(tmp_path, description)
    assert log.task_names == ("click", "like")
    assert (log.period == 0).sum() == 42


def test_the_full_log_description_reads_a_log_of_its_columns(tmp_path):
    log = _write_log(tmp_path, _blocks(DATA, "toml")[0])
    assert log.task_names == ("click", "like", "purchase", "contribution", "long_dwell", "dwell")
    assert log.categorical_names == ("tab", "genre")
    assert (log.bag_names, log.dense_names) == (("tags",), ("duration_ms", "text_vector[0]", "text_vector[1]"))
    assert (log.period == 0).sum() == 42
