"""The scikit-learn estimator: its contract, the tools it is used with, and what it makes of images of every kind."""

import copy
import json
import os
import pickle
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import sklearn
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import check_estimator

from customcnn.data.manifest import scan
from customcnn.errors import CustomCNNError
from customcnn.estimator import ImageClassifier, InvalidInput, levels
from customcnn.inference.classifier import Classifier
from customcnn.recipe.recipe import load_recipe
from customcnn.runs.run_dir import RunDir
from customcnn.training.train import train
from tests.support import ROOT
from tests.support.colors import SIZE
from tests.support.errors import refused

RECIPE = {"optimizer": "adam", "precision": "float32"}
QUICK = {"model": "one-conv", "input_size": 8, "epochs": 2, "batch_size": 8, "random_state": 0, "recipe": RECIPE}


def network(**options) -> ImageClassifier:
    """Return the network that is quickest to train."""
    return ImageClassifier(**{**QUICK, **options})


@pytest.fixture(scope="module")
def images() -> tuple[np.ndarray, np.ndarray]:
    """24 pictures, uint8 (24, H, W, 3), whose label is their colour: red or green."""
    pixels = np.random.default_rng(0).integers(0, 100, (24, SIZE, SIZE, 3), dtype=np.uint8)
    labels = np.array(["red", "green"] * 12)
    pixels[labels == "red", ..., 0] += 120
    pixels[labels == "green", ..., 1] += 120
    return pixels, labels


@pytest.fixture(scope="module")
def fitted(images) -> ImageClassifier:
    """A network that has learned them."""
    return network(epochs=6, learning_rate=0.01).fit(*images)


@pytest.fixture(scope="module")
def paths(images, tmp_path_factory) -> list[Path]:
    """The same pictures as files."""
    folder = tmp_path_factory.mktemp("files")
    for place, pixels in enumerate(images[0]):
        Image.fromarray(pixels).save(folder / f"{place}.png")
    return [folder / f"{place}.png" for place in range(len(images[0]))]


def test_it_explains_what_it_says(fitted, images, paths):
    pixels = images[0]
    found = fitted.explain(pixels[0])
    assert (found.label, found.heat.shape) == (fitted.predict(pixels[:1])[0], fitted.network_.info.input_size)
    assert found.probabilities == dict(zip(fitted.classes_, fitted.predict_proba(pixels[:1])[0], strict=True))
    np.testing.assert_array_equal(fitted.explain(paths[0]).heat, found.heat)
    other = fitted.explain(pixels[0], "green", "occlusion")
    assert (other.label, other.method) == ("green", "occlusion")
    with pytest.raises(ValueError, match=r"Received: 'blue'; it knows 'green', 'red'"):
        fitted.explain(pixels[0], "blue")
    with pytest.raises(ValueError, match="One image is explained at a time"):
        fitted.explain(pixels)


def test_probabilities_of_nan_are_refused(fitted, images):
    broken = copy.deepcopy(fitted)
    weight = broken.network_.model.weights[-1]
    weight.assign(weight * np.nan)
    with pytest.raises(ValueError, match="NaN or infinite ones for 24 of 24 images"):
        broken.predict(images[0])


# ---------------------------------------------------------------- what it learns and says


def test_it_learns_and_predicts(fitted, images):
    pixels, labels = images
    assert fitted.classes_.tolist() == ["green", "red"]
    shares = fitted.predict_proba(pixels)
    assert (shares.dtype, shares.shape) == (np.float64, (24, 2))
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-9)
    assert fitted.predict(pixels).tolist() == fitted.classes_[shares.argmax(axis=1)].tolist()
    assert fitted.score(pixels, labels) == 1
    assert len(fitted.history_) == 6 and 1 <= fitted.best_epoch_ <= 6
    assert not hasattr(fitted, "n_features_in_"), "images have no columns"


@pytest.mark.statistics
def test_it_is_the_network_of_train(images, tmp_path):
    """The same images, parts and recipe through the package's own way give the same probabilities."""
    pixels, labels = images
    held = np.arange(24) >= 16
    for place, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        folder = tmp_path / "data" / ("validation" if held[place] else "train") / label
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{place:02}.png")
    # The order of the images within a class folder, and so in a batch, is another: one batch, whose sum has no order.
    recipe = load_recipe(
        None,
        {"model": "one-conv", "input_size": 8, "epochs": 2, "batch_size": 16, "seed": 0, **RECIPE},
    )
    run = RunDir(tmp_path / "run")
    train(scan(tmp_path / "data"), run, recipe)
    mine = network(batch_size=16).fit(pixels[~held], labels[~held], validation=(pixels[held], labels[held]))
    theirs = [list(found.probabilities.values()) for found in Classifier(run).predict(pixels)]
    np.testing.assert_allclose(mine.predict_proba(pixels), theirs, atol=1e-4)
    assert [row["val_accuracy"] for row in mine.history_] == [row["val_accuracy"] for row in run.read_history()]


