"""The engine "layers": Keras's preprocessing layers, on whichever backend Keras runs.

The amounts lie in the ranges of `Augmentation`. Where Keras computes otherwise:

- Quarter turns come first. Every change of place is a layer of its own and interpolates anew.
- The border is reflected as the backend does it: on PyTorch, d c b | a b c d | c b a.
- The zoom is even in the size of what is seen, from 1 / (1 + zoom) to 1 / (1 - zoom), not in the factor.
- Brightness adds -x to x of 255. Contrast takes each channel's mean. Saturation multiplies the saturation of HSV.
- Results are not rounded.
"""

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import numpy as np

from customcnn.augmentation.draws import LAYERS, Amounts, draw, generator
from customcnn.augmentation.numpy_engine import turn_over
from customcnn.augmentation.settings import Augmentation, Transform
from customcnn.errors import CustomCNNError, show

Step = Callable[[Any, Sequence[Amounts]], Any]
"""A tensor, float32 (N, H, W, 3), and the amounts of its images go in; the tensor comes out changed."""


def layers_transform(augmentation: Augmentation) -> Transform:
    """Return the function that changes a batch, see `make_transform`.

    Raises:
        CustomCNNError: this Keras has no layer for a key.
    """
    import keras

    layers = {key: _layer(key, *needed) for key, needed in _wanted(augmentation).items()}
    steps = {key: _step(layer) for key, layer in layers.items()}
    steps |= {key: own for key, own in (("crop", _crop), ("gamma", _gamma)) if getattr(augmentation, key)}
    states = [v for layer in layers.values() for v in layer.variables if v.name == "seed_generator_state"]
    lock = Lock()  # the layers hold the seeds from here on until they are called

    def transform(images: np.ndarray, key: tuple[int, ...]) -> np.ndarray:
        amounts = draw(augmentation, key, len(images))
        seeds = generator(key, LAYERS).integers(2**31, size=len(states)).tolist()
        turned = [turn_over(image, _turns_alone(a)) for image, a in zip(images, amounts, strict=True)]
        with lock:
            for state, seed in zip(states, seeds, strict=True):
                state.assign(np.array([seed, 0], dtype=state.dtype))
            x = keras.ops.convert_to_tensor(np.stack(turned), "float32")
            for step in (steps[name] for name in ORDER if name in steps):
                x = keras.ops.clip(step(x, amounts), 0, 255)
            return keras.ops.convert_to_numpy(x)

    return transform


def _step(layer: Any) -> Step:
    return lambda x, amounts: layer(x, training=True)


def _turns_alone(amounts: Amounts) -> Amounts:
    return Amounts(quarter_turns=amounts.quarter_turns)


ORDER = (
    *("horizontal", "vertical", "rotate", "zoom", "shift", "crop"),
    *("brightness", "contrast", "gamma", "saturation", "hue"),
)


def _wanted(a: Augmentation) -> dict[str, tuple[str, dict[str, object]]]:
    """Return by step the name and the arguments of the Keras layers that are needed."""
    smaller, larger = 1 / (1 + a.zoom) - 1, 1 / (1 - a.zoom) - 1  # how much more than the image is seen
    low, high = (1 - a.saturation) / (2 - a.saturation), (1 + a.saturation) / (2 + a.saturation)  # Keras: f / (1 - f)
    steps: dict[str, tuple[object, str, dict[str, object]]] = {
        # One layer would draw one coin for both.
        "horizontal": (a.flip in ("horizontal", "both"), "RandomFlip", {"mode": "horizontal"}),
        "vertical": (a.flip in ("vertical", "both"), "RandomFlip", {"mode": "vertical"}),
        "rotate": (a.rotate, "RandomRotation", {"factor": a.rotate / 360}),
        "zoom": (a.zoom, "RandomZoom", {"height_factor": (smaller, larger)}),
        "shift": (a.shift, "RandomTranslation", {"height_factor": a.shift, "width_factor": a.shift}),
        "brightness": (a.brightness, "RandomBrightness", {"factor": a.brightness}),
        # One number would stand for 1 to 1 + x.
        "contrast": (a.contrast, "RandomContrast", {"factor": (a.contrast, a.contrast)}),
        "saturation": (a.saturation, "RandomSaturation", {"factor": (low, high)}),
        "hue": (a.hue, "RandomHue", {"factor": 2 * a.hue}),  # of half the circle
    }
    return {key: (name, arguments) for key, (wanted, name, arguments) in steps.items() if wanted}


def _layer(key: str, name: str, arguments: dict[str, object]) -> Any:
    import keras

    if not hasattr(keras.layers, name):
        raise CustomCNNError(
            f"Recipe key augmentation.{key} needs keras.layers.{name} where augmentation.engine is layers. "
            f"Received: Keras {show(keras.__version__)} without it. Update Keras, or take the engine arrays."
        )
    # A seed of its own keeps Keras from drawing one from Python's global generator.
    return getattr(keras.layers, name)(**arguments, seed=0, dtype="float32", data_format="channels_last")


def _crop(x: Any, amounts: Sequence[Amounts]) -> Any:
    """Enlarge each image's window. Keras's RandomCrop takes one window for the whole batch."""
    import keras

    height, width = x.shape[1:3]
    rows = []
    for a in amounts:
        # The centre of the first pixel of the result, in pixels of the image, the first of which has its centre at 0.
        left = a.across * (1 - a.window) * width + a.window / 2 - 0.5
        top = a.along * (1 - a.window) * height + a.window / 2 - 0.5
        rows.append([a.window, 0, left, 0, a.window, top, 0, 0])
    return keras.ops.image.affine_transform(
        x,
        keras.ops.convert_to_tensor(np.array(rows, np.float32)),
        interpolation="bilinear",
        fill_mode="nearest",
        data_format="channels_last",
    )


def _gamma(x: Any, amounts: Sequence[Amounts]) -> Any:
    import keras

    powers = np.array([a.gamma for a in amounts], np.float32)[:, None, None, None]
    return 255 * keras.ops.power(x / 255, powers)
