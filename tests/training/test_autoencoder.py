"""Auto-encoders: their shape for every network, what they learn and from what, and that they are no classifiers."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from customcnn.backend import devices
from customcnn.data.manifest import Manifest, scan
from customcnn.evaluation.evaluate import evaluate
from customcnn.inference.classifier import predict
from customcnn.models import build_model, get_spec, list_models
from customcnn.recipe.recipe import Recipe
from customcnn.runs.run_dir import RunDir
from customcnn.runs.saved_model import load_model, read_info
from customcnn.training.autoencoder import DECODER, autoencoder, autoencoder_recipe, pretrain, write_reconstructions
from customcnn.training.ensemble import ensemble
from customcnn.training.train import TrainResult, train
from customcnn.visualize import visualize_run
from tests.support.colors import SIZE, paint, recipe
from tests.support.commands import printed
from tests.support.errors import refused

pytestmark = pytest.mark.kill  # whole training runs, nearly all of them

FILES = {
    *("best.keras", "curves.png", "environment.json", "history.csv", "last.keras", "manifest.csv", "recipe.toml"),
    "reconstructions.png",
}
FROM_SCRATCH = [spec for spec in list_models() if "head" not in spec.options]
OTHERS = [get_spec(name) for name in ("mobilenetv2", "efficientnetb0", "inceptionv3")]


def settings(**values: object) -> Recipe:
    """Return a recipe for the network that is quickest to train."""
    return autoencoder_recipe({"model": "small", "input_size": SIZE, "batch_size": 10, "epochs": 2, **values})


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Manifest:
    """Two classes, 32 images to train and 12 to validate on."""
    sizes = {"train/all": 16, "train/hem": 16, "validation/all": 6, "validation/hem": 6}
    return scan(paint(tmp_path_factory.mktemp("colors") / "data", sizes))


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> TrainResult:
    """One auto-encoder of three epochs."""
    return pretrain(data, RunDir(tmp_path_factory.mktemp("trained") / "deep" / "run"), settings(epochs=3))


# ---------------------------------------------------------------- the network


def check_shape(name: str, size: tuple[int, int]) -> None:
    """Hold that the auto-encoder ends where it begins, and is the classifier's own layers up to its feature maps."""
    devices.configure("cpu")
    network = build_model(name, input_size=size)
    model = autoencoder(network)
    assert model.name == f"{name}-autoencoder"
    assert model.input_shape == model.output_shape == (None, *size, 3)
    own = [layer.name for layer in model.layers if not layer.name.startswith(DECODER)]
    names = [layer.name for layer in network.layers]
    assert own == names[: len(own)]
    assert names[len(own)].startswith(("flatten", "head_")), "nothing before the classifier is left out"
    assert all(model.get_layer(name).weights == network.get_layer(name).weights for name in own)


@pytest.mark.parametrize("spec", FROM_SCRATCH, ids=lambda spec: spec.name)
def test_every_network_of_our_own(spec):
    check_shape(spec.name, (spec.minimum_size + 2, spec.minimum_size + 13))


@pytest.mark.backend
@pytest.mark.parametrize("spec", OTHERS, ids=lambda spec: spec.name)
def test_every_other_network(spec):
    check_shape(spec.name, (spec.minimum_size, spec.minimum_size + 5))


@pytest.mark.parametrize("size", [(22, 22), (23, 37), (96, 31), (64, 64)])
def test_any_size(size):
    check_shape("small", size)


def test_the_decoder_by_hand():
    """64 x 64: the maps of `small` are 6 x 6 of 64 channels; four doublings make 96, which is resized to 64."""
    model = autoencoder(build_model("small", input_size=64))
    shapes = {layer.name: tuple(layer.output.shape[1:]) for layer in model.layers if layer.name.startswith(DECODER)}
    assert {name: shape for name, shape in shapes.items() if "up" not in name} == {
        "decoder_conv1": (12, 12, 32),
        "decoder_conv2": (24, 24, 16),
        "decoder_conv3": (48, 48, 16),
        "decoder_conv4": (96, 96, 16),
        "decoder_resize": (64, 64, 16),
        "decoder_image": (64, 64, 3),
    }


def test_a_network_without_feature_maps():
    import keras

    image = keras.Input((4, 4, 3))
    flat = keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten(name="flat")(image)), name="plain")
    assert refused(autoencoder, flat) == (
        "An auto-encoder begins with the feature maps of a network. Received: plain, which has none."
    )


def test_a_lower_precision_is_the_encoders_own():
    import keras

    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = build_model("small", input_size=SIZE)
    finally:
        keras.config.set_dtype_policy("float32")
    model = autoencoder(network)
    assert model.get_layer("decoder_conv1").compute_dtype == "bfloat16"
    assert model.output.dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"


