"""Drawn cells, their classes and subjects."""

import csv
import hashlib
import re
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from customcnn.data.manifest import GROUP_PATTERNS, scan
from customcnn.data.synthetic import LABELS, Stain, draw_cell, draw_files, draw_samples
from tests.support.errors import refused
from tests.support.folders import contents

PLAIN = Stain((0.82, 1.36, 0.54), (0.44, 0.47, 0.19), (1.0, 1.0, 1.0), 1.0, 0.0)
LARGEST = Stain((0.5, 0.9, 0.4), (0.3, 0.3, 0.1), (1.0, 1.0, 1.0), 2.0, 0.0)  # twice as large as any subject's


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return draw_samples(tmp_path_factory.mktemp("drawn") / "cells", subjects=2, cells=4, size=48, workers=1)


# One cell


@given(seed=st.integers(0, 2**32), label=st.sampled_from(LABELS), size=st.integers(32, 130), largest=st.booleans())
@example(seed=0, label="all", size=450, largest=True)
@settings(max_examples=150)
def test_background_is_black_and_the_middle_400_of_450_holds_the_cell(seed, label, size, largest):
    stain = LARGEST if largest else Stain.of(seed, label, "1")
    cell = draw_cell(label, np.random.default_rng(seed), stain, size)
    assert cell.shape == (size, size, 3) and cell.dtype == np.uint8
    border = round(size * 25 / 450)
    inner = cell[border : size - border, border : size - border]
    assert inner.any(axis=2).sum() == cell.any(axis=2).sum()
    edges = np.concatenate([inner[0], inner[-1], inner[:, 0], inner[:, -1]])
    assert not edges.any()  # nor does the cell touch the crop's border
    assert cell[size // 2, size // 2].min() > 0


def test_cells_are_about_200_pixels_wide_and_near_the_centre():
    extents, offsets = [], []
    for i in range(24):
        label = LABELS[i % 2]
        cell = draw_cell(label, np.random.default_rng(i), Stain.of(0, label, str(i)))
        rows, columns = (np.flatnonzero(cell.any(axis=(2, axis))) for axis in (1, 0))
        for places in (rows, columns):
            extents.append(places[-1] - places[0] + 1)
            offsets.append((places[-1] + places[0] + 1) / 2 - 225)
    assert 185 < np.mean(extents) < 220
    assert min(extents) > 130 and max(extents) < 285
    assert np.abs(offsets).max() < 40


def test_the_edge_is_soft_by_a_pixel_or_two_without_a_halo():
    for i in range(6):
        row = draw_cell(LABELS[i % 2], np.random.default_rng(i), PLAIN)[225, :, 2].astype(int)
        start = int(np.flatnonzero(row)[0])
        assert row[start] < row[start + 1] and row[start : start + 4].max() > 0.6 * row[start + 4 : start + 12].max()


def test_a_cell_of_another_size_looks_the_same():
    for label in LABELS:
        large, small = (draw_cell(label, np.random.default_rng(5), PLAIN, size) for size in (450, 90))
        shrunk = np.asarray(Image.fromarray(large).resize((90, 90), Image.Resampling.BOX)).astype(float)
        other = draw_cell(label, np.random.default_rng(6), PLAIN, 90)
        assert np.abs(shrunk - small).mean() < 2 < np.abs(shrunk - other).mean()


@pytest.mark.parametrize(("label", "size"), [("HEM", 64), ("all", 31), ("all", 4097)])
def test_draw_cell_refuses_what_it_cannot_draw(label, size):
    with pytest.raises(ValueError, match=f"got '{label}', {size}"):
        draw_cell(label, np.random.default_rng(0), PLAIN, size)


# The classes


def features(label, seed):
    """Measure a cell of a plain stain: cytoplasm's share of its area, size and roundness of its nucleus, coarseness."""
    stain = replace(PLAIN, shift=Stain.of(0, label, str(seed)).shift)
    green = draw_cell(label, np.random.default_rng(seed), stain, 225)[:, :, 1].astype(float)
    nucleus = (green > 0) & (green < 110)  # by absorbances: nucleus 255 e^-1.36 = 65, cytoplasm 255 e^-0.47 = 159
    y, x = np.nonzero(nucleus)
    moment = ((y - y.mean()) ** 2 + (x - x.mean()) ** 2).sum()
    roundness = len(y) ** 2 / (2 * np.pi * moment)  # a disc of radius r has area pi r^2 and moment pi r^4 / 2: 1
    inside = nucleus[:, :-4] & nucleus[:, 4:]
    coarseness = np.corrcoef(green[:, :-4][inside], green[:, 4:][inside])[0, 1]
    return 1 - len(y) / (green > 0).sum(), len(y), roundness, coarseness


def test_classes_differ_as_the_real_ones_do_and_overlap():
    measured = {label: np.array([features(label, seed) for seed in range(60)]) for label in LABELS}
    blast, normal = measured["all"], measured["hem"]
    share, area, roundness, coarseness = blast.mean(axis=0) - normal.mean(axis=0)
    assert share < -0.1  # little cytoplasm
    assert area > 500  # a larger nucleus
    assert roundness > 0.004  # a rounder one
    assert coarseness < -0.1  # of finer chromatin
    for i, larger, smaller in ((0, normal, blast), (1, blast, normal), (2, blast, normal), (3, normal, blast)):
        assert np.percentile(smaller[:, i], 90) > np.percentile(larger[:, i], 10)


# The subjects


def test_a_stain_belongs_to_seed_label_and_subject():
    looks = [Stain.of(*key) for key in ((0, "all", "1"), (1, "all", "1"), (0, "hem", "1"), (0, "all", "11"))]
    assert len(set(looks)) == 4
    assert looks[0] == Stain.of(0, "all", "1")
    assert Stain.of(0, "hem", "h3") == Stain.of(0, "hem", "H3")


def test_subjects_differ_in_colour_more_than_their_cells_do():
    colours = np.zeros((8, 6, 3))
    for subject in range(8):
        for i in range(6):
            cell = draw_cell("all", np.random.default_rng([subject, i]), Stain.of(0, "all", str(subject + 1)), 64)
            colours[subject, i] = cell[cell.any(axis=2)].mean(axis=0)
    between, within = colours.mean(axis=1).std(axis=0), colours.std(axis=1).mean(axis=0)
    assert (between > 3 * within).all()


def test_a_stain_tells_nothing_about_the_class():
    looks = [[Stain.of(0, label, str(i)) for i in range(500)] for label in LABELS]
    values = np.array([[[*s.chromatin, *s.cytoplasm, *s.light, s.scale, s.shift] for s in side] for side in looks])
    error = values.std(axis=1).max(axis=0) * np.sqrt(2 / 500)
    assert (np.abs(values[0].mean(axis=0) - values[1].mean(axis=0)) < 4 * error).all()


# Folders


def test_names_counts_and_format(folder):
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.bmp"))
    blasts = [f"all/UID_{s}_{image}_all.bmp" for s in (1, 2) for image in ("1_1", "1_2", "1_3", "2_1")]
    normals = [f"hem/UID_H{s}_{image}_hem.bmp" for s in (1, 2) for image in ("1_1", "1_2", "1_3", "2_1")]
    assert paths == blasts + normals
    for path in paths:
        assert re.fullmatch(r"(all/UID_\d+_\d+_\d+_all|hem/UID_H\d+_\d+_\d+_hem)\.bmp", path)
        with Image.open(folder / path) as image:
            assert (image.format, image.mode, image.size) == ("BMP", "RGB", (48, 48))


def test_manifest(folder):
    with (folder / "manifest.csv").open(newline="") as file:
        text = file.read()
    rows = list(csv.DictReader(text.splitlines()))
    assert text.splitlines()[0] == "path,label,group,split,sha256,origin" and "\r" not in text
    assert [row["path"] for row in rows] == sorted(row["path"] for row in rows)
    assert len(rows) == 16
    for row in rows:
        assert row["label"] == row["path"].split("/")[0]
        assert row["group"] == re.search(GROUP_PATTERNS["cnmc"], row["path"])[1]
        assert (row["split"], row["origin"]) == ("", "drawn")
        assert row["sha256"] == hashlib.sha256((folder / row["path"]).read_bytes()).hexdigest()
    manifest = scan(folder)
    assert manifest.drawn and manifest.groups_known and manifest.classes == ["all", "hem"]


def test_every_cell_is_another(folder):
    assert len(set(contents(folder).values())) == 17


def test_the_same_seed_draws_the_same_bytes_whatever_the_workers(folder, tmp_path):
    again = draw_samples(tmp_path / "again", subjects=2, cells=4, size=48, workers=2)
    assert contents(again) == contents(folder)
    other = draw_samples(tmp_path / "other", subjects=2, cells=4, size=48, workers=1, seed=1)
    assert not set(contents(other).values()) & set(contents(folder).values())


def test_bytes_do_not_depend_on_how_many_others_are_drawn(folder, tmp_path):
    fewer = contents(draw_samples(tmp_path / "x", subjects=1, cells=2, size=48, first_subject=2, workers=1))
    del fewer["manifest.csv"]
    assert len(fewer) == 4
    assert fewer.items() <= contents(folder).items()


def test_later_subjects_are_new_ones(folder, tmp_path):
    draw_samples(tmp_path / "new", subjects=2, cells=4, size=48, first_subject=3, workers=1)
    old, new = scan(folder).records, scan(tmp_path / "new").records
    assert {record.group for record in new} == {"3", "4", "H3", "H4"}
    assert not {record.sha256 for record in old} & {record.sha256 for record in new}
    assert not {Stain.of(0, "all", s) for s in "12"} & {Stain.of(0, "all", s) for s in "34"}


def test_draw_files_draws_exactly_these_names(folder, tmp_path):
    names = [
        ("training_data/fold_1/hem/UID_h3_1_1_hem.bmp", "hem", "H3"),
        ("1.bmp", "all", "201"),
        ("training_data/fold_0/all/UID_2_2_1_all.bmp", "all", "2"),
    ]
    hashes = draw_files(names, tmp_path, size=48, seed=0, workers=1)
    drawn = contents(tmp_path)
    assert sorted(drawn) == sorted(path for path, _, _ in names)
    assert hashes == [hashlib.sha256(drawn[path]).hexdigest() for path, _, _ in names]
    # The same cell looks the same in whatever folder it lies.
    assert drawn[names[2][0]] == (folder / "all/UID_2_2_1_all.bmp").read_bytes()


def test_progress_counts_every_cell(tmp_path):
    seen = []

    @contextmanager
    def record(total, label):
        seen.append(total)
        yield seen.append

    draw_samples(tmp_path / "cells", subjects=1, cells=3, size=32, workers=1, progress=record)
    assert seen == [6, 1, 1, 1, 1, 1, 1]


def test_a_destination_that_is_not_empty(tmp_path):
    dst = tmp_path / "cells"
    dst.mkdir()
    (dst / "notes.txt").write_text("mine")
    assert refused(draw_samples, dst, subjects=1, cells=1, size=32, workers=1) == (
        f"Destination {str(dst)!r} is not empty. Use --replace to write over it."
    )
    assert contents(tmp_path) == {"cells/notes.txt": b"mine"}
    draw_samples(dst, subjects=1, cells=1, size=32, workers=1, replace=True)
    assert sorted(contents(tmp_path)) == [
        "cells/all/UID_1_1_1_all.bmp",
        "cells/hem/UID_H1_1_1_hem.bmp",
        "cells/manifest.csv",
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"subjects": 0}, "--subjects is at least 1. Received: 0. Give more."),
        ({"cells": -3}, "--cells is at least 1. Received: -3. Give more."),
        ({"first_subject": -1}, "--first-subject is at least 0. Received: -1. Give more."),
        ({"size": 31}, "--size lies in 32..4096 pixels. Received: 31. The real ones have 450."),
        ({"size": 40_000}, "--size lies in 32..4096 pixels. Received: 40000. The real ones have 450."),
        ({"workers": 0}, "Work needs at least one worker. Received: 0. Give --workers 1 or more."),
    ],
)
def test_numbers_that_are_refused(tmp_path, given, message):
    assert refused(draw_samples, tmp_path / "cells", **given) == message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            [("a.bmp", "HEM", "1"), ("b.bmp", "", "1")],
            "Drawn cells are 'all', 'hem'. Received: '', 'HEM'.",
        ),
        (
            [("../a.bmp", "all", "1"), ("/b.bmp", "all", "1"), ("c.png", "all", "1"), ("d.bmp", "all", "1")],
            "A drawn cell is a .bmp file below the destination. Received: '../a.bmp', '/b.bmp', 'c.png'.",
        ),
        (
            [("x/a.bmp", "all", "1"), ("x/a.bmp", "hem", "H1")],
            "A drawn cell has a path of its own. Received: 'x/a.bmp' more than once.",
        ),
    ],
)
def test_names_that_are_refused(tmp_path, names, message):
    assert refused(draw_files, names, tmp_path, size=32, seed=0, workers=1) == message
    assert list(tmp_path.iterdir()) == []
