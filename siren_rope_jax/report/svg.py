"""Plots as SVG to stand in a page: small, readable without a font file, and without anything that acts or collides."""

import io
import re
import warnings
from collections.abc import Callable
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from siren_rope_jax.report.markup import escaped

WIDTH = 4.8  # inches: as wide as a phone, text of 10 points is 10 pixels high
_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a $ in a name is a $
    "font.size": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "path.simplify_threshold": 0.3,
}
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def draw(name: str, described: str, plot: Callable[[Axes], None], *, height: float = 2.7) -> str:
    """Draws a plot as an SVG element.

    Args:
      name: name of the plot, which no other plot of the page has: letters, digits and dashes.
      described: sentence for those who cannot see the plot.
      plot: draws on the axes.
      height: in inches.

    Returns:
      The element, which scales to the width that it is given; the ids in it start with the name.
    """
    style: dict[Any, Any] = _STYLE | {"svg.hashsalt": name}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the reader's font may have it
        warnings.filterwarnings("ignore", "constrained_layout not applied")  # a name leaves the axes no room
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        plot(figure.subplots())
        file = io.StringIO()
        FigureCanvasSVG(figure).print_svg(file, metadata=_NO_METADATA)
    return _embedded(file.getvalue(), name, described)


def _embedded(text: str, name: str, described: str) -> str:
    text = re.sub(
        r"<defs>\s*<style.*?</style>\s*</defs>|<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.DOTALL
    )
    start = text.index("<svg")
    head, body = text[start:].split(">", 1)
    view = re.search(r'viewBox="[^"]*"', head)
    assert view is not None
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', body))
    body = re.sub(r' id="([^"]*)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", body)
    body = re.sub(r'(url\(|href=")#', rf"\g<1>#{name}-", body)
    body = re.sub(r' d="([^"]*)"', lambda found: f' d="{_rounded(found[1])}"', body)
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {spaces} {view[0]} role="img" aria-label="{escaped(described)}">{body.strip()}'


def _rounded(path: str) -> str:
    """Writes the coordinates of a path, which count in points, with two decimals."""
    return re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), path).strip()
