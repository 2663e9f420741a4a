"""Occlusion sensitivity: how much less probable a class becomes when a piece of the image is covered."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from customcnn.metrics.scores import two_columns

Function = Callable[[np.ndarray], np.ndarray]
FILLS = ("border", "grey", "mean")
BATCH = 32


def occlusion(
    model_or_function: Any,
    image: np.ndarray,
    index: int,
    *,
    patch: int | None = None,
    stride: int | None = None,
    fill: str | tuple[int, int, int] = "border",
    batch: int = BATCH,
) -> np.ndarray:
    """Return how much of a class's probability each place of an image holds up.

    A square slides over the image and covers it with one colour. What the class's probability loses by it is given to
    every pixel under the square; a pixel has the mean over all squares that covered it.

    Args:
        model_or_function: a keras classifier that takes raw 0..255 RGB, or any function from uint8 (N, H, W, 3) to
            probabilities (N, classes), such as one that asks a served or an exported network.
        image: uint8 (H, W, 3) of the network's input size.
        index: the number of the class.
        patch: edge of the square in pixels; None for a fifth of the smaller side.
        stride: its step in pixels; None for half of the square.
        fill: the colour: "border", the median of the image's outermost pixels, which on cells cut out of their
            photograph takes a piece of the cell away; "grey", 128, as in the paper; "mean", of the image; or RGB.
        batch: how many covered images are computed at once.

    Returns:
        float32 (H, W), -1..1: above 0 where the place speaks for the class, below 0 where it speaks against it.

    Raises:
        ValueError: another image, a square or a step that does not fit, or an unknown fill.

    Reference: Zeiler and Fergus (2014), Visualizing and Understanding Convolutional Networks, section 4.2,
    doi:10.1007/978-3-319-10590-1_53.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"An image is uint8 (H, W, 3). Received: {image.dtype} {image.shape}.")
    smaller = min(image.shape[:2])
    patch = max(1, round(smaller / 5)) if patch is None else patch
    stride = max(1, patch // 2) if stride is None else stride
    if not (1 <= patch <= smaller and 1 <= stride <= patch):
        raise ValueError(f"A square of 1..{smaller} moves by 1..its edge. Received: patch {patch}, stride {stride}.")
    predict = _function(model_or_function)
    before = float(np.asarray(predict(image[None]), np.float64)[0, index])
    height, width = image.shape[:2]
    lost, covers = np.zeros((height, width)), np.zeros((height, width))
    places = [(top, left) for top in _starts(height, patch, stride) for left in _starts(width, patch, stride)]
    shares = _shares(predict, _covered(image, places, patch, fill_color(image, fill)), len(places), batch, index)
    for (top, left), share in zip(places, shares, strict=True):
        square = (slice(top, top + patch), slice(left, left + patch))
        lost[square] += before - share
        covers[square] += 1
    return (lost / covers).astype(np.float32)


def _function(model_or_function: Any) -> Function:
    import keras

    if isinstance(model_or_function, keras.Model):
        return lambda images: two_columns(model_or_function.predict_on_batch(images))
    return model_or_function


def _starts(side: int, patch: int, stride: int) -> list[int]:
    """Return where squares begin along one side: every `stride` pixels, and once flush with the end."""
    return sorted({*range(0, side - patch + 1, stride), side - patch})


def _covered(image: np.ndarray, places: list[tuple[int, int]], patch: int, color: np.ndarray) -> Iterator[np.ndarray]:
    for top, left in places:
        covered = image.copy()
        covered[top : top + patch, left : left + patch] = color
        yield covered


def _shares(predict: Function, images: Iterator[np.ndarray], count: int, batch: int, index: int) -> Iterator[float]:
    for first in range(0, count, batch):
        some = np.stack([next(images) for _ in range(min(batch, count - first))])
        used = len(some)
        if count > batch and used < batch:
            # A batch of another size would be compiled anew.
            some = np.concatenate([some, some[:1].repeat(batch - used, axis=0)])
        yield from np.asarray(predict(some), np.float64)[:used, index]


def fill_color(image: np.ndarray, fill: str | tuple[int, int, int]) -> np.ndarray:
    """Return the colour, uint8 (3,), that covers a piece of an image; see `occlusion`.

    Raises:
        ValueError: an unknown fill.
    """
    if not isinstance(fill, str):
        return np.array(fill, np.uint8)
    if fill == "grey":
        return np.full(3, 128, np.uint8)
    if fill == "mean":
        return np.rint(image.mean(axis=(0, 1))).astype(np.uint8)
    if fill == "border":
        ring = np.concatenate([image[0], image[-1], image[1:-1, 0], image[1:-1, -1]])
        return np.rint(np.median(ring, axis=0)).astype(np.uint8)
    raise ValueError(f"A fill is one of {', '.join(FILLS)}, or three levels. Received: {fill!r}.")


def signed_overlay(image: np.ndarray, heat: np.ndarray, scale: float | None = None) -> np.ndarray:
    """Lay a map of both signs over the image in grey: red where it is above 0, blue below.

    Args:
        image: uint8 (H, W, 3).
        heat: float (H, W).
        scale: the value of full colour; None for the largest one.

    Returns:
        uint8 (H, W, 3).
    """
    import matplotlib

    largest = float(np.abs(heat).max()) if scale is None else scale
    shares = np.clip(heat / largest, -1, 1) if largest > 0 else np.zeros_like(heat)
    colors = matplotlib.colormaps["RdBu_r"](0.5 + shares / 2)[..., :3] * 255
    grey = image.mean(axis=2, keepdims=True).repeat(3, axis=2)
    opaque = 0.75 * np.sqrt(np.abs(shares))[..., None]
    return np.rint(grey * (1 - opaque) + colors * opaque).astype(np.uint8)
