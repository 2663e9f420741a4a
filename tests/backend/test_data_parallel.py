"""Several devices share each batch, and come to what one device comes to.

Run as a script, this file is the worker: it trains on so many logical processors, which a backend divides one into, and
writes what came out. Two devices add in another order than one. In float32 that now and then moves a value across the
bend of a ReLU, and the training goes another way by some thousandths; in float64 what is equal stays equal.
Probabilities are float32 all the same: with seed 3, whose last batch is two images that are nearly alike, batch
normalisation magnifies their rounding to some thousandths; seeds 4, 5 and 6 agree to the last digits.
"""

import importlib.util
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from customcnn.backend.data_parallel import find_devices, parse_devices, uneven_weights
from customcnn.data.manifest import scan
from customcnn.data.split import shares, split_folder
from customcnn.data.synthetic import draw_samples
from customcnn.errors import CustomCNNError
from customcnn.recipe.recipe import load_recipe
from customcnn.runs.run_dir import RunDir
from tests.support import ROOT
from tests.support.errors import refused

BACKENDS = ("tensorflow", "jax")
RECIPE: dict[str, object] = {"model": "residual", "epochs": 2, "input_size": 48, "batch_size": 12, "seed": 4}
RECIPE |= {"precision": "float32", "optimizer": "sgd", "dropout": 0.0}