# ---------------------------------------------------------------- training


def test_it_learns_to_draw(trained, data):
    errors = [row["val_loss"] for row in trained.history]
    assert errors == sorted(errors, reverse=True)
    assert trained.best == trained.history[-1]
    images = np.stack([np.asarray(Image.open(data.root / r.path)) for r in data.part("validation").records])
    drawn = np.asarray(load_model(trained.run.best).predict_on_batch(images))
    assert np.mean((drawn - images / 255) ** 2) == pytest.approx(errors[-1], rel=1e-4)


def test_what_the_run_holds(trained, data):
    run = trained.run
    assert {path.name for path in run.path.iterdir()} == FILES
    assert run.read_recipe() == settings(epochs=3)
    assert run.read_manifest().records == data.records
    assert run.read_history() == trained.history
    assert list(trained.history[0]) == ["epoch", "loss", "val_loss", "learning_rate"]
    info = read_info(run.best)
    assert (info.model, info.classes, info.positive, info.input_size) == ("small-autoencoder", [], "", (SIZE, SIZE))
    assert (info.epoch, info.history) == (3, trained.history)


def test_resumed_as_if_never_stopped(trained, data, tmp_path):
    run = RunDir(tmp_path / "run")
    pretrain(data, run, settings(epochs=1))
    again = pretrain(data, run, settings(epochs=3), resume=True)
    assert again.history == trained.history
    for one, other in zip(load_model(run.last).get_weights(), load_model(trained.run.last).get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    lines: list[str] = []
    assert pretrain(data, run, settings(epochs=3), resume=True, say=lines.append).history == trained.history
    assert lines == ["Nothing to do: 3 epochs are trained."]


def test_labels_are_not_used_and_one_class_is_enough(data, trained, tmp_path):
    """The same images under other labels, in the same order by path: the same training."""
    records = []
    for number, record in enumerate(data.records):
        path = f"{record.split}/cells/{number:02}.bmp"
        (tmp_path / "one" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(data.root / record.path, tmp_path / "one" / path)
        records.append(replace(record, path=path, label="cells"))
    result = pretrain(scan(tmp_path / "one"), RunDir(tmp_path / "run"), settings(epochs=1))
    assert result.history == trained.history[:1]


def test_the_validation_part_is_only_scored(data, trained, tmp_path):
    shutil.copytree(data.root, tmp_path / "other", ignore=shutil.ignore_patterns(".customcnn"))
    for path in (tmp_path / "other" / "validation").rglob("*.bmp"):
        Image.new("RGB", (SIZE, SIZE), "white").save(path)
    found = pretrain(scan(tmp_path / "other"), RunDir(tmp_path / "run"), settings(epochs=2)).history
    for row, before in zip(found, trained.history, strict=False):
        assert row["loss"] == before["loss"] and row["val_loss"] != before["val_loss"]


def test_a_schedule_and_early_stopping_go_as_in_train(data, tmp_path):
    rates = {"schedule.kind": "step", "schedule.every": 1, "schedule.factor": 0.5}
    result = pretrain(data, RunDir(tmp_path / "run"), settings(**rates))
    assert [row["learning_rate"] for row in result.history] == pytest.approx([1e-3, 5e-4])


def test_drawn_carries_over(data, tmp_path):
    drawn = replace(data, records=tuple(replace(r, extra={"origin": "drawn"}) for r in data.records))
    lines: list[str] = []
    result = pretrain(drawn, RunDir(tmp_path / "run"), settings(epochs=1), say=lines.append)
    assert read_info(result.run.best).drawn
    assert lines[0] == "Warning: Drawn cells, not patients: this score says nothing about leukemia."


def test_a_classifier_takes_the_layers_over(trained, data, tmp_path):
    lines: list[str] = []
    begun = recipe(weights=str(trained.run.path), learning_rate=1e-12)
    result = train(data, RunDir(tmp_path / "run"), begun, say=lines.append)
    assert f"Weights: 3 layers from {trained.run.best}; new: fc1, predictions." in lines
    before, after = load_model(trained.run.best), load_model(result.run.best)
    for name in ("conv1", "conv2", "conv3"):
        for one, other in zip(before.get_layer(name).weights, after.get_layer(name).weights, strict=True):
            np.testing.assert_allclose(np.asarray(one), np.asarray(other), atol=1e-6)


# ---------------------------------------------------------------- the picture


def test_the_picture_by_hand(tmp_path):
    import keras

    image = keras.Input((60, 30, 3))
    model = keras.Model(image, keras.layers.Rescaling(0.5 / 255)(image))  # everything half as bright
    pixels = np.zeros((2, 60, 30, 3), dtype=np.uint8)
    pixels[0], pixels[1, :30] = (200, 100, 0), (0, 0, 240)
    write_reconstructions(model, pixels, tmp_path / "p.png")
    found = np.asarray(Image.open(tmp_path / "p.png"))
    # Enlarged 4 times, to no less than 96 pixels; 4 white pixels between two.
    assert found.shape == (2 * 240 + 4, 2 * 120 + 4, 3)
    assert (found[:240, :120] == (200, 100, 0)).all() and (found[244:, :120] == (100, 50, 0)).all()
    assert (found[:120, 124:] == (0, 0, 240)).all() and (found[244:364, 124:] == (0, 0, 120)).all()
    assert (found[240:244] == 255).all() and (found[:, 120:124] == 255).all()


# ---------------------------------------------------------------- the recipe


def test_the_defaults():
    found = autoencoder_recipe({})
    assert (found.model, found.optimizer, found.learning_rate) == ("proposed", "adam", 1e-3)
    assert (found.epochs, found.batch_size, found.monitor) == (20, 30, "val_loss")
    small = autoencoder_recipe({"model": "small"})
    assert (small.batch_size, small.epochs) == (32, 20)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"label_smoothing": 0.1, "head": "plain"}, "head=plain, label_smoothing=0.1"),
        ({"augmentation.flip": "both"}, "augmentation.flip=both"),
        ({"sampling.oversample": "balance"}, "sampling.oversample=balance"),
        ({"monitor": "val_accuracy"}, "monitor=val_accuracy"),
        ({"positive": "hem"}, "positive=hem"),
    ],
)
def test_keys_that_belong_to_a_classifier(values, text):
    assert refused(autoencoder_recipe, values) == (
        "An auto-encoder has no labels, no classes and no classifier, and is judged by val_loss or loss. "
        f"Received: {text}. Leave it for customcnn train."
    )


