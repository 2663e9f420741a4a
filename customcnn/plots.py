"""Learning curves, confusion matrices and tiled activation maps. Numbers in, PNG files out."""

import io
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from customcnn.files import write_bytes
from customcnn.page import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Blue and vermilion of Okabe and Ito's palette differ for every kind of colour vision; the dashes differ without any.
TRAIN, VALIDATION, BEST = "#0072B2", "#D55E00", "#1C1E21"
NOTE_PAPER, NOTE_INK, NOTE_LINE = "#FFF3CD", "#6B2A00", "#C2570C"
DPI = 150
MARGIN, PADDING = 0.15, 0.1  # inches: around the banner, and inside it
NOTE_SIZE, TITLE_SIZE, LABEL_SIZE = 9.0, 12.0, 9.0  # points
LINE_HEIGHT = 1.35
GAP_COLOR = (255, 255, 255)
BROKEN_COLOR = (255, 0, 80)  # a red, of which viridis has none
SMALLEST_TILE, LARGEST_TILE, TILE_GAP, USUAL_WIDTH, LARGEST_WIDTH = 32, 256, 2, 1250, 2000  # pixels
FALLBACK_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "PingFang SC", "Hiragino Sans", "Microsoft YaHei",
    "Noto Sans Arabic", "Noto Sans Devanagari", "Arial Unicode MS",
)  # fmt: skip
"""Tried, where installed, for letters that matplotlib's own font lacks."""


def plot_curves(history: Sequence[Mapping[str, float]], path: Path, *, notes: Sequence[str] = ()) -> None:
    """Write loss and accuracy by epoch as a PNG file; see `curves_figure`."""
    with own_style():
        save_figure(curves_figure(history, notes=notes), path)


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


def confusion_figure(
    matrix: np.ndarray | Sequence[Sequence[int]], classes: Sequence[str], *, title: str = "", notes: Sequence[str] = ()
) -> "Figure":
    """Draw a confusion matrix: in each cell the count and its percentage of the row, which also sets the colour.

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
    cell = min(max(9 / number, 0.62), 1.5)  # inches
    fits = _fits(1.7, LABEL_SIZE)
    rows = [_wrap(_shorten(printable(name)), fits) for name in classes]
    columns = [_wrap(_shorten(printable(name)), _fits(cell * 0.9, LABEL_SIZE)) for name in classes]
    slanted = any(len(lines) > 2 for lines in columns)
    width = max(number * cell + 1.0 + max(_width(line, LABEL_SIZE) for lines in rows for line in lines), 4.8)
    height = number * cell + (2.3 if slanted else 1.2)
    figure = new_figure(width, height, title, notes)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted class", ylabel="true class", xticks=range(number), yticks=range(number))
    turn: dict[str, Any] = {"rotation": 45, "ha": "right", "va": "top", "rotation_mode": "anchor"} if slanted else {}
    names = rows if slanted else columns
    axes.set_xticklabels(["\n".join(lines) for lines in names], fontsize=LABEL_SIZE, parse_math=False, **turn)
    axes.set_yticklabels(["\n".join(lines) for lines in rows], fontsize=LABEL_SIZE, parse_math=False)
    figure.supxlabel("each cell: images, and their share of the row", fontsize=8, color="#5A6169")
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(number + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(number + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    size = min(max(cell * 9, 6.5), 11)
    for (row, column), count in np.ndenumerate(counts):
        percent = f"{shares[row, column]:.1%}" if totals[row, 0] else "–"
        ink = _ink(image.to_rgba(shares[row, column]))
        axes.text(column, row, f"{count:,}\n{percent}", ha="center", va="center", color=ink, fontsize=size)
    return figure


def tile_maps(activation: np.ndarray, *, columns: int | None = None, gap: int = 1) -> np.ndarray:
    """Lay the channels of an activation side by side, each scaled by its own minimum and maximum.

    Args:
        activation: (H, W, C), any float type.
        columns: tiles in a row; None: about as many as rows, and no empty places where C has such a divisor.
        gap: white pixels between tiles.

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


