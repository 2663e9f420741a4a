"""GoogLeNet (Inception v1), with the two auxiliary classifiers that help to train it on request."""

from __future__ import annotations

import keras
from keras import layers

from customcnn.errors import CustomCNNError
from customcnn.models.blocks import CHANNELS_LAST, conv_relu, dense_relu, local_response_norm, max_pool, rgb_input
from customcnn.models.heads import add_head
from customcnn.models.weights import load_file

MODULES = {  # filters of the 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5 convolutions and of the one behind the pooling
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
LAST_OF_STAGE = ("3b", "4e")  # a pooling follows
AUXILIARY = {"4a": "aux1", "4d": "aux2"}
AUXILIARY_LEAST = 65  # pixels that leave 5x5 for the auxiliary classifiers' pooling: 65, 33, 17, 9, 5


def googlenet(
    classes: int,
    input_size: tuple[int, int],
    head: str = "plain",
    pooling: str = "avg",
    dropout: float | None = None,
    weights: str = "none",
    classifier_activation: str = "softmax",
    auxiliary: bool = False,
    batch_norm: bool = False,
    normalize: str = "own",
    center_crop: int = 0,
) -> keras.Model:
    """Build GoogLeNet: three convolutions, nine inception modules, and a head.

    The paper does not give the constants of its local response normalisation; they are AlexNet's here.

    Args:
        classes: how many classes.
        input_size: (height, width) in pixels.
        head, pooling: see `add_head`.
        dropout: share of the head's units left out in training; None for the head's own, .4 with the head plain.
        weights: "none", or the path of an .h5 file.
        classifier_activation: of the outputs, "softmax" or "sigmoid".
        auxiliary: add the outputs of the auxiliary classifiers behind modules 4a and 4d, which are for training.
        batch_norm: normalise between each convolution and its ReLU, instead of the local response normalisation.
        normalize, center_crop: see `rgb_input`.

    Returns:
        The model "googlenet": 5,975,602 weights for 2 classes; its outputs are `predictions`, or with `auxiliary`
        `predictions`, `aux1` and `aux2`.

    Raises:
        CustomCNNError: an input too small for the auxiliary classifiers, or weights that do not fit.

    Reference:
        Szegedy et al., Going Deeper with Convolutions, arXiv:1409.4842.
    """
    side = center_crop or min(input_size)
    if auxiliary and side < AUXILIARY_LEAST:
        raise CustomCNNError(
            f"googlenet with its auxiliary classifiers needs at least {AUXILIARY_LEAST} x {AUXILIARY_LEAST} pixels. "
            f"Received: {side} x {side}. Give a larger input_size or leave out auxiliary."
        )
    image, x = rgb_input(input_size, normalize, center_crop)
    x = _stem(x, batch_norm)
    branches = {}
    for module, filters in MODULES.items():
        x = _inception(x, filters, f"inception{module}", batch_norm)
        branches[module] = x
        if module in LAST_OF_STAGE:
            x = max_pool(x, f"pool{module[0]}", size=3, padding="same")
    # 7, 7, 1024
    if weights != "none":
        load_file("googlenet", keras.Model(image, x), weights)
    if dropout is None and head == "plain":
        dropout = 0.4
    outputs = [add_head(x, classes, head, pooling, dropout, classifier_activation)]
    if auxiliary:
        outputs += [_auxiliary(branches[module], classes, name, batch_norm) for module, name in AUXILIARY.items()]
    return keras.Model(image, outputs if auxiliary else outputs[0], name="googlenet")


def _stem(x: keras.KerasTensor, batch_norm: bool) -> keras.KerasTensor:
    # 224, 224, 3
    x = max_pool(_conv(x, 64, 7, "conv1", batch_norm, stride=2), "pool1", size=3, padding="same")
    # 56, 56, 64
    if not batch_norm:
        x = local_response_norm(x, "lrn1")
    x = _conv(x, 64, 1, "conv2_reduce", batch_norm)
    x = _conv(x, 192, 3, "conv2", batch_norm)
    # 56, 56, 192
    if not batch_norm:
        x = local_response_norm(x, "lrn2")
    return max_pool(x, "pool2", size=3, padding="same")
    # 28, 28, 192


def _inception(x: keras.KerasTensor, filters: tuple[int, ...], name: str, batch_norm: bool) -> keras.KerasTensor:
    """Add four branches side by side: 1x1; 1x1 and 3x3; 1x1 and 5x5; a pooling and 1x1."""
    one, reduce3, three, reduce5, five, pooled = filters
    branches = [
        _conv(x, one, 1, f"{name}_1x1", batch_norm),
        _conv(_conv(x, reduce3, 1, f"{name}_3x3_reduce", batch_norm), three, 3, f"{name}_3x3", batch_norm),
        _conv(_conv(x, reduce5, 1, f"{name}_5x5_reduce", batch_norm), five, 5, f"{name}_5x5", batch_norm),
        _conv(max_pool(x, f"{name}_pool", 3, 1, "same"), pooled, 1, f"{name}_pool_proj", batch_norm),
    ]
    return layers.Concatenate(axis=-1, name=name)(branches)


def _auxiliary(x: keras.KerasTensor, classes: int, name: str, batch_norm: bool) -> keras.KerasTensor:
    """Add an auxiliary classifier that ends in the layer `name`."""
    # 14, 14, 512 or 528
    x = layers.AveragePooling2D(5, strides=3, data_format=CHANNELS_LAST, name=f"{name}_pool")(x)
    # 4, 4, 512 or 528
    x = _conv(x, 128, 1, f"{name}_conv", batch_norm)
    x = layers.Flatten(data_format=CHANNELS_LAST, name=f"{name}_flatten")(x)
    # 2048
    x = layers.Dropout(0.7, name=f"{name}_dropout")(dense_relu(x, 1024, f"{name}_dense"))
    return layers.Dense(classes, activation="softmax", dtype="float32", name=name)(x)


def _conv(
    x: keras.KerasTensor, filters: int, size: int, name: str, batch_norm: bool, stride: int = 1
) -> keras.KerasTensor:
    """Add a 'same' convolution with ReLU, with batch normalisation between the two on request."""
    if not batch_norm:
        return conv_relu(x, filters, size, name, stride=stride)
    x = layers.Conv2D(
        filters, size, strides=stride, padding="same", use_bias=False, data_format=CHANNELS_LAST, name=name
    )(x)
    return layers.ReLU(name=f"{name}_relu")(layers.BatchNormalization(axis=-1, name=f"{name}_bn")(x))
