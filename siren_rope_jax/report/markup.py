"""Text and tables as HTML, whatever names users have given their files, columns and tasks."""

import html
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u200e\u200f\u202a-\u202e\u2066-\u2069]+")


class Html(str):
    """HTML, unlike text that has still to be escaped."""


def plain(text: object, *, most: int | None = None) -> str:
    """Returns text on one line, without characters that no document may hold, or that turn its direction.

    Args:
      text: any object, as `str` writes it.
      most: number of characters after which it is cut.
    """
    line = _CONTROLS.sub(" ", str(text)).strip()
    return line if most is None or len(line) <= most else f"{line[: most - 1]}…"


def escaped(text: object) -> Html:
    """Returns text as HTML that shows it, in elements as in attributes; what is HTML already stays as it is."""
    return text if isinstance(text, Html) else Html(html.escape(plain(text)))


def joined(parts: Iterable[Html]) -> Html:
    """Joins pieces of HTML."""
    return Html("\n".join(parts))


def table(header: Sequence[object], rows: Iterable[Sequence[object]], *, texts: int = 1) -> Html:
    """Returns a table that scrolls by itself where it is wider than the page.

    Args:
      header: titles of the columns.
      rows: cells.
      texts: number of first columns that hold text; the others hold numbers.
    """

    def line(cells: Sequence[object], tag: str) -> str:
        kinds = ["" if number < texts else ' class="number"' for number in range(len(cells))]
        return "".join(f"<{tag}{kind}>{escaped(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True))

    body = "\n".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    head = f"<thead><tr>{line(header, 'th')}</tr></thead>"
    return Html(f'<div class="scrolls"><table>{head}<tbody>\n{body}\n</tbody></table></div>')


def facts(rows: Iterable[tuple[object, object]]) -> Html:
    """Returns a table of names and what they stand for."""
    lines = (f'<tr><th scope="row">{escaped(name)}</th><td>{escaped(value)}</td></tr>' for name, value in rows)
    return Html(f'<div class="scrolls"><table class="facts"><tbody>{"".join(lines)}</tbody></table></div>')


def figure(drawing: str, caption: str) -> Html:
    """Returns a plot, an SVG element, with its caption."""
    return Html(f"<figure>{drawing}<figcaption>{escaped(caption)}</figcaption></figure>")


def figures(drawn: Iterable[Html]) -> Html:
    """Returns plots beside each other where the page is wide enough."""
    return Html(f'<div class="figures">{joined(drawn)}</div>')


class Section(NamedTuple):
    """A section of a page: title, how to read it, and what there is to see."""

    anchor: str
    title: str
    lead: str
    body: Html
