"""The page of an audit: every kind of finding with its pictures, and nothing from elsewhere."""

import re

import numpy as np
import pytest

from customcnn.audit import audit, page_of
from customcnn.data.manifest import scan
from tests.support.audit_pictures import cell, save, with_groups


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A split with leaks, conflicts, torn groups and images unlike the rest; its audit and its manifest."""
    folder = tmp_path_factory.mktemp("page") / "<data>"
    for i in range(30):
        save(folder / f"train/all/{i:02}.png", cell(i))
    for i in range(5):
        save(folder / f"validation/hem/{i}.png", cell(i))
        save(folder / f"validation/all/turned-{i}.png", cell(10 + i)[::-1])
    for i in range(9):
        save(folder / f"train/all/copy-{i}.png", cell(20) if i else np.rot90(cell(20)))
    save(folder / "train/all/blank & white.png", np.zeros((96, 96, 3), np.uint8))
    with_groups(folder, lambda path: path)
    manifest = scan(folder)
    return audit(manifest, within=True, workers=1), manifest


def headings(html):
    return re.findall(r"<h[23][^>]*>(.*?)</h[23]>", html)


def test_every_kind_has_its_section_conflicts_first(found):
    html = page_of(*found)
    assert headings(html)[:6] == [
        "What was looked at",
        "Duplicates with different labels",
        "Duplicates in different groups",
        "Identical files across parts",
        "Near-duplicates across parts",
        "Near-duplicates within parts",
    ]
    assert "Images unlike the rest" in headings(html)
    assert "Blank" in headings(html)
    assert "Audit of &lt;data&gt;" in html
    assert "blank &amp; white.png" in html


def test_the_pictures_are_inside_and_nothing_is_outside(found):
    html = page_of(*found)
    sources = re.findall(r'<img src="([^"]*)"', html)
    assert sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert not re.search(r"https?://|<script|<link|@import|url\(", html)


def test_at_most_so_many_are_shown_and_the_rest_is_counted(found):
    one = page_of(*found, 1)
    section = one.partition("Identical files across parts</h2>")[2].partition("</section>")[0]
    assert section.count("<img") == 2
    assert "4 more sets not shown." in section
    assert len(one) < len(page_of(*found))


@pytest.mark.parametrize("other", ["zz", "aa"])
def test_a_set_with_different_labels_shows_an_image_of_each(tmp_path, other):
    for number in range(7):
        save(tmp_path / f"all/{number}.png", cell(1))
    save(tmp_path / f"hem/{other}.png", cell(1))
    with_groups(tmp_path, lambda path: "one" if "6" in path else "two")
    manifest = scan(tmp_path)
    html = page_of(audit(manifest, workers=1), manifest)
    labels = html.partition("Duplicates with different labels</h2>")[2].partition("</section>")[0]
    shown = re.findall(r"<br>class (\w+)", labels)
    assert len(shown) == 5 and set(shown) == {"all", "hem"} and "3 more images not shown." in labels
    groups = html.partition("Duplicates in different groups</h2>")[2].partition("</section>")[0]
    assert set(re.findall(r"group (\w+)", groups)) == {"one", "two"}


def test_of_a_set_across_parts_an_image_of_each_is_shown(tmp_path):
    for number in range(7):
        save(tmp_path / f"train/all/{number}.png", cell(1))
    save(tmp_path / "validation/all/0.png", cell(1))
    manifest = scan(tmp_path)
    html = page_of(audit(manifest, workers=1), manifest)
    across = html.partition("Identical files across parts</h2>")[2].partition("</section>")[0]
    assert "validation/all/0.png" in across and across.count("<img") == 5


def test_data_without_findings_has_a_page_too(tmp_path):
    save(tmp_path / "all/a.png", cell(1))
    save(tmp_path / "hem/b.png", cell(2))
    manifest = scan(tmp_path)
    html = page_of(audit(manifest, workers=1), manifest)
    assert headings(html) == ["What was looked at"]
    assert "No copies were found." in html
    assert "Not looked for: copies turned by other angles" in html
    assert "<img" not in html


def test_the_same_audit_gives_the_same_bytes(found):
    assert page_of(*found) == page_of(*found)
