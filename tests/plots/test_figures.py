"""Curves, confusion matrices and tiles: what is drawn, that nothing is cut off, and that the bytes repeat."""

import math
import struct
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from customcnn.plots.confusion import confusion_figure, plot_confusion
from customcnn.plots.curves import curves_figure, plot_curves
from customcnn.plots.figure import MOST_PIXELS, text_fits, text_width, wrap_text
from customcnn.plots.tiles import (
    BROKEN_COLOR,
    LARGEST_WIDTH,
    figure_21,
    flat_channels,
    tile_columns,
    tile_maps,
    tile_picture,
)

HISTORY = [
    {"epoch": 1, "loss": 0.7, "accuracy": 0.5, "val_loss": 0.8, "val_accuracy": 0.4, "learning_rate": 2e-4},
    {"epoch": 2, "loss": 0.5, "accuracy": 0.6, "val_loss": 0.6, "val_accuracy": 0.75, "learning_rate": 2e-4},
    {"epoch": 3, "loss": 0.3, "accuracy": 0.9, "val_loss": 0.9, "val_accuracy": 0.75, "learning_rate": 2e-4},
]
LOW, HIGH, WHITE, BROKEN = (68, 1, 84), (253, 231, 37), (255, 255, 255), BROKEN_COLOR  # the ends of viridis
NOTES = (
    "Inflated by leakage: 412 of 480 validation images belong to 62 groups that the network was trained on.",
    "Drawn cells, not patients: this score says nothing about leukemia.",
)
LONG_NAMES = ["Lymphocyte_atypical_reactive_of_unknown_origin", "neutrophil, segmented (mature)", "$x_1^2$", "x" * 200]


def texts(figure: Figure) -> list[Text]:
    figure.canvas.draw()
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]


def assert_nothing_cut_off(figure: Figure) -> None:
    figure.canvas.draw()
    boxes = {text.get_text(): text.get_window_extent() for text in figure.texts}
    # An axes' box holds its labels and drawn ticks; ticks beyond its limits exist but are not drawn.
    boxes |= {axes.get_ylabel() or axes.get_title(): axes.get_tightbbox() for axes in figure.axes}
    for name, box in boxes.items():
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height
        assert inside, f"{name!r} at {box} is outside {figure.bbox}"


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    def luminance(color: tuple[float, ...]) -> float:
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3])
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def lines_of(figure: Figure, panel: int) -> dict[str, list[tuple[float, float]]]:
    return {
        str(line.get_label()): [(float(x), float(y)) for x, y in zip(*line.get_data(), strict=True)]
        for line in figure.axes[panel].get_lines()
        if not str(line.get_label()).startswith("_")
    }


def png_chunks(path: Path) -> list[bytes]:
    data, place, names = path.read_bytes(), 8, []
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        names.append(data[place + 4 : place + 8])
        place += length + 12
    return names


def test_curves_show_every_epoch_and_mark_the_first_best_one():
    figure = curves_figure(HISTORY, notes=NOTES)
    loss, accuracy = lines_of(figure, 0), lines_of(figure, 1)
    assert loss == {"training": [(1, 0.7), (2, 0.5), (3, 0.3)], "validation": [(1, 0.8), (2, 0.6), (3, 0.9)]}
    assert accuracy == {
        "training": [(1, 0.5), (2, 0.6), (3, 0.9)],
        "validation": [(1, 0.4), (2, 0.75), (3, 0.75)],
        "best validation: 0.7500 at epoch 2": [(2, 0.75)],
    }
    assert_nothing_cut_off(figure)


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 100, 1000])
def test_epochs_are_whole_numbers(epochs):
    figure = curves_figure([{**HISTORY[0], "epoch": epoch} for epoch in range(1, epochs + 1)])
    figure.canvas.draw()
    for axes in figure.axes:
        low, high = axes.get_xlim()
        shown = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert shown and all(tick == int(tick) for tick in shown)
    assert_nothing_cut_off(figure)


def test_the_best_score_is_inside_the_axes():
    for row in ({"val_accuracy": 0.0, "accuracy": 0.0}, {"val_accuracy": 1.0, "accuracy": 1.0}):
        axes = curves_figure([{**HISTORY[0], **row}]).axes[1]
        low, high = axes.get_ylim()
        assert low < row["accuracy"] < high
        assert high > 1


