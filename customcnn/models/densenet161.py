"""DenseNet-161, the widest of its paper's networks for ImageNet; keras.applications has the narrower ones only."""

from __future__ import annotations

import keras
from keras import layers

from customcnn.models.blocks import CHANNELS_LAST, rgb_input
from customcnn.models.heads import add_head
from customcnn.models.weights import load_file

GROWTH = 48
STEM = 96
BLOCKS = (6, 12, 36, 24)
EPSILON = 1.001e-5  # that of DenseNet in keras.applications


def densenet161(
    classes: int,
    input_size: tuple[int, int],
    head: str = "plain",
    pooling: str = "avg",
    dropout: float | None = None,
    weights: str = "none",
    classifier_activation: str = "softmax",
    normalize: str = "own",
    center_crop: int = 0,
) -> keras.Model:
    """Build DenseNet-161: four dense blocks with growth 48, each but the last followed by a transition that halves.

    Args:
        classes: how many classes.
        input_size: (height, width) in pixels.
        head, pooling, dropout: see `add_head`.
        weights: "none", or the path of an .h5 file.
        classifier_activation: of the outputs, "softmax" or "sigmoid".
        normalize, center_crop: see `rgb_input`; its own scaling is by ImageNet's mean and deviation.

    Returns:
        The model "densenet161": 26,696,354 weights for 2 classes, 219,936 of them running statistics.

    Raises:
        CustomCNNError: weights that do not fit.

    Reference:
        Huang, Liu, van der Maaten and Weinberger, Densely Connected Convolutional Networks, arXiv:1608.06993.
    """
    image, x = rgb_input(input_size, normalize, center_crop, "imagenet")
    # 224, 224, 3
    x = _pad(x, 3, "conv1_pad")
    x = _bn_relu(_conv(x, STEM, 7, "conv1_conv", strides=2, padding="valid"), "conv1")
    # 112, 112, 96
    x = _pad(x, 1, "pool1_pad")
    x = layers.MaxPooling2D(3, strides=2, data_format=CHANNELS_LAST, name="pool1")(x)
    # 56, 56, 96
    for number, count in enumerate(BLOCKS, start=2):
        for layer in range(1, count + 1):
            x = _dense_layer(x, f"conv{number}_block{layer}")
        if number <= len(BLOCKS):
            x = _transition(x, f"pool{number}")
        # 2: 28, 28, 192    3: 14, 14, 384    4: 7, 7, 1056    5: 7, 7, 2208
    x = _bn_relu(x, "conv5")
    if weights != "none":
        load_file("densenet161", keras.Model(image, x), weights)
    return keras.Model(image, add_head(x, classes, head, pooling, dropout, classifier_activation), name="densenet161")


def _dense_layer(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Add 48 channels, computed from all that are there through a bottleneck of 192."""
    new = _conv(_bn_relu(x, f"{name}_0"), 4 * GROWTH, 1, f"{name}_1_conv")
    new = _conv(_bn_relu(new, f"{name}_1"), GROWTH, 3, f"{name}_2_conv")
    return layers.Concatenate(axis=-1, name=f"{name}_concat")([x, new])


def _transition(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Halve channels, height and width."""
    x = _conv(_bn_relu(x, name), x.shape[-1] // 2, 1, f"{name}_conv")
    return layers.AveragePooling2D(2, strides=2, data_format=CHANNELS_LAST, name=f"{name}_pool")(x)


def _bn_relu(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    x = layers.BatchNormalization(axis=-1, epsilon=EPSILON, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def _conv(
    x: keras.KerasTensor, filters: int, size: int, name: str, strides: int = 1, padding: str = "same"
) -> keras.KerasTensor:
    conv = layers.Conv2D(
        filters, size, strides=strides, padding=padding, use_bias=False, data_format=CHANNELS_LAST, name=name
    )
    return conv(x)


def _pad(x: keras.KerasTensor, pixels: int, name: str) -> keras.KerasTensor:
    return layers.ZeroPadding2D(pixels, data_format=CHANNELS_LAST, name=name)(x)
