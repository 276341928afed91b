"""The page of a report: one HTML file that loads nothing else and runs nothing."""

import os
from collections.abc import Sequence
from pathlib import Path

from siren_rope_jax import __version__
from siren_rope_jax.errors import InputError
from siren_rope_jax.report.markup import Html, Section, escaped
from siren_rope_jax.train.durable import sync

_MADE_BY = '<meta name="generator" content="siren-rope report '
_STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 68rem; padding: 0 1rem 3rem; background: #fff; color: #1a1a1a;
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 1.5rem 0 .5rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .25rem; border-top: 1px solid #ddd; padding-top: 1rem; }
h2 a { color: inherit; text-decoration: none; }
h2 a:hover { text-decoration: underline; }
p { max-width: 44rem; margin: .5rem 0; }
nav ol { columns: 16rem 3; padding-left: 1.25rem; margin: .5rem 0; }
a { color: #0b57a4; }
.scrolls { overflow-x: auto; max-width: 100%; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .875rem; overflow-wrap: normal; }
th, td { text-align: left; vertical-align: top; padding: .25rem .6rem; border-bottom: 1px solid #e4e4e4; }
td { max-width: 22rem; overflow-wrap: break-word; }
.facts th { font-weight: normal; color: #555; }
.facts td { max-width: 40rem; overflow-wrap: anywhere; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
small { color: #555; }
.figures { display: grid; gap: 1rem 2rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 25rem), 1fr)); }
figure { margin: .5rem 0; max-width: 36rem; }
figure svg { display: block; width: 100%; height: auto; }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
figcaption { font-size: .875rem; color: #444; }
code { font-size: .875rem; background: #f4f4f4; padding: .1rem .25rem; }
@media print { h2 { break-after: avoid; } figure { break-inside: avoid; } }
"""


def compose(title: str, sections: Sequence[Section]) -> str:
    """Returns the text of a page.

    Args:
      title: title of the page.
      sections: its sections, in their order; the table of contents leads to each.
    """
    contents = "".join(f'<li><a href="#{one.anchor}">{escaped(one.title)}</a></li>' for one in sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{_MADE_BY}{__version__}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escaped(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escaped(title)}</h1>
<nav aria-label="Contents"><ol>{contents}</ol></nav>
<main>
{"".join(map(_section, sections))}</main>
</body>
</html>
"""


def _section(section: Section) -> Html:
    heading = f'<h2 id="{section.anchor}"><a href="#{section.anchor}">{escaped(section.title)}</a></h2>'
    return Html(f"<section>\n{heading}\n<p>{escaped(section.lead)}</p>\n{section.body}\n</section>\n")


def check_page_file(out: Path, runs: Sequence[Path]) -> None:
    """Checks that a file is new or an earlier report, and in none of the runs.

    Raises:
      InputError: if it is something else.
    """
    for run in runs:
        if out.resolve().is_relative_to(run.resolve()):
            raise InputError(f"{out} must be a new file or an earlier report, but is in {run}: give another --out")
    folder = next(folder for folder in out.absolute().parents if folder.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"{out} must be a file in a folder that can be written, but {folder} is not one")
    if out.is_dir() or (out.exists() and _MADE_BY.encode() not in _beginning(out)):
        raise InputError(f"{out} must be a new file or an earlier report, but is something else: give another --out")


def _beginning(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(500)


def write_page(out: Path, text: str) -> None:
    """Writes a page, so that a reader sees the old one or the new one, never half of it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f"{out.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    sync(temporary)
    os.replace(temporary, out)