def test_curves_without_validation():
    figure = curves_figure([{"epoch": 1, "loss": 1.0, "accuracy": 0.5}, {"epoch": 2, "loss": 0.9, "accuracy": 0.6}])
    assert lines_of(figure, 0) == {"training": [(1, 1.0), (2, 0.9)]}
    assert lines_of(figure, 1) == {"training": [(1, 0.5), (2, 0.6)]}


def test_points_that_are_missing_or_not_finite_are_left_out():
    rows = [{**HISTORY[0], "loss": math.nan, "val_accuracy": math.inf}, HISTORY[1], {"epoch": 3, "loss": None}]
    figure = curves_figure(rows)  # type: ignore[arg-type]
    assert lines_of(figure, 0)["training"] == [(2, 0.5)]
    assert lines_of(figure, 1)["validation"] == [(2, 0.75)]
    assert lines_of(figure, 1)["best validation: 0.7500 at epoch 2"] == [(2, 0.75)]
    empty = curves_figure([{"epoch": 1}])
    assert [t.get_text() for t in texts(empty)].count("not recorded") == 2


def test_rows_without_an_epoch_count_from_one():
    assert lines_of(curves_figure([{"loss": 2.0}, {"loss": 1.0}]), 0) == {"training": [(1, 2.0), (2, 1.0)]}


def test_curves_refuse_an_empty_history():
    with pytest.raises(ValueError, match="at least one epoch"):
        curves_figure([])


def test_confusion_by_hand():
    figure = confusion_figure([[3, 1], [0, 5]], ["all", "hem"], title="Validation")
    axes = figure.axes[0]
    cells = {t.get_position(): t.get_text() for t in axes.texts}
    # x is the predicted class, y the true one.
    assert cells == {(0, 0): "3\n75.0%", (1, 0): "1\n25.0%", (0, 1): "0\n0.0%", (1, 1): "5\n100.0%"}
    assert [t.get_text() for t in axes.get_yticklabels()] == ["all", "hem"]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["all", "hem"]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("true class", "predicted class")
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "the first true class is the upper row"
    assert "Validation" in [t.get_text() for t in texts(figure)]


def test_a_class_without_images_has_no_percentage():
    figure = confusion_figure([[2, 0], [0, 0]], ["a", "b"])
    assert [t.get_text() for t in figure.axes[0].texts][2:] == ["0\n–", "0\n–"]


@pytest.mark.parametrize("number", [2, 7, 20])
@pytest.mark.parametrize("long", [False, True])
def test_confusion_is_readable_at_every_size(number, long):
    names = [f"{LONG_NAMES[i % 4]} {i}" if long else f"c{i}" for i in range(number)]
    counts = np.random.default_rng(number).integers(0, 400, (number, number)) + np.diag(np.arange(number) * 900)
    figure = confusion_figure(counts, names, title="T" * 150, notes=NOTES)
    assert_nothing_cut_off(figure)
    axes = figure.axes[0]
    (image,) = axes.get_images()
    cell = image.get_window_extent().width / number
    shares = counts / counts.sum(axis=1, keepdims=True)
    for text in axes.texts:
        box = text.get_window_extent()
        assert box.width < cell and box.height < cell
        column, row = text.get_position()
        assert contrast(to_rgb(text.get_color()), tuple(image.to_rgba(shares[int(row), int(column)]))) >= 4.5
    (background,) = [p for p in figure.artists if isinstance(p, Rectangle)]
    assert background.get_window_extent().y0 > axes.get_window_extent().y1, "the warnings lie above the matrix"
    labels = [t.get_window_extent() for t in axes.get_yticklabels()]
    assert not any(a.overlaps(b) for a, b in pairwise(labels))


