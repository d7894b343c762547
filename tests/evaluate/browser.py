"""A headless Chromium that tells what a page did: requests, errors, images that are missing, width.

On a machine without Chromium, its driver or selenium the tests that want one are skipped with a reason, unless
DECONFOUND_REQUIRE_BROWSER is set, as the gate does: then they fail.
"""

import importlib.util
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REQUIRED = "DECONFOUND_REQUIRE_BROWSER"
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_OWN = ("chrome://", "chrome-extension://", "chrome-untrusted://")  # a new tab loads such pages when it likes to
_LOOK = """
return {
  missing: [...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.alt || i.src.slice(0, 80)),
  images: document.images.length,
  figures: document.querySelectorAll("figure svg").length,
  scripts: document.scripts.length,
  width: document.documentElement.scrollWidth,
  beyond: [...document.querySelectorAll("main *")].filter(e => !e.closest(".scroll, pre, svg")
    && e.getBoundingClientRect().right > window.innerWidth + 1).map(e => e.tagName + " " + e.className).slice(0, 5),
  folded: [...document.querySelectorAll("details")].filter(d => !d.open).length,
}
"""


@dataclass(frozen=True, kw_only=True)
class Visit:
    """What the browser saw.

    Attributes:
        requests: addresses other than the page itself that were asked for; data: addresses are none.
        errors: of scripts, of the page's content policy, of resources.
        missing: images that did not load.
        beyond: elements that stick out at the right, and do not scroll by themselves.
        num_images: on the page.
        num_figures: inline SVG.
        width: of the page, in CSS pixels.
    """

    requests: Sequence[str]
    errors: Sequence[str]
    missing: Sequence[str]
    beyond: Sequence[str]
    num_images: int
    num_figures: int
    width: int


def why_no_browser() -> str:
    """What is absent; empty where a page can be opened."""
    absent = [] if importlib.util.find_spec("selenium") else ["selenium"]
    absent += [] if _browser() else ["chromium"]
    absent += [] if shutil.which("chromedriver") else ["chromedriver"]
    return f"no {', '.join(absent)} here: pages are not opened in a browser" if absent else ""


def require_browser() -> None:
    """Skips the test where there is no browser, or fails it where one is required."""
    reason = why_no_browser()
    if reason and os.environ.get(REQUIRED):
        pytest.fail(f"{reason}, though {REQUIRED} is set")
    if reason:
        pytest.skip(reason)


def _browser() -> str | None:
    return next((path for name in _BROWSERS if (path := shutil.which(name))), None)


class Browser:
    """A running browser; pages are files."""

    def __init__(self, driver: Any) -> None:  # noqa: ANN401 (selenium is no dependency of the types)
        self._driver = driver

    def visit(self, page: Path, *, width: int = 1280, unfold: bool = True) -> Visit:
        """Opens a page at a width in CSS pixels, below 500 as a phone would; `unfold` opens all that is folded."""
        self._logs()  # what came before
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self._driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self._driver.get(page.as_uri())
        if unfold:
            self._driver.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true })")
        seen = self._driver.execute_script(_LOOK)
        requests, errors = self._logs()
        return Visit(
            requests=[url for url in requests if url != page.as_uri() and not url.startswith("data:")],
            errors=errors,
            missing=seen["missing"],
            beyond=seen["beyond"],
            num_images=seen["images"],
            num_figures=seen["figures"],
            width=seen["width"],
        )

    def text(self) -> str:
        """What a reader can see of the page, folded parts as they are."""
        return str(self._driver.execute_script("return document.body.innerText"))

    def printed_pdf(self) -> bytes:
        """The page as it comes out of a printer."""
        import base64

        return base64.b64decode(self._driver.execute_cdp_cmd("Page.printToPDF", {})["data"])

    def _logs(self) -> tuple[list[str], list[str]]:
        """Addresses asked for, and messages of errors, since the last call; not those of the browser's own pages."""
        events = [json.loads(entry["message"])["message"] for entry in self._driver.get_log("performance")]
        sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
        asked = [one["request"]["url"] for one in sent if not one["documentURL"].startswith(_OWN)]
        messages = [entry["message"] for entry in self._driver.get_log("browser")]
        return asked, [message for message in messages if not message.startswith(_OWN)]


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Starts one with a profile of its own; closes it afterwards."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(_browser())
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
