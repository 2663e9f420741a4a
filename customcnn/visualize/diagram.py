"""A drawing of a network's architecture: its layers from top to bottom, branches side by side, repeats once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from customcnn.errors import printable
from customcnn.plots.figure import MARGIN, new_figure, own_style, save_figure
from customcnn.visualize.diagram_layout import Box, Unit, plan

WIDTH, HEIGHT = 1.42, 0.36  # inches of a box
ACROSS, DOWN = 1.56, 0.52  # inches from lane to lane and from row to row
LEFT, RIGHT = 0.62, 1.0  # inches beside the lanes: the brackets of repeats, and the shapes
TALLEST = 11.0  # inches of a column; a taller network is broken into several
FONT, SMALL_FONT = 6.6, 5.4  # points
LETTERS = 26  # that fit into a box
FILLS = {
    "input": "#FFFFFF", "conv": "#CFE3F2", "pool": "#FBE3CC", "merge": "#FFFFFF", "dense": "#CDEBDD",
    "model": "#EBDDF0", "other": "#F1F3F5",
}  # fmt: skip
INK, FAINT, LINE = "#1C1E21", "#5A6169", "#7B838B"


def draw_diagram(model: Any, path: Path, *, title: str = "", notes: Sequence[str] = ()) -> Path:
    """Write the architecture of a network as a PNG file.

    Boxes from top to bottom are layers; what stands beside each other are branches. A unit that repeats is drawn once,
    with its number. At the right stands the shape of the maps, height x width x channels, wherever it changes.

    Args:
        model: a functional keras model; a model inside it is one box.
        path: where to.
        title: text above it; "" for the network's name, its input and how many weights it has.
        notes: warnings to print in the picture.
    """
    units = plan(model)
    columns = _columns(units)
    widths = [LEFT + RIGHT + ACROSS * max(unit.lanes for unit in column) for column in columns]
    tall = max(sum(unit.rows for unit in column) for column in columns) * DOWN + 0.5
    with own_style():
        figure = new_figure(sum(widths) + 2 * MARGIN, tall, title or _title(model), notes)
        figure.set_layout_engine("none")
        whole_width, whole_height = figure.get_size_inches()
        axes = figure.add_axes((0, 0, 1, tall / whole_height))
        axes.set(xlim=(0, whole_width), ylim=(tall, 0))
        axes.axis("off")
        left, shape = MARGIN, ()
        for number, (column, width) in enumerate(zip(columns, widths, strict=True)):
            middle = left + LEFT + (width - LEFT - RIGHT) / 2
            edge = left + width - RIGHT + 0.08
            shape = _draw_column(axes, column, middle, left, edge, shape, first=not number)
            if number + 1 < len(columns):
                rows = sum(unit.rows for unit in column)
                axes.text(
                    middle, 0.35 + rows * DOWN, "▼ goes on at the right", fontsize=SMALL_FONT, ha="center", color=FAINT
                )
            left += width
        save_figure(figure, path)
    return path


def _title(model: Any) -> str:
    height, width = model.inputs[0].shape[1:3]
    return f"{model.name}: image {height}×{width}, {model.count_params():,} weights"


def _columns(units: list[Unit]) -> list[list[Unit]]:
    """Break the units into columns of about equal height, none taller than TALLEST; repeats stay together."""
    groups: list[list[Unit]] = []
    for unit in units:
        if unit.members:
            groups.append([unit])
        else:
            groups[-1].append(unit)
    rows = [sum(unit.rows for unit in group) for group in groups]
    count = max(1, -(-int(sum(rows) * DOWN * 100) // int(TALLEST * 100)))
    wanted = sum(rows) / count
    columns: list[list[Unit]] = [[]]
    filled = 0
    for group, height in zip(groups, rows, strict=True):
        if columns[-1] and filled + height / 2 > wanted * len(columns) and len(columns) < count:
            columns.append([])
        columns[-1] += group
        filled += height
    return columns


def _draw_column(
    axes: Any, units: list[Unit], middle: float, left: float, edge: float, shape: tuple[Any, ...], *, first: bool
) -> tuple[Any, ...]:
    """Draw units below each other; return the shape of the last maps."""
    top = 0.3
    for place, unit in enumerate(units):
        x, y = _Place(unit, middle, top).of, (lambda row, top=top: top + row * DOWN)
        if place or not first:
            for line in unit.edges:
                _line(axes, unit, line, x, y, middle, is_first=not place)
        for number, box in enumerate(unit.boxes):
            _draw_box(axes, box, x(number), y(box.row))
        last = unit.boxes[-1]
        if last.shape != shape:
            shape = last.shape
            at = middle + WIDTH / 2 if unit.lanes == 1 else edge - 0.08
            axes.text(
                max(at, edge - 0.08) + 0.06,
                y(last.row) + HEIGHT / 2,
                _shape(shape),
                fontsize=FONT,
                va="center",
                color=FAINT,
            )
        if unit.members and unit.times > 1:
            rows = sum(other.rows for other in units[place : place + unit.members])
            _bracket(axes, left + 0.42, y(0) - 0.05, y(rows - 1) + HEIGHT + 0.05, f"{unit.times}×")
        top += unit.rows * DOWN
    return shape


class _Place:
    """Where the boxes of a unit stand from left to right: the last one, which every way passes, in the middle."""

    def __init__(self, unit: Unit, middle: float, top: float) -> None:
        self.unit, self.middle = unit, middle

    def of(self, number: int) -> float:
        """Return the centre of a box."""
        if number in (-1, len(self.unit.boxes) - 1):
            return self.middle
        return self.lane(self.unit.boxes[number].lane)

    def lane(self, lane: int) -> float:
        """Return the centre of a lane."""
        return self.middle + (lane - (self.unit.lanes - 1) / 2) * ACROSS


def _line(axes: Any, unit: Unit, line: Any, x: Any, y: Any, middle: float, *, is_first: bool) -> None:
    """Draw an edge: down from its source, along its lane, to its target."""
    above = unit.boxes[line.source].row if line.source >= 0 else -1
    start = y(above) + HEIGHT
    if line.source < 0 and is_first:
        start = y(0) - 0.12
    end = y(unit.boxes[line.target].row)
    points = [(x(line.source), start)]
    if unit.boxes[line.target].row - above > 1:
        along = _Place(unit, middle, 0).lane(line.lane)
        points += [(along, y(above + 1) - 0.02), (along, y(unit.boxes[line.target].row - 1) + HEIGHT + 0.02)]
    points.append((x(line.target), end))
    axes.plot(*zip(*points, strict=True), color=LINE, linewidth=0.8, solid_joinstyle="round", zorder=1)
    (before, height), (x_end, y_end) = points[-2:]
    arrow = {"arrowstyle": "-|>", "color": LINE, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 5}
    if y_end - height > 0.01:
        axes.annotate("", (x_end, y_end), (before, height), arrowprops=arrow, zorder=1)


def _draw_box(axes: Any, box: Box, x: float, y: float) -> None:
    from matplotlib.patches import FancyBboxPatch

    round_one = box.kind == "merge" and len(box.words) == 1
    lines = [(box.words, FONT)] if box.words else []
    if round_one:
        lines = [(" ".join([box.words, *box.extras]), FONT)]
    else:
        above, below = (" · ".join(dict.fromkeys(words)) for words in (box.before, box.extras))
        lines = [*([(above, SMALL_FONT)] if above else []), *lines, *([(below, SMALL_FONT)] if below else [])]
    height = HEIGHT - 0.1 if round_one else HEIGHT
    width = 0.22 + 0.055 * len(lines[0][0]) if round_one else WIDTH
    rounding = f"round,pad=0,rounding_size={0.12 if round_one else 0.05}"
    look: dict[str, Any] = {"facecolor": FILLS[box.kind], "edgecolor": LINE, "linewidth": 0.7, "zorder": 2}
    top = y + (HEIGHT - height) / 2
    axes.add_patch(FancyBboxPatch((x - width / 2, top), width, height, boxstyle=rounding, **look))
    if round_one:  # the lines end at the full height
        axes.plot([x, x], [y, top], color=LINE, linewidth=0.8, zorder=1)
        axes.plot([x, x], [top + height, y + HEIGHT], color=LINE, linewidth=0.8, zorder=1)
    place: dict[str, Any] = {"ha": "center", "va": "center", "color": INK, "zorder": 3, "parse_math": False}
    for number, (text, size) in enumerate(lines):
        center = y + HEIGHT * (number + 0.9) / (len(lines) + 0.8)
        axes.text(x, center, _short(text), fontsize=size, **place)


def _bracket(axes: Any, x: float, top: float, bottom: float, text: str) -> None:
    axes.plot([x + 0.08, x, x, x + 0.08], [top, top, bottom, bottom], color=FAINT, linewidth=0.9)
    axes.text(x - 0.06, (top + bottom) / 2, text, fontsize=FONT + 1.5, ha="right", va="center", color=INK)


def _shape(shape: tuple[Any, ...]) -> str:
    return "×".join("?" if side is None else str(side) for side in shape)


def _short(text: str) -> str:
    text = printable(text)
    return text if len(text) <= LETTERS + 8 else f"{text[: LETTERS + 7]}…"
