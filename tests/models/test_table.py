"""Every row of the table of networks: weights, shapes, limits, error texts, precision, saving; and the pieces."""

import contextlib
import functools
import gc
import io
import json
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from customcnn.errors import CustomCNNError
from customcnn.models import build_model, get_spec, list_models
from customcnn.models.summary import render_summary, summarize
from customcnn.models.table import SCALINGS
from tests.support.networks import WITH_HEADS

SPECS = {spec.name: spec for spec in list_models()}
DOCS = Path(__file__).parents[2] / "docs" / "models.md"
QUICK = ("proposed", "proposed-figures", "alexnet", "small", "one-conv", "googlenet")
NAMES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.backend) for name in SPECS]

every_one = pytest.mark.usefixtures("every_one_is_tested")
one_with_a_head = pytest.mark.usefixtures("one_with_a_head_is_tested")


@pytest.fixture
def every_one_is_tested():
    """Mark a test that siblings take too; tests/models/conftest.py leaves them out of the others."""


@pytest.fixture
def one_with_a_head_is_tested():
    """Mark a test that one of the networks with a head takes for all of them."""


# Tests of one network follow each other, so that it is built once for them and then let go.
@pytest.fixture(scope="module", params=NAMES)
def name(request):
    """The name of every network."""
    return request.param


@pytest.fixture(scope="module")
def least(name):
    """The network of that name at its minimum size, for two classes."""
    yield build_model(name, input_size=SPECS[name].minimum_size)
    gc.collect()


@functools.cache
def summary_of(name: str) -> dict:
    """Return the summary of a network at its own size; the network itself is let go."""
    return summarize(build_model(name, classes=SPECS[name].classes))


@pytest.fixture
def precision():
    """Return a function that sets the precision of new layers; afterwards it is as before."""
    import keras

    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


def _images(model, count: int = 3, seed: int = 1) -> np.ndarray:
    shape = (count, *model.input_shape[1:])
    return np.random.default_rng(seed).integers(0, 256, shape, dtype="uint8")


def _output(model, images: np.ndarray) -> np.ndarray:
    """Return what a network makes of images; without a compiled function, which large ones wait long for."""
    import keras

    return keras.ops.convert_to_numpy(model(images.astype("float32"), training=False))


# ------------------------------------------------------------------------------------------------ what was published


@every_one
def test_parameters_are_those_of_the_table(least, name):
    # Behind the mean of every channel the size of the images does not matter, and a small network is built sooner.
    found = least.count_params() if name in WITH_HEADS else summary_of(name)["parameters"]
    assert found == SPECS[name].parameters


def _rows(summary: dict, left_out: str) -> list[str]:
    """Return "name height,width,channels parameters" of every layer but those whose name the pattern finds."""
    rows = [f"{row['name']} {','.join(map(str, row['output']))} {row['parameters']}" for row in summary["layers"]]
    return [row for row in rows if not re.search(left_out, row.split()[0])]


def _listed(text: str) -> list[str]:
    return [" ".join(row.split()) for row in re.split("[;\n]", text.strip())]


def test_proposed_has_fourteen_convolutions():
    layers = summary_of("proposed")["layers"]
    blocks = [layer for layer in layers if layer["name"].startswith("block")]
    names = [layer["name"] for layer in blocks if layer["kind"] == "Conv2D"]
    assert [sum(name.startswith(f"block{block}_") for name in names) for block in range(1, 7)] == [3, 3, 2, 2, 2, 2]
    assert sum(layer["parameters"] for layer in blocks) == 7_572_224
    pools = [layer["name"] for layer in blocks if layer["kind"] == "MaxPooling2D"]
    assert pools == [f"block{block}_pool1" for block in (1, 2, 4, 5, 6)]


