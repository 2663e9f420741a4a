"""A real browser for the tests of pages: Chromium, driven by Selenium."""

import base64
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

in_a_browser = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver"),
]
"""The marks of a file of such tests."""

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


@contextmanager
def open_browser(profile: Path) -> Iterator[Any]:
    """Start Chromium with a profile of its own; it notes all that it asks for and complains of."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (*ARGUMENTS.split(), f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def set_screen(browser: Any, *, width: int, height: int = 900, scheme: str | None = None) -> None:
    """Give the browser another screen; with a colour scheme, "light" or "dark", also that."""
    if scheme:
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": [feature]})
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)


def screenshot(browser: Any, path: Path, width: int) -> bytes:
    """Write a picture of the whole page."""
    set_screen(browser, width=width, height=browser.execute_script("return document.documentElement.scrollHeight"))
    picture = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"]
    path.write_bytes(base64.b64decode(picture))
    return path.read_bytes()


def requests(browser) -> list[str]:
    """Return every address that was asked for since the last call."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
