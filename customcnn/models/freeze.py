"""Freezing: layers that keep their weights while the rest of a network is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from customcnn.errors import CustomCNNError

if TYPE_CHECKING:
    import keras

CLASSIFIER = ("flatten", "fc", "head_", "aux", "predictions")
"""How the names of the layers of every classifier begin; it is trained whatever is frozen."""

ADDED = ("center_crop", "rescale")
"""Layers before the network's own, which have no weights and are not counted."""


def body_layers(model: keras.Model) -> list[Any]:
    """Return the layers that `freeze_layers` counts: the input and all up to the classifier, as Keras lists them.

    For a backbone these are the `layers` of the network of keras.applications without its top, the input first (for
    ConvNeXt, whose library form has models inside the model, those of our flat form).

    Args:
        model: from `build_model`.
    """
    return [layer for layer in model.layers if layer.name not in ADDED and not layer.name.startswith(CLASSIFIER)]


def freeze_layers(model: keras.Model, freeze: str) -> None:
    """Freeze layers of a network, in place and before it is compiled.

    A frozen batch normalisation also normalises by its running statistics in training, and does not move them: so
    Keras treats every batch normalisation that is not trainable.

    Args:
        model: from `build_model`.
        freeze: "none"; "all", everything before the classifier; N, the first N of `body_layers`; -N, all of them but
            the last N.

    Raises:
        CustomCNNError: for more layers than there are.
    """
    layers = body_layers(model)
    if freeze not in ("none", "all") and abs(int(freeze)) > len(layers):
        raise CustomCNNError(
            f"freeze must be none, all, or a number of layers up to the {len(layers)} of {model.name} before its "
            f"classifier. Received: {freeze}. Use all for every one."
        )
    count = {"none": 0, "all": len(layers)}.get(freeze)
    if count is None:
        count = int(freeze) if int(freeze) >= 0 else len(layers) + int(freeze)
    for layer in layers[:count]:
        layer.trainable = False
