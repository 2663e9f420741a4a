"""Grad-CAM: against the gradient worked out by hand, on every backend's own way, and where the network looks."""

import os

import numpy as np
import pytest

from customcnn.errors import CustomCNNError
from customcnn.explain.gradcam import GradCam, cam_layers, grad_cam, grad_cam_plus_plus, overlay
from customcnn.models import build_model, get_spec

ROUNDING = 1e-6 if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow" else 1e-5
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
        np.testing.assert_allclose(found, by_hand(model, image, index), atol=ROUNDING)


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
    from customcnn.runs.temperature import with_temperature

    model = network("pool", units, activation)
    wanted = grad_cam(model, picture(), 1)
    np.testing.assert_allclose(grad_cam(with_temperature(model, 2.5), picture(), 1), wanted, atol=1e-6)


def test_an_ensemble_has_the_mean_of_its_members():
    from customcnn.training.ensemble import soft_vote

    members = [network("pool"), network("flat", 1, "sigmoid")]
    wanted = np.mean([by_hand(member, picture(), 1) for member in members], axis=0)
    found = grad_cam(soft_vote(members, [0.7, 0.3], (6, 6)), picture(), 1)
    np.testing.assert_allclose(found, wanted / wanted.max(), atol=1e-6)


@pytest.mark.parametrize("name", ["small", "residual", *(pytest.param(n, marks=pytest.mark.backend) for n in LARGE)])
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


# ---------------------------------------------------------------- Grad-CAM++


def plus_plus_by_hand(model, image: np.ndarray, index: int) -> np.ndarray:
    """Return Grad-CAM++ by the paper's formula (its equation 19), behind a global average and a dense layer."""
    import keras

    conv = keras.Model(model.inputs[0], model.get_layer("conv").output)
    maps = np.asarray(conv.predict_on_batch(image[None]))[0].astype(float)
    kernel = model.get_layer("predictions").get_weights()[0].astype(float)
    column = kernel[:, index] if kernel.shape[1] > 1 else kernel[:, 0] * (1 if index else -1)
    heat = np.zeros(maps.shape[:2])
    for map_, slope in zip(maps.transpose(2, 0, 1), column / 36, strict=True):
        gradient = np.full((6, 6), slope)
        alpha = gradient**2 / (2 * gradient**2 + map_.sum() * gradient**3)
        heat += (alpha * np.maximum(gradient, 0)).sum() * map_
    return np.maximum(heat, 0) / max(heat.max(), 1e-9)


@pytest.mark.parametrize(("units", "activation"), [(2, "softmax"), (3, "softmax"), (1, "sigmoid")])
def test_plus_plus_as_worked_out_by_hand(units, activation):
    model, image = network("pool", units, activation), picture()
    for index in range(max(units, 2)):
        found = grad_cam_plus_plus(model, image, index)
        assert (found.shape, found.dtype) == ((6, 6), np.float32)
        np.testing.assert_allclose(found, plus_plus_by_hand(model, image, index), atol=1e-5)


def test_plus_plus_counts_a_small_place_as_much_as_a_large_one():
    """Two maps of one class: 20 places and 1 place. Grad-CAM weighs both alike, so the sum of each map decides."""
    import keras

    image = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(2, 1, name="conv")(image)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, keras.layers.Dense(2, activation="softmax", name="predictions")(x))
    # A map each of red and of blue, in tenths of a level; the class takes 40 of the one and 8 of the other.
    kernel = np.zeros((1, 1, 3, 2), np.float32)
    kernel[0, 0, 0, 0] = kernel[0, 0, 2, 1] = 0.1
    model.set_weights([kernel, np.zeros(2), np.array([[40.0, 0], [8.0, 0]], np.float32), np.zeros(2)])
    pixels = np.zeros((6, 6, 3), np.uint8)
    pixels[:4, :5, 0] = pixels[5, 5, 2] = 200
    # S is 400 and 20, the slope 40 / 36 and 8 / 36: weights of 36 * slope / (2 + S * slope) by hand.
    weights = [36 * (40 / 36) / (2 + 400 * 40 / 36), 36 * (8 / 36) / (2 + 20 * 8 / 36)]
    plain, plus = grad_cam(model, pixels, 0), grad_cam_plus_plus(model, pixels, 0)
    assert plain[0, 0] == 1 and plain[5, 5] == pytest.approx(8 / 40)
    assert plus[5, 5] == 1 and plus[0, 0] == pytest.approx(weights[0] / weights[1], rel=1e-4)


def test_maps_below_zero_do_not_turn_the_sign():
    model = network("pool")
    weights = model.get_weights()
    model.get_layer("conv").activation = None  # as before a batch normalisation
    model.set_weights([-np.abs(weights[0]), *weights[1:]])
    found = GradCam(model, plus_plus=True)(picture(), 0)
    assert np.isfinite(found).all() and found.min() >= 0 and found.max() <= 1


# ---------------------------------------------------------------- layers


