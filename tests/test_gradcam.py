"""Grad-CAM: against the gradient worked out by hand, on every backend's own way, and where the network looks."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from customcnn.errors import CustomCNNError
from customcnn.gradcam import grad_cam, overlay
from customcnn.models import build_model, get_spec

LARGE = ("googlenet", "mobilenetv2", "densenet121", "convnexttiny")


def network(head: str, units: int = 2, activation: str | None = "softmax"):
    """Return a convolution that keeps the size, behind it a pooling or flattening and a dense layer."""
    import keras

    image = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(5, 3, padding="same", activation="relu", name="conv")(image)
    x = keras.layers.GlobalAveragePooling2D()(x) if head == "pool" else keras.layers.Flatten()(x)
    model = keras.Model(image, keras.layers.Dense(units, activation=activation, name="predictions")(x))
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=weight.shape) / 10 for weight in model.get_weights()])
    return model


def picture(seed: int = 1, size: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def by_hand(model, image: np.ndarray, index: int) -> np.ndarray:
    """Return Grad-CAM where the score is linear in the maps: the gradient is the dense layer's kernel."""
    import keras

    conv = keras.Model(model.inputs[0], model.get_layer("conv").output)
    maps = np.asarray(conv.predict_on_batch(image[None]))[0]
    kernel = model.get_layer("predictions").get_weights()[0]
    column = kernel[:, index] if kernel.shape[1] > 1 else kernel[:, 0] * (1 if index else -1)
    weights = column / 36 if len(column) == 5 else column.reshape(6, 6, 5).mean(axis=(0, 1))
    heat = np.maximum((maps * weights).sum(axis=2), 0)
    return heat / max(heat.max(), 1e-9)


@pytest.mark.parametrize("head", ["pool", "flat"])
@pytest.mark.parametrize(("units", "activation"), [(2, "softmax"), (3, "softmax"), (1, "sigmoid")])
def test_as_worked_out_by_hand(head, units, activation):
    model, image = network(head, units, activation), picture()
    for index in range(max(units, 2)):
        found = grad_cam(model, image, index)
        assert (found.shape, found.dtype) == ((6, 6), np.float32)
        np.testing.assert_allclose(found, by_hand(model, image, index), atol=1e-6)


def test_a_sure_network_still_has_a_map():
    model = network("pool", 1, "sigmoid")
    weights = model.get_weights()
    model.set_weights([*weights[:2], np.abs(weights[2]) * 1000, np.array([1000.0])])
    assert float(np.asarray(model(picture()[None].astype("float32")))[0, 0]) == 1.0
    np.testing.assert_allclose(grad_cam(model, picture(), 1), by_hand(model, picture(), 1), atol=1e-6)
    assert not grad_cam(model, picture(), 0).any()  # nothing speaks for the other class


def test_a_layer_behind_the_probabilities_changes_nothing():
    import keras

    model = network("pool")
    behind = keras.Model(model.inputs[0], keras.layers.Rescaling(0.5)(model.outputs[0]))
    np.testing.assert_array_equal(grad_cam(behind, picture(), 0), grad_cam(model, picture(), 0))


@pytest.mark.parametrize(("units", "activation"), [(3, "softmax"), (1, "sigmoid")])
def test_a_temperature_changes_nothing(units, activation):
    from customcnn.temperature import with_temperature

    model = network("pool", units, activation)
    wanted = grad_cam(model, picture(), 1)
    np.testing.assert_allclose(grad_cam(with_temperature(model, 2.5), picture(), 1), wanted, atol=1e-6)


def test_an_ensemble_has_the_mean_of_its_members():
    from customcnn.ensemble import soft_vote

    members = [network("pool"), network("flat", 1, "sigmoid")]
    wanted = np.mean([by_hand(member, picture(), 1) for member in members], axis=0)
    found = grad_cam(soft_vote(members, [0.7, 0.3], (6, 6)), picture(), 1)
    np.testing.assert_allclose(found, wanted / wanted.max(), atol=1e-6)


@pytest.mark.parametrize("name", ["small", "residual", *(pytest.param(n, marks=pytest.mark.slow) for n in LARGE)])
def test_the_networks_of_the_table(name):
    size = max(get_spec(name).minimum_size, 64)
    model = build_model(name, classes=3, input_size=(size, size))
    found = grad_cam(model, picture(size=size), 2)
    assert found.shape == (size, size)
    assert np.isfinite(found).all() and found.min() >= 0 and found.max() in (0, 1)


def test_outside_of_the_centre_that_the_network_looks_at_there_is_nothing():
    size = get_spec("small").minimum_size
    model = build_model("small", classes=3, input_size=(size + 20, size + 20), center_crop=size)
    found = grad_cam(model, picture(size=size + 20), 0)
    inside = found[10:-10, 10:-10].copy()
    found[10:-10, 10:-10] = 0
    assert not found.any() and inside.shape == (size, size)


def test_what_cannot_be_mapped():
    import keras

    flat = keras.Input((6, 6, 3))
    dense = keras.Model(flat, keras.layers.Dense(2, activation="softmax")(keras.layers.Flatten()(flat)), name="dense")
    with pytest.raises(CustomCNNError, match=r"feature maps\. Received: the model 'dense'"):
        grad_cam(dense, picture(), 0)
    with pytest.raises(ValueError, match="uint8 image"):
        grad_cam(network("pool"), picture(size=7), 0)


def test_the_overlay_keeps_the_image_where_the_map_is_nothing():
    image, heat = picture(size=8), np.zeros((8, 8))
    np.testing.assert_array_equal(overlay(image, heat), image)
    heat[2, 3] = 1
    changed = (overlay(image, heat) != image).any(axis=2)
    assert changed[2, 3] and changed.sum() == 1


CODE = """
import numpy as np, sys
from test_gradcam import by_hand, network, picture
from customcnn.gradcam import grad_cam
for head in ("pool", "flat"):
    model = network(head)
    np.testing.assert_allclose(grad_cam(model, picture(), 1), by_hand(model, picture(), 1), atol=1e-5)
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_on_the_other_backends(backend, monkeypatch):
    pytest.importorskip(backend)
    monkeypatch.setenv("KERAS_BACKEND", backend)
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
