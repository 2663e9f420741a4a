"""data_tools/blood_cells.py: the layout that Kaggle ships, filled with tiny made images and with real ones."""

import csv
import importlib.util
import itertools
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from customcnn.data.leakage import find_leakage
from customcnn.data.manifest import read_manifest, scan
from customcnn.data.split import shares, split_by_image, split_by_name, split_folder
from customcnn.errors import CustomCNNError

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "data_tools" / "blood_cells.py"
spec = importlib.util.spec_from_file_location("blood_cells", SCRIPT)
blood_cells = importlib.util.module_from_spec(spec)
spec.loader.exec_module(blood_cells)

CLASSES = ("EOSINOPHIL", "LYMPHOCYTE", "MONOCYTE", "NEUTROPHIL")
IMAGES = "dataset2-master/dataset2-master/images"


def write_csv(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "group"), *rows])
    return path


@pytest.fixture
def archive(tmp_path):
    """What Kaggle ships, small: ten copies a class in TRAIN, three in TEST, one in TEST_SIMPLE, four originals."""
    rng = np.random.default_rng(1)

    def picture(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).save(path)

    root = tmp_path / "archive"
    for part, count in (("TRAIN", 10), ("TEST", 3), ("TEST_SIMPLE", 1)):
        for label in CLASSES:
            for i in range(count):
                picture(root / IMAGES / part / label / f"_{i % 3}_{i}.jpeg")
    for i in range(4):
        picture(root / "dataset-master/dataset-master/JPEGImages" / f"BloodImage_{i:05}.jpg")
        annotation = root / "dataset-master/dataset-master/Annotations" / f"BloodImage_{i:05}.xml"
        annotation.parent.mkdir(exist_ok=True)
        annotation.write_text("<annotation/>\n")
    (root / "dataset2-master/dataset2-master/labels.csv").write_text(",Image,Category\n")
    return root


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A plain folder of 24 real images a class, and the CSV of their photographs."""
    data = ROOT.parent / "shared" / "data"
    if not data.is_dir():
        pytest.skip(f"the real data is not at {data}")
    folder = tmp_path_factory.mktemp("real") / "blood-cells"
    for label in CLASSES:
        (folder / label).mkdir(parents=True)
        for path in sorted((data / "blood-cells" / label).iterdir())[:24]:
            shutil.copyfile(path, folder / label / path.name)
    return folder, data / "blood-cells-originals.csv"


def prepare(*words):
    return subprocess.run(
        [sys.executable, str(SCRIPT), "prepare", *map(str, words)], capture_output=True, text=True, check=False
    )


# ---------------------------------------------------------------- the facts


def test_the_facts_are_those_of_the_study():
    study = tomllib.loads((ROOT / "experiments" / "published.toml").read_text("utf-8"))["blood_cells"]
    counts, sizes = blood_cells.FACTS["counts"], study["split_sizes"]
    assert counts["TEST"] == {label: scores["support"] for label, scores in study["test"].items()}
    assert sum(counts["TEST"].values()) == sizes["test"] == 2487
    assert counts["TRAIN"]["together"] == sizes["train"] + sizes["validation"] == 9957
    assert {label: study["validation"][label]["support"] for label in CLASSES} == SUPPORTS
    assert tuple(blood_cells.FACTS["classes"]) == CLASSES


def test_the_licence_and_the_authors_are_those_that_came_with_the_images(shared_data):
    readme = (shared_data / "README.md").read_text("utf-8")
    assert "({licence} licence, authors {authors})".format(**blood_cells.FACTS) in " ".join(readme.split())


def test_every_table_of_facts_has_the_same_form():
    tables = tomllib.loads(SCRIPT.with_name("facts.toml").read_text())
    assert tables.keys() == {"cnmc", "blood-cells"}
    for facts in tables.values():
        assert {"name", "authors", "source", "licence", "kaggle", "classes", "counts"} <= facts.keys()
        for counts in facts["counts"].values():
            assert counts.keys() <= {*facts["classes"], "together"}
            assert all(isinstance(count, int) for count in counts.values())


def test_differences_name_what_is_missing(archive):
    assert blood_cells.differences(blood_cells.read_release(archive)) == [
        "TRAIN: 40 images where the release has 9,957",
        "TEST EOSINOPHIL: 3 images where the release has 623",
        "TEST LYMPHOCYTE: 3 images where the release has 620",
        "TEST MONOCYTE: 3 images where the release has 620",
        "TEST NEUTROPHIL: 3 images where the release has 624",
        "originals: 4 images where the release has 410",
    ]
    plain = blood_cells.read_release(archive / IMAGES / "TRAIN")
    assert blood_cells.differences(plain)[1:] == [
        "TEST: none, where the release has 2,487",
        "originals: none, where the release has 410",
    ]


def test_a_whole_release_differs_in_nothing():
    cells = [blood_cells.Cell(Path("x"), "TRAIN", CLASSES[i % 4]) for i in range(9957)]
    test = blood_cells.FACTS["counts"]["TEST"]
    cells += [blood_cells.Cell(Path("x"), "TEST", label) for label, count in test.items() for _ in range(count)]
    assert blood_cells.differences(blood_cells.Release(tuple(cells), 410)) == []


# ---------------------------------------------------------------- the study's split

SUPPORTS = dict(zip(CLASSES, (499, 496, 495, 499), strict=True))
REMAINDERS = [r for r in itertools.product(range(5), repeat=4) if sum(r) == 9957 - 5 * sum(SUPPORTS.values())]


def test_the_sizes_of_the_study_follow_whatever_the_classes_have():
    """The training images by class are not published; all sizes that fit the sum and the validation part are tried."""
    assert sum(SUPPORTS.values()) == 1989 and len(REMAINDERS) == 35
    for remainders in REMAINDERS[::5]:
        labels = [c for (c, n), r in zip(SUPPORTS.items(), remainders, strict=True) for _ in range(5 * n + r)]
        chosen = split_by_name(labels, 1 / blood_cells.SHARE)
        assert Counter(chosen) == {"train": 7968, "validation": 1989}
        held = Counter(label for label, part in zip(labels, chosen, strict=True) if part == "validation")
        assert held == SUPPORTS
        assert Counter(split_by_image(labels, shares(0.8), 42))["validation"] >= 1992, "the report's rule gives another"


@pytest.mark.docs
def test_the_study_s_validation_images_are_keras_s(archive, tmp_path):
    """They are known: what `ImageDataGenerator(validation_split=.2)` takes of the folder TRAIN, whatever the seed."""
    from keras.src.legacy.preprocessing.image import ImageDataGenerator  # tf.keras has it as a public name

    generator = ImageDataGenerator(validation_split=0.2)
    held = generator.flow_from_directory(archive / IMAGES / "TRAIN", subset="validation", seed=42)
    release = blood_cells.read_release(archive)
    for seed in (42, 43):
        manifest = blood_cells.to_class_folders(release, tmp_path / str(seed), own_test=True, seed=seed)
        found = {path.removeprefix("validation/") for path in (r.path for r in manifest.part("validation").records)}
        assert found == set(held.filenames)


def test_own_test_keeps_the_release_s_own_parts(archive, tmp_path):
    done = prepare(archive, tmp_path / "parts", "--own-test")
    assert done.returncode == 0, done.stderr
    manifest = scan(tmp_path / "parts")
    assert manifest.counts() == {
        (part, label): count for part, count in (("train", 8), ("validation", 2), ("test", 3)) for label in CLASSES
    }
    assert {(r.split, r.extra["part"]) for r in manifest.records} == {
        ("train", "TRAIN"),
        ("validation", "TRAIN"),
        ("test", "TEST"),
    }
    for record in manifest.records:
        original = archive / IMAGES / record.extra["part"] / record.label / Path(record.path).name
        assert (manifest.root / record.path).read_bytes() == original.read_bytes()
    assert not manifest.groups_known, "no group is read from a name"
    assert (
        "Note: not all photographs are known, and no file name tells them: leakage cannot be judged.\n" in done.stderr
    )
    assert done.stdout.splitlines()[-2:] == [
        f"52 images of unknown photographs in {tmp_path / 'parts'}",
        "Blood Cell Images, by cosmicad and akshaylambda: "
        "https://www.kaggle.com/datasets/paultimothymooney/blood-cells, MIT.",
    ]


def test_without_own_test_the_training_images_alone_are_ready_for_split(archive, tmp_path):
    manifest = blood_cells.to_class_folders(blood_cells.read_release(archive), tmp_path / "cells")
    assert scan(tmp_path / "cells").records == manifest.records == read_manifest(manifest.root / "manifest.csv").records
    assert len(manifest.records) == 40 and not manifest.parts
    result = split_folder(scan(tmp_path / "cells"), tmp_path / "parts", shares(0.8), seed=42)
    assert {record.extra["part"] for record in result.manifest.records} == {"TRAIN"}


# ---------------------------------------------------------------- groups


def test_groups_come_from_a_csv_and_part_of_them_is_said(archive, tmp_path):
    rows = [(f"{label}/_{i % 3}_{i}.jpeg", f"photo {i // 2}") for label in CLASSES for i in range(10)]
    rows.append(("TEST/MONOCYTE/_0_0.jpeg", "photo 0"))
    table = write_csv(tmp_path / "originals.csv", rows)
    done = prepare(archive, tmp_path / "parts", "--own-test", "--groups", table)
    assert "Warning: groups: none for 11 of 52 images\n" in done.stderr
    groups = {record.path: record.group for record in scan(tmp_path / "parts").records}
    assert groups["test/MONOCYTE/_0_0.jpeg"] == "photo 0"
    assert groups["test/EOSINOPHIL/_0_0.jpeg"] == "", "a path without its part is of TRAIN"

    done = prepare(archive, tmp_path / "known", "--own-test", "--groups", table, "--grouped-only", "--by", "group")
    assert done.returncode == 0, done.stderr
    manifest = scan(tmp_path / "known")
    assert Counter(record.split for record in manifest.records) == {"train": 32, "validation": 8, "test": 1}
    train, validation = (manifest.part(part).records for part in ("train", "validation"))
    assert find_leakage(train, validation, "validation").warning is None
    assert "Inflated by leakage: 1 of 1 test images belong to 1 group " in done.stderr


def test_a_groups_csv_from_a_spreadsheet_is_read(archive, tmp_path):
    rows = "TRAIN\\MONOCYTE\\_0_0.jpeg;Photo 1\r\nMONOCYTE/_1_1.jpeg;photo 1 \r\n"
    (tmp_path / "originals.csv").write_text(f"path;group\r\n{rows}", "utf-8-sig")
    release, unknown = blood_cells.with_groups(blood_cells.read_release(archive), tmp_path / "originals.csv")
    assert [cell.group for cell in release.cells if cell.group] == ["Photo 1"] * 2
    assert len(unknown) == len(release.cells) - 2


def test_what_a_mac_leaves_in_an_archive_is_not_seen(archive):
    expected = blood_cells.read_release(archive)
    (archive / "__MACOSX" / "TRAIN" / "MONOCYTE").mkdir(parents=True)
    (archive / "__MACOSX" / "TRAIN" / "MONOCYTE" / "._0_0.jpeg").touch()
    assert blood_cells.read_release(archive) == expected


def test_a_split_by_group_without_groups(archive, tmp_path):
    done = prepare(archive, tmp_path / "parts", "--own-test", "--by", "group")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        1,
        "Error: A split by group needs the group of every image. Received: none for 40 of 40. "
        "Use --groups FILE.csv, and --grouped-only if it does not list all.",
    )
    assert not (tmp_path / "parts").exists()


def test_grouped_only_without_groups(archive, tmp_path):
    done = prepare(archive, tmp_path / "cells", "--grouped-only")
    assert done.stderr.splitlines()[-1] == (
        "Error: --grouped-only keeps images with a group. Received: none with one. Give --groups FILE.csv."
    )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("MONOCYTE/_0_0.jpeg", "a"), ("TRAIN/MONOCYTE/_0_0.jpeg", "b")], "two of them"),
        ([("MONOCYTE/other.jpeg", "a")], "which lists none"),
    ],
)
def test_a_groups_csv_that_does_not_fit(archive, tmp_path, rows, message):
    with pytest.raises(CustomCNNError, match=message):
        blood_cells.with_groups(blood_cells.read_release(archive), write_csv(tmp_path / "originals.csv", rows))


# ---------------------------------------------------------------- what does not fit


def test_what_is_no_release(archive, tmp_path):
    with pytest.raises(CustomCNNError, match=r"The release is a folder\. Received: .*nowhere', which is not one\."):
        blood_cells.read_release(tmp_path / "nowhere")
    shutil.copytree(archive / IMAGES / "TRAIN", tmp_path / "archive/second/TRAIN")
    with pytest.raises(CustomCNNError, match=r"The release has one folder TRAIN\. .*Give one of them\."):
        blood_cells.read_release(archive)
    shutil.rmtree(tmp_path / "archive/second")
    (archive / IMAGES / "TRAIN/BASOPHIL").mkdir()
    shutil.copyfile(archive / IMAGES / "TEST/MONOCYTE/_0_0.jpeg", archive / IMAGES / "TRAIN/BASOPHIL/_0_0.jpeg")
    with pytest.raises(CustomCNNError, match=r"The classes are 'EOSINOPHIL'.* Received: 'BASOPHIL'\."):
        blood_cells.read_release(archive)
    shutil.rmtree(archive / IMAGES / "TRAIN")
    with pytest.raises(CustomCNNError, match=r"The release has a folder TRAIN beside TEST\."):
        blood_cells.read_release(archive)


def test_a_prepared_folder_is_not_prepared_again(archive, tmp_path):
    blood_cells.to_class_folders(blood_cells.read_release(archive), tmp_path / "parts", own_test=True)
    with pytest.raises(CustomCNNError, match=r"What is prepared is not split yet\. Received: .*, which has 'train'"):
        blood_cells.read_release(tmp_path / "parts")


def test_own_test_needs_a_test(archive, tmp_path):
    done = prepare(archive / IMAGES / "TRAIN", tmp_path / "parts", "--own-test")
    assert done.stderr.splitlines()[-1] == (
        "Error: --own-test needs the release's TEST. Received: a folder without it. Use customcnn split."
    )
    assert not (tmp_path / "parts").exists()


# ---------------------------------------------------------------- real images


def test_a_plain_folder_of_real_images(real, tmp_path):
    folder, table = real
    done = prepare(folder, tmp_path / "cells", "--groups", table)
    assert done.returncode == 0, done.stderr
    manifest = scan(tmp_path / "cells")
    assert manifest.groups_known and len(manifest.records) == 96
    with table.open() as file:
        photograph = {row["path"]: row["group"] for row in csv.DictReader(file)}
    assert {record.path: record.group for record in manifest.records} == {
        record.path: photograph[record.path] for record in manifest.records
    }


def test_real_images_in_kaggles_layout_leak_by_image_and_not_by_group(real, tmp_path):
    folder, table = real
    for label in CLASSES:
        for i, path in enumerate(sorted((folder / label).iterdir())):
            target = tmp_path / "archive" / IMAGES / ("TEST" if i % 4 == 0 else "TRAIN") / label / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    with table.open() as file:
        rows = [(row["path"], row["group"]) for row in csv.DictReader(file)]
    # This TEST was drawn from images of the training part, so their photographs are known here.
    both = write_csv(tmp_path / "both.csv", [*rows, *((f"TEST/{path}", group) for path, group in rows)])
    for by, leaks in (("image", True), ("group", False)):
        done = prepare(tmp_path / "archive", tmp_path / by, "--own-test", "--by", by, "--groups", both)
        assert done.returncode == 0, done.stderr
        manifest = scan(tmp_path / by)
        assert len(manifest.part("test").records) == 24
        leakage = find_leakage(manifest.part("train").records, manifest.part("validation").records, "validation")
        assert (leakage.warning is not None) == leaks, by
        assert (str(leakage.warning) in done.stderr) == leaks


@pytest.mark.docs
def test_all_real_images(shared_data, tmp_path):
    release, unknown = blood_cells.with_groups(
        blood_cells.read_release(shared_data / "blood-cells"), shared_data / "blood-cells-originals.csv"
    )
    manifest = blood_cells.to_class_folders(release, tmp_path / "cells")
    assert (len(manifest.records), unknown, len({record.group for record in manifest.records})) == (3289, [], 256)
    assert [count for _, count in sorted(manifest.counts().items())] == [825, 837, 832, 795]
