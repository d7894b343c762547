"""One self-contained HTML page, block by block: what reports and the demo are written with.

    page = Page("Breakfast, activity", lead="One sentence under the title.")
    page.note("The image encoder has random weights.", kind="warning")       # "info" | "good" | "warning"
    page.tiles([("Acc@1", "91.3 %", "95 % interval 88.0 to 94.1")])           # headline figures in boxes
    page.section("Results")                                                   # an h2, listed in the contents
    page.paragraph("Plain text.")
    page.bullets(["One", "Two"])
    page.table(["class", "AP, %"], [["pour milk", "71.2"]], caption="Per class.")
    page.figure(svg, caption="Learning curves.", alt="Two curves that ...")   # svg: from evaluate.figures
    page.image(jpeg_bytes, caption="Kitchen 3", alt="A person at a stove")    # JPEG or PNG, embedded
    page.images([(jpeg, "caption"), ...], pixelated=True)                     # a grid of them
    page.links([("activity/index.html", "The report of the activity task")])  # files beside the page
    page.details("The resolved config", text)                                 # folded, preformatted
    with page.folded("All classes"):                                          # folded, any blocks
        page.table(...)
    page.write(path)                                                          # or page.html()

Every text is escaped, there is no markup inside texts, and the page's content policy forbids scripts and the
network: a class name cannot become code. The one exception is `figure`, which takes SVG from our own
`evaluate.figures`, and refuses anything in it that could run or load. Numbers are given as text: the caller decides
on digits and units, so that a page can be compared with the JSON beside it. A column that reads as numbers is aligned
right. The style stands in page.css, which goes inline into every page.
"""

import base64
import html
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Self

from cache.atomic import write_bytes

NoteKind = Literal["info", "good", "warning"]
Cell = str | int | None

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_NUMBER = re.compile(r"[-+−±]?\d[\d .,/]*(e[-+]?\d+)?( ?(%|s|ms|M|k|G|points?))?( ?(±|to|\[|\().*)?|-|–|")
_SHORT = 40  # letters
_FORBIDDEN_IN_SVG = re.compile(
    r"<\s*(script|foreignObject|iframe|image|style|a)\b|<[^>]*\son\w+\s*=|<[^>]*href\s*=\s*[\"'](?!#)", re.IGNORECASE
)
_BESIDE = re.compile(r"[\w.-]+(/[\w.-]+)*")  # a relative path: no scheme, no leading slash
_MEDIA = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png"}

_STYLE = (Path(__file__).parent / "page.css").read_text(encoding="utf-8").strip()


def _escape(text: str) -> str:
    return html.escape(text, quote=True)


def _media_type(data: bytes) -> str:
    for magic, media in _MEDIA.items():
        if data.startswith(magic):
            return media
    raise ValueError(f"an image must be JPEG or PNG bytes, got {len(data)} bytes starting with {data[:4]!r}")


def _check_svg(svg: str) -> None:
    if not svg.startswith("<svg"):
        raise ValueError(f"a figure must be one inline SVG element, got text starting with {svg[:20]!r}")
    found = _FORBIDDEN_IN_SVG.search(svg)
    if found:
        raise ValueError(f"the SVG holds {found.group(0)!r}: figures may neither run, load nor link anything")


def _column_class(rows: Sequence[Sequence[str]], column: int) -> str:
    """Numbers stand right; a column of short texts is never broken, it scrolls."""
    texts = [row[column] for row in rows]
    if texts and all(_NUMBER.fullmatch(text) for text in texts):
        return ' class="number"'
    return ' class="short"' if all(len(text) <= _SHORT for text in texts) else ""


