"""Backbones: the networks of keras.applications without their tops, each flat in one model behind a head of ours."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

import keras
import numpy as np

from customcnn.models.blocks import CHANNELS_LAST, IMAGENET_DEVIATION, rgb_input
from customcnn.models.heads import add_head
from customcnn.models.weights import from_file, from_imagenet


def backbone(
    classes: int,
    input_size: tuple[int, int],
    application: str,
    scaling: str,
    head: str = "plain",
    pooling: str = "avg",
    dropout: float | None = None,
    weights: str = "none",
    classifier_activation: str = "softmax",
    normalize: str = "own",
    center_crop: int = 0,
) -> keras.Model:
    """Build a network of keras.applications behind a head.

    Args:
        classes: how many classes.
        input_size: (height, width) in pixels.
        application: the function of keras.applications, such as "VGG16".
        scaling: what the library's `preprocess_input` for it does, see `rgb_input`; "raw" where the network does it.
        head, pooling, dropout: see `add_head`.
        weights: "none", "imagenet", or the path of an .h5 file.
        classifier_activation: of the outputs, "softmax" or "sigmoid".
        normalize, center_crop: see `rgb_input`.

    Returns:
        The model of the application's name in lower case.

    Raises:
        CustomCNNError: the weights cannot be had, or are those of another network.
    """
    name = application.lower()
    given, arguments = _scaled(application, scaling, normalize, weights)
    before = keras.config.image_data_format()
    keras.config.set_image_data_format(CHANNELS_LAST)  # keras.json may say otherwise
    try:
        _, x = rgb_input(input_size, "own", center_crop, given)
        features = _library_model(name, application, x, weights, arguments)
        features = _copy(features, with_weights=weights != "none")
        if weights not in ("none", "imagenet"):
            _settle_normalization(features, normalize)
        outputs = add_head(features.outputs[0], classes, head, pooling, dropout, classifier_activation)
    finally:
        keras.config.set_image_data_format(before)
    return keras.Model(features.inputs[0], outputs, name=name)


def _scaled(application: str, scaling: str, normalize: str, weights: str) -> tuple[str, dict[str, bool]]:
    """Return the scaling of the layer `rescale`, and what the library's function is told of its own."""
    if normalize != "imagenet":  # what scales inside the library's network goes on doing so
        return "raw" if normalize == "raw" else scaling, {}
    if scaling != "raw":
        return "imagenet", {}
    if not _scales_in_any_case(application):
        return "imagenet", {"include_preprocessing": False}
    # With ImageNet's weights it scales by mean and deviation itself; without, it divides by 255 only.
    return ("raw" if weights == "imagenet" else "imagenet times 255"), {}


def _scales_in_any_case(application: str) -> bool:
    """Tell whether it is an EfficientNet of version 1, whose scaling cannot be left out."""
    return application.startswith("EfficientNetB")


def _library_model(
    name: str, application: str, x: keras.KerasTensor, weights: str, arguments: dict[str, bool]
) -> keras.Model:
    build = getattr(keras.applications, application)

    def made(source: str | None) -> keras.Model:
        return build(include_top=False, weights=source, input_tensor=x, **arguments)

    if weights == "imagenet":
        return from_imagenet(name, lambda: made("imagenet"))
    return made(None) if weights == "none" else from_file(name, weights, lambda: made(weights))


def _copy(model: keras.Model, with_weights: bool) -> keras.Model:
    """Return the same network, flat and with names that are the same in every build.

    The library leaves many layers to Keras's automatic names, which count on from network to network: `conv2d_17`.
    Here they are counted from 1, in the order in which the library makes them.

    Args:
        model: from keras.applications.
        with_weights: copy the weights too; without, fresh ones are drawn.
    """
    names = _settled_names(model)
    twins: list[tuple[Any, Any]] = []

    def twin(operation: Any) -> Any:
        made = type(operation).from_config(operation.get_config())
        made.name = names.get(operation.name, operation.name)
        twins.append((operation, made))
        return made

    def clone(operation: Any) -> Any:
        # ConvNeXt holds models inside the model; their layers are laid out one by one instead.
        return operation if isinstance(operation, keras.Sequential) else twin(operation)

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(operation, keras.Sequential):
            return operation(*args, **kwargs)
        (x,) = args
        for layer in operation.layers:
            x = twin(layer)(x)
        return x

    copy = keras.models.clone_model(model, clone_function=clone, call_function=call)
    if with_weights:
        for old, new in twins:
            if getattr(old, "weights", None):
                new.set_weights(old.get_weights())
                if isinstance(new, keras.layers.Normalization):
                    new.finalize_state()  # else it goes on with the numbers that it was built with
    return copy


def _settled_names(model: keras.Model) -> dict[str, str]:
    """Return the new names of all operations with automatic names, such as {"conv2d_17": "conv2d_1"}."""
    automatic: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for operation in model.operations:
        kind, number = re.fullmatch(r"(.*?)(?:_(\d+))?", operation.name).groups()  # type: ignore[union-attr]
        if kind.replace("_", "") == type(operation).__name__.lower():
            automatic[kind].append((int(number or 0), operation.name))
    return {
        old: f"{kind}_{rank}"
        for kind, numbered in automatic.items()
        for rank, (_, old) in enumerate(sorted(numbered), start=1)
    }


def _settle_normalization(features: keras.Model, normalize: str) -> None:
    """Make the layer that scales inside EfficientNet do what it should with weights from a file.

    The library keeps ImageNet's deviation where the layer expects its square, and makes up for it in a further layer,
    but only with weights="imagenet"; from a file the same weights would be scaled otherwise.
    """
    for layer in features.layers:
        if not isinstance(layer, keras.layers.Normalization) or not layer.weights:
            continue
        mean, variance, count = layer.get_weights()
        if normalize == "imagenet":
            mean, variance = np.zeros_like(mean), np.ones_like(variance)
        elif np.allclose(variance, IMAGENET_DEVIATION):
            variance = variance**2
        layer.set_weights([mean, variance, count])
        layer.finalize_state()
