"""The report's own network, twice: as its text tells it (14 convolutions) and as its figures print it (13).

docs/models.md has the arithmetic that tells the two apart.
"""

from __future__ import annotations

import keras
from keras import layers

from customcnn.models.blocks import conv_relu_bn, dense_relu, flatten, max_pool, predictions, rgb_input

FILTERS = (32, 64, 128, 256, 384, 512)
POOLED = (True, True, False, True, True, True)  # 5 poolings for 6 blocks: none after block 3


def proposed(
    classes: int, input_size: tuple[int, int], dropout: float = 0.5, normalize: str = "own", center_crop: int = 0
) -> keras.Model:
    """Build the network of the report's text: 14 convolutions in blocks of 3, 3, 2, 2, 2 and 2.

    Args:
        classes: how many classes.
        input_size: (height, width) in pixels.
        dropout: share of the dense units left out in training.
        normalize, center_crop: see `rgb_input`.

    Returns:
        The model "proposed": 64,104,122 weights for 2 classes at 150x150, 7,572,224 of them convolutional.

    Reference:
        The report "ALL detection with a 14-convolution network, compared with four classical networks" (2019).
    """
    image, x = rgb_input(input_size, normalize, center_crop)
    return keras.Model(image, _network(x, (3, 3, 2, 2, 2, 2), classes, dropout), name="proposed")


def proposed_figures(
    classes: int, input_size: tuple[int, int], dropout: float = 0.5, normalize: str = "own", center_crop: int = 0
) -> keras.Model:
    """Build the network of the report's figures 18 and 19: 13 convolutions in blocks of 3, 2, 2, 2, 2 and 2.

    Args:
        classes: how many classes.
        input_size: (height, width) in pixels.
        dropout: share of the dense units left out in training.
        normalize, center_crop: see `rgb_input`.

    Returns:
        The model "proposed-figures": 64,066,938 weights for 2 classes at 150x150, 7,535,040 of them convolutional.

    Reference:
        The report "ALL detection with a 14-convolution network, compared with four classical networks" (2019).
    """
    image, x = rgb_input(input_size, normalize, center_crop)
    return keras.Model(image, _network(x, (3, 2, 2, 2, 2, 2), classes, dropout), name="proposed-figures")


def _network(x: keras.KerasTensor, convolutions: tuple[int, ...], classes: int, dropout: float) -> keras.KerasTensor:
    """Add six blocks of so many convolutions each, then three dense layers."""
    for number, (count, filters, pooled) in enumerate(zip(convolutions, FILTERS, POOLED, strict=True), start=1):
        x = _block(x, filters, count, pooled, f"block{number}")
        # 1: 75, 75, 32    2: 38, 38, 64    3: 38, 38, 128    4: 19, 19, 256    5: 10, 10, 384    6: 5, 5, 512
    x = flatten(x)
    # 12800
    x = layers.Dropout(dropout, name="fc1_dropout")(dense_relu(x, 4096, "fc1"))
    # 4096
    x = layers.Dropout(dropout, name="fc2_dropout")(dense_relu(x, 1000, "fc2"))
    # 1000
    return predictions(x, classes)


def _block(x: keras.KerasTensor, filters: int, count: int, pooled: bool, name: str) -> keras.KerasTensor:
    """Add `count` convolutions with batch norm, then a 2x2 'same' pooling that rounds up: 19 becomes 10."""
    for number in range(1, count + 1):
        x = conv_relu_bn(x, filters, f"{name}_conv{number}")
    return max_pool(x, f"{name}_pool1", padding="same") if pooled else x
