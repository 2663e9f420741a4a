"""Copies of one photograph are found by their pixels alone, whatever turned, mirrored, scaled or cut them."""

import csv
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from customcnn.audit import copies, local_features
from customcnn.audit.copies import Copies, find_copies, write_groups
from customcnn.audit.local_features import Fit
from customcnn.data.manifest import Manifest, Record, scan, with_group_file
from customcnn.data.synthetic import draw_samples
from customcnn.errors import CustomCNNError
from tests.support.folders import contents

cv2 = pytest.importorskip("cv2")
pytest.importorskip("faiss")

BORDERS = (cv2.BORDER_CONSTANT, cv2.BORDER_REPLICATE, cv2.BORDER_REFLECT)


def scene(seed, width=240, height=180):
    """A photograph-like picture: cells of a stain on bright glass, with texture, shade and noise. uint8 RGB."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    light = 215 + 12 * np.sin(x / width * 3 + rng.uniform(0, 6)) + 8 * y / height
    grain = cv2.GaussianBlur(rng.normal(0, 1, (height, width)).astype(np.float32), (0, 0), 2)
    for _ in range(22):
        a, b = rng.uniform(9, 24, 2)
        angle, cx, cy = rng.uniform(0, np.pi), rng.uniform(0, width), rng.uniform(0, height)
        u = ((x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)) / a
        v = ((y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)) / b
        radius = np.hypot(u, v)
        inside = np.clip((1 - radius) * 6, 0, 1)
        light = light - inside * (rng.uniform(20, 110) * (0.4 + 0.6 * np.clip(radius, 0, 1)) + 60 * grain)
    light = light + rng.normal(0, 1.5, light.shape)
    return np.stack([light, light * 0.9, light * 0.97], axis=-1).clip(1, 254).astype(np.uint8)


def affine_copy(picture, rng, border):
    """Turn by any angle, scale, shear a little, shift, perhaps mirror."""
    height, width = picture.shape[:2]
    if rng.random() < 0.5:
        picture = picture[:, ::-1]
    angle, scale, shear = rng.uniform(0, 2 * np.pi), rng.uniform(0.9, 1.25), rng.uniform(-0.08, 0.08)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ [[1, shear], [0, 1]]
    centre = np.array([width, height]) / 2
    shift = centre - turn @ centre + rng.uniform(-12, 12, 2)
    matrix = np.column_stack([turn, shift])
    return cv2.warpAffine(np.ascontiguousarray(picture), matrix, (width, height), borderMode=border)


def save(path, picture, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(picture)).save(path, **options)


def clusters(found):
    return {frozenset(paths) for paths in found.originals}


def by_truth(truth):
    members = {}
    for path, original in truth.items():
        members.setdefault(original, set()).add(path)
    return {frozenset(paths) for paths in members.values()}


def pairwise(groups, truth):
    """Return precision and recall of the pairs that stand in one cluster."""

    def pairs(keys):
        return sum(n * (n - 1) // 2 for n in Counter(keys).values())

    both = pairs((groups[path], truth[path]) for path in truth)
    return both / pairs(groups[path] for path in truth), both / pairs(truth.values())


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    """Six scenes with four affine copies each, in two folders, under names that tell nothing; and the truth."""
    root = tmp_path_factory.mktemp("album")
    rng = np.random.default_rng(5)
    truth = {}
    for original in range(6):
        picture = scene(original)
        for number in range(5):
            copy = picture if number == 0 else affine_copy(picture, rng, BORDERS[number % 3])
            name = f"{'ab'[number % 2]}/{rng.integers(10**9):09}.jpg"
            save(root / name, copy, quality=int(rng.integers(75, 96)))
            truth[name] = original
    return root, truth


@pytest.fixture(scope="module")
def found(album):
    return find_copies(scan(album[0]), workers=1)


# ---------------------------------------------------------------- what is found


def test_every_affine_copy_and_no_other(album, found):
    assert clusters(found) == by_truth(album[1])


def test_every_image_stands_in_one_sorted_cluster(album, found):
    assert sorted(path for paths in found.originals for path in paths) == sorted(album[1])
    assert all(list(paths) == sorted(paths) for paths in found.originals)
    assert list(found.originals) == sorted(found.originals)


def test_links_are_verified_and_join_the_clusters(album, found):
    truth = album[1]
    assert len([link for link in found.links if link.same]) >= len(truth) - 6
    for link in found.links:
        assert link.first < link.second
        assert truth[link.first] == truth[link.second]
        assert link.inliers >= copies.LEAST_INLIERS
        assert copies.LEAST_CORRELATION <= link.correlation <= 1
        assert 0 < link.overlap <= 1


def test_a_link_says_whether_one_is_a_mirror_image(tmp_path):
    picture = scene(1)
    save(tmp_path / "a/plain.png", picture)
    save(tmp_path / "a/turned.png", np.rot90(picture))
    save(tmp_path / "b/flipped.png", picture[::-1])
    result = find_copies(scan(tmp_path), workers=1)
    assert len(result.originals) == 1
    mirrored = {frozenset((link.first, link.second)): link.mirrored for link in result.links}
    assert len(mirrored) >= 2
    assert all(value == any("flipped" in path for path in pair) for pair, value in mirrored.items())


def test_cropped_rescaled_and_encoded_again(tmp_path):
    truth = {}
    for original in range(4):
        image = Image.fromarray(scene(20 + original, 450, 450))
        views = {
            "whole.bmp": image,
            "cropped.png": image.crop((25, 25, 425, 425)),
            "half.png": image.resize((225, 225)),
            "poor.jpg": image,
        }
        for name, view in views.items():
            path = tmp_path / "a" / f"{original}-{name}"
            path.parent.mkdir(exist_ok=True)
            view.save(path, **({"quality": 30} if name == "poor.jpg" else {}))
            truth[f"a/{path.name}"] = original
    assert clusters(find_copies(scan(tmp_path), workers=1)) == by_truth(truth)


@pytest.mark.parametrize("size", [96, 300])
def test_turned_and_flipped_drawn_cells_are_found_and_cells_of_one_subject_are_told_apart(tmp_path, size):
    data = draw_samples(tmp_path / "cells", subjects=1, cells=5, size=size, workers=1)
    truth = {record.path: record.path for record in scan(data).records}
    (data / "manifest.csv").unlink()
    for number, path in enumerate(sorted(truth)):
        name = f"{path.partition('/')[0]}/{number * 7919 % 1000:03}.png"
        Image.open(data / path).transpose(Image.Transpose(number % 7)).save(data / name)
        truth[name] = path
    result = find_copies(scan(data), workers=1)
    assert clusters(result) == by_truth(truth)
    assert all(truth[link.first] == truth[link.second] for link in result.links), "not even a slight overlap"


def test_identical_files_are_copies_and_different_blank_ones_are_not(tmp_path):
    for name, level in (("a/1.png", 0), ("a/2.png", 255), ("b/3.png", 0)):
        save(tmp_path / name, np.full((40, 50, 3), level, np.uint8))
    result = find_copies(scan(tmp_path), workers=1)
    assert result.originals == (("a/1.png", "b/3.png"), ("a/2.png",))
    assert [(link.first, link.second) for link in result.links] == [("a/1.png", "b/3.png")]


def test_dust_on_the_sensor_links_nothing(tmp_path):
    """Spots in the same places are features with a perfect geometry, on different blood."""
    rng = np.random.default_rng(3)
    grains = [cv2.GaussianBlur(rng.integers(0, 256, (17, 17, 3), np.uint8), (0, 0), 1.5) for _ in range(12)]
    places = rng.integers((5, 5), (155, 215), (12, 2))
    for seed in (31, 32):
        picture = scene(seed)
        for (y, x), grain in zip(places, grains, strict=True):
            picture[y : y + 17, x : x + 17] = grain
        save(tmp_path / f"a/{seed}.png", picture)
    one, other = (local_features.extract(Image.open(tmp_path / f"a/{seed}.png")) for seed in (31, 32))
    agreed = local_features.fit(one, other)
    assert agreed is not None and agreed.inliers >= copies.LEAST_INLIERS, "the geometry alone is deceived"
    assert len(find_copies(scan(tmp_path), workers=1).originals) == 2


# ---------------------------------------------------------------- the rule


@pytest.mark.parametrize(
    ("inliers", "correlation", "overlap", "link", "same"),
    [
        (7, 0.9, 1.0, False, False),
        (8, 0.9, 0.6, True, True),
        (100, 0.49, 1.0, False, False),
        (24, 0.9, 0.3, True, False),
        (25, 0.9, 0.3, True, True),
    ],
)
def test_the_rule_by_hand(inliers, correlation, overlap, link, same):
    fit = Fit(np.eye(2, 3), inliers, correlation, overlap)
    assert (copies._is_link(fit), copies._is_same(fit)) == (link, same)


# ---------------------------------------------------------------- features


def test_descriptors_of_the_mirror_image_are_those_that_sift_finds_there():
    grey = cv2.GaussianBlur(cv2.cvtColor(scene(2), cv2.COLOR_RGB2GRAY), (0, 0), 1.5)
    sift = cv2.SIFT_create()
    points, descriptors = sift.detectAndCompute(grey, None)
    others, expected = sift.detectAndCompute(np.ascontiguousarray(grey[:, ::-1]), None)
    distance = np.linalg.norm(local_features.mirror_descriptors(descriptors)[:, None] - expected[None], axis=2)
    nearest = distance.argmin(axis=1)
    places = np.array([(grey.shape[1] - 1 - p.pt[0], p.pt[1]) for p in points])
    there = np.array([others[n].pt for n in nearest])
    right = np.hypot(*(places - there).T) < 1
    assert right.mean() > 0.75
    assert np.median(distance.min(axis=1)[right]) < 0.1 * np.median(distance), "of others"


def test_a_filled_border_has_no_features_and_glass_is_no_border():
    picture = scene(4)
    turned = cv2.warpAffine(picture, cv2.getRotationMatrix2D((120, 90), 30, 0.8), (240, 180))
    black = (turned == 0).all(axis=2)
    assert black.mean() > 0.3
    found = local_features.extract(Image.fromarray(turned))
    scale = 256 / 240  # small images are enlarged
    x, y = (found.points[:, :2] / scale).astype(int).clip(0, (239, 179)).T
    assert len(found.points) > 50
    assert not cv2.erode(black.astype(np.uint8), np.ones((3, 3)))[y, x].any()
    assert not found.inside[cv2.resize(black.astype(np.uint8), found.inside.shape[::-1]) == 1].any()
    assert local_features.extract(Image.fromarray(picture)).inside.all()


def test_the_affine_map_is_the_one_that_made_the_copy():
    picture = scene(6, 320, 240)
    matrix = np.array([[0.8, -0.5, 60.0], [0.55, 0.85, -70.0]])
    copy = cv2.warpAffine(picture, matrix, (320, 240))
    found = local_features.fit(*(local_features.extract(Image.fromarray(p)) for p in (picture, copy)))
    assert found is not None
    corners = np.array([[0, 0, 1], [319, 0, 1], [0, 239, 1], [319, 239, 1]])
    assert np.abs(corners @ (found.affine - matrix).T).max() < 1
    assert found.correlation > 0.9


# ---------------------------------------------------------------- what decides nothing


@pytest.mark.statistics
def test_neither_workers_nor_the_index_change_the_clusters(album, found, monkeypatch):
    monkeypatch.setattr(copies, "FEW", 20)
    assert find_copies(scan(album[0]), workers=2) == found
    monkeypatch.setattr(copies, "EXACT", 0)
    assert clusters(find_copies(scan(album[0]), workers=1)) == clusters(found)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """The bytes of three small scenes with a copy each, and of one without."""
    folder = tmp_path_factory.mktemp("few")
    rng = np.random.default_rng(8)
    for original in range(4):
        picture = scene(40 + original, 128, 96)
        save(folder / f"{original}.png", picture)
        if original < 3:
            save(folder / f"{original}-copy.png", affine_copy(picture, rng, cv2.BORDER_CONSTANT))
    return contents(folder)


@given(names=st.permutations(range(7)), order=st.permutations(range(7)))
@settings(max_examples=6)
def test_names_and_their_order_change_nothing(few, tmp_path_factory, names, order):
    root = tmp_path_factory.mktemp("renamed")
    (root / "a").mkdir()
    old = {}
    for name, (original, data) in zip(names, few.items(), strict=True):
        (root / f"a/{name}.png").write_bytes(data)
        old[f"a/{name}.png"] = original
    records = [Record(path, "a") for path in sorted(old)]
    result = find_copies(Manifest(root, tuple(records[place] for place in order)), workers=1)
    assert {frozenset(old[path] for path in paths) for paths in result.originals} == {
        *(frozenset((f"{n}.png", f"{n}-copy.png")) for n in range(3)),
        frozenset(("3.png",)),
    }


# ---------------------------------------------------------------- groups, errors


def test_groups_are_numbered_in_the_order_of_their_first_paths():
    result = Copies((("a/1", "b/2"), ("a/3",)), ())
    assert result.groups() == {"a/1": "original-0001", "b/2": "original-0001", "a/3": "original-0002"}
    many = Copies(tuple((f"{n:05}",) for n in range(10_001)), ())
    assert list(many.groups().values()) == sorted(many.groups().values())


def test_the_groups_file_is_one_that_split_takes(album, found, tmp_path):
    write_groups(found.groups(), tmp_path / "groups.csv")
    grouped = with_group_file(scan(album[0]), tmp_path / "groups.csv")
    assert {record.path: record.group for record in grouped.records} == found.groups()


def test_any_name_survives_the_groups_file(tmp_path):
    result = Copies((('a/,"\r\n.png', "a/\udcff.png"),), ())
    write_groups(result.groups(), tmp_path / "groups.csv")
    with (tmp_path / "groups.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        assert {row["path"]: row["group"] for row in csv.DictReader(file)} == result.groups()


def test_a_groups_file_is_whole_or_not_there(found, tmp_path, monkeypatch):
    path = tmp_path / "groups.csv"
    path.write_text("old")

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        write_groups(found.groups(), path)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("groups.csv", "old")]


@pytest.mark.parametrize("library", ["cv2", "faiss"])
def test_a_missing_library_is_told_in_one_line(album, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(CustomCNNError, match=r"^Copies are found by .*pip install 'customcnn\[deep\]'\.$"):
        find_copies(scan(album[0]), workers=1)


@pytest.mark.parametrize("shape", [(1, 1), (2, 500), (500, 3), (9, 9)])
def test_images_of_any_shape_have_features_or_none(shape):
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    found = local_features.extract(Image.fromarray(pixels))
    assert len(found.points) == len(found.descriptors) <= local_features.MOST
    assert found.detail.shape == found.inside.shape
    fit = local_features.fit(found, found.mirrored())
    assert fit is None or -1 <= fit.correlation <= 1


def test_a_damaged_image_is_named(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/broken.png").write_bytes(b"no image")
    with pytest.raises(CustomCNNError, match=r"a/broken\.png"):
        find_copies(scan(tmp_path), workers=1)


# ---------------------------------------------------------------- real photographs


@pytest.mark.docs
def test_the_originals_of_real_photographs(shared_data):
    """Of every fourth one, with all its copies."""
    with (shared_data / "blood-cells-originals.csv").open(newline="") as file:
        truth = {row["path"]: row["group"] for row in csv.DictReader(file)}
    chosen = set(sorted(set(truth.values()))[::4])
    truth = {path: group for path, group in truth.items() if group in chosen}
    data = scan(shared_data / "blood-cells")
    result = find_copies(replace(data, records=tuple(r for r in data.records if r.path in truth)))
    precision, recall = pairwise(result.groups(), truth)
    assert precision >= 0.99
    assert recall >= 0.97
