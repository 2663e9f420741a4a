"""Training on a few dozen tiny pictures whose class is their colour: what is learnt, written, resumed and refused."""

import contextlib
import csv
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from customcnn.backend import devices
from customcnn.data.leakage import DRAWN
from customcnn.data.manifest import Manifest, scan, with_group_pattern
from customcnn.recipe.monitor import best_epoch
from customcnn.runs.run_dir import RunDir
from customcnn.runs.saved_model import load_model, read_info, save_model
from customcnn.training.autoencoder import pretrain
from customcnn.training.batches import batches, for_fit, targets
from customcnn.training.train import TrainResult, train
from tests.support.colors import SIZE, paint, recipe
from tests.support.commands import printed
from tests.support.errors import refused
from tests.support.folders import contents, stamps

FILES = {"best.keras", "curves.png", "environment.json", "history.csv", "last.keras", "manifest.csv", "recipe.toml"}
COLUMNS = ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"]


def state(run: RunDir) -> tuple[object, object]:
    """Return what a run holds and when it was written."""
    return contents(run.path), stamps(run.path)


def assert_same_network(first: Path, second: Path) -> None:
    """Hold that two saved networks agree in every weight and in the whole state of their optimizers."""
    assert read_info(first) == read_info(second)
    a, b = load_model(first), load_model(second)
    for one, other in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(a.optimizer.variables, b.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Manifest:
    """Two classes, 32 images to train and 12 to validate on."""
    sizes = {"train/all": 16, "train/hem": 16, "validation/all": 6, "validation/hem": 6}
    return scan(paint(tmp_path_factory.mktemp("colors") / "data", sizes))


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> tuple[TrainResult, list[str]]:
    """One training of four epochs, and what it said."""
    lines: list[str] = []
    run = RunDir(tmp_path_factory.mktemp("trained") / "deep" / "run")
    return train(data, run, recipe(epochs=4), say=lines.append), lines


@pytest.fixture
def a_run(trained, tmp_path) -> RunDir:
    """A copy of that run, to spoil."""
    shutil.copytree(trained[0].run.path, tmp_path / "run")
    return RunDir(tmp_path / "run")


# ---------------------------------------------------------------- what a training leaves


def test_it_learns(trained):
    result, _ = trained
    assert result.best["val_accuracy"] > 0.9
    assert result.history[-1]["loss"] < result.history[0]["loss"] / 2


def test_the_run_holds_the_promised_files_and_no_others(trained, data):
    run = trained[0].run
    assert {path.name for path in run.path.iterdir()} == FILES
    assert run.read_recipe() == recipe(epochs=4)
    assert run.read_manifest().records == data.records
    assert Image.open(run.curves).format == "PNG"
    environment = json.loads(run.environment.read_text())
    about = {"command", "python", "platform", "processor", "cores", "backend", "packages", "data", "images"}
    assert environment.keys() == about
    assert Path(environment["data"]) == data.root.resolve()
    assert environment["packages"]["numpy"] == np.__version__


def test_the_history(trained):
    result, _ = trained
    with result.run.history.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == COLUMNS
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert result.run.read_history() == result.history
    assert result.best == result.history[best_epoch(result.history, "val_accuracy") - 1]


def test_what_the_networks_carry(trained):
    result, _ = trained
    last, best = read_info(result.run.last), read_info(result.run.best)
    assert (last.model, last.classes, last.input_size, last.positive) == ("small", ["all", "hem"], (SIZE, SIZE), "all")
    assert (last.epoch, last.history, last.drawn) == (4, result.history, False)
    assert best.epoch == result.best["epoch"]
    assert best.history == result.history[: best.epoch]


def test_best_is_the_network_of_the_best_epoch(trained, data):
    result, _ = trained
    images = np.stack([np.asarray(Image.open(data.root / r.path)) for r in data.part("validation").records])
    labels = np.array([[float(r.label == "hem")] for r in data.part("validation").records])
    for path in (result.run.best, result.run.last):
        row = result.history[read_info(path).epoch - 1]
        loss, accuracy = load_model(path).evaluate(images, labels, verbose=0)
        assert loss == pytest.approx(row["val_loss"], rel=1e-4)
        assert accuracy == row["val_accuracy"]


def test_what_it_says(trained):
    result, lines = trained
    assert len(lines) == 4, lines
    number = r"\d+\.\d{4}"
    for epoch, line in enumerate(lines, start=1):
        scores = f"loss {number}  accuracy {number}  val_loss {number}  val_accuracy {number}"
        assert re.fullmatch(rf"Epoch {epoch}/4  {scores}  \([\d,]+ images/s\)", line)
    assert result.notes == [] and not result.leakage.groups_known


@pytest.mark.parametrize("resume", [False, True])
def test_the_global_generators_are_as_before(data, tmp_path, resume):
    """Python's, NumPy's, and Keras's with its backend: what a user draws next does not depend on a training."""
    import random

    import keras

    def drawn() -> list[float]:
        return [random.random(), np.random.rand(), *np.ravel(keras.random.normal((2,))), *backend_draw()]

    def backend_draw() -> list[float]:
        if devices.backend() != "tensorflow":
            return []
        import tensorflow as tf

        return tf.random.normal((2,)).numpy().tolist()

    run = RunDir(tmp_path / "run")
    if resume:
        train(data, run, recipe())
    keras.utils.set_random_seed(7)
    expected = [drawn(), drawn()]
    keras.utils.set_random_seed(7)
    found = [drawn()]
    train(data, run, recipe(epochs=1 + resume), resume=resume)
    load_model(run.best)
    found.append(drawn())
    assert found == expected


def test_the_global_precision_is_as_before(trained):
    import keras

    assert keras.config.dtype_policy().name == "float32"


# ---------------------------------------------------------------- the seed, and going on


CASES = {
    "adam, dropout": {"dropout": 0.5},
    "momentum, dropout, bfloat16": {
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "momentum": 0.9,
        "dropout": 0.25,
        "precision": "bfloat16",
        "monitor": "val_loss",
    },
}


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory) -> Callable[[str], RunDir]:
    """A function that gives the four epochs of a case, trained in one go."""

    @cache
    def of(case: str) -> RunDir:
        return train(data, RunDir(tmp_path_factory.mktemp("unbroken") / "run"), recipe(epochs=4, **CASES[case])).run

    return of


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.kill] if "momentum" in case else []) for case in CASES]
)
def test_two_epochs_and_two_more_are_four(data, unbroken, case, tmp_path):
    whole, run, lines = unbroken(case), RunDir(tmp_path / "run"), []
    train(data, run, recipe(epochs=2, **CASES[case]))
    assert len(run.read_history()) == 2
    assert whole.history.read_bytes().startswith(run.history.read_bytes()), "the same seed, another history"
    train(data, run, recipe(epochs=4, **CASES[case]), resume=True, say=lines.append)
    assert lines[0] == "Resuming after epoch 2 of 4."
    assert run.history.read_bytes() == whole.history.read_bytes()
    assert run.read_recipe().epochs == 4
    assert_same_network(run.last, whole.last)
    assert_same_network(run.best, whole.best)
    assert {path.name for path in run.path.iterdir()} == FILES