def test_figure_18_row_by_row():
    """The rows that the figure prints, from block 4 on, and its totals. Its batch norms have automatic names."""
    layers = [layer for layer in summary_of("proposed-figures")["layers"] if layer["name"].startswith("block")]
    assert _rows({"layers": layers}, left_out="^block[123]") == _listed("""
        block4_conv1 38,38,256 295168; block4_conv1_bn 38,38,256 1024
        block4_conv2 38,38,256 590080; block4_conv2_bn 38,38,256 1024; block4_pool1 19,19,256 0
        block5_conv1 19,19,384 885120; block5_conv1_bn 19,19,384 1536
        block5_conv2 19,19,384 1327488; block5_conv2_bn 19,19,384 1536; block5_pool1 10,10,384 0
        block6_conv1 10,10,512 1769984; block6_conv1_bn 10,10,512 2048
        block6_conv2 10,10,512 2359808; block6_conv2_bn 10,10,512 2048; block6_pool1 5,5,512 0""")
    assert sum(layer["parameters"] for layer in layers) == 7_535_040
    # Of a batch norm's 4 weights a channel, 2 are trained and 2 are running statistics.
    statistics = sum(layer["parameters"] for layer in layers if layer["name"].endswith("_bn")) // 2
    assert (statistics, 7_535_040 - statistics) == (5568, 7_529_472)


def test_figure_19_row_by_row():
    summary = summary_of("proposed-figures")
    assert _rows(summary, left_out="^block") == _listed("""
        rescale 150,150,3 0; flatten 12800 0; fc1 4096 52432896; fc1_dropout 4096 0
        fc2 1000 4097000; fc2_dropout 1000 0; predictions 2 2002""")
    totals = summary["parameters"], summary["trainable"], summary["non_trainable"]
    assert totals == (64_066_938, 64_061_370, 5568)


def test_alexnet_layer_by_layer():
    assert _rows(summary_of("alexnet"), left_out="dropout") == _listed("""
        rescale 227,227,3 0; conv1 55,55,96 34944; lrn1 55,55,96 0; pool1 27,27,96 0
        conv2 27,27,256 614656; lrn2 27,27,256 0; pool2 13,13,256 0
        conv3 13,13,384 885120; conv4 13,13,384 1327488; conv5 13,13,256 884992; pool5 6,6,256 0
        flatten 9216 0; fc6 4096 37752832; fc7 4096 16781312; predictions 2 8194""")


def test_small_layer_by_layer():
    assert _rows(summary_of("small"), left_out="^$") == _listed("""
        rescale 224,224,3 0; conv1 222,222,32 896; pool1 111,111,32 0; conv2 109,109,64 18496; pool2 54,54,64 0
        conv3 52,52,64 36928; pool3 26,26,64 0; flatten 43264 0; fc1 64 2768960; predictions 1 65""")


# ------------------------------------------------------------------------------------------- what holds for every row


@one_with_a_head
def test_layers_have_names_of_their_own(least, name):
    """Automatic names end in a counter that goes on from network to network: two builds would differ."""
    again = build_model(name, input_size=SPECS[name].minimum_size)
    names = [layer.name for layer in again.layers]
    assert names == [layer.name for layer in least.layers]
    assert len(set(names)) == len(names)
    assert (names[0], names[1], names[-1], again.name) == ("image", "rescale", "predictions", name)
    assert [weight.path for weight in again.weights] == [weight.path for weight in least.weights]


# What it makes of a pixel of red 0, green 51 and blue 255.
SCALED = {
    "x / 255": [0, 0.2, 1],
    "x / 127.5 - 1": [-1, -0.6, 1],
    "blue, green, red, each less ImageNet's mean": [255 - 103.939, 51 - 116.779, 0 - 123.68],
    "(x / 255 - mean) / deviation of ImageNet": [-0.485 / 0.229, (0.2 - 0.456) / 0.224, (1 - 0.406) / 0.225],
    "inside the network": [0, 51, 255],
}


