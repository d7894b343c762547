"""Pages and figures: nothing hostile gets through, nothing depends on when it was drawn."""

import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from evaluate import figures
from evaluate.figures import Point
from evaluate.page import Page

HOSTILE = ("<script>alert(1)</script>", '" onload="x', "$\\frac{1}{$", "-->", "搅拌", "two\nlines", "put on = off")
JPEG = b"\xff\xd8\xff\xe0" + bytes(20)
VOID = {"meta", "img", "br"}


class _Balance(HTMLParser):
    """Fails on a tag that closes another one than the last that was opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(" ".join([tag, *(key for key, _ in attrs)]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(" ".join([tag, *(key for key, _ in attrs)]))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _all_figures(names: tuple[str, ...]) -> list[str]:
    point = Point(value=50.0, interval=(40.0, 61.0))
    return [
        figures.learning_curves({name: [[(0, 1.0), (1, 0.5)]] for name in names}, y_label=names[0]),
        figures.class_bars(dict.fromkeys(names, 30.0), x_label=names[0], mean=30.0),
        figures.split_comparison({name: {names[1]: point} for name in names}, x_label="x", references={names[0]: 1.0}),
        figures.confusion(np.eye(len(names), dtype=np.int64), names),
    ]


def _page_of_everything(name: str) -> Page:
    page = Page(name, lead=name)
    for title in (name, "b", "c"):
        page.section(title)
    page.heading(name).paragraph(name).bullets([name]).note(name, kind="warning", title=name).tiles(
        [(name, name, name)]
    )
    page.table([name], [[name]], caption=name, emphasis=[0]).image(JPEG, caption=name, alt=name).images([(JPEG, name)])
    page.links([("a/index.html", name)]).details(name, name)
    with page.folded(name):
        page.paragraph(name)
    return page


def _tags(name: str) -> list[str]:
    page = _page_of_everything(name)
    for svg in _all_figures((name, "other")):
        page.figure(svg, caption=name, alt=name)
    parser = _Balance()
    parser.feed(page.html())
    assert parser.open == []
    return [
        tag for tag in parser.seen if tag.split()[0] not in ("g", "text", "tspan")
    ]  # a label of two lines has two texts


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts_stay_texts_everywhere_on_a_page(name: str) -> None:
    assert _tags(name) == _tags("tame")


def test_the_policy_forbids_scripts_and_the_network_and_the_page_asks_for_neither() -> None:
    text = _page_of_everything("x").html()
    assert "default-src 'none'" in text
    assert "http:" not in text
    assert "https:" not in text


@pytest.mark.parametrize(
    "svg",
    [
        "<p>no figure</p>",
        "<svg><script>x</script></svg>",
        '<svg onload="x"></svg>',
        '<svg><image href="a.png"/></svg>',
        '<svg><use xlink:href="http://x"/></svg>',
    ],
)
def test_svg_that_could_run_or_load_is_refused(svg: str) -> None:
    with pytest.raises(ValueError, match=r"SVG"):
        Page("x").figure(svg)


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "http://x", "javascript:x", "//x", ""])
def test_links_lead_to_files_beside_the_page_only(path: str) -> None:
    with pytest.raises(ValueError, match="beside the page"):
        Page("x").links([(path, "text")])


@pytest.mark.parametrize("path", ["activity/index.html", "metrics.json", "a-b/c_d/e.v2.csv"])
def test_links_to_files_in_folders_below_stand_as_given(path: str) -> None:
    assert f'<a href="{path}">The report</a>' in Page("x").links([(path, "The report")]).html()


def test_what_is_no_image_and_rows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="JPEG or PNG"):
        Page("x").image(b"GIF89a")
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        Page("x").table(["a", "b"], [["1"]])
    with pytest.raises(ValueError, match="info, good or warning"):
        Page("x").note("a", kind="loud")  # type: ignore[arg-type]


def test_columns_of_numbers_stand_right_and_other_columns_left() -> None:
    text = Page("x").table(["number", "name"], [["71.2 (60.0 to 80.1)", "a"], [None, "b"]]).html()
    assert '<td class="number">71.2 (60.0 to 80.1)</td>' in text
    assert '<td class="short">a</td>' in text


def test_a_page_is_written_as_it_reads(tmp_path: Path) -> None:
    page = _page_of_everything("é 搅拌")
    page.write(tmp_path / "index.html")
    assert (tmp_path / "index.html").read_text(encoding="utf-8") == page.html()


def test_figures_are_well_formed_follow_the_page_colour_and_repeat_byte_for_byte() -> None:
    for first, second in zip(_all_figures(HOSTILE), _all_figures(HOSTILE), strict=True):
        assert first == second
        ElementTree.fromstring(first)
        assert "currentColor" in first
        assert "#0102" not in first
        assert "2026" not in first


def test_an_interval_is_drawn_as_it_is_even_beside_its_estimate_and_not_at_all_where_there_is_none() -> None:
    def places(point: Point) -> list[list[float]]:
        axes = Figure().add_subplot()
        figures._dots(axes, [(0.0, point)], "run", 0)
        bars = [bar for bar in axes.collections if isinstance(bar, LineCollection)]
        dots = np.asarray(axes.lines[0].get_xdata())
        return [dots.tolist(), *(np.asarray(ends)[:, 0].tolist() for bar in bars for ends in bar.get_segments())]

    assert places(Point(value=22.0, interval=(20.0, 21.0))) == [[22.0], [20.0, 21.0]]
    assert places(Point(value=100.0)) == [[100.0]]


def test_figures_leave_matplotlib_as_it_was() -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    _all_figures(("a", "b"))
    assert dict(mpl.rcParams) == before


def test_more_than_sixty_classes_become_the_best_and_the_worst_thirty() -> None:
    svg = figures.class_bars({f"class-{number:03d}": 100.0 - number for number in range(90)}, x_label="AP, %")
    assert "class-029" in svg
    assert "class-030" not in svg
    assert "class-060" in svg
    assert "30 classes between" in svg


def test_nothing_to_draw_is_said() -> None:
    with pytest.raises(ValueError, match="no finite point"):
        figures.learning_curves({"a": [[(0, float("nan"))]]}, y_label="y")
    with pytest.raises(ValueError, match="no classes"):
        figures.class_bars({}, x_label="x")
    with pytest.raises(ValueError, match="no run"):
        figures.split_comparison({}, x_label="x")
    with pytest.raises(ValueError, match="cannot have shape"):
        figures.confusion(np.zeros((2, 3), dtype=np.int64), ["a", "b"])
