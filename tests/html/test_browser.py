"""Pages in a real browser: nothing fetched, nothing complained of, and readable on every screen and on paper."""

import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from customcnn.report import write_report
from tests.support.browsers import CONTRASTS, in_a_browser, open_browser, requests, screenshot, set_screen
from tests.support.reports import hostile_run

selenium = pytest.importorskip("selenium")

pytestmark = in_a_browser


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """The report of a run of four classes that has everything: curves, calibration, mistakes with Grad-CAM."""
    return write_report(hostile_run(tmp_path_factory.mktemp("browser"))).page


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Any]:
    with open_browser(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


def show(browser, page: Path, *, scheme: str = "light", width: int = 1280) -> None:
    """Open a page anew on a screen of a width and a colour scheme."""
    set_screen(browser, width=width, scheme=scheme)
    browser.get(page.as_uri())


def test_nothing_is_fetched_and_nothing_complained_of(browser, page):
    browser.get_log("browser"), browser.get_log("performance")
    show(browser, page)
    asked = requests(browser)
    assert page.as_uri() in asked
    assert not [address for address in asked if address != page.as_uri() and not address.startswith("data:")]
    assert browser.get_log("browser") == []


def test_every_picture_is_loaded(browser, page):
    show(browser, page)
    widths = browser.execute_script("return [...document.images].map(image => image.naturalWidth)")
    assert len(widths) >= 12 and min(widths) > 0


@pytest.mark.parametrize("width", [375, 768, 1280])
def test_no_screen_is_too_narrow(browser, page, width, tmp_path):
    show(browser, page, width=width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    # What is wider scrolls in a box of its own; nothing else reaches out.
    wide = """return [...document.querySelectorAll("main > *, section > *, .score, .card, .legend li, p, pre")].filter(
        e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 99))"""
    assert browser.execute_script(wide) == []
    screenshot(browser, tmp_path / f"{width}.png", width)


def test_both_schemes_are_readable_and_differ(browser, page, tmp_path):
    papers, pictures = {}, {}
    for scheme in ("light", "dark"):
        show(browser, page, scheme=scheme)
        assert browser.execute_script(CONTRASTS) == [], scheme
        papers[scheme] = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        pictures[scheme] = screenshot(browser, tmp_path / f"{scheme}.png", 1280)
    assert papers == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 24, 27)"}
    assert pictures["light"] != pictures["dark"]


def test_weak_contrast_is_noticed(browser, page):
    show(browser, page)
    browser.execute_script("document.querySelector('section p').style.color = '#8a8a8a'")
    assert len(browser.execute_script(CONTRASTS)) == 1


def test_it_prints_black_on_white_also_from_a_dark_screen(browser, page, tmp_path):
    show(browser, page, scheme="dark")
    media = {"media": "print", "features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    style = "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
    assert browser.execute_script(style) == ["rgb(0, 0, 0)", "rgb(255, 255, 255)"]
    assert browser.execute_script(CONTRASTS) == []
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})["data"]
    (tmp_path / "page.pdf").write_bytes(base64.b64decode(printed))
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF-") and len(printed) > 20_000


def test_names_run_no_script(browser, page):
    show(browser, page)
    assert browser.execute_script("return document.scripts.length") == 0
    assert "<script>alert(1)<" in browser.execute_script("return document.body.innerText")


def source(browser) -> str:
    """Return the page as it stands, without a script in it: WebDriver's own way is one."""
    until = time.monotonic() + 10
    while True:
        try:
            root = browser.execute_cdp_cmd("DOM.getDocument", {"depth": 1})["root"]
            return browser.execute_cdp_cmd("DOM.getOuterHTML", {"nodeId": root["nodeId"]})["outerHTML"]
        except selenium.common.exceptions.WebDriverException:  # the document was replaced between the two
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def test_it_needs_no_script_of_its_own(browser, page):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        show(browser, page)
        html = source(browser)
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert "Not a medical device" in html and "noscript" not in html
