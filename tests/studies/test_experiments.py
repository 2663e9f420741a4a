"""What lies under experiments/: the published numbers, the recipes and the studies."""

import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from customcnn.data.manifest import Manifest, Record
from customcnn.model_selection.space import TABLE, read_space
from customcnn.models import get_spec
from customcnn.models.options import checked_options, checked_size
from customcnn.recipe.recipe import Recipe, load_recipe, parse_settings
from customcnn.studies.prepare import assign
from customcnn.studies.study_file import STUDY, read_study

ROOT = Path(__file__).parents[2]
EXPERIMENTS = ROOT / "experiments"
PUBLISHED = tomllib.loads((EXPERIMENTS / "published.toml").read_text("utf-8"))
FILES = sorted(path for path in EXPERIMENTS.rglob("*.toml") if path.name not in (STUDY, "published.toml"))
SEARCHES = [path for path in FILES if TABLE in tomllib.loads(path.read_text("utf-8"))]
RECIPES = [path for path in FILES if path not in SEARCHES]
STUDIES = sorted(EXPERIMENTS.glob(f"*/{STUDY}"))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


each_recipe = pytest.mark.parametrize("path", RECIPES, ids=name)
each_study = pytest.mark.parametrize("path", STUDIES, ids=name)

# ---------------------------------------------------------------- the published numbers, by their own arithmetic


def test_the_reports_matrix_gives_its_scores():
    figure = PUBLISHED["report"]["figure_23"]
    (a, b), (c, d) = figure["confusion_matrix"]
    assert a + b + c + d == PUBLISHED["report"]["split_sizes"]["test"] == 2121
    assert round(100 * (a + d) / 2121, 2) == figure["accuracy_percent"] == 93.02
    assert (b + d, c + d) == (680, 674)
    assert round(d / 680, 2) == figure["precision"] and round(d / 674, 2) == figure["recall"]
    # So these two are about hem: those of the blasts are .95.
    assert round(a / (a + c), 2) == figure["precision_all"] and round(a / (a + b), 2) == figure["recall_all"]
    assert PUBLISHED["report"]["table_2_accuracy_percent"]["proposed"] == figure["accuracy_percent"]


def test_the_reports_split_is_by_its_own_rule():
    sizes = PUBLISHED["report"]["split_sizes"]
    assert sizes["train"] + sizes["test"] == sizes["train_as_printed_in_text"] + sizes["test_as_printed_in_text"]
    assert sizes["train"] + sizes["test"] == 10_600 and sizes["train_as_printed_in_text"] == int(0.8 * 10_600)


def test_figure_18_adds_up():
    figure = PUBLISHED["report"]["figure_18"]
    assert figure["trainable_params"] + figure["non_trainable_params"] == figure["total_params"]
    channels = 128
    for (row, (_, _, filters), parameters), (follower, *_) in pairwise([*figure["rows"], ["end", None, 0]]):
        if "conv" in row:
            assert parameters == 9 * channels * filters + filters
            assert follower.startswith("batch_normalization")
            channels = filters
        else:
            assert parameters == (4 * filters if row.startswith("batch") else 0)
    widths, blocks = (32, 64, 128, 256, 384, 512), (3, 2, 2, 2, 2, 2)
    layers = [width for width, count in zip(widths, blocks, strict=True) for _ in range(count)]
    assert sum(9 * a * b + b + 4 * b for a, b in pairwise([3, *layers])) == figure["total_params"]
    assert sum(2 * width for width in layers) == figure["non_trainable_params"]


def test_figure_19_adds_up():
    figure = PUBLISHED["report"]["figure_19"]
    assert sum(parameters for _, parameters in figure["rows"]) == figure["total_params"]
    assert figure["trainable_params"] + figure["non_trainable_params"] == figure["total_params"]
    assert figure["rows"][0][1] == PUBLISHED["report"]["figure_18"]["total_params"]
    assert dict(figure["rows"])["dense 4096"] == 5 * 5 * 512 * 4096 + 4096