@contextlib.contextmanager
def stopping_progress(total: int, label: str):
    """Press Ctrl-C in the middle of the third epoch."""
    done = 0

    def advance(n: int) -> None:
        nonlocal done
        done += n
        if label.startswith("epoch 3/") and done == 20:
            raise KeyboardInterrupt

    yield advance


def test_stopped_in_the_middle_of_an_epoch(data, trained, tmp_path):
    run, whole = RunDir(tmp_path / "run"), trained[0].run
    with pytest.raises(KeyboardInterrupt):
        train(data, run, recipe(epochs=4), progress=stopping_progress)
    assert [row["epoch"] for row in run.read_history()] == [1, 2]
    assert {path.name for path in run.path.iterdir()} == FILES - {"curves.png"}
    train(data, run, recipe(epochs=4), resume=True)
    assert run.history.read_bytes() == whole.history.read_bytes()
    assert_same_network(run.last, whole.last)


def test_killed_between_its_files(data, unbroken, tmp_path):
    """Killed right after last.keras was written: best.keras is one epoch behind or missing, history.csv too."""
    whole = unbroken("momentum, dropout, bfloat16")
    assert read_info(whole.best).epoch == 4
    shutil.copytree(whole.path, tmp_path / "run")
    run = RunDir(tmp_path / "run")
    run.best.unlink()
    run.write_history(run.read_history()[:3])
    (run.path / ".best.keras.partial").write_text("x")
    lines: list[str] = []
    train(data, run, run.read_recipe(), resume=True, say=lines.append)
    assert lines == ["Nothing to do: 4 epochs are trained."]
    assert run.history.read_bytes() == whole.history.read_bytes()
    assert run.best.samefile(run.last)
    assert {path.name for path in run.path.iterdir()} == FILES