def test_first_layer_scales_raw_pixels(least, name):
    import keras

    rescale = keras.Model(least.input, least.get_layer("rescale").output)
    pixels = np.zeros((1, *least.input_shape[1:]), dtype="uint8")
    pixels[0, 0, 0] = 0, 51, 255
    np.testing.assert_allclose(_output(rescale, pixels)[0, 0, 0], SCALED[SPECS[name].scaling], rtol=1e-6, atol=1e-6)


@one_with_a_head
@pytest.mark.parametrize("classes", [2, 3])
def test_any_number_of_classes(least, name, classes):
    spec = SPECS[name]
    model = least if classes == 2 else build_model(name, classes=classes, input_size=spec.minimum_size)
    found = _output(model, _images(model))
    sigmoid = spec.output != "softmax" and classes == 2
    assert found.shape == ((3, 1) if sigmoid else (3, classes))
    assert found.dtype == np.float32
    assert ((found >= 0) & (found <= 1)).all()
    if not sigmoid:
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    inputs = model.get_layer("predictions").kernel.shape[0]
    assert model.get_layer("predictions").count_params() == (inputs + 1) * found.shape[1]


@pytest.mark.backend
def test_one_training_step(least, name):
    """The loss is finite, and every weight that has a slope moves."""
    import keras

    model = keras.models.clone_model(least)
    # Layer by layer: for one step of a large network a compiled function would take longer to make than it saves.
    loss = "binary_crossentropy" if model.output_shape[-1] == 1 else "categorical_crossentropy"
    model.compile(optimizer=keras.optimizers.SGD(0.01), loss=loss, run_eagerly=True, jit_compile=False)
    before = model.get_weights()
    labels = np.arange(2)
    targets = np.eye(2)[labels] if model.output_shape[-1] > 1 else labels[:, None]
    assert np.isfinite(model.train_on_batch(_images(model, 2), targets))
    after = model.get_weights()
    assert all(np.isfinite(weight).all() for weight in after)
    assert np.any(after[-1] != before[-1]) and np.any(after[-2] != before[-2])
    moved = sum(np.any(new != old) for new, old in zip(after, before, strict=True))
    assert moved > len(before) / 2


def test_minimum_size_is_a_limit(least, name):
    least_size = SPECS[name].minimum_size
    assert least.input_shape == (None, least_size, least_size, 3)
    for size in (least_size - 1, (least_size - 1, 300), (300, least_size - 1)):
        height, width = (size, size) if isinstance(size, int) else size
        with pytest.raises(CustomCNNError) as caught:
            build_model(name, input_size=size)
        rule = f"{name} needs an input of at least {least_size} x {least_size} pixels. Received: {height} x {width}. "
        assert str(caught.value).startswith(rule + "Give a larger input_size")
        assert "\n" not in str(caught.value)


