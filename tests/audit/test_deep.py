"""Copies turned by any angle, as --deep finds them, beside parts, labels and proposed groups."""

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from customcnn.audit import audit, page_of, report
from customcnn.audit.text import NOT_DEEP
from customcnn.audit.union_find import linked
from customcnn.cli import cli
from customcnn.data.manifest import scan
from customcnn.data.synthetic import draw_samples
from tests.support.audit_pictures import cell, save, with_groups


@dataclass(frozen=True)
class Known:
    """Copies that somebody has told us."""

    originals: tuple[tuple[str, ...], ...]
    links: tuple[SimpleNamespace, ...] = ()

    def groups(self) -> Mapping[str, str]:
        return {path: f"original-{i}" for i, same in enumerate(self.originals) for path in same}

    def joined(self, pairs: Iterable[tuple[str, str]]) -> "Known":
        inside = [(same[0], path) for same in self.originals for path in same]
        return Known(tuple(map(tuple, linked([*inside, *pairs]))), self.links)


@pytest.fixture
def split(tmp_path):
    for i, name in enumerate((A, B, C, D, E)):
        save(tmp_path / name, cell(i))
    return tmp_path


A, B, C, D, E = (
    "train/all/a.png",
    "train/all/b.png",
    "train/hem/c.png",
    "validation/all/d.png",
    "validation/hem/e.png",
)


def test_copies_across_parts_are_leaks(split):
    found = audit(scan(split), copies=Known(((A, D), (B, C), (E,))), workers=1)
    assert found.leaks
    assert found.deep.originals == 3
    assert found.deep.copies == [[A, D], [B, C]]
    assert found.deep.across == [[A, D]]
    assert [(c.kind, c.paths, c.values) for c in found.label_conflicts] == [("copy", [B, C], ["all", "hem"])]
    lines = report(found).splitlines()
    assert "pictures, copies turned by any angle counted once: 3 (2 with copies)" in lines
    assert "pictures with copies in more than one part: 1" in lines
    assert lines[-1] == "Leaks: a score on this split is inflated."
    assert NOT_DEEP not in lines


def test_copies_inside_parts_are_no_leak(split):
    found = audit(scan(split), copies=Known(((A, B), (C,), (D,), (E,))), workers=1)
    assert not found.leaks
    assert found.deep.across == []
    assert report(found).splitlines()[-1] == "Nothing shared was found."


def test_images_that_the_search_does_not_list_are_pictures_of_their_own(split):
    assert audit(scan(split), copies=Known(((A, D),)), workers=1).deep.originals == 4


def test_groups_that_disagree_with_the_pictures(split):
    groups = {A: "1", B: "1", C: "2", D: "2", E: "3"}
    with_groups(split, groups.__getitem__)
    found = audit(scan(split), copies=Known(((A, D), (B,), (C,), (E,))), workers=1)
    assert [(c.kind, c.paths, c.values) for c in found.torn] == [("copy", [A, D], ["1", "2"])]
    assert found.deep.mixed_groups == {"1": 2, "2": 2}
    text = report(found)
    assert "into different groups, for 1 of the 1 pictures with copies. A split by these groups leaks." in text
    assert "2 of 3 groups hold several pictures ('1': 2)." in text


def test_groups_that_agree_with_the_pictures(split):
    groups = {A: "1", B: "2", C: "2", D: "1", E: "3"}
    with_groups(split, groups.__getitem__)
    found = audit(scan(split), copies=Known(((A, D), (B, C), (E,))), workers=1)
    assert found.torn == []
    assert found.deep.mixed_groups == {}
    assert "The groups agree with the pictures: no group parts copies of one picture." in report(found)


def test_pictures_that_overlap_across_parts_are_told(split):
    links = [(A, D), (A, E), (A, B), (D, E)]
    links = tuple(SimpleNamespace(first=first, second=second) for first, second in links)
    found = audit(scan(split), copies=Known(((A, D), (B,), (C,), (E,)), links), workers=1)
    assert found.deep.overlapping == [[A, E]], "others are of one picture, or of one part"
    assert "pairs of different parts that overlap, but are counted as different pictures: 1" in report(found)