def test_every_dropout_and_every_epoch_has_a_seed_of_its_own():
    import keras

    from customcnn.training.callbacks import EpochSeeds

    image = keras.Input((4,))
    inner = keras.Model(image, keras.layers.Dropout(0.5)(image))
    model = keras.Model(image, keras.layers.Dropout(0.5)(inner(image)))
    states = [v for v in model.variables if "seed" in v.name]

    def begin(seed: int, epoch: int) -> list[list[int]]:
        callback = EpochSeeds(seed)
        callback.set_model(model)
        callback.on_epoch_begin(epoch)
        return [np.asarray(state.value).tolist() for state in states]

    assert len(states) == 2
    first, again, second, other = begin(120, 0), begin(120, 0), begin(120, 1), begin(121, 0)
    assert first == again
    assert len({state[0] for state in first + second + other}) == 6
    assert {state[1] for state in first + second} == {0}


@pytest.mark.parametrize("epochs", [4, 2])
def test_a_finished_run_is_left_alone(data, a_run, epochs):
    files, times, lines = contents(a_run.path), stamps(a_run.path), []
    result = train(data, a_run, recipe(epochs=epochs), resume=True, say=lines.append)
    assert lines == ["Nothing to do: 4 epochs are trained."]
    assert contents(a_run.path) == files
    now = stamps(a_run.path)
    assert now["last.keras"] == times["last.keras"] and now["best.keras"] == times["best.keras"]
    assert len(result.history) == 4


def test_resume_starts_over_where_no_epoch_has_ended(data, trained, tmp_path):
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    run.recipe.write_text(recipe(epochs=9).to_toml())
    for resume in (True, False):
        run.history.unlink(missing_ok=True)
        run.best.unlink(missing_ok=True)
        run.last.unlink(missing_ok=True)
        (run.path / "stale").touch()
        lines: list[str] = []
        result = train(data, run, recipe(), resume=resume, say=lines.append)
        assert result.history == trained[0].history[:1]
        assert f"No epoch has ended in {str(run.path)!r}: it is begun anew." in lines
        assert {path.name for path in run.path.iterdir()} == FILES


def test_resume_refuses_a_run_whose_last_network_is_lost(data, a_run):
    """Else epoch 4's best became epoch 1's, and the history went."""
    a_run.last.unlink()
    before = state(a_run)
    assert refused(train, data, a_run, recipe(epochs=5), resume=True) == (
        f"A run is resumed from its last.keras. Received: {str(a_run.path)!r}, which holds best.keras, history.csv but "
        f"not that. Begin a new run from it, --set weights={a_run.path} and another --out, or --replace it."
    )
    assert state(a_run) == before


def test_resume_refuses_images_that_were_replaced_under_their_names(data, a_run, tmp_path):
    """Another time alone is none: a folder that is copied has the same images."""
    shutil.copytree(data.root, tmp_path / "copy")
    copy = scan(tmp_path / "copy")
    for path in copy.root.rglob("*.bmp"):
        os.utime(path, (1, 1))
    train(copy, a_run, recipe(epochs=4), resume=True)
    before = state(a_run)
    shutil.copy(copy.root / "train/all/0.bmp", copy.root / "train/hem/0.bmp")
    assert refused(train, copy, a_run, recipe(epochs=5), resume=True) == (
        f"A run is resumed on its own images. Received: {str(copy.root)!r}, where images have changed since "
        f"{str(a_run.path)!r} began. Put them back, or choose another --out."
    )
    assert state(a_run) == before


def test_keys_that_may_change(data, a_run):
    train(data, a_run, recipe(epochs=3, device="cpu", tensorboard=True), resume=True)


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("seed", 121, "seed 121 where it was 120"),
        ("batch_size", 5, "batch_size 5 where it was 10"),
        ("optimizer", "sgd", "optimizer 'sgd' where it was 'adam'"),
        ("precision", "bfloat16", "precision 'bfloat16' where it was 'auto'"),
        ("monitor", "loss", "monitor 'loss' where it was 'val_accuracy'"),
        ("positive", "all", "positive 'all' where it was ''"),
        ("input_size", 24, "input_size 24 where it was 22"),
    ],
)
def test_resume_refuses_another_recipe(data, a_run, key, value, text):
    before = state(a_run)
    expected = (
        f"A run is resumed with its own recipe. Received: {text}. To train its network on in another way, begin a new "
        f"run from it: --set weights={a_run.path} and another --out."
    )
    assert refused(train, data, a_run, recipe(epochs=4, **{key: value}), resume=True) == expected
    assert state(a_run) == before