def test_minimum_size_is_the_true_one():
    """One pixel less and a pooling has nothing to choose from: not one window ('valid'), or one pixel ('same')."""
    assert _sides(67, (11, 4), (3, 2), (3, 2), (3, 2))[-1] == 1
    assert _sides(66, (11, 4), (3, 2), (3, 2), (3, 2))[-1] == 0
    assert _sides(22, (3, 1), (2, 2), (3, 1), (2, 2), (3, 1), (2, 2))[-1] == 1
    assert _sides(21, (3, 1), (2, 2), (3, 1), (2, 2), (3, 1), (2, 2))[-1] == 0
    halved = [17]
    while len(halved) < 6:
        halved.append(-(-halved[-1] // 2))
    assert halved == [17, 9, 5, 3, 2, 1]  # from 16 the last pooling would find one pixel: 16, 8, 4, 2, 1, 1


def _sides(side: int, *windows: tuple[int, int]) -> list[int]:
    """Follow a side through windows of (size, stride) without padding."""
    sides = [side]
    for size, stride in windows:
        sides.append((sides[-1] - size) // stride + 1)
    return sides


@one_with_a_head
def test_input_need_not_be_square(name):
    size = (SPECS[name].minimum_size, SPECS[name].minimum_size + 8)
    model = build_model(name, input_size=size)
    assert model.input_shape == (None, *size, 3)
    assert _output(model, _images(model)).shape[0] == 3


@pytest.mark.parametrize("policy", ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.backend)])
def test_low_precision_gives_float32_probabilities(precision, least, name, policy):
    precision(policy)
    model = build_model(name, input_size=SPECS[name].minimum_size)
    model.set_weights(least.get_weights())
    found = _output(model, _images(model))
    assert found.dtype == np.float32
    if found.shape[1] > 1:
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(found, _output(least, _images(model)), atol=0.03)


LOAD = """
import sys
sys.modules["customcnn"] = None  # from here on, importing it fails
import keras, numpy as np
for path in sys.argv[1:]:
    model = keras.models.load_model(path + ".keras")
    with np.load(path + ".npz") as file:
        found = keras.ops.convert_to_numpy(model(file["images"].astype("float32"), training=False))
        np.testing.assert_allclose(found, file["found"], atol=1e-5)
print("loaded", len(sys.argv) - 1)
"""


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("mixed_bfloat16", QUICK),
        ("float32", ("efficientnetb0", "convnexttiny")),  # layers of their own
    ],
)
@pytest.mark.backend
def test_saved_networks_load_without_this_package(precision, tmp_path, kind, names):
    precision(kind)
    paths = []
    for name in names:
        model = build_model(name, input_size=SPECS[name].minimum_size)
        paths.append(str(tmp_path / name))
        model.save(paths[-1] + ".keras")
        images = _images(model)
        np.savez(paths[-1] + ".npz", images=images, found=_output(model, images))
    command = [sys.executable, "-c", LOAD, *paths]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"loaded {len(names)}" in done.stdout


def test_outputs_of_convolutions_and_poolings_can_be_taken(least):
    """A second model over the inner layers works: the activation maps are drawn from it."""
    import keras

    layers = [layer for layer in least.layers if "conv" in layer.name or "pool" in layer.name]
    inner = keras.Model(least.input, [layer.output for layer in layers])
    maps = inner(_images(least).astype("float32"), training=False)
    assert [tuple(found.shape[1:]) for found in maps] == [tuple(layer.output.shape[1:]) for layer in layers]


@one_with_a_head
def test_dropout_is_an_option(name):
    spec = SPECS[name]
    if "dropout" not in spec.options:
        with pytest.raises(CustomCNNError, match="takes only"):
            build_model(name, dropout=0.25)
        return
    model = build_model(name, input_size=spec.minimum_size, dropout=0.25)
    rates = [layer.rate for layer in model.layers if layer.name.startswith(("fc", "head_")) and "dropout" in layer.name]
    assert rates == [0.25] * {"proposed": 2, "proposed-figures": 2, "alexnet": 2}.get(name, 1)
    usual = build_model(name, input_size=spec.minimum_size)
    own = {"googlenet": 0.4}.get(name, spec.options["dropout"])
    found = {layer.rate for layer in usual.layers if layer.name.startswith(("fc", "head_")) and "dropout" in layer.name}
    assert found == ({own} if own else set())


# ---------------------------------------------------------------------------------------- options of every network


@pytest.mark.parametrize("name", ["small", "googlenet", pytest.param("mobilenetv2", marks=pytest.mark.backend)])
def test_center_crop_looks_at_the_middle(name):
    """The network behind it is the one for the smaller input; an odd rest is cut off right and below."""
    import keras

    keras.utils.set_random_seed(1)
    whole = build_model(name, input_size=32)
    cropped = build_model(name, input_size=(37, 32 + 6), center_crop=32)
    names = [layer.name for layer in cropped.layers]
    assert names[:3] == ["image", "center_crop", "rescale"]
    assert names[2:] == [layer.name for layer in whole.layers][1:]
    cropped.set_weights(whole.get_weights())
    images = _images(cropped)
    np.testing.assert_allclose(_output(cropped, images), _output(whole, images[:, 2:34, 3:35]), atol=1e-6)