def _divide(backend: str, count: int) -> None:
    """Make so many devices of the processor; before the backend is used."""
    if backend == "jax":
        import jax

        jax.config.update("jax_num_cpu_devices", count)
    else:
        import tensorflow as tf

        (whole,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(whole, [tf.config.LogicalDeviceConfiguration()] * count)
        # Its usual way packs all gradients into one array, and those of the last layer stay float32.
        one_by_one = tf.distribute.ReductionToOneDevice()
        tf.distribute.MirroredStrategy = partial(tf.distribute.MirroredStrategy, cross_device_ops=one_by_one)


def _worker(data: str, run: str, count: str, options: str, out: str) -> None:
    """Train in float64 and write the history and the weights."""
    _divide(os.environ["KERAS_BACKEND"], int(count))
    import keras

    from customcnn.backend import devices
    from customcnn.runs.saved_model import load_model
    from customcnn.training.train import train

    keras.config.set_floatx("float64")
    devices.dtype_policy = lambda *_: "float64"  # type: ignore[assignment]
    told: list[str] = []
    given = json.loads(options)
    recipe = load_recipe(None, RECIPE | given)
    replicas = None if int(count) > 1 else 1
    result = train(scan(Path(data)), RunDir(Path(run)), recipe, resume=True, replicas=replicas, say=told.append)
    weights = [np.asarray(weight) for weight in load_model(result.run.last).get_weights()]
    np.savez(out, *weights, history=json.dumps(result.history), told=told)


def trained(backend: str, data: Path, run: Path, count: int, **options: object) -> tuple[list[Any], list[np.ndarray]]:
    """Train on so many devices in a process of its own; return the history and the weights of the last epoch."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"needs {backend}")
    out = run.with_suffix(f".{len(list(run.parent.iterdir()))}.npz")
    words = [str(data), str(run), str(count), json.dumps(options), str(out)]
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "2"}
    if backend == "jax":
        environment["JAX_ENABLE_X64"] = "1"
    done = subprocess.run(
        [sys.executable, "-m", __name__, *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(out) as found:
        told = found["told"].tolist()
        size = options.get("batch_size", RECIPE["batch_size"])
        assert (f"{count} devices share each batch of {size}." in told) == (count > 1)
        number = len([key for key in found.files if key.startswith("arr_")])
        return json.loads(str(found["history"])), [found[f"arr_{place}"] for place in range(number)]


def compare(one: tuple[list[Any], list[np.ndarray]], other: tuple[list[Any], list[np.ndarray]], loss: float) -> None:
    """Hold two trainings against each other; the loss of the training within a tolerance of its own."""
    for first, second in zip(one[0], other[0], strict=True):
        for key, value in first.items():
            assert second[key] == pytest.approx(value, rel=loss if key == "loss" else 1e-5), key
    for first, second in zip(one[1], other[1], strict=True):
        np.testing.assert_allclose(second, first, rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> Path:
    """Drawn cells, split: 38 train, so that the last batch of an epoch has 2 images."""
    folder = tmp_path_factory.mktemp("data")
    draw_samples(folder / "cells", subjects=6, cells=4, size=64, workers=1)
    split_folder(scan(folder / "cells"), folder / "parts", shares(), workers=1)
    return folder / "parts"


# ---------------------------------------------------------------- trainings


@pytest.mark.backend
@pytest.mark.parametrize("backend", BACKENDS)
def test_three_devices_come_to_what_one_comes_to(backend, parts, tmp_path):
    """The last batch of 2 images does not divide among three devices."""
    assert len(scan(parts).part("train").records) % 12 == 2
    alone = trained(backend, parts, tmp_path / "alone", 1)
    # On TensorFlow the mean that is printed weighs the last batch's images otherwise; what is trained does not.
    compare(alone, trained(backend, parts, tmp_path / "shared", 3), loss=0.05 if backend == "tensorflow" else 1e-5)


@pytest.mark.backend
@pytest.mark.kill
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_goes_on_with_another_number_of_devices(backend, parts, tmp_path):
    # Not 12: of a last batch of 2 images, batch normalisation keeps the signs of differences, and magnifies rounding.
    options: dict[str, object] = {"batch_size": 8, "ema": 0.9}
    alone = trained(backend, parts, tmp_path / "alone", 1, **options)
    trained(backend, parts, tmp_path / "begun", 2, epochs=1, **options)
    compare(alone, trained(backend, parts, tmp_path / "begun", 1, **options), loss=1e-5)


# ---------------------------------------------------------------- what is asked for


@given(st.integers(1, 200), st.integers(2, 16))
def test_uneven_pieces_count_by_their_images(images, devices):
    losses = np.random.default_rng(images).random(images)
    weights = uneven_weights(images, devices)
    weighted = losses if weights is None else losses * weights
    piece = -(-images // devices)
    pieces = [weighted[start : start + piece] for start in range(0, images, piece)]
    assert len(pieces) <= devices
    assert sum(part.mean() for part in pieces) / devices == pytest.approx(losses.mean(), rel=1e-5)


def test_weights_by_hand():
    assert uneven_weights(12, 3) is None
    assert uneven_weights(7, 2).tolist() == pytest.approx([8 / 7] * 4 + [6 / 7] * 3)
    assert uneven_weights(2, 3).tolist() == pytest.approx([1.5, 1.5])


def test_devices_are_a_number_or_all():
    assert (parse_devices("all"), parse_devices("1"), parse_devices("16")) == (None, 1, 16)
    for wrong in ("0", "-1", "two", "", "1.5"):
        with pytest.raises(CustomCNNError, match=r"^--devices is all, or a number above 0\. Received: '"):
            parse_devices(wrong)


def test_one_processor_is_one_device():
    assert find_devices(1, "cpu", 30) == []
    if os.environ.get("KERAS_BACKEND", "tensorflow") in BACKENDS:
        assert find_devices(None, "cpu", 30) == []
        with pytest.raises(CustomCNNError, match=r"Received: 2, where \w+ sees 1 of the kind cpu\."):
            find_devices(2, "cpu", 30)


def test_a_batch_is_shared_evenly(monkeypatch):
    monkeypatch.setattr("customcnn.backend.data_parallel.backend", lambda: "jax")
    monkeypatch.setattr("customcnn.backend.data_parallel._names", lambda device: [f"{device}:{n}" for n in range(4)])
    assert find_devices(None, "gpu", 32) == ["gpu:0", "gpu:1", "gpu:2", "gpu:3"]
    assert find_devices(3, "gpu", 30) == ["gpu:0", "gpu:1", "gpu:2"]
    assert refused(find_devices, None, "gpu", 30) == (
        "Devices share a batch evenly. Received: --batch-size 30 on 4 devices. Give --batch-size 28 or 32, or other "
        "--devices."
    )


def test_torch_has_no_means(monkeypatch):
    monkeypatch.setattr("customcnn.backend.data_parallel.backend", lambda: "torch")
    assert find_devices(1, "gpu", 30) == []
    with pytest.raises(CustomCNNError, match="--devices needs Keras on tensorflow or jax"):
        find_devices(None, "gpu", 30)


if __name__ == "__main__":
    _worker(*sys.argv[1:])
