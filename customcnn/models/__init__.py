"""The networks: one row of plain data each, and the functions that read the table.

Nothing heavy is imported here: Keras comes with `build_model`, which imports the module that the row names.
To add a network, write a function `(classes, input_size, **options) -> keras.Model` and give it a row.
"""

from __future__ import annotations

import difflib
import numbers
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from customcnn.errors import CustomCNNError, show

if TYPE_CHECKING:
    import keras

__all__ = ["ModelSpec", "build_model", "get_spec", "list_models"]

SOFTMAX = "softmax"
SIGMOID_FOR_TWO = "sigmoid when two classes"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One network of the table.

    Attributes:
        name: what `--model` takes; also the name of the Keras model.
        builder: "module:function" of the function that builds it.
        title: one line for people.
        input_size: height and width of the default input, in pixels.
        minimum_size: least height and width that the network accepts, in pixels.
        scaling: what its first layer does to pixels 0..255.
        parameters: number of weights at `input_size` with `classes` classes.
        citation: where the network comes from.
        classes: the number of classes that `parameters` holds for.
        output: "softmax", one probability a class, or "sigmoid when two classes": for two classes the one
            probability of the second class, softmax for more.
        options: what `build_model` takes beside classes and input size, with the defaults.
        recipe: recipe keys in which the training of its study differs from the defaults of this package.
    """

    name: str
    builder: str
    title: str
    input_size: int
    minimum_size: int
    scaling: str
    parameters: int
    citation: str
    classes: int = 2
    output: str = SOFTMAX
    options: Mapping[str, object] = field(default_factory=dict, hash=False)
    recipe: Mapping[str, object] = field(default_factory=dict, hash=False)


_REPORT = 'the report "ALL detection with a 14-convolution network, compared with four classical networks" (2019)'

_SPECS = (
    ModelSpec(
        name="proposed",
        builder="customcnn.models.proposed:proposed",
        title="the report's network as its text tells it: 14 convolutions with batch norm, 3 dense layers",
        input_size=150,
        # 'same' pooling never leaves less than one pixel; from 17 on each of the five still has two to choose from.
        minimum_size=17,
        scaling="x / 255",
        parameters=64_104_122,
        citation=f"{_REPORT}, its text",
        options={"dropout": 0.5},
    ),
    ModelSpec(
        name="proposed-figures",
        builder="customcnn.models.proposed:proposed_figures",
        title="the same network as the report's figures print it: 13 convolutions",
        input_size=150,
        minimum_size=17,
        scaling="x / 255",
        parameters=64_066_938,
        citation=f"{_REPORT}, its figures 18 and 19",
        options={"dropout": 0.5},
    ),
    ModelSpec(
        name="alexnet",
        builder="customcnn.models.alexnet:alexnet",
        title="AlexNet in a single tower, with local response normalisation",
        input_size=227,
        minimum_size=67,
        scaling="x / 255",
        parameters=58_289_538,
        citation="Krizhevsky, Sutskever and Hinton, ImageNet Classification with Deep Convolutional Neural Networks, "
        "NeurIPS 2012",
        options={"dropout": 0.5},
    ),
    ModelSpec(
        name="small",
        builder="customcnn.models.small:small",
        title="the baseline of the three-convolution study: 3 convolutions, 2 dense layers",
        input_size=224,
        minimum_size=22,
        scaling="x / 255",
        parameters=2_825_345,
        citation="the three-convolution study of C-NMC 2019",
        output=SIGMOID_FOR_TWO,
        options={"dropout": 0.0},
        # Epochs and rate are the best of the study's grid search. It names neither optimizer nor batch size:
        # Adam (of which 1e-3 is the usual rate) and 32 are our choice.
        recipe={"optimizer": "adam", "learning_rate": 1e-3, "epochs": 20, "batch_size": 32},
    ),
)


def list_models() -> list[ModelSpec]:
    """Return every row of the table, in the order of the documentation."""
    return list(_SPECS)


def get_spec(name: str) -> ModelSpec:
    """Return the row of one network.

    Args:
        name: a name of the table.

    Raises:
        CustomCNNError: for a name that is not in the table.
    """
    specs = {spec.name: spec for spec in _SPECS}
    if name in specs:
        return specs[name]
    near = difflib.get_close_matches(str(name).lower(), specs, n=1)
    hint = f" Did you mean {near[0]}?" if near else " See `customcnn models`."
    raise CustomCNNError(f"The model must be one of {', '.join(specs)}. Received: {_shown(name)}.{hint}")


def build_model(
    name: str, *, classes: int = 2, input_size: int | tuple[int, int] | None = None, **options: object
) -> keras.Model:
    """Build a network of the table with fresh random weights.

    Args:
        name: a name of the table.
        classes: how many classes, 2 or more.
        input_size: height and width in pixels; one number means a square; None means the network's own size.
        options: those of the row (`ModelSpec.options`), such as dropout: a share of 0 or more, below 1.

    Returns:
        A functional Keras model named `name`. Input: (batch, height, width, 3), RGB, 0..255. Output, from the layer
        `predictions`: float32 probabilities (batch, classes), or (batch, 1) where the row says sigmoid.

    Raises:
        CustomCNNError: for an unknown name or option, and for a value out of range.
    """
    spec = get_spec(name)
    if not _is_whole(classes) or classes < 2:
        raise CustomCNNError(
            f"{name} needs a whole number of classes, 2 or more. Received: {_shown(classes)}. "
            "Give the data one folder for each class."
        )
    size = _checked_size(spec, spec.input_size if input_size is None else input_size)
    _check_options(spec, options)
    build = pkgutil.resolve_name(spec.builder)
    return build(classes=int(classes), input_size=size, **(dict(spec.options) | options))


def _checked_size(spec: ModelSpec, received: object) -> tuple[int, int]:
    """Return (height, width), once they are known to be large enough for the network."""
    sides = tuple(received) if isinstance(received, tuple | list) else (received, received)
    if len(sides) != 2 or not all(_is_whole(side) for side in sides):
        raise CustomCNNError(
            f"input_size must be a whole number of pixels, or two: height and width. Received: {_shown(received)}. "
            f"{spec.name} is usually given {spec.input_size}."
        )
    height, width = (int(side) for side in sides)
    least = spec.minimum_size
    if min(height, width) < least:
        others = [row for row in _SPECS if row.minimum_size <= min(height, width)]
        way_out = f" or choose {min(others, key=lambda row: row.parameters).name}" if others else ""
        raise CustomCNNError(
            f"{spec.name} needs an input of at least {least} x {least} pixels. Received: {height} x {width}. "
            f"Give a larger --set input_size{way_out}."
        )
    return height, width


def _check_options(spec: ModelSpec, options: Mapping[str, object]) -> None:
    """Refuse options that the network does not know, and dropout out of range."""
    for option in options:
        if option not in spec.options:
            accepted = f"only {', '.join(spec.options)}" if spec.options else "no options"
            raise CustomCNNError(f"{spec.name} takes {accepted}. Received: {_shown(option)}. Leave it out.")
    dropout = options.get("dropout", 0.0)
    # A share of 1 would leave nothing to learn from.
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise CustomCNNError(
            f"dropout must be a share of 0 or more and below 1. Received: {_shown(dropout)}. "
            f"{spec.name} is usually given {spec.options['dropout']}."
        )


def _is_whole(value: object) -> bool:
    """Tell whether a value is an integer, be it one of numpy; True and False are none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _shown(value: object) -> str:
    """Return text quoted, anything else as Python writes it, on one line."""
    return show(value) if isinstance(value, str) else " ".join(repr(value).split())