@pytest.mark.parametrize("name", ["small", "vgg16", "densenet121", "mobilenetv2", "efficientnetb0"])
def test_normalize_by_imagenet_takes_the_place_of_the_own_scaling(name):
    """Of every scaling, one."""
    import keras

    size = SPECS[name].minimum_size
    model = build_model(name, input_size=size, normalize="imagenet")
    rescale = keras.Model(model.input, model.get_layer("rescale").output)
    pixels = np.tile(np.array([0, 51, 255], dtype="uint8"), (1, size, size, 1))
    expected = np.array(SCALED["(x / 255 - mean) / deviation of ImageNet"])
    if re.fullmatch(r"efficientnetb\d", name):  # it divides by 255 itself
        expected *= 255
    np.testing.assert_allclose(_output(rescale, pixels)[0, 0, 0], expected, rtol=1e-5)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_raw_pixels_take_the_place_of_every_scaling(scaling):
    """As the transfer study had it: "no scaling is required"."""
    import keras

    from customcnn.models.blocks import rgb_input

    pixels = np.array([[[[0, 51, 255]]]], dtype="uint8")
    model = keras.Model(*rgb_input((1, 1), "raw", scaling=scaling))
    assert _output(model, pixels).ravel().tolist() == [0, 51, 255]


@pytest.mark.parametrize("name", ["small", "vgg16", "mobilenetv3small"])
def test_raw_pixels_reach_a_network(name):
    """What scales inside a library's network, as in MobileNetV3, stays there."""
    import keras

    size = SPECS[name].minimum_size
    model = build_model(name, input_size=size, normalize="raw")
    rescale = keras.Model(model.input, model.get_layer("rescale").output)
    pixels = np.tile(np.array([0, 51, 255], dtype="uint8"), (1, size, size, 1))
    assert _output(rescale, pixels)[0, 0, 0].tolist() == [0, 51, 255]
    assert ("rescaling_1" in {layer.name for layer in model.layers}) == (name == "mobilenetv3small")


@pytest.mark.parametrize(
    ("name", "freeze", "frozen"),
    [
        ("small", "none", []),
        ("small", "0", []),
        ("small", "all", ["conv1", "conv2", "conv3"]),
        ("small", "2", ["conv1"]),  # the input counts as the first layer
        ("small", 4, ["conv1", "conv2"]),
        ("small", "-2", ["conv1", "conv2"]),
        ("small", "-7", []),
        ("one-conv", "all", ["conv1"]),
        ("alexnet", "all", ["conv1", "conv2", "conv3", "conv4", "conv5"]),
        ("googlenet", "3", ["conv1"]),
    ],
)
def test_freeze_keeps_layers_before_the_classifier(name, freeze, frozen):
    model = build_model(name, input_size=SPECS[name].minimum_size, freeze=freeze)
    found = [layer.name for layer in model.layers if layer.weights and not layer.trainable]
    assert found == frozen
    assert model.get_layer("predictions").trainable


def test_weights_that_are_frozen_do_not_move():
    import keras

    model = build_model("small", input_size=22, freeze="-2")
    before = {layer.name: layer.get_weights() for layer in model.layers}
    model.compile(optimizer=keras.optimizers.SGD(1.0), loss="binary_crossentropy", run_eagerly=True)
    model.train_on_batch(_images(model, 4), np.array([[0], [1], [0], [1]]))
    moved = {
        name: any(np.any(new != old) for new, old in zip(model.get_layer(name).get_weights(), weights, strict=True))
        for name, weights in before.items()
        if weights
    }
    assert moved == {"conv1": False, "conv2": False, "conv3": True, "fc1": True, "predictions": True}


# ------------------------------------------------------------------------------------------------- errors and summary