def test_resume_refuses_other_images(data, a_run, tmp_path):
    before = state(a_run)
    other = scan(paint(tmp_path / "other", {"train/all": 2, "train/hem": 2, "validation/all": 1, "validation/hem": 1}))
    assert refused(train, other, a_run, recipe(epochs=5), resume=True) == (
        f"A run is resumed on its own images. Received: {str(other.root)!r}, not as in {str(a_run.manifest)!r}. "
        "Choose another --out."
    )
    grouped = with_group_pattern(data, r"(\d)\.bmp")
    assert "A run is resumed on its own images." in refused(train, grouped, a_run, recipe(epochs=5), resume=True)
    assert state(a_run) == before


def test_resume_refuses_other_classes(a_run, tmp_path):
    other = scan(paint(tmp_path / "other", {"train/a": 2, "train/b": 2, "validation/a": 1, "validation/b": 1}))
    assert "A run is resumed on its own images." in refused(train, other, a_run, recipe(epochs=5), resume=True)
    a_run.manifest.unlink()
    assert refused(train, other, a_run, recipe(epochs=5), resume=True) == (
        f"A run is resumed with its own network and classes. Received: {str(a_run.last)!r} of small for 'all', 'hem'. "
        "Choose another --out."
    )


def test_resume_refuses_a_damaged_network(data, a_run):
    a_run.last.write_bytes(a_run.last.read_bytes()[:1000])
    message = refused(train, data, a_run, recipe(epochs=5), resume=True)
    assert message.startswith(f"A saved network is a .keras file written by customcnn. Received: {str(a_run.last)!r} (")


def test_resume_refuses_a_folder_that_is_no_run(data, tmp_path):
    (tmp_path / "thesis.txt").write_text("x")
    expected = f"--resume goes on with a run. Received: {str(tmp_path)!r}, which is none."
    assert refused(train, data, RunDir(tmp_path), recipe(), resume=True).startswith(expected)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


# ---------------------------------------------------------------- a run in the way


def test_one_training_at_a_time(data, a_run):
    """Also --resume and --replace, and what is combined into the run."""
    before = state(a_run)
    with a_run.locked():
        for options in ({}, {"resume": True}, {"replace_run": True}):
            message = refused(train, data, a_run, recipe(epochs=5), **options)
            assert message.startswith(f"A run is written by one process at a time. Received: {str(a_run.path)!r}")
        assert "at a time" in refused(pretrain, data, a_run, recipe(monitor="val_loss"), replace_run=True)
    assert state(a_run) == before


def test_a_run_inside_its_data(data, monkeypatch):
    monkeypatch.chdir(data.root)
    here = scan(Path())
    assert refused(train, here, RunDir(Path("runs/small")), recipe()) == (
        "Results lie outside the folder of the images. Received: 'runs/small' inside '.'. "
        "Choose another --out, such as '../small'."
    )
    assert not (data.root / "runs").exists()


def test_a_run_in_the_way(data, a_run):
    before = state(a_run)
    assert refused(train, data, a_run, recipe()) == (
        f"Run {str(a_run.path)!r} exists. Use --resume to go on with it, or --replace to delete it."
    )
    assert state(a_run) == before


def test_replace_deletes_the_run(data, a_run):
    (a_run.path / "predictions.csv").write_text("of the old network")
    train(data, a_run, recipe(), replace_run=True)
    assert {path.name for path in a_run.path.iterdir()} == FILES
    assert len(a_run.read_history()) == 1


def test_replace_deletes_runs_only(data, tmp_path):
    (tmp_path / "thesis.txt").write_text("x")
    assert refused(train, data, RunDir(tmp_path), recipe(), replace_run=True) == (
        f"--replace deletes runs only. Received: {str(tmp_path)!r}, which is no run (it has no recipe.toml). "
        "Choose another --out."
    )
    assert (tmp_path / "thesis.txt").exists()


@pytest.mark.parametrize("replace_run", [False, True])
def test_a_file_in_the_way(data, tmp_path, replace_run):
    path = tmp_path / "run"
    path.write_text("x")
    expected = f"A run is a folder. Received: {str(path)!r}, which is a file. Choose another --out."
    assert refused(train, data, RunDir(path), recipe(), replace_run=replace_run) == expected


@pytest.mark.parametrize("values", [{"input_size": 21}, {"loss": "categorical_crossentropy"}])
def test_replace_keeps_the_old_run_where_the_new_one_cannot_begin(data, a_run, values):
    before = state(a_run)
    refused(train, data, a_run, recipe(**values), replace_run=True)
    assert state(a_run) == before


