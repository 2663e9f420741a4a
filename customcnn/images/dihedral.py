"""The eight flips and 90-degree rotations of an image: all of them, and one that flags choose.

Flags say first which flips, then how many rotations by 90 degrees counter-clockwise follow; Augmentor's operations come
the other way round.
"""

from typing import Any, TypeVar

import numpy as np
from PIL import Image

Flag = TypeVar("Flag", bool, np.ndarray)


def eight_views(images: np.ndarray, axes: tuple[int, int] = (0, 1)) -> list[np.ndarray]:
    """Return the rotations by 0, 90, 180 and 270 degrees, and then the same mirrored left to right; no pixel is moved.

    Args:
        images: an array with a vertical and a horizontal axis.
        axes: which these are.

    Returns:
        Eight views, the array itself first; rotations by 90 and 270 degrees swap the axes' lengths.
    """
    rotated = [np.rot90(images, quarters, axes) for quarters in range(4)]
    return rotated + [np.flip(view, axes[1]) for view in rotated]


def as_flips(mirrored: Flag, upside_down: Flag, quarter_turns: Any, *, square: bool) -> tuple[Flag, Flag, Flag]:
    """Write flips and rotations with one rotation by 90 degrees at most: 180 degrees are both flips.

    Args:
        mirrored, upside_down: bool, or bool (N,): flipped left to right, top to bottom.
        quarter_turns: 0 to 3 rotations after that, int, or int64 (N,).
        square: whether height and width are equal; else 90 degrees are left out, so that the shape stays.

    Returns:
        Mirrored, upside down, and whether a rotation by 90 degrees follows.
    """
    half = quarter_turns >= 2
    return mirrored ^ half, upside_down ^ half, (quarter_turns % 2 == 1) & square


def turned_view(image: np.ndarray, mirrored: bool, upside_down: bool, quarter_turns: int) -> np.ndarray:
    """Return a view of an image (H, W, ...) flipped and rotated in its own shape, as `as_flips`; no pixel is moved."""
    square = image.shape[0] == image.shape[1]
    mirrored, upside_down, quarter = as_flips(mirrored, upside_down, quarter_turns, square=square)
    image = image[:: -1 if upside_down else 1, :: -1 if mirrored else 1]
    return image.swapaxes(0, 1)[::-1] if quarter else image


def turned_batch(xp: Any, images: Any, mirrored: Any, upside_down: Any, quarter: Any) -> Any:
    """Flip and rotate a batch by the flags that `as_flips` returns.

    Args:
        xp: the namespace that computes: jax.numpy or torch.
        images: its array (N, H, W, C); where H is not W, `quarter` is not looked at.
        mirrored, upside_down, quarter: its bool arrays (N,).
    """
    mirrored, upside_down, quarter = (flag[:, None, None, None] for flag in (mirrored, upside_down, quarter))
    images = xp.where(mirrored, xp.flip(images, (2,)), images)
    images = xp.where(upside_down, xp.flip(images, (1,)), images)
    if images.shape[1] != images.shape[2]:
        return images
    return xp.where(quarter, xp.flip(xp.swapaxes(images, 1, 2), (1,)), images)


def rotated_and_flipped(pixels: np.ndarray, quarter_turns: int, mirrored: bool, upside_down: bool) -> np.ndarray:
    """Return a view of an image (H, W, ...) rotated, then flipped: the order of Augmentor; no pixel is moved."""
    return np.rot90(pixels, quarter_turns)[:: -1 if upside_down else 1, :: -1 if mirrored else 1]


def rotated_and_flipped_image(image: Image.Image, quarter_turns: int, mirrored: bool, upside_down: bool) -> Image.Image:
    """Return a copy of an image that is rotated by -1, 0 or 1 times 90 degrees, then flipped."""
    image = image.copy()  # without what the file's format knew beside the pixels, as Augmentor's operations leave it
    if quarter_turns:
        image = image.transpose(Image.Transpose.ROTATE_90 if quarter_turns > 0 else Image.Transpose.ROTATE_270)
    if mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if upside_down else image


def copy_pixels(source: np.ndarray, target: np.ndarray) -> None:
    """Copy a turned view of an image to where it is to lie, both uint8 (H, W, 3).

    Whole rows where they keep their order; else one channel after the other, for numpy moves single bytes over long
    strides several times as fast as it moves pixels of three.
    """
    if source.strides[1:] == target.strides[1:]:
        target[...] = source
        return
    for channel in range(source.shape[2]):
        target[..., channel] = source[..., channel]