KNOWN = "The model must be one of those that customcnn models lists. "
SIZES = "input_size must be a whole number of pixels, or two: height and width. "
SMALL = "small needs an input of at least 22 x 22 pixels. "
ALEXNET = "alexnet needs an input of at least 67 x 67 pixels. "
LARGER = "Give a larger input_size"
CLASSES = "small needs a whole number of classes, 2 or more. "
SHARE = "dropout must be a share of 0 or more and below 1. "
EVERYWHERE = "freeze, normalize, center_crop"
OWN = "has its own classifier and takes no"
VGG = "Leave it out, or choose a backbone such as vgg16."
FILE = "weights must be none, imagenet, or a file of weights that ends in .h5. "
FREEZE = "freeze must be none, all, or a whole number of layers. "
LAYERS = "5 freezes the first 5 layers, -5 all but the last 5."
SEVEN = "freeze must be none, all, or a number of layers up to the 7 of small before its classifier. "
CROP = "center_crop must be a whole number of pixels, 0 or more. "
BETWEEN = "center_crop must lie between 22, the least that small needs, and "
SIDE = "the shorter side of the input. "


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("alexnt", {}, f"{KNOWN}Received: 'alexnt'. Did you mean alexnet?"),
        ("Small", {}, f"{KNOWN}Received: 'Small'. Did you mean small?"),
        ("x\ny", {}, f"{KNOWN}Received: 'x\\ny'. Choose one of them."),
        ("small", {"input_size": 3}, f"{SMALL}Received: 3 x 3. {LARGER}."),
        ("small", {"input_size": (10, 30)}, f"{SMALL}Received: 10 x 30. {LARGER} or choose one-conv."),
        ("small", {"input_size": 96.0}, f"{SIZES}Received: 96.0. small is usually given 224."),
        ("small", {"input_size": (96, 96, 3)}, f"{SIZES}Received: (96, 96, 3). small is usually given 224."),
        ("small", {"classes": 1}, f"{CLASSES}Received: 1. Give the data one folder for each class."),
        ("small", {"classes": True}, f"{CLASSES}Received: True. Give the data one folder for each class."),
        ("proposed", {"drop": 0.5}, f"proposed takes only dropout, {EVERYWHERE}. Received: 'drop'. Leave it out."),
        ("one-conv", {"dropout": 0.5}, f"one-conv takes only {EVERYWHERE}. Received: 'dropout'. Leave it out."),
        ("proposed", {"dropout": 1}, f"{SHARE}Received: 1. proposed is usually given 0.5."),
        ("proposed", {"dropout": "half"}, f"{SHARE}Received: 'half'. proposed is usually given 0.5."),
        ("alexnet", {"input_size": 48}, f"{ALEXNET}Received: 48 x 48. {LARGER} or choose mobilenetv3small."),
        (
            "proposed",
            {"head": "plain"},
            f"proposed has its own classifier and takes no head. Received: head 'plain'. {VGG}",
        ),
        (
            "small",
            {"pooling": "max"},
            f"small has its own classifier and takes no pooling. Received: pooling 'max'. {VGG}",
        ),
        ("small", {"weights": "imagenet"}, f"small begins with random weights. Received: weights 'imagenet'. {VGG}"),
        ("vgg16", {"head": "big"}, "head must be one of plain, transfer, dense128, report. Received: 'big'."),
        ("vgg16", {"head": None}, "head must be one of plain, transfer, dense128, report. Received: None."),
        ("vgg16", {"pooling": "min"}, "pooling must be one of avg, max. Received: 'min'."),
        ("vgg16", {"normalize": "zscore"}, "normalize must be one of own, imagenet, raw. Received: 'zscore'."),
        (
            "vgg16",
            {"classifier_activation": "relu"},
            "classifier_activation must be one of softmax, sigmoid. Received: 'relu'.",
        ),
        (
            "small",
            {"classifier_activation": "sigmoid"},
            f"small has its own classifier and takes no classifier_activation. Received: classifier_activation "
            f"'sigmoid'. {VGG}",
        ),
        (
            "googlenet",
            {"auxiliary": True, "classifier_activation": "sigmoid"},
            "With its auxiliary classifiers googlenet keeps its own head: plain, with average pooling and softmax. "
            "Received: head 'plain', pooling 'avg', classifier_activation 'sigmoid'. Leave out auxiliary, or these.",
        ),
        ("vgg16", {"dropout": 1.0}, f"{SHARE}Received: 1.0. Leave it out for the head's own."),
        ("vgg16", {"weights": "best.keras"}, f"{FILE}Received: 'best.keras'. Check its name."),
        (
            "vgg16",
            {"weights": "there is none.h5"},
            "weights must be none, imagenet, or a file that exists. Received: 'there is none.h5'. Check its name.",
        ),
        (
            "densenet161",
            {"weights": "imagenet"},
            "Keras has no ImageNet weights for densenet161. Received: weights 'imagenet'. Use weights=none or a file.",
        ),
        (
            "vgg16",
            {"head": "report", "pooling": "max"},
            "The head report flattens the feature maps and pools nothing. Received: pooling 'max'. Leave it out, or "
            "choose another head.",
        ),
        ("googlenet", {"auxiliary": 1}, "auxiliary must be true or false. Received: 1."),
        (
            "googlenet",
            {"auxiliary": True, "head": "transfer"},
            "With its auxiliary classifiers googlenet keeps its own head: plain, with average pooling and softmax. "
            "Received: head 'transfer', pooling 'avg', classifier_activation 'softmax'. "
            "Leave out auxiliary, or these.",
        ),
        (
            "googlenet",
            {"auxiliary": True, "input_size": 64},
            "googlenet with its auxiliary classifiers needs at least 65 x 65 pixels. Received: 64 x 64. Give a larger "
            "input_size or leave out auxiliary.",
        ),
        ("small", {"freeze": "some"}, f"{FREEZE}Received: 'some'. {LAYERS}"),
        ("small", {"freeze": True}, f"{FREEZE}Received: True. {LAYERS}"),
        ("small", {"freeze": 1.5}, f"{FREEZE}Received: 1.5. {LAYERS}"),
        ("small", {"freeze": "8"}, f"{SEVEN}Received: 8. Use all for every one."),
        ("small", {"freeze": "-8"}, f"{SEVEN}Received: -8. Use all for every one."),
        ("small", {"center_crop": -1}, f"{CROP}Received: -1. 0 takes the whole input."),
        ("small", {"center_crop": 30.0}, f"{CROP}Received: 30.0. 0 takes the whole input."),
        ("small", {"center_crop": 21}, f"{BETWEEN}224, {SIDE}Received: 21. 0 takes the whole input."),
        (
            "small",
            {"center_crop": 40, "input_size": (50, 30)},
            f"{BETWEEN}30, {SIDE}Received: 40. 0 takes the whole input.",
        ),
    ],
)
def test_errors_say_the_rule_the_value_and_the_way_out(name, arguments, message):
    with pytest.raises(CustomCNNError) as caught:
        build_model(name, **arguments)
    assert str(caught.value) == message