def test_the_page_shows_clusters(split):
    manifest = scan(split)
    html = page_of(audit(manifest, copies=Known(((A, D), (B, C), (E,))), workers=1), manifest)
    assert html.index("Copies across parts</h2>") < html.index("Copies within parts</h2>")
    assert NOT_DEEP not in html


# ---------------------------------------------------------------- the real search


@pytest.fixture(scope="module")
def turned(tmp_path_factory):
    """Six drawn cells, each twice more: turned by an odd angle, one of these mirrored."""
    pytest.importorskip("cv2")
    pytest.importorskip("customcnn.audit.copies")
    folder = tmp_path_factory.mktemp("turned") / "data"
    draw_samples(folder, subjects=1, cells=3, size=300, seed=5)
    (folder / "manifest.csv").unlink(missing_ok=True)
    for path in sorted(folder.rglob("*.bmp")):
        image = Image.open(path)
        image.rotate(33).save(path.with_name(f"{path.stem}-33.png"))
        mirrored = Image.fromarray(np.ascontiguousarray(np.asarray(image)[:, ::-1]))
        mirrored.rotate(101).save(path.with_name(f"{path.stem}-101.png"))
    return folder


def test_deep_finds_turned_cells_and_writes_their_groups(turned, tmp_path):
    words = ["audit", str(turned), "--deep", "--groups-out", str(tmp_path / "groups.csv"), "--json", "--workers", "1"]
    result = CliRunner().invoke(cli, [*words, "--page", str(tmp_path / "page.html")])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["deep"]["originals"] == 6
    assert [len(same) for same in found["deep"]["copies"]] == [3] * 6
    assert not found["leaks"]
    with (tmp_path / "groups.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["path"] for row in rows} == {record.path for record in scan(turned).records}
    by_group = {}
    for row in rows:
        by_group.setdefault(row["group"], set()).add(row["path"].split("/")[1].partition("-")[0].partition(".")[0])
    assert sorted(len(stems) for stems in by_group.values()) == [1] * 6
    assert (tmp_path / "page.html").read_text().count("<img") == 18


def test_deep_contradicts_groups_that_tear_copies_apart(turned):
    words = ["audit", str(turned), "--deep", "--group-pattern", r"([^/]+)\.\w+$", "--strict", "--workers", "1"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 1, result.output
    assert "for 6 of the 6 pictures with copies. A split by these groups leaks." in result.output


def test_what_only_the_hashes_find_belongs_to_its_picture(tmp_path, monkeypatch):
    """Drawn cells of 32 pixels leave few local features; a turned copy is the same picture all the same."""
    pytest.importorskip("cv2")
    pytest.importorskip("faiss")
    monkeypatch.chdir(tmp_path)
    cells = draw_samples(tmp_path / "cells", subjects=4, cells=5, size=32, workers=1)
    (cells / "manifest.csv").unlink()
    originals = sorted(cells.rglob("*.bmp"))
    for number, path in enumerate(originals):
        turned = np.rot90(np.asarray(Image.open(path)), number % 4)
        Image.fromarray(np.ascontiguousarray(turned[:, ::-1])).save(path.with_name(f"{path.stem}-copy.bmp"))
    done = CliRunner().invoke(cli, ["audit", "cells", "--deep", "--groups-out", "found.csv", "--workers", "1"])
    assert done.exit_code == 0, done.output
    with (tmp_path / "found.csv").open(newline="") as file:
        group = {row["path"]: row["group"] for row in csv.DictReader(file)}
    names = [str(path.relative_to(cells)) for path in originals]
    assert all(group[name] == group[name.replace(".bmp", "-copy.bmp")] for name in names)
    assert len(set(group.values())) == len(originals) == 40, "different cells are different pictures"
