"""A page shows any name as it is, needs nothing but itself, and replaces nothing but an earlier page."""

import numpy as np
import pytest
from one_sentence import raises_one_sentence
from page_reader import check_page

from siren_rope_jax.report.attention_mass import EDGES, AttentionMass
from siren_rope_jax.report.curves import Calibration
from siren_rope_jax.report.intervals import Interval
from siren_rope_jax.report.markup import Html, Section, escaped, facts, figure, figures, joined, plain, table
from siren_rope_jax.report.page import check_page_file, compose, write_page
from siren_rope_jax.report.plots import (
    draw_angles,
    draw_calibration,
    draw_costs,
    draw_history,
    draw_mass,
    draw_mean_cosine,
    draw_periodogram,
    thinned,
)
from siren_rope_jax.train.run_history import Series

NAMES = {
    "tags": "<script>alert('x')</script>",
    "quotes and comments": '"><!-- --><img src=http://x.example/a onerror=alert(1)> &amp; &lt;',
    "mathematics": "_$\\frac{1}{0}$ a $ b %s {} \\",
    "controls": "Zeile\nzwei\x00\x1b[31m \u202eleft",
    "very long": "很长" * 200,
}
STEPS = np.arange(1, 2_000)


def drawn(name):
    """Every plot, with the name wherever a plot takes one."""
    points = np.linspace(0.1, 0.9, 5)
    mass = np.ones(len(EDGES) - 1) / (len(EDGES) - 1)
    days = np.linspace(0, 7, 100, endpoint=False)
    waves = np.sin(days[:, None] * np.arange(1, 31))
    series = {name: Series(STEPS, np.sqrt(STEPS)), "other": Series(STEPS[:3], np.ones(3))}
    costs = {name: Interval(0.1, 0.05, 0.2), "other": Interval(0, np.nan, np.nan)}
    return [
        draw_calibration(
            "calibration-1", name, Calibration(points, points, points - 0.1, points + 0.1), logarithmic=False
        ),
        draw_calibration("calibration-2", name, Calibration(points, points, points / 2, points * 2), logarithmic=True),
        draw_angles("lines", days, waves[:, :4], list("MTWTFSS")),
        draw_angles("colours", days, waves, list("MTWTFSS")),
        draw_mean_cosine("cosine", np.cos(np.arange(900) / 24)),
        draw_periodogram("periodogram", np.linspace(0.1, 12, 50), np.linspace(0, 1, 50)),
        draw_history("history", series, name),
        draw_costs("costs", name, name, costs),
        draw_mass("mass", {name: AttentionMass(mass, mass), "layer 2": AttentionMass(mass, mass)}),
    ]


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_page_shows_hostile_names_and_obeys_none(name):
    body = joined(
        [table((name, "n"), [(name, 1.0)]), facts([(name, name)]), figures(figure(one, name) for one in drawn(name))]
    )
    reader = check_page(compose(name, [Section("one", name, name, body)]))
    assert plain(name) in reader.text
    assert len(reader.drawings) == 9
    texts = ["".join(svg.itertext()) for svg in reader.drawings]
    assert all(plain(name)[:20] in texts[place] for place in (6, 7, 8))


def test_a_plot_is_the_same_each_time_it_is_drawn():
    first, again = (draw_mean_cosine("cosine", np.cos(np.arange(900) / 24)) for _ in range(2))
    assert first == again


def test_what_is_html_already_is_not_escaped_again():
    assert escaped(escaped("a & b")) == "a &amp; b"
    assert escaped(Html("<b>")) == "<b>"
    assert plain("abc", most=2) == "a…"


def test_thousands_of_steps_are_drawn_as_means_of_neighbours():
    steps, values = thinned(Series(STEPS[:1_200], 3.0 * STEPS[:1_200]))
    np.testing.assert_allclose(steps, STEPS[:1_200].reshape(400, 3).mean(axis=1))
    np.testing.assert_allclose(values, 3 * steps)
    few = Series(STEPS[:400], np.sqrt(STEPS[:400]))
    assert thinned(few) is few


def test_a_page_replaces_an_earlier_one_and_nothing_else(tmp_path):
    run, out = tmp_path / "run", tmp_path / "new" / "report.html"
    run.mkdir()
    for text in ("first", "second"):
        check_page_file(out, [run])
        write_page(out, compose(text, []))
    assert "second" in out.read_text()
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]
    other = tmp_path / "other.html"
    other.write_text("<!DOCTYPE html><p>mine</p>")
    for kept in (other, tmp_path):
        with raises_one_sentence(f"{kept} must be a new file or an earlier report, but is something else"):
            check_page_file(kept, [run])
    with raises_one_sentence("report.html must be a new file or an earlier report, but is in", str(run)):
        check_page_file(run / "checkpoints" / "report.html", [tmp_path / "else", run])
    (tmp_path / "link.html").symlink_to(run / "page.html")
    with raises_one_sentence("is in", str(run)):
        check_page_file(tmp_path / "link.html", [run])
