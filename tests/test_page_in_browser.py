"""The page of a report as a browser shows it, on a phone and on a wide screen (`make test-page`)."""

import re
import shutil
import subprocess

import matplotlib.image
import numpy as np
import pytest
from page_reader import PageReader
from test_page import NAMES, drawn

from siren_rope_jax.report.markup import Section, facts, figure, figures, joined, plain, table
from siren_rope_jax.report.page import compose, write_page

pytestmark = pytest.mark.page

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WIDTHS = {"phone": 390, "wide screen": 1280}
# Appended to the page for the measurement alone: a page itself runs nothing.
MEASURE = """<script>
const figures = [...document.querySelectorAll("svg")].map(svg => svg.getBoundingClientRect().width);
document.title = [document.documentElement.scrollWidth, window.innerWidth, Math.min(...figures), Math.max(...figures)]
</script>"""


def browse(*arguments):
    """Runs a headless browser in a window of its own and returns what it prints."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.fail(
            f"the page must be opened in a browser, but none of {', '.join(BROWSERS)} is installed", pytrace=False
        )
    command = [found, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module", params=["ordinary names", *NAMES])
def page(request, tmp_path_factory):
    """A page with every plot, a wide table and long lines."""
    name, folder = NAMES.get(request.param, "long_dwell"), tmp_path_factory.mktemp("page")
    rows = [[name, *range(10**9, 10**9 + 12)] for _ in range(5)]
    parts = [facts([(name, name)]), table([name] * 13, rows), figures(figure(one, name) for one in drawn(name))]
    out = folder / "page.html"
    write_page(out, compose(f"What {name} has learned", [Section("one", name, name, joined(parts))]))
    return name, out


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_a_page_fits_the_screen_and_its_plots_are_as_large_as_can_be_read(page, width, tmp_path):
    # A window may not be as narrow as a phone, but a frame may.
    _, out = page
    measured = tmp_path / "measured.html"
    measured.write_text(out.read_text().replace("</body>", f"{MEASURE}</body>"))
    frame = f"<iframe id=page src=measured.html style='width: {width}px; height: 9000px; border: 0'></iframe>"
    report = "onload = () => document.body.append(document.getElementById('page').contentDocument.title)"
    (tmp_path / "frame.html").write_text(f"<!DOCTYPE html><body>{frame}<script>{report}</script></body>")
    shown = browse("--allow-file-access-from-files", "--dump-dom", f"file://{tmp_path}/frame.html")
    found = re.search(r"</script>([\d.,]+)", shown)
    assert found is not None, shown[-500:]
    page_width, window, least, most = map(float, found[1].split(","))
    assert window == width
    assert page_width <= window
    assert 340 <= least <= most <= min(width, 600)


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_a_page_is_painted(page, width, tmp_path):
    _, out = page
    picture = tmp_path / "page.png"
    browse(f"--window-size={width},1500", f"--screenshot={picture}", f"file://{out}")
    pixels = matplotlib.image.imread(picture)[..., :3]
    assert pixels.shape[:2] == (1500, width)
    dark = pixels.max(axis=-1) < 0.5
    assert 0.002 < dark.mean() < 0.3
    assert np.all(pixels[:, -1] > 0.99)  # nothing touches the edge
    assert dark[:750].any()
    assert dark[750:].any()


def test_the_text_of_a_page_is_what_the_browser_shows(page):
    name, out = page
    shown = browse("--dump-dom", f"file://{out}")
    assert "<script" not in shown
    assert plain(name) in PageReader(shown.removeprefix("<!DOCTYPE html>")).text
