"""Figures of the clinical reading: ROC and precision-recall curves, the decision curve, and the subjects."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from customcnn.errors import printable
from customcnn.metrics.scores import recall_names
from customcnn.plots.figure import LABEL_SIZE, new_figure, own_style, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette but for its yellow, which white paper swallows; dashes and markers differ without any colour.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
DASHES = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)))
MARKERS = ("o", "^", "s", "D", "v", "P")
INK, GREY, GRID = "#1C1E21", "#5A6169", "#E3E6E9"
NAME_LENGTH = 28  # characters of a class or subject
SHORT = 12  # names of classes with room for two in a line
MOST_BANDS = 3  # more would cover each other
MOST_NAMES = 60  # subjects whose names have room
MOST_CLASSES = len(COLORS) * len(DASHES)


def write_figures(result: dict[str, Any], folder: Path, *, title: str = "", notes: Sequence[str] = ()) -> list[Path]:
    """Write roc.png, precision-recall.png, decision.png and subjects.png, those of them that the result has.

    Args:
        result: of `customcnn.metrics.clinical.clinical`.
        folder: where to; it exists.
        title: text above each picture.
        notes: warnings to print in each picture.

    Returns:
        The files written.
    """
    figures = {"roc.png": roc_figure, "precision-recall.png": precision_recall_figure}
    if result["decision_curve"]:
        figures["decision.png"] = decision_figure
    if result["subjects"] and result["subjects"]["rows"]:
        figures["subjects.png"] = subjects_figure
    with own_style():
        for name, draw in figures.items():
            save_figure(draw(result, title=title, notes=notes), folder / name)
    return [folder / name for name in figures]


def roc_figure(result: dict[str, Any], *, title: str = "", notes: Sequence[str] = ()) -> "Figure":
    """Draw the ROC curves with their areas; up to three have the band of their intervals."""
    curves = _shown(result)
    names = _recalls(result)
    x = f"1 - {names['specificity']}" if names else "1 - specificity (false positive rate)"
    figure, axes = _square(title, notes, x, names.get("sensitivity", "sensitivity"))
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":", label="guessing, area 0.5")
    for look, (name, curve) in zip(_looks(), curves, strict=False):
        roc = curve["roc"]
        if not roc["sensitivity"]:
            axes.plot([], [], label=_plain(f"{_short(name)}, no curve: one class only"), **look)
            continue
        label = _plain(f"{_short(name)}, area {_interval(roc['area'])}")
        axes.plot(roc["false_positive_rate"], roc["sensitivity"], label=label, linewidth=1.8, **look)
        if roc["band"] and len(curves) <= MOST_BANDS:
            band = roc["band"]
            edge = {"color": look["color"], "alpha": 0.18, "linewidth": 0}
            axes.fill_between(band["false_positive_rate"], band["low"], band["high"], **edge)
    chosen = result["threshold"]
    if chosen and chosen["sensitivity"]["value"] is not None and chosen["specificity"]["value"] is not None:
        point = (1 - chosen["specificity"]["value"], chosen["sensitivity"]["value"])
        mark = {"marker": "D", "markersize": 7, "markerfacecolor": "white", "markeredgewidth": 1.6}
        label = f"threshold {chosen['value']:.3f}, chosen on {_short(chosen['chosen_on'])}"
        axes.plot(*point, color=INK, linestyle="", label=label, zorder=5, **mark)
    _legend(axes, result, len(curves))
    return figure


def precision_recall_figure(result: dict[str, Any], *, title: str = "", notes: Sequence[str] = ()) -> "Figure":
    """Draw the precision-recall curves with their areas; dotted, the precision of guessing."""
    curves = _shown(result)
    names = _recalls(result)
    figure, axes = _square(title, notes, names.get("sensitivity", "recall (sensitivity)"), "precision")
    for look, (name, curve) in zip(_looks(), curves, strict=False):
        points = curve["precision_recall"]
        if not points["recall"]:
            axes.plot([], [], label=_plain(f"{_short(name)}, no curve: no such image"), **look)
            continue
        label = _plain(f"{_short(name)}, area {_interval(points['area'])}")
        steps = {"drawstyle": "steps-pre", "linewidth": 1.8}
        axes.plot(points["recall"], points["precision"], label=label, **steps, **look)
        if len(curves) <= MOST_BANDS:
            guess = f"guessing, {points['prevalence']:.3f}" if len(curves) == 1 else "_"
            axes.axhline(points["prevalence"], color=GREY, linewidth=1, linestyle=":", label=guess)
    _legend(axes, result, len(curves))
    return figure


def decision_figure(result: dict[str, Any], *, title: str = "", notes: Sequence[str] = ()) -> "Figure":
    """Draw the net benefit of the model with its band, beside treating all and treating none.

    Raises:
        ValueError: the result has no decision curve.
    """
    curve = result["decision_curve"]
    if not curve:
        raise ValueError("A decision curve belongs to two classes. Received: a result without one.")
    figure = new_figure(6.4, 4.4, title, notes)
    axes = figure.subplots()
    x = curve["threshold"]
    axes.plot(x, curve["model"], color=COLORS[0], linewidth=1.8, label="by the model")
    if curve["model_low"]:
        axes.fill_between(x, curve["model_low"], curve["model_high"], color=COLORS[0], alpha=0.18, linewidth=0)
    axes.plot(x, curve["all"], color=COLORS[1], linewidth=1.6, linestyle="--", label="treat everyone")
    axes.axhline(curve["none"], color=INK, linewidth=1.2, linestyle=":", label="treat no one")
    # Far below 0 lies only what nobody would do; the part around 0 is what is read.
    top = max(*curve["model"], *(curve["model_high"] or []), *curve["all"], 0.05)
    axes.set(xlabel="threshold probability", ylabel="net benefit per image", xlim=(0, 1), ylim=(-0.3 * top, 1.08 * top))
    axes.grid(color=GRID, linewidth=0.8)
    axes.legend(
        loc="best",
        fontsize=LABEL_SIZE,
        framealpha=0.9,
        title=f"positive class: {_short(result['positive'])}",
        title_fontsize=LABEL_SIZE,
    )
    _no_math(axes)
    return figure


def subjects_figure(result: dict[str, Any], *, title: str = "", notes: Sequence[str] = ()) -> "Figure":
    """Draw each subject's share of images called positive (of more than two classes: called right), by true class.

    A filled mark is a subject whom the soft vote gets right, a hollow one whom it gets wrong.

    Raises:
        ValueError: the result has no subjects.
    """
    subjects = result["subjects"]
    if not subjects or not subjects["rows"]:
        raise ValueError("A figure of subjects needs one. Received: a result without subjects.")
    places = {name: place for place, name in enumerate(result["classes"])}
    rows = sorted(subjects["rows"], key=lambda row: (-places[row["label"]], -row["share"], row["group"]))
    named = len(rows) <= MOST_NAMES
    marks = sorted({(places[row["label"]], row["label"] != row["predicted"]) for row in rows})
    columns = 2 if max(len(_short(row["label"])) for row in rows) <= SHORT else 1
    height = (max(0.19 * len(rows), 1.2) if named else 5.5) + 1.0 + 0.2 * -(-len(marks) // columns)
    mixed = subjects["mixed"]
    left_out = [f"{mixed:,} of {mixed + len(rows):,} groups hold several classes and are left out."] if mixed else []
    figure = new_figure(7.2, height, title, [*notes, *left_out])
    axes = figure.subplots()
    for place, wrong in marks:
        name, color = result["classes"][place], COLORS[place % len(COLORS)]
        own = [(row["share"], y) for y, row in enumerate(rows) if _is(row, name, wrong)]
        label = _plain(f"{_short(name)}, vote {'wrong' if wrong else 'right'} ({len(own)})")
        look: dict[str, Any] = {"facecolors": "white" if wrong else color, "edgecolors": color, "linewidths": 1.6}
        shares, lines = zip(*own, strict=True)
        marker = MARKERS[place % len(MARKERS)]
        axes.scatter(shares, lines, marker=marker, s=36, label=label, zorder=3, clip_on=False, **look)
    axes.axvline(0.5, color=GREY, linewidth=1, linestyle=":")
    what = f"called {_short(result['positive'])}" if result["positive"] else "called by their own class"
    axes.set_xlabel(f"share of the subject's images {what}", parse_math=False)
    axes.set(xlim=(0, 1), ylim=(-0.8, len(rows) - 0.2))
    if named:
        names = [f"{_short(row['group'])} ({row['images']:,})" for row in rows]
        axes.set_yticks(range(len(rows)), names, fontsize=7.5, parse_math=False)
        axes.set_ylabel("subject (images)")
    else:
        axes.set_yticks([])
        axes.set_ylabel(f"{len(rows):,} subjects, by class and share")
    axes.grid(color=GRID, linewidth=0.8, zorder=0)
    beside: dict[str, Any] = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": columns}
    axes.legend(fontsize=LABEL_SIZE, frameon=False, **beside)
    _no_math(axes)
    return figure


def _is(row: dict[str, Any], name: str, wrong: bool) -> bool:
    return row["label"] == name and (row["predicted"] != name) == wrong


def _shown(result: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return list(result["curves"].items())[:MOST_CLASSES]


def _recalls(result: dict[str, Any]) -> dict[str, str]:
    """Return what sensitivity and specificity are called, of two classes; nothing of more."""
    return recall_names(result["positive"], result["classes"], NAME_LENGTH) if result["positive"] else {}


def _looks() -> list[dict[str, Any]]:
    """Return colour and dashes of one line after the other; neighbours differ in both."""
    looks = [{"color": color, "linestyle": dash} for dash, color in product(DASHES, COLORS)]
    for place, look in enumerate(looks):
        look["linestyle"] = DASHES[(place + place // len(COLORS)) % len(DASHES)]
    return looks


def _square(title: str, notes: Sequence[str], x: str, y: str) -> tuple["Figure", Any]:
    figure = new_figure(5.6, 5.4, title, notes)
    axes = figure.subplots()
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.set_xlabel(x, parse_math=False)
    axes.set_ylabel(y, parse_math=False)
    axes.grid(color=GRID, linewidth=0.8)
    return figure, axes


def _legend(axes: Any, result: dict[str, Any], shown: int) -> None:
    left = len(result["curves"]) - shown
    if left:
        axes.plot([], [], linestyle="", label=f"and {left} classes more")
    axes.legend(loc="best" if shown <= MOST_BANDS else "lower right", fontsize=LABEL_SIZE if shown <= 6 else 6.5)
    _no_math(axes)


def _no_math(axes: Any) -> None:
    legend = axes.get_legend()
    for text in [] if legend is None else [*legend.get_texts(), legend.get_title()]:
        text.set_parse_math(False)


def _interval(score: dict[str, Any]) -> str:
    value = "undefined" if score["value"] is None else f"{score['value']:.3f}"
    return value if score["low"] is None else f"{value} ({score['low']:.3f} to {score['high']:.3f})"


def _plain(text: str) -> str:
    # A legend leaves out labels that begin with an underscore.
    return "\N{ZERO WIDTH SPACE}" + text if text.startswith("_") else text


def _short(name: str) -> str:
    text = printable(name)
    return text if len(text) <= NAME_LENGTH else f"{text[: NAME_LENGTH // 2]}…{text[1 - NAME_LENGTH // 2 :]}"
