"""Ensembles: the weighted mean by hand, what the run holds, what counts as trained on, and what is refused."""

import csv
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from customcnn.backend import devices
from customcnn.data.leakage import run_notes
from customcnn.data.manifest import Manifest, Record, scan
from customcnn.data.split import check_files
from customcnn.evaluation.evaluate import evaluate
from customcnn.inference.classifier import predict, probabilities
from customcnn.models import build_model
from customcnn.recipe.recipe import Recipe
from customcnn.runs.run_dir import RunDir
from customcnn.runs.saved_model import ModelInfo, load_model, read_info, save_model
from customcnn.training.ensemble import Member, ensemble, soft_vote, union, weighed
from customcnn.visualize import visualize_run
from tests.support.colors import SIZE, paint
from tests.support.commands import error_line, printed
from tests.support.errors import refused

LARGER = SIZE + 9
FILES = {"best.keras", "environment.json", "manifest.csv", "members.csv", "recipe.toml"}


@cache
def network(name: str = "small", size: int = SIZE, seed: int = 0, classes: int = 2):
    import keras

    devices.configure("cpu")
    keras.utils.set_random_seed(seed)
    return build_model(name, classes=classes, input_size=size)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Manifest:
    """Eight images to train and four to validate on, with hashes."""
    sizes = {"train/all": 4, "train/hem": 4, "validation/all": 2, "validation/hem": 2}
    return check_files(scan(paint(tmp_path_factory.mktemp("colors") / "data", sizes)))[0]


def make_run(path: Path, data: Manifest, *, model="small", size=SIZE, seed=0, accuracy=0.5, **changes) -> RunDir:
    """Write what a training of two epochs leaves, with weights as they begin; best.keras is of the first epoch."""
    run = RunDir(path)
    path.mkdir(parents=True)
    history = [{"epoch": n, "val_loss": 1.0, "val_accuracy": a} for n, a in ((1, accuracy), (2, accuracy / 2))]
    info = ModelInfo(model, ["all", "hem"], (size, size), "hem", data.drawn, 1, history[:1])
    info = replace(info, **changes)
    classes = len(info.classes) or 2
    save_model(network(model, size, seed, classes), info, run.best)
    save_model(network(model, size, seed + 100, classes), replace(info, epoch=2, history=history), run.last)
    data.write(run.manifest)
    run.recipe.write_text(Recipe(model).to_toml())
    return run


@pytest.fixture(scope="module")
def members(data, tmp_path_factory) -> list[RunDir]:
    """One sigmoid output, two softmax outputs, and one sigmoid output of a larger input."""
    folder = tmp_path_factory.mktemp("members")
    return [
        make_run(folder / "one", data, accuracy=0.9, sides=(30, 40)),
        make_run(folder / "two", data, model="one-conv", accuracy=0.6, sides=(20, 30)),
        make_run(folder / "three", data, size=LARGER, seed=3, accuracy=0.5, sides=(35, 35)),
    ]


@pytest.fixture(scope="module")
def combined(members, tmp_path_factory) -> RunDir:
    """The ensemble of the three."""
    run = RunDir(tmp_path_factory.mktemp("combined") / "deep" / "run")
    ensemble(members, run)
    return run


def pictures(size: int, count: int = 3) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


# ---------------------------------------------------------------- the network


def constant(probabilities: list[float], name: str):
    """Return a network with the same output for every image."""
    import keras

    image = keras.Input((4, 4, 3), name="image")
    pooled = keras.layers.GlobalAveragePooling2D()(image)
    dense = keras.layers.Dense(len(probabilities), name="predictions")
    model = keras.Model(image, dense(pooled), name=name)
    dense.set_weights([np.zeros((3, len(probabilities))), np.array(probabilities)])
    return model


def test_the_weighted_mean_by_hand():
    model = soft_vote([constant([0.8], "sigmoid"), constant([0.6, 0.4], "softmax")], [0.75, 0.25], (4, 4))
    found = np.asarray(model.predict_on_batch(pictures(4)))
    # .75 x (.2, .8) + .25 x (.6, .4)
    np.testing.assert_allclose(found, [[0.3, 0.7]] * 3, atol=1e-6)
    assert (model.name, found.dtype) == ("ensemble", np.float32)
    names = [layer.name for layer in model.layers if layer.name.startswith(("image", "member", "predictions"))]
    assert names == ["image", "member1_sigmoid", "member2_softmax", "predictions"]