def test_unknown_networks_and_keys():
    assert refused(autoencoder_recipe, {"model": "smal"}).endswith("Received: 'smal'. Did you mean small?")
    assert "Did you mean epochs?" in refused(autoencoder_recipe, {"epoch": 1})


# ---------------------------------------------------------------- what is refused


def test_it_is_no_classifier(trained, data, tmp_path):
    run, file = trained.run, data.root / data.records[0].path
    text = (
        f"A trained classifier is needed. Received: {str(run.best)!r}, an auto-encoder. "
        "Train a classifier from it: customcnn train --weights RUN."
    )
    assert refused(evaluate, run, data, out=tmp_path / "out") == text
    assert refused(predict, run, [file]) == text
    assert refused(visualize_run, run, [file], out=tmp_path / "out") == text
    assert refused(ensemble, [run, RunDir(tmp_path)], RunDir(tmp_path / "out")) == text
    assert not (tmp_path / "out").exists()


def test_runs_of_the_other_kind_are_not_gone_on_with(trained, data, tmp_path):
    run = RunDir(tmp_path / "run")
    shutil.copytree(trained.run.path, run.path)
    message = refused(train, data, run, settings(epochs=5), resume=True)
    assert message.startswith("A run is resumed with its own network and classes. Received: ")
    classifier = RunDir(tmp_path / "classifier")
    train(data, classifier, recipe(monitor="val_loss"))
    same = autoencoder_recipe({"epochs": 2}, classifier.read_recipe())
    message = refused(pretrain, data, classifier, same, resume=True)
    assert message.startswith("A run is resumed with its own network and classes. Received: ")


def test_data_without_parts_and_what_is_in_the_way(trained, data, tmp_path):
    folder = paint(tmp_path / "whole", {"all": 2, "hem": 2})
    assert refused(pretrain, scan(folder), RunDir(tmp_path / "out"), settings()) == (
        f"Training needs train and validation folders. Received: {str(folder)!r} without train. "
        "Make them with customcnn split."
    )
    assert refused(pretrain, data, trained.run, settings()).startswith(f"Run {str(trained.run.path)!r} exists.")
    assert not (tmp_path / "out").exists()


def test_the_command(data, tmp_path, shell, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["pretrain", data.root, "--model", "small", "--set", f"input_size={SIZE}", "--epochs", 1]
    output, _ = printed(*shell(*words))
    out = output.splitlines()
    assert out[0].startswith("Best epoch 1 of 1 by val_loss: loss 0.") and "val_loss 0." in out[0]
    assert out[1] == "Run: runs/small-autoencoder"
    _, errors = printed(*shell(*words[:2], "--out", "runs/small-autoencoder", "--resume", "--epochs", 2))
    assert "Resuming after epoch 1 of 2." in errors
    assert len(RunDir(Path("runs/small-autoencoder")).read_history()) == 2
