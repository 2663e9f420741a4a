"""Confusion matrices."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from customcnn.errors import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure
from customcnn.plots.figure import (
    LABEL_SIZE,
    new_figure,
    own_style,
    save_figure,
    shorten_name,
    text_fits,
    text_width,
    wrap_text,
)

WIDEST = 37.0
"""Inches of all cells side by side: the cells of more than 59 classes are smaller than `WHOLE_CELL`."""
WHOLE_CELL = 0.62
"""Inches from which on a cell has room for a count and its percentage."""
COUNT_CELL = 0.25
"""Inches from which on it has room for a count."""
ONE_LINE = 24
"""Characters of a name beside a small cell."""


def plot_confusion(
    matrix: np.ndarray | Sequence[Sequence[int]],
    classes: Sequence[str],
    path: Path,
    *,
    title: str = "",
    notes: Sequence[str] = (),
) -> None:
    """Write a confusion matrix as a PNG file; see `confusion_figure`."""
    with own_style():
        save_figure(confusion_figure(matrix, classes, title=title, notes=notes), path)


def confusion_figure(
    matrix: np.ndarray | Sequence[Sequence[int]], classes: Sequence[str], *, title: str = "", notes: Sequence[str] = ()
) -> "Figure":
    """Draw a confusion matrix: in each cell the count and its percentage of the row, which also sets the colour.

    Of more than 59 classes the cells are smaller and hold the counts other than 0 alone; of more than 148 no number.

    Args:
        matrix: int (N, N); rows are the true class, columns the predicted one.
        classes: the N names in the order of the matrix.
        title: text above it.
        notes: warnings to print in the picture.

    Raises:
        ValueError: the matrix is not square or does not fit the names.
    """
    counts = np.asarray(matrix)
    number = len(classes)
    if number < 1 or counts.shape != (number, number):
        raise ValueError(f"A matrix has a row and a column for each of {number} classes. Received: {counts.shape}.")
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    cell = min(max(9 / number, WHOLE_CELL), 1.5, WIDEST / number)  # inches
    label_size = min(LABEL_SIZE, cell * 72 * 0.8)  # points: names of neighbours must not touch
    if whole := cell >= WHOLE_CELL:
        rows = [wrap_text(shorten_name(printable(name)), text_fits(1.7, LABEL_SIZE)) for name in classes]
        columns = [wrap_text(shorten_name(printable(name)), text_fits(cell * 0.9, LABEL_SIZE)) for name in classes]
        slanted = any(len(lines) > 2 for lines in columns)
    else:
        rows = columns = [[shorten_name(printable(name), ONE_LINE)] for name in classes]
        slanted = True
    width = max(number * cell + 1.0 + max(text_width(line, LABEL_SIZE) for lines in rows for line in lines), 4.8)
    height = number * cell + (2.3 if slanted else 1.2)
    figure = new_figure(width, height, title, notes)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted class", ylabel="true class", xticks=range(number), yticks=range(number))
    turn: dict[str, Any] = {"rotation": 45, "ha": "right", "va": "top", "rotation_mode": "anchor"} if slanted else {}
    names = rows if slanted else columns
    axes.set_xticklabels(["\n".join(lines) for lines in names], fontsize=label_size, parse_math=False, **turn)
    axes.set_yticklabels(["\n".join(lines) for lines in rows], fontsize=label_size, parse_math=False)
    held = "images, and their share of the row" if whole else "images; darker: a greater share of the row"
    words = f"each cell: {held}" if cell >= COUNT_CELL else "darker: a greater share of the row"
    figure.supxlabel(words, fontsize=8, color="#5A6169")
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(number + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(number + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    size = min(max(cell * 9, 6.5), 11) if whole else cell * 72 / 4  # four digits side by side
    for (row, column), count in np.ndenumerate(counts):
        if cell < COUNT_CELL or (not whole and not count):
            continue
        percent = f"{shares[row, column]:.1%}" if totals[row, 0] else "–"
        text = f"{count:,}\n{percent}" if whole else f"{count}"
        ink = _ink(image.to_rgba(shares[row, column]))
        axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=size)
    return figure


def _ink(color: np.ndarray) -> str:
    # WCAG's relative luminance; above 0.179 black has the higher contrast, at least 4.5 to 1 on either side.
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3]]
    return "black" if 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] > 0.179 else "white"
