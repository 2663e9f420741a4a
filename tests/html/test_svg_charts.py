"""Charts as SVG: where points stand, what is left out, and that thousands of them stay small."""

import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from customcnn.html.svg_charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Series, line_chart, ticks

UNIT = (0.0, 1.0)


def chart(*series: Series, **more) -> str:
    return line_chart(series, **{"alt": "A chart", "x": "x", "y": "y", "x_range": UNIT, "y_range": UNIT, **more})


def paths(text: str, kind: str) -> list[list[tuple[float, float]]]:
    """Return the points of every path of a class."""
    found = re.findall(rf'<path class="{kind}[^"]*" d="M([^"]*)"', text.partition("</svg>")[0])
    return [[tuple(map(float, place.split())) for place in path.rstrip("Z").split("L")] for path in found]


def test_corners_stand_in_the_corners():
    (line,) = paths(chart(Series("a", [0, 1], [0, 1])), "line")
    assert line == [(LEFT, HEIGHT - BOTTOM), (WIDTH - RIGHT, TOP)]


def test_a_missing_point_breaks_the_line():
    text = chart(Series("a", [0, 0.2, 0.4, 0.6, 0.8], [0.5, 0.6, None, math.nan, 0.1]), Series("b", [0, 1], [1, None]))
    assert [len(line) for line in paths(text, "line")] == [2]
    assert text.partition("</svg>")[0].count("<circle") == 2  # a point alone has no line


def test_marks_bands_and_the_diagonal():
    band = ([0.0, 1.0], [0.1, 0.2], [0.3, 0.4])
    text = chart(Series("a", [0, 1], [0.2, 0.3], band=band), diagonal=True, mark=0.5)
    assert len(paths(text, "band")[0]) == 4
    diagonal, mark = paths(text, "guide")
    assert diagonal == [(LEFT, HEIGHT - BOTTOM), (WIDTH - RIGHT, TOP)]
    assert mark[0][0] == mark[1][0] == (LEFT + WIDTH - RIGHT) / 2


def test_thousands_of_points_stay_small():
    steps = np.linspace(0, 1, 20_001)
    straight = chart(Series("a", steps.tolist(), [1.0] * len(steps)))
    assert len(paths(straight, "line")[0]) == 2
    stairs = np.repeat(steps, 2)
    text = chart(Series("a", stairs[1:].tolist(), stairs[:-1].tolist()))
    (line,) = paths(text, "line")
    assert line[0] == (LEFT, HEIGHT - BOTTOM) and line[-1] == (WIDTH - RIGHT, TOP) and len(text) < 200_000


def test_it_is_well_formed_and_escaped():
    name = "<script>alert('&')</script>"
    text = line_chart([Series(name, [1, 2], [3, 4])], alt=name, x=name, y=name, caption=name)
    ElementTree.fromstring(text)
    assert "<script" not in text


def test_what_lies_far_outside_does_not_blow_up_the_numbers():
    text = chart(Series("a", [0, 0.5, 1], [0.5, -1e300, 0.5]))
    assert all(abs(number) < 1e5 for line in paths(text, "line") for point in line for number in point)


def test_a_single_value_has_an_axis():
    text = line_chart([Series("a", [1], [0.5], dots=True)], alt="One", x="epoch", y="loss")
    ElementTree.fromstring(text)
    assert "nan" not in text and "inf" not in text


def test_what_is_no_chart():
    with pytest.raises(ValueError, match="alternative text"):
        chart(Series("a", [0], [0]), alt=" ")
    with pytest.raises(ValueError, match="needs a point"):
        chart(Series("a", [None], [0]))


def test_ticks_by_hand():
    assert ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert ticks(1, 10) == pytest.approx([2, 4, 6, 8, 10])
    assert ticks(-0.12, 0.5) == pytest.approx([0, 0.2, 0.4])
    assert ticks(3, 3) == [3]


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_lie_inside_evenly(low, length):
    found = ticks(low, low + length)
    assert 2 <= len(found) <= 11
    room = 1e-6 * max(abs(low), length, 1)
    assert all(low - room <= tick <= low + length + room for tick in found)
    steps = [b - a for a, b in pairwise(found)]
    np.testing.assert_allclose(steps, steps[0], rtol=1e-6, atol=room)
