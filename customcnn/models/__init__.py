"""The networks: functions that read the table and build what it names.

Nothing heavy is imported here: Keras comes with `build_model`, which imports the module that the row names.
"""

from __future__ import annotations

import difflib
import pkgutil
from typing import TYPE_CHECKING

from customcnn.errors import CustomCNNError
from customcnn.models.options import checked_classes, checked_options, checked_size, shown
from customcnn.models.table import SPECS, ModelSpec

if TYPE_CHECKING:
    import keras

__all__ = ["ModelSpec", "build_model", "get_spec", "list_models"]


def list_models() -> list[ModelSpec]:
    """Return every row of the table, in the order of the documentation."""
    return list(SPECS)


def get_spec(name: str) -> ModelSpec:
    """Return the row of one network.

    Args:
        name: a name of the table.

    Raises:
        CustomCNNError: for a name that is not in the table.
    """
    specs = {spec.name: spec for spec in SPECS}
    if name in specs:
        return specs[name]
    near = difflib.get_close_matches(str(name).lower(), specs, n=1)
    hint = f"Did you mean {near[0]}?" if near else "Choose one of them."
    raise CustomCNNError(f"The model must be one of those that customcnn models lists. Received: {shown(name)}. {hint}")


def build_model(
    name: str, *, classes: int = 2, input_size: int | tuple[int, int] | None = None, **options: object
) -> keras.Model:
    """Build a network of the table, with fresh random weights unless the options name others.

    Args:
        name: a name of the table.
        classes: how many classes, 2 or more.
        input_size: height and width in pixels; one number means a square; None means the network's own size.
        options: those of the row (`ModelSpec.options`). Every network takes
            freeze: "none", "all" (all before the classifier), or a number as text: N freezes the first N layers, -N
                all but the last N; see `customcnn.models.freeze`;
            normalize: "own", "imagenet", which scales by ImageNet's mean and deviation instead, or "raw", which does
                not scale;
            center_crop: edge in pixels of the square about the centre that the network looks at; 0 for all.
            Backbones take
            head: "plain", "transfer", "dense128" or "report", see `customcnn.models.heads`;
            pooling: of the head, "avg" or "max";
            classifier_activation: "softmax" or "sigmoid";
            dropout: share of 0 or more, below 1; None for the head's own;
            weights: "none", "imagenet", or the path of an .h5 file for the backbone.

    Returns:
        A functional Keras model named `name`. Input: (batch, height, width, 3), RGB, 0..255. Output, from the layer
        `predictions`: float32 probabilities (batch, classes), or (batch, 1) where the row says sigmoid; with
        classifier_activation="sigmoid" those of a class need not sum to 1 with the others. GoogLeNet with
        auxiliary=True has two more outputs of the same shape, from `aux1` and `aux2`.

    Raises:
        CustomCNNError: for an unknown name or option, for a value out of range, and for weights that cannot be had.
    """
    spec = get_spec(name)
    count = checked_classes(spec, classes)
    chosen = checked_options(spec, options)
    size = checked_size(spec, spec.input_size if input_size is None else input_size, chosen["center_crop"])
    freeze = str(chosen.pop("freeze"))
    build = pkgutil.resolve_name(spec.builder)
    model = build(classes=count, input_size=size, **spec.arguments, **chosen)
    if freeze != "none":
        from customcnn.models.freeze import freeze_layers

        freeze_layers(model, freeze)
    return model
