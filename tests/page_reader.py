"""Reads a page as a browser would: its elements, in order and closed, and their text."""

from html.parser import HTMLParser
from xml.etree import ElementTree

VOID = {"meta", "br", "link", "img", "hr", "input"}


class PageReader(HTMLParser):
    """The elements of a page with their attributes, its text, and its SVG as it stands."""

    def __init__(self, page: str):
        """Reads the page; fails at an element that is not closed where it should be."""
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []
        self.drawings = [
            ElementTree.fromstring("<svg" + part.split("</svg>")[0] + "</svg>") for part in page.split("<svg")[1:]
        ]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text += data

    def values(self, *names: str) -> list[str]:
        """Values of the attributes of these names."""
        return [value or "" for _, attributes in self.elements for name, value in attributes.items() if name in names]


def check_page(page: str) -> PageReader:
    """Reads a page and checks that it is well-formed, small, needs nothing else and runs nothing."""
    reader = PageReader(page)
    assert len(page.encode()) < 3_000_000
    assert not {tag for tag, _ in reader.elements} & {
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "base",
        "foreignobject",
    }
    assert not [name for _, attributes in reader.elements for name in attributes if name.startswith("on")]
    assert all(
        value.startswith(("#", "data:image/png;base64,")) for value in reader.values("src", "href", "xlink:href")
    )
    assert "@import" not in page
    assert "url(http" not in page.replace(" ", "")
    ids = reader.values("id")
    assert len(ids) == len(set(ids))
    assert {value[1:] for value in reader.values("href", "xlink:href") if value.startswith("#")} <= set(ids)
    for tag, attributes in reader.elements:
        if tag == "svg":
            assert attributes["role"] == "img"
            assert attributes["aria-label"]
    return reader
