"""The figures of the clinical reading: what is drawn, told apart without colour, and that nothing is cut off."""

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from customcnn.metrics.clinical import clinical
from customcnn.metrics.curves import Threshold
from customcnn.plots.clinical import (
    COLORS,
    MARKERS,
    MOST_BANDS,
    MOST_CLASSES,
    MOST_NAMES,
    _looks,
    decision_figure,
    precision_recall_figure,
    roc_figure,
    subjects_figure,
    write_figures,
)

FIGURES = (roc_figure, precision_recall_figure, decision_figure, subjects_figure)
NOTES = (
    "Inflated by leakage: 412 of 480 validation images belong to 62 groups that the network was trained on.",
    "Drawn cells, not patients: this score says nothing about leukemia.",
)
LONG_NAMES = ["_Lymphocyte_atypical_reactive_of_unknown_origin", "$x_1^2$" * 20, "neutrophil, segmented\n(mature)"]


def made(classes=("all", "hem"), images=240, groups=12, grouped=True, **options):
    """A result: each group has one class and a shift of its own."""
    rng = np.random.default_rng(1)
    unit = np.arange(images) % groups
    labels = (np.arange(groups) % len(classes))[unit]
    marks = rng.normal(size=(groups, len(classes)))[unit] + rng.normal(size=(images, len(classes)))
    marks[np.arange(images), labels] += 1
    probabilities = np.exp(marks)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    known = [f"s{number:03d}" for number in unit] if grouped else None
    return clinical(
        labels,
        probabilities,
        list(classes),
        groups=known,
        **{"resamples": 60, "positive": classes[1] if len(classes) == 2 else None} | options,
    )


def assert_nothing_cut_off(figure: Figure) -> None:
    figure.canvas.draw()
    for artist in [*figure.texts, *figure.axes]:
        box = artist.get_tightbbox() if artist in figure.axes else artist.get_window_extent()
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height
        assert inside, f"{artist} at {box} is outside {figure.bbox}"
    (axes,) = figure.axes
    above = min((text.get_window_extent().y0 for text in figure.texts), default=figure.bbox.height)
    assert axes.get_tightbbox().y1 <= above, "the axes or their legend cover the title or a note"


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def line_of(figure: Figure, start: str):
    (line,) = [line for line in figure.axes[0].get_lines() if str(line.get_label()).startswith(start)]
    return line


@pytest.mark.parametrize("draw", FIGURES)
@pytest.mark.parametrize("names", [("all", "hem"), tuple(LONG_NAMES[:2]), (LONG_NAMES[2], LONG_NAMES[0])])
def test_nothing_is_cut_off_and_notes_are_drawn(draw, names):
    figure = draw(made(names, threshold=0.5), title="proposed, test part of " + "cells " * 12, notes=NOTES)
    assert_nothing_cut_off(figure)
    drawn = " ".join(text.get_text() for text in figure.texts)
    for note in NOTES:
        assert note in drawn
    assert drawn.count("\N{WARNING SIGN}") == 2


def test_the_roc_curve_has_its_area_its_band_and_the_chosen_threshold():
    found = made(threshold=Threshold(0.4, "youden"))
    roc, chosen = found["curves"]["hem"]["roc"], found["threshold"]
    figure = roc_figure(found)
    line = line_of(figure, "hem, area")
    assert [*line.get_xdata()] == roc["false_positive_rate"] and [*line.get_ydata()] == roc["sensitivity"]
    area = roc["area"]
    assert line.get_label() == f"hem, area {area['value']:.3f} ({area['low']:.3f} to {area['high']:.3f})"
    mark = line_of(figure, "threshold 0.400, chosen on validation")
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (
        1 - chosen["specificity"]["value"],
        chosen["sensitivity"]["value"],
    )
    (band,) = figure.axes[0].collections
    corners = band.get_paths()[0].vertices
    assert corners[:, 1].max() == max(roc["band"]["high"]) and corners[:, 1].min() == min(roc["band"]["low"])
    assert [*line_of(figure, "guessing").get_ydata()] == [0, 1]


def test_every_figure_says_whose_recall_the_sensitivity_is():
    found = made(("b_$1$", "hem"))
    axes = [draw(found).axes[0] for draw in (roc_figure, precision_recall_figure)]
    assert axes[0].get_ylabel() == axes[1].get_xlabel() == "sensitivity (recall of hem)"
    assert axes[0].get_xlabel() == "1 - specificity (recall of b_$1$)" and not axes[0].xaxis.label.get_parse_math()
    assert decision_figure(found).axes[0].get_legend().get_title().get_text() == "positive class: hem"
    many = roc_figure(made(("a", "b", "c"))).axes[0]
    assert (many.get_xlabel(), many.get_ylabel()) == ("1 - specificity (false positive rate)", "sensitivity")


def test_the_precision_recall_curve_goes_in_steps_over_that_of_guessing():
    found = made()
    curve = found["curves"]["hem"]["precision_recall"]
    figure = precision_recall_figure(found)
    line = line_of(figure, "hem, area")
    assert [*line.get_xdata()] == curve["recall"] and [*line.get_ydata()] == curve["precision"]
    assert line.get_drawstyle() == "steps-pre"
    assert set(line_of(figure, "guessing, 0.500").get_ydata()) == {0.5}


def test_the_decision_curve_stands_beside_all_and_none():
    found = made()
    curve = found["decision_curve"]
    figure = decision_figure(found)
    assert legend_of(figure) == ["by the model", "treat everyone", "treat no one"]
    for label, key in (("by the model", "model"), ("treat everyone", "all")):
        assert [*line_of(figure, label).get_ydata()] == curve[key]
    assert set(line_of(figure, "treat no one").get_ydata()) == {0}
    styles = {line.get_linestyle() for line in figure.axes[0].get_lines()}
    assert len(styles) == 3, "told apart without colour"
    low, high = figure.axes[0].get_ylim()
    assert low < 0 and high > max(curve["model_high"])


