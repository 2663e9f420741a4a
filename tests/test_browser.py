"""Pages in a real browser: nothing fetched, nothing complained of, and readable on every screen and on paper."""

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from reports import hostile_run

from customcnn.report import write_report

selenium = pytest.importorskip("selenium")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver"),
]

ARGUMENTS = """--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync"""

CONTRASTS = """
const numbers = text => {
  const found = text.match(/[\\d.]+/g).map(Number);
  return text.startsWith("color(srgb") ? [...found.slice(0, 3).map(x => x * 255), ...found.slice(3)] : found;
};
const light = rgb => {
  const [r, g, b] = rgb.slice(0, 3).map(x => (x /= 255) <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4);
  return .2126 * r + .7152 * g + .0722 * b;
};
const behind = element => {
  for (let e = element; e; e = e.parentElement) {
    const found = numbers(getComputedStyle(e).backgroundColor);
    if (found.length < 4 || found[3] === 1) return found;
  }
  return [255, 255, 255];
};
return [...document.querySelectorAll("body *")].filter(element =>
  [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim())
).map(element => {
  const style = getComputedStyle(element);
  const ink = light(numbers(element.closest("svg") ? style.fill : style.color)), paper = light(behind(element));
  const contrast = (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05);
  return [contrast, element.tagName + "." + element.className + ": " + element.textContent.slice(0, 40)];
}).filter(found => found[0] < 4.5);
"""
"""Lists every text whose contrast is below WCAG's 4.5 to 1."""


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """The report of a run of four classes that has everything: curves, calibration, mistakes with Grad-CAM."""
    return write_report(hostile_run(tmp_path_factory.mktemp("browser"))).page


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (*ARGUMENTS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def show(browser, page: Path, *, scheme: str = "light", width: int = 1280) -> None:
    """Open a page anew on a screen of a width and a colour scheme."""
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": [feature]})
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get(page.as_uri())


def screenshot(browser, path: Path, width: int) -> bytes:
    """Write a picture of the whole page."""
    height = browser.execute_script("return document.documentElement.scrollHeight")
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    picture = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"]
    path.write_bytes(base64.b64decode(picture))
    return path.read_bytes()


def requests(browser) -> list[str]:
    """Return every address that was asked for since the last call."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


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


def test_it_needs_no_script_of_its_own(browser, page):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        show(browser, page)
        shown = browser.execute_cdp_cmd("DOM.getDocument", {"depth": 1})["root"]
        html = browser.execute_cdp_cmd("DOM.getOuterHTML", {"nodeId": shown["nodeId"]})["outerHTML"]
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert "Not a medical device" in html and "noscript" not in html
