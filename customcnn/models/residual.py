"""A small residual network of our own: for few images, trained from scratch in minutes."""

from __future__ import annotations

import keras
from keras import layers

from customcnn.models.blocks import CHANNELS_LAST, predictions, rgb_input

WIDTHS = (32, 64, 128, 192)
"""Channels of the stages. Each halves the height and width, but for the first, whose input the stem has halved."""

MOMENTUM = 0.9
"""Of the moving averages of batch normalisation: they remember some 10 steps, for the trainings are short."""


def residual(
    classes: int, input_size: tuple[int, int], dropout: float = 0.3, normalize: str = "own", center_crop: int = 0
) -> keras.Model:
    """Build a stem, four stages of one residual block each, and a softmax on the pooled features.

    As in ResNet, but that a shortcut which halves the image averages it, so that no pixel is thrown away (He et al.,
    Bag of Tricks, arXiv:1812.01187, ResNet-D).

    Args:
        classes: how many classes.
        input_size: (height, width) in pixels.
        dropout: share of the pooled features left out in training.
        normalize, center_crop: see `rgb_input`.

    Returns:
        The model "residual": 888,936 weights for 2 classes.

    Reference:
        He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition, arXiv:1512.03385.
    """
    image, x = rgb_input(input_size, normalize, center_crop)
    # The images' own mean and deviation: backgrounds are black in one data set and white in the next.
    x = layers.BatchNormalization(axis=-1, momentum=MOMENTUM, center=False, scale=False, name="input_bn")(x)
    # 96, 96, 3
    x = layers.ReLU(name="stem_relu")(_conv_bn(x, WIDTHS[0], 3, "stem", stride=2))
    # 48, 48, 32
    for stage, width in enumerate(WIDTHS, start=1):
        x = residual_block(x, width, f"stage{stage}", stride=1 if stage == 1 else 2)
    # 6, 6, 192
    x = layers.GlobalAveragePooling2D(data_format=CHANNELS_LAST, name="head_pool")(x)
    if dropout:
        x = layers.Dropout(dropout, name="head_dropout")(x)
    return keras.Model(image, predictions(x, classes), name="residual")


def residual_block(x: keras.KerasTensor, filters: int, name: str, stride: int = 1) -> keras.KerasTensor:
    """Add two 3x3 convolutions and the input to their result.

    Args:
        x: (batch, height, width, channels).
        filters: number of channels that come out.
        name: how the names of its layers begin.
        stride: 2 halves height and width.

    Returns:
        (batch, height / stride, width / stride, filters), rounded up; nothing negative in it.
    """
    y = layers.ReLU(name=f"{name}_relu1")(_conv_bn(x, filters, 3, f"{name}_conv1", stride))
    y = _conv_bn(y, filters, 3, f"{name}_conv2")
    if stride > 1:
        pool = layers.AveragePooling2D(stride, padding="same", data_format=CHANNELS_LAST, name=f"{name}_shortcut_pool")
        x = pool(x)
    if x.shape[-1] != filters:
        x = _conv_bn(x, filters, 1, f"{name}_shortcut")
    return layers.ReLU(name=f"{name}_relu2")(layers.Add(name=f"{name}_add")([x, y]))


def _conv_bn(x: keras.KerasTensor, filters: int, size: int, name: str, stride: int = 1) -> keras.KerasTensor:
    """Add a 'same' convolution without bias (`name`), which batch normalisation (`name`_bn) makes needless."""
    conv = layers.Conv2D(
        filters, size, strides=stride, padding="same", use_bias=False, data_format=CHANNELS_LAST, name=name
    )
    return layers.BatchNormalization(axis=-1, momentum=MOMENTUM, name=f"{name}_bn")(conv(x))