def test_a_member_of_two_sigmoid_outputs_counts_with_shares_that_sum_to_one():
    import keras

    image = keras.Input((4, 4, 3), name="image")
    dense = keras.layers.Dense(2, activation="sigmoid", name="predictions")
    sigmoids = keras.Model(image, dense(keras.layers.GlobalAveragePooling2D()(image)), name="sigmoids")
    dense.set_weights([np.zeros((3, 2)), np.log(np.array([0.6 / 0.4, 0.2 / 0.8]))])  # .6 and .2: shares of .75 and .25
    model = soft_vote([sigmoids, constant([0.5, 0.5], "softmax")], [0.4, 0.6], (4, 4))
    np.testing.assert_allclose(np.asarray(model.predict_on_batch(pictures(4))), [[0.6, 0.4]] * 3, atol=1e-6)


def test_members_of_one_size_are_averaged_exactly():
    models = [network(seed=1), network(seed=2), network("one-conv", seed=3)]
    images, weights = pictures(SIZE), [0.5, 0.3, 0.2]
    wanted = sum(w * probabilities(model, images) for w, model in zip(weights, models, strict=True))
    np.testing.assert_allclose(probabilities(soft_vote(models, weights, (SIZE, SIZE)), images), wanted, atol=1e-6)


def test_a_smaller_member_sees_a_smooth_image():
    """The columns of the image are black and white by turns: halved without averaging it would be one of the two."""
    import keras

    model = soft_vote([network(size=2 * SIZE), network()], [0.5, 0.5], (2 * SIZE, 2 * SIZE))
    small = keras.Model(model.inputs[0], model.get_layer("member2_resize").output)
    stripes = np.zeros((1, 2 * SIZE, 2 * SIZE, 3), dtype=np.uint8)
    stripes[:, :, ::2] = 255
    seen = np.asarray(small.predict_on_batch(stripes))
    assert seen.shape == (1, SIZE, SIZE, 3)
    np.testing.assert_allclose(seen[:, :, 1:-1], 127.5, atol=0.01)  # at the borders a weight is missing
    flat = np.full((1, 2 * SIZE, 2 * SIZE, 3), 77, dtype=np.uint8)
    wanted = (probabilities(network(size=2 * SIZE), flat) + probabilities(network(), flat[:, :SIZE, :SIZE])) / 2
    np.testing.assert_allclose(probabilities(model, flat), wanted, atol=1e-5)


# ---------------------------------------------------------------- weights


def with_accuracies(*values: float | None) -> list[Member]:
    rows = [{"epoch": 1, "val_accuracy": value} if value is not None else {"epoch": 1} for value in values]
    info = ModelInfo("small", ["a", "b"], (SIZE, SIZE), "b", epoch=1)
    return [Member(RunDir(Path(f"r{n}")), Path("x"), replace(info, history=[row])) for n, row in enumerate(rows)]


def test_weights_by_hand():
    assert [member.weight for member in weighed(with_accuracies(0.9, 0.6), "validation")] == pytest.approx([0.6, 0.4])
    assert [member.weight for member in weighed(with_accuracies(0.9, None), "equal")] == [0.5, 0.5]
    assert [member.weight for member in weighed(with_accuracies(0.5, 0.0), "validation")] == [1.0, 0.0]


def test_weights_that_cannot_be_had():
    for values, text in (
        ((0.5, None, None), "'r1', 'r2' without one"),
        ((0.0, 0.0), "0 for every one"),
    ):
        assert refused(weighed, with_accuracies(*values), "validation") == (
            f"Members are weighed by their validation accuracy. Received: {text}. Use --weigh equal."
        )


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=9))
def test_weights_sum_to_one(values):
    shares = [member.weight for member in weighed(with_accuracies(*values), "validation")]
    assert sum(shares) == pytest.approx(1)
    assert shares[np.argmax(values)] == max(shares)


# ---------------------------------------------------------------- the run


