"""Training habits in a whole training: schedules, early stopping, LRA, averages, sampling, weights to begin with.

What the optimizers, losses and penalties do to one step is in test_optimizer.py; schedules and sampling as functions in
tests/recipe; on-line augmentation in tests/augmentation.
"""

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from customcnn.data.manifest import Manifest, scan
from customcnn.errors import CustomCNNError
from customcnn.recipe.monitor import kept_epoch
from customcnn.recipe.schedules import lra, next_rate
from customcnn.runs.run_dir import RunDir
from customcnn.runs.saved_model import load_model, read_info
from customcnn.training.train import TrainResult, train
from tests.support.colors import SIZE, paint, recipe

pytestmark = pytest.mark.kill  # whole training runs, all of them

STUCK = {"optimizer": "sgd", "learning_rate": 1e-12}
"""A training that never gets better after its first epoch."""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Manifest:
    """Two classes of unequal size, 28 images to train and 12 to validate on."""
    sizes = {"train/all": 20, "train/hem": 8, "validation/all": 6, "validation/hem": 6}
    return scan(paint(tmp_path_factory.mktemp("colors") / "data", sizes))


def weights(path: Path) -> list[np.ndarray]:
    return load_model(path, whole=True).get_weights()


def assert_same_run(one: RunDir, other: RunDir) -> None:
    """Hold that two runs agree in their histories and in every weight they keep."""
    assert one.history.read_bytes() == other.history.read_bytes()
    for name in ("last", "best"):
        a, b = (load_model(run.weights(name), whole=True) for run in (one, other))
        pairs = [*zip(a.get_weights(), b.get_weights(), strict=True)]
        pairs += [(x.numpy(), y.numpy()) for x, y in zip(a.optimizer.variables, b.optimizer.variables, strict=True)]
        for x, y in pairs:
            np.testing.assert_array_equal(x, y)


# ---------------------------------------------------------------- each habit goes on where a training broke off


HABITS = {
    "ema and batch norm": {"model": "residual", "ema": 0.9, "optimizer": "adamw", "weight_decay": 0.1},
    "ema": {"ema": 0.9, "momentum": 0.9, "optimizer": "sgd"},
    "batch norm": {"model": "residual", "optimizer": "adamw", "keep": "best-smoothed"},
    "cosine, augmented": {
        "schedule.kind": "cosine",
        "schedule.warmup": 1,
        "optimizer": "adamw",
        "weight_decay": 0.1,
        "augmentation.flip": "both",
        "augmentation.rotate": 30.0,
        "augmentation.brightness": 0.2,
    },
    "lra": {"schedule.kind": "lra", "schedule.threshold": 1.0, "schedule.patience": 0, "learning_rate": 0.02},
    "sampled, focal": {
        "sampling.oversample": "balance",
        "sampling.class_weights": "balanced",
        "loss": "focal",
        "optimizer": "rmsprop",
        "momentum": 0.5,
        "clip_norm": 0.5,
        "l2": 0.01,
    },
}


QUICK = ("ema", "lra")


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.kill) for n in HABITS])
def test_two_epochs_and_two_more_are_four(data, name, tmp_path):
    wanted = recipe(epochs=4, **HABITS[name])
    unbroken = train(data, RunDir(tmp_path / "unbroken"), wanted).run
    broken = RunDir(tmp_path / "broken")

    class Killed(Exception):
        pass

    def kill(line: str) -> None:
        if line.startswith("Epoch 2/"):
            raise Killed

    with contextlib.suppress(Killed):
        train(data, broken, wanted, say=kill)
    assert read_info(broken.last).epoch == 2
    train(data, broken, wanted, resume=True)
    assert_same_run(unbroken, broken)


# ---------------------------------------------------------------- the learning rate


@pytest.mark.parametrize(
    "schedule",
    [
        {"schedule.kind": "step", "schedule.every": 1, "schedule.factor": 0.1},
        {"schedule.kind": "cosine", "schedule.minimum": 1e-5},
        {"schedule.kind": "plateau", "schedule.patience": 0, **STUCK, "learning_rate": 1e-9},
        {"schedule.kind": "constant", "schedule.warmup": 2},
    ],
    ids=lambda schedule: schedule["schedule.kind"],
)
def test_every_epoch_has_the_rate_of_its_schedule(data, schedule, tmp_path):
    wanted = recipe(epochs=3, **schedule)
    history = train(data, RunDir(tmp_path / "run"), wanted).history
    rates = [next_rate(wanted.schedule, wanted.learning_rate, 3, history[:done]) for done in range(3)]
    assert [row["learning_rate"] for row in history] == pytest.approx(rates)
    assert len(set(rates)) > 1


