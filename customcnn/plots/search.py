"""Pictures of many runs: the scores of folds, and of trials by what was searched. Numbers in, PNG files out."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from customcnn.plots.curves import BEST, TRAIN, VALIDATION
from customcnn.plots.figure import LABEL_SIZE, new_figure, own_style, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCORES = {
    "val_accuracy": "accuracy",
    "balanced_accuracy": "balanced\naccuracy",
    "macro_f1": "macro\nF1",
    "weighted_f1": "weighted\nF1",
    "roc_auc": "ROC\nAUC",
}
LOSSES = {"val_loss": "loss", "log_loss": "log loss"}
GRID = "#E3E6E9"
COLUMNS = 3  # panels in a row
WIDTH = 0.6  # of the space that a choice or a score has


def plot_folds(folds: Sequence[Mapping[str, Any]], path: Path, *, title: str = "", notes: Sequence[str] = ()) -> None:
    """Write the scores of the folds as a PNG file; see `folds_figure`."""
    with own_style():
        save_figure(folds_figure(folds, title=title, notes=notes), path)


def plot_trials(
    values: Sequence[Mapping[str, Any]],
    scores: Sequence[float | None],
    axes: Mapping[str, Sequence[Any] | None],
    score: str,
    path: Path,
    *,
    logarithmic: Sequence[str] = (),
    title: str = "",
    notes: Sequence[str] = (),
) -> None:
    """Write the scores of the trials by each searched key as a PNG file; see `trials_figure`."""
    with own_style():
        save_figure(trials_figure(values, scores, axes, score, logarithmic=logarithmic, title=title, notes=notes), path)


def folds_figure(folds: Sequence[Mapping[str, Any]], *, title: str = "", notes: Sequence[str] = ()) -> "Figure":
    """Draw a dot for each fold and score, with their mean and a band of one standard deviation either way.

    Args:
        folds: one row a fold with the keys of `SCORES` and `LOSSES`; None leaves a dot out.
        title: text above it.
        notes: warnings to print in the picture.

    Raises:
        ValueError: no fold.
    """
    if not folds:
        raise ValueError("A picture of folds needs a fold. Received: none.")
    figure = new_figure(9.6, 3.9, title, notes)
    panels = figure.subplots(1, 2, width_ratios=(len(SCORES), len(LOSSES)))
    for panel, names in zip(panels, (SCORES, LOSSES), strict=True):
        panel.set(xticks=range(len(names)), xlim=(-0.6, len(names) - 0.4))
        panel.set_xticklabels(list(names.values()), fontsize=LABEL_SIZE)
        panel.grid(axis="y", color=GRID, linewidth=0.8)
        for place, key in enumerate(names):
            _draw_folds(panel, place, [row.get(key) for row in folds])
    low = min(panels[0].get_ylim()[0], 0.98)
    panels[0].set_ylim(low - 0.02 * (1 - low), 1 + 0.02 * (1 - low))
    count = len(folds)
    dots = f"dots from left to right: folds 1 to {count}; line and band: mean and standard deviation"
    figure.supxlabel(dots if count > 1 else "one fold", fontsize=8, color="#5A6169")
    return figure


def _draw_folds(panel: Any, place: int, values: Sequence[float | None]) -> None:
    known = [(i, float(v)) for i, v in enumerate(values) if v is not None and math.isfinite(v)]
    if not known:
        panel.text(place, 0.5, "undefined", ha="center", va="center", rotation=90, color="#5A6169", fontsize=8)
        return
    shift = WIDTH / max(len(values) - 1, 1)
    offsets = np.array([i for i, _ in known]) * shift - (WIDTH / 2 if len(values) > 1 else 0)
    numbers = np.array([v for _, v in known])
    mean = float(numbers.mean())
    across = [place - WIDTH / 2 - 0.06, place + WIDTH / 2 + 0.06]
    if len(numbers) > 1:
        spread = float(numbers.std(ddof=1))
        panel.fill_between(across, mean - spread, mean + spread, color=TRAIN, alpha=0.15, linewidth=0)
    panel.plot(across, [mean, mean], color=TRAIN, linewidth=1.6)
    panel.plot(place + offsets, numbers, color=VALIDATION, linestyle="", marker="o", markersize=4.5)


def trials_figure(
    values: Sequence[Mapping[str, Any]],
    scores: Sequence[float | None],
    axes: Mapping[str, Sequence[Any] | None],
    score: str,
    *,
    logarithmic: Sequence[str] = (),
    title: str = "",
    notes: Sequence[str] = (),
) -> "Figure":
    """Draw the score of every trial by each searched key, one panel a key; the best is ringed, failed ones are crosses.

    Args:
        values: of the searched keys, by trial.
        scores: by trial; None for one that failed.
        axes: by searched key its choices, or None where it is drawn from a range.
        score: what they are, such as "val_accuracy"; the lowest is best where it ends in "loss".
        logarithmic: ranges that have a logarithmic scale.
        title: text above it.
        notes: warnings to print in the picture.

    Raises:
        ValueError: no searched key.
    """
    if not axes:
        raise ValueError("A picture of trials needs a searched key. Received: none.")
    done = [i for i, number in enumerate(scores) if number is not None]
    known = [float(number) for number in scores if number is not None]
    failed = [i for i, number in enumerate(scores) if number is None]
    columns = min(len(axes), COLUMNS)
    rows = -(-len(axes) // columns)
    figure = new_figure(max(3.4 * columns, 4.8), 3.1 * rows, title, notes)
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for panel, (key, choices) in zip(panels, axes.items(), strict=False):
        panel.set_xlabel(key, parse_math=False)
        panel.grid(axis="y", color=GRID, linewidth=0.8)
        places = _places([row[key] for row in values], choices)
        if choices is not None:
            panel.set(xticks=range(len(choices)), xlim=(-0.6, len(choices) - 0.4))
            panel.set_xticklabels([_short(choice) for choice in choices], parse_math=False, fontsize=LABEL_SIZE)
            for place, choice in enumerate(choices):
                if here := [number for i, number in zip(done, known, strict=True) if values[i][key] == choice]:
                    panel.hlines(np.mean(here), place - WIDTH / 2, place + WIDTH / 2, color=TRAIN, linewidth=1.6)
        elif key in logarithmic:
            panel.set_xscale("log")
        panel.plot([places[i] for i in done], known, **_DOT)
        if failed:  # without any the layout would make room for nothing at nowhere
            panel.plot(
                [places[i] for i in failed], [0.03] * len(failed), transform=panel.get_xaxis_transform(), **_CROSS
            )
        if known:
            best = (min if score.endswith("loss") else max)(range(len(known)), key=known.__getitem__)
            panel.plot([places[done[best]]], [known[best]], **_RING)
    for panel in panels[::columns]:
        panel.set_ylabel(score)
    for panel in panels[len(axes) :]:
        panel.set_axis_off()
    parts = ["ring: the best", "line: mean of a choice"]
    parts += ["cross: failed"] if failed else []
    figure.supxlabel("; ".join(parts), fontsize=8, color="#5A6169")
    return figure


_DOT: dict[str, Any] = {"color": VALIDATION, "linestyle": "", "marker": "o", "markersize": 4.5, "alpha": 0.8}
_CROSS: dict[str, Any] = {"color": "#5A6169", "linestyle": "", "marker": "x", "markersize": 6}
_RING: dict[str, Any] = {
    "color": BEST, "linestyle": "", "marker": "o", "markersize": 12, "markerfacecolor": "none", "markeredgewidth": 1.8,
}  # fmt: skip


def _places(values: Sequence[Any], choices: Sequence[Any] | None) -> list[float]:
    """Return where each trial stands along an axis: at its number, or beside the other trials of its choice."""
    if choices is None:
        return list(values)
    step = WIDTH / max(len(values) - 1, 1)
    return [choices.index(value) - WIDTH / 2 + i * step for i, value in enumerate(values)]


def _short(value: object) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 14 else f"{text[:6]}…{text[-6:]}"