# ---------------------------------------------------------------- data and recipes that do not fit


def test_no_validation_part(tmp_path):
    data = scan(paint(tmp_path / "data", {"train/all": 2, "train/hem": 2}))
    assert refused(train, data, RunDir(tmp_path / "run"), recipe()) == (
        f"Training needs train and validation folders. Received: {str(tmp_path / 'data')!r} without validation. "
        "Make them with customcnn split."
    )
    data = scan(paint(tmp_path / "whole", {"all": 2, "hem": 2}))
    assert "without train. Make them" in refused(train, data, RunDir(tmp_path / "run"), recipe())
    assert not (tmp_path / "run").exists()


def test_one_class(tmp_path):
    data = scan(paint(tmp_path / "data", {"train/all": 2, "validation/all": 2}))
    assert refused(train, data, RunDir(tmp_path / "run"), recipe()) == (
        f"Classification needs at least two classes. Received: {str(tmp_path / 'data')!r}, 'all' only. "
        "Put the images of each class into a folder of its own."
    )


def test_a_class_without_training_images(tmp_path):
    data = scan(paint(tmp_path / "data", {"train/all": 2, "train/hem": 2, "validation/hem": 2, "validation/new": 2}))
    assert refused(train, data, RunDir(tmp_path / "run"), recipe()) == (
        f"Every class has training images. Received: {str(tmp_path / 'data')!r}, where only the validation part has "
        "'new'. Split it again."
    )


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (
            {"loss": "categorical_crossentropy"},
            "The loss fits the output: binary_crossentropy for the 1 sigmoid output of small. "
            "Received: categorical_crossentropy. Use loss=auto.",
        ),
        ({"positive": "blast"}, "The positive class is one of two. Received: 'blast' for the classes 'all', 'hem'."),
        (
            {"input_size": 21},
            "small needs an input of at least 22 x 22 pixels. Received: 21 x 21. Give a larger input_size or "
            "choose residual.",
        ),
    ],
)
def test_recipes_that_do_not_fit_leave_nothing_behind(data, tmp_path, values, text):
    assert refused(train, data, RunDir(tmp_path / "run"), recipe(**values)) == text
    assert not list(tmp_path.iterdir())


def test_a_gpu_where_there_is_none(data, tmp_path):
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        pytest.skip("there is a GPU")
    assert refused(train, data, RunDir(tmp_path / "run"), recipe(device="gpu")) == (
        "--device gpu needs a GPU that tensorflow can use. Received: none is visible. Use --device cpu, or install "
        "the backend's GPU build (customcnn[gpu] for TensorFlow)."
    )
    assert not list(tmp_path.iterdir())


