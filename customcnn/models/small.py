"""The small baseline network of the three-convolution study: quick to train on a laptop."""

from __future__ import annotations

import keras
from keras import layers

from customcnn.models.blocks import conv_relu, dense_relu, flatten, max_pool, predictions, rgb_input


def small(classes: int, input_size: tuple[int, int], dropout: float = 0.0) -> keras.Model:
    """Build three 'valid' convolutions, each with a pooling, and two dense layers.

    Args:
        classes: how many classes. Two make a sigmoid output: the one probability of the second class.
        input_size: (height, width) in pixels.
        dropout: share of the 64 dense units left out in training. The study's printed network has none (no such
            layer is added for 0); its grid search tried 0, .25 and .5.

    Returns:
        The model "small": 2,825,345 weights for 2 classes at 224x224.

    Reference:
        The three-convolution study of C-NMC 2019.
    """
    image, x = rgb_input(input_size)
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
