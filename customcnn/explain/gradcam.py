"""Grad-CAM and Grad-CAM++: where in an image a network sees what speaks for a class."""

from difflib import get_close_matches
from typing import Any

import numpy as np
from PIL import Image

from customcnn.errors import CustomCNNError, show, show_names
from customcnn.explain.graph import place_map, steps

STRONGEST = 0.6
"""How much of the colour lies over the image where the map is 1."""


class GradCam:
    """Grad-CAM or Grad-CAM++ of one network, for any number of images; see `grad_cam` and `grad_cam_plus_plus`.

    Args:
        model: a functional keras classifier of one input (H, W, 3) that takes raw 0..255 RGB.
        layer: a name of `cam_layers`, whose maps are taken; None for the last feature maps.
        plus_plus: weigh the maps as Grad-CAM++ does.

    Attributes:
        layer: the name of the layer; "" for an ensemble, the last feature maps of each of its members.

    Raises:
        CustomCNNError: the network has no feature maps, or no such layer.
    """

    def __init__(self, model: Any, layer: str | None = None, plus_plus: bool = False) -> None:
        self.model = model
        self.plus_plus = plus_plus
        self.layer = layer or ""
        self.members: list[GradCam] = []
        inside = _members(model)
        if inside and layer is None:
            self.members = [GradCam(member, None, plus_plus) for member in inside]
            return
        if layer is not None:
            _require_layer(model, layer)
        owner = next((member for member in inside if layer and layer.startswith(f"{member.name}/")), None)
        if owner is not None and layer is not None:
            self.members = [GradCam(owner, layer.removeprefix(f"{owner.name}/"), plus_plus)]
            return
        self.layer, self.features, self.head = _split(model) if layer is None else _split_at(model, layer)
        self.steps = steps(model, inside=False)
        self.place = next(place for place, step in enumerate(self.steps) if step.name == self.layer)

    def __call__(self, image: np.ndarray, index: int) -> np.ndarray:
        """Return the map of an image for a class; see `grad_cam`."""
        expected = tuple(self.model.inputs[0].shape[1:])
        if image.dtype != np.uint8 or image.shape != expected:
            raise ValueError(f"The network takes a uint8 image {expected}. Received: {image.dtype} {image.shape}.")
        return self._scaled_map(image.astype(np.float32), index)

    def _scaled_map(self, image: np.ndarray, index: int) -> np.ndarray:
        heat = self._mean_of_members(image, index) if self.members else self._own_map(image, index)
        highest = float(heat.max())
        return (heat / highest if highest > 0 else np.zeros_like(heat)).astype(np.float32)

    def _mean_of_members(self, image: np.ndarray, index: int) -> np.ndarray:
        maps = [member._scaled_map(_fitted(member.model, image), index) for member in self.members]
        return np.mean([_stretched(heat, image.shape[:2]) for heat in maps], axis=0)

    def _own_map(self, image: np.ndarray, index: int) -> np.ndarray:
        import keras

        found = self.features(image[None], training=False)
        values, *around = found if isinstance(found, list) else [found]  # Keras unpacks a list of one
        gradient = _gradient(lambda x: _score(self.head, [x, *around], index), values)
        maps, gradient = (keras.ops.convert_to_numpy(keras.ops.cast(x, "float32"))[0] for x in (values, gradient))
        weights = _plus_plus(maps, gradient) if self.plus_plus else gradient.mean(axis=(0, 1))
        return place_map(self.steps, self.place, np.maximum(maps @ weights, 0), image.shape[:2])


