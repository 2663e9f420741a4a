"""Scores and predictions of a trained run: what is written, that the network says it, and what stands beside."""

import csv
import io
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from customcnn.data.leakage import DRAWN
from customcnn.data.manifest import Manifest, scan, with_group_pattern
from customcnn.data.split import check_files
from customcnn.evaluation.evaluate import choose_part, evaluate
from customcnn.images.decode import decode
from customcnn.inference.classifier import BATCH, predict, probabilities
from customcnn.inference.inputs import expand
from customcnn.models import build_model, get_spec
from customcnn.recipe.recipe import load_recipe
from customcnn.runs.run_dir import RunDir
from customcnn.runs.saved_model import load_model, read_info, save_model
from customcnn.training.train import train
from tests.support.commands import error_line, printed
from tests.support.errors import refused
from tests.support.folders import contents

SIZE = get_spec("small").minimum_size
WRITTEN = {"predictions.csv", "metrics.json", "confusion.png", "curves.png"}
WRITTEN |= {"roc.png", "precision-recall.png", "decision.png", "reliability.png"}
PLACES = {"train": ("g0", "g1"), "validation": ("g1", "g2"), "test": ("g3",)}
"""The groups of each part: validation shares g1 with train, test shares nothing."""

WARNING = (
    "Inflated by leakage: 6 of 12 validation images belong to 1 group that the network was trained on. "
    "Split by group for a score that holds for new ones."
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A split folder of noise: a network that learnt little is wrong now and then."""
    root = tmp_path_factory.mktemp("noise") / "data"
    rng = np.random.default_rng(4)
    for part, groups in PLACES.items():
        for label in ("all", "hem"):
            (root / part / label).mkdir(parents=True)
            for name in [f"{group}_{number}.png" for group in groups for number in range(3)]:
                pixels = rng.integers(0, 256, (SIZE + 3, SIZE, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / label / name)
    return root


@pytest.fixture(scope="module")
def data(folder) -> Manifest:
    """Its manifest, with groups and hashes."""
    return check_files(with_group_pattern(scan(folder), "/(g[0-9])_"))[0]


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> RunDir:
    """A run of two epochs; best.keras is made the network after the first."""
    settings = {"model": "small", "input_size": SIZE, "epochs": 2, "batch_size": 4, "monitor": "val_loss"}
    run = RunDir(tmp_path_factory.mktemp("trained") / "run")
    train(data, run, load_recipe(None, {**settings, "learning_rate": 0.02}))
    run.curves.unlink()
    return run


@pytest.fixture
def run(trained, tmp_path) -> RunDir:
    """A copy of the run, to write into."""
    shutil.copytree(trained.path, tmp_path / "run")
    return RunDir(tmp_path / "run")


def strict_json(path: Path) -> dict:
    """Read JSON as the standard has it, without NaN and Infinity."""

    def no(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(path.read_text(), parse_constant=no)


def shares(run: RunDir, data: Manifest, records) -> np.ndarray:
    """Return what the network says, by another way: Keras alone, one column, the second class."""
    images = np.stack([decode(data.root / record.path, (SIZE, SIZE)) for record in records])
    return load_model(run.best).predict(images, verbose=0)[:, 0]


# ---------------------------------------------------------------- evaluate


def test_predictions_are_what_the_network_says(run, data):
    result = evaluate(run, data, part="validation", resamples=20)
    records = data.part("validation").records
    with run.predictions.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "label", "group", "predicted", "probability_all", "probability_hem"]
    assert [(row["path"], row["label"], row["group"]) for row in rows] == [(r.path, r.label, r.group) for r in records]
    hem = np.array([float(row["probability_hem"]) for row in rows])
    np.testing.assert_allclose(hem, shares(run, data, records), atol=1e-6)
    np.testing.assert_allclose([float(row["probability_all"]) for row in rows], 1 - hem, atol=1e-12)
    predicted = np.where(hem > 0.5, "hem", "all")
    assert [row["predicted"] for row in rows] == predicted.tolist()
    labels = np.array([record.label for record in records])
    assert result.metrics["errors"] == int((labels != predicted).sum())
    assert result.metrics["accuracy"]["value"] == pytest.approx((labels == predicted).mean())
    assert result.metrics["confusion_matrix"] == [
        [int(((labels == a) & (predicted == b)).sum()) for b in ("all", "hem")] for a in ("all", "hem")
    ]


def test_the_metrics_file(run, data):
    result = evaluate(run, data, part="validation", resamples=20)
    metrics = strict_json(run.metrics)
    assert metrics == result.metrics
    assert metrics["images"] == 12 and metrics["groups"] == 2
    assert metrics["interval"]["resamples"] == 20
    assert (metrics["classes"], metrics["positive"]) == (["all", "hem"], "all")
    assert (metrics["model"], metrics["part"], metrics["weights"]) == ("small", "validation", "best")
    assert metrics["epoch"] == read_info(run.best).epoch
    assert metrics["data"] == str(data.root)
    assert metrics["leakage"] == {
        "part": "validation",
        "images": 12,
        "groups_known": True,
        "shared_groups": 1,
        "images_in_shared_groups": 6,
        "identical_files": 0,
        "warning": WARNING,
    }
    assert metrics["notes"] == result.notes == [WARNING]
    assert metrics["drawn"] is False


def test_a_part_that_shares_nothing_has_no_warning_and_is_the_default(run, data):
    result = evaluate(run, data, resamples=20)
    assert result.metrics["part"] == "test"
    assert result.metrics["leakage"]["warning"] is None and result.metrics["leakage"]["groups_known"]
    assert result.notes == [] and result.metrics["chosen_on_this_part"] is False
    assert {path.name for path in run.path.iterdir()} >= WRITTEN
    for picture in (run.confusion, run.curves):
        assert Image.open(picture).format == "PNG"


def test_the_training_part_itself(run, data):
    result = evaluate(run, data, part="train", resamples=20)
    assert result.leakage.identical_files == 12
    assert "12 of 12 are files that it was trained on, byte for byte" in result.notes[0]


def test_files_that_it_was_trained_on_are_found_without_hashes_and_under_other_names(run, data, tmp_path):
    records = [record for record in data.part("train").records]
    for number, record in enumerate(records):
        place = tmp_path / "copies" / record.label / f"{number}.bmp"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes((data.root / record.path).read_bytes())
    result = evaluate(run, scan(tmp_path / "copies"), out=tmp_path / "out", resamples=2)
    assert result.leakage.identical_files == len(records)


def test_a_score_that_chose_the_epoch_says_so(run, data):
    assert evaluate(run, data, part="validation", resamples=2).metrics["chosen_on_this_part"] is True
    assert evaluate(run, data, part="validation", weights="last", resamples=2).metrics["chosen_on_this_part"] is False
    own = run.read_recipe()
    for values in ({"monitor": "loss"}, {"keep": "last"}):
        run.recipe.write_text(replace(own, **values).to_toml())
        assert evaluate(run, data, part="validation", resamples=2).metrics["chosen_on_this_part"] is False


def test_the_weights_of_the_last_epoch(run, data):
    result = evaluate(run, data, weights="last", resamples=2)
    assert (result.metrics["epoch"], result.metrics["weights"]) == (2, "last")


def test_intervals_resample_groups_where_they_are_known(run, data):
    by_group = evaluate(run, data, part="validation", resamples=50).metrics
    no_groups = replace(data, records=tuple(replace(r, group="") for r in data.records))
    by_image = evaluate(run, no_groups, part="validation", resamples=50).metrics
    assert (by_group["groups"], by_image["groups"]) == (2, None)
    assert "group" in by_group["interval"]["method"] and "group" not in by_image["interval"]["method"]
    assert by_group["accuracy"]["value"] == by_image["accuracy"]["value"]
    assert by_image["leakage"]["groups_known"] is False


def test_drawn_cells_are_named_once(run, data):
    drawn = replace(data, records=tuple(replace(r, extra={"origin": "drawn"}) for r in data.records))
    result = evaluate(run, drawn, resamples=2)
    assert result.notes == [DRAWN] and result.metrics["drawn"] is True
    save_model(load_model(run.best), replace(read_info(run.best), drawn=True), run.best)
    assert evaluate(run, data, resamples=2).notes == [DRAWN], "trained on drawn cells, scored on others"
    assert evaluate(run, drawn, resamples=2).metrics["notes"] == [DRAWN]


def test_a_folder_that_is_not_split(run, folder):
    result = evaluate(run, scan(folder / "test"), resamples=2)
    assert (result.metrics["part"], result.metrics["images"]) == ("given", 6)
    assert result.metrics["leakage"]["groups_known"] is False


def test_the_clinical_reading_and_the_calibration(run, data):
    metrics = evaluate(run, data, resamples=20).metrics
    reading, calibrated = metrics["clinical"], metrics["calibration"]
    assert reading["positive"] == "all" and [*reading["curves"]] == ["all"]
    assert reading["curves"]["all"]["roc"]["area"]["value"] == pytest.approx(metrics["roc_auc"]["value"])
    assert calibrated["log_loss"]["value"] == pytest.approx(metrics["log_loss"]) and calibrated["temperature"] is None


def test_another_positive_class_without_a_new_training(run, data):
    blasts = evaluate(run, data, part="validation", resamples=2).metrics
    healthy = evaluate(run, data, part="validation", resamples=2, positive="hem").metrics
    assert (blasts["positive"], healthy["positive"]) == ("all", "hem")
    for one, other in (("sensitivity", "specificity"), ("specificity", "sensitivity")):
        assert blasts["positive_class"][one] == healthy["positive_class"][other]
    assert [*healthy["clinical"]["curves"]] == ["hem"] and healthy["calibration"]["positive_class"]["name"] == "hem"
    assert refused(evaluate, run, data, positive="blast") == (
        "A positive class is one of two classes. Received: 'blast', and the classes 'all', 'hem'. "
        "Name one of two, or leave it out."
    )


def test_a_run_that_was_saved_with_the_healthy_class_keeps_it(run, data):
    save_model(load_model(run.best), replace(read_info(run.best), positive="hem"), run.best)
    assert evaluate(run, data, resamples=2).metrics["positive"] == "hem"
    assert evaluate(run, data, resamples=2, positive="all").metrics["positive"] == "all"


def test_a_rule_that_would_be_ignored_is_refused(run, data, tmp_path):
    rule = "sensitivity>=0.95"
    assert refused(evaluate, run, data, part="validation", rule=rule) == (
        "A threshold is chosen on a validation split of both classes that is not the one scored. Received: "
        f"{rule!r} for {str(data.root)!r}, scored on validation. "
        "Leave out --threshold, or score the test split of a folder with a validation split."
    )
    save_model(
        load_model(run.best), replace(read_info(run.best), classes=["all", "b", "c", "hem"], positive=""), run.best
    )
    assert refused(evaluate, run, data, rule=rule) == (
        f"A threshold belongs to one of two classes. Received: {rule!r} for 4 classes, 'all', 'b', 'c', 'hem'. "
        "Leave out --threshold."
    )
    assert refused(evaluate, run, data, rule="f1", match="A threshold rule is youden")
    assert refused(evaluate, run, data, positive="all", match="A positive class is one of two classes")


@pytest.mark.kill
def test_the_threshold_is_chosen_on_validation_and_never_on_what_is_scored(run, data):
    validation = data.part("validation")
    blast = 1 - shares(run, data, validation.records)
    own = np.array([record.label == "all" for record in validation.records])
    best = max((blast[own] >= t).mean() - (blast[~own] >= t).mean() for t in blast)
    found = evaluate(run, data, resamples=2).metrics["clinical"]["threshold"]
    assert (found["chosen_on"], found["rule"]) == ("validation", "youden")
    at = found["value"] - 1e-6
    assert (blast[own] >= at).mean() - (blast[~own] >= at).mean() == pytest.approx(best)
    assert evaluate(run, data, part="validation", resamples=2).metrics["clinical"]["threshold"] is None
    alone = replace(data, records=data.part("test").records)
    assert evaluate(run, alone, part="test", resamples=2).metrics["clinical"]["threshold"] is None
    rule = "sensitivity>=1"
    assert evaluate(run, data, rule=rule, resamples=2).metrics["clinical"]["threshold"]["rule"] == rule


@pytest.mark.kill
def test_the_mean_over_turns_and_mirror_images(run, data):
    evaluate(run, data, tta=True, resamples=2)
    records = data.part("test").records
    images = np.stack([decode(data.root / record.path, (SIZE, SIZE)) for record in records])
    model = load_model(run.best)
    turned = [np.rot90(images, k, axes=(1, 2)) for k in range(4)]
    views = [view for turn in turned for view in (turn, turn[:, :, ::-1])]
    expected = np.mean([model.predict(np.ascontiguousarray(view), verbose=0)[:, 0] for view in views], axis=0)
    with run.predictions.open(newline="") as file:
        found = [float(row["probability_hem"]) for row in csv.DictReader(file)]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert json.loads(run.metrics.read_text())["tta"] is True
    assert not np.allclose(found, shares(run, data, records), atol=1e-6), "one view is not the mean of eight"


def test_strata_are_columns_of_the_manifest(run, data):
    sites = replace(data, records=tuple(replace(r, extra={"site": "ab"[i % 2]}) for i, r in enumerate(data.records)))
    found = evaluate(run, sites, part="validation", strata=("site", "group"), resamples=20).metrics
    rows = {row["value"]: row for row in found["clinical"]["strata"]["site"]}
    assert {value: row["images"] for value, row in rows.items()} == {"a": 6, "b": 6}
    right = sum(row["accuracy"]["value"] * row["images"] for row in rows.values())
    assert right == pytest.approx(found["accuracy"]["value"] * 12)
    assert [row["value"] for row in found["clinical"]["strata"]["group"]] == ["G1", "G2"]
    assert refused(evaluate, run, sites, strata=("stain",)) == (
        "--strata names a column of the manifest: label, group, split, or a further one of its CSV. "
        f"Received: 'stain'; {str(data.root)!r} has 'site'. Name one that is there."
    )


def test_another_place_for_the_results(run, data, tmp_path):
    before = contents(run.path)
    evaluate(run, data, out=tmp_path / "deep" / "results", resamples=2)
    assert {path.name for path in (tmp_path / "deep" / "results").iterdir()} == WRITTEN
    assert contents(run.path) == before


def test_one_of_the_classes_will_do(run, folder, tmp_path):
    shutil.copytree(folder / "test" / "hem", tmp_path / "one" / "hem")
    metrics = evaluate(run, scan(tmp_path / "one"), resamples=20).metrics
    assert strict_json(run.metrics) == metrics
    assert metrics["confusion_matrix"][0] == [0, 0]
    assert metrics["roc_auc"]["value"] is None


def test_more_images_than_a_batch(run, folder, tmp_path):
    (tmp_path / "many" / "hem").mkdir(parents=True)
    (tmp_path / "many" / "all").mkdir()
    for number in range(BATCH + 3):
        shutil.copy(folder / "test" / "hem" / "g3_0.png", tmp_path / "many" / "hem" / f"{number}.png")
    shutil.copy(folder / "test" / "all" / "g3_1.png", tmp_path / "many" / "all" / "x.png")
    advanced: list[tuple[str, int]] = []
    metrics = evaluate(run, scan(tmp_path / "many"), resamples=2, progress=noting(advanced)).metrics
    assert metrics["images"] == BATCH + 4
    assert sum(n for label, n in advanced if label == "evaluate") == BATCH + 4


def noting(advanced: list[tuple[str, int]]):
    """Return a progress that writes down every step."""
    from contextlib import contextmanager

    @contextmanager
    def progress(total: int, label: str):
        yield lambda n: advanced.append((label, n))

    return progress


def test_other_classes_are_refused(run, folder, tmp_path):
    shutil.copytree(folder / "test", tmp_path / "other")
    (tmp_path / "other" / "hem").rename(tmp_path / "other" / "eosinophil")
    assert refused(evaluate, run, scan(tmp_path / "other")) == (
        f"Data has the classes of the run. Received: 'eosinophil' in {str(tmp_path / 'other')!r}, where "
        f"{str(run.path)!r} knows 'all', 'hem'. Give the data that belongs to the run."
    )
    assert not run.metrics.exists()


def test_parts(data):
    assert choose_part(data, None)[1] == "test"
    assert choose_part(data, "train") == (data.part("train"), "train")
    two = replace(data, records=data.part("train").records + data.part("validation").records)
    assert choose_part(two, None) == (data.part("validation"), "validation")
    assert refused(choose_part, two, "test") == (
        "--part names a part of the data. "
        f"Received: test; {str(data.root)!r} has 'train', 'validation'. Name one of them."
    )
    whole = replace(data, records=tuple(replace(r, split="") for r in data.records))
    assert choose_part(whole, None) == (whole, "given")
    assert refused(choose_part, whole, "test").endswith("has none. Name one of them.")


def test_an_image_that_is_none_leaves_no_results(run, folder, tmp_path):
    shutil.copytree(folder / "test", tmp_path / "damaged")
    (tmp_path / "damaged" / "hem" / "g3_1.png").write_bytes(b"")
    before = {path.name for path in run.path.iterdir()}
    assert "g3_1.png', an empty file." in refused(evaluate, run, scan(tmp_path / "damaged"))
    assert {path.name for path in run.path.iterdir()} == before


def test_a_network_that_has_diverged(run, data):
    model = load_model(run.best)
    model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
    save_model(model, read_info(run.best), run.best)
    assert refused(evaluate, run, data).startswith("Probabilities are finite numbers. Received: NaN or infinite ones")
    assert not run.metrics.exists() and not run.predictions.exists()


def test_results_inside_the_data(run, data):
    """The next command would refuse the data for them."""
    message = refused(evaluate, run, data, out=data.root / "scores")
    assert message.startswith(f"Results lie outside the folder of the images. Received: {str(data.root / 'scores')!r}")
    assert not (data.root / "scores").exists()


def test_a_run_that_is_none(data, tmp_path):
    expected = f"A run is a folder made by customcnn train. Received: {str(tmp_path)!r}."
    assert refused(evaluate, RunDir(tmp_path), data) == expected
    assert refused(predict, RunDir(tmp_path), [tmp_path]) == expected


# ---------------------------------------------------------------- probabilities


@pytest.mark.parametrize("classes", [2, 3])
def test_probabilities_have_a_column_for_each_class(classes):
    images = np.random.default_rng(1).integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8)
    model = build_model("small", classes=classes, input_size=SIZE)
    found = probabilities(model, images)
    assert (found.shape, found.dtype) == ((5, classes), np.float64)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)
    raw = model.predict(images, verbose=0)
    np.testing.assert_allclose(found[:, -1], raw[:, -1], atol=1e-6)


# ---------------------------------------------------------------- predict


def test_predictions_keep_the_order(trained, folder):
    paths = [folder / "test" / "hem" / "g3_2.png", folder / "test" / "all", folder / "test" / "hem" / "g3_0.png"]
    found = predict(trained, paths)
    inside = [folder / "test" / "all" / f"g3_{number}.png" for number in range(3)]
    expected = [paths[0], *inside, paths[2]]
    assert [prediction.file for prediction in found] == [str(path) for path in expected]
    model = load_model(trained.best)
    hem = model.predict(np.stack([decode(path, (SIZE, SIZE)) for path in expected]), verbose=0)[:, 0]
    for prediction, share in zip(found, hem, strict=True):
        assert list(prediction.probabilities) == ["all", "hem"]
        assert prediction.probabilities["hem"] == pytest.approx(share, abs=1e-6)
        assert prediction.label == max(prediction.probabilities, key=prediction.probabilities.__getitem__)


def test_more_predictions_than_a_batch(trained, folder):
    first, second = (folder / "test" / "hem" / f"g3_{number}.png" for number in (0, 1))
    advanced: list[tuple[str, int]] = []
    found = predict(trained, [first] * BATCH + [second], workers=2, progress=noting(advanced))
    assert len(found) == BATCH + 1 and advanced == [("predict", BATCH), ("predict", 1)]
    assert found[-1].probabilities["hem"] == pytest.approx(predict(trained, [second])[0].probabilities["hem"], abs=1e-6)


def test_expand(folder, tmp_path):
    (tmp_path / "some").mkdir()
    for name in ("b.PNG", "a.jpg", ".hidden.png", "notes.txt", "._a.jpg"):
        (tmp_path / "some" / name).write_bytes(b"x")
    (tmp_path / "some" / "inner").mkdir()
    assert [path.name for path in expand([tmp_path / "some"])] == ["a.jpg", "b.PNG"]
    assert expand([tmp_path / "some" / "notes.txt"]) == [tmp_path / "some" / "notes.txt"], "as it was asked for"
    rule = "Images are given as files, or as folders of them."
    assert refused(expand, []) == f"{rule} Received: none. Name one."
    missing, empty = tmp_path / "x\n.png", tmp_path / "some" / "inner"
    assert refused(expand, [missing]) == f"{rule} Received: {str(missing)!r}, which does not exist. Check its name."
    assert refused(expand, [empty]) == f"{rule} Received: {str(empty)!r}, a folder without images. Check its name."
    assert refused(expand, [folder]) == f"{rule} Received: {str(folder)!r}, a folder without images. Check its name."


def test_what_is_no_image(trained, tmp_path):
    path = tmp_path / "text.png"
    path.write_text("not an image")
    assert refused(predict, trained, [path]) == (
        f"Images are single pictures of a known format. Received: {str(path)!r}, not an image of a known format."
    )


# ---------------------------------------------------------------- predict and evaluate on the command line


NAMES = ["a,b.png", 'quote".png', "two\nlines.png", "ünï.png", os.fsdecode(b"stray\xff.png")]


@pytest.fixture
def odd_names(folder, tmp_path) -> Path:
    """A folder of images with such names."""
    (tmp_path / "odd").mkdir()
    for name in NAMES:
        shutil.copy(folder / "test" / "hem" / "g3_0.png", tmp_path / "odd" / name)
    return tmp_path / "odd"


def test_text(trained, odd_names, shell):
    status, output, errors = shell("predict", trained.path, odd_names)
    assert (status, errors) == (0, "")
    lines = output.splitlines()
    assert len(lines) == len(NAMES), "one line an image, whatever it is called"
    (prediction,) = predict(trained, [odd_names / "ünï.png"])
    hem = prediction.probabilities["hem"]
    assert f"{odd_names / 'ünï.png'}  {prediction.label}  (all {1 - hem:.3f}  hem {hem:.3f})" in lines
    assert any("two\\nlines.png" in line for line in lines)


def test_text_of_a_class_with_a_newline(run, odd_names, shell):
    save_model(load_model(run.best), replace(read_info(run.best), classes=["a\nb", "hem"], positive="hem"), run.best)
    status, output, _ = shell("predict", run.path, odd_names)
    assert status == 0
    assert len(output.splitlines()) == len(NAMES)


def test_csv(trained, odd_names, shell):
    names = [name for name in NAMES if name.isprintable() or "\n" in name]
    status, output, _ = shell("predict", trained.path, *(odd_names / n for n in names), "--format", "csv")
    assert status == 0
    rows = list(csv.DictReader(io.StringIO(output)))
    assert list(rows[0]) == ["file", "label", "probability_all", "probability_hem"]
    assert [row["file"] for row in rows] == [str(odd_names / name) for name in names]
    for row, prediction in zip(rows, predict(trained, [odd_names / name for name in names]), strict=True):
        assert float(row["probability_hem"]) == prediction.probabilities["hem"]


def test_csv_of_a_name_with_stray_bytes(trained, odd_names, shell):
    status, output, errors = shell("predict", trained.path, odd_names, "--format", "csv")
    assert (status, errors) == (0, "")
    assert len(list(csv.DictReader(io.StringIO(output)))) == len(NAMES)


@pytest.mark.parametrize("option", [["--format", "json"], ["--json"]])
def test_json(trained, odd_names, shell, option):
    status, output, _ = shell("predict", trained.path, odd_names, *option)
    assert status == 0
    found = json.loads(output)["predictions"]
    assert sorted(item["file"] for item in found) == sorted(str(odd_names / name) for name in NAMES)
    assert {tuple(item) for item in found} == {("file", "label", "probabilities")}
    assert all(sum(item["probabilities"].values()) == pytest.approx(1) for item in found)


def test_predictions_of_a_network_that_saw_drawn_cells_say_so(run, folder, shell):
    save_model(load_model(run.best), replace(read_info(run.best), drawn=True), run.best)
    status, output, errors = shell("predict", run.path, folder / "test" / "hem" / "g3_0.png")
    assert (status, output.count("\n")) == (0, 1)
    assert errors == f"Warning: trained on drawn cells. {DRAWN}\n"


def test_evaluate_says_what_stands_beside_the_scores(run, folder, shell):
    words = ["evaluate", run.path, folder, "--part", "validation", "--resamples", 20]
    status, output, errors = shell(*words, "--group-pattern", "/(g[0-9])_")
    assert status == 0
    assert "12 images of 2 groups" in output and "positive class: all" in output
    assert errors.splitlines() == [
        "Note: the best epoch was chosen by its score on this part; a test part would be free of that choice.",
        f"Warning: {WARNING}",
    ]
    status, output, errors = shell(*words, "--json")
    assert json.loads(output) == strict_json(run.metrics)
    assert errors.count("no group labels given, so leakage cannot be checked.") == 1
    alike = errors.replace(" Give --group-pattern or --groups if you can.", "")
    assert printed(*shell("report", run.path, "--mistakes", 0))[1] == alike, "report says the same in the same words"


def test_damaged_images_are_named_and_left_out_on_demand(run, folder, tmp_path, shell):
    data = Path(shutil.copytree(folder, tmp_path / "data"))
    for name in ("test/all/x.png", "test/hem/y.png", "validation/all/z.png"):
        (data / name).write_bytes((folder / "test/all/g3_0.png").read_bytes()[:200])
    words = ["evaluate", run.path, data, "--resamples", 5, "--no-report", "--json", "--out", tmp_path / "out"]
    assert "x.png" in error_line(*shell(*words))
    status, output, errors = shell(*words, "--skip-bad")
    assert (status, json.loads(output)["images"]) == (0, 6)
    assert all(f"{name}' (damaged" in errors for name in ("test/all/x.png", "test/hem/y.png", "validation/all/z.png"))


def test_converted_images_are_counted_once(run, tmp_path):
    """By a prediction of three images, two of them grey."""
    colours = np.random.default_rng(0).integers(0, 256, (22, 22, 3), dtype=np.uint8)
    paths = []
    for name, mode in (("a", "RGB"), ("b", "L"), ("c", "L")):
        paths.append(tmp_path / f"{name}.png")
        Image.fromarray(colours).convert(mode).save(paths[-1])
    lines = []
    predict(run, paths, say=lines.append)
    assert lines == ["Note: converted to 8-bit RGB: 2 of mode L."]


@pytest.mark.kill
def test_groups_given_for_the_scoring_hold_for_the_training_images_too(tmp_path):
    """A run split by groups that were none (numbers in names): the true groups must still reveal the leak."""
    for part, number in (("train", 1), ("train", 2), ("validation", 3)):
        for label, level in (("all", 60), ("hem", 190)):
            folder = tmp_path / "data" / part / label
            folder.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng((number, level)).integers(0, 40, (22, 22, 3), dtype=np.uint8) + np.uint8(
                level
            )
            Image.fromarray(pixels).save(folder / f"_{number}_{label}.png")
    by_number = with_group_pattern(scan(tmp_path / "data"), r"/_(\d)_")
    run = RunDir(tmp_path / "run")
    train(by_number, run, load_recipe(None, {"model": "small", "input_size": 22, "epochs": 1}))
    assert evaluate(run, by_number, resamples=10).leakage.warning is None
    true = replace(by_number, records=tuple(replace(r, group=f"photograph of {r.label}") for r in by_number.records))
    leakage = evaluate(run, true, resamples=10, out=tmp_path / "true").leakage
    assert (leakage.shared_groups, leakage.images_in_shared_groups) == (2, 2)
    assert leakage.warning is not None