def test_the_small_networks_parameters():
    *rest, total = PUBLISHED["small_cnn"]["params"].values()
    assert sum(rest) == total == get_spec("small").parameters
    assert rest == [27 * 32 + 32, 9 * 32 * 64 + 64, 9 * 64 * 64 + 64, 26 * 26 * 64 * 64 + 64, 64 + 1]
    assert PUBLISHED["small_cnn"]["shapes"][-1] == [26, 26, 64]


def test_the_small_networks_splits_leave_1867_cells_out():
    sizes = PUBLISHED["small_cnn"]["split_sizes"]
    plain, enlarged = sizes["train"] + sizes["validation"], sizes["enlarged_train"] + sizes["enlarged_validation"]
    assert (plain, enlarged) == (10_661 - 1867, 2 * 7272 - 1867)
    assert sizes["train"] == int(0.8 * plain) and sizes["enlarged_train"] == int(0.8 * enlarged)


def test_the_transfer_studys_reports_are_of_534_images():
    for scores in PUBLISHED["transfer"]["report"].values():
        assert round(1 - scores["errors"] / 534, 4) == scores["accuracy"]
        hits = round(scores["recall_all"] * 364) + round(scores["recall_hem"] * 170)
        assert hits == 534 - scores["errors"]
        for label in ("all", "hem"):
            precision, recall = scores[f"precision_{label}"], scores[f"recall_{label}"]
            assert 2 * precision * recall / (precision + recall) == pytest.approx(scores[f"f1_{label}"], abs=1e-4)


def test_the_transfer_studys_other_accuracies_are_of_533_images():
    assert PUBLISHED["transfer"]["split_sizes"] == [9594, 534, 533] and sum((9594, 534, 533)) == 10_661
    for scores in PUBLISHED["transfer"]["loss_accuracy"].values():
        fits = {n: any(round(hits / n, 4) == scores["eval_accuracy"] for hits in range(n)) for n in (533, 534)}
        assert fits == {533: True, 534: False}


def test_the_transfer_studys_parameters_add_up():
    for params in PUBLISHED["transfer"]["params"].values():
        assert params["trainable"] + params["non_trainable"] == params["total"]


def test_the_blood_cell_reports_give_their_accuracy():
    blood = PUBLISHED["blood_cells"]
    for part, images in (("test", 2487), ("validation", 1989)):
        rows = [row for row in blood[part].values() if isinstance(row, dict)]
        assert sum(row["support"] for row in rows) == images == blood["split_sizes"][part]
        accuracy = sum(row["recall"] * row["support"] for row in rows) / images
        wanted = blood["test_accuracy_percent"] / 100 if part == "test" else blood["validation"]["accuracy"]
        assert accuracy == pytest.approx(wanted, abs=0.006)
    assert round(100 * 1313 / 2487, 3) == blood["test_accuracy_percent"]
    assert blood["split_sizes"]["train"] + blood["split_sizes"]["validation"] == 9957


