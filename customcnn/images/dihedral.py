"""The eight flips and 90-degree rotations of an image."""

import numpy as np


def turned_view(image: np.ndarray, mirrored: bool, upside_down: bool, quarter_turns: int) -> np.ndarray:
    """Return a view of an image (H, W, ...) flipped and turned as `turn_over` describes; no pixel is moved."""
    if image.shape[0] != image.shape[1]:
        quarter_turns = quarter_turns // 2 * 2
    if quarter_turns >= 2:  # half a turn is both flips
        mirrored, upside_down = not mirrored, not upside_down
    image = image[:: -1 if upside_down else 1, :: -1 if mirrored else 1]
    return image.swapaxes(0, 1)[::-1] if quarter_turns % 2 else image


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
