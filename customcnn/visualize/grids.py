"""Pictures of several images beside each other, with their names, and the figures that show them on a page."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from customcnn.errors import printable
from customcnn.html.page import Html, figure
from customcnn.plots.figure import DPI, own_style, save_figure
from customcnn.plots.tiles import write_png

INDEX = "index.html"
SHOWN_WIDTH = 320  # CSS pixels, of the image itself
LARGEST_ORIGINAL = 1000
CELL, GAP, LINE, SIDE = 256, 12, 24, 32  # pixels: of an image in a grid, around it, of a line of text, of row names
FONT = 8.5  # points
LONGEST_NAME = 26  # letters over an image of a grid


def file_name(name: str) -> str:
    """Return a name in plain letters, for a file."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:100]


def image_figure(path: Path, pixels: np.ndarray, name: str, alt: str) -> Html:
    """Write an image, no larger than a screen, and return it as a figure of the page."""
    height, width, _ = pixels.shape
    shown = Image.fromarray(pixels)
    shown.thumbnail((LARGEST_ORIGINAL, LARGEST_ORIGINAL))
    write_png(path, np.asarray(shown))
    return figure(path.name, alt, f"{name}, {width}×{height} pixels", width=SHOWN_WIDTH, sharp=width < SHOWN_WIDTH)


def write_grid(
    path: Path,
    images: Sequence[Sequence[np.ndarray | None]],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    titles: Sequence[Sequence[str]] | None = None,
) -> Path:
    """Write a grid of images as one PNG file.

    Args:
        path: where to.
        images: by row and column, each uint8 (H, W, 3), of any size; None leaves a place empty.
        rows, columns: the names of rows and columns.
        titles: a line or two over each image, by row and column.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    over = [max((title.count("\n") + 1 for title in line if title), default=0) for line in titles or [[""]] * len(rows)]
    named = any(columns)
    tops, top = [], LINE if named else 0
    for lines in over:
        top += LINE * lines + GAP
        tops.append(top)
        top += CELL
    lefts = [SIDE + place * (CELL + GAP) for place in range(len(columns))]
    canvas = np.full((top + GAP, lefts[-1] + CELL + GAP, 3), 255, np.uint8)
    for line, y in zip(images, tops, strict=True):
        for image, x in zip(line, lefts, strict=True):
            if image is not None:
                fitted = _fitted(image)
                canvas[y : y + fitted.shape[0], x : x + fitted.shape[1]] = fitted
    height, width, _ = canvas.shape
    with own_style():
        # One image and a few words: as many axes as images would take a hundred times as long to lay out.
        figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
        FigureCanvasAgg(figure)
        figure.figimage(canvas, origin="upper")
        words: dict[str, Any] = {"fontsize": FONT, "ha": "center", "va": "center", "parse_math": False}
        for name, x in zip(columns, lefts, strict=True):
            figure.text((x + CELL / 2) / width, 1 - LINE / 2 / height, _short(name), **words)
        for number, (name, y) in enumerate(zip(rows, tops, strict=True)):
            figure.text(SIDE / 2 / width, 1 - (y + CELL / 2) / height, _short(name), rotation=90, **words)
            for title, x in zip(titles[number] if titles else [], lefts, strict=bool(titles)):
                middle = y - LINE * over[number] / 2 - 2
                figure.text((x + CELL / 2) / width, 1 - middle / height, _short(title), linespacing=1.15, **words)
        save_figure(figure, path)
    return path


def _fitted(image: np.ndarray) -> np.ndarray:
    """Return an image that fits into a cell; few pixels are enlarged as squares, many are averaged."""
    height, width, _ = image.shape
    share = CELL / max(height, width)
    size = (max(1, round(width * share)), max(1, round(height * share)))
    kind = Image.Resampling.NEAREST if share > 2 else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(image).resize(size, kind))


def _short(text: str) -> str:
    half = LONGEST_NAME // 2
    lines = [printable(line) for line in text.split("\n")]
    return "\n".join(line if len(line) <= LONGEST_NAME else f"{line[:half]}…{line[1 - half :]}" for line in lines)
