"""The checks of what `build_model` is given: classes, input size and options, each against the row of the table."""

from __future__ import annotations

import numbers
import re
from collections.abc import Mapping

from customcnn.errors import CustomCNNError, show
from customcnn.models.table import HEADS, ON_BACKBONES, SPECS, ModelSpec

CHOICES = {
    "head": HEADS,
    "pooling": ("avg", "max"),
    "classifier_activation": ("softmax", "sigmoid"),
    "normalize": ("own", "imagenet", "raw"),
}
SWITCHES = ("auxiliary", "batch_norm")


def checked_classes(spec: ModelSpec, classes: object) -> int:
    """Return the number of classes, once it is known to be one."""
    if not _is_whole(classes) or classes < 2:  # type: ignore[operator]
        raise CustomCNNError(
            f"{spec.name} needs a whole number of classes, 2 or more. Received: {shown(classes)}. "
            "Give the data one folder for each class."
        )
    return int(classes)  # type: ignore[call-overload]


def checked_size(spec: ModelSpec, received: object, center_crop: object = 0) -> tuple[int, int]:
    """Return (height, width), once they, and the square that is cropped from them, are large enough for the network."""
    sides = tuple(received) if isinstance(received, tuple | list) else (received, received)
    if len(sides) != 2 or not all(_is_whole(side) for side in sides):
        raise CustomCNNError(
            f"input_size must be a whole number of pixels, or two: height and width. Received: {shown(received)}. "
            f"{spec.name} is usually given {spec.input_size}."
        )
    height, width = (int(side) for side in sides)
    least = spec.minimum_size
    if min(height, width) < least:
        others = [row for row in SPECS if row.minimum_size <= min(height, width)]
        # The one that was made for the largest images among them; of several the lightest.
        fitting = min(others, key=lambda row: (-row.minimum_size, row.parameters), default=None)
        way_out = f" or choose {fitting.name}" if fitting else ""
        raise CustomCNNError(
            f"{spec.name} needs an input of at least {least} x {least} pixels. Received: {height} x {width}. "
            f"Give a larger input_size{way_out}."
        )
    if center_crop and not least <= center_crop <= min(height, width):  # type: ignore[operator]
        raise CustomCNNError(
            f"center_crop must lie between {least}, the least that {spec.name} needs, and {min(height, width)}, the "
            f"shorter side of the input. Received: {center_crop}. 0 takes the whole input."
        )
    return height, width


def checked_options(spec: ModelSpec, options: Mapping[str, object]) -> dict[str, object]:
    """Return the row's options with those that are given, once these are known to be fine."""
    for option, value in options.items():
        if option not in spec.options:
            raise CustomCNNError(_unknown(spec, option, value))
        if option in CHOICES and value not in CHOICES[option]:
            raise CustomCNNError(f"{option} must be one of {', '.join(CHOICES[option])}. Received: {shown(value)}.")
        if option in SWITCHES and not isinstance(value, bool):
            raise CustomCNNError(f"{option} must be true or false. Received: {shown(value)}.")
    chosen = {**spec.options, **options}
    _check_dropout(spec, chosen)
    _check_head(chosen)
    _check_weights(spec, chosen)
    crop, freeze = chosen["center_crop"], chosen["freeze"]
    if not _is_whole(crop) or crop < 0:  # type: ignore[operator]
        raise CustomCNNError(
            f"center_crop must be a whole number of pixels, 0 or more. Received: {shown(crop)}. "
            "0 takes the whole input."
        )
    if isinstance(freeze, bool) or re.fullmatch(r"none|all|-?[0-9]+", str(freeze)) is None:
        raise CustomCNNError(
            f"freeze must be none, all, or a whole number of layers. Received: {shown(freeze)}. "
            "5 freezes the first 5 layers, -5 all but the last 5."
        )
    return chosen


def _unknown(spec: ModelSpec, option: str, value: object) -> str:
    if option == "weights":
        return (
            f"{spec.name} begins with random weights. Received: weights {shown(value)}. Leave it out, or choose a "
            "backbone such as vgg16."
        )
    if option in ON_BACKBONES and option != "dropout":
        return (
            f"{spec.name} has its own classifier and takes no {option}. Received: {option} {shown(value)}. Leave it "
            "out, or choose a backbone such as vgg16."
        )
    return f"{spec.name} takes only {', '.join(spec.options)}. Received: {shown(option)}. Leave it out."


def _check_dropout(spec: ModelSpec, chosen: Mapping[str, object]) -> None:
    dropout = chosen.get("dropout")
    if dropout is None:
        return
    # A share of 1 would leave nothing to learn from.
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        usual = spec.options["dropout"]
        way_out = "Leave it out for the head's own." if usual is None else f"{spec.name} is usually given {usual}."
        raise CustomCNNError(f"dropout must be a share of 0 or more and below 1. Received: {shown(dropout)}. {way_out}")


def _check_head(chosen: Mapping[str, object]) -> None:
    head = chosen.get("head")
    if head == "report" and chosen["pooling"] != "avg":
        raise CustomCNNError(
            f"The head report flattens the feature maps and pools nothing. Received: pooling {chosen['pooling']!r}. "
            "Leave it out, or choose another head."
        )
    ends = [chosen.get(key) for key in ("head", "pooling", "classifier_activation")]
    if chosen.get("auxiliary") and ends != ["plain", "avg", "softmax"]:
        raise CustomCNNError(
            "With its auxiliary classifiers googlenet keeps its own head: plain, with average pooling and softmax. "
            f"Received: head {head!r}, pooling {chosen['pooling']!r}, classifier_activation {ends[2]!r}. "
            "Leave out auxiliary, or these."
        )


def _check_weights(spec: ModelSpec, chosen: Mapping[str, object]) -> None:
    weights = chosen.get("weights", "none")
    if weights == "imagenet" and "application" not in spec.arguments:
        raise CustomCNNError(
            f"Keras has no ImageNet weights for {spec.name}. Received: weights 'imagenet'. Use weights=none or a file."
        )
    if weights not in ("none", "imagenet") and not str(weights).endswith(".h5"):
        raise CustomCNNError(
            f"weights must be none, imagenet, or a file of weights that ends in .h5. Received: {shown(weights)}. "
            "Check its name."
        )


def _is_whole(value: object) -> bool:
    """Tell whether a value is an integer, be it one of numpy; True and False are none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def shown(value: object) -> str:
    """Return text quoted, anything else as Python writes it, on one line."""
    return show(value) if isinstance(value, str) else " ".join(repr(value).split())
