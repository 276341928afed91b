"""The README's example and description run as they stand."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import tyro

from siren_rope_jax import ops
from siren_rope_jax.data.event_log import read_event_log
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.nn.config import ModelConfig

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
OPS_README = (ROOT / "siren_rope_jax" / "ops" / "README.md").read_text()


def _blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def _block(language):
    return _blocks(README, language)[0]


@pytest.mark.slow
def test_the_example_of_the_ops_runs():
    scope = {}
    exec(_block("python"), scope)
    assert scope["attended"].shape == (1, 3, 8, 64)
    assert np.isfinite(scope["attended"]).all()
    assert len(_block("python").splitlines()) < 25


@pytest.mark.slow
def test_the_examples_of_the_page_on_the_ops_run():
    examples = _blocks(OPS_README, "python")
    scope = {}
    for example in examples:
        exec(example, scope)
    assert scope["q"].shape == (5, 4, 64)
    np.testing.assert_allclose(np.linalg.norm(scope["q"], axis=-1), 8, rtol=1e-5)
    norms = np.linalg.norm(scope["rotated"], axis=-1)
    np.testing.assert_allclose(norms, 8 * scope["scaled"].attention_factor, rtol=1e-5)


def test_the_page_on_the_ops_names_every_public_encoding_and_pictures_that_exist():
    for name in ops.__all__:
        if name.endswith(("_angles", "_bias", "_encoding", "_rotations", "_scale", "_features")):
            assert f"`{name}" in OPS_README, name
    pictures = re.findall(r"\]\((.*?png)\)", OPS_README)
    assert len(pictures) == 3
    for picture in pictures:
        assert (ROOT / "siren_rope_jax" / "ops" / picture).exists()


def test_the_settings_that_the_readme_shows_are_taken(tmp_path):
    shown = re.search(r"one argument away.*?\n\n(.*?)\n\n", README, re.DOTALL).group(1)
    lines = [line.split("#")[0] for line in shown.replace("\\\n", "").splitlines()]
    assert len(lines) == 9
    for line in lines:
        settings = [argument.replace("--model.", "--") for argument in line.split()]
        assert tyro.cli(ModelConfig, args=settings) != ModelConfig()


def test_the_log_description_reads_a_log_of_its_columns(tmp_path):
    (tmp_path / "my_log.toml").write_text(_block("toml"))
    events, rng = 60, np.random.default_rng(0)
    time = 1_650_000_000 + 3_600 * np.arange(events)
    pl.DataFrame(
        {
            "user_id": rng.integers(0, 5, events),
            "movie_id": rng.integers(0, 9, events),
            "time": time,
            "is_click": rng.integers(0, 2, events),
            "rating": rng.integers(1, 11, events),
            "is_comment": rng.integers(0, 2, events),
            "is_follow": rng.integers(0, 2, events),
            "dwell60": rng.integers(0, 2, events),
            "dwell_observed": rng.integers(0, 2, events),
            "next_event_time": time + 61,
            "is_like": rng.integers(0, 2, events),
            "like_time": time + 90,
            "tab": rng.integers(0, 3, events),
            "duration_ms": rng.integers(1_000, 9_000, events),
        }
    ).write_csv(tmp_path / "ratings.csv")
    pl.DataFrame({"movie_id": range(9), "genre": ["drama", "news", "short"] * 3}).write_csv(tmp_path / "movies.csv")
    log = read_event_log(EventLogSpec.from_toml(tmp_path / "my_log.toml"))
    assert log.task_names == ("click", "like", "contribution", "long_dwell")
    assert log.categorical_names == ("tab", "genre")
    assert (log.period == 0).sum() == 42
