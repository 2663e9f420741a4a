"""A network that is written while its training goes on is the one that would have been written while it waits."""

import threading
from collections.abc import Iterable

import numpy as np
import pytest

from customcnn.data.manifest import Manifest, scan
from customcnn.errors import CustomCNNError
from customcnn.runs.run_dir import RunDir
from customcnn.runs.saved_model import load_model, read_info
from customcnn.training import async_checkpoint
from customcnn.training.async_checkpoint import Checkpointer
from customcnn.training.train import train
from tests.support.colors import paint, recipe

SETTINGS = {
    "sgd": {"momentum": 0.9, "weight_decay": 1e-3},
    "adam": {"optimizer": "adam"},
    "ema": {"ema": 0.9},
    "float16": {"precision": "float16"},
    "lra": {"learning_rate": 0.3, "seed": 1, "schedule.kind": "lra", "schedule.threshold": 1.0},
}


def quick_first(names: Iterable[str]) -> list[object]:
    """Leave all but the first out by default: each is a training or two."""
    first, *others = names
    return [first, *(pytest.param(name, marks=pytest.mark.kill) for name in others)]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Manifest:
    """Two classes, 32 images to train and 12 to validate on."""
    sizes = {"train/all": 16, "train/hem": 16, "validation/all": 6, "validation/hem": 6}
    return scan(paint(tmp_path_factory.mktemp("colors") / "data", sizes))


@pytest.fixture
def always(monkeypatch):
    """Let the thread write small networks too; return the names of the threads that wrote one."""
    writers: list[str] = []
    write = async_checkpoint._write

    def noted(*arguments) -> None:
        writers.append(threading.current_thread().name)
        write(*arguments)

    monkeypatch.setattr(async_checkpoint, "_write", noted)
    monkeypatch.setattr(async_checkpoint, "LARGE", 0)
    return writers


def described(model) -> dict[str, object]:
    """Return the configuration of a network's optimizer and loss, without the names that Keras numbers."""
    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    optimizer = {key: value for key, value in inner.get_config().items() if key != "name"}
    return {**model.get_compile_config(), "optimizer": (type(model.optimizer).__name__, optimizer)}


@pytest.mark.parametrize("name", quick_first(SETTINGS))
def test_the_thread_writes_what_would_have_been_written(data, tmp_path, name, always, monkeypatch):
    wanted = recipe(epochs=4, **SETTINGS[name])
    threaded = train(data, RunDir(tmp_path / "threaded"), wanted)
    assert always[0] == "MainThread" and len(always) == 4
    assert all(writer.startswith("checkpoint") for writer in always[1:])
    monkeypatch.setattr(async_checkpoint, "LARGE", 10**12)
    waiting = train(data, RunDir(tmp_path / "waiting"), wanted)
    assert always[4:] == ["MainThread"] * 4

    assert threaded.run.history.read_bytes() == waiting.run.history.read_bytes()
    for which in ("last", "best"):
        one, other = threaded.run.weights(which), waiting.run.weights(which)
        assert read_info(one) == read_info(other)
        first, second = load_model(one, whole=True), load_model(other, whole=True)
        assert first.get_config() == second.get_config()
        assert described(first) == described(second)
        for a, b in zip(first.variables, second.variables, strict=True):
            np.testing.assert_array_equal(a, b)
        for a, b in zip(first.optimizer.variables, second.optimizer.variables, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.kill
@pytest.mark.parametrize("name", ["sgd", "ema", "float16"])
def test_it_is_resumed_as_ever(data, tmp_path, name, always):
    whole = train(data, RunDir(tmp_path / "whole"), recipe(epochs=5, **SETTINGS[name]))
    run = RunDir(tmp_path / "parts")
    train(data, run, recipe(epochs=3, **SETTINGS[name]))
    assert read_info(run.last).epoch == 3  # nothing is left to be written when a training returns
    train(data, run, recipe(epochs=5, **SETTINGS[name]), resume=True)
    assert run.history.read_bytes() == whole.run.history.read_bytes()


def test_what_stops_the_thread_stops_the_training(data, tmp_path, always, monkeypatch):
    """The third epoch cannot be written: the training ends with that error, and the second is what is left."""
    save = async_checkpoint.save_model

    def full(model, info, path):
        if info.epoch == 3:
            raise CustomCNNError("The disk is full.")
        save(model, info, path)

    monkeypatch.setattr(async_checkpoint, "save_model", full)
    run = RunDir(tmp_path / "run")
    with pytest.raises(CustomCNNError, match=r"^The disk is full\.$"):
        train(data, run, recipe(epochs=5))
    assert read_info(run.last).epoch == 2 and len(run.read_history()) == 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("checkpoint")]


def test_an_error_in_the_training_waits_for_what_is_being_written(data, tmp_path, always):
    def interrupt(line: str) -> None:
        if line.startswith("Epoch 3/"):
            raise KeyboardInterrupt

    run = RunDir(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        train(data, run, recipe(epochs=5), say=interrupt)
    assert read_info(run.last).epoch == 3
    assert {path.suffix for path in run.path.iterdir()} == {".toml", ".json", ".csv", ".keras"}


def test_the_values_of_the_moment_are_written_not_later_ones(data, tmp_path, monkeypatch):
    """The writer is held until the network has changed: the file has the values of before."""
    import keras

    result = train(data, RunDir(tmp_path / "run"), recipe(epochs=1))
    model, info = load_model(result.run.last, whole=True), read_info(result.run.last)
    monkeypatch.setattr(async_checkpoint, "LARGE", 0)
    go, save = threading.Event(), async_checkpoint.save_model

    def held(*arguments) -> None:
        assert go.wait(60)
        save(*arguments)

    path = tmp_path / "saved.keras"
    checkpointer = Checkpointer(path)
    checkpointer.save(model, info, lambda: None, again=True)
    monkeypatch.setattr(async_checkpoint, "save_model", held)
    model.set_weights([weights + 1 for weights in model.get_weights()])
    before = model.get_weights()
    checkpointer.save(model, info, lambda: None, again=True)
    model.set_weights([weights + 1 for weights in before])
    go.set()
    checkpointer.close()
    for saved, wanted in zip(keras.saving.load_model(path).get_weights(), before, strict=True):
        np.testing.assert_array_equal(saved, wanted)
