"""The filters of convolutions: their weights as tiles, in colour where they look at the colours of the image."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from customcnn.explain.graph import Step, steps
from customcnn.html.page import Html, figure
from customcnn.plots.tiles import tile_columns, write_png
from customcnn.visualize.grids import file_name

SHOWN = 700  # pixels a picture is about wide
MOST_FILTERS, MOST_CHANNELS = 12, 16  # of a layer behind the first, whose filters have a tile for each channel
LARGEST = 18  # pixels of the square of one weight


@dataclass(frozen=True)
class Kernel:
    """The weights of one convolution.

    Attributes:
        name: of the layer.
        weights: float32 (height, width, channels, filters); for a depthwise convolution one filter a channel,
            (height, width, 1, filters).
        colored: whether its channels are the red, green and blue of the image, in this order.
    """

    name: str
    weights: np.ndarray
    colored: bool


def kernels(model: Any) -> list[Kernel]:
    """Return the weights of every convolution, also of models inside the model, in graph order.

    Where a network takes the colours of the image in another order, as VGG and ResNet do, they are put back.

    Args:
        model: a functional keras model.
    """
    import keras

    found: list[Kernel] = []
    seen: set[int] = set()
    order = _color_order(model)
    graph = steps(model)
    for step in graph:
        layer = step.operation
        if not isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D | keras.layers.SeparableConv2D):
            continue
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        weights = keras.ops.convert_to_numpy(_weights(layer)).astype(np.float32)
        if not isinstance(layer, keras.layers.Conv2D) or isinstance(layer, keras.layers.DepthwiseConv2D):
            height, width, channels, copies = weights.shape
            weights = weights.reshape(height, width, 1, channels * copies)
        colored = weights.shape[2] == 3 and _before_any(graph, step)
        found.append(Kernel(step.name, weights[:, :, order] if colored else weights, colored))
    return found


def _weights(layer: Any) -> Any:
    return layer.depthwise_kernel if hasattr(layer, "depthwise_kernel") else layer.kernel


def _before_any(graph: list[Step], step: Step) -> bool:
    """Tell whether nothing with a kernel stands between the image and a step."""
    waiting, reached = list(step.parents), set()
    while waiting:
        place = waiting.pop()
        if place in reached:
            continue
        reached.add(place)
        if any(len(weight.shape) > 1 for weight in getattr(graph[place].operation, "weights", ())):
            return False
        waiting += graph[place].parents
    return True


def _color_order(model: Any) -> list[int]:
    """Return which channel behind the first reversal of colours is red, green and blue."""
    flips = [step for step in steps(model) if step.kind == "Flip" and step.shape[-1:] == (3,)]
    return [2, 1, 0] if any(step.operation.axis in (-1, 3) for step in flips) else [0, 1, 2]


def filter_picture(kernel: Kernel) -> tuple[np.ndarray, str]:
    """Return the filters of a layer as tiles, and a sentence that says what they show.

    Filters on colours are coloured: a weight of 0 is grey, a filter that wants red and no blue is orange. Others have a
    row for each filter and a tile for each channel: red where a weight is above 0, blue below, white at 0.

    Args:
        kernel: from `kernels`.

    Returns:
        uint8 (H, W, 3), and the caption.
    """
    height, width, channels, filters = kernel.weights.shape
    if kernel.colored or channels == 1:
        columns = tile_columns(filters)
        tiles = _colored(kernel.weights) if kernel.colored else _diverging(kernel.weights[:, :, 0])
        size = max(1, SHOWN // (columns * max(height, width)))
        kind = "in the colours that they look for; grey is 0" if kernel.colored else "red above 0, blue below"
        words = f"{filters} filters of {width}×{height}, {columns} in a row, {kind}. Each has its own scale."
        return _grid(tiles, columns, min(size, LARGEST)), words
    shown_filters, shown_channels = min(filters, MOST_FILTERS), min(channels, MOST_CHANNELS)
    chosen = kernel.weights[:, :, :shown_channels, :shown_filters].transpose(0, 1, 3, 2)
    scaled = chosen / np.maximum(np.abs(chosen).max(axis=(0, 1, 3), keepdims=True), 1e-12)
    tiles = _diverging(scaled.reshape(height, width, -1), each=False)
    size = max(1, SHOWN // (shown_channels * max(height, width)))
    words = f"{filters} filters of {width}×{height} on {channels} channels"
    if (shown_filters, shown_channels) != (filters, channels):
        words += f"; shown are the first {shown_filters} filters on the first {shown_channels} channels"
    words += ". A row is a filter with a scale of its own, a tile one channel; red above 0, blue below."
    return _grid(tiles, shown_channels, min(size, LARGEST)), words


def _colored(weights: np.ndarray) -> np.ndarray:
    """Return uint8 (filters, height, width, 3): each filter scaled by its largest weight, 0 in the middle."""
    largest = np.maximum(np.abs(weights).max(axis=(0, 1, 2)), 1e-12)
    return np.rint(127.5 + 127.5 * weights / largest).astype(np.uint8).transpose(3, 0, 1, 2)


def _diverging(weights: np.ndarray, *, each: bool = True) -> np.ndarray:
    """Return uint8 (N, height, width, 3) of weights (height, width, N): blue below 0, white, red above."""
    import matplotlib

    if each:
        weights = weights / np.maximum(np.abs(weights).max(axis=(0, 1)), 1e-12)
    colors = matplotlib.colormaps["RdBu_r"]((weights + 1) / 2)[..., :3]
    return np.rint(colors * 255).astype(np.uint8).transpose(2, 0, 1, 3)


def _grid(tiles: np.ndarray, columns: int, size: int) -> np.ndarray:
    """Return tiles (N, height, width, 3), enlarged by whole pixels, in rows with white between them."""
    count, height, width, _ = tiles.shape
    tiles = tiles.repeat(size, axis=1).repeat(size, axis=2)
    gap = max(2, size // 2)  # wide enough to tell a tile from its neighbour
    height, width = height * size + gap, width * size + gap
    rows = -(-count // columns)
    grid = np.full((rows * height - gap, columns * width - gap, 3), 255, np.uint8)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        grid[row * height : row * height + height - gap, column * width : column * width + width - gap] = tile
    return grid


def write_filters(kernel: Kernel, out: Path) -> tuple[Html, Path]:
    """Write the filters of a layer as `filters-<layer>.png` into a folder; return its figure and its path."""
    pixels, words = filter_picture(kernel)
    path = write_png(out / f"filters-{file_name(kernel.name)}.png", pixels)
    return figure(path.name, f"The filters of layer {kernel.name}", words), path