def test_what_the_run_holds(combined, members, data):
    assert {path.name for path in combined.path.iterdir()} == FILES
    with (combined.path / "members.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["run", "model", "epoch", "val_accuracy", "weight"]
    assert [row["run"] for row in rows] == [str(run.path) for run in members]
    assert [(row["model"], row["epoch"], row["val_accuracy"]) for row in rows] == [
        ("small", "1", "0.9"),
        ("one-conv", "1", "0.6"),
        ("small", "1", "0.5"),
    ]
    assert [float(row["weight"]) for row in rows] == pytest.approx([0.45, 0.3, 0.25])
    info = read_info(combined.best)
    assert info == ModelInfo("ensemble", ["all", "hem"], (LARGER, LARGER), "hem", history=[], sides=(20, 40))
    assert combined.read_manifest().records == data.records
    recipe = combined.read_recipe()
    assert (recipe.model, recipe.input_size, recipe.positive) == ("ensemble", (LARGER, LARGER), "hem")
    assert "learning_rate" not in combined.recipe.read_text()


def test_plain_keras_loads_it(combined, members):
    import keras

    images = pictures(LARGER)
    found = keras.models.load_model(combined.best).predict_on_batch(images)
    np.testing.assert_allclose(np.asarray(found).sum(axis=1), 1, atol=1e-6)
    loaded = [load_model(run.best) for run in members]
    again = soft_vote(loaded, [0.45, 0.3, 0.25], (LARGER, LARGER)).predict_on_batch(images)
    np.testing.assert_allclose(np.asarray(found), np.asarray(again), atol=1e-6)


def test_the_last_networks(members, tmp_path):
    found = ensemble(members, RunDir(tmp_path / "last"), weights="last", weigh="equal")
    assert [(member.info.epoch, member.accuracy) for member in found] == [(2, 0.45), (2, 0.3), (2, 0.25)]
    images = pictures(LARGER)
    one, two = (load_model(RunDir(path).best) for path in (tmp_path / "last", members[0].path.parents[0] / "one"))
    assert one.get_layer("member1_small").get_weights()[0].shape == two.get_weights()[0].shape
    assert not np.array_equal(one.get_layer("member1_small").get_weights()[0], two.get_weights()[0])
    assert probabilities(one, images).shape == (3, 2)


@pytest.mark.kill
def test_evaluate_predict_and_visualize(combined, data, tmp_path):
    result = evaluate(combined, data, resamples=20, out=tmp_path / "scores")
    assert result.metrics["model"] == "ensemble"
    assert result.metrics["images"] == 4
    assert result.metrics["chosen_on_this_part"] is True
    file = data.root / data.records[0].path
    (found,) = predict(combined, [file])
    assert sum(found.probabilities.values()) == pytest.approx(1)
    page = visualize_run(combined, [file], out=tmp_path / "maps")
    names = [path.name for path in sorted(page.parent.glob("*.png"))]
    assert names[2] == "01_member1_small_conv1.png"
    assert any("member2_one-conv" in name for name in names) and any("member3_small" in name for name in names)


@pytest.mark.parametrize(
    ("weigh", "weights", "monitor", "chosen"),
    [
        ("validation", "last", "loss", True),
        ("equal", "best", "val_loss", True),
        ("equal", "best", "loss", False),
        ("equal", "last", "val_loss", False),
    ],
)
def test_whether_the_validation_part_chose(members, tmp_path, weigh, weights, monitor, chosen):
    runs = []
    for run in members[:2]:
        shutil.copytree(run.path, tmp_path / run.path.name)
        runs.append(RunDir(tmp_path / run.path.name))
        runs[-1].recipe.write_text(Recipe("small", monitor=monitor).to_toml())
    ensemble(runs, RunDir(tmp_path / "out"), weigh=weigh, weights=weights)
    # What `evaluate` looks at to say that the validation part chose.
    assert RunDir(tmp_path / "out").read_recipe().monitor.startswith("val_") is chosen


def test_an_ensemble_of_ensembles(combined, members, tmp_path):
    out = RunDir(tmp_path / "twice")
    assert "Use --weigh equal." in refused(ensemble, [combined, members[0]], out)
    ensemble([combined, members[0]], out, weigh="equal")
    images = pictures(LARGER)
    small = soft_vote([load_model(combined.best), network()], [0.5, 0.5], (LARGER, LARGER))
    np.testing.assert_allclose(probabilities(load_model(out.best), images), probabilities(small, images), atol=1e-6)


# ---------------------------------------------------------------- what it was trained on


def test_an_ensemble_of_folds_was_trained_on_everything(data, tmp_path):
    """Each of two folds trains on the other half: no image is new to both, and every score says so."""
    folds = []
    for number in (0, 1):
        records = [
            replace(r, split="train" if n % 2 == number else "validation", group=f"g{n}")
            for n, r in enumerate(data.records)
        ]
        folds.append(make_run(tmp_path / f"fold{number}", replace(data, records=tuple(records)), seed=number))
    out = RunDir(tmp_path / "all")
    ensemble(folds, out)
    trained = out.read_manifest()
    assert len(trained.records) == len(data.records)
    assert trained.parts == ["train"]
    assert run_notes(trained) == []
    for part, count in (("train", 8), ("validation", 4)):
        leakage = evaluate(out, data, part=part, resamples=5).leakage
        assert (leakage.images, leakage.identical_files) == (count, count)
        assert leakage.warning.startswith("Inflated by leakage: ")


def manifest(*rows: tuple[str, str, str] | tuple[str, str, str, str]) -> Manifest:
    """Return a manifest of rows (path, part, hash, group)."""
    records = [Record(path, "a", *group, split=part, sha256=hash_) for path, part, hash_, *group in rows]
    return Manifest(Path("x"), tuple(records))


def places(found: Manifest) -> dict[str, str]:
    return {record.path: record.split for record in found.records}


def test_union_by_hand():
    # The same file under other names is one image; what one member trained on is not new to the ensemble.
    one = manifest(("train/a/1", "train", "h1"), ("validation/a/2", "validation", "h2"), ("test/a/3", "test", "h3"))
    two = manifest(("train/a/2", "train", "h2"), ("validation/a/3", "validation", "h3"), ("test/a/4", "test", "h4"))
    assert places(union([one, two])) == {
        "train/a/1": "train",
        "validation/a/2": "train",
        "train/a/2": "train",
        "test/a/3": "validation",
        "validation/a/3": "validation",
        "test/a/4": "test",
    }


def test_union_of_different_images_with_one_name():
    # As where the members saw the same photographs cropped in two ways.
    one, two = manifest(("a/1", "train", "h1", "g1")), manifest(("a/1", "validation", "h2", "g2"))
    found = union([one, two])
    assert places(found) == {"a/1": "train", "member2/a/1": "validation"}
    assert [record.group for record in found.records] == ["g1", "g2"]


def test_union_where_hashes_or_groups_are_known_to_one_member_only():
    one, two = manifest(("a/1", "validation", "h1", "")), manifest(("a/1", "train", "", "g"))
    for order in ((one, two), (two, one)):
        (record,) = union(order).records
        assert (record.split, record.group) == ("train", "g")


@given(
    st.lists(
        st.dictionaries(st.sampled_from("abcd"), st.sampled_from(["train", "validation", "test"]), min_size=1),
        min_size=1,
        max_size=4,
    ),
    st.booleans(),
)
def test_union_counts_what_any_member_was_trained_on(parts, hashed):
    manifests = [manifest(*((path, part, f"h{path}" * hashed) for path, part in each.items())) for each in parts]
    found = places(union(manifests))
    order = ["train", "validation", "test"]
    for path in {path for each in parts for path in each}:
        assert found[path] == min((each[path] for each in parts if path in each), key=order.index)
    assert list(found) == sorted(found)


def test_drawn_carries_over(members, data, tmp_path):
    drawn = replace(data, records=tuple(replace(r, extra={"origin": "drawn"}) for r in data.records))
    run = make_run(tmp_path / "drawn", drawn, seed=9)
    ensemble([members[0], run], RunDir(tmp_path / "out"))
    assert read_info(tmp_path / "out" / "best.keras").drawn is True
    assert evaluate(RunDir(tmp_path / "out"), data, resamples=5).metrics["drawn"] is True


# ---------------------------------------------------------------- what is refused


def test_members_that_are_no_ensemble(members, tmp_path):
    one, out = members[0], RunDir(tmp_path / "out")
    for runs in ([one], [one, RunDir(one.path / ".." / one.path.name)]):
        assert refused(ensemble, runs, out).startswith("An ensemble has two members or more, each once. Received: ")
    assert refused(ensemble, [one, RunDir(tmp_path / "none")], out) == (
        f"A run is a folder made by customcnn train. Received: {str(tmp_path / 'none')!r}."
    )
    assert not out.path.exists()


def test_members_of_other_classes(members, data, tmp_path):
    other = make_run(tmp_path / "other", data, classes=["all", "blast"], positive="blast")
    assert refused(ensemble, [members[0], other], RunDir(tmp_path / "out")) == (
        "The members of an ensemble have the same classes. Received: 'all', 'hem' in "
        f"{str(members[0].path)!r} and 'all', 'blast' in {str(other.path)!r}. Leave one of them out."
    )


def test_members_of_an_older_release_may_have_the_other_positive_class(members, data, tmp_path):
    newer = make_run(tmp_path / "newer", data, positive="all")
    ensemble([members[0], newer], RunDir(tmp_path / "out"))
    assert read_info(RunDir(tmp_path / "out").best).positive == "all"


def test_an_auto_encoder_is_no_member(members, data, tmp_path):
    other = make_run(tmp_path / "other", data, classes=[], positive="", model="small")
    assert refused(ensemble, [other, members[0]], RunDir(tmp_path / "out")) == (
        f"A trained classifier is needed. Received: {str(other.best)!r}, an auto-encoder. "
        "Train a classifier from it: customcnn train --weights RUN."
    )


def test_what_is_in_the_way(members, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    out = RunDir(tmp_path / "out")
    assert refused(ensemble, members, out) == f"Run {str(out.path)!r} exists. Use --replace to delete it."
    assert refused(ensemble, members, out, replace_run=True).startswith("--replace deletes runs only.")
    assert (tmp_path / "out" / "mine.txt").read_text() == "x"
    for place in (members[1].path, members[1].path.parent):
        message = refused(ensemble, members, RunDir(place), replace_run=True)
        assert message.startswith("An ensemble is written beside its members. Received: ")
    assert members[1].best.is_file()


def test_replace(members, tmp_path, data):
    out = make_run(tmp_path / "run", data)
    (out.path / "old.txt").write_text("x")
    ensemble(members, out, replace_run=True)
    assert {path.name for path in out.path.iterdir()} == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


# ---------------------------------------------------------------- the command


def test_the_command(members, tmp_path, shell):
    words = ["ensemble", *(run.path for run in members), "--out", tmp_path / "out"]
    output, _ = printed(*shell(*words))
    lines = output.splitlines()
    assert lines[0].split() == ["run", "network", "epoch", "validation", "accuracy", "weight"]
    assert lines[1].split() == [str(members[0].path), "small", "1", "0.9000", "0.4500"]
    assert lines[-1] == f"Run: {tmp_path / 'out'}"
    assert error_line(*shell(*words)) == f"Run {str(tmp_path / 'out')!r} exists. Use --replace to delete it."


@pytest.mark.backend
def test_networks_of_every_kind(data, tmp_path):
    """A backbone of keras.applications, AlexNet with its small models inside, and one sigmoid."""
    kinds = [("mobilenetv2", 32), ("alexnet", 67), ("small", 40)]
    runs = [make_run(tmp_path / name, data, model=name, size=size) for name, size in kinds]
    out = RunDir(tmp_path / "out")
    ensemble(runs, out)
    images = pictures(67)
    wanted = probabilities(load_model(runs[1].best), images)
    model = load_model(out.best)
    np.testing.assert_allclose(model.get_layer("member2_alexnet").predict_on_batch(images), wanted, atol=1e-6)
    np.testing.assert_allclose(probabilities(model, images).sum(axis=1), 1, atol=1e-6)
    assert evaluate(out, data, resamples=5).metrics["images"] == 4
    page = visualize_run(out, [data.root / data.records[0].path], out=tmp_path / "maps")
    assert {path.name.split("_")[1] for path in page.parent.glob("*_member*")} == {f"member{n}" for n in (1, 2, 3)}