class Page:
    """A page under construction; blocks appear in the order of the calls, each of which returns the page."""

    def __init__(self, title: str, *, lead: str = "") -> None:
        self.title = title
        self._lead = lead
        self._blocks: list[str] = []
        self._sections: list[str] = []

    def section(self, title: str) -> Self:
        """Start a section (h2), listed in the contents on top of the page."""
        self._sections.append(title)
        return self._add(f'<h2 id="s{len(self._sections)}">{_escape(title)}</h2>')

    def heading(self, title: str) -> Self:
        """Add a smaller heading (h3) inside a section."""
        return self._add(f"<h3>{_escape(title)}</h3>")

    def paragraph(self, text: str) -> Self:
        """Add a paragraph of plain text."""
        return self._add(f"<p>{_escape(text)}</p>")

    def bullets(self, items: Sequence[str]) -> Self:
        """Add a list of plain texts; nothing for an empty list."""
        lines = "".join(f"<li>{_escape(item)}</li>" for item in items)
        return self._add(f"<ul>{lines}</ul>") if items else self

    def note(self, text: str, *, kind: NoteKind = "info", title: str = "") -> Self:
        """Add a highlighted remark; `warning` is what a reader must not miss."""
        if kind not in ("info", "good", "warning"):
            raise ValueError(f"the kind of a note is info, good or warning, got {kind!r}")
        strong = f"<strong>{_escape(title)}</strong>" if title else ""
        return self._add(f'<div class="note {kind}" role="note">{strong}<p>{_escape(text)}</p></div>')

    def tiles(self, items: Sequence[tuple[str, str, str]]) -> Self:
        """Add a row of boxes: (label, value, remark) each."""
        boxes = "".join(
            f'<div class="tile"><div class="label">{_escape(label)}</div>'
            f'<div class="value">{_escape(value)}</div><div class="remark">{_escape(remark)}</div></div>'
            for label, value, remark in items
        )
        return self._add(f'<div class="tiles">{boxes}</div>')

    def table(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[Cell]],
        *,
        caption: str = "",
        emphasis: Sequence[int] = (),
    ) -> Self:
        """Add a table that scrolls sideways where it is too wide; `emphasis` holds numbers of bold rows.

        Raises:
            ValueError: where a row has not as many cells as there are columns.
        """
        for number, row in enumerate(rows):
            if len(row) != len(columns):
                raise ValueError(f"row {number} has {len(row)} cells for {len(columns)} columns")
        texts = [["–" if cell is None else str(cell) for cell in row] for row in rows]
        classes = [_column_class(texts, column) for column in range(len(columns))]
        head = "".join(f'<th scope="col"{css}>{_escape(name)}</th>' for css, name in zip(classes, columns, strict=True))
        body = "".join(
            ('<tr class="emphasis">' if number in emphasis else "<tr>")
            + "".join(f"<td{css}>{_escape(cell)}</td>" for css, cell in zip(classes, row, strict=True))
            + "</tr>\n"
            for number, row in enumerate(texts)
        )
        return self._add(
            f'<figure class="table">{self._caption(caption)}<div class="scroll"><table><thead><tr>{head}</tr></thead>\n'
            f"<tbody>{body}</tbody></table></div></figure>"
        )

    def figure(self, svg: str, *, caption: str = "", alt: str = "") -> Self:
        """Add an inline SVG drawn by `evaluate.figures`; `alt` says in words what it shows.

        Raises:
            ValueError: where the text is not one SVG element, or could run or load something.
        """
        _check_svg(svg)
        label = f'<svg role="img" aria-label="{_escape(alt or caption)}"'
        return self._add(f"<figure>{svg.replace('<svg', label, 1)}{self._caption(caption)}</figure>")

    def image(
        self, data: bytes, *, caption: str = "", alt: str = "", pixelated: bool = False, wide: bool = False
    ) -> Self:
        """Add one embedded JPEG or PNG; `pixelated` keeps the grid of a small picture visible.

        `wide` keeps a strip of pictures at full size on a narrow page, where it scrolls sideways.

        Raises:
            ValueError: where the bytes are neither.
        """
        figure = self._image(data, caption, alt or caption, pixelated)
        if wide:
            figure = re.sub(r"(<img[^>]*>)", r'<div class="scroll wide">\1</div>', figure, count=1)
        return self._add(figure)

    def images(self, items: Sequence[tuple[bytes, str]], *, pixelated: bool = False, wide: bool = False) -> Self:
        """Add a grid of embedded pictures, `wide` ones: (JPEG or PNG bytes, caption) each; nothing for none."""
        figures = "".join(self._image(data, caption, caption, pixelated) for data, caption in items)
        css = "images wide" if wide else "images"
        return self._add(f'<div class="{css}">{figures}</div>') if items else self

    def links(self, items: Sequence[tuple[str, str]]) -> Self:
        """Add a list of links to files in or below the page's own folder: (relative path, text) each.

        Raises:
            ValueError: a path that is absolute, climbs, or names a scheme.
        """
        for path, _ in items:
            if not _BESIDE.fullmatch(path) or ".." in path.split("/"):
                raise ValueError(f"a link leads to a file beside the page, by relative path; got {path!r}")
        lines = "".join(f'<li><a href="{_escape(path)}">{_escape(text)}</a></li>' for path, text in items)
        return self._add(f"<ul>{lines}</ul>") if items else self

    def details(self, summary: str, text: str) -> Self:
        """Add preformatted text, folded away under its summary."""
        return self._add(f"<details><summary>{_escape(summary)}</summary><pre>{_escape(text)}</pre></details>")

    @contextmanager
    def folded(self, summary: str) -> Iterator[Self]:
        """Fold away the blocks added inside the `with`."""
        self._add(f"<details><summary>{_escape(summary)}</summary>")
        yield self
        self._add("</details>")

    def html(self) -> str:
        """The whole page; equal calls give equal text."""
        links = "".join(f'<a href="#s{number}">{_escape(title)}</a> ' for number, title in enumerate(self._sections, 1))
        contents = f'<nav aria-label="Contents">{links}</nav>\n' if len(self._sections) > 2 else ""
        lead = f'<p class="lead">{_escape(self._lead)}</p>\n' if self._lead else ""
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{_escape(self.title)}</title>\n<style>\n{_STYLE}\n</style>\n</head>\n<body>\n<main>\n"
            f"<h1>{_escape(self.title)}</h1>\n{lead}{contents}" + "\n".join(self._blocks) + "\n"
            "</main>\n</body>\n</html>\n"
        )

    def write(self, path: Path) -> None:
        """Write the page as utf-8, at once or not at all."""
        write_bytes(path, self.html().encode())

    def _add(self, block: str) -> Self:
        self._blocks.append(block)
        return self

    @staticmethod
    def _caption(caption: str) -> str:
        return f"<figcaption>{_escape(caption)}</figcaption>" if caption else ""

    def _image(self, data: bytes, caption: str, alt: str, pixelated: bool) -> str:
        source = f"data:{_media_type(data)};base64,{base64.b64encode(data).decode()}"
        css = ' class="pixelated"' if pixelated else ""
        return f'<figure><img{css} alt="{_escape(alt)}" src="{source}">{self._caption(caption)}</figure>'
