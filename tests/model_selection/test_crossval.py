"""Folds by hand and by property, and cross-validations: with stand-ins for the training, and with real ones."""

import csv
import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from customcnn.cli import cli
from customcnn.data.leakage import DRAWN
from customcnn.data.manifest import Manifest, Record, read_rows, scan, with_group_pattern
from customcnn.data.pack import CACHE
from customcnn.errors import CustomCNNError
from customcnn.metrics.scores import evaluate_predictions
from customcnn.model_selection import crossval as module
from customcnn.model_selection.crossval import CrossvalResult, crossval
from customcnn.model_selection.folds import make_folds
from customcnn.plots.search import folds_figure
from customcnn.runs.run_dir import RunDir, rows_to_csv
from tests.support.colors import paint, recipe
from tests.support.commands import error_line
from tests.support.errors import refused
from tests.support.folders import contents

FILES = {"crossval.json", "predictions.csv", "metrics.json", "confusion.png", "folds.csv", "folds.png"}


def records(labels: str, groups: str = "", splits: list[str] | None = None, **columns: list[str]) -> Manifest:
    """Return a manifest without files: one letter an image for its class, one for its group."""
    rows = [
        Record(
            f"{label}/{i:03d}.bmp",
            label,
            groups[i] if groups else "",
            splits[i] if splits else "",
            extra={name: values[i] for name, values in columns.items()},
        )
        for i, label in enumerate(labels)
    ]
    return Manifest(Path("data"), tuple(sorted(rows, key=lambda record: record.path)))


def numbers(data: Manifest, **options: object) -> dict[str, int]:
    """Return the number of the fold of every image."""
    folds = make_folds(data, **options)
    return {r.path: f.number for f in folds for r in f.manifest.part("validation").records}


# ---------------------------------------------------------------- folds


