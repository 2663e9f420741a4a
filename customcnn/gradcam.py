"""Grad-CAM: where in an image a network sees what speaks for a class."""

from typing import Any

import numpy as np
from PIL import Image

from customcnn.errors import CustomCNNError, show

STRONGEST = 0.6
"""How much of the colour lies over the image where the map is 1."""


class GradCam:
    """Grad-CAM of one network, for any number of images; see `grad_cam`.

    Raises:
        CustomCNNError: the network has no feature maps.
    """

    def __init__(self, model: Any) -> None:
        import keras

        self.model = model
        # A model inside that gives no row of numbers is a step of the network, not a member.
        inside = [layer for layer in model.layers if isinstance(layer, keras.Model) and len(layer.output.shape) == 2]
        self.members = [GradCam(member) for member in inside]
        if not self.members:
            self.features, self.head = _split(model)

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

        values = self.features(image[None], training=False)
        gradient = _gradient(lambda x: _score(self.head, x, index), values)
        maps, gradient = (keras.ops.convert_to_numpy(keras.ops.cast(x, "float32"))[0] for x in (values, gradient))
        heat = np.maximum(maps @ gradient.mean(axis=(0, 1)), 0)
        return _placed(self.model, heat, image.shape[:2])


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


def _split(model: Any) -> tuple[Any, Any]:
    """Return the network up to its last feature maps, and from there to its scores."""
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
            return keras.Model(model.inputs[0], maps), _head(model, maps)
        except ValueError:  # another way leads around this layer
            continue
    raise CustomCNNError(
        f"Grad-CAM needs feature maps. Received: the model {show(model.name)}, which has none. "
        "Choose a convolutional network."
    )


def _head(model: Any, maps: Any) -> Any:
    """Return the network from the maps to the scores before the softmax or sigmoid, (batch, classes) or (batch, 1)."""
    import keras

    last = next((layer for layer in reversed(model.layers) if isinstance(layer, keras.layers.Dense)), None)
    if last is None:
        return keras.Model(maps, model.outputs[0])
    # A probability of 1 has no gradient left; the score before it has.
    linear = keras.layers.Dense(last.units, dtype="float32", name="scores")
    scores = linear(last.input)
    linear.set_weights([keras.ops.convert_to_numpy(weight) for weight in last.weights])
    return keras.Model(maps, scores)


def _score(head: Any, maps: Any, index: int) -> Any:
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


def _placed(model: Any, heat: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Stretch a map over the input, or over the part of it that the network looks at."""
    import keras

    crop = next((layer for layer in model.layers if isinstance(layer, keras.layers.Cropping2D)), None)
    (top, bottom), (left, right) = crop.cropping if crop else ((0, 0), (0, 0))
    inside = (size[0] - top - bottom, size[1] - left - right)
    return np.pad(_stretched(heat, inside), ((top, bottom), (left, right)))


def _stretched(heat: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    picture = Image.fromarray(heat.astype(np.float32))
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
