"""AlexNet in a single tower: the paper's two half networks, which talk in some layers only, joined into one."""

from __future__ import annotations

import keras
from keras import layers

from customcnn.models.blocks import (
    conv_relu,
    dense_relu,
    flatten,
    local_response_norm,
    max_pool,
    predictions,
    rgb_input,
)


def alexnet(
    classes: int, input_size: tuple[int, int], dropout: float = 0.5, normalize: str = "own", center_crop: int = 0
) -> keras.Model:
    """Build AlexNet in a single tower, with local response normalisation and overlapping poolings.

    The paper says 224x224, but its first layer (11x11, stride 4, 55x55 out) needs 227. It also begins the weights
    at N(0, 0.01) and some biases at 1; here they begin as Keras does.

    Args:
        classes: how many classes.
        input_size: (height, width) in pixels.
        dropout: share of the units of the two hidden dense layers left out in training.
        normalize, center_crop: see `rgb_input`.

    Returns:
        The model "alexnet": 58,289,538 weights for 2 classes at 227x227.

    Reference:
        Krizhevsky, Sutskever and Hinton, ImageNet Classification with Deep Convolutional Neural Networks,
        NeurIPS 2012.
    """
    image, x = rgb_input(input_size, normalize, center_crop)
    # 227, 227, 3
    x = conv_relu(x, 96, 11, "conv1", stride=4, padding="valid")
    x = local_response_norm(x, "lrn1")
    # 55, 55, 96
    x = max_pool(x, "pool1", size=3, stride=2)
    # 27, 27, 96
    x = conv_relu(x, 256, 5, "conv2")
    x = local_response_norm(x, "lrn2")
    # 27, 27, 256
    x = max_pool(x, "pool2", size=3, stride=2)
    # 13, 13, 256
    x = conv_relu(x, 384, 3, "conv3")
    x = conv_relu(x, 384, 3, "conv4")
    # 13, 13, 384
    x = conv_relu(x, 256, 3, "conv5")
    # 13, 13, 256
    x = max_pool(x, "pool5", size=3, stride=2)
    # 6, 6, 256
    x = flatten(x)
    # 9216
    x = layers.Dropout(dropout, name="fc6_dropout")(dense_relu(x, 4096, "fc6"))
    x = layers.Dropout(dropout, name="fc7_dropout")(dense_relu(x, 4096, "fc7"))
    # 4096
    return keras.Model(image, predictions(x, classes), name="alexnet")