@pytest.mark.statistics
@pytest.mark.parametrize("names", [(7, -3), (True, False), ("1", "0")])
def test_labels_keep_their_type_and_order(images, names):
    pixels, labels = images
    y = np.array([names[0] if label == "red" else names[1] for label in labels])
    found = network(epochs=4, learning_rate=0.01).fit(pixels, y)
    np.testing.assert_array_equal(found.classes_, np.unique(y))
    assert found.predict(pixels).dtype == y.dtype and found.score(pixels, y) == 1


@pytest.mark.statistics
def test_eleven_classes_stay_in_order():
    """As text, class 10 would come before class 2."""
    pixels = np.repeat(np.arange(11, dtype=np.uint8) * 20, 4)[:, None, None].repeat(SIZE, 1).repeat(SIZE, 2)
    y = np.repeat(np.arange(11), 4)
    found = network(epochs=1).fit(pixels, y)
    assert found.predict_proba(pixels[:3]).shape == (3, 11)
    assert [int(name) for name in found.network_.info.classes] == [*range(11)]


@pytest.mark.statistics
def test_the_same_state_gives_the_same_network(images):
    pixels, labels = images
    one, same, other = (network(random_state=seed).fit(pixels, labels).predict_proba(pixels) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_the_global_generators_are_left_alone(images):
    np.random.seed(8)
    expected = np.random.rand(3)
    np.random.seed(8)
    network(epochs=1).fit(*images)
    np.testing.assert_array_equal(np.random.rand(3), expected)


@pytest.mark.statistics
def test_without_a_state_each_fit_is_another(images):
    pixels, labels = images
    np.random.seed(1)
    one, other = (network(random_state=None, epochs=1).fit(pixels, labels).predict_proba(pixels) for _ in range(2))
    assert not np.array_equal(one, other)


# ---------------------------------------------------------------- the ways in


def test_images_of_every_kind_give_the_same_answer(fitted, images, paths):
    wanted = fitted.predict_proba(images[0])
    opened = [Image.open(path) for path in paths]
    ways = [paths, [str(path) for path in paths], np.array([str(path) for path in paths]), opened]
    ways += [[path.read_bytes() for path in paths], [*images[0]]]
    for way in ways:
        np.testing.assert_array_equal(fitted.predict_proba(way), wanted)


@pytest.mark.statistics
def test_files_and_arrays_train_the_same_network(images, paths):
    pixels, labels = images
    by_files = network().fit(paths, labels)
    np.testing.assert_array_equal(by_files.predict_proba(paths), network().fit(pixels, labels).predict_proba(pixels))
    assert all(path.is_file() for path in paths)


@pytest.mark.statistics
def test_a_table_is_images_where_their_shape_is_known(images):
    pixels, labels = images
    table = pixels.reshape(24, -1)
    found = network(image_shape=(SIZE, SIZE, 3)).fit(table, labels)
    assert found.n_features_in_ == SIZE * SIZE * 3
    np.testing.assert_array_equal(found.predict_proba(table), network().fit(pixels, labels).predict_proba(pixels))
    shares = network(image_shape=(SIZE, SIZE, 3), value_range=(-1, 1)).fit(table / 127.5 - 1, labels)
    np.testing.assert_array_equal(shares.predict_proba(table / 127.5 - 1), found.predict_proba(table))


@pytest.mark.statistics
def test_grey_images(images):
    pixels, labels = images
    grey = pixels[..., 0]  # red is bright here
    wanted = network(epochs=4, learning_rate=0.01).fit(grey, labels)
    assert wanted.score(grey, labels) == 1
    np.testing.assert_array_equal(wanted.predict_proba(grey[..., None]), wanted.predict_proba(grey))
    table = network(epochs=4, learning_rate=0.01, image_shape=(SIZE, SIZE)).fit(grey.reshape(24, -1), labels)
    np.testing.assert_array_equal(table.predict_proba(grey.reshape(24, -1)), wanted.predict_proba(grey))


def test_images_of_several_sizes(fitted, images):
    large = [np.kron(image, np.ones((1 + place % 3, 2, 1), np.uint8)) for place, image in enumerate(images[0])]
    assert fitted.score(large, images[1]) == 1


def test_levels_by_hand():
    found = levels(np.array([[0.0, 8.0, 16.0, 4.0]]), (0, 16))
    assert found.dtype == np.uint8 and found.tolist() == [[0, 128, 255, 64]]  # 127.5 is rounded to even
    same = np.arange(256, dtype=np.uint8)
    assert levels(same, None) is same
    np.testing.assert_array_equal(levels(same.astype(float), (0, 255)), same)


# ---------------------------------------------------------------- what is held out


@pytest.mark.statistics
def test_groups_are_held_out_whole(images, monkeypatch):
    seen = []

    def spy(data, run, recipe, **options):
        seen.append(data)
        return train(data, run, recipe, **options)

    monkeypatch.setattr("customcnn.estimator.train", spy)
    pixels, labels = images
    groups = np.arange(24) // 4  # each of both classes
    network(epochs=1, validation_fraction=0.3).fit(pixels, labels, groups=groups)
    sides = {"train": set(), "validation": set()}
    for record, group in zip(seen[0].records, groups, strict=True):
        sides[record.split].add(int(group))
    assert len(sides["validation"]) == 2 and not sides["train"] & sides["validation"]
    network(epochs=1, validation_fraction=0.25).fit(pixels, labels)
    assert seen[1].counts() == {("train", "0"): 9, ("train", "1"): 9, ("validation", "0"): 3, ("validation", "1"): 3}


# ---------------------------------------------------------------- what is refused


invalid = partial(refused, raises=InvalidInput, match="Received: ")


def test_what_is_invalid_is_an_error_for_scikit_learn_too():
    assert issubclass(InvalidInput, ValueError) and issubclass(InvalidInput, CustomCNNError)


def test_other_numbers_than_levels_are_refused(images):
    pixels, labels = images
    message = invalid(network().fit, pixels / 255, labels)
    assert message.startswith("Pixels are uint8, 0 to 255. Received: float64.") and "value_range" in message
    assert "Pixels lie in value_range. Received: " in invalid(network(value_range=(0, 1)).fit, pixels, labels)
    assert "the low one first" in invalid(network(value_range=(1, 0)).fit, pixels, labels)
    assert "value_range" in invalid(network(value_range=(0, 1)).fit, np.where(pixels > 9, np.nan, 0.5), labels)


@pytest.mark.parametrize("shape", [(24, 4, 4, 4), (24, 2, 4, 4, 3), (24, 0, 4, 3)])
def test_other_shapes_are_refused(images, shape):
    assert "Images are (N, H, W, 3)" in invalid(network().fit, np.zeros(shape, np.uint8), images[1])


def test_a_table_without_a_fitting_shape_is_refused(images):
    table = np.zeros((24, 12), np.uint8)
    assert "Give image_shape=(H, W)" in invalid(network().fit, table, images[1])
    for shape in ((3, 5), (12,), (2, 2, 2, 3), (2, 3, 2)):
        assert "image_shape" in invalid(network(image_shape=shape).fit, table, images[1])


def test_labels_that_do_not_fit_are_refused(images):
    pixels, labels = images
    assert "y is None" in invalid(network().fit, pixels, None)
    assert "two classes or more" in invalid(network().fit, pixels, ["red"] * 24)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        network().fit(pixels, labels[:-1])
    with pytest.raises(ValueError, match="Unknown label type"):
        network().fit(pixels, np.linspace(0, 1, 24))
    rare = np.array(["red"] * 23 + ["green"])
    assert "Received: n_samples=1 of class green" in invalid(network().fit, pixels, rare)
    strange = network().fit
    assert "Received: blue too" in invalid(strange, pixels, labels, validation=(pixels[:2], ["red", "blue"]))


def test_groups_that_do_not_fit_are_refused(images):
    pixels, labels = images
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        network().fit(pixels, labels, groups=[1, 2])
    assert "Every part needs a group of every class" in invalid(network().fit, pixels, labels, groups=[0] * 24)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"model": "smal"}, "Did you mean small"),
        ({"epochs": 0}, "Recipe key epochs: 1 or more"),
        ({"recipe": {"epoch": 3}}, "Received: 'epoch' in ImageClassifier. Did you mean epochs?"),
        ({"validation_fraction": 1}, "validation_fraction lies between 0 and 1"),
        ({"input_size": 3}, "needs an input of at least"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_wrong_parameters_are_refused_when_fitted(images, options, reason):
    assert reason in invalid(network(**options).fit, *images)


def test_files_that_are_none_are_refused(paths, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    labels = ["red", "green"] * 2
    assert "Check its name" in invalid(network().fit, [*paths[:3], tmp_path / "nowhere.png"], labels)
    assert "not an image" in invalid(network().fit, [*paths[:3], tmp_path / "text.png"], labels)
    assert "Put it into a list" in invalid(network().fit, str(paths[0]), labels)


def test_it_must_be_fitted_first(images):
    with pytest.raises(NotFittedError):
        network().predict(images[0])


# ---------------------------------------------------------------- the tools it is used with


def test_clone_and_parameters(fitted):
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params() and not hasattr(copy, "classes_")
    assert copy.set_params(epochs=9).get_params()["epochs"] == 9
    assert set(ImageClassifier().get_params()) >= {"model", "epochs", "random_state", "image_shape"}


def test_a_pickle_gives_the_same_answers(fitted, images):
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(images[0]), fitted.predict_proba(images[0]))
    assert again.classes_.tolist() == fitted.classes_.tolist()


@pytest.mark.statistics
def test_cross_validation_by_group(images, paths):
    """Every fold is trained anew, on the images of the other groups alone."""
    labels, groups = images[1], np.arange(24) // 4
    scores = cross_val_score(network(epochs=4, learning_rate=0.01), paths, labels, groups=groups, cv=GroupKFold(3))
    assert scores.shape == (3,) and scores.mean() > 0.9


@pytest.mark.statistics
def test_groups_reach_the_fit_by_metadata_routing(images, monkeypatch):
    seen = []
    parts = ImageClassifier._parts

    def spy(self, numbers, groups, seed):
        seen.append(np.asarray(groups))
        return parts(self, numbers, groups, seed)

    monkeypatch.setattr(ImageClassifier, "_parts", spy)
    groups = np.arange(24) // 4
    with sklearn.config_context(enable_metadata_routing=True):
        estimator = network(epochs=1).set_fit_request(groups=True)
        cross_val_score(estimator, *images, params={"groups": groups}, cv=GroupKFold(2))
    assert len(seen) == 2 and not set(seen[0]) & set(seen[1])


@pytest.mark.statistics
def test_a_grid_search_over_parameters_and_recipe_keys(images):
    grid = {"learning_rate": np.array([1e-9, 0.01]), "recipe": [RECIPE]}
    search = GridSearchCV(network(epochs=5), grid, cv=2).fit(*images)
    assert search.best_params_["learning_rate"] == 0.01 and search.best_score_ > 0.9
    assert search.predict(images[0]).shape == (24,)


@pytest.mark.statistics
def test_in_a_pipeline(images):
    pixels, labels = images
    steps = [("half", FunctionTransformer(lambda x: x[:, ::2, ::2])), ("net", network(learning_rate=0.01))]
    found = Pipeline(steps).set_params(net__epochs=5).fit(pixels, labels)
    assert found.score(pixels, labels) == 1 and found.named_steps["net"].epochs == 5


@pytest.mark.statistics
def test_it_reads_the_digits_of_scikit_learn():
    """Real data, a table of floats from 0 to 16: after some epochs most digits are read."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    X, y = load_digits(n_class=4, return_X_y=True)
    X, new, y, known = train_test_split(X, y, random_state=0)
    reader = network(image_shape=(8, 8), value_range=(0, 16), epochs=6, batch_size=32, learning_rate=0.01).fit(X, y)
    assert reader.score(new, known) > 0.9


# ---------------------------------------------------------------- scikit-learn's own checks


def test_scikit_learn_runs_no_check_on_what_takes_no_table():
    """Its checks feed tables; the tags say that this one takes none, so that only its cloning is looked at."""
    with pytest.warns(sklearn.exceptions.SkipTestWarning, match="Can't test estimator ImageClassifier"):
        done = check_estimator(ImageClassifier())
    assert [(row["check_name"], row["status"]) for row in done] == [("check_estimator_cloneable", "passed")]


WITHOUT_DATA = (
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
    "check_no_attributes_set_in_init",
    "check_mixin_order",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_parameters_default_constructible",
    "check_get_params_invariance",
    "check_set_params",
)


@pytest.mark.parametrize("name", WITHOUT_DATA)
def test_checks_that_need_no_data(name):
    getattr(estimator_checks, name)("ImageClassifier", ImageClassifier())


@pytest.mark.statistics
def test_checks_of_scikit_learn_on_tables():
    """All that the checks ask of a classifier, on tables as they feed them. None is expected to fail."""
    # The checks are of the estimator, not of the backend: torch needs no tracing, which is most of so short a training.
    backend = "torch" if find_spec("torch") else "tensorflow"
    environment = {**os.environ, "KERAS_BACKEND": backend, "SCIPY_ARRAY_API": "1", "PYTHONWARNINGS": "ignore"}
    environment["OMP_NUM_THREADS"] = "1"  # several threads only wait for each other at networks so small
    program = [sys.executable, "-m", "tests.programs.estimator_checks"]
    done = subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads(done.stdout.partition("CHECKS ")[2])
    assert len(rows) > 50
    assert not [row for row in rows if row["status"] != "passed"]
