"""The pieces that the networks are built of: functions x -> x that name every layer they add.

The order of the axes is always (batch, height, width, channels), whatever keras.json says, and only `keras` is
called, so that the TensorFlow, JAX and PyTorch backends build the same network.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import layers, ops

CHANNELS_LAST = "channels_last"


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)

# What `rescale` does, by name: (scale, offset) of each channel. table.py has the same in words.
_BY_MEAN_AND_DEVIATION = (
    [1 / (255 * deviation) for deviation in IMAGENET_DEVIATION],
    [-mean / deviation for mean, deviation in zip(IMAGENET_MEAN, IMAGENET_DEVIATION, strict=True)],
)
_SCALES = {
    "unit": (1 / 255, 0.0),
    "symmetric": (1 / 127.5, -1.0),
    "bgr": (1.0, [-103.939, -116.779, -123.68]),
    "imagenet": _BY_MEAN_AND_DEVIATION,
    # For a network that divides by 255 itself.
    "imagenet times 255": tuple([255 * value for value in values] for values in _BY_MEAN_AND_DEVIATION),
    "raw": (1.0, 0.0),
}


def rgb_input(
    input_size: tuple[int, int], normalize: str = "own", center_crop: int = 0, scaling: str = "unit"
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Begin a network with raw pixels, and scale them in the layer `rescale`.

    Args:
        input_size: (height, width) in pixels.
        normalize: "own" for `scaling`; in its place "imagenet" for (x / 255 - mean) / deviation of ImageNet, or "raw".
        center_crop: edge in pixels of the square about the centre that goes on, cut out by the layer `center_crop`; an
            odd rest goes right and below. 0 for all.
        scaling: "unit" x / 255; "symmetric" x / 127.5 - 1; "bgr" the channels in reverse order, less ImageNet's means;
            "imagenet"; "raw" as they are.

    Returns:
        (image, x): the input, RGB 0..255, shape (batch, height, width, 3); and the same, cropped and scaled.
    """
    image = x = keras.Input((*input_size, 3), dtype="float32", name="image")
    if center_crop:
        rests = [side - center_crop for side in input_size]
        around = tuple((rest // 2, rest - rest // 2) for rest in rests)
        x = layers.Cropping2D(around, data_format=CHANNELS_LAST, name="center_crop")(x)
    if normalize == "raw" or (normalize == "imagenet" and not scaling.startswith("imagenet")):
        scaling = normalize
    if scaling == "bgr":
        x = ops.flip(x, axis=-1)
    scale, offset = _SCALES[scaling]
    # In half precision a mean could not be taken off exactly; a division alone is as good there.
    dtype = None if scaling == "unit" else "float32"
    return image, layers.Rescaling(scale, offset, dtype=dtype, name="rescale")(x)


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


def predictions(
    x: keras.KerasTensor, classes: int, sigmoid_for_two: bool = False, activation: str = "softmax"
) -> keras.KerasTensor:
    """End a network with the layer `predictions`.

    Args:
        x: (batch, features).
        classes: how many classes.
        sigmoid_for_two: for two classes give the one probability of the second class, not one for each.
        activation: of one output for each class: "softmax", or "sigmoid", with which they need not sum to 1.

    Returns:
        Probabilities in float32, also where the network computes in a lower precision: (batch, classes) or (batch, 1).
    """
    if sigmoid_for_two and classes == 2:
        return layers.Dense(1, activation="sigmoid", dtype="float32", name="predictions")(x)
    return layers.Dense(classes, activation=activation, dtype="float32", name="predictions")(x)