@settings(max_examples=25)
@given(st.integers(2, 6), st.integers(6, 30), st.integers(6, 30), st.integers(0, 99))
def test_by_image_every_class_is_dealt_evenly(count, a, b, seed):
    data = records("a" * a + "b" * b)
    found = numbers(data, folds=count, seed=seed)
    assert found.keys() == {record.path for record in data.records}
    for label, size in (("a", a), ("b", b)):
        sizes = Counter(number for path, number in found.items() if path.startswith(label))
        assert set(sizes) == set(range(1, count + 1))
        assert {size // count, -(-size // count)} >= set(sizes.values())


def test_giving_groups_means_by_group(make_folder, tmp_path, shell):
    words = ["crossval", make_folder({"a": 4, "b": 4}), "--model", "small", "--folds", 3, "--out", tmp_path / "folds"]
    message = error_line(*shell(*words, "--group-pattern", "(.)/"))
    assert message.startswith("Every fold needs a group of every class. Received: class 'a' with 1 group for 3 folds.")
    message = error_line(*shell(*words, "--group-pattern", "(.)/", "--by", "image", "--folds", 5))
    assert message.startswith("Every fold needs an image of every class.")


@settings(max_examples=25)
@given(st.data(), st.integers(2, 4), st.integers(0, 99))
def test_by_group_groups_stay_whole(draw, count, seed):
    sizes = draw.draw(st.lists(st.integers(1, 7), min_size=2 * count, max_size=12))
    labels = "".join(("a" if i % 2 else "b") * size for i, size in enumerate(sizes))
    groups = "".join(chr(65 + i) * size for i, size in enumerate(sizes))
    data = records(labels, groups)
    try:
        found = make_folds(data, folds=count, by="group", seed=seed)
    except CustomCNNError as error:  # a very large group may leave a fold without its class
        assert "Every class has images on both sides" in str(error)
        return
    homes = [{r.group for r in fold.manifest.part("validation").records} for fold in found]
    assert sum(map(len, homes)) == len(set.union(*homes)) == len(sizes)
    for fold in found:
        assert not {r.group for r in fold.manifest.part("train").records} & homes[fold.number - 1]


@pytest.mark.parametrize("by", ["image", "group"])
def test_the_seed_decides(by):
    data = records("a" * 24 + "b" * 24, "".join(chr(65 + i // 4) for i in range(48)))
    first = numbers(data, folds=3, by=by, seed=1)
    assert numbers(data, folds=3, by=by, seed=1) == first
    assert any(numbers(data, folds=3, by=by, seed=seed) != first for seed in range(2, 6))


def test_five_folds_are_the_default():
    assert len(make_folds(records("a" * 5 + "b" * 5))) == 5


def test_a_column_of_the_manifest_names_the_folds_in_natural_order():
    data = records("abab" * 3, fold=["f_10"] * 4 + ["f_2"] * 4 + ["f_1"] * 4)
    found = make_folds(data, by="fold")
    assert [(fold.number, fold.value) for fold in found] == [(1, "f_1"), (2, "f_2"), (3, "f_10")]
    for fold in found:
        assert {r.extra["fold"] for r in fold.manifest.part("validation").records} == {fold.value}
        assert len(fold.manifest.part("train").records) == 8


def test_a_column_may_leave_one_subject_out_though_it_is_of_one_class():
    found = make_folds(records("aabb", subject=["1", "2", "3", "4"]), by="subject")
    assert [fold.manifest.part("validation").classes for fold in found] == [["a"], ["a"], ["b"], ["b"]]


def test_train_and_validation_are_dealt_anew_and_the_test_part_is_left_alone():
    splits = ["train", "train", "validation", "test"] * 6
    data = records("ab" * 12, splits=splits)
    for fold in make_folds(data, folds=3):
        manifest = fold.manifest
        assert [r.path for r in manifest.records] == [r.path for r in data.records]
        assert manifest.part("test").records == data.part("test").records
        assert (len(manifest.part("train").records), len(manifest.part("validation").records)) == (12, 6)


@pytest.mark.parametrize(
    ("data", "options", "text"),
    [
        (records("ab" * 9), {"folds": 1}, "A cross-validation has two folds at least. Received: --folds 1. Give more."),
        (
            records("aaab"),
            {"folds": 2},
            "Every fold needs an image of every class. Received: class 'b' with 1 image for 2 folds. "
            "Choose fewer --folds.",
        ),
        (
            records("aaabbb", "112334"),
            {"folds": 3, "by": "group"},
            "Every fold needs a group of every class. Received: class 'a' with 2 groups for 3 folds. "
            "Choose fewer --folds.",
        ),
        (
            records("aabb"),
            {"by": "group"},
            "Folds by group need the group of every image. Received: none for 'data'. "
            "Use --group-pattern (cnmc, or a regular expression) or --groups FILE.csv.",
        ),
        (
            records("aabb", fold=["1"] * 4, day=["x"] * 4),
            {"by": "folds"},
            "Folds are made by image, by group, or by a column of manifest.csv. Received: --by 'folds'; 'data' has "
            "the further columns 'day', 'fold'.",
        ),
        (
            records("aabb"),
            {"by": "fold"},
            "Folds are made by image, by group, or by a column of manifest.csv. Received: --by 'fold'; 'data' has "
            "no further column.",
        ),
        (
            records("aabb", fold=["1", "", "2", ""]),
            {"by": "fold"},
            "A column of folds has a value for every image. Received: 'fold', empty for 2 of 4. "
            "Use --by image or --by group.",
        ),
        (
            records("aabb", fold=["1", "1", "2", "2"]),
            {"by": "fold", "folds": 3},
            "A column of folds has two values at least, and --folds is how many it has. Received: 'fold' with 2 and "
            "--folds 3. Leave --folds out, or use --by image or --by group.",
        ),
        (
            records("aabb", fold=["1", "1", "2", "2"]),
            {"by": "fold"},
            "Every class has images on both sides of a fold. Received: fold 1 by 'fold', whose train images lack 'a'. "
            "Choose fewer folds or another --by.",
        ),
        (
            records("aabb", splits=["test"] * 4),
            {},
            "Folds are made of the train and validation folders. Received: 'data' with a test part alone.",
        ),
        (
            records("aaaa"),
            {},
            "Classification needs at least two classes. Received: 'data', 'a' only. "
            "Put the images of each class into a folder of its own.",
        ),
    ],
)
def test_folds_that_cannot_be_made(data, options, text):
    assert refused(make_folds, data, **options) == text


def test_the_folds_of_the_release(shared_data):
    with (shared_data / "cnmc-2019-files.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["part"] == "train"]
    data = Manifest(
        Path("cells"),
        tuple(
            sorted(
                (Record(r["path"], r["label"], r["subject"].upper(), extra={"fold": r["fold"]}) for r in rows),
                key=lambda record: record.path,
            )
        ),
    )
    sizes = [len(fold.manifest.part("validation").records) for fold in make_folds(data, by="fold")]
    assert sizes == [3527, 3581, 3553]
    for count, by in ((5, "group"), (5, "image")):
        for fold in make_folds(data, folds=count, by=by):
            part = fold.manifest.part("validation").records
            share = sum(record.label == "all" for record in part) / len(part)
            assert abs(len(part) - 10661 / count) < 30 and abs(share - 7272 / 10661) < 0.01


# ---------------------------------------------------------------- cross-validations with stand-ins for the training


class Stub:
    """Stands for `train` and `evaluate`: writes what they would, and remembers its calls."""

    def __init__(self) -> None:
        self.trained: list[str] = []
        self.scored: list[str] = []
        self.break_in: str = ""

    def train(self, data, run, recipe, *, resume, workers, progress, say):
        assert resume
        self.trained.append(run.path.name)
        run.path.mkdir(exist_ok=True)
        (run.recipe).write_text(recipe.to_toml())
        data.write(run.manifest)
        if self.break_in == run.path.name:
            raise KeyboardInterrupt
        say("Warning: of one fold")
        say("Note: converted")
        number = int(run.path.name[-1])
        run.write_history(
            [
                {
                    "epoch": e,
                    "loss": 1.0,
                    "accuracy": 0.5,
                    "val_loss": number / e,
                    "val_accuracy": number / 10 + e / 100,
                }
                for e in range(1, recipe.epochs + 1)
            ]
        )

    def evaluate(self, run, data, *, part, weights, resamples, **others):
        assert part == "validation"
        self.scored.append(run.path.name)
        scored = data.part(part)
        labels = np.array([("all", "hem").index(record.label) for record in scored.records])
        # Wrong about every image whose name ends in 0, and surer of itself in later folds.
        sure = 0.6 + int(run.path.name[-1]) / 20
        right = np.array([not Path(record.path).stem.endswith("0") for record in scored.records])
        own = np.where(right, sure, 1 - sure)
        values = np.stack([np.where(labels == 0, own, 1 - own), np.where(labels == 1, own, 1 - own)], axis=1)
        groups = [record.group for record in scored.records] if scored.groups_known else None
        metrics = evaluate_predictions(labels, values, ["all", "hem"], groups=groups, resamples=resamples)
        epochs = len(run.read_history())
        metrics |= {"epoch": epochs if weights == "last" else 1, "drawn": False, "weights": weights}
        rows = [
            {
                "path": record.path,
                "label": record.label,
                "group": record.group,
                "predicted": ("all", "hem")[int(row.argmax())],
                "probability_all": float(row[0]),
                "probability_hem": float(row[1]),
            }
            for record, row in zip(scored.records, values, strict=True)
        ]
        run.predictions.write_text(rows_to_csv(rows))
        run.metrics.write_text(json.dumps(metrics))
        run.reliability.write_bytes(b"picture")


@pytest.fixture
def stub_with_pictures(monkeypatch) -> Stub:
    stub = Stub()
    monkeypatch.setattr(module, "train", stub.train)
    monkeypatch.setattr(module, "evaluate", stub.evaluate)
    monkeypatch.setattr(module, "forget_networks", lambda: None)
    return stub


@pytest.fixture
def stub(stub_with_pictures, monkeypatch) -> Stub:
    """Without pictures, which take longer than all the rest."""
    monkeypatch.setattr("customcnn.plots.confusion.plot_confusion", lambda *args, **options: None)
    monkeypatch.setattr("customcnn.plots.search.plot_folds", lambda *args, **options: None)
    return stub_with_pictures


@pytest.fixture
def data(make_folder) -> Manifest:
    """Twelve images of each class; their groups are not known."""
    root = make_folder({"all": [f"{i:02d}.bmp" for i in range(12)], "hem": [f"{i:02d}.bmp" for i in range(12)]})
    return scan(root)


def run_stub(data, out, **options) -> CrossvalResult:
    return crossval(data, out, recipe(epochs=2), **{"folds": 3, "resamples": 50, **options})


def test_what_comes_out(stub_with_pictures, data, tmp_path):
    stub = stub_with_pictures
    said: list[str] = []
    result = run_stub(data, tmp_path / "cv", say=said.append)
    assert {path.name for path in (tmp_path / "cv").iterdir()} == {*FILES, "fold-1", "fold-2", "fold-3"}
    assert stub.trained == stub.scored == ["fold-1", "fold-2", "fold-3"]
    assert said == [
        "Fold 1 of 3: 16 images train, 8 validate.",
        "Note: converted",
        "Fold 2 of 3: 16 images train, 8 validate.",
        "Fold 3 of 3: 16 images train, 8 validate.",
    ]
    for name in ("folds.png", "confusion.png"):
        assert Image.open(tmp_path / "cv" / name).format == "PNG"
    assert result.metrics == json.loads((tmp_path / "cv" / "metrics.json").read_text())


def test_out_of_fold_predictions_are_every_image_once(stub, data, tmp_path):
    run_stub(data, tmp_path / "cv")
    rows = read_rows(tmp_path / "cv" / "predictions.csv", ("path", "fold", "label", "group", "predicted"))
    assert [row["path"] for row in rows] == [record.path for record in data.records]
    found = numbers(data, folds=3)
    assert {row["path"]: int(row["fold"]) for row in rows} == found
    for row in rows:
        (own,) = [
            other
            for other in read_rows(tmp_path / "cv" / f"fold-{row['fold']}" / "predictions.csv", ("path",))
            if other["path"] == row["path"]
        ]
        assert {**own, "fold": row["fold"]} == row


def test_scores_of_folds_and_of_all_by_hand(stub, data, tmp_path):
    result = run_stub(data, tmp_path / "cv")
    # Wrong are 00.bmp and 10.bmp of both classes: 4 of 24.
    assert result.metrics["errors"] == 4 and result.metrics["images"] == 24
    assert result.metrics["accuracy"]["value"] == pytest.approx(20 / 24)
    assert [fold["val_accuracy"] for fold in result.folds] == pytest.approx([0.11, 0.21, 0.31])
    assert result.mean["val_accuracy"] == pytest.approx(0.21)
    assert result.deviation["val_accuracy"] == pytest.approx(0.1)  # divided by 3 - 1
    assert result.mean["val_loss"] == pytest.approx(2)
    assert {fold["epoch"] for fold in result.folds} == {1} and {fold["epochs"] for fold in result.folds} == {2}
    with (tmp_path / "cv" / "folds.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["fold"] for row in rows] == ["1", "2", "3", "mean", "standard deviation"]
    assert [row["images"] for row in rows] == ["8", "8", "8", "", ""]
    assert float(rows[3]["val_accuracy"]) == result.mean["val_accuracy"]
    assert float(rows[4]["weighted_f1"]) == result.deviation["weighted_f1"]
    assert result.metrics["chosen_on_this_part"]


def test_the_last_epoch_is_scored_where_that_is_wanted(stub, data, tmp_path):
    result = run_stub(data, tmp_path / "cv", weights="last")
    assert [fold["val_accuracy"] for fold in result.folds] == pytest.approx([0.12, 0.22, 0.32])
    assert not result.metrics["chosen_on_this_part"]


def test_groups_make_the_intervals_and_the_warning(stub, data, tmp_path):
    grouped = with_group_pattern(data, r"(\d)\.bmp")  # ten groups, of both classes
    said: list[str] = []
    by_image = run_stub(grouped, tmp_path / "image", say=said.append)
    assert by_image.metrics["groups"] == 10 and "over groups" in by_image.metrics["interval"]["method"]
    found = numbers(grouped, folds=3)
    homes = {r.group: {found[o.path] for o in grouped.records if o.group == r.group} for r in grouped.records}
    shared = {group for group, folds in homes.items() if len(folds) > 1}
    inside = sum(
        any(o.group == r.group and found[o.path] != found[r.path] for o in grouped.records) for r in grouped.records
    )
    assert by_image.notes == [
        f"Inflated by leakage: {inside} of 24 out-of-fold images belong to {len(shared)} groups that the network was "
        "trained on. Split by group for a score that holds for new ones."
    ]
    assert said[0] == f"Warning: {by_image.notes[0]}", "said before the hours of training too"
    assert by_image.metrics["leakage"]["shared_groups"] == len(shared) > 0
    assert run_stub(grouped, tmp_path / "group", by="group").notes == []
    assert not run_stub(data, tmp_path / "unknown").leakage.groups_known


def test_samples_of_augment_are_no_images_to_deal(stub, make_folder, tmp_path):
    names = [f"{i}-aug000{j}.bmp" for i in range(3) for j in range(2)]
    root = make_folder({"all": names, "hem": [f"{i}.bmp" for i in range(6)]}, "samples")
    (note,) = run_stub(scan(root), tmp_path / "cv").notes
    assert note.startswith("6 of 12 images are samples of customcnn augment: by image, samples of one original stand")


def test_drawn_images_carry_their_note(stub, data, tmp_path):
    marked = replace(data, records=tuple(replace(r, extra={"origin": "drawn"}) for r in data.records))
    assert run_stub(marked, tmp_path / "cv").notes == [DRAWN]


def test_the_test_part_is_left_alone_and_said_so(stub, make_folder, tmp_path):
    root = make_folder({"train/all": 6, "train/hem": 6, "validation/all": 3, "validation/hem": 3, "test/all": 2})
    said: list[str] = []
    result = run_stub(scan(root), tmp_path / "cv", say=said.append)
    assert said[0] == "Note: the 2 images of the test part are left alone."
    assert result.metrics["images"] == 18
    manifest = RunDir(tmp_path / "cv" / "fold-1").read_manifest()
    assert {record.split for record in manifest.records} == {"train", "validation", "test"}


def test_a_column_is_named_in_the_table(stub, data, tmp_path):
    marked = replace(data, records=tuple(replace(r, extra={"day": f"d{int(r.path[4:6]) % 2}"}) for r in data.records))
    result = crossval(marked, tmp_path / "cv", recipe(), by="day", resamples=20)
    assert [fold["value"] for fold in result.folds] == ["d0", "d1"]


# ---------------------------------------------------------------- resumed, replaced, refused


@pytest.mark.parametrize("broken", ["fold-1", "fold-2", "fold-3"])
def test_an_interrupted_cross_validation_goes_on(stub, data, tmp_path, broken):
    run_stub(data, tmp_path / "whole")
    stub.trained.clear()
    stub.break_in = broken
    with pytest.raises(KeyboardInterrupt):
        run_stub(data, tmp_path / "cv")
    done = stub.trained[:-1]
    stub.break_in = ""
    stub.trained.clear()
    run_stub(data, tmp_path / "cv", resume=True)
    assert stub.trained == [name for name in ("fold-1", "fold-2", "fold-3") if name not in done]
    whole, resumed = contents(tmp_path / "whole"), contents(tmp_path / "cv")
    assert whole == resumed


def test_a_finished_one_is_only_printed(stub, data, tmp_path):
    first = run_stub(data, tmp_path / "cv")
    before = contents(tmp_path / "cv")
    stub.trained.clear()
    said: list[str] = []
    assert run_stub(data, tmp_path / "cv", resume=True, say=said.append) == first
    assert stub.trained == [] and said == ["Nothing to do: 3 folds are trained and scored."]
    assert contents(tmp_path / "cv") == before


def test_more_epochs_train_every_fold_further(stub, data, tmp_path):
    run_stub(data, tmp_path / "cv")
    stub.trained.clear()
    crossval(data, tmp_path / "cv", recipe(epochs=3), folds=3, resamples=50, resume=True)
    assert stub.trained == stub.scored[3:] == ["fold-1", "fold-2", "fold-3"]


def test_a_fold_whose_last_picture_is_missing_is_scored_again(stub, data, tmp_path):
    """A kill came between its scores and its pictures."""
    first = run_stub(data, tmp_path / "cv")
    (tmp_path / "cv" / "fold-2" / "reliability.png").unlink()
    stub.scored.clear()
    assert run_stub(data, tmp_path / "cv", resume=True) == first
    assert stub.scored == ["fold-2"]
    assert (tmp_path / "cv" / "fold-2" / "reliability.png").is_file()


def test_images_replaced_under_their_names(stub, data, tmp_path):
    """The finished folds were trained on the old ones."""
    run_stub(data, tmp_path / "cv")
    one, other = (data.root / data.records[number].path for number in (0, 1))
    one.write_bytes(other.read_bytes())
    os.utime(one, (1, 1))
    assert "is resumed on its own images" in refused(run_stub, data, tmp_path / "cv", resume=True)


def test_a_fold_scored_on_other_images_is_scored_again(stub, data, tmp_path):
    first = run_stub(data, tmp_path / "cv")
    rows = (tmp_path / "cv" / "fold-2" / "predictions.csv").read_text().splitlines()
    (tmp_path / "cv" / "fold-2" / "predictions.csv").write_text("\n".join(rows[:-1]) + "\n")
    stub.scored.clear()
    assert run_stub(data, tmp_path / "cv", resume=True) == first
    assert stub.scored == ["fold-2"]


def test_what_stands_in_the_way(stub, data, tmp_path, make_folder):
    out = tmp_path / "cv"
    run_stub(data, out)
    assert refused(run_stub, data, out) == (
        f"Cross-validation {str(out)!r} exists. Use --resume to go on with it, or --replace to delete it."
    )
    assert refused(run_stub, data, out, resume=True, folds=4, seed=1) == (
        "A cross-validation is resumed with its own settings. Received: folds 4 where it was 3, seed 1 where it was "
        "120. Choose another --out."
    )
    changed = "Received: recipe.learning_rate 0.5 where it was 0.001."
    assert changed in refused(crossval, data, out, recipe(epochs=2, learning_rate=0.5), folds=3, resume=True)
    other = replace(data, records=data.records[1:])
    assert refused(run_stub, other, out, resume=True) == (
        f"A cross-validation is resumed on its own images. Received: {str(data.root)!r}, not as they were when "
        f"{str(out)!r} began. Choose another --out."
    )
    (tmp_path / "file").write_text("x")
    assert refused(run_stub, data, tmp_path / "file") == (
        f"A cross-validation is a folder. Received: {str(tmp_path / 'file')!r}, which is a file. Choose another --out."
    )
    assert "Results lie outside the folder of the images." in refused(run_stub, data, data.root / "cv")
    photos = make_folder({"wedding": 1}, "photos")
    for options, text in (
        ({"resume": True}, "--resume goes on with a cross-validation. Received: {}, which is none."),
        (
            {"replace_old": True},
            "--replace deletes a cross-validation only. Received: {}, which is none (it has no crossval.json). "
            "Choose another --out.",
        ),
    ):
        assert refused(run_stub, data, photos, **options) == text.format(repr(str(photos)))
    assert len(scan(data.root).records) == 24 and len(scan(photos).records) == 1
    (out / "crossval.json").write_text("[")
    assert "A cross-validation holds its settings as JSON. Received: " in refused(run_stub, data, out, resume=True)


def test_replace_starts_afresh(stub, data, tmp_path):
    run_stub(data, tmp_path / "cv", folds=4)
    (tmp_path / "cv" / "note.txt").write_text("x")
    run_stub(data, tmp_path / "cv", replace_old=True)
    pictures = {"confusion.png", "folds.png"}
    assert {path.name for path in (tmp_path / "cv").iterdir()} == {*FILES, "fold-1", "fold-2", "fold-3"} - pictures


def test_an_error_before_any_training_leaves_nothing(stub, data, tmp_path, monkeypatch):
    def fail(*args, **options):
        raise CustomCNNError("no GPU")

    monkeypatch.setattr(module, "train", fail)
    assert refused(run_stub, data, tmp_path / "cv") == "no GPU"
    assert not (tmp_path / "cv").exists()


def test_one_process_at_a_time(stub, data, tmp_path):
    import fcntl

    run_stub(data, tmp_path / "cv")
    lock = os.open(tmp_path / "cv", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        assert refused(run_stub, data, tmp_path / "cv", resume=True) == (
            f"A cross-validation is made by one process at a time. Received: {str(tmp_path / 'cv')!r}, which another "
            "process is at now. Wait for it, or choose another --out."
        )
    finally:
        os.close(lock)
    assert (tmp_path / "cv" / "crossval.json").is_file()


# ---------------------------------------------------------------- the command, the picture


def test_the_command_prints_folds_mean_and_spread(stub, data, tmp_path):
    line = ["crossval", str(data.root), "--model", "small", "--set", "input_size=22", "--epochs", "2", "--folds", "3"]
    line += ["--resamples", "50", "--out", str(tmp_path / "cv")]
    first = CliRunner().invoke(cli, line)
    assert first.exit_code == 0, first.output
    lines = first.stdout.splitlines()
    assert lines[0].split("  ")[0] == "fold" and lines[0].endswith("weighted F1  ROC AUC")
    assert [line.split()[0] for line in lines[1:5]] == ["1", "2", "3", "mean"]
    assert lines[4].split()[1:3] == ["2.0000", "0.2100"] and lines[5].split()[:4] == [
        "standard",
        "deviation",
        "1.0000",
        "0.1000",
    ]
    assert "24 images, 4 errors" in first.stdout and f"Folder: {tmp_path / 'cv'}" in first.stdout
    assert "no group labels given" in first.stderr and "--score last is free of that choice" in first.stderr
    # Resumed, it takes everything as it was begun.
    again = CliRunner().invoke(cli, ["crossval", str(data.root), "--out", str(tmp_path / "cv"), "--resume"])
    assert again.exit_code == 0, again.output
    assert [line.split()[:6] for line in again.stdout.splitlines()[:6]] == [line.split()[:6] for line in lines[:6]]
    as_json = CliRunner().invoke(cli, [*line, "--resume", "--json"])
    assert json.loads(as_json.stdout)["mean"]["val_accuracy"] == pytest.approx(0.21)
    assert CliRunner().invoke(cli, [*line, "--resume", "--replace"]).exit_code == 2
    zero = CliRunner().invoke(cli, [*line[:-1], str(tmp_path / "zero"), "--folds", "0"])
    assert isinstance(zero.exception, CustomCNNError)


def test_a_picture_of_folds_leaves_out_what_is_undefined():
    rows = [{"val_accuracy": 0.5, "roc_auc": None, "val_loss": 0.7}, {"val_accuracy": 0.75, "roc_auc": None}]
    accuracy, losses = folds_figure(rows).axes
    dots = [line for line in accuracy.lines if line.get_marker() == "o"]
    assert [list(line.get_ydata()) for line in dots] == [[0.5, 0.75]]
    assert [list(line.get_ydata()) for line in losses.lines if line.get_marker() == "o"] == [[0.7]]
    assert "undefined" in {text.get_text() for text in accuracy.texts}
    with pytest.raises(ValueError, match="needs a fold"):
        folds_figure([])


# ---------------------------------------------------------------- real trainings


@pytest.mark.kill
def test_folds_are_plain_trainings_that_share_one_pack(tmp_path):
    from customcnn.training.train import train

    data = scan(paint(tmp_path / "data", {"all": 12, "hem": 12}))
    result = crossval(data, tmp_path / "cv", recipe(epochs=6), folds=2, resamples=50)
    assert len(list((data.root / CACHE).iterdir())) == 1
    for fold in make_folds(data, folds=2):
        run = RunDir(tmp_path / "cv" / f"fold-{fold.number}")
        plain = train(fold.manifest, RunDir(tmp_path / f"plain-{fold.number}"), recipe(epochs=6))
        assert run.read_history() == plain.history, "a fold does not depend on the fold before it"
        row = result.folds[fold.number - 1]
        assert row["val_accuracy"] == plain.best["val_accuracy"] and row["epoch"] == plain.best["epoch"]
        assert row["val_loss"] == pytest.approx(row["log_loss"], rel=1e-4)
    assert result.metrics["accuracy"]["value"] == pytest.approx(result.mean["val_accuracy"])
    assert result.mean["val_accuracy"] > 0.9, "the classes are colours"