def test_another_number_of_epochs_would_change_the_rates_of_a_cosine(data, tmp_path):
    wanted = recipe(epochs=1, **{"schedule.kind": "cosine"})
    train(data, RunDir(tmp_path / "run"), wanted)
    with pytest.raises(CustomCNNError, match=r"own recipe\. Received: epochs 2 where it was 1"):
        train(data, RunDir(tmp_path / "run"), replace(wanted, epochs=2), resume=True)


# ---------------------------------------------------------------- ends before the last epoch


def test_early_stopping_keeps_the_best_epoch(data, tmp_path):
    lines: list[str] = []
    wanted = recipe(epochs=9, patience=2, **STUCK)
    result = train(data, RunDir(tmp_path / "run"), wanted, say=lines.append)
    assert len(result.history) == 3 and result.best["epoch"] == 1
    assert read_info(result.run.best).epoch == 1
    assert "Stopped after epoch 3 of 9: 2 epochs without a better val_accuracy. The best is epoch 1." in lines
    lines.clear()
    train(data, result.run, wanted, resume=True, say=lines.append)
    assert lines == ["Nothing to do: the training stopped after epoch 3: 2 epochs without a better val_accuracy."]


LRA = {"schedule.kind": "lra", "schedule.threshold": 1.0, "schedule.patience": 0}


def test_lra_halves_the_rate_puts_the_best_weights_back_and_stops(data, tmp_path):
    lines: list[str] = []
    wanted = recipe(epochs=9, **LRA, **{"schedule.stop_patience": 2, **STUCK})
    result = train(data, RunDir(tmp_path / "run"), wanted, say=lines.append)
    assert [row["learning_rate"] for row in result.history] == pytest.approx([1e-12, 1e-12, 5e-13])
    assert lines[-1] == "Stopped after epoch 3 of 9: 2 lower rates in a row did not help. The best is epoch 1."
    assert result.best["epoch"] == 1


