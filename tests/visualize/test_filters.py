"""Filters: the weights as they are, the colours in their order, and the tiles."""

import numpy as np
import pytest

from customcnn.models import build_model
from customcnn.visualize.filters import Kernel, filter_picture, kernels, write_filters


def test_kernels_of_a_network():
    model = build_model("residual", input_size=32)
    found = {kernel.name: kernel for kernel in kernels(model)}
    assert next(iter(found)) == "stem" and found["stem"].colored
    assert not any(kernel.colored for name, kernel in found.items() if name != "stem")
    np.testing.assert_array_equal(found["stem"].weights, model.get_layer("stem").get_weights()[0])
    assert found["stage1_conv1"].weights.shape == (3, 3, 32, 32)


def test_reversed_colours_are_put_back():
    model = build_model("vgg16", input_size=32)
    first, second, *_ = kernels(model)
    assert (first.name, first.colored, second.colored) == ("block1_conv1", True, False)
    np.testing.assert_array_equal(first.weights, model.get_layer("block1_conv1").get_weights()[0][:, :, ::-1])


def test_depthwise_and_shared_and_inner_kernels():
    import keras

    k = keras.layers
    inner_in = keras.Input((8, 8, 3))
    inner = keras.Model(inner_in, k.Conv2D(4, 1, name="c")(inner_in), name="inner")
    image = keras.Input((8, 8, 3))
    shared = k.Conv2D(3, 3, padding="same", name="shared")
    x = k.DepthwiseConv2D(3, depth_multiplier=2, name="dw")(shared(shared(image)))
    model = keras.Model(image, [x, inner(image)])
    found = {kernel.name: kernel for kernel in kernels(model)}
    assert list(found) == ["shared", "dw", "inner/c"]
    assert [found[name].colored for name in found] == [True, False, True]
    assert found["dw"].weights.shape == (3, 3, 1, 6)
    weights = model.get_layer("dw").get_weights()[0]
    np.testing.assert_array_equal(found["dw"].weights[:, :, 0, 3], weights[:, :, 1, 1])


def test_colours_by_hand():
    weights = np.zeros((1, 2, 3, 2), np.float32)
    weights[0, 0, 0, 0] = 2  # the first filter wants red at the left, and no green at the right
    weights[0, 1, 1, 0] = -2
    weights[0, :, 2, 1] = 0.5  # the second wants blue, by half as much: its own scale
    pixels, words = filter_picture(Kernel("conv", weights, colored=True))
    size = 18
    assert pixels[0, 0].tolist() == [255, 128, 128] and pixels[0, size].tolist() == [128, 0, 128]
    assert pixels[0, -1].tolist() == [128, 128, 255]
    assert "2 filters of 2×1" in words and "grey is 0" in words


def test_signs_by_hand():
    weights = np.zeros((1, 1, 2, 1), np.float32)
    weights[0, 0] = [[1], [-0.5]]
    pixels, words = filter_picture(Kernel("conv", weights, colored=False))
    red, blue = pixels[0, 0].astype(int), pixels[0, -1].astype(int)
    assert red[0] > red[2] + 40 and blue[2] > blue[0] + 40
    assert "1 filters of 1×1 on 2 channels" in words and "first" not in words


def test_many_channels_are_not_all_shown():
    weights = np.random.default_rng(0).normal(size=(3, 3, 64, 128)).astype(np.float32)
    pixels, words = filter_picture(Kernel("conv", weights, colored=False))
    assert max(pixels.shape) < 1500 and "the first 12 filters on the first 16 channels" in words


@pytest.mark.parametrize("shape", [(1, 1, 3, 1), (7, 7, 3, 64), (3, 3, 1, 40), (1, 7, 192, 192)])
def test_a_picture_of_any_shape(shape, tmp_path):
    kernel = Kernel("a/b c", np.zeros(shape, np.float32), colored=shape[2] == 3)
    figure, path = write_filters(kernel, tmp_path)
    assert path.name == "filters-a_b_c.png" and path.stat().st_size > 0 and "filters-a_b_c.png" in figure