@pytest.mark.parametrize("number", [60, 120, 400])
def test_a_confusion_matrix_of_many_classes_stays_a_picture_that_programs_open(number):
    counts = np.diag(np.arange(1000, 1000 + number))
    figure = confusion_figure(counts, [f"{LONG_NAMES[i % 4]} {i}" for i in range(number)])
    width, height = figure.get_size_inches() * figure.dpi
    assert width * height <= MOST_PIXELS + 1
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == (
        [] if number == 400 else [str(n) for n in range(1000, 1000 + number)]
    )
    cell = min(37, 0.62 * number) / number  # inches: drawing so many would take seconds
    for text in axes.texts[:1]:
        assert text_width(text.get_text(), text.get_fontsize()) < cell
    label = axes.get_yticklabels()[0]
    assert label.get_fontsize() * 1.2 / 72 < cell and "\n" not in label.get_text()


def test_names_are_shown_as_they_are():
    names = ["a\nb", "$x$", "naïve", "stray \udcff", r"$\frac$"]
    figure = confusion_figure(np.eye(5, dtype=int), names, title=r"$\frac$", notes=[r"$\frac$"])
    figure.canvas.draw()  # what is no formula would be an error if it were read as one
    shown = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert shown == ["a\\nb", "$x$", "naïve", "stray \\udcff", r"$\frac$"]


@pytest.mark.parametrize(("matrix", "classes"), [([[1, 2]], ["a", "b"]), ([[1]], ["a", "b"]), (np.zeros((0, 0)), [])])
def test_confusion_refuses_a_matrix_of_another_shape(matrix, classes):
    with pytest.raises(ValueError, match="a row and a column for each"):
        confusion_figure(matrix, classes)


@pytest.mark.parametrize(
    "make", [lambda n: curves_figure(HISTORY, notes=n), lambda n: confusion_figure([[1]], ["a"], notes=n)]
)
def test_notes_are_printed_whole_in_a_colour_of_their_own(make):
    notes = [*NOTES, "/a/path/" + "x" * 400]
    figure = make(notes)
    assert_nothing_cut_off(figure)
    (box,) = [p for p in figure.artists if isinstance(p, Rectangle)]
    printed = [t for t in figure.texts if to_rgb(t.get_color()) == to_rgb("#6B2A00")]
    assert "".join("".join(t.get_text() for t in printed).split()) == "".join("⚠" + "".join(n.split()) for n in notes)
    assert contrast(to_rgb("#6B2A00"), box.get_facecolor()) >= 7
    paper = box.get_window_extent()
    for text in printed:
        extent = text.get_window_extent()
        assert paper.x0 <= extent.x0 and extent.x1 <= paper.x1 and paper.y0 <= extent.y0 and extent.y1 <= paper.y1


def test_a_figure_without_notes_has_no_banner():
    assert not [p for p in curves_figure(HISTORY).artists if isinstance(p, Rectangle)]


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(codec="ascii", categories=("L", "N", "P", "Zs")), max_size=80))
def test_wrapping_keeps_every_letter_and_every_line_fits(text):
    fits = text_fits(0.8, 9)
    lines = wrap_text(text, fits)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(fits(line) for line in lines)


def test_the_same_figures_give_the_same_bytes_whatever_the_users_settings(tmp_path):
    plot_curves(HISTORY, tmp_path / "a.png", notes=NOTES)
    plot_confusion([[3, 1], [0, 5]], ["all", "hem"], tmp_path / "c.png", title="Validation", notes=NOTES)
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 30, "savefig.dpi": 20, "axes.grid": True}):
        plot_curves(HISTORY, tmp_path / "b.png", notes=NOTES)
        plot_confusion([[3, 1], [0, 5]], ["all", "hem"], tmp_path / "d.png", title="Validation", notes=NOTES)
        assert matplotlib.rcParams["lines.linewidth"] == 9
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "c.png").read_bytes() == (tmp_path / "d.png").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png", "c.png", "d.png"]
    for name in ("a.png", "c.png"):
        assert set(png_chunks(tmp_path / name)) == {b"IHDR", b"pHYs", b"IDAT", b"IEND"}, "no dates, no versions"


def test_letters_that_no_font_has_are_no_warning(tmp_path, recwarn):
    plot_confusion([[1, 0], [0, 1]], ["\u4e2d\u6587", "\U0001f9a0"], tmp_path / "c.png")
    assert not recwarn.list


def test_a_folder_that_is_missing_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(OSError):
        plot_curves(HISTORY, tmp_path / "none" / "a.png")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- tiled activation maps


