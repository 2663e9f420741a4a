"""Heads: the classifiers that stand on a backbone, functions x -> features that name every layer they add."""

from __future__ import annotations

import keras
from keras import layers, regularizers

from customcnn.models.blocks import CHANNELS_LAST, dense_relu, flatten, predictions


def add_head(
    x: keras.KerasTensor,
    classes: int,
    head: str = "plain",
    pooling: str = "avg",
    dropout: float | None = None,
    activation: str = "softmax",
) -> keras.KerasTensor:
    """Add the head of a name.

    Args:
        x: (batch, height, width, channels), what a backbone makes of the images.
        classes: how many classes.
        head: "plain", "transfer", "dense128" or "report".
        pooling: "avg" or "max"; "report" does not pool.
        dropout: share of units left out in training; None for the head's own.
        activation: of the outputs, "softmax" or "sigmoid".

    Returns:
        (batch, classes), float32 probabilities; with sigmoids each is one of its own, and they need not sum to 1.
    """
    own = 0.5 if head in ("report", "transfer") else 0.0
    add = {"plain": plain, "dense128": dense128, "transfer": transfer, "report": report}[head]
    x = add(x if head == "report" else _pooled(x, pooling), own if dropout is None else dropout)
    return predictions(x, classes, activation=activation)


def plain(x: keras.KerasTensor, dropout: float = 0.0) -> keras.KerasTensor:
    """Leave the pooled features (batch, channels) as they are, but for a dropout; one of 0 adds no layer."""
    return _dropout(x, dropout)


def dense128(x: keras.KerasTensor, dropout: float = 0.0) -> keras.KerasTensor:
    """Put a dense layer of 128 on the pooled features: the head of the four-class study."""
    return _dropout(dense_relu(x, 128, "head_dense"), dropout)


def transfer(x: keras.KerasTensor, dropout: float = 0.5) -> keras.KerasTensor:
    """Put batch normalisation, a regularised dense layer of 128 and dropout on the pooled features.

    The slides name the amounts of L1 and L2. Where the penalties stand they do not say: kernel, activity and bias are
    our choice.

    Reference:
        The transfer-learning study of six backbones on C-NMC 2019.
    """
    x = layers.BatchNormalization(axis=-1, momentum=0.99, epsilon=0.001, name="head_bn")(x)
    # Its activity penalty is part of the loss, which is float32 in every precision: Keras does not add up both kinds.
    half = keras.config.dtype_policy().compute_dtype in ("float16", "bfloat16")
    x = layers.Dense(
        128,
        activation="relu",
        kernel_regularizer=regularizers.L2(0.016),
        activity_regularizer=regularizers.L1(0.006),
        bias_regularizer=regularizers.L1(0.006),
        dtype="float32" if half else None,
        name="head_dense",
    )(x)
    return _dropout(x, dropout)


def report(x: keras.KerasTensor, dropout: float = 0.5) -> keras.KerasTensor:
    """Put the dense layers of the report's network on the flattened maps.

    The first of them holds 4096 weights for every value of the maps, 205 million behind 7x7 maps of 1024 channels.
    The report prints two dropouts and not their rate: .5 is our choice.

    Args:
        x: (batch, height, width, channels).
        dropout: share of the dense units left out in training.
    """
    x = flatten(x)
    x = layers.Dropout(dropout, name="fc1_dropout")(dense_relu(x, 4096, "fc1"))
    return layers.Dropout(dropout, name="fc2_dropout")(dense_relu(x, 1000, "fc2"))


def _pooled(x: keras.KerasTensor, pooling: str) -> keras.KerasTensor:
    """Add the layer `head_pool`: (batch, height, width, channels) to (batch, channels)."""
    kinds = {"avg": layers.GlobalAveragePooling2D, "max": layers.GlobalMaxPooling2D}
    return kinds[pooling](data_format=CHANNELS_LAST, name="head_pool")(x)


def _dropout(x: keras.KerasTensor, share: float) -> keras.KerasTensor:
    return layers.Dropout(share, name="head_dropout")(x) if share else x