def test_lra_puts_the_best_weights_back(data, tmp_path):
    """The rate is so large that the second epoch spoils the first: the third begins with the weights of the first."""
    import keras

    from customcnn.training.callbacks import LearningRate

    begun = {}

    class Look(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            begun[epoch] = self.model.get_weights()

    wanted = recipe(epochs=6, learning_rate=0.3, seed=1, **LRA)
    run = RunDir(tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        look = Look()
        original = LearningRate.on_epoch_begin

        def after(self, epoch, logs=None):
            original(self, epoch, logs)
            look.set_model(self.model)
            look.on_epoch_begin(epoch)

        patch.setattr(LearningRate, "on_epoch_begin", after)
        history = train(data, run, wanted).history
    restored = [
        done for done in range(1, len(history)) if lra(wanted.schedule, wanted.learning_rate, history[:done]).restore
    ]
    assert restored, "the rate is large enough to spoil an epoch"
    first = restored[0]
    best = kept_epoch(history[:first], wanted)
    assert best < first
    shorter = RunDir(tmp_path / "shorter")
    train(data, shorter, replace(wanted, epochs=best))
    for one, other in zip(begun[first], weights(shorter.last), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("answer", "epochs"), [(False, 2), (True, 4)])
def test_lra_asks_whether_to_go_on(data, answer, epochs, tmp_path):
    questions: list[str] = []

    def ask(question: str) -> bool:
        questions.append(question)
        return answer

    wanted = recipe(epochs=4, **LRA, **{"schedule.ask_epoch": 2, "schedule.stop_patience": 9})
    result = train(data, RunDir(tmp_path / "run"), wanted, ask=ask)
    assert questions == ["2 of 4 epochs are trained. Go on?"] and len(result.history) == epochs


@pytest.mark.parametrize("values", [{}, LRA], ids=["another schedule", "not told to"])
def test_nothing_is_asked_where_it_was_not_told_to(data, values, tmp_path):
    def ask(question: str) -> bool:
        raise AssertionError(question)

    train(data, RunDir(tmp_path / "run"), recipe(epochs=2, **values), ask=ask)


# ---------------------------------------------------------------- the moving average


def test_the_average_is_scored_and_kept(data, tmp_path):
    """After one epoch of 3 steps the file holds .5 ^ 2 w1 + .5 ^ 2 w2 + .5 w3, and the optimizer w3."""
    averaged = train(data, RunDir(tmp_path / "a"), recipe(ema=0.5, optimizer="sgd", learning_rate=0.05)).run
    plain = train(data, RunDir(tmp_path / "b"), recipe(optimizer="sgd", learning_rate=0.05)).run
    model = load_model(averaged.last)
    inside = [v.numpy() for v in model.optimizer._model_variables_moving_average]
    for kept, trained in zip(inside, weights(plain.last), strict=True):
        np.testing.assert_allclose(kept, trained, atol=1e-6)
    assert any(np.abs(a - b).max() > 1e-4 for a, b in zip(model.get_weights(), inside, strict=True))
    scores = [run.read_history()[0]["val_loss"] for run in (averaged, plain)]
    assert scores[0] != scores[1]


def test_batch_norm_is_measured_anew_for_the_average(data, tmp_path):
    """The first layer of `residual` normalises the pixels themselves, so its statistics are known by hand.

    Running statistics with a momentum of .99 would still be nearer to 0 and 1, where they begin, after three steps.
    """
    from customcnn.data.pack import find_pack

    run = RunDir(tmp_path / "run")
    train(
        data, run, recipe(model="residual", ema=0.5, batch_size=7, precision="float32")
    )  # 28 images: four batches of one size
    layer = load_model(run.last).get_layer("input_bn")
    packed = find_pack(data, (SIZE, SIZE))
    batches = packed.images[packed.rows("train")] / 255
    np.testing.assert_allclose(layer.moving_mean.numpy(), batches.mean(axis=(0, 1, 2)), atol=1e-5)
    assert layer.momentum == 0.9


@pytest.mark.parametrize(("statistics", "measured"), [("auto", True), ("measured", True), ("moving", False)])
def test_batch_norm_is_measured_anew_where_steps_are_few(data, statistics, measured, tmp_path):
    """As above without an average: after four steps moving averages are not yet what the images are."""
    from customcnn.data.pack import find_pack

    values = {"model": "residual", "batch_size": 7, "precision": "float32", "statistics": statistics}
    result = train(data, RunDir(tmp_path / "run"), recipe(**values))
    packed = find_pack(data, (SIZE, SIZE))
    pixels = packed.images[packed.rows("train")] / 255
    for path in (result.run.last, result.run.best):
        found = load_model(path).get_layer("input_bn").moving_mean.numpy()
        assert np.allclose(found, pixels.mean(axis=(0, 1, 2)), atol=1e-5) is measured
    # What was scored is what is kept.
    model = load_model(result.run.best)
    shares = model.predict(packed.images[packed.rows("validation")], verbose=0)
    right = shares.argmax(axis=1) == packed.labels(["all", "hem"])[packed.rows("validation")]
    assert right.mean() == pytest.approx(result.best["val_accuracy"])


# ---------------------------------------------------------------- which images an epoch takes


@pytest.mark.parametrize(
    ("sampling", "images"),
    [
        ({}, 28),
        ({"sampling.oversample": "2"}, 36),
        ({"sampling.oversample": "balance"}, 40),
        ({"sampling.undersample": 10}, 18),
        ({"sampling.undersample": 5}, 10),
    ],
    ids=str,
)
def test_images_of_an_epoch(data, sampling, images, tmp_path):
    """20 images of the one class and 8 of the other."""
    totals: list[int] = []

    @contextlib.contextmanager
    def progress(total: int, title: str):
        if title.startswith("epoch"):
            totals.append(total)
        yield lambda count: None

    train(data, RunDir(tmp_path / "run"), recipe(**sampling), progress=progress)
    assert totals == [images]


def test_class_weights_turn_the_network_to_the_smaller_class(tmp_path):
    """With 40 images of one class and 4 of the other, weights raise the probability of the rarer one."""
    lopsided = scan(paint(tmp_path / "data", {"train/a": 40, "train/b": 4, "validation/a": 4, "validation/b": 4}))
    means = []
    for weighted in ("none", "balanced"):
        run = RunDir(tmp_path / weighted)
        train(lopsided, run, recipe(**{"sampling.class_weights": weighted, "learning_rate": 1e-4}))
        noise = np.random.default_rng(0).integers(0, 255, (16, SIZE, SIZE, 3)).astype("uint8")
        means.append(float(load_model(run.last).predict_on_batch(noise).mean()))
    assert means[1] > means[0]


# ---------------------------------------------------------------- what a training begins with


@pytest.fixture(scope="module")
def begun(data, tmp_path_factory) -> TrainResult:
    return train(data, RunDir(tmp_path_factory.mktemp("begun") / "run"), recipe(epochs=3))


@pytest.mark.parametrize("name", ["the run", "its file"])
def test_weights_of_a_run(data, begun, name, tmp_path):
    lines: list[str] = []
    source = begun.run.path if name == "the run" else begun.run.best
    result = train(data, RunDir(tmp_path / "run"), recipe(weights=str(source)), say=lines.append)
    assert result.history[0]["val_loss"] < begun.history[0]["val_loss"]
    assert lines[0] == f"Weights: 5 layers from {begun.run.best}."
    noted = json.loads(result.run.environment.read_text())["weights"]
    assert noted["file"] == str(begun.run.best) and len(noted["sha256"]) == 64
    assert noted["layers"] == ["conv1", "conv2", "conv3", "fc1", "predictions"]


def test_weights_of_a_run_with_other_classes(begun, tmp_path):
    """The last layer tells other classes apart: it starts at random, though its shape would fit."""
    lines: list[str] = []
    others = scan(paint(tmp_path / "data", {"train/x": 4, "train/y": 4, "validation/x": 2, "validation/y": 2}))
    run = RunDir(tmp_path / "run")
    train(others, run, recipe(weights=str(begun.run.path), learning_rate=1e-12, optimizer="sgd"), say=lines.append)
    assert lines[0] == f"Weights: 4 layers from {begun.run.best}; new: predictions."
    kernels = [load_model(path).get_layer("conv1").kernel.numpy() for path in (run.last, begun.run.best)]
    np.testing.assert_allclose(*kernels, atol=1e-6)


def test_a_start_on_drawn_cells_is_remembered(data, tmp_path):
    """Whatever it is trained on afterwards, and when it is resumed."""
    drawn = replace(data, records=tuple(replace(r, extra={"origin": "drawn"}) for r in data.records))
    start = train(drawn, RunDir(tmp_path / "start"), recipe()).run
    wanted = recipe(weights=str(start.path))
    run = train(data, RunDir(tmp_path / "run"), wanted).run
    assert read_info(run.last).drawn
    train(data, run, replace(wanted, epochs=2), resume=True)
    assert read_info(run.last).drawn and read_info(run.last).epoch == 2


def test_weights_that_do_not_exist(data, tmp_path):
    with pytest.raises(CustomCNNError, match=r"weights are none, imagenet, a run, .*Received: 'nowhere', which does"):
        train(data, RunDir(tmp_path / "run"), recipe(weights="nowhere"))
    assert not (tmp_path / "run").exists()


def test_weights_of_a_folder_that_is_no_run(data, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(CustomCNNError, match="is a folder made by customcnn train"):
        train(data, RunDir(tmp_path / "run"), recipe(weights=str(tmp_path / "folder")))


def test_weights_of_a_network_that_has_no_such_layer(data, begun, tmp_path):
    with pytest.raises(CustomCNNError, match=r"which shares none with proposed\. Give a run of the same network"):
        train(data, RunDir(tmp_path / "run"), recipe(model="proposed", weights=str(begun.run.path), dropout=0.5))


def test_frozen_layers_stay_as_they_were(data, begun, tmp_path):
    run = RunDir(tmp_path / "run")
    train(data, run, recipe(weights=str(begun.run.path), freeze="all", learning_rate=0.05))
    before, after = load_model(begun.run.best), load_model(run.last)
    for name, moved in {"conv1": False, "conv3": False, "predictions": True}.items():
        kernels = [model.get_layer(name).kernel.numpy() for model in (before, after)]
        assert (np.abs(kernels[0] - kernels[1]).max() > 0) == moved


# ---------------------------------------------------------------- auxiliary classifiers


@pytest.mark.backend
def test_auxiliary_classifiers_are_trained_and_dropped(tmp_path):
    """The saved file goes on with them; whoever scores it sees one output."""
    from customcnn.data.split import shares, split_folder
    from customcnn.data.synthetic import draw_samples
    from customcnn.evaluation.evaluate import evaluate

    draw_samples(tmp_path / "cells", subjects=2, cells=4, size=96)
    split_folder(scan(tmp_path / "cells"), tmp_path / "parts", shares(0.5))
    data = scan(tmp_path / "parts")
    wanted = recipe(model="googlenet", input_size=96, epochs=1, batch_size=4, auxiliary=True, optimizer="adam")
    unbroken = train(data, RunDir(tmp_path / "run"), wanted)
    assert set(unbroken.history[0]) == {"epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"}
    assert len(load_model(unbroken.run.best, whole=True).outputs) == 3
    assert load_model(unbroken.run.best).output_shape == (None, 2)
    found = evaluate(unbroken.run, data, resamples=10).metrics
    assert found["accuracy"]["value"] == pytest.approx(unbroken.best["val_accuracy"])
    train(data, unbroken.run, replace(wanted, epochs=2), resume=True)
    assert len(unbroken.run.read_history()) == 2
