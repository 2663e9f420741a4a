"""Tiled activation maps."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from customcnn.io.atomic import write_bytes

if TYPE_CHECKING:
    pass

GAP_COLOR = (255, 255, 255)
BROKEN_COLOR = (255, 0, 80)  # a red, of which viridis has none
SMALLEST_TILE, LARGEST_TILE, TILE_GAP, USUAL_WIDTH, LARGEST_WIDTH = 32, 256, 2, 1250, 2000  # pixels


def tile_maps(
    activation: np.ndarray, *, columns: int | None = None, gap: int = 1, scale: tuple[float, float] | None = None
) -> np.ndarray:
    """Lay the channels of an activation side by side, each scaled by its own minimum and maximum.

    Args:
        activation: (H, W, C), any float type.
        columns: tiles in a row; None: about as many as rows, and no empty places where C has such a divisor.
        gap: white pixels between tiles.
        scale: the values of the lowest and the highest colour, for all channels; None for each channel's own.

    Returns:
        uint8 RGB grid in the viridis colours. A flat channel (varying by no more than rounding does) has its lowest
        colour; NaN and infinities are BROKEN_COLOR and take no part in the scale; places without a channel are white.

    Raises:
        ValueError: not three axes, an empty one, or fewer than one column.
    """
    import matplotlib

    if activation.ndim != 3 or 0 in activation.shape:
        raise ValueError(f"An activation is (H, W, C), none of them 0. Received: shape {activation.shape}.")
    height, width, channels = activation.shape
    columns = tile_columns(channels) if columns is None else columns
    if columns < 1:
        raise ValueError(f"A grid has at least one column. Received: {columns}.")
    values, low, span, flat = _ranges(activation)
    if scale is not None:  # halved as the values are
        low, span, flat = np.array(scale[0] / 2), np.array((scale[1] - scale[0]) / 2), np.array(False)
    finite = np.isfinite(values)
    shares = np.where(finite, values - low, 0.0) / np.where(flat, 1.0, span)
    levels = np.where(flat, 0, np.floor(shares * 255 + 0.5)).astype(np.uint8)
    viridis = np.rint(matplotlib.colormaps["viridis"](np.arange(256))[:, :3] * 255).astype(np.uint8)
    colors = np.where(finite[..., None], viridis[levels], np.array(BROKEN_COLOR, np.uint8))  # (H, W, C, 3)

    rows = -(-channels // columns)
    size = (rows * (height + gap) - gap, columns * (width + gap) - gap, 3)
    grid = np.full(size, GAP_COLOR, dtype=np.uint8)
    for channel in range(channels):
        row, column = divmod(channel, columns)
        top, left = row * (height + gap), column * (width + gap)
        grid[top : top + height, left : left + width] = colors[:, :, channel]
    return grid


def _ranges(activation: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the values as float64, halved, and per channel the minimum, the span and whether the channel is flat."""
    step = {"float16": 2.0**-10, "bfloat16": 2.0**-7}.get(activation.dtype.name, 2.0**-23)
    # The distance between two values can overflow their type, hence float64, and halved for what is float64 already.
    values = activation.astype(np.float64) / 2
    finite = np.isfinite(values)
    low = np.where(finite, values, np.inf).min(axis=(0, 1))
    high = np.where(finite, values, -np.inf).max(axis=(0, 1))
    low, high = np.where(low > high, 0.0, low), np.where(low > high, 0.0, high)  # where nothing is finite
    own = np.maximum(np.abs(low), np.abs(high))
    # Equal sums that were added up in another order differ by some rounding steps of their own size, and of the size of
    # the terms, for which the layer's largest value stands. Stretched to full colour they would look like structure.
    rounding = np.maximum(max(4 * step, 1e-5) * own, max(step, 1e-6) * own.max())
    return values, low, high - low, high - low <= rounding


def tile_columns(channels: int, limit: int | None = None) -> int:
    """Return how many tiles stand in a row: the next divisor of `channels` above its root, if near."""
    root = int(np.ceil(np.sqrt(channels)))
    limit = channels if limit is None else max(limit, 1)
    full = (n for n in range(root, min(2 * root, limit) + 1) if channels % n == 0)
    return next(full, min(root, limit))


def figure_21(activation: np.ndarray) -> np.ndarray:
    """Return (x - mean) / deviation * 64 + 128 of each channel, as the report's loop for its figure 21 has it.

    Args:
        activation: (H, W, C), any float type.

    Returns:
        float64 (H, W, C), whole numbers from 0 to 255, 128 for a flat channel; NaN where a value is not finite.
    """
    values, _, _, flat = _ranges(activation)
    finite = np.isfinite(values)
    count = np.maximum(finite.sum(axis=(0, 1)), 1)
    apart = np.where(finite, values, 0) - np.where(finite, values, 0).sum(axis=(0, 1)) / count
    deviation = np.sqrt(np.where(finite, apart**2, 0).sum(axis=(0, 1)) / count)
    levels = np.where(flat, 0, apart) / np.where(flat, 1, deviation) * 64 + 128
    return np.where(finite, np.floor(levels.clip(0, 255)), np.nan)


def tile_picture(activation: np.ndarray, scale: tuple[float, float] | None = None) -> tuple[np.ndarray, int]:
    """Return the tiles of one layer at a size to look at, and how many stand in a row.

    Small maps are enlarged by whole pixels to at least SMALLEST_TILE, large ones averaged down to LARGEST_TILE.

    Args:
        activation: (H, W, C), any float type.
        scale: see `tile_maps`.
    """
    activation = _shrink(activation, -(-max(activation.shape[:2]) // LARGEST_TILE))
    height, width, channels = activation.shape
    factor = -(-SMALLEST_TILE // min(height, width))
    columns = tile_columns(channels, LARGEST_WIDTH // (width * factor + TILE_GAP))
    room = USUAL_WIDTH // columns - TILE_GAP
    factor = max(factor, min(room // width, LARGEST_TILE // max(height, width)))
    enlarged = activation.repeat(factor, axis=0).repeat(factor, axis=1)
    return tile_maps(enlarged, columns=columns, gap=TILE_GAP, scale=scale), columns


def _shrink(activation: np.ndarray, factor: int) -> np.ndarray:
    # Means of squares; where a rest is left at the right or the lower border, its last line is repeated.
    if factor == 1:
        return activation
    height, width, channels = activation.shape
    padded = np.pad(activation, ((0, -height % factor), (0, -width % factor), (0, 0)), mode="edge").astype(np.float32)
    return padded.reshape(padded.shape[0] // factor, factor, -1, factor, channels).mean(axis=(1, 3))


def flat_channels(activation: np.ndarray) -> np.ndarray:
    """Return bool (C,): the channels of (H, W, C) that have values and vary by no more than rounding does."""
    values, _, _, flat = _ranges(activation)
    return flat & np.isfinite(values).any(axis=(0, 1))


def write_png(path: Path, pixels: np.ndarray) -> Path:
    """Write uint8 pixels (H, W, 3) as a PNG file, whole or not at all, and return its path."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    write_bytes(path, buffer.getvalue())
    return path