def test_tiles_by_hand():
    first = [[0.0, 0.5], [1.0, 0.0]]
    second = [[-7.0, -7.0], [-5.0, -7.0]]
    third = [[10.0, 20.0], [10.0, 10.0]]
    grid = tile_maps(np.stack([first, second, third], axis=-1), columns=2)
    half = (33, 145, 140)  # level 128 of viridis: 0.5 * 255 + 0.5, rounded down
    w = WHITE
    expected = [
        [LOW, half, w, LOW, LOW],
        [HIGH, LOW, w, HIGH, LOW],
        [w, w, w, w, w],
        [LOW, HIGH, w, w, w],
        [LOW, LOW, w, w, w],
    ]
    assert grid.dtype == np.uint8
    np.testing.assert_array_equal(grid, np.array(expected))


def test_channels_follow_each_other_by_rows():
    # Channel k alone has its high value at the only pixel (k, k): a reshape where a transpose was meant would show.
    activation = np.zeros((6, 6, 6))
    activation[range(6), range(6), range(6)] = 1
    grid = tile_maps(activation, columns=3, gap=0)
    for channel in range(6):
        row, column = divmod(channel, 3)
        tile = grid[row * 6 : row * 6 + 6, column * 6 : column * 6 + 6]
        assert [tuple(map(int, place)) for place in np.argwhere((tile == HIGH).all(axis=2))] == [(channel, channel)]


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5, 1e30, 1e-30])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_flat_map_stays_flat(value, dtype):
    value = np.dtype(dtype).type(np.clip(value, *((-6e4, 6e4) if dtype == "float16" else (None, None))))
    assert np.unique(tile_maps(np.full((3, 4, 1), value)).reshape(-1, 3), axis=0).tolist() == [list(LOW)]


def test_rounding_does_not_become_noise():
    rng = np.random.default_rng(0)
    steps = rng.integers(0, 3, (8, 8, 1)) * 2.0**-23
    assert flat_channels(np.float32(1 + steps)).tolist() == [True]
    # Sums that cancel leave rounding of the size of their terms.
    loud, rest = rng.normal(size=(8, 8, 1)) * 1000, steps * 100
    assert flat_channels(np.concatenate([loud, rest], axis=2).astype(np.float32)).tolist() == [False, True]
    assert flat_channels(np.float16(1 + rng.integers(0, 4, (8, 8, 1)) * 2.0**-10)).tolist() == [True]


def test_a_faint_map_is_not_flat():
    activation = np.zeros((4, 4, 2), np.float32)
    activation[..., 0], activation[1, 1, 1] = np.arange(16).reshape(4, 4), 0.001
    assert flat_channels(activation).tolist() == [False, False]


def test_values_that_are_not_finite_are_marked_and_do_not_disturb_the_others():
    values = [[np.nan, 0.0, 2.0], [np.inf, -np.inf, 2.0]]
    grid = tile_maps(np.array(values)[..., None])
    np.testing.assert_array_equal(grid, [[BROKEN, LOW, HIGH], [BROKEN, BROKEN, HIGH]])
    np.testing.assert_array_equal(tile_maps(np.full((2, 2, 1), np.nan)), np.full((2, 2, 3), BROKEN))


def test_extremes_of_each_type_do_not_overflow(recwarn):
    for dtype in (np.float16, np.float32, np.float64):
        largest = np.finfo(dtype).max
        np.testing.assert_array_equal(tile_maps(np.array([[[-largest], [largest]]])), [[LOW, HIGH]])
    assert not recwarn.list


def test_half_precision_is_no_coarser_than_its_values():
    activation = np.linspace(0, 2047, 2048).reshape(32, 64, 1)  # whole numbers, which float16 holds
    np.testing.assert_array_equal(tile_maps(activation.astype(np.float16)), tile_maps(activation))


def test_bfloat16():
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    np.testing.assert_array_equal(tile_maps(np.array([[[1], [3]]], dtype=bfloat16)), [[LOW, HIGH]])
    assert flat_channels(np.array([[[1], [1.0078125]]], dtype=bfloat16)).tolist() == [True]


