"""The picture of features in two dimensions, coloured by class and by group."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from customcnn.errors import printable
from customcnn.plots.figure import LABEL_SIZE, new_figure, own_style, save_figure

# Okabe and Ito's palette but for its yellow, which white paper swallows; markers differ without any colour.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = ("o", "^", "s", "D", "v", "P", "X", "<", ">", "*")
TITLES = {"pca": "PCA", "t-sne": "t-SNE", "umap": "UMAP"}
MOST_NAMES = 24  # groups whose names have room
NAME_LENGTH = 18
SIDE = 4.3  # inches


def plot_embeddings(
    path: Path,
    embeddings: Mapping[str, np.ndarray],
    labels: Sequence[str],
    groups: Sequence[str] | None = None,
    *,
    title: str = "",
    notes: Sequence[str] = (),
) -> None:
    """Write the features in two dimensions as a PNG file: a row for each method, by class and by group.

    Args:
        path: where to.
        embeddings: method -> (N, 2), from `embed`.
        labels: the N class names.
        groups: the N group names; None where they are not known: only the classes are shown then.
        title: text above it.
        notes: warnings to print in the picture.
    """
    by = [("class", labels), *([("group", groups)] if groups is not None else [])]
    legend = 1.7 if groups is not None else 0.0
    with own_style():
        figure = new_figure(SIDE * len(by) + legend + 0.4, SIDE * len(embeddings), title, notes)
        axes = figure.subplots(len(embeddings), len(by), squeeze=False)
        for row, (method, places) in zip(axes, embeddings.items(), strict=True):
            for cell, (what, names) in zip(row, by, strict=True):
                _scatter(cell, places, names, labels, by_class=what == "class")
                cell.set(xticks=[], yticks=[], title=f"{TITLES.get(method, method)}, coloured by {what}")
        for cell, (what, _) in zip(axes[0], by, strict=True):
            if what == "class" or len(set(groups or ())) <= MOST_NAMES:
                place: dict[str, Any] = {"loc": "best"} if what == "class" else {"loc": "upper left"}
                place |= {} if what == "class" else {"bbox_to_anchor": (1.01, 1)}
                cell.legend(fontsize=LABEL_SIZE - 1.5, framealpha=0.85, title=what, title_fontsize=LABEL_SIZE, **place)
        save_figure(figure, path)


def _scatter(axes: Any, places: np.ndarray, names: Sequence[str], labels: Sequence[str], *, by_class: bool) -> None:
    """Draw the points: by class a colour and a marker each; by group a colour each, with the marker of its class."""
    import matplotlib

    classes = sorted(set(labels))
    chosen = sorted(set(names))
    hues = matplotlib.colormaps["nipy_spectral"](np.linspace(0.05, 0.93, max(len(chosen), 2)))
    size = float(np.clip(9000 / max(len(places), 1), 8, 30))
    for number, name in enumerate(chosen):
        color = COLORS[number % len(COLORS)] if by_class else hues[number]
        first = True
        for place, label in enumerate(classes):
            rows = [row for row in range(len(names)) if (names[row], labels[row]) == (name, label)]
            if not rows:
                continue
            axes.scatter(
                places[rows, 0],
                places[rows, 1],
                s=size,
                color=color,
                marker=MARKERS[place % len(MARKERS)],
                linewidths=0.3,
                edgecolors="white",
                alpha=0.85,
                label=_plain(name) if first else None,
            )
            first = False


def _plain(name: str) -> str:
    text = printable(name)
    text = text if len(text) <= NAME_LENGTH else f"{text[: NAME_LENGTH // 2]}…{text[1 - NAME_LENGTH // 2 :]}"
    return text.replace("$", r"\$") if not text.startswith("_") else f"\u200b{text}"  # matplotlib hides such names
