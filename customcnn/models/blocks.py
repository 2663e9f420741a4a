"""The pieces that the networks are built of: functions x -> x that name every layer they add.

The order of the axes is always (batch, height, width, channels), whatever keras.json says, and only `keras` is
called, so that the TensorFlow, JAX and PyTorch backends build the same network.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import layers, ops

CHANNELS_LAST = "channels_last"


def rgb_input(input_size: tuple[int, int]) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Begin a network with raw pixels, and scale them in the layer `rescale`.

    Args:
        input_size: (height, width) in pixels.

    Returns:
        (image, x): the input, RGB 0..255, shape (batch, height, width, 3); and the same divided by 255.
    """
    image = keras.Input((*input_size, 3), dtype="float32", name="image")
    return image, layers.Rescaling(1 / 255, name="rescale")(image)


def conv_relu(
    x: keras.KerasTensor, filters: int, size: int, name: str, stride: int = 1, padding: str = "same"
) -> keras.KerasTensor:
    """Add a convolution with bias and ReLU.

    Args:
        x: (batch, height, width, channels).
        filters: number of channels that come out.
        size: height and width of the kernel, in pixels.
        name: of the layer.
        stride: step of the kernel, in pixels.
        padding: "same" or "valid".

    Returns:
        (batch, new height, new width, filters), nothing negative in it.
    """
    conv = layers.Conv2D(
        filters, size, strides=stride, padding=padding, activation="relu", data_format=CHANNELS_LAST, name=name
    )
    return conv(x)


def conv_relu_bn(x: keras.KerasTensor, filters: int, name: str) -> keras.KerasTensor:
    """Add a 3x3 'same' convolution with ReLU (`name`), then batch normalisation (`name`_bn).

    The report normalises after the ReLU, not before it as the paper proposes.

    Args:
        x: (batch, height, width, channels).
        filters: number of channels that come out.
        name: of the convolution.

    Returns:
        (batch, height, width, filters).

    Reference:
        Ioffe and Szegedy, Batch Normalization, arXiv:1502.03167.
    """
    x = conv_relu(x, filters, 3, name)
    return layers.BatchNormalization(axis=-1, name=f"{name}_bn")(x)


def max_pool(
    x: keras.KerasTensor, name: str, size: int = 2, stride: int = 2, padding: str = "valid"
) -> keras.KerasTensor:
    """Add a max pooling.

    Args:
        x: (batch, height, width, channels).
        name: of the layer.
        size: height and width of the window, in pixels.
        stride: step of the window, in pixels.
        padding: "valid" drops pixels that fill no window (19 becomes 9), "same" keeps them (19 becomes 10).

    Returns:
        (batch, new height, new width, channels).
    """
    return layers.MaxPooling2D(size, strides=stride, padding=padding, data_format=CHANNELS_LAST, name=name)(x)


def local_response_norm(
    x: keras.KerasTensor, name: str, n: int = 5, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.75
) -> keras.KerasTensor:
    """Add local response normalisation: each value is divided by a measure of its neighbour channels at that pixel.

        y[c] = x[c] / (k + alpha * sum of x[j]^2 over the n channels j around c) ^ beta

    At the first and last channels the sum runs over the neighbours that exist. As in the paper, alpha is not
    divided by n; PyTorch and Caffe divide, so their alpha for the same result is n times this one.

    The sum over neighbours is a product with a band matrix of ones and zeros, several times faster than adding
    shifted copies. All of it is built of Keras operations in a small named model, not of a layer class of our own,
    so that a saved network loads where this package is not installed.

    Args:
        x: (batch, height, width, channels).
        name: of the small model.
        n: number of channels in the sum, odd.
        k, alpha, beta: the constants of the formula, as the paper has them.

    Returns:
        (batch, height, width, channels), computed in float32 whatever the precision of the network.

    Reference:
        Krizhevsky, Sutskever and Hinton, NeurIPS 2012, section 3.3.
    """
    channels = np.arange(x.shape[-1])
    band = (np.abs(channels[:, None] - channels) <= n // 2).astype("float32")
    # float32 because in bfloat16 alpha * sum would vanish beside k: near 2 its steps are 1/64.
    inside = keras.Input(x.shape[1:], dtype="float32", name=f"{name}_input")
    outside = inside * ops.power(k + alpha * ops.matmul(ops.square(inside), band), -beta)
    return keras.Model(inside, outside, name=name)(x)


def dense_relu(x: keras.KerasTensor, units: int, name: str) -> keras.KerasTensor:
    """Add a fully connected layer with ReLU: (batch, features) to (batch, units)."""
    return layers.Dense(units, activation="relu", name=name)(x)


def flatten(x: keras.KerasTensor) -> keras.KerasTensor:
    """Add the layer `flatten`: (batch, height, width, channels) to (batch, height * width * channels)."""
    return layers.Flatten(data_format=CHANNELS_LAST, name="flatten")(x)


def predictions(x: keras.KerasTensor, classes: int, sigmoid_for_two: bool = False) -> keras.KerasTensor:
    """End a network with the layer `predictions`.

    Args:
        x: (batch, features).
        classes: how many classes.
        sigmoid_for_two: for two classes give the one probability of the second class, not one for each.

    Returns:
        Probabilities in float32, also where the network computes in a lower precision: (batch, classes) or (batch, 1).
    """
    if sigmoid_for_two and classes == 2:
        return layers.Dense(1, activation="sigmoid", dtype="float32", name="predictions")(x)
    return layers.Dense(classes, activation="softmax", dtype="float32", name="predictions")(x)