def tile_picture(activation: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the tiles of one layer at a size to look at, and how many stand in a row.

    Small maps are enlarged by whole pixels to at least SMALLEST_TILE, large ones averaged down to LARGEST_TILE.

    Args:
        activation: (H, W, C), any float type.
    """
    activation = _shrink(activation, -(-max(activation.shape[:2]) // LARGEST_TILE))
    height, width, channels = activation.shape
    factor = -(-SMALLEST_TILE // min(height, width))
    columns = tile_columns(channels, LARGEST_WIDTH // (width * factor + TILE_GAP))
    room = USUAL_WIDTH // columns - TILE_GAP
    factor = max(factor, min(room // width, LARGEST_TILE // max(height, width)))
    enlarged = activation.repeat(factor, axis=0).repeat(factor, axis=1)
    return tile_maps(enlarged, columns=columns, gap=TILE_GAP), columns


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


def _ink(color: np.ndarray) -> str:
    # WCAG's relative luminance; above 0.179 black has the higher contrast, at least 4.5 to 1 on either side.
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3]]
    return "black" if 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] > 0.179 else "white"


def new_figure(width: float, height: float, title: str, notes: Sequence[str]) -> "Figure":
    """Return a figure with title and notes on top and `height` inches for the axes, which keep clear of them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.patches import Rectangle

    inner = width - 2 * (MARGIN + PADDING)
    titles = _wrap(printable(title), _fits(inner, TITLE_SIZE)) if title else []
    lines = [line for note in notes for line in _wrap("\N{WARNING SIGN} " + printable(note), _fits(inner, NOTE_SIZE))]
    title_height = len(titles) * TITLE_SIZE * LINE_HEIGHT / 72 + (MARGIN if titles else 0)
    banner = (len(lines) * LINE_HEIGHT - 0.3) * NOTE_SIZE / 72 + 2 * PADDING if lines else 0.0
    whole = height + title_height + banner + (MARGIN if lines else 0)
    layout = ConstrainedLayoutEngine(rect=(0, 0, 1, height / whole), w_pad=0.08, h_pad=0.08)
    figure = Figure(figsize=(width, whole), dpi=DPI, facecolor="white", layout=layout)
    FigureCanvasAgg(figure)
    top = whole - MARGIN
    if lines:
        size = (1 - 2 * MARGIN / width, banner / whole)
        corner = (MARGIN / width, (top - banner) / whole)
        paper: dict[str, Any] = {"facecolor": NOTE_PAPER, "edgecolor": NOTE_LINE, "linewidth": 1.2}
        figure.add_artist(Rectangle(corner, *size, transform=figure.transFigure, **paper))
        _write_lines(figure, lines, MARGIN + PADDING, top - PADDING, size=NOTE_SIZE, color=NOTE_INK)
        top -= banner + MARGIN
    _write_lines(figure, titles, MARGIN + PADDING, top, size=TITLE_SIZE, color="black", weight="bold")
    return figure


def _write_lines(figure: "Figure", lines: Sequence[str], x: float, y: float, *, size: float, **look: Any) -> None:
    width, height = figure.get_size_inches()
    for line in lines:
        figure.text(x / width, y / height, line, va="top", ha="left", fontsize=size, parse_math=False, **look)
        y -= size * LINE_HEIGHT / 72


def _width(text: str, size: float) -> float:
    """Return how many inches a line takes, set bold: never less than it will."""
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.font_manager import FontProperties

    font = FontProperties(size=size, weight="bold")
    return RendererAgg(1, 1, 72).get_text_width_height_descent(text, font, ismath=False)[0] / 72


def _fits(width: float, size: float) -> Callable[[str], bool]:
    return lambda line: _width(line, size) <= width


def _wrap(text: str, fits: Callable[[str], bool]) -> list[str]:
    """Break text into lines that fit, between words, and inside a word only where it does not fit alone."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if fits(longer):
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and not fits(lines[-1] + letter):
                lines.append("")
            lines[-1] += letter
    return lines


def _shorten(name: str, length: int = 48) -> str:
    # The ends of a name tell it from its like; its middle is left out.
    return name if len(name) <= length else f"{name[: length // 2]}…{name[1 - length // 2 :]}"


@contextmanager
def own_style() -> Iterator[None]:
    """Draw with matplotlib's own settings, not the user's matplotlibrc: the same figures give the same picture."""
    import matplotlib
    from matplotlib import font_manager, style

    fonts = ["DejaVu Sans", *sorted(set(FALLBACK_FONTS) & set(font_manager.get_font_names()), key=FALLBACK_FONTS.index)]
    with matplotlib.rc_context(), warnings.catch_warnings():
        style.use("default")
        matplotlib.rcParams.update({"font.family": fonts, "axes.spines.top": False, "axes.spines.right": False})
        # A letter that no font has is drawn as a box; that is plain to see and needs no warning.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure as a PNG file, whole or not at all."""
    buffer = io.BytesIO()
    # Without the name and version of the software the same figures give the same bytes.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    write_bytes(path, buffer.getvalue())
