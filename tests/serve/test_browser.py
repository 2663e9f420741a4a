"""The page in a real browser: drop, look, save; on narrow and dark screens; and never a word to anyone else."""

import csv
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from tests.support.browsers import CONTRASTS, in_a_browser, open_browser, requests, screenshot, set_screen
from tests.support.served import Client, bomb, cell, in_process, png, saved_run

pytest.importorskip("gradio")
selenium = pytest.importorskip("selenium")

pytestmark = in_a_browser

WIDTHS = (375, 1280)


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Any]:
    with open_browser(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[tuple[Client, Path]]:
    home = tmp_path_factory.mktemp("page")
    run = saved_run(home / "run")
    run.report.write_text("<!doctype html><title>r</title><h1>The report of the run</h1>", "utf-8")
    with in_process(run, home=home) as (client, _, folder):
        yield client, folder


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("images")
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    found = {f"cell-{number}.png": png(cell(number)) for number in range(4)}
    found |= {
        "noise.png": png(noise),
        "broken.png": b"this is no image",
        "bomb.png": bomb(),
        "large.png": bytes(21_000_000),
    }
    for name, data in found.items():
        (folder / name).write_bytes(data)
    return {name: folder / name for name in found}


def wait(browser, done: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait until something is there."""
    until = time.monotonic() + seconds
    while not (found := done()):
        assert time.monotonic() < until, browser.execute_script("return document.body.innerText")
        time.sleep(0.1)
    return found


def find(browser, selector: str) -> list[Any]:
    return browser.find_elements("css selector", selector)


def show(browser, client: Client, *, scheme: str = "light", width: int = 1280) -> None:
    """Open the page anew and wait until it is there."""
    set_screen(browser, width=width, scheme=scheme)
    browser.get(f"http://127.0.0.1:{client.port}/")
    wait(browser, lambda: find(browser, "#drop input[type=file]") and find(browser, "#results"))


def drop(browser, *paths: Path) -> None:
    """Give files to the page as a person's choice in the dialog does."""
    wait(browser, lambda: find(browser, "#drop input[type=file]"))[0].send_keys("\n".join(map(str, paths)))


def cards(browser, count: int, maps: int) -> list[Any]:
    """Wait for that many cards, of which so many have a Grad-CAM; return them."""
    wait(browser, lambda: len(find(browser, "#results .cc-card")) == count and len(find(browser, MAPS)) == maps)
    return find(browser, "#results .cc-card")


MAPS = "#results img[alt^='Grad-CAM']"


def complaints(browser) -> list[str]:
    """Return what the console says, but for what Gradio's own script says at the end of every upload."""
    return [
        entry["message"] for entry in browser.get_log("browser") if "Method not implemented" not in entry["message"]
    ]


def outside(asked: list[str]) -> list[str]:
    """Return the addresses that are not this machine's."""
    return [a for a in asked if urlsplit(a).scheme not in ("data", "blob") and urlsplit(a).hostname != "127.0.0.1"]


def test_images_get_answers_pictures_and_a_table(browser, served, images, tmp_path):
    client, folder = served
    browser.get_log("browser"), browser.get_log("performance")
    show(browser, client)
    drop(browser, *(images[f"cell-{number}.png"] for number in range(3)), images["noise.png"])
    found = cards(browser, 4, 4)
    assert "cell-0.png" in found[0].text and "Grad-CAM" in found[0].text
    told = client.predict([(f"cell-{n}.png", images[f"cell-{n}.png"].read_bytes()) for n in range(3)]).json
    for card, prediction in zip(found, told["predictions"], strict=False):
        assert ("not sure" in card.text) == (not prediction["sure"])
        assert all(f"{share:.3f}" in card.text for share in prediction["probabilities"].values())
    assert "Does not look like" in found[3].text
    sizes = browser.execute_script("return [...document.querySelectorAll('#results img')].map(i => i.naturalWidth)")
    assert len(sizes) == 8 and min(sizes) > 0

    behaviour = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    find(browser, "a.cc-csv")[0].click()
    table = wait(browser, lambda: [p for p in tmp_path.glob("*.csv") if p.stat().st_size])[0].read_text("utf-8")
    rows = list(csv.DictReader(io.StringIO(table)))
    assert [row["file"] for row in rows] == ["cell-0.png", "cell-1.png", "cell-2.png", "noise.png"]
    assert [row["label"] for row in rows[:3]] == [prediction["label"] for prediction in told["predictions"]]

    asked = requests(browser)
    assert any("/gradio_api/upload" in address for address in asked)
    assert outside(asked) == []
    assert complaints(browser) == []
    assert [path for path in folder.rglob("*") if path.is_file()] == [], "images are kept"


def test_what_is_no_image_is_said_beside_the_others(browser, served, images):
    client, folder = served
    show(browser, client)
    drop(browser, images["broken.png"], images["cell-1.png"], images["bomb.png"])
    found = cards(browser, 3, 1)
    assert "broken.png" in found[0].text and "not an image of a known format" in found[0].text
    assert "cell-1.png" in found[1].text and "pixels" in found[2].text
    assert "2 could not be read" in find(browser, "#results .cc-sum")[0].text
    assert [path for path in folder.rglob("*") if path.is_file()] == []


def test_a_file_that_is_too_large_is_refused_in_words_and_the_page_goes_on(browser, served, images):
    client, _ = served
    show(browser, client)
    drop(browser, images["large.png"])
    wait(browser, lambda: "maximum allowed size" in browser.execute_script("return document.body.innerText"))
    show(browser, client)
    drop(browser, images["cell-2.png"])
    assert "cell-2.png" in cards(browser, 1, 1)[0].text


def test_an_example_is_one_click_and_the_report_another(browser, served):
    client, _ = served
    show(browser, client)
    buttons = find(browser, "#examples button")
    assert len(buttons) == 6
    buttons[1].click()
    assert "drawn_hem_2.png" in cards(browser, 1, 1)[0].text
    text = browser.execute_script("return document.body.innerText")
    assert "Not a medical device" in text and "this score says nothing about leukemia" in text
    links = {link.text: link.get_attribute("href") for link in find(browser, ".cc-head a")}
    browser.get(links["Report of the run"])
    assert "The report of the run" in browser.execute_script("return document.body.innerText")
    browser.get(links["For programs"])
    assert "POST /predict" in browser.execute_script("return document.body.innerText")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_every_screen_can_read_it(browser, served, images, width, scheme, tmp_path):
    client, _ = served
    show(browser, client, scheme=scheme, width=width)
    drop(browser, images["cell-0.png"], images["cell-1.png"], images["noise.png"], images["broken.png"])
    cards(browser, 4, 3)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    beyond = """return [...document.querySelectorAll(".cc-head *, .cc-card, .cc-card *, #examples *, .cc-sum *")]
        .filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 99))"""
    assert browser.execute_script(beyond) == []
    ours = [found for found in browser.execute_script(CONTRASTS) if "cc-" in found[1] or found[1].startswith("SMALL")]
    assert ours == []
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    light = sum(map(int, paper.removeprefix("rgb(").removesuffix(")").split(","))) > 3 * 128
    assert light == (scheme == "light")
    screenshot(browser, tmp_path / f"serve-{width}-{scheme}.png", width)
