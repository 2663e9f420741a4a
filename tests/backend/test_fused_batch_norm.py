"""Fused batch normalisation computes what Keras computes, and what it is given up for where it is not to be had."""

import numpy as np
import pytest

from customcnn.backend import devices
from customcnn.backend.fused_batch_norm import fuse_batch_norm
from customcnn.models import build_model, list_models
from customcnn.runs.saved_model import ModelInfo, load_model, save_model
from tests.support.networks import SIBLINGS

keras = pytest.importorskip("keras")
on_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's kernels")


def trained(fused: bool, precision: str, steps: int = 3):
    """Return the losses, the network and its predictions after some steps on random images."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 48, 48, 3)).astype("float32")
    targets = np.eye(2, dtype="float32")[rng.integers(0, 2, 8)]
    keras.utils.set_random_seed(1)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        model = build_model("residual", classes=2, input_size=48)
    finally:
        keras.config.set_dtype_policy(before)
    if fused:
        assert fuse_batch_norm(model) == 12
    model.compile(keras.optimizers.SGD(1e-3), "categorical_crossentropy")
    losses = [float(model.train_on_batch(images, targets)) for _ in range(steps)]
    return losses, model, np.asarray(model.predict_on_batch(images))


@on_tensorflow
@pytest.mark.parametrize(
    ("precision", "tolerance"), [("float32", 1e-5), pytest.param("mixed_bfloat16", 2e-2, marks=pytest.mark.backend)]
)
def test_the_same_is_computed(precision, tolerance):
    losses, model, predicted = trained(False, precision)
    fused_losses, fused_model, fused_predicted = trained(True, precision)
    assert fused_losses == pytest.approx(losses, abs=tolerance)
    assert fused_predicted == pytest.approx(predicted, abs=tolerance)
    for own, plain in zip(fused_model.get_weights(), model.get_weights(), strict=True):
        assert own == pytest.approx(plain, abs=tolerance)  # running means and variances among them


@on_tensorflow
def test_running_statistics_by_hand():
    image = keras.Input((2, 2, 1))
    layer = keras.layers.BatchNormalization(momentum=0.75, epsilon=0.0)
    model = keras.Model(image, layer(image))
    assert fuse_batch_norm(model) == 1
    found = model(np.array([1, 2, 3, 4], "float32").reshape(1, 2, 2, 1), training=True)
    # Mean 2.5 and biased variance 1.25; a quarter of each goes into 0 and 1.
    assert np.asarray(found).ravel() == pytest.approx((np.array([1, 2, 3, 4]) - 2.5) / 1.25**0.5, abs=1e-4)
    assert float(layer.moving_mean.numpy()[0]) == pytest.approx(0.625)
    assert float(layer.moving_variance.numpy()[0]) == pytest.approx(0.75 + 0.3125)


@on_tensorflow
def test_a_frozen_layer_keeps_its_statistics():
    image = keras.Input((4, 4, 3))
    layer = keras.layers.BatchNormalization()
    model = keras.Model(image, layer(image))
    layer.trainable = False
    fuse_batch_norm(model)
    pixels = np.arange(48, dtype="float32").reshape(1, 4, 4, 3)
    assert np.asarray(model(pixels, training=True)) == pytest.approx(pixels, rel=1e-3)
    assert not layer.moving_mean.numpy().any()


@on_tensorflow
def test_a_saved_network_is_plain_keras(tmp_path):
    _, model, predicted = trained(True, "float32", steps=1)
    save_model(model, ModelInfo("residual", ["a", "b"], (48, 48), "b"), tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras")
    assert {type(layer).__module__.split(".")[0] for layer in loaded.layers} == {"keras"}
    images = np.random.default_rng(0).integers(0, 256, (8, 48, 48, 3)).astype("float32")
    assert np.asarray(loaded.predict_on_batch(images)) == pytest.approx(predicted, abs=1e-5)


@pytest.mark.parametrize(("has", "policy"), [(True, "mixed_bfloat16"), (False, "float32")])
def test_bfloat16_is_given_up_where_the_machine_lacks_it(tmp_path, monkeypatch, has, policy):
    keras.utils.set_random_seed(1)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build_model("residual", classes=2, input_size=48)
    finally:
        keras.config.set_dtype_policy(before)
    save_model(model, ModelInfo("residual", ["a", "b"], (48, 48), "b"), tmp_path / "a.keras")
    monkeypatch.setattr(devices, "cpu_has_bfloat16", lambda: has)
    monkeypatch.setattr(devices, "_gpus", lambda backend: 0)
    loaded = load_model(tmp_path / "a.keras")
    assert loaded.layers[2].dtype_policy.name == policy
    for found, expected in zip(loaded.get_weights(), model.get_weights(), strict=True):
        assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    ("has", "depthwise", "expected"),
    [(True, False, "mixed_bfloat16"), (True, True, "float32"), (False, False, "float32"), (False, True, "float32")],
)
@on_tensorflow
def test_the_precision_of_a_cpu(monkeypatch, has, depthwise, expected):
    monkeypatch.setattr(devices, "cpu_has_bfloat16", lambda: has)
    assert devices.dtype_policy("auto", "cpu", depthwise) == expected
    assert devices.dtype_policy("float32", "cpu", depthwise) == "float32"
    assert devices.dtype_policy("bfloat16", "cpu", depthwise) == "mixed_bfloat16"


@pytest.mark.backend
@pytest.mark.parametrize(
    "spec", [spec for spec in list_models() if spec.name not in SIBLINGS], ids=lambda spec: spec.name
)
def test_the_table_knows_depthwise_convolutions(spec):
    model = build_model(spec.name, classes=2, input_size=max(spec.minimum_size, 75))
    depthwise = any(type(layer).__name__ in ("DepthwiseConv2D", "SeparableConv2D") for layer in model.layers)
    # ConvNeXt writes its as a grouped convolution.
    depthwise |= any(getattr(layer, "groups", 1) > 1 for layer in model.layers)
    assert spec.depthwise == depthwise
