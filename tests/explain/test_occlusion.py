"""Occlusion: by hand, on functions and networks, and that it finds the place that a network looks at."""

import numpy as np
import pytest

from customcnn.explain.occlusion import fill_color, occlusion, signed_overlay
from customcnn.visualize.sanity import share_inside


def brightness(images: np.ndarray) -> np.ndarray:
    """Return as the second class's probability how white images are, from 0 to 1."""
    share = images.astype(float).mean(axis=(1, 2, 3)) / 255
    return np.stack([1 - share, share], axis=1)


def test_by_hand():
    image = np.zeros((4, 4, 3), np.uint8)
    image[:2, :2] = 255  # one quarter is white; the border's median is black
    heat = occlusion(brightness, image, 1, patch=2, stride=2)
    assert heat.dtype == np.float32
    np.testing.assert_allclose(heat, np.kron([[0.25, 0], [0, 0]], np.ones((2, 2))), atol=1e-7)
    np.testing.assert_allclose(occlusion(brightness, image, 0, patch=2, stride=2), -heat, atol=1e-7)


def test_a_pixel_has_the_mean_over_the_squares_that_covered_it():
    image = np.zeros((3, 3, 3), np.uint8)
    image[0, 0] = 255
    heat = occlusion(brightness, image, 1, patch=2, stride=1)
    # Of four squares one covers the white pixel: it takes a ninth of the whiteness away.
    covers = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]])
    np.testing.assert_allclose(heat, np.array([[1, 1, 0], [1, 1, 0], [0, 0, 0]]) / covers / 9, atol=1e-7)


@pytest.mark.parametrize(("fill", "color"), [("border", 10), ("grey", 128), ("mean", 44), ((1, 2, 3), (1, 2, 3))])
def test_colours(fill, color):
    image = np.full((3, 3, 3), 10, np.uint8)
    image[1, 1] = 255
    image[0, 0] = 71  # one of eight border pixels
    np.testing.assert_array_equal(fill_color(image, fill), np.array(color, np.uint8) * np.ones(3, np.uint8))


@pytest.mark.parametrize("batch", [1, 4, 7, 100])
def test_the_batch_changes_nothing(batch):
    image = np.random.default_rng(0).integers(0, 256, (13, 10, 3), dtype=np.uint8)
    sizes = set()

    def function(images):
        sizes.add(len(images))
        return brightness(images)

    heat = occlusion(function, image, 1, patch=4, stride=3, batch=batch)
    np.testing.assert_allclose(heat, occlusion(brightness, image, 1, patch=4, stride=3), atol=1e-7)
    assert len(sizes) <= 2, "of the image itself, and of whole batches"


def looking_at(top: int, left: int, units: int = 2, size: int = 24):
    """Return a network whose second class is the more probable, the whiter a square of four pixels is."""
    import keras

    k = keras.layers
    image = keras.Input((size, size, 3))
    x = k.Rescaling(1 / 255)(image)
    x = k.Dense(units, activation="softmax" if units > 1 else "sigmoid")(k.Flatten()(x))
    model = keras.Model(image, x)
    kernel = np.zeros((size, size, 3, units), np.float32)
    kernel[top : top + 4, left : left + 4, :, -1] = 0.1
    model.set_weights([kernel.reshape(-1, units), np.zeros(units, np.float32)])
    return model


@pytest.mark.parametrize("units", [1, 2])
@pytest.mark.parametrize(("top", "left"), [(2, 3), (13, 17), (20, 0)])
def test_it_finds_the_place_that_a_network_looks_at(top, left, units):
    image = np.full((24, 24, 3), 220, np.uint8)
    heat = occlusion(looking_at(top, left, units), image, 1, patch=4, stride=2, fill=(0, 0, 0))
    mask = np.zeros((24, 24), bool)
    mask[max(top - 4, 0) : top + 8, max(left - 4, 0) : left + 8] = True
    assert mask[np.unravel_index(heat.argmax(), heat.shape)]
    assert share_inside(heat, mask) > 0.99
    assert heat[top : top + 4, left : left + 4].mean() > 3 * heat[mask].mean() / 2
    np.testing.assert_allclose(
        occlusion(looking_at(top, left, units), image, 0, patch=4, stride=2, fill=(0, 0, 0)), -heat, atol=1e-6
    )


def test_the_usual_square_covers_every_pixel():
    image = np.random.default_rng(0).integers(0, 256, (37, 64, 3), dtype=np.uint8)
    heat = occlusion(brightness, image, 1, fill=(0, 0, 0))
    assert heat.shape == (37, 64) and np.isfinite(heat).all() and (heat > 0).all()


@pytest.mark.parametrize(
    ("image", "options", "text"),
    [
        (np.zeros((4, 4, 3), np.float32), {}, "An image is uint8"),
        (np.zeros((4, 4), np.uint8), {}, "An image is uint8"),
        (np.zeros((4, 4, 3), np.uint8), {"patch": 5}, "Received: patch 5"),
        (np.zeros((4, 4, 3), np.uint8), {"patch": 2, "stride": 3}, "stride 3"),
        (np.zeros((4, 4, 3), np.uint8), {"fill": "pink"}, "Received: 'pink'"),
    ],
)
def test_what_cannot_be_covered(image, options, text):
    with pytest.raises(ValueError, match=text):
        occlusion(brightness, image, 0, **options)


def test_colours_of_both_signs():
    image = np.full((2, 3, 3), 100, np.uint8)
    heat = np.array([[0.5, -0.5, 0], [0, 0, 0]])
    laid = signed_overlay(image, heat)
    red, blue = laid[0, 0].astype(int), laid[0, 1].astype(int)
    assert red[0] > red[2] + 50 and blue[2] > blue[0] + 50
    np.testing.assert_array_equal(laid[1], image[1])
    np.testing.assert_array_equal(signed_overlay(image, heat * 0), image)
    half = signed_overlay(image, heat, scale=1)  # not as dark a red as in full
    assert half[0, 0, 0] > red[0] and half[0, 0, 0] > half[0, 0, 2] + 50
