"""The images that excite filters most: by hand on a convolution, and what is written."""

import numpy as np
import pytest
from PIL import Image

from customcnn.models import build_model
from customcnn.visualize.top_activations import exciting, write_exciting


def red_and_blue():
    """Return a network whose filter 0 gives red, filter 1 blue, filter 2 the same everywhere; then a pooling."""
    import keras

    image = keras.Input((12, 12, 3))
    conv = keras.layers.Conv2D(3, 3, padding="same", name="conv")
    model = keras.Model(image, keras.layers.AveragePooling2D(2, name="pool")(conv(image)))
    kernel = np.zeros((3, 3, 3, 3), np.float32)
    kernel[1, 1, 0, 0] = kernel[1, 1, 2, 1] = 1
    model.set_weights([kernel, np.array([0, 0, 5], np.float32)])
    return model


def spots(*places: tuple[int, int, int, int]) -> np.ndarray:
    """Return black images with one pixel of a channel each: (row, column, channel, value)."""
    images = np.zeros((len(places), 12, 12, 3), np.uint8)
    for number, (row, column, channel, value) in enumerate(places):
        images[number, row, column, channel] = value
    return images


def test_by_hand():
    images = spots((2, 3, 0, 100), (8, 9, 0, 200), (0, 11, 2, 50), (5, 5, 0, 150))
    found = exciting(red_and_blue(), images, ["conv", "pool"], count=2)
    assert list(found) == ["conv", "pool"]
    red, blue = found["conv"]
    assert (red.layer, red.filter, blue.filter) == ("conv", 0, 1), "the flat filter is left out"
    assert [(peak.image, peak.value, peak.row, peak.column) for peak in red.peaks] == [(1, 200, 8, 9), (3, 150, 5, 5)]
    assert [peak.box for peak in red.peaks] == [(7, 8, 10, 11), (4, 4, 7, 7)]
    assert blue.peaks[0].box == (0, 10, 2, 12), "cut at the image's edge"
    pooled = found["pool"][0]
    assert [(peak.image, peak.value, peak.row, peak.column) for peak in pooled.peaks] == [
        (1, 50, 4, 4),
        (3, 37.5, 2, 2),
    ]
    assert pooled.peaks[0].box == (7, 7, 11, 11)


def test_filters_by_number_and_equal_values_in_order():
    images = spots((2, 3, 0, 100), (8, 9, 0, 100), (1, 1, 2, 1))
    (one,) = exciting(red_and_blue(), images, ["conv"], filters=[0], count=5)["conv"]
    assert [peak.image for peak in one.peaks] == [0, 1, 2]
    assert exciting(red_and_blue(), images, ["conv"], filters=[2])["conv"] == []
    with pytest.raises(ValueError, match=r"filters 0\.\.2\. Received: \[3\]"):
        exciting(red_and_blue(), images, ["conv"], filters=[3])


def test_one_image_has_its_strongest_filters():
    found = exciting(red_and_blue(), spots((2, 3, 2, 100)), ["conv"])["conv"]
    assert 1 in [one.filter for one in found]


def test_more_images_than_a_batch():
    images = np.zeros((70, 12, 12, 3), np.uint8)
    images[:, 4, 4, 0] = np.arange(70)
    done = []
    (red,) = exciting(red_and_blue(), images, ["conv"], count=3, advance=done.append)["conv"]
    assert [peak.image for peak in red.peaks] == [69, 68, 67] and sum(done) == 70


@pytest.mark.parametrize(("count", "layers"), [(0, ["conv"]), (2, ["nowhere"])])
def test_what_cannot_be_looked_for(count, layers):
    with pytest.raises(ValueError, match="Images and layers with maps are needed"):
        exciting(red_and_blue(), np.zeros((count, 12, 12, 3), np.uint8), layers)


def test_pictures(tmp_path):
    model = build_model("residual", input_size=32)
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    found = exciting(model, images, ["stem", "stage4_conv2"], filters=2, count=3)
    words = []
    for name, some in found.items():
        figure, path = write_exciting(model, images, some, tmp_path, [f"$a_{n}$.png" for n in range(6)])
        assert path.name == f"exciting-{name}.png" and min(Image.open(path).size) > 300
        words.append(figure)
    assert "the frame" in words[0] and "reaches over the whole image" in words[1]