def numbers(value: Any) -> Iterator[float]:
    """Yield the numbers inside a value, in their order."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from numbers(inner)
    elif isinstance(value, int | float):
        yield value


WORKED_OUT = ("precision_all", "recall_all")
"""Of figure 23; they follow from its matrix and are not printed."""


def test_the_numbers_are_those_of_the_collected_facts(shared_data):
    facts = tomllib.loads((shared_data.parent / "published.toml").read_text("utf-8"))
    assert set(facts) == set(PUBLISHED)
    for table, values in facts.items():
        for key, value in values.items():
            if list(numbers(value)):
                own = PUBLISHED[table][key]
                if key == "figure_23":
                    own = {name: number for name, number in own.items() if name not in WORKED_OUT}
                assert list(numbers(own)) == list(numbers(value)), f"{table}.{key}"


# ---------------------------------------------------------------- recipes


@each_recipe
def test_a_recipe_is_read_and_its_network_takes_its_options(path):
    from customcnn.training.classification import network_options

    recipe = load_recipe(path, {})
    spec = get_spec(recipe.model)
    checked_size(spec, recipe.input_size or spec.input_size, recipe.center_crop)
    checked_options(spec, network_options(recipe))
    # What the networks used so far could not fetch can be left out.
    load_recipe(path, parse_settings(["weights=none"]))


@pytest.mark.parametrize("path", SEARCHES, ids=name)
def test_a_search_is_read(path):
    assert read_space(path, {}).axes


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_recipe_opens_with_its_command_and_says_what_to_expect(path):
    heading = path.read_text("utf-8").split("\n\n")[0]
    assert all(line.startswith("#") for line in heading.splitlines())
    assert "customcnn " in heading
    assert all(len(line) <= 120 for line in heading.splitlines())
    if path.parent != EXPERIMENTS:
        assert name(path) in heading
        assert "# Takes: " in heading and "# Published: " in heading and "# Measured: " in heading
    if path in RECIPES:
        assert "customcnn train " in heading or "customcnn crossval " in heading


def spellings(value: float) -> set[str]:
    """Return how a share may be written: .8162, 81.62 %."""
    return {f"{value:.{digits}f}".lstrip("0") for digits in (2, 3, 4)} | {f"{100 * value:.6g} %"}


@each_study
def test_headings_and_readme_have_the_published_accuracies(path):
    readme = (EXPERIMENTS / "README.md").read_text("utf-8")
    for row in read_study(path).rows:
        wanted = [scores.get("accuracy") for place, scores in row.published.items() if place != "training"]
        heading = row.recipe.read_text("utf-8").split("\n\n")[0].partition("# Published: ")[2]
        for value in filter(None, wanted):
            assert any(text in heading for text in spellings(value)), f"{row.name}: {value} is not in its heading"
            assert any(text in readme for text in spellings(value)), f"{row.name}: {value} is not in the README"


@pytest.mark.parametrize("path", [*FILES, *STUDIES], ids=name)
def test_the_readme_lists_every_file(path):
    assert f"({path.relative_to(EXPERIMENTS)})" in (EXPERIMENTS / "README.md").read_text("utf-8")


# ---------------------------------------------------------------- recipes are what the studies tell


def of_study(folder: str) -> dict[str, Recipe]:
    """Return the recipes of a folder by their names, without its searches."""
    return {path.stem: load_recipe(path, {}) for path in RECIPES if path.parent.name == folder}


def test_the_reports_recipes_are_trained_as_it_tells():
    told = {key: value for key, value in PUBLISHED["report"]["training"].items() if key in vars(Recipe())}
    assert told == {"optimizer": "SGD", "learning_rate": 2e-4, "epochs": 100, "batch_size": 30}
    for recipe in of_study("report").values():
        assert {key: getattr(recipe, key) for key in told} == {**told, "optimizer": "sgd"}
        assert recipe.monitor == "val_accuracy" and recipe.loss == "categorical_crossentropy"


def test_the_small_networks_recipes_have_what_its_search_found():
    found, recipes = PUBLISHED["small_cnn"]["grid_search"]["best"], of_study("small-cnn")
    for row in ("best", "early-stopping", "five-folds", "disjoint"):
        recipe = recipes[row]
        assert (recipe.epochs, recipe.learning_rate, recipe.dropout) == tuple(found.values()), row
    assert recipes["early-stopping"].patience == PUBLISHED["small_cnn"]["early_stopping_patience"]
    (search,) = (read_space(path, {}) for path in SEARCHES if path.parent.name == "small-cnn")
    told = PUBLISHED["small_cnn"]["grid_search"]
    axes = {axis.key: list(axis.choices) for axis in search.axes}
    assert axes == {key: told[{"dropout": "dropout_rate"}.get(key, key)] for key in axes} and len(axes) == 3


def test_the_transfer_recipes_are_trained_as_the_slides_tell():
    told = PUBLISHED["transfer"]["training"]
    recipes = of_study("transfer")
    assert len(recipes) == 6
    for recipe in recipes.values():
        for key in ("learning_rate", "epochs", "batch_size"):
            assert getattr(recipe, key) == told[key]
        assert {key: getattr(recipe.schedule, key) for key in told["callback"]} == told["callback"]
        assert (recipe.optimizer, recipe.weights, recipe.input_size) == ("adam", "imagenet", 224)
        assert recipe.loss == told["loss"].replace(" ", "_").replace("-", "") == "binary_crossentropy"
        assert recipe.classifier_activation == "sigmoid" in told["activation"]
        assert recipe.normalize == "raw" in told["pixels"]
        assert (recipe.augmentation.flip, recipe.sampling.undersample) == ("horizontal", 3050)


IMBALANCE = {"": ("none", "none"), "hem doubled": ("2", "none"), "oversample hem": ("balance", "none")}
IMBALANCE |= {"class weights": ("none", "balanced")}


def test_the_pretrained_recipes_are_trained_as_the_study_tells():
    rows = {key.lower().replace("_", "-"): told for key, told in PUBLISHED["pretrained"]["accuracy"].items()}
    rows["one-conv"], rows["efficientnetb0-center-crop"] = rows.pop("one-conv-baseline"), rows["efficientnetb0"]
    crop = rows.pop("efficientnetb0-center-crop-200")
    recipes = of_study("pretrained")
    assert set(recipes) == set(rows)
    for row, told in rows.items():
        recipe, settings = recipes[row], told.get("settings", "")
        words = told.get("augmentation", "") + settings
        epochs = crop["epochs"] if row == "efficientnetb0-center-crop" else told.get("epochs", recipe.epochs)
        assert recipe.epochs == epochs, row
        assert recipe.input_size == told.get("size", 300 if "300 pixels" in settings else recipe.input_size), row
        assert recipe.batch_size == told.get("batch_size", 30 if "of 30" in settings else recipe.batch_size), row
        assert recipe.learning_rate == told.get("learning_rate", 1e-3), row
        flip = "horizontal" if "horizontal flip" in words else "both" if "flips" in words else "none"
        assert recipe.augmentation.flip == flip, row
        for key in ("crop", "gamma", "brightness", "contrast"):
            assert (getattr(recipe.augmentation, key) > 0) == (key in words), f"{row}: {key}"
        assert (recipe.normalize == "imagenet") == ("normalisation" in words), row
        sampling = (recipe.sampling.oversample, recipe.sampling.class_weights)
        assert sampling == IMBALANCE[told.get("imbalance", "")], row
    assert recipes["efficientnetb0-center-crop"].center_crop == 200


def test_the_four_class_recipe_is_trained_as_the_study_tells():
    told, recipe = PUBLISHED["blood_cells"]["training"], of_study("blood-cells")["mobilenetv2"]
    for key in ("batch_size", "epochs", "seed"):
        assert getattr(recipe, key) == told[key]
    assert (recipe.monitor, recipe.patience) == ("val_loss", 4) and "val_loss, patience 4" in told["early_stopping"]
    assert (recipe.head, recipe.freeze, recipe.pooling) == ("dense128", "all", "avg")


# ---------------------------------------------------------------- studies


@each_study
def test_a_study_is_read_and_has_a_row_for_each_of_its_recipes(path):
    study = read_study(path)
    assert study.title and study.rows
    # The honest recipes for blood cells take other data than the rest of their folder.
    recipes = {file for file in FILES if file.parent == path.parent and not file.match("honest/blood-cells*")}
    assert {row.recipe for row in study.rows} == recipes


def test_every_folder_of_recipes_is_a_study():
    assert {path.parent for path in STUDIES} == {path.parent for path in FILES if path.parent != EXPERIMENTS}


def test_the_four_class_study_is_reproduced_on_its_own_validation_split():
    """Keras's: of each class's sorted names the first fifth, rounded down, from TRAIN; TEST stays."""
    (how,) = read_study(EXPERIMENTS / "blood-cells" / STUDY).preparations.values()
    blood = PUBLISHED["blood_cells"]
    records = [
        Record(
            f"{'train' if n % 3 else 'validation'}/{label}/_{n:04}.jpeg",
            label,
            split="train" if n % 3 else "validation",
        )
        for label, row in blood["validation"].items()
        if label != "accuracy"
        for n in range(5 * row["support"] + 3)
    ]
    parts = assign(Manifest(Path("."), tuple(records)), how)
    held = Counter(record.label for record in parts if record.split == "validation")
    assert held == {label: row["support"] for label, row in blood["validation"].items() if label != "accuracy"}


def test_every_row_of_the_pretrained_table_is_a_row_of_the_study():
    rows = read_study(EXPERIMENTS / "pretrained" / STUDY).rows
    accuracies = sorted(row.published["test"]["accuracy"] for row in rows)
    assert accuracies == sorted(row["accuracy"] for row in PUBLISHED["pretrained"]["accuracy"].values())
    assert len(rows) == 16


def test_percentages_become_shares():
    rows = {row.name: row for row in read_study(EXPERIMENTS / "report" / STUDY).rows}
    assert rows["alexnet"].published["validation"]["accuracy"] == 0.8162
    assert rows["proposed"].published["validation"]["precision.hem"] == 0.89
    assert rows["proposed"].published["validation"]["precision.all"] == 0.95


# ---------------------------------------------------------------- every recipe trains


@pytest.mark.backend
@pytest.mark.parametrize("path", FILES, ids=name)
def test_every_recipe_takes_a_step(path):
    """At a small input and from random weights. Recipes that differ in what no step knows share one."""
    from customcnn.augmentation import make_transform

    changes = {"weights": "none", "device": "cpu"}
    recipe = read_space(path, changes).recipe({}) if path in SEARCHES else load_recipe(path, changes)
    side = max(get_spec(recipe.model).minimum_size, 32)
    smaller = replace(recipe, input_size=side, center_crop=side if recipe.center_crop else 0)
    usual = Recipe()
    unknown = ("epochs", "seed", "monitor", "patience", "sampling", "schedule", "augmentation", "learning_rate", "keep")
    same = {key: getattr(usual, key) for key in (*unknown, "statistics")}
    images = np.random.default_rng(1).integers(0, 256, (4, side, side, 3), dtype=np.uint8)
    images = np.asarray(make_transform(recipe.augmentation)(images, (0, 0, 0)))
    assert images.shape == (4, side, side, 3) and np.isfinite(images).all() and np.ptp(images) > 0
    assert step(replace(smaller, batch_size=4, **same), 4 if "blood-cells" in str(path) else 2)


@cache
def step(recipe: Recipe, classes: int) -> bool:
    """Train a network for one step on noise; tell whether its loss is a number and its weights move."""
    from customcnn.training.batches import targets
    from customcnn.training.classification import new_model
    from customcnn.training.optimizer import compile_model

    side = recipe.input_size
    model, _ = new_model(recipe, list("abcd"[:classes]), (side, side), "cpu", print)
    compile_model(model, recipe)
    model.run_eagerly = True  # a compiled step would take longer to make than it saves
    images = np.random.default_rng(1).integers(0, 256, (4, side, side, 3)).astype("float32")
    labels = np.array([0, 1, 1, 1])  # as many of each would leave the biases where they are
    wanted = targets(labels, classes, model.output_shape[-1])
    before = model.get_layer("predictions").get_weights()
    loss = model.train_on_batch(images, wanted, return_dict=True)["loss"]
    after = model.get_layer("predictions").get_weights()
    # Behind a frozen network of random weights features may be nothing: then only the biases move.
    return bool(np.isfinite(loss) and any(np.any(new != old) for new, old in zip(after, before, strict=True)))


# ---------------------------------------------------------------- each kind of network trains

SMALLER = {
    "report/alexnet": ["input_size=75"],
    "small-cnn/best": [],
    "transfer/mobilenet": ["input_size=64"],
    "pretrained/one-conv": [],
}
"""A recipe of four studies, small enough to train in seconds; a step of every other one is taken above."""


@pytest.mark.docs
@pytest.mark.parametrize("recipe", SMALLER)
def test_a_recipe_trains_for_an_epoch(recipe, tmp_path):
    """On a few drawn cells; from random weights, since others must be downloaded."""
    from customcnn.data.manifest import scan
    from customcnn.data.split import shares, split_folder
    from customcnn.data.synthetic import draw_samples
    from customcnn.runs.run_dir import RunDir
    from customcnn.training.train import train

    draw_samples(tmp_path / "cells", subjects=2, cells=4, size=64)
    split_folder(scan(tmp_path / "cells"), tmp_path / "parts", shares(0.5))
    settings = parse_settings(["weights=none", "epochs=1", "batch_size=4", *SMALLER[recipe]])
    chosen = load_recipe(EXPERIMENTS / f"{recipe}.toml", settings)
    result = train(scan(tmp_path / "parts"), RunDir(tmp_path / "run"), chosen)
    assert len(result.history) == 1 and result.run.best.is_file()
