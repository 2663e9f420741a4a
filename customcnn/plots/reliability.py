"""Reliability diagrams: what the network said beside what came true."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from customcnn.plots.curves import BEST, TRAIN
from customcnn.plots.figure import LABEL_SIZE, new_figure, own_style, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_reliability(
    results: Mapping[str, Mapping[str, Any]], path: Path, *, title: str = "", notes: Sequence[str] = ()
) -> None:
    """Write reliability diagrams side by side as a PNG file; see `reliability_figure`."""
    with own_style():
        save_figure(reliability_figure(results, title=title, notes=notes), path)


def reliability_figure(
    results: Mapping[str, Mapping[str, Any]], *, title: str = "", notes: Sequence[str] = ()
) -> "Figure":
    """Draw accuracy by confidence, and below how many images each bin has: on the diagonal a probability is honest.

    Args:
        results: dicts of `customcnn.metrics.calibration.calibration`, by the words above each diagram, as in
            {"before": ..., "after": ...}.
        title: text above all.
        notes: warnings to print in the picture.

    Raises:
        ValueError: no result.
    """
    if not results:
        raise ValueError("A reliability diagram needs a result. Received: none.")
    figure = new_figure(max(4.4 * len(results), 4.8), 5.0, title, notes)
    grid = figure.subplots(2, len(results), squeeze=False, sharex="col", height_ratios=(3, 1))
    for column, (name, result) in enumerate(results.items()):
        _draw(grid[0][column], grid[1][column], name, result)
    return figure


def _draw(upper: Any, lower: Any, name: str, result: Mapping[str, Any]) -> None:
    rows = [row for row in result["reliability"] if row["images"]]
    left = np.array([row["low"] for row in rows])
    width = np.array([row["high"] for row in rows]) - left
    confidence, accuracy = (np.array([row[key] for row in rows]) for key in ("confidence", "accuracy"))
    upper.bar(left, accuracy, width, align="edge", color=TRAIN, alpha=0.35, edgecolor=TRAIN, label="accuracy")
    upper.plot([0, 1], [0, 1], color=BEST, linestyle="--", linewidth=1, label="honest")
    upper.plot(confidence, accuracy, color=TRAIN, marker="o", markersize=4, linewidth=1.6)
    label = f"{name}: ECE {result['ece']['value']:.3f}"
    upper.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
    upper.set_title(label, parse_math=False)
    upper.legend(loc="best", fontsize=LABEL_SIZE, framealpha=0.9)
    lower.bar(left, [row["images"] for row in rows], width, align="edge", color=TRAIN, edgecolor="white")
    lower.set(xlabel="confidence: the largest probability", ylabel="images")
