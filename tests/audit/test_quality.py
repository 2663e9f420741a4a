"""Images unlike the rest: planted faults are named for what they are, and images without a fault are not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from customcnn.audit import audit, report
from customcnn.audit.quality import ENOUGH, FAR, MEASURES, measure, unlike_the_rest
from customcnn.data.manifest import Record, scan
from tests.support.audit_pictures import cell, save


def measures_of(pixels):
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return dict(zip(MEASURES, measure(image, image.convert("L")).tolist(), strict=True))


def grainy(seed):
    """A cell with fine texture, as chromatin has."""
    pixels = cell(seed).astype(np.int16)
    grain = np.random.default_rng(seed).normal(0, 12, (96, 96, 1))
    return np.where(pixels > 0, pixels + grain, 0).clip(0, 255).astype(np.uint8)


def shifted(pixels, by):
    moved = np.zeros_like(pixels)
    moved[:, by:] = pixels[:, :-by]
    return moved


def half(pixels):
    cut = pixels.copy()
    cut[: len(cut) // 2] = 0
    return cut


FAULTS = {
    "blank": lambda pixels: np.zeros_like(pixels),
    "odd size": lambda pixels: np.asarray(Image.fromarray(pixels).resize((48, 48))),
    "odd shape": lambda pixels: np.asarray(Image.fromarray(pixels).resize((192, 48))),
    "dark": lambda pixels: (pixels * 0.3).astype(np.uint8),
    "bright": lambda pixels: (pixels * 1.6).clip(0, 255).astype(np.uint8),
    "little colour": lambda pixels: np.asarray(Image.fromarray(pixels).convert("L").convert("RGB")),
    "odd colour": lambda pixels: np.ascontiguousarray(pixels[..., [1, 0, 2]]),
    "out of focus": lambda pixels: np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(3))),
    "cut off": half,
}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Forty cells without a fault and one with each."""
    folder = tmp_path_factory.mktemp("planted")
    for i in range(40):
        save(folder / f"all/{i:02}.png", grainy(i))
    for i, (kind, fault) in enumerate(FAULTS.items()):
        save(folder / f"hem/{kind}.png", fault(grainy(100 + i)))
    save(folder / "hem/shifted.png", shifted(grainy(50), 40))
    return audit(scan(folder), workers=1)


@pytest.mark.parametrize("kind", FAULTS)
def test_a_planted_fault_is_named(planted, kind):
    kinds = {image.path: image.kinds for image in planted.quality.unlike}
    assert kind in kinds[f"hem/{kind}.png"]


def test_a_cell_that_the_frame_cuts_is_named(planted):
    kinds = {image.path: image.kinds for image in planted.quality.unlike}
    assert "cut off" in kinds["hem/shifted.png"]


def test_nothing_else_is_named(planted):
    assert not [image.path for image in planted.quality.unlike if image.path.startswith("all/")]


def test_the_furthest_comes_first_and_usual_ones_are_none_of_them(planted):
    scores = [float("inf") if image.score is None else image.score for image in planted.quality.unlike]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) > FAR
    assert len(planted.quality.usual) == 3
    assert not set(planted.quality.usual) & {image.path for image in planted.quality.unlike}


def test_the_report_counts_the_kinds(planted):
    line = next(line for line in report(planted).splitlines() if line.startswith("images unlike the rest: 10 ("))
    for kind in FAULTS:
        assert kind in line


def test_of_few_images_only_blank_ones_are_named(tmp_path):
    for i in range(ENOUGH - 1):
        save(tmp_path / f"all/{i}.png", cell(i))
    save(tmp_path / "hem/blank.png", np.full((96, 96, 3), 200, np.uint8))
    save(tmp_path / "hem/size.png", cell(30, 40))
    quality = audit(scan(tmp_path), workers=1).quality
    assert quality.enough
    quality = unlike_the_rest([Record("a", "x")] * 2, np.stack([measure(*blank()), measure(*blank())]))
    assert not quality.enough
    assert [image.kinds for image in quality.unlike] == [["blank"], ["blank"]]


def blank():
    image = Image.new("RGB", (40, 40), (9, 9, 9))
    return image, image.convert("L")


# ---------------------------------------------------------------- the measures by hand


def test_measures_by_hand():
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, :40] = (200, 100, 60)  # light 0.299 * 200 + 0.587 * 100 + 0.114 * 60 = 125.3
    found = measures_of(pixels)
    assert found["area"] == pytest.approx(np.log2(3200))
    assert found["shape"] == pytest.approx(1)
    assert found["brightness"] == pytest.approx(np.log2(125))
    assert found["contrast"] == pytest.approx(np.log2(62.5 + 0.5))
    assert found["red_green"] == pytest.approx(100)
    assert found["yellow_blue"] == pytest.approx(150 - 60)
    assert found["saturation"] == pytest.approx(np.log2(141), rel=1e-6)
    assert found["sharpness"] == pytest.approx(np.log2(0.1) - 2 * np.log2(125)), "flat where it is not black"
    assert found["black"] == pytest.approx(0.5)
    assert found["edge"] == pytest.approx(1)


def test_sharpness_is_that_of_the_laplacian():
    grey = np.random.default_rng(0).integers(20, 256, (24, 30), dtype=np.uint8)
    values = grey.astype(float)
    laplacian = [
        4 * values[i, j] - values[i - 1, j] - values[i + 1, j] - values[i, j - 1] - values[i, j + 1]
        for i in range(1, 23)
        for j in range(1, 29)
    ]
    expected = np.log2(np.var(laplacian) + 0.1) - 2 * np.log2(values.mean())
    assert measures_of(np.stack([grey] * 3, axis=2))["sharpness"] == pytest.approx(expected, abs=1e-3)


def test_sharpness_is_that_of_opencv():
    cv2 = pytest.importorskip("cv2")
    grey = np.random.default_rng(1).integers(20, 256, (40, 40), dtype=np.uint8)
    laplacian = cv2.Laplacian(grey, cv2.CV_64F)[1:-1, 1:-1]
    expected = np.log2(laplacian.var() + 0.1) - 2 * np.log2(grey.mean())
    assert measures_of(np.stack([grey] * 3, axis=2))["sharpness"] == pytest.approx(expected, abs=1e-3)


@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 255))
def test_tiny_and_flat_images_can_be_measured(width, height, level):
    assert len(measures_of(np.full((height, width, 3), level, np.uint8))) == len(MEASURES)


@given(st.permutations(range(30)))
def test_the_order_of_the_images_changes_nothing(order):
    measures = np.random.default_rng(0).normal(10, 1, (30, len(MEASURES))).astype(np.float32)
    measures[3] += 40
    records = [Record(f"{i}.png", "x") for i in range(30)]
    plain = unlike_the_rest(records, measures)
    moved = unlike_the_rest([records[i] for i in order], measures[order])
    assert {image.path: (image.kinds, image.score) for image in plain.unlike} == {
        image.path: (image.kinds, image.score) for image in moved.unlike
    }
    assert "3.png" in {image.path for image in plain.unlike}
