"""The pages opened in a real browser: every picture loads, nothing is asked of the network, nothing sticks out."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluate.comparison_report import write_comparison
from evaluate.report import write_report
from tests.evaluate import toy_runs
from tests.evaluate.browser import Browser, browser, require_browser
from tests.evaluate.test_explained import explained_run
from tests.evaluate.toy_frames import frames_cache

pytestmark = pytest.mark.browser
WIDTHS = (1280, 390)
PAGES = {"one": 16, "several": 3 * 16, "comparison": 2 * 16, "bare": 0, "explained": 1}
"""With how many pictures at least."""
LONG = ("a class with a name that is rather long for a phone " * 2, "pneumonoultramicroscopicsilicovolcanoconiosis" * 2)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    require_browser()
    with browser(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reports of one run, of several with hostile names, without pictures, with explanations, and a comparison."""
    folder = tmp_path_factory.mktemp("pages")
    clips = [f"{split}-{number:03d}" for split in ("iid", "counterfactual") for number in range(60)]
    cache = frames_cache(folder / "cache", clips)
    names = (*LONG, "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "搅拌", "f", "g", "h")
    runs = [
        toy_runs.run(
            folder / f"a-run-with-a-long-name-{seed}", seed=seed, skill=0.8, class_names=names, notices=("x" * 90,)
        )
        for seed in range(2)
    ]
    multi = toy_runs.run(folder / "atomic", kind="multi")
    write_report([multi], folder / "one", num_resamples=10, cache=cache)
    write_report([*runs, multi], folder / "several", num_resamples=10, cache=cache)
    write_comparison(runs, folder / "comparison", num_resamples=10, cache=cache)
    write_report([multi], folder / "bare", num_resamples=10, cache=folder)
    explained, _ = explained_run(folder / "with-explanations")
    write_report([explained], folder / "explained", num_resamples=10, cache=folder)
    return {name: folder / name / "index.html" for name in PAGES}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_whole_quiet_and_fits_its_width(
    chromium: Browser, pages: dict[str, Path], name: str, width: int
) -> None:
    visit = chromium.visit(pages[name], width=width)
    assert visit.requests == []
    assert visit.errors == []
    assert visit.missing == []
    assert visit.beyond == []
    assert visit.width <= width
    html = pages[name].read_text()
    assert visit.num_images == html.count("<img") >= PAGES[name]
    assert visit.num_figures == html.count("<svg") > 1


def test_hostile_names_are_read_as_they_are_and_run_nothing(chromium: Browser, pages: dict[str, Path]) -> None:
    chromium.visit(pages["several"])
    text = chromium.text()
    assert "<script>alert(1)</script>" in text
    assert "<img src=x onerror=alert(1)>" in text


def test_on_paper_everything_that_was_folded_is_there(chromium: Browser, pages: dict[str, Path]) -> None:
    chromium.visit(pages["one"], unfold=False)
    folded = chromium.printed_pdf()
    chromium.visit(pages["one"], unfold=True)
    unfolded = chromium.printed_pdf()
    assert _num_pages(folded) == _num_pages(unfolded) > 3


def _num_pages(pdf: bytes) -> int:
    return pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ")


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ('<img src="absent.png" alt="a">', "missing"),
        ('<img src="data:image/png;base64,AAAA" alt="a">', "missing"),
        ('<link rel="stylesheet" href="http://127.0.0.1:9/style.css">', "requests"),
        ('<img src="http://127.0.0.1:9/x.png">', "requests"),
        ("<script>undefined.x</script>", "errors"),
        ('<meta http-equiv="Content-Security-Policy" content="script-src \'none\'"><script>1</script>', "errors"),
        ('<main><div style="width: 3000px">wide</div></main>', "beyond"),
    ],
)
def test_the_browser_tells_of_pages_that_are_not(chromium: Browser, tmp_path: Path, body: str, what: str) -> None:
    page = tmp_path / "page.html"
    page.write_text(f"<!DOCTYPE html><html><body>{body}</body></html>")
    assert getattr(chromium.visit(page), what)