def test_each_subject_is_a_mark_of_its_class():
    found = made()
    rows = found["subjects"]["rows"]
    rows[0]["predicted"] = "hem" if rows[0]["label"] == "all" else "all"
    figure = subjects_figure(found)
    axes = figure.axes[0]
    points = np.concatenate([marks.get_offsets() for marks in axes.collections])
    assert sorted(points[:, 0]) == pytest.approx(sorted(row["share"] for row in rows))
    assert sorted(points[:, 1]) == [*range(12)]
    places = {label.get_text(): tick for label, tick in zip(axes.get_yticklabels(), axes.get_yticks(), strict=True)}
    for marks in axes.collections:
        name, _, vote = marks.get_label().partition(", vote ")
        right = vote.startswith("right")
        own = [row for row in rows if row["label"] == name and (row["predicted"] == name) == right]
        expected = sorted((row["share"], places[f"{row['group']} ({row['images']})"]) for row in own)
        assert np.array(sorted(map(tuple, marks.get_offsets()))) == pytest.approx(np.array(expected))
        assert vote == f"{'right' if right else 'wrong'} ({len(own)})"
        hollow = tuple(marks.get_facecolor()[0][:3]) == (1, 1, 1)
        assert hollow != right
        assert tuple(marks.get_edgecolor()[0][:3]) == to_rgb(COLORS[found["classes"].index(name)])
    shapes = {
        name: {len(marks.get_paths()[0].vertices) for marks in axes.collections if marks.get_label().startswith(name)}
        for name in ("all", "hem")
    }
    assert shapes["all"] != shapes["hem"], "told apart without colour"
    assert axes.get_xlabel() == "share of the subject's images called hem"


def test_many_subjects_have_no_names_and_mixed_groups_are_told():
    found = made(images=2 * MOST_NAMES + 2, groups=MOST_NAMES + 1)
    found["subjects"]["mixed"] = 3
    figure = subjects_figure(found)
    assert not figure.axes[0].get_yticklabels()
    assert figure.axes[0].get_ylabel() == "61 subjects, by class and share"
    assert any("3 of 64 groups hold several classes" in text.get_text() for text in figure.texts)
    assert_nothing_cut_off(figure)


@pytest.mark.parametrize("classes", [MOST_BANDS, 8, MOST_CLASSES + 2])
def test_many_classes(classes):
    found = made([f"class {index}" for index in range(classes)], images=classes * 16, groups=classes * 4, resamples=5)
    for draw in (roc_figure, precision_recall_figure, subjects_figure):
        assert_nothing_cut_off(draw(found, notes=NOTES))
    figure = roc_figure(found)
    assert len(figure.axes[0].collections) == (classes if classes <= MOST_BANDS else 0)
    curves = [text for text in legend_of(figure) if ", area 0." in text and text.startswith("class")]
    assert len(curves) == min(classes, MOST_CLASSES)
    assert ("and 2 classes more" in legend_of(figure)) == (classes > MOST_CLASSES)
    assert subjects_figure(found).axes[0].get_xlabel().endswith("called by their own class")
    with pytest.raises(ValueError, match="two classes"):
        decision_figure(found)


def test_lines_differ_from_each_other_and_neighbours_in_colour_and_dashes():
    looks = _looks()
    assert len({(look["color"], look["linestyle"]) for look in looks}) == len(looks) == MOST_CLASSES
    for first, second in pairwise(looks):
        assert first["color"] != second["color"] and first["linestyle"] != second["linestyle"]
    assert len(set(MARKERS)) == len(set(COLORS)) == len(COLORS)


def test_what_is_undefined_is_said():
    found = clinical(np.array([0, 0]), np.array([[0.8, 0.2], [0.3, 0.7]]), ["a", "hem"], threshold=0.5, resamples=5)
    assert "hem, no curve: one class only" in legend_of(roc_figure(found))
    assert "hem, no curve: no such image" in legend_of(precision_recall_figure(found))
    with pytest.raises(ValueError, match="without subjects"):
        subjects_figure(found)


def test_one_group_has_no_band():
    found = clinical(np.array([0, 1]), np.array([[0.8, 0.2], [0.3, 0.7]]), ["a", "b"], groups=["x", "x"])
    assert not roc_figure(found).axes[0].collections and not decision_figure(found).axes[0].collections
    assert "b, area 1.000" in legend_of(roc_figure(found))


def test_files_are_those_that_the_result_has(tmp_path):
    written = write_figures(made(threshold=0.5), tmp_path, title="a run", notes=NOTES)
    names = ["roc.png", "precision-recall.png", "decision.png", "subjects.png"]
    assert [path.name for path in written] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    for path in written:
        assert Image.open(path).width >= 800
    first = [path.read_bytes() for path in written]
    write_figures(made(threshold=0.5), tmp_path, title="a run", notes=NOTES)
    assert [path.read_bytes() for path in written] == first
    three = write_figures(made("abc"), tmp_path)
    assert [path.name for path in three] == ["roc.png", "precision-recall.png", "subjects.png"]
    assert [path.name for path in write_figures(made(grouped=False), tmp_path)] == names[:3]


def test_names_are_text_not_formulas():
    figure = roc_figure(made(LONG_NAMES[:2]))
    for text in figure.axes[0].get_legend().findobj(Text):
        assert not text.get_parse_math()
    figure.canvas.draw()
