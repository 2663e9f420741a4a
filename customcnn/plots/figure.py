"""A figure with title, warnings and text that fits; how it is drawn and saved."""

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from customcnn.errors import printable
from customcnn.io.atomic import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOTE_PAPER, NOTE_INK, NOTE_LINE = "#FFF3CD", "#6B2A00", "#C2570C"
DPI = 150
MOST_PIXELS = 40_000_000
"""Of a picture: a larger one has fewer pixels per inch. Pillow and browsers refuse from 89 million pixels on."""
MARGIN, PADDING = 0.15, 0.1  # inches: around the banner, and inside it
NOTE_SIZE, TITLE_SIZE, LABEL_SIZE = 9.0, 12.0, 9.0  # points
LINE_HEIGHT = 1.35
FALLBACK_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "PingFang SC", "Hiragino Sans", "Microsoft YaHei",
    "Noto Sans Arabic", "Noto Sans Devanagari", "Arial Unicode MS",
)  # fmt: skip
"""Tried, where installed, for letters that matplotlib's own font lacks."""


def new_figure(width: float, height: float, title: str, notes: Sequence[str]) -> "Figure":
    """Return a figure with title and notes on top and `height` inches for the axes, which keep clear of them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.patches import Rectangle

    inner = width - 2 * (MARGIN + PADDING)
    titles = wrap_text(printable(title), text_fits(inner, TITLE_SIZE)) if title else []
    lines = [
        line for note in notes for line in wrap_text("\N{WARNING SIGN} " + printable(note), text_fits(inner, NOTE_SIZE))
    ]
    title_height = len(titles) * TITLE_SIZE * LINE_HEIGHT / 72 + (MARGIN if titles else 0)
    banner = (len(lines) * LINE_HEIGHT - 0.3) * NOTE_SIZE / 72 + 2 * PADDING if lines else 0.0
    whole = height + title_height + banner + (MARGIN if lines else 0)
    layout = ConstrainedLayoutEngine(rect=(0, 0, 1, height / whole), w_pad=0.08, h_pad=0.08)
    dpi = min(DPI, (MOST_PIXELS / (width * whole)) ** 0.5)
    figure = Figure(figsize=(width, whole), dpi=dpi, facecolor="white", layout=layout)
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


def text_width(text: str, size: float) -> float:
    """Return how many inches a line takes, set bold: never less than it will."""
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.font_manager import FontProperties

    font = FontProperties(size=size, weight="bold")
    return RendererAgg(1, 1, 72).get_text_width_height_descent(text, font, ismath=False)[0] / 72


def text_fits(width: float, size: float) -> Callable[[str], bool]:
    return lambda line: text_width(line, size) <= width


def wrap_text(text: str, fits: Callable[[str], bool]) -> list[str]:
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


def shorten_name(name: str, length: int = 48) -> str:
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
