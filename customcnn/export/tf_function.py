"""The network as a function of raw pixels in TensorFlow: what SavedModel, ONNX and LiteRT are written from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import keras

INPUT, OUTPUT = "image", "probabilities"
"""Names of what goes in and of what comes out, in the formats that name them."""


def in_float32(model: keras.Model) -> keras.Model:
    """Return the network after every layer was set to float32, in place.

    The rounding of a half-precision training is no part of the network: what computes it chooses its own precision.
    """
    for layer in _layers(model):
        layer.dtype_policy = "float32"
    return model


def _layers(model: keras.Model) -> list[Any]:
    found: list[Any] = []
    for layer in model.layers:
        found += [layer, *(_layers(layer) if hasattr(layer, "layers") else ())]
    return found


def serving(model: keras.Model, last: Callable[[Any], Any] = lambda x: x) -> Any:
    """Return a tf.function of uint8 (N, H, W, 3) that gives {"probabilities": float32 (N, classes) or (N, 1)}.

    Args:
        model: in float32.
        last: what is done to its output.
    """
    import tensorflow as tf

    height, width = model.inputs[0].shape[1:3]
    _own_constants(model)

    @tf.function(input_signature=[tf.TensorSpec((None, height, width, 3), tf.uint8, name=INPUT)])
    def serve(image: Any) -> dict[str, Any]:
        return {OUTPUT: last(model(tf.cast(image, tf.float32), training=False))}

    return serve


def _own_constants(model: keras.Model) -> None:
    """Make arrays of what normalisation layers keep as tensors, in place: the ONNX converter takes those for inputs."""
    import keras

    for layer in _layers(model):
        if isinstance(layer, keras.layers.Normalization):
            layer.mean, layer.variance = (keras.ops.convert_to_numpy(x) for x in (layer.mean, layer.variance))


def load(path: Path) -> Any:
    """Return the signature serving_default of a SavedModel; it takes tensors by name."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    function = loaded.signatures["serving_default"]

    def call(**arrays: Any) -> dict[str, Any]:
        # The loaded object holds the weights: it must live as long as the function.
        assert loaded is not None
        found: dict[str, Any] = function(**{name: tf.constant(array) for name, array in arrays.items()})
        return found

    return call


def plain_operations(model: keras.Model) -> None:
    """Compute resizing that averages by products of matrices, in place: few formats have an operation for it.

    It is linear, first along the height and then along the width, and gives the same pixels to the rounding of float32.
    An ensemble of networks of different input sizes has such layers.
    """
    import keras

    for layer in _layers(model):
        if isinstance(layer, keras.layers.Resizing) and layer.antialias:
            height, width = layer.input.shape[1:3]
            layer.call = _products(height, width, layer.height, layer.width)


def _products(height: int, width: int, new_height: int, new_width: int) -> Callable[[Any], Any]:
    from keras import ops

    down, across = _weights(height, new_height), _weights(width, new_width)

    def resize(image: Any, training: object = None) -> Any:
        x = ops.matmul(ops.transpose(image, (0, 2, 3, 1)), down)  # (N, W, C, new H)
        x = ops.matmul(ops.transpose(x, (0, 3, 2, 1)), across)  # (N, new H, C, new W)
        return ops.transpose(x, (0, 1, 3, 2))

    return resize


def _weights(old: int, new: int) -> Any:
    """Return what each of the old pixels gives to each of the new ones, (old, new): the images of single pixels."""
    from keras import ops

    single = ops.reshape(ops.eye(old, dtype="float32"), (old, old, 1, 1))
    resized = ops.image.resize(single, (new, 1), interpolation="bilinear", antialias=True, data_format="channels_last")
    return ops.convert_to_numpy(resized)[:, :, 0, 0]