def _plus_plus(maps: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Return Grad-CAM++'s weight of each map, (C,), from maps and gradient, both (H, W, C).

    For the exponential of a score, g its gradient and S the sum of a map, the paper's alpha is g^2 / (2 g^2 + S g^3).
    Only places where g is above 0 count, so it is 1 / (2 + S g). Maps are taken as behind a ReLU, as in the paper:
    where a layer has none, a negative sum would turn the sign.
    """
    positive = np.maximum(gradient, 0).astype(np.float64)
    total = np.maximum(maps, 0).sum(axis=(0, 1), dtype=np.float64)
    return (positive / (2 + total * positive)).sum(axis=(0, 1))


def grad_cam(model: Any, image: np.ndarray, index: int) -> np.ndarray:
    """Return how much each place of an image speaks for a class.

    The last feature maps are summed, each weighted by the mean gradient of the class's score with respect to it, and
    what speaks against the class is cut off. The score is the one before the softmax or the sigmoid. For an ensemble it
    is the mean of its members' maps.

    Args:
        model: a functional keras classifier of one input (H, W, 3) that takes raw 0..255 RGB.
        image: uint8 (H, W, 3) of the model's input size.
        index: the number of the class.

    Returns:
        float32 (H, W), 0..1; the largest value is 1, or 0 where nothing speaks for the class.

    Raises:
        ValueError: the image is of another size or type.
        CustomCNNError: the network has no feature maps.

    Reference: Selvaraju et al. (2017), Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization, doi:10.1109/ICCV.2017.74.
    """
    return GradCam(model)(image, index)


def grad_cam_plus_plus(model: Any, image: np.ndarray, index: int) -> np.ndarray:
    """Return how much each place of an image speaks for a class, several places of one kind alike.

    Like `grad_cam`, but a map's weight is the weighted sum of its positive gradients, so that a map that is active in a
    small place counts as much as one that is active everywhere.

    Args, returns and raises: as `grad_cam`.

    Reference: Chattopadhay, Sarkar, Howlader and Balasubramanian (2018), Grad-CAM++: Generalized Gradient-based Visual
    Explanations for Deep Convolutional Networks, doi:10.1109/WACV.2018.00097.
    """
    return GradCam(model, plus_plus=True)(image, index)


def cam_layers(model: Any) -> list[str]:
    """Return the names of the layers that Grad-CAM can be made of, in graph order; in an ensemble `member/layer`.

    These are the layers from the first convolution on whose output is maps, (batch, height, width, channels).
    """
    members = _members(model)
    if members:
        return [f"{member.name}/{name}" for member in members for name in cam_layers(member)]
    found = steps(model, inside=False)
    first = next((place for place, step in enumerate(found) if "Conv" in step.kind), len(found))
    return [step.name for step in found[first:] if step.has_maps and hasattr(step.operation, "weights")]


def _members(model: Any) -> list[Any]:
    import keras

    # A model inside that gives no row of numbers is a step of the network, not a member.
    return [layer for layer in model.layers if isinstance(layer, keras.Model) and len(layer.output.shape) == 2]


def _require_layer(model: Any, layer: str) -> None:
    names = cam_layers(model)
    if layer in names:
        return
    near = get_close_matches(layer, names, n=3) or names[-3:]
    hint = f"Near are {show_names(near)}" if near else "It has none"
    raise CustomCNNError(
        f"Grad-CAM is made of a layer with feature maps. Received: {show(layer)}, which {show(model.name)} does not "
        f"have. {hint}; customcnn summary lists the layers."
    )


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lay a map over an image: yellow where it is 1, the image itself where it is 0.

    Args:
        image: uint8 (H, W, 3), of any size.
        heat: float (h, w), 0..1; it is stretched over the image.

    Returns:
        uint8 (H, W, 3).
    """
    import matplotlib

    height, width, _ = image.shape
    shares = _stretched(heat, (height, width)).clip(0, 1)
    colors = matplotlib.colormaps["plasma"](shares)[..., :3] * 255
    opaque = STRONGEST * shares[..., None]
    return np.rint(image * (1 - opaque) + colors * opaque).astype(np.uint8)


def _fitted(member: Any, image: np.ndarray) -> np.ndarray:
    import keras

    height, width = member.inputs[0].shape[1:3]
    if image.shape[:2] == (height, width):
        return image
    resized = keras.ops.image.resize(image[None], (height, width), interpolation="bilinear", antialias=True)
    return keras.ops.convert_to_numpy(resized)[0]


def _split_at(model: Any, layer: str) -> tuple[str, Any, Any]:
    """Return the same as `_split` for a layer of any name; both parts also carry what leads around the layer."""
    import keras

    found = steps(model, inside=False)
    maps = next(step.tensor for step in found if step.name == layer)
    image = next(place for place, step in enumerate(found) if not step.parents)
    # All that leads around the layer comes from these: the image itself cannot be one of two inputs, for Keras would
    # then write into the graph of the model.
    around = [step.tensor for step in found if image in step.parents and step.tensor is not maps]
    return layer, keras.Model(model.inputs[0], [maps, *around]), _head(model, [maps, *around])


def _split(model: Any) -> tuple[str, Any, Any]:
    """Return the name of the last feature maps, the network up to them, and from there to its scores."""
    import keras

    passing = (keras.layers.MaxPooling2D, keras.layers.AveragePooling2D, keras.layers.Dropout)
    for layer in reversed(model.layers):
        maps = layer.output
        # Pooling throws places away; what stands before it says more about them.
        if isinstance(layer, passing) or len(maps.shape) != 4 or max(maps.shape[1:3]) < 2:
            continue
        if not any(isinstance(before, keras.layers.Conv2D) for before in model.layers[: model.layers.index(layer) + 1]):
            break
        try:
            return layer.name, keras.Model(model.inputs[0], [maps]), _head(model, [maps])
        except ValueError:  # another way leads around this layer
            continue
    raise CustomCNNError(
        f"Grad-CAM needs feature maps. Received: the model {show(model.name)}, which has none. "
        "Choose a convolutional network."
    )


def _head(model: Any, maps: list[Any]) -> Any:
    """Return the network from a list of inner values to the scores before the softmax or sigmoid, (batch, classes)."""
    import keras

    last = next((layer for layer in reversed(model.layers) if isinstance(layer, keras.layers.Dense)), None)
    if last is None:
        return keras.Model(maps, model.outputs[0])
    # A probability of 1 has no gradient left; the score before it has.
    linear = keras.layers.Dense(last.units, dtype="float32", name="scores")
    scores = linear(last.input)
    linear.set_weights([keras.ops.convert_to_numpy(weight) for weight in last.weights])
    return keras.Model(maps, scores)


def _score(head: Any, maps: list[Any], index: int) -> Any:
    scores = head(maps, training=False)
    if scores.shape[-1] == 1:  # one sigmoid output: what speaks against the second class speaks for the first
        return scores[0, 0] if index == 1 else -scores[0, 0]
    return scores[0, index]


def _gradient(score: Any, values: Any) -> Any:
    """Return the gradient of a score with respect to its argument: each backend has a way of its own."""
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(values)
            result = score(values)
        return tape.gradient(result, values)
    if backend == "jax":
        import jax

        return jax.grad(score)(values)
    import torch

    values = values.detach().requires_grad_(True)
    return torch.autograd.grad(score(values), values)[0]


def _stretched(heat: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    picture = Image.fromarray(heat.astype(np.float32))
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
