"""Line charts as SVG inside a page: they follow its colours, on light and dark screens and on paper."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from customcnn.html.page import Html, escape

WIDTH, HEIGHT = 400, 300  # of the drawing, in its own units; it is shown as wide as there is room
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 10, 44  # around the plotted square
EDGE, FAR = 2, 20  # how far a line may reach over the axes; how many times their length a point may lie away
STYLES = 6
"""So many lines differ by colour and dashes; further ones begin again."""


@dataclass(frozen=True)
class Series:
    """One line.

    Attributes:
        name: for the legend.
        x, y: its points in order; a point that is None or not finite is left out and breaks the line.
        dots: mark every point.
        line: join them.
        band: x, low and high of an area about the line, such as an interval; None for none.
    """

    name: str
    x: Sequence[float | None]
    y: Sequence[float | None]
    dots: bool = False
    line: bool = True
    band: tuple[Sequence[float], Sequence[float], Sequence[float]] | None = None


def line_chart(
    series: Sequence[Series],
    *,
    alt: str,
    x: str,
    y: str,
    caption: str = "",
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    diagonal: bool = False,
    mark: float | None = None,
) -> Html:
    """Return lines over two axes, with a legend under them.

    Args:
        series: the lines.
        alt: what the chart shows, for who cannot see it.
        x, y: what stands on the axes.
        caption: under the legend.
        x_range, y_range: the ends of an axis; None for those of the points.
        diagonal: draw the line from corner to corner: chance, or perfect agreement.
        mark: a place on the x axis, shown by an upright line.

    Raises:
        ValueError: `alt` is empty, or there is no point.
    """
    if not alt.strip():
        raise ValueError("A chart needs an alternative text.")
    points = [_finite(line) for line in series]
    every = [point for line in points for run in line for point in run]
    if not every:
        raise ValueError("A chart needs a point. Received: none.")
    across = x_range or _around([px for px, _ in every])
    up = y_range or _around([py for _, py in every])
    parts = []
    if diagonal:
        parts.append(f'<path class="guide" d="{_path([(across[0], up[0]), (across[1], up[1])], across, up)}"/>')
    if mark is not None:
        parts.append(f'<path class="guide" d="{_path([(mark, up[0]), (mark, up[1])], across, up)}"/>')
    for number, (line, runs) in enumerate(zip(series, points, strict=True)):
        parts += _drawn(line, runs, number % STYLES + 1, across, up)
    # A drawing inside the drawing cuts off what lies outside the axes, but for half a line's width.
    inside = (LEFT - EDGE, TOP - EDGE, WIDTH - LEFT - RIGHT + 2 * EDGE, HEIGHT - TOP - BOTTOM + 2 * EDGE)
    box = " ".join(map(str, inside))
    place = 'x="{}" y="{}" width="{}" height="{}"'.format(*inside)
    lines = f'<svg {place} viewBox="{box}">{"".join(parts)}</svg>'
    axes = _axes(across, up, x, y)
    picture = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(alt)}">{axes}{lines}</svg>'
    words = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return Html(f'<figure class="chart">{picture}{_legend(series)}{words}</figure>')


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers between two ends, about `count` of them: steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _finite(line: Series) -> list[list[tuple[float, float]]]:
    """Return the runs of points between those that are missing."""
    runs: list[list[tuple[float, float]]] = [[]]
    for px, py in zip(line.x, line.y, strict=True):
        if px is not None and py is not None and math.isfinite(px) and math.isfinite(py):
            runs[-1].append((float(px), float(py)))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _around(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = (high - low) * 0.04 or max(abs(high), 1.0) * 0.5
    return low - room, high + room


def _place(point: tuple[float, float], across: tuple[float, float], up: tuple[float, float]) -> tuple[float, float]:
    """Return where a point stands in the drawing; far outside the axes it is moved nearer, where nobody sees it."""
    sx = min(max((point[0] - across[0]) / (across[1] - across[0]), -FAR), FAR)
    sy = min(max((point[1] - up[0]) / (up[1] - up[0]), -FAR), FAR)
    return LEFT + sx * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - sy * (HEIGHT - TOP - BOTTOM)


def _path(points: Sequence[tuple[float, float]], across: tuple[float, float], up: tuple[float, float]) -> str:
    """Return a path; points of thousands of images that fall on one line or on one spot are drawn once."""
    kept: list[tuple[float, float]] = []
    for point in points:
        px, py = _place(point, across, up)
        place = (round(px, 1), round(py, 1))
        if kept and place == kept[-1]:
            continue
        if len(kept) > 1 and any(kept[-2][axis] == kept[-1][axis] == place[axis] for axis in (0, 1)):
            kept[-1] = place
        else:
            kept.append(place)
    return "M" + "L".join(f"{px:g} {py:g}" for px, py in kept)


def _drawn(
    line: Series,
    runs: list[list[tuple[float, float]]],
    style: int,
    across: tuple[float, float],
    up: tuple[float, float],
) -> list[str]:
    parts = []
    if line.band:
        bx, low, high = line.band
        edge = [*zip(bx, high, strict=True), *reversed([*zip(bx, low, strict=True)])]
        parts.append(f'<path class="band s{style}" d="{_path(edge, across, up)}Z"/>')
    for run in runs:
        if line.line and len(run) > 1:
            parts.append(f'<path class="line s{style}" d="{_path(run, across, up)}"/>')
        if line.dots or len(run) == 1:
            places = [_place(point, across, up) for point in run]
            parts += [f'<circle class="s{style}" cx="{px:.1f}" cy="{py:.1f}" r="3"/>' for px, py in places]
    return parts


def _axes(across: tuple[float, float], up: tuple[float, float], x: str, y: str) -> str:
    parts = []
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    for value in ticks(*across):
        px, _ = _place((value, up[0]), across, up)
        parts.append(f'<path class="grid" d="M{px:.1f} {TOP}V{bottom}"/>')
        parts.append(f'<text x="{px:.1f}" y="{bottom + 16}" text-anchor="middle">{_number(value)}</text>')
    for value in ticks(*up):
        _, py = _place((across[0], value), across, up)
        parts.append(f'<path class="grid" d="M{LEFT} {py:.1f}H{right}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{py + 4:.1f}" text-anchor="end">{_number(value)}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{right}"/>')
    parts.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x)}</text>')
    middle = (TOP + bottom) / 2
    parts.append(
        f'<text x="12" y="{middle}" text-anchor="middle" transform="rotate(-90 12 {middle})">{escape(y)}</text>'
    )
    return f'<g aria-hidden="true">{"".join(parts)}</g>'


def _number(value: float) -> str:
    return f"{value:.6g}".replace("-", "−")


def _legend(series: Sequence[Series]) -> str:
    items = []
    for number, line in enumerate(series):
        style = number % STYLES + 1
        shape = f'<path class="line s{style}" d="M0 6H28"/>' if line.line else ""
        shape += f'<circle class="s{style}" cx="14" cy="6" r="3"/>' if line.dots else ""
        swatch = f'<svg class="swatch" viewBox="0 0 28 12" aria-hidden="true">{shape}</svg>'
        items.append(f"<li>{swatch}{escape(line.name)}</li>")
    return f'<ul class="legend">{"".join(items)}</ul>'
