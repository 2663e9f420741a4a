"""Learning curves: loss and accuracy by epoch."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure
from customcnn.plots.figure import LABEL_SIZE, new_figure, own_style, save_figure

# Blue and vermilion of Okabe and Ito's palette differ for every kind of colour vision; the dashes differ without any.
TRAIN, VALIDATION, BEST = "#0072B2", "#D55E00", "#1C1E21"


def plot_curves(history: Sequence[Mapping[str, float]], path: Path, *, notes: Sequence[str] = ()) -> None:
    """Write loss and accuracy by epoch as a PNG file; see `curves_figure`."""
    with own_style():
        save_figure(curves_figure(history, notes=notes), path)


def curves_figure(history: Sequence[Mapping[str, float]], *, notes: Sequence[str] = ()) -> "Figure":
    """Draw loss and accuracy by epoch, training beside validation, the best validation epoch marked.

    Args:
        history: one row an epoch with `epoch`, `loss`, `accuracy`, `val_loss`, `val_accuracy` (0..1); a key that is
            missing, None or not finite leaves its point out. Without `epoch` the rows count from 1.
        notes: warnings to print in the picture.

    Raises:
        ValueError: no epoch.
    """
    if not history:
        raise ValueError("Curves need at least one epoch. Received: an empty history.")
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(9.6, 3.7, "", notes)
    epochs = np.array([row.get("epoch", index) for index, row in enumerate(history, start=1)], dtype=float)
    best = _best(epochs, _column(history, "val_accuracy"))
    for axes, key, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), ("Loss", "Accuracy"), strict=True):
        axes.set(title=name, xlabel="epoch", xlim=(epochs.min() - 0.5, epochs.max() + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
        axes.grid(color="#E3E6E9", linewidth=0.8)
        drawn = [
            _draw_series(axes, epochs, _column(history, key), "training", color=TRAIN, linestyle="-"),
            _draw_series(axes, epochs, _column(history, f"val_{key}"), "validation", color=VALIDATION, linestyle="--"),
        ]
        if not any(drawn):
            axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", va="center", color="#5A6169")
            continue
        if best:
            axes.axvline(best[0], color=BEST, linewidth=1, linestyle=":", zorder=1)
        if key == "accuracy":
            # A perfect score stays in sight, so that a small rise does not look like a large one.
            low = min(axes.get_ylim()[0], 0.98)
            axes.set_ylim(low - 0.05 * (1 - low), 1 + 0.05 * (1 - low))
            if best:
                label = f"best validation: {best[1]:.4f} at epoch {best[0]:g}"
                ring = {"marker": "o", "markersize": 12, "markerfacecolor": "none", "markeredgewidth": 1.8}
                axes.plot(*best, color=BEST, linestyle="", label=label, zorder=5, **ring)
        axes.legend(loc="best", fontsize=LABEL_SIZE, framealpha=0.9)
    return figure


def _column(history: Sequence[Mapping[str, float]], key: str) -> np.ndarray:
    values = (row.get(key) for row in history)
    return np.array([math.nan if value is None else float(value) for value in values])


def _best(epochs: np.ndarray, accuracy: np.ndarray) -> tuple[float, float] | None:
    # The first of equals, as the checkpoint keeps it.
    usable = np.isfinite(accuracy)
    if not usable.any():
        return None
    index = int(np.argmax(np.where(usable, accuracy, -np.inf)))
    return float(epochs[index]), float(accuracy[index])


def _draw_series(axes: Any, epochs: np.ndarray, values: np.ndarray, label: str, **look: str) -> bool:
    usable = np.isfinite(values)
    if not usable.any():
        return False
    marker = "o" if len(epochs) <= 30 else ""  # a single epoch has no line
    axes.plot(epochs[usable], values[usable], label=label, marker=marker, markersize=4, linewidth=1.6, **look)
    return True
