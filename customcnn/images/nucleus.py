"""Stained cells in photographs of blood: an even white background, and where the largest nucleus lies.

Wright's and Giemsa's stains turn nuclei blue to violet, much more than anything else in a smear. The functions here
need no training; their constants were chosen on the training part of the Blood Cell Images, by looking at the results.
"""

import numpy as np
from PIL import Image, ImageFilter

WHITE = 230.0
"""The value that an empty background gets in each channel."""

WINDOW = 61
"""Edge in pixels of the window that is filled with stain: about a nucleus at the scale of those photographs."""

STAIN_LOW, STAIN_HIGH = 25.0, 90.0
"""How much blue exceeds green (0..255) where there is no stain at all, and where it is full."""


def inside(rgb: np.ndarray) -> np.ndarray:
    """Tell where the photograph is, and not the black that turning or shifting it has left along its edges.

    Args:
        rgb: uint8 (H, W, 3).

    Returns:
        bool (H, W). Three pixels beside the black, and along the edges, are left out too: compression has blurred them.
    """
    dark = np.pad((rgb.max(axis=2) < 24).astype(np.uint8) * 255, 8, constant_values=255)
    # First shrunk, then grown: a lone dark pixel inside a cell is no corner.
    opened = Image.fromarray(dark).filter(ImageFilter.MinFilter(7)).filter(ImageFilter.MaxFilter(13))
    return np.asarray(opened)[8:-8, 8:-8] == 0


def white_balance(rgb: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """Scale each channel so that the background becomes `WHITE`: stains and lamps differ from photograph to photograph.

    The background is the quarter of the pixels that is brightest in green, and its value the median of each channel.

    Args:
        rgb: uint8 (H, W, 3).
        valid: bool (H, W), which pixels to measure; None for those of `inside`.

    Returns:
        float32 (H, W, 3), 0 or more; what is brighter than the background may pass 255.
    """
    valid = inside(rgb) if valid is None else valid
    if not valid.any():
        return rgb.astype(np.float32)
    bright = valid & (rgb[..., 1] >= np.quantile(rgb[..., 1][valid], 0.75))
    background = np.median(rgb[bright], axis=0)
    return (rgb * (WHITE / np.maximum(background, 1))).astype(np.float32)


def nucleus(balanced: np.ndarray, valid: np.ndarray) -> tuple[int, int]:
    """Find the largest stained nucleus: the window that holds most stain, moved to the stain's centre of mass.

    Args:
        balanced: float32 (H, W, 3), from `white_balance`.
        valid: bool (H, W), from `inside`.

    Returns:
        (row, column) of its centre; the image's centre where nothing is stained.
    """
    stain = np.clip((balanced[..., 2] - balanced[..., 1] - STAIN_LOW) / (STAIN_HIGH - STAIN_LOW), 0, 1) * valid
    height, width = stain.shape
    mass = _window_sums(stain, WINDOW)
    if mass.max() < 1:
        return height // 2, width // 2
    half = WINDOW // 2
    row, column = (float(place) for place in np.unravel_index(mass.argmax(), mass.shape))
    for _ in range(3):  # mean shift (Comaniciu and Meer, 2002) has settled after three steps
        top, left = max(0, int(row) - half), max(0, int(column) - half)
        part = stain[top : int(row) + half + 1, left : int(column) + half + 1]
        total = part.sum()
        row = top + (part.sum(axis=1) @ np.arange(part.shape[0])) / total
        column = left + (part.sum(axis=0) @ np.arange(part.shape[1])) / total
    return round(row), round(column)


def _window_sums(values: np.ndarray, size: int) -> np.ndarray:
    """Return the sum over the size x size window (odd) about each pixel; outside the image is nothing."""
    sums = np.pad(values, ((size // 2 + 1, size // 2),) * 2).cumsum(axis=0).cumsum(axis=1)
    return sums[size:, size:] - sums[:-size, size:] - sums[size:, :-size] + sums[:-size, :-size]


def cut_out(rgb: np.ndarray, size: int) -> np.ndarray:
    """Return the square about the largest nucleus, white-balanced; `WHITE` stands outside the photograph.

    Args:
        rgb: uint8 (H, W, 3).
        size: edge of the square in pixels; it may pass the edges of the photograph.

    Returns:
        uint8 (size, size, 3).
    """
    valid = inside(rgb)
    balanced = white_balance(rgb, valid)
    row, column = nucleus(balanced, valid)
    before, after = size // 2, size - size // 2
    wide = np.pad(
        np.where(valid[..., None], balanced, WHITE), ((before, after), (before, after), (0, 0)), constant_values=WHITE
    )
    return np.clip(wide[row : row + size, column : column + size].round(), 0, 255).astype(np.uint8)