def test_the_table_is_plain_and_complete():
    assert len(SPECS) == len(list_models()) >= 26  # no name twice
    for name, spec in SPECS.items():
        assert get_spec(name) is spec
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
        assert re.fullmatch(r"customcnn\.models\.\w+:\w+", spec.builder)
        assert spec.minimum_size <= spec.input_size
        assert spec.title and spec.citation
        assert spec.scaling in SCALED
        assert {"freeze", "normalize", "center_crop"} <= spec.options.keys()
        assert json.loads(json.dumps(asdict(spec)))["name"] == name


def test_the_table_is_read_without_keras():
    heavy = "{'keras', 'tensorflow', 'jax', 'torch', 'numpy'} & set(sys.modules)"
    code = f"import sys, customcnn.models as m, customcnn.models.summary; m.list_models(); sys.exit(bool({heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_summary_as_text():
    summary = {
        "model": "tiny",
        "input": [8, 9, 3],
        "parameters": 1234,
        "trainable": 1230,
        "non_trainable": 4,
        "layers": [
            {"name": "conv1", "kind": "Conv2D", "output": [6, 7, 32], "parameters": 1230},
            {"name": "flatten", "kind": "Flatten", "output": [1344], "parameters": 4},
        ],
    }
    assert render_summary(summary).splitlines() == [
        "tiny, input 8 x 9 x 3",
        "",
        "layer    kind     output      parameters",
        "----------------------------------------",
        "conv1    Conv2D   6 x 7 x 32       1,230",
        "flatten  Flatten  1344                 4",
        "",
        "1,234 parameters: 1,230 trainable, 4 non-trainable",
    ]