def test_figure_21_by_hand():
    """(x - mean) / std * 64 + 128 of each channel, cut to 0..255 and to whole numbers; a flat channel is the middle."""
    first = np.array([[1.0, 3.0], [1.0, 3.0]])  # mean 2, deviation 1
    second = np.array([[0.0] * 9 + [10.0]])  # mean 1, deviation 3: 10 is 3 deviations above
    np.testing.assert_array_equal(figure_21(first[..., None])[..., 0], [[64, 192], [64, 192]])
    np.testing.assert_array_equal(figure_21(second[..., None])[0, :, 0], [106] * 9 + [255])
    np.testing.assert_array_equal(figure_21(np.full((2, 2, 1), 7.0)), np.full((2, 2, 1), 128))
    broken = figure_21(np.array([[[1.0], [3.0], [np.nan]]]))
    np.testing.assert_array_equal(broken, [[[64], [192], [np.nan]]])


def test_tiles_of_one_scale():
    grid = tile_maps(np.array([[[0.0, 128.0], [255.0, 128.0]]]), columns=1, gap=0, scale=(0, 255))
    viridis = np.rint(matplotlib.colormaps["viridis"](np.arange(256))[:, :3] * 255).astype(int)
    np.testing.assert_array_equal(grid, [[viridis[0], viridis[255]], [viridis[128], viridis[128]]])


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=3, max_dims=3, max_side=6),
        elements=st.floats(-100, 100, width=16),
    ),
    st.integers(1, 7),
    st.integers(0, 3),
)
def test_every_tile_is_scaled_on_its_own(activation, columns, gap):
    height, width, channels = activation.shape
    grid = tile_maps(activation, columns=columns, gap=gap)
    rows = -(-channels // columns)
    assert grid.shape == (rows * (height + gap) - gap, columns * (width + gap) - gap, 3)
    flat = flat_channels(activation)
    for channel in range(channels):
        row, column = divmod(channel, columns)
        top, left = row * (height + gap), column * (width + gap)
        tile, values = grid[top : top + height, left : left + width], activation[..., channel]
        if flat[channel]:
            assert (tile == LOW).all()
        else:
            assert (tile[values == values.min()] == LOW).all()
            assert (tile[values == values.max()] == HIGH).all()


@pytest.mark.parametrize(
    ("channels", "columns"),
    [(1, 1), (3, 3), (16, 4), (32, 8), (64, 8), (96, 12), (128, 16), (512, 32), (13, 4), (7, 3)],
)
def test_columns_leave_no_empty_places_where_they_can(channels, columns):
    assert tile_columns(channels) == columns


@pytest.mark.parametrize("shape", [(2, 2), (0, 2, 2), (2, 2, 0), (1, 2, 2, 2)])
def test_tiles_refuse_other_shapes(shape):
    with pytest.raises(ValueError, match=r"An activation is \(H, W, C\)"):
        tile_maps(np.zeros(shape))
    with pytest.raises(ValueError, match="at least one column"):
        tile_maps(np.zeros((2, 2, 2)), columns=0)


@pytest.mark.parametrize("shape", [(5, 5, 512), (1, 1, 4096), (4, 9, 7), (150, 150, 32), (227, 227, 96), (700, 500, 3)])
def test_pictures_are_neither_tiny_nor_huge(shape):
    activation = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    pixels, columns = tile_picture(activation)
    assert pixels.shape[1] <= LARGEST_WIDTH
    assert pixels.shape[0] <= 2.5 * LARGEST_WIDTH
    assert (pixels.shape[1] + 2) // columns - 2 >= 32


def test_small_maps_are_enlarged_by_whole_pixels():
    pixels, _ = tile_picture(np.array([[0.0, 1.0], [1.0, 0.0]])[..., None])
    side = len(pixels) // 2
    assert side >= 16
    expected = np.array([[LOW, HIGH], [HIGH, LOW]]).repeat(side, axis=0).repeat(side, axis=1)
    np.testing.assert_array_equal(pixels, expected)


def test_large_maps_are_averaged():
    stripes = np.zeros((512, 600, 1))
    stripes[:, 1::3] = 3
    stripes[:, 300:] += 1
    pixels, _ = tile_picture(stripes)  # by 3 x 3: 171 x 200, of means 1 and 2
    assert pixels.shape == (171, 200, 3)
    assert (pixels[:, :100] == LOW).all() and (pixels[:, 100:] == HIGH).all()
