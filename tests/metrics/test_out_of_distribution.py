"""Novelty: what is no cell is found, what is one passes as often as promised, and the numbers survive JSON."""

import json

import numpy as np
import pytest
from PIL import Image, ImageFilter

from customcnn.data.synthetic import draw_samples
from customcnn.errors import CustomCNNError
from customcnn.images.decode import decode
from customcnn.metrics.out_of_distribution import DIGITS, LEAST, Novelty, fit_novelty, statistics

SIZE = 48
SUBJECTS = 10


@pytest.fixture(scope="module")
def cells(tmp_path_factory) -> tuple[np.ndarray, list[str]]:
    """Drawn cells of ten subjects of each class, and whose they are."""
    folder = tmp_path_factory.mktemp("cells") / "cells"
    draw_samples(folder, subjects=SUBJECTS, cells=12, size=96, workers=1)
    files = sorted(folder.rglob("*.bmp"))
    return np.stack([decode(file, (SIZE, SIZE)) for file in files]), [file.name.split("_")[1] for file in files]


@pytest.fixture(scope="module")
def fitted(cells) -> Novelty:
    images, groups = cells
    return fit_novelty(images, 0.99, groups)


def strange(kind: str, cells: np.ndarray) -> np.ndarray:
    """Return images that are no such cells."""
    rng = np.random.default_rng(0)
    shape = (20, SIZE, SIZE, 3)
    some = cells[:20]
    if kind == "noise":
        return rng.integers(0, 256, shape, dtype=np.uint8)
    if kind == "blank":
        return np.broadcast_to(rng.integers(0, 256, (20, 1, 1, 3), dtype=np.uint8), shape)
    if kind == "black":
        return np.zeros(shape, np.uint8)
    if kind == "gradient":
        ramp = np.linspace(0, 1, SIZE)[:, None, None]
        ends = rng.integers(0, 256, (20, 2, 1, 1, 3))
        return np.broadcast_to(ends[:, 0] + (ends[:, 1] - ends[:, 0]) * ramp, shape).astype(np.uint8)
    if kind == "a page":
        page = np.full(shape, 255, np.uint8)
        page[:, 4::6, 3:-3][rng.random((20, SIZE // 6, SIZE - 6)) < 0.6] = 0
        return page
    if kind == "inverted":
        return 255 - some
    if kind == "shuffled":
        return np.stack([rng.permutation(image.reshape(-1, 3)).reshape(shape[1:]) for image in some])
    assert kind == "blurred"
    return np.stack([np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(3))) for image in some])


KINDS = ("noise", "blank", "black", "gradient", "a page", "inverted", "shuffled", "blurred")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_cell_is_found(kind, fitted, cells):
    scores = fitted.scores(strange(kind, cells[0]))
    if kind == "blurred":  # these are cells after all: not every one is beyond a limit that has room for new stains
        assert (scores > fitted.limit).mean() > 0.5
        assert scores.min() > np.quantile(fitted.scores(cells[0]), 0.99)
    else:
        assert scores.min() > 1.2 * fitted.limit


def test_typical_cells_have_a_score_of_about_1(fitted, cells):
    scores = fitted.scores(cells[0])
    assert 0.5 < np.median(scores) < 1.3
    assert (scores <= fitted.limit).mean() > 0.97


def test_new_subjects_pass(tmp_path, fitted):
    draw_samples(tmp_path / "new", subjects=10, cells=10, size=96, first_subject=50, seed=1, workers=1)
    new = np.stack([decode(file, (SIZE, SIZE)) for file in sorted((tmp_path / "new").rglob("*.bmp"))])
    assert (fitted.scores(new) <= fitted.limit).mean() > 0.9


def test_as_many_pass_as_is_promised_where_images_are_independent():
    """Over many fits a further image of the same kind passes as often as promised."""

    def sample(count: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        images = rng.normal(
            rng.normal(120, 20, (count, 1, 1, 3)), rng.uniform(5, 30, (count, 1, 1, 1)), (count, 8, 8, 3)
        )
        return images.clip(0, 255).astype(np.uint8)

    passed = []
    for seed in range(40):
        found = fit_novelty(sample(60, seed), 0.9)
        passed.append((found.scores(sample(100, 1000 + seed)) <= found.limit).mean())
    assert 0.88 < np.mean(passed) < 0.94


def test_whole_groups_make_the_folds(cells):
    images, groups = cells
    # images of ten stains: by image every stain is known, by group the limit has room for another one
    assert fit_novelty(images, 0.99, groups).limit > fit_novelty(images, 0.99).limit
    assert fit_novelty(images, 0.99, ["one"] * len(images)).limit == fit_novelty(images, 0.99).limit


def test_turns_and_flips_say_the_same(fitted, cells):
    images = cells[0][:8]
    plain = fitted.scores(images)
    for turned in (np.rot90(images, axes=(1, 2)), images[:, ::-1], images[:, :, ::-1]):
        np.testing.assert_allclose(fitted.scores(turned), plain, rtol=1e-3)


def test_one_image_scores_as_it_does_among_others(fitted, cells):
    images = cells[0][:5]
    np.testing.assert_allclose([fitted.scores(image[None])[0] for image in images], fitted.scores(images), rtol=1e-12)


def test_it_comes_back_from_json(fitted, cells):
    text = json.dumps(fitted.as_dict(), allow_nan=False)
    again = Novelty.from_dict(json.loads(text))
    np.testing.assert_allclose(again.scores(cells[0]), fitted.scores(cells[0]), rtol=1e-4)
    assert (again.limit, again.share) == (fitted.limit, fitted.share)
    assert len(text) < 40_000 and DIGITS < 10


def test_the_statistics_by_hand():
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, 4:] = (255, 0, 255)
    (found,) = statistics(image[None])
    step = 1 / 255
    np.testing.assert_allclose(found[:3], [0.5, 0.0, 0.5], atol=1e-6)  # means
    np.testing.assert_allclose(found[3:6], np.log(np.array([0.5, 0, 0.5]) + step), atol=1e-6)  # deviations
    np.testing.assert_allclose(found[6:15], [0, 0, 0, 0, 0, 0, 1, 0, 1], atol=1e-6)  # quantiles
    np.testing.assert_allclose(found[15:18], [1, 1, 1], atol=1e-6)  # together: red and blue; green does not vary
    # 8 of 112 steps are 2/3 high
    np.testing.assert_allclose(found[18], np.log(8 / 112 * 2 / 3 + step), atol=1e-6)
    np.testing.assert_allclose(found[20], np.log(104 / 112 + step), atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (22, 31), (65, 64)])
def test_any_size_has_finite_statistics(size):
    images = np.stack([np.zeros((*size, 3), np.uint8), np.full((*size, 3), 255, np.uint8)])
    assert np.isfinite(statistics(images)).all()


def test_images_that_are_all_the_same():
    images = np.full((LEAST, 9, 9, 3), 7, np.uint8)
    found = fit_novelty(images)
    assert (found.scores(images) <= found.limit).all()
    assert found.scores(np.full((1, 9, 9, 3), 90, np.uint8))[0] > found.limit


def test_what_cannot_be_fitted(cells):
    images, groups = cells
    with pytest.raises(CustomCNNError, match=f"{LEAST} images or more. Received: 3") as caught:
        fit_novelty(images[:3])
    assert "\n" not in str(caught.value)
    with pytest.raises(CustomCNNError, match="between 0 and 1"):
        fit_novelty(images, 99)
    with pytest.raises(ValueError, match="group name"):
        fit_novelty(images, 0.9, groups[1:])