def two_ways(seed: int = 3):
    """Return a network in which a shortcut leads around the layer `b`, its scores linear in its maps."""
    import keras

    k = keras.layers
    image = keras.Input((6, 6, 3))
    a = k.Conv2D(4, 3, padding="same", name="a")(k.Rescaling(1 / 255)(image))
    joined = k.Add(name="add")([a, k.Conv2D(4, 3, padding="same", name="b")(a)])
    x = k.Dense(2, activation="softmax", name="predictions")(k.GlobalAveragePooling2D()(joined))
    model = keras.Model(image, x, name="two-ways")
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=weight.shape) / 3 for weight in model.get_weights()])
    return model


@pytest.mark.parametrize("plus_plus", [False, True])
def test_a_layer_that_a_way_leads_around_by_hand(plus_plus):
    import keras

    model, image = two_ways(), picture()
    before = model.to_json()
    found = GradCam(model, "b", plus_plus)(image, 1)
    maps = np.asarray(keras.Model(model.input, model.get_layer("b").output).predict_on_batch(image[None]))[0]
    slope = model.get_layer("predictions").get_weights()[0][:, 1].astype(float) / 36
    rising = np.maximum(slope, 0)
    weights = 36 * rising / (2 + np.maximum(maps, 0).sum(axis=(0, 1)) * rising) if plus_plus else slope
    heat = np.maximum(maps @ weights, 0)
    np.testing.assert_allclose(found, heat / heat.max(), atol=1e-4)
    assert model.to_json() == before, "the model can still be saved"


def test_the_gradient_takes_every_way():
    """Of the layer before the branch the gradient is that of a small change of its maps, through both branches."""
    import keras

    model, image = two_ways(), picture()
    found = GradCam(model, "a")(image, 0)
    maps = np.asarray(keras.Model(model.input, model.get_layer("a").output).predict_on_batch(image[None]))[0]
    kernel, bias = (weight.astype(float) for weight in model.get_layer("b").get_weights())
    column = model.get_layer("predictions").get_weights()[0][:, 0].astype(float)

    def score(values):
        padded = np.pad(values, ((1, 1), (1, 1), (0, 0)))
        b = sum(padded[i : i + 6, j : j + 6] @ kernel[i, j] for i in range(3) for j in range(3)) + bias
        return (values + b).mean(axis=(0, 1)) @ column

    slopes = []
    for channel in range(4):
        change = np.zeros_like(maps)
        change[..., channel] = 1
        slopes.append((score(maps + change) - score(maps)) / 36)  # the score is linear: all places together
    heat = np.maximum(maps @ np.array(slopes), 0)
    np.testing.assert_allclose(found, heat / heat.max(), atol=1e-4)


def test_the_last_maps_by_name_are_the_usual_ones():
    for name in ("small", "residual"):
        model = build_model(name, classes=3, input_size=48)
        usual = GradCam(model)
        assert usual.layer in cam_layers(model)
        np.testing.assert_allclose(
            GradCam(model, usual.layer)(picture(size=48), 1), usual(picture(size=48), 1), atol=1e-5
        )


def test_layers_of_an_ensemble():
    from customcnn.training.ensemble import soft_vote

    members = [build_model("small", input_size=32), build_model("one-conv", input_size=16)]
    model = soft_vote(members, [0.5, 0.5], (32, 32))
    assert "member1_small/conv2" in cam_layers(model) and "member2_one-conv/conv1" in cam_layers(model)
    found = GradCam(model, "member1_small/conv2")(picture(size=32), 1)
    np.testing.assert_allclose(found, GradCam(members[0], "conv2")(picture(size=32), 1), atol=1e-6)
    with pytest.raises(CustomCNNError, match=r"Received: 'conv2', which 'ensemble' does not have\. Near are "):
        GradCam(model, "conv2")


def test_a_layer_that_is_not_there():
    model = build_model("small", input_size=32)
    assert cam_layers(model) == ["conv1", "pool1", "conv2", "pool2", "conv3", "pool3"]
    for name in ("fc1", "conv9", "rescale"):
        with pytest.raises(CustomCNNError, match=f"Received: '{name}', which 'small' does not have"):
            GradCam(model, name)


def test_a_map_without_padding_lies_where_the_network_looked():
    """A network that looks at whiteness, without padding: the heat is over the white spot, not moved outwards."""
    import keras

    image = x = keras.Input((40, 40, 3))
    for _ in range(3):
        x = keras.layers.AveragePooling2D(2)(keras.layers.Conv2D(1, 5, activation="relu")(x))
    model = keras.Model(image, keras.layers.Dense(2, activation="softmax")(keras.layers.Flatten()(x)))
    kernels = [
        np.ones_like(weight) / 75 if weight.ndim == 4 else np.zeros_like(weight) for weight in model.get_weights()
    ]
    kernels[-2] = np.array([[1.0, 0.0]], np.float32).repeat(kernels[-2].shape[0], axis=0)
    model.set_weights(kernels)
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[12:18, 22:28] = 255
    heat = GradCam(model, model.layers[3].name)(pixels, 0)  # the second convolution
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert abs(row - 14.5) <= 1 and abs(column - 24.5) <= 1