# --------------------------------------------------------------------------------------- local response normalisation


def _lrn(x: np.ndarray) -> np.ndarray:
    import keras

    from customcnn.models.blocks import local_response_norm

    image = keras.Input(x.shape[1:])
    return keras.Model(image, local_response_norm(image, "lrn")).predict_on_batch(x)


def test_lrn_by_hand():
    """300^2 + 200^2 + 100^2 = 140000, and (2 + 0.0001 * 140000)^0.75 = 16^0.75 = 8."""
    x = np.zeros((2, 1, 2, 10), dtype="float32")
    x[1, 0, 1] = 300, 200, -100, 0, 0, 0, 0, 100, -200, 300
    expected = np.zeros_like(x)
    expected[1, 0, 1] = 37.5, 25, -12.5, 0, 0, 0, 0, 12.5, -25, 37.5
    np.testing.assert_allclose(_lrn(x), expected, rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 3, 4, 9])
def test_lrn_is_the_formula_of_the_paper(channels):
    x = np.random.default_rng(channels).normal(0, 150, (2, 3, 2, channels)).astype("float32")
    expected = np.empty_like(x)
    for c in range(channels):
        around = x[..., max(0, c - 2) : min(channels - 1, c + 2) + 1].astype("float64")
        expected[..., c] = x[..., c] / (2 + 1e-4 * (around**2).sum(axis=-1)) ** 0.75
    np.testing.assert_allclose(_lrn(x), expected, rtol=1e-5)


def test_lrn_is_that_of_pytorch_but_for_its_alpha():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(5).normal(0, 150, (2, 3, 4, 7)).astype("float32")
    theirs = torch.nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)  # theirs is divided by n = 5
    expected = theirs(torch.tensor(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(_lrn(x), expected, rtol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_lrn_is_computed_in_float32(precision, policy):
    """In bfloat16 2 + 0.0001 * 5 * 4^2 = 2.008 would be 2; in float16 the square of 300 would be infinite."""
    precision(policy)
    for value in (4.0, 300.0):
        x = np.full((1, 1, 1, 5), value, dtype="float32")
        found = _lrn(x)[0, 0, 0, 2]
        assert found == pytest.approx(value / (2 + 1e-4 * 5 * value**2) ** 0.75, rel=1e-6)


# -------------------------------------------------------------------------------------------------- the documentation


def test_documentation_is_true():
    """Every network has its section or its place in a family's, and the programs print what the page says they do."""
    text = DOCS.read_text(encoding="utf-8")
    for name, spec in SPECS.items():
        assert f"{spec.parameters:,}" in text
        assert f"\n## {name}\n" in text or re.search(rf"\n### .*\b{name}\b.*\n", text), name
    programs = re.findall(r"```python\n(.*?)```\n\n(?:[^`\n].*\n\n)?```text\n(.*?)```", text, flags=re.S)
    assert len(programs) == text.count("```python") > 0
    for program, expected in programs:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(program, str(DOCS), "exec"), {})
        assert printed.getvalue() == expected
