"""Two small baseline networks, quick to train on a laptop: of three convolutions and of one."""

from __future__ import annotations

import keras
from keras import layers

from customcnn.models.blocks import conv_relu, dense_relu, flatten, max_pool, predictions, rgb_input


def small(
    classes: int, input_size: tuple[int, int], dropout: float = 0.0, normalize: str = "own", center_crop: int = 0
) -> keras.Model:
    """Build three 'valid' convolutions, each with a pooling, and two dense layers.

    Args:
        classes: how many classes. Two make a sigmoid output: the one probability of the second class.
        input_size: (height, width) in pixels.
        dropout: share of the 64 dense units left out in training. The study's printed network has none (no such
            layer is added for 0); its grid search tried 0, .25 and .5.
        normalize, center_crop: see `rgb_input`.

    Returns:
        The model "small": 2,825,345 weights for 2 classes at 224x224.

    Reference:
        The three-convolution study of C-NMC 2019.
    """
    image, x = rgb_input(input_size, normalize, center_crop)
    # 224, 224, 3
    x = conv_relu(x, 32, 3, "conv1", padding="valid")
    # 222, 222, 32
    x = max_pool(x, "pool1")
    # 111, 111, 32
    x = conv_relu(x, 64, 3, "conv2", padding="valid")
    # 109, 109, 64
    x = max_pool(x, "pool2")
    # 54, 54, 64
    x = conv_relu(x, 64, 3, "conv3", padding="valid")
    # 52, 52, 64
    x = max_pool(x, "pool3")
    # 26, 26, 64
    x = flatten(x)
    # 43264
    x = dense_relu(x, 64, "fc1")
    # 64
    if dropout:
        x = layers.Dropout(dropout, name="fc1_dropout")(x)
    return keras.Model(image, predictions(x, classes, sigmoid_for_two=True), name="small")


def one_conv(classes: int, input_size: tuple[int, int], normalize: str = "own", center_crop: int = 0) -> keras.Model:
    """Build one 'valid' convolution of 32 filters with a pooling, and a softmax on the flattened maps.

    The study says of its baseline only that it has one convolution, and how well it does. The shape is our choice:
    the first step of `small`, at the input size that the study gives its VGG networks.

    Args:
        classes: how many classes.
        input_size: (height, width) in pixels.
        normalize, center_crop: see `rgb_input`.

    Returns:
        The model "one-conv": 254,914 weights for 2 classes at 128x128.

    Reference:
        The study of pretrained networks on C-NMC 2019.
    """
    image, x = rgb_input(input_size, normalize, center_crop)
    # 128, 128, 3
    x = conv_relu(x, 32, 3, "conv1", padding="valid")
    # 126, 126, 32
    x = max_pool(x, "pool1")
    # 63, 63, 32
    x = flatten(x)
    # 127008
    return keras.Model(image, predictions(x, classes), name="one-conv")
