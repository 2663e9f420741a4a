"""The same weights and the same images give the same answers and the same training step on every Keras backend.

Run as a script, this file is the worker: it computes with the backend of KERAS_BACKEND and writes what came out.

Two precisions are compared. float32 is what users train in; there a rounding difference now and then moves a value
across the bend of a ReLU or changes the winner of a max pooling, and behind many batch norms a few such flips turn
the whole gradient by some percent. In float64 hardly a value flips (Keras keeps some constants in float32), and the
steps must agree much closer: that shows that what is left in float32 is rounding.
"""

import importlib.util
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from customcnn.models import ModelSpec, build_model, get_spec

pytestmark = pytest.mark.backend

BACKENDS = ("tensorflow", "jax", "torch")
DEFAULT = os.environ.get("KERAS_BACKEND", "tensorflow")
TOLERANCES = {  # absolute for probabilities, relative for the loss, relative to the length of the vector for steps
    "float32": {"output": 1e-4, "loss": 1e-3, "statistics": 1e-3, "step": 0.15},
    "float64": {"output": 1e-5, "loss": 1e-4, "statistics": 3e-4, "step": 0.02},
}
NETWORKS = {  # written here; "proposed" stands for its twin; what is large in one precision alone
    "float32": ("proposed", "alexnet", "small", "one-conv", "googlenet"),
    "float64": ("residual", "alexnet", "small", "one-conv"),
}
BATCH = 8
CLASSES = 2
RATE = 1.0  # so large that the rounding of the weights does not hide the step; there is only one
SAMPLE = 2000


def _targets(sigmoid: bool) -> np.ndarray:
    labels = np.arange(BATCH) % CLASSES
    return labels[:, None].astype("float32") if sigmoid else np.eye(CLASSES, dtype="float32")[labels]


def _random_weight(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return values of the size that keeps activations at about one."""
    noise = rng.standard_normal(shape, dtype="float32")
    if name == "kernel":
        return noise * np.float32(np.sqrt(2 / np.prod(shape[:-1])))
    if name in ("gamma", "moving_variance"):
        return 1 + np.tanh(noise) / 4
    return noise / 10


def _sample(values: np.ndarray) -> np.ndarray:
    """Return at most SAMPLE values, evenly spread; an odd step meets every channel, which are mostly even in number."""
    return values.ravel()[:: max(1, values.size // SAMPLE) | 1][:SAMPLE]


def _worker(path: str, precision: str, *names: str) -> None:
    """Compute networks in one precision with this process's backend."""
    import keras

    keras.config.set_floatx(precision)
    keras.config.set_dtype_policy(precision)
    results = {"backend": np.array(keras.backend.backend())}
    for name in names:
        results |= {f"{name}/{key}": value for key, value in _one_network(get_spec(name)).items()}
    np.savez(path, **results)


def _one_network(spec: ModelSpec) -> dict[str, np.ndarray]:
    """Compute one forward and one training step of one network."""
    import keras

    size = max(spec.minimum_size, 32)
    options = {"dropout": 0.0} if "dropout" in spec.options else {}
    model = build_model(spec.name, classes=CLASSES, input_size=size, **options)
    rng = np.random.default_rng(7)
    images = rng.integers(0, 256, (BATCH, size, size, 3)).astype("float32")
    before = [_random_weight(weight.name, tuple(weight.shape), rng) for weight in model.weights]
    model.set_weights(before)
    results = {"output": model.predict_on_batch(images)}

    sigmoid = model.output_shape[-1] == 1
    loss = "binary_crossentropy" if sigmoid else "categorical_crossentropy"
    model.compile(optimizer=keras.optimizers.SGD(RATE), loss=loss)
    results["loss"] = np.array(model.train_on_batch(images, _targets(sigmoid)))
    for weight, old, new in zip(model.weights, before, model.get_weights(), strict=True):
        results[f"step/{weight.path}"] = _sample(new - old)
    return results


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Return a function that gives what one backend computed for one network in one precision."""
    known: dict[tuple[str, str], dict[str, np.ndarray]] = {}

    def of(backend: str, precision: str, name: str) -> dict[str, np.ndarray]:
        if importlib.util.find_spec(backend) is None:
            pytest.skip(f"{backend} is not installed")
        if (backend, precision) not in known:
            path = tmp_path_factory.mktemp(backend) / "out.npz"
            known[backend, precision] = _run_worker(backend, precision, path, _networks(backend, precision))
        found = known[backend, precision]
        return {key.removeprefix(f"{name}/"): value for key, value in found.items() if key.startswith(f"{name}/")}

    return of


def _run_worker(backend: str, precision: str, path: Path, names: list[str]) -> dict[str, np.ndarray]:
    environment = {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "JAX_ENABLE_X64": "1"}
    command = [sys.executable, str(Path(__file__).resolve()), str(path), precision, *names]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(path) as file:
        found = dict(file)
    assert str(found["backend"]) == backend
    return found


def _steps(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {key: value for key, value in found.items() if key.startswith("step/")}


def _networks(backend: str, precision: str) -> list[str]:
    """Return all but the one with most layers on JAX: XLA compiles it for minutes, and the others show the same."""
    return [name for name in NETWORKS[precision] if (backend, name) != ("jax", "googlenet")]


def _cases(backends: tuple[str, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("backend", "precision", "name"),
        [(*how, name) for how in itertools.product(backends, TOLERANCES) for name in _networks(*how)],
    )


@_cases(BACKENDS)
def test_the_step_is_sound(results, backend, name, precision):
    """The loss falls out of the probabilities, the last bias moves as calculus says, and every weight moves."""
    found = results(backend, precision, name)
    steps = _steps(found)
    assert len(steps) >= 4
    assert all(np.isfinite(step).all() for step in steps.values())
    assert all(np.any(step != 0) for step in steps.values())

    output, bias = found["output"], steps["step/predictions/bias"]
    if any("moving_mean" in key for key in steps):  # batch norm: the probabilities of training are others
        np.testing.assert_allclose(bias.sum(), 0, atol=1e-6)  # softmax takes from one class what it gives the other
        return
    targets = _targets(sigmoid=output.shape[1] == 1)
    of_the_true_class = np.abs(output - (1 - targets))[:, 0]  # |p - 0| where the target is 1, |p - 1| where it is 0
    assert found["loss"] == pytest.approx(-np.log(of_the_true_class).mean(), rel=1e-5)
    # Softmax with categorical and sigmoid with binary cross-entropy have the same slope: probability - target.
    np.testing.assert_allclose(bias, -RATE * (output - targets).mean(axis=0), atol=1e-6)


@_cases(tuple(name for name in BACKENDS if name != DEFAULT))
def test_backends_agree(results, backend, precision, name):
    """Probabilities, loss, batch statistics and the step of every weight are those of the default backend."""
    expected, found = results(DEFAULT, precision, name), results(backend, precision, name)
    tolerance = TOLERANCES[precision]
    assert expected.keys() == found.keys()
    np.testing.assert_allclose(found["output"], expected["output"], atol=tolerance["output"])
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=tolerance["loss"])
    for key, step in _steps(expected).items():
        allowed = tolerance["statistics" if "moving" in key else "step"]
        assert np.linalg.norm(found[key] - step) < allowed * np.linalg.norm(step), key


if __name__ == "__main__":
    _worker(*sys.argv[1:])
