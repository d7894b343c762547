"""A page read back: its tables, tiles and captions as text, for comparison with metrics.json."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any


@dataclass
class ReadTable:
    """Caption, column names and cells, under the last heading before it."""

    heading: str
    caption: str = ""
    columns: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)

    def records(self) -> list[dict[str, str]]:
        """A dictionary per row."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


class ReadPage(HTMLParser):
    """Everything on a page that a reader could take a number from."""

    _HEADINGS = ("h2", "h3", "summary")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: list[ReadTable] = []
        self.tiles: list[tuple[str, str, str]] = []
        self.captions: list[str] = []
        self.paragraphs: list[str] = []
        self._heading = ""
        self._text: list[str] = []
        self._tile: list[str] = []
        self._next = ReadTable("")
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._text = []
        self._class = dict(attrs).get("class")
        if tag == "figure" and self._class == "table":
            self._next = ReadTable(self._heading)
        if tag == "tr" and self._next.columns:
            self._next.rows.append([])

    def handle_data(self, data: str) -> None:
        self._text.append(data)

    def handle_endtag(self, tag: str) -> None:
        text = "".join(self._text)
        if tag in self._HEADINGS:
            self._heading = text
        elif tag == "figcaption":
            self._next.caption = text
            self.captions.append(text)
        elif tag == "th":
            self._next.columns.append(text)
        elif tag == "td":
            self._next.rows[-1].append(text)
        elif tag == "table":
            self.tables.append(self._next)
        elif tag in ("p", "li"):
            self.paragraphs.append(text)
        elif tag == "div" and self._class in ("label", "value", "remark"):
            self._tile.append(text)
            if self._class == "remark":
                label, value, remark = self._tile
                self.tiles.append((label, value, remark))
                self._tile = []
            self._class = None
        self._text = []

    def below(self, heading: str) -> list[ReadTable]:
        """The tables under a heading of that name."""
        return [table for table in self.tables if table.heading == heading]

    def with_columns(self, *columns: str) -> list[ReadTable]:
        """The tables that have all these columns."""
        return [table for table in self.tables if {*columns} <= {*table.columns}]


def leaves(value: Any) -> Iterator[Any]:  # noqa: ANN401 (any JSON)
    """Keys and values at any depth of a document."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def printed_forms(leaf: Any) -> set[str]:  # noqa: ANN401 (any JSON)
    """How a page may print a key or a value: as a share in percent, a count, or with few digits."""
    if isinstance(leaf, str):
        return set(re.findall(r"\d+\.?\d*", leaf))
    if isinstance(leaf, bool) or leaf is None:
        return set()
    return {f"{abs(100 * leaf):.1f}", f"{leaf:.0f}", f"{leaf:g}", f"{leaf:.2g}", f"{abs(leaf):.2f}"}