def test_tensorboard_is_not_installed(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert refused(train, data, RunDir(tmp_path / "run"), recipe(tensorboard=True)) == (
        "tensorboard=true needs the tensorboard package. Received: none. Install customcnn[tensorboard]."
    )
    assert not list(tmp_path.iterdir())


def test_an_image_that_is_none(tmp_path):
    data = scan(paint(tmp_path / "data", {"train/all": 2, "train/hem": 2, "validation/all": 1, "validation/hem": 1}))
    (tmp_path / "data" / "train" / "all" / "1.bmp").write_text("x")
    assert "1.bmp', not an image of a known format." in refused(train, data, RunDir(tmp_path / "run"), recipe())
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------- a loss that is not a number


class Bars:
    """A progress that remembers its bars: label, total, what was done, whether it was closed."""

    def __init__(self) -> None:
        self.drawn: list[list] = []

    @contextlib.contextmanager
    def __call__(self, total: int, label: str):
        bar = [label, total, 0, False]
        self.drawn.append(bar)

        def advance(n: int) -> None:
            bar[2] += n

        try:
            yield advance
        finally:
            bar[3] = True


def test_nan_after_a_good_epoch_keeps_its_networks(data, a_run):
    spoil_optimizer(a_run)
    files, times = contents(a_run.path), stamps(a_run.path)
    message = refused(train, data, a_run, recipe(epochs=6), resume=True)
    assert re.fullmatch(
        r"The loss stays a finite number\. Received: (nan|inf) at step [23] of epoch 5\. "
        r"Lower --set learning_rate or use --precision float32, and --replace the run\.",
        message,
    )
    now = stamps(a_run.path)
    for name in ("last.keras", "best.keras"):
        assert now[name] == times[name]
    for name in ("last.keras", "best.keras", "history.csv"):
        assert contents(a_run.path)[name] == files[name]


def test_nan_that_only_validation_sees(data, tmp_path):
    """One step an epoch: its loss is that before the step, and the broken weights meet the validation part first."""
    run, bars = RunDir(tmp_path / "run"), Bars()
    message = refused(train, data, run, recipe(batch_size=32, optimizer="sgd", learning_rate=1e38), progress=bars)
    assert re.fullmatch(
        r"The loss stays a finite number\. Received: (nan|inf) on the validation part after epoch 1\. "
        r"Lower --set learning_rate or use --precision float32, and --replace the run\.",
        message,
    )
    assert not run.last.exists() and not run.best.exists() and not run.history.exists()
    assert bars.drawn[-1][0] == "epoch 1/1" and all(closed for *_, closed in bars.drawn)


def spoil_optimizer(run: RunDir) -> None:
    """Make the next step of a run a leap into nowhere."""
    model = load_model(run.last)
    for variable in model.optimizer.variables:
        if "momentum" in variable.path:
            variable.assign(np.full(variable.shape, 1e38))
    save_model(model, read_info(run.last), run.last)


# ---------------------------------------------------------------- further ways to train


def test_shared_groups_and_drawn_cells_are_said(data, tmp_path):
    shared = with_group_pattern(data, r"/(\d+)\.bmp")
    drawn = replace(shared, records=tuple(replace(r, extra={"origin": "drawn"}) for r in shared.records))
    lines: list[str] = []
    result = train(drawn, RunDir(tmp_path / "run"), recipe(), say=lines.append)
    warning = (
        "Inflated by leakage: 12 of 12 validation images belong to 6 groups that the network was trained on. "
        "Split by group for a score that holds for new ones."
    )
    assert result.notes == [warning, DRAWN]
    assert lines[:2] == [f"Warning: {warning}", f"Warning: {DRAWN}"]
    assert read_info(result.run.last).drawn
    assert result.leakage.shared_groups == 6


def test_train_and_evaluate_recognise_subjects_and_names_of_splits(make_folder, tmp_path, shell):
    cells = {
        f"{part}/{label}": [f"UID_{subject}_{n}_1_{label}.bmp" for n in (1, 2)]
        for part in ("TRAIN", "val")
        for label, subject in (("all", "1"), ("hem", "H1"))
    }
    root = make_folder(cells, size=SIZE)
    words = ["train", root, "--model", "small", "--set", f"input_size={SIZE}", "--epochs", 1, "--out", tmp_path / "run"]
    told = "Warning: Inflated by leakage: 4 of 4 validation images belong to 2 groups that the network was trained on."
    assert told in printed(*shell(*words, "-q"))[1]
    assert told in printed(*shell("evaluate", tmp_path / "run", root, "--no-report", "--resamples", 20))[1]


def test_groups_that_are_not_shared_another_positive_class_and_another_seed(data, trained, tmp_path):
    apart = with_group_pattern(data, r"^(train|validation)/")
    lines: list[str] = []
    result = train(apart, RunDir(tmp_path / "run"), recipe(positive="hem", seed=1), say=lines.append)
    assert result.notes == [] and result.leakage.groups_known
    assert not [line for line in lines if "Warning" in line]
    assert read_info(result.run.last).positive == "hem"
    assert result.history[0]["loss"] != trained[0].history[0]["loss"]


def test_three_classes_a_size_of_two_numbers_and_converted_images(tmp_path):
    names = {f"{part}/{label}": 3 for part in ("train", "validation") for label in "abc"}
    root = paint(tmp_path / "data", names)
    for name in ("train/a/0.bmp", "validation/b/1.bmp"):
        Image.open(root / name).convert("L").save(root / name)
    lines: list[str] = []
    run = RunDir(tmp_path / "run")
    result = train(scan(root), run, recipe(input_size=(22, 24), epochs=2, dropout=0.5), say=lines.append)
    assert [line for line in lines if "onverted" in line] == ["Note: converted to 8-bit RGB: 2 of mode L."]
    info = read_info(result.run.best)
    assert (info.classes, info.input_size, info.positive) == (["a", "b", "c"], (22, 24), "")
    model = load_model(run.best)
    assert (model.input_shape, model.output_shape) == ((None, 22, 24, 3), (None, 3))
    assert [layer.rate for layer in model.layers if "dropout" in layer.name] == [0.5]
    positive = recipe(positive="a")
    assert refused(train, scan(root), RunDir(tmp_path / "other"), positive) == (
        "The positive class is one of two. Received: 'a' for the classes 'a', 'b', 'c'."
    )
    binary = recipe(loss="binary_crossentropy")
    assert "The loss fits the output: categorical_crossentropy for the 3 softmax outputs of small." in refused(
        train, scan(root), RunDir(tmp_path / "other"), binary
    )


def test_the_precision_is_kept_in_the_network(unbroken):
    for case, policy in zip(CASES, (devices.dtype_policy("auto", "cpu"), "mixed_bfloat16"), strict=True):
        model = load_model(unbroken(case).last, whole=True)
        assert model.get_layer("conv1").dtype_policy.name == policy
        assert {weight.dtype for weight in model.weights} == {"float32"}


def test_resume_where_there_is_nothing_tensorboard_logs_and_bars(data, tmp_path):
    run, bars = RunDir(tmp_path / "run"), Bars()
    run.path.mkdir()
    (run.path / ".recipe.toml.partial").write_text("left by a kill")
    train(data, run, recipe(tensorboard=True, epochs=2), resume=True, progress=bars)
    assert {path.name for path in run.path.iterdir()} == FILES | {"logs"}
    for part in ("train", "validation"):
        (events,) = (run.logs / part).iterdir()
        assert events.stat().st_size > 100
    assert [bar for bar in bars.drawn if bar[0] != "pack"] == [["epoch 1/2", 32, 32, True], ["epoch 2/2", 32, 32, True]]


# ---------------------------------------------------------------- batches and targets


def epoch_of(dataset) -> list[list[int]]:
    """Return the rows of each batch; the images here hold their own number."""
    return [images[:, 0, 0, 0].tolist() for images, _ in (dataset[i] for i in range(len(dataset)))]


@pytest.fixture(scope="module")
def numbered() -> tuple[np.ndarray, np.ndarray]:
    images = np.zeros((50, 2, 2, 3), np.uint8) + np.arange(50, dtype=np.uint8)[:, None, None, None]
    return images, np.arange(50, dtype=np.float32)[:, None]


@given(st.sets(st.integers(0, 49), min_size=1), st.integers(1, 60), st.one_of(st.none(), st.integers(0, 2**32 - 1)))
def test_every_row_once_an_epoch(numbered, rows, batch_size, seed):
    dataset = batches(*numbered, np.array(sorted(rows)), batch_size, seed)
    for _ in range(2):
        found = epoch_of(dataset)
        assert sorted(row for batch in found for row in batch) == sorted(rows)
        assert [len(batch) for batch in found[:-1]] == [batch_size] * (len(found) - 1)
        assert all(batch == sorted(batch) for batch in found)
        dataset.on_epoch_end()


def test_targets_go_with_their_images(numbered):
    dataset = batches(*numbered, np.arange(50), 7, 3)
    for index in range(len(dataset)):
        images, wanted = dataset[index]
        assert images.dtype == np.uint8 and wanted.dtype == np.float32
        np.testing.assert_array_equal(images[:, 0, 0, 0], wanted[:, 0])


def test_epochs_differ_in_order_and_do_not_depend_on_what_came_before(numbered):
    rows = np.arange(50)
    dataset = batches(*numbered, rows, 10, 120)
    first = epoch_of(dataset)
    assert epoch_of(dataset) == first, "reading changes nothing"
    dataset.on_epoch_end()
    second = epoch_of(dataset)
    assert second != first
    np.random.seed(0)
    later = batches(*numbered, rows, 10, 120)
    later.epoch = 1
    assert epoch_of(later) == second
    assert epoch_of(batches(*numbered, rows, 10, 121)) != first


def test_without_a_seed_the_order_is_kept(numbered):
    dataset = batches(*numbered, np.array([3, 1, 2]), 2, None)
    assert epoch_of(dataset) == [[1, 3], [2]]
    dataset.on_epoch_end()
    assert epoch_of(dataset) == [[1, 3], [2]]


@pytest.mark.skipif(devices.backend() != "tensorflow", reason="elsewhere fit reads the batches themselves")
def test_tensorflow_reads_the_same_batches_and_tunes_nothing(numbered):
    """A thread that tunes sleeps, and is waited for at the end of an epoch."""
    dataset = batches(*numbered, np.arange(50), 7, 3, outputs=2)
    made = for_fit(dataset)
    assert made.options().autotune.enabled is False
    assert int(made.cardinality()) == len(dataset) == 8
    assert made.element_spec[0].shape[0] is None
    for epoch in (0, 3):
        dataset.epoch = epoch
        for (images, wanted), (own, own_wanted) in zip(made, (dataset[i] for i in range(8)), strict=True):
            np.testing.assert_array_equal(images, own)
            assert images.dtype == "uint8"
            for one, other in zip(wanted, own_wanted, strict=True):
                np.testing.assert_array_equal(one, other)


def test_every_epoch_has_the_order_of_its_own_number(data, tmp_path, monkeypatch):
    """Keras ends an epoch that never was before the first one; that must not be counted."""
    from customcnn.training import classification as module

    read = []

    def watched(images, wanted, rows, batch_size, seed, **named):
        dataset = batches(images, wanted, rows, batch_size, seed, **named)
        inputs = type(dataset).inputs

        def noted(self, parts, index):
            if seed is not None:
                read.append(self.epoch)
            return inputs(self, parts, index)

        type(dataset).inputs = noted
        return dataset

    monkeypatch.setattr(module, "batches", watched)
    train(data, RunDir(tmp_path / "run"), recipe(epochs=3))
    assert read[-12:] == [0] * 4 + [1] * 4 + [2] * 4  # 32 images in batches of 10


@pytest.mark.skipif(devices.backend() != "tensorflow", reason="elsewhere fit reads the batches themselves")
def test_a_training_reads_them_so(data, tmp_path, monkeypatch):
    import keras

    seen = []
    fit = keras.Model.fit

    def watched(model, x, **named):
        seen.extend([x, named["validation_data"]])
        return fit(model, x, **named)

    monkeypatch.setattr(keras.Model, "fit", watched)
    train(data, RunDir(tmp_path / "run"), recipe())
    assert [read.options().autotune.enabled for read in seen] == [False, False]


def test_targets_by_hand():
    labels = np.array([1, 0, 1], dtype=np.int64)
    one = targets(labels, 2, 1)
    np.testing.assert_array_equal(one, np.array([[1], [0], [1]], np.float32))
    two = targets(labels, 2, 2)
    np.testing.assert_array_equal(two, np.array([[0, 1], [1, 0], [0, 1]], np.float32))
    assert one.dtype == two.dtype == np.float32
    np.testing.assert_array_equal(targets(np.array([2, 0]), 3, 3), [[0, 0, 1], [1, 0, 0]])


# ---------------------------------------------------------------- devices


@pytest.mark.parametrize(
    ("precision", "device", "policy"),
    [
        ("float32", "cpu", "float32"),
        ("float32", "gpu", "float32"),
        ("bfloat16", "cpu", "mixed_bfloat16"),
        ("float16", "gpu", "mixed_float16"),
    ],
)
def test_policies(precision, device, policy):
    assert devices.dtype_policy(precision, device) == policy


def test_tensorflows_own_warnings_are_silenced():
    """Scoring a few networks in one process, as the demo does, would print a paragraph about retracing for each."""
    devices.configure("cpu")
    assert not logging.getLogger("tensorflow").isEnabledFor(logging.WARNING)
    assert logging.getLogger("tensorflow").isEnabledFor(logging.ERROR)


def test_a_process_without_an_error_stream(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert devices.configure("cpu") == "cpu"


@pytest.mark.backend
def test_a_file_of_settings_for_an_older_keras_changes_nothing(tmp_path, shell):
    old = {"floatx": "float64", "epsilon": 1e-07, "backend": "tensorflow", "image_data_format": "channels_first"}
    (tmp_path / "keras.json").write_text(json.dumps(old))
    words = ["summary", "small", "--input-size", "22"]
    environment = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-m", "customcnn", *words],
        env={**environment, "KERAS_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == shell(*words)


def test_a_file_of_settings_with_a_backend_of_the_past_is_named(tmp_path):
    (tmp_path / "keras.json").write_text('{"backend": "theano"}')
    environment = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-m", "customcnn", "summary", "small"],
        env={**environment, "KERAS_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        rf"Error: Keras reads its settings from a file\. Received: '{tmp_path}/keras.json' \([^\n]*theano[^\n]*\)\. "
        r"Delete it if it is older than Keras 3, or set KERAS_BACKEND to tensorflow, jax or torch\.\n",
        done.stderr,
    )


def test_a_backend_that_is_not_installed(tmp_path):
    command = [sys.executable, "-m", "customcnn", "summary", "small"]
    environment = os.environ | {"KERAS_BACKEND": "nonsense"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        r"Error: KERAS_BACKEND names an installed backend\. Received: 'nonsense' \([^\n]*\)\. "
        r"Install it, or set KERAS_BACKEND to tensorflow, jax or torch\.\n",
        done.stderr,
    )
