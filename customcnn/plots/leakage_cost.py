"""The picture of the price: scores on known and on new groups, and what lies between them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from customcnn.plots.curves import BEST, TRAIN, VALIDATION
from customcnn.plots.figure import LABEL_SIZE, new_figure, own_style, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GRID, GREY = "#E3E6E9", "#5A6169"
LOOKS = {"image": {"color": VALIDATION, "linestyle": "--"}, "group": {"color": TRAIN, "linestyle": "-"}}
BARS = {
    "image.inflation": ("inflation\nby image", VALIDATION),
    "group.inflation": ("inflation\nby group", TRAIN),
    "price": ("price of\nthe leak", BEST),
}
WIDTH = 0.5  # over which the seeds of a bar are spread


def plot_price(
    figures: Mapping[str, Mapping[str, Any]], path: Path, *, title: str = "", notes: Sequence[str] = ()
) -> None:
    """Write the price of a leak as a PNG file; see `price_figure`."""
    with own_style():
        save_figure(price_figure(figures, title=title, notes=notes), path)


def price_figure(figures: Mapping[str, Mapping[str, Any]], *, title: str = "", notes: Sequence[str] = ()) -> "Figure":
    """Draw each seed's own and test score as a line, and the inflations and the price with their intervals.

    Args:
        figures: as from `summarize`.
        title: text above it.
        notes: warnings to print in the picture.
    """
    figure = new_figure(9.6, 3.9, title, notes)
    lines, bars = figure.subplots(1, 2)
    _draw_scores(lines, figures)
    _draw_differences(bars, figures)
    figure.supxlabel("thin: seeds; thick: their mean; bar: 95 % interval", fontsize=8, color=GREY)
    return figure


def _draw_scores(panel: Any, figures: Mapping[str, Mapping[str, Any]]) -> None:
    for by, look in LOOKS.items():
        own, test = figures[f"{by}.own"], figures[f"{by}.test"]
        for pair in zip(own["seeds"], test["seeds"], strict=True):
            panel.plot([0, 1], pair, linewidth=0.8, alpha=0.5, **look)
        panel.plot([0, 1], [own["value"], test["value"]], linewidth=2.4, marker="o", label=f"split by {by}", **look)
    panel.set(xticks=[0, 1], xlim=(-0.3, 1.3), ylabel="accuracy")
    panel.set_xticklabels(["own validation part", "new groups"], fontsize=LABEL_SIZE)
    panel.set_ylim(top=max(1.0, panel.get_ylim()[1]))
    panel.grid(axis="y", color=GRID, linewidth=0.8)
    panel.legend(loc="best", fontsize=LABEL_SIZE, framealpha=0.9)


def _draw_differences(panel: Any, figures: Mapping[str, Mapping[str, Any]]) -> None:
    panel.axhline(0, color=GREY, linewidth=1)
    for place, (name, (_, color)) in enumerate(BARS.items()):
        found = figures[name]
        spots = place + np.linspace(-WIDTH / 2, WIDTH / 2, len(found["seeds"]))
        panel.plot(spots, found["seeds"], color=color, linestyle="", marker="o", markersize=4, alpha=0.5)
        if found["low"] is not None:
            panel.vlines(place, found["low"], found["high"], color=color, linewidth=2.4)
        panel.plot([place - 0.12, place + 0.12], [found["value"]] * 2, color=color, linewidth=2.4)
    panel.set(xticks=range(len(BARS)), xlim=(-0.6, len(BARS) - 0.4), ylabel="difference in accuracy")
    labels = [f"{label}\n{figures[name]['value']:+.3f}" for name, (label, _) in BARS.items()]
    panel.set_xticklabels(labels, fontsize=LABEL_SIZE)
    panel.grid(axis="y", color=GRID, linewidth=0.8)
