"""Backbones: the library's networks, scaled as the library wants, behind our heads; their weights, and freezing."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from customcnn.models import build_model, get_spec, list_models
from customcnn.models.freeze import body_layers, freeze_layers
from customcnn.models.summary import render_summary, summarize
from tests.support.errors import refused
from tests.support.networks import SIBLINGS

APPLICATIONS = {spec.name: spec.arguments["application"] for spec in list_models() if "application" in spec.arguments}
QUICK = ("mobilenetv3small",)
DEVIATION = [0.229, 0.224, 0.225]


def _each(names):
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.backend) for name in names]
    )


FAMILIES = [name for name in APPLICATIONS if name not in SIBLINGS]
every_family = _each(FAMILIES)


def _images(size: int, count: int = 2) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, size, size, 3)).astype("float32")


def _output(model, images) -> np.ndarray:
    import keras

    return keras.ops.convert_to_numpy(model(images, training=False))


def _features(model):
    """Return the part of a network before its head."""
    import keras

    return keras.Model(model.input, model.get_layer("head_pool").input)


def _library(name: str):
    """Return the library's network without its top, at its least size, and its module."""
    import keras

    build = getattr(keras.applications, APPLICATIONS[name])
    size = get_spec(name).minimum_size
    module = getattr(keras.applications, build.__module__.rpartition(".")[2])
    return build(include_top=False, weights=None, input_shape=(size, size, 3)), module


# ----------------------------------------------------------------------------------------------- what was published


@pytest.mark.backend
@pytest.mark.parametrize(
    ("name", "total", "trainable", "non_trainable"),
    [
        ("vgg19", 20_092_354, 20_091_330, 1_024),
        ("resnet50", 23_858_434, 23_801_218, 57_216),
        ("mobilenet", 3_364_418, 3_340_482, 23_936),
        ("densenet121", 7_173_058, 7_087_362, 85_696),
        ("xception", 21_132_202, 21_073_578, 58_624),
        ("efficientnetb1", 6_744_585, 6_679_970, 64_615),
    ],
)
def test_transfer_study_weighs_six_backbones(name, total, trainable, non_trainable):
    summary = summarize(build_model(name, head="transfer", input_size=224))
    assert [summary[key] for key in ("parameters", "trainable", "non_trainable")] == [total, trainable, non_trainable]


def test_googlenet_weighs_what_others_count():
    """Caffe's GoogLeNet has 6,998,552 parameters for 1000 classes, 5,973,552 of them before the classifier."""
    import keras

    summary = summarize(build_model("googlenet", classes=1000))
    assert summary["parameters"] == 6_998_552
    assert summary["layers"][-1]["parameters"] == 1_025_000
    first = ["conv1", "conv2_reduce", "conv2", "inception3a_1x1", "inception3a_3x3_reduce", "inception3a_3x3"]
    weights = {layer["name"]: layer["parameters"] for layer in summary["layers"] if layer["parameters"]}
    assert list(weights)[:3] == first[:3]
    assert [weights[name] for name in first] == [9_472, 4_160, 110_784, 12_352, 18_528, 110_720]

    # torchvision's has batch norms and, by a slip that its source admits, 3x3 where the paper has 5x5: 6,624,904.
    model = build_model("googlenet", classes=1000, batch_norm=True)
    fives = [layer for layer in model.layers if layer.name.endswith("_5x5")]
    assert len(fives) == 9
    slip = sum(np.prod(layer.kernel.shape) * (1 - 9 / 25) for layer in fives)
    assert summarize(model)["trainable"] - slip == 6_624_904
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)  # no local response normalisation


@pytest.mark.backend
def test_densenet161_weighs_what_others_count():
    """torchvision counts 28,681,000 for 1000 classes, without the running statistics of the batch norms."""
    summary = summarize(build_model("densenet161", classes=1000))
    assert summary["trainable"] == 28_681_000
    outputs = {layer["name"]: layer["output"] for layer in summary["layers"]}
    assert [outputs[f"pool{block}_pool"] for block in (2, 3, 4)] == [[28, 28, 192], [14, 14, 384], [7, 7, 1056]]
    assert outputs["conv5_relu"] == [7, 7, 2208]


# ------------------------------------------------------------------------------------ the library's networks, as such


@pytest.mark.parametrize("name", APPLICATIONS)
def test_scaling_is_that_of_the_library(name):
    import keras

    from customcnn.models.blocks import rgb_input

    image, x = rgb_input((4, 4), scaling=get_spec(name).arguments["scaling"])
    pixels = _images(4)
    module = getattr(keras.applications, APPLICATIONS[name])
    module = getattr(keras.applications, module.__module__.rpartition(".")[2])
    expected = module.preprocess_input(pixels.copy())
    np.testing.assert_allclose(_output(keras.Model(image, x), pixels), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        *((name, ".weights.h5") for name in QUICK),
        pytest.param("resnet50", ".weights.h5", marks=pytest.mark.backend),  # blue first, less its mean
        pytest.param("densenet121", ".weights.h5", marks=pytest.mark.backend),  # ImageNet's mean and deviation
        pytest.param("efficientnetb0", ".h5", marks=pytest.mark.backend),  # its layer Normalization has weights
    ],
)
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_features_are_the_library_s(tmp_path, name, ending):
    """With the weights of a file, on raw pixels: what the library's network makes of the pixels it has scaled."""
    library, module = _library(name)
    rng = np.random.default_rng(1)
    library.set_weights([weight + rng.normal(0, 0.01, weight.shape) for weight in library.get_weights()])
    file = str(tmp_path / f"backbone{ending}")
    library.save_weights(file) if ending == ".weights.h5" else library.save(file)
    library.load_weights(file)  # so that its layer Normalization takes note of the numbers too
    model = build_model(name, input_size=get_spec(name).minimum_size, weights=file)
    images = _images(get_spec(name).minimum_size)
    expected = _output(library, module.preprocess_input(images.copy()))
    found = _output(_features(model), images)
    assert np.isfinite(expected).all() and expected.std() > 0
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@every_family
def test_layers_are_the_library_s_in_its_order(name):
    """So the numbers that `freeze` takes mean what they mean in `network.layers[:N]`."""
    import keras

    library, _ = _library(name)
    expected = []
    for layer in library.layers:
        expected += layer.layers if isinstance(layer, keras.Sequential) else [layer]
    found = body_layers(build_model(name, input_size=get_spec(name).minimum_size))
    assert [(type(layer), layer.output.shape) for layer in found] == [
        (type(layer), layer.output.shape) for layer in expected
    ]


def test_automatic_names_are_counted_from_one_in_every_build():
    """However many layers and operations of the kind there were before."""
    import keras

    keras.layers.ReLU(), keras.layers.ReLU()
    model, again = (build_model("mobilenetv3small", input_size=32) for _ in range(2))
    for kind in ("re_lu", "activation", "add"):
        names = [operation.name for operation in model.operations if operation.name.startswith(f"{kind}_")]
        assert len(names) > 5
        assert names == [f"{kind}_{number}" for number in range(1, len(names) + 1)]
    assert [operation.name for operation in again.operations] == [operation.name for operation in model.operations]


@pytest.mark.backend
def test_inception_keeps_the_numbers_of_the_library_less_what_went_before():
    library, _ = _library("inceptionv3")
    names = [layer.name for layer in library.layers if layer.name.startswith("conv2d")]
    numbers = sorted(int(name.removeprefix("conv2d").lstrip("_") or 0) for name in names)
    kernels = {number: library.get_layer(f"conv2d_{number}" if number else "conv2d").kernel.shape for number in numbers}
    model = build_model("inceptionv3", input_size=75)
    assert [model.get_layer(f"conv2d_{place}").kernel.shape for place in range(1, 95)] == list(kernels.values())


def test_channels_come_last_whatever_keras_json_says():
    import keras

    keras.config.set_image_data_format("channels_first")
    try:
        model = build_model("mobilenetv3small", input_size=32, head="transfer")
        assert keras.config.image_data_format() == "channels_first"
    finally:
        keras.config.set_image_data_format("channels_last")
    assert model.input_shape == (None, 32, 32, 3)
    assert _output(model, _images(32)).shape == (2, 2)


# ------------------------------------------------------------------------------------------------------------- heads


HEADS = {
    "plain": "head_pool predictions",
    "dense128": "head_pool head_dense predictions",
    "transfer": "head_pool head_bn head_dense head_dropout predictions",
    "report": "flatten fc1 fc1_dropout fc2 fc2_dropout predictions",
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    "name",
    ["googlenet", pytest.param("mobilenetv3small", marks=pytest.mark.backend)],
)
def test_every_head_stands_on_a_backbone(name, head):
    model = build_model(name, classes=3, input_size=32, head=head)
    layers = HEADS[head].split()
    if (name, head) == ("googlenet", "plain"):
        layers.insert(1, "head_dropout")
    assert [layer.name for layer in model.layers][-len(layers) :] == layers
    np.testing.assert_allclose(_output(model, _images(32)).sum(axis=1), 1, atol=1e-6)


def _head(*arguments):
    """Return a head alone, on maps of 2x3 with 8 channels."""
    import keras

    from customcnn.models.heads import add_head

    maps = keras.Input((2, 3, 8))
    return keras.Model(maps, add_head(maps, 2, *arguments))


def test_the_transfer_head_is_that_of_the_study():
    model = _head("transfer", "max")
    assert type(model.get_layer("head_pool")).__name__ == "GlobalMaxPooling2D"
    bn, dense = model.get_layer("head_bn"), model.get_layer("head_dense")
    assert (bn.momentum, bn.epsilon) == (0.99, 0.001)
    assert (dense.units, dense.activation.__name__) == (128, "relu")
    assert float(dense.kernel_regularizer.l2) == pytest.approx(0.016)
    assert float(dense.bias_regularizer.l1) == pytest.approx(0.006)
    assert float(dense.activity_regularizer.l1) == pytest.approx(0.006)
    assert model.get_layer("head_dropout").rate == 0.5
    assert type(_head("transfer").get_layer("head_pool")).__name__ == "GlobalAveragePooling2D"


@pytest.mark.parametrize("head", HEADS)
def test_a_head_may_end_in_sigmoids(head):
    """The transfer study prints sigmoid for its two outputs: each is a probability of its own."""
    import keras

    from customcnn.models.heads import add_head

    maps = keras.Input((2, 3, 8))
    model = keras.Model(maps, add_head(maps, 3, head, activation="sigmoid"))
    layer = model.get_layer("predictions")
    assert (layer.units, layer.activation.__name__, layer.compute_dtype) == (3, "sigmoid", "float32")
    layer.set_weights([np.zeros_like(layer.get_weights()[0]), np.array([0.0, np.log(3), -np.log(3)])])
    np.testing.assert_allclose(_output(model, np.ones((1, 2, 3, 8))), [[0.5, 0.75, 0.25]], atol=1e-6)


def test_the_report_head_is_that_of_the_report():
    model = _head("report")
    assert [model.get_layer(name).units for name in ("fc1", "fc2")] == [4096, 1000]
    assert [model.get_layer(f"{name}_dropout").rate for name in ("fc1", "fc2")] == [0.5, 0.5]
    assert model.get_layer("fc1").kernel.shape == (2 * 3 * 8, 4096)


@pytest.mark.parametrize(("head", "own"), [("plain", None), ("dense128", None), ("transfer", 0.5), ("report", 0.5)])
def test_dropout_of_a_head(head, own):
    def rates(*arguments):
        return {layer.rate for layer in _head(head, "avg", *arguments).layers if layer.name.endswith("_dropout")}

    assert rates() == ({own} if own else set())
    assert rates(0.3) == {0.3}
    assert rates(0.0) <= {0.0}


def test_googlenet_with_its_auxiliary_classifiers():
    summary = summarize(build_model("googlenet", classes=1000, auxiliary=True))
    assert summary["parameters"] == 13_378_280
    outputs = {layer["name"]: layer["output"] for layer in summary["layers"]}
    assert [outputs[f"aux1_{part}"] for part in ("pool", "conv", "flatten", "dense")] == [
        [4, 4, 512],
        [4, 4, 128],
        [2048],
        [1024],
    ]
    assert outputs["aux2_pool"] == [4, 4, 528]
    assert "13,378,280 parameters" in render_summary(summary)

    model = build_model("googlenet", auxiliary=True, input_size=65, freeze="all")
    assert model.output_names == ["predictions", "aux1", "aux2"]
    assert (model.get_layer("aux1_dropout").rate, model.get_layer("aux2_dropout").rate) == (0.7, 0.7)
    found = model(_images(65), training=False)
    assert [tuple(output.shape) for output in found] == [(2, 2)] * 3
    trained = {weight.path.partition("/")[0] for weight in model.trainable_weights}
    assert trained == {"predictions", *(f"aux{number}{part}" for number in (1, 2) for part in ("", "_conv", "_dense"))}


# ---------------------------------------------------------------------------------------------------------- freezing


def test_frozen_batch_norms_stay_as_they_are():
    """In a training step only the head moves, although batches have means of their own."""
    import keras

    for freeze in ("all", "none"):
        model = build_model("mobilenetv3small", input_size=32, head="dense128", freeze=freeze)
        model.compile(optimizer=keras.optimizers.SGD(0.1), loss="categorical_crossentropy", run_eagerly=True)
        before = {layer.name: layer.get_weights() for layer in model.layers if layer.weights}
        model.train_on_batch(_images(32, 4), np.eye(2)[[0, 0, 0, 1]])
        moved = {
            name
            for name, weights in before.items()
            if any(np.any(new != old) for new, old in zip(model.get_layer(name).get_weights(), weights, strict=True))
        }
        assert {"head_dense", "predictions"} <= moved
        assert (moved == {"head_dense", "predictions"}) == (freeze == "all")
        assert ("conv_bn" in moved) == (freeze == "none")


def test_freeze_counts_as_the_library_does():
    library, _ = _library("mobilenetv3small")
    assert len(library.layers) == 157
    model = build_model("mobilenetv3small", input_size=40, center_crop=32, freeze="3")
    assert [layer.name for layer in model.layers if not layer.trainable] == ["image", "rescaling_1", "conv"]
    for freeze in ("5", "-5", "157", "-157", "0", "none", "all"):
        for layer in model.layers:
            layer.trainable = True
        freeze_layers(model, freeze)
        frozen = [type(layer) for layer in model.layers if not layer.trainable]
        count = {"none": 0, "all": None}.get(freeze, freeze)
        assert frozen == [type(layer) for layer in library.layers[: None if count is None else int(count)]]
    for freeze in ("158", "-158"):
        assert refused(freeze_layers, model, freeze) == (
            "freeze must be none, all, or a number of layers up to the 157 of mobilenetv3small before its classifier. "
            f"Received: {freeze}. Use all for every one."
        )


# -------------------------------------------------------------------------------------- scaling inside of a network


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("mobilenetv3small", "conv"),
        pytest.param("efficientnetv2b0", "stem_conv", marks=pytest.mark.backend),
        pytest.param("convnexttiny", "convnext_tiny_stem_conv", marks=pytest.mark.backend),
        pytest.param("efficientnetb0", "stem_conv_pad", marks=pytest.mark.backend),
    ],
)
def test_normalize_by_imagenet_reaches_the_first_convolution(name, first):
    import keras

    model = build_model(name, input_size=32, normalize="imagenet")
    images = _images(32)
    found = _output(keras.Model(model.input, model.get_layer(first).input), images)
    expected = (images / 255 - [0.485, 0.456, 0.406]) / DEVIATION
    np.testing.assert_allclose(found, expected, atol=1e-5)


# ----------------------------------------------------------------------------------------------- weights of ImageNet


def run_with_cache(tmp_path, program: str) -> dict:
    """Run a program with its own KERAS_HOME and no network; return what it puts into `found`."""
    home = tmp_path / "keras"
    (home / "models").mkdir(parents=True)
    unreachable = "http://127.0.0.1:9"  # the port where nobody answers
    environment = {"KERAS_HOME": str(home), "TF_CPP_MIN_LOG_LEVEL": "3", "no_proxy": "", "NO_PROXY": ""}
    environment |= {f"{kind}_proxy": unreachable for kind in ("http", "https", "HTTP", "HTTPS")}
    code = PROGRAM + program + "\nprint(json.dumps(found))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(home / "models")],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)  # nothing else may have been printed there


PROGRAM = """
import json, sys, time
from pathlib import Path
import numpy as np
import keras
from customcnn.errors import CustomCNNError
from customcnn.models import build_model
models, found = Path(sys.argv[1]), {}

def error(name, **options):
    began = time.monotonic()
    try:
        build_model(name, weights="imagenet", **options)
    except CustomCNNError as caught:
        return [str(caught), time.monotonic() - began]

def random_weights(application, file, **arguments):
    library = getattr(keras.applications, application)(include_top=False, weights=None, **arguments)
    rng = np.random.default_rng(1)
    library.set_weights([weight + rng.normal(0, 0.01, weight.shape) for weight in library.get_weights()])
    library.save(models / file)
    return library

def output(model, images):
    return keras.ops.convert_to_numpy(model(images, training=False))
"""

CACHE = """
found["vgg16"] = error("vgg16")
library = random_weights("MobileNet", "mobilenet_1_0_224_tf_no_top.h5")
model = build_model("mobilenet", input_size=50, weights="imagenet")
pairs = zip(library.get_weights(), model.get_weights())
found["loaded"] = [bool(np.array_equal(theirs, ours)) for theirs, ours in pairs]
(models / "mobilenet_1_0_224_tf_no_top.h5").write_bytes(b"no weights")
found["damaged"] = error("mobilenet")
"""


@pytest.mark.backend
def test_imagenet_weights_come_from_the_cache_of_keras(tmp_path):
    found = run_with_cache(tmp_path, CACHE)
    base = "https://storage.googleapis.com/tensorflow/keras-applications"
    file = "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
    message, seconds = found["vgg16"]
    assert message == (
        f"vgg16 with weights=imagenet reads '{tmp_path / 'keras' / 'models' / file}'. Received: no such file, and no "
        f"answer from {base}/vgg16/{file} ([Errno 111] Connection refused). Put the file from there in that place, or "
        "train without it: weights=none."
    )
    assert seconds < 20
    assert len(found["loaded"]) == 135 and all(found["loaded"])
    message, _ = found["damaged"]
    assert message.startswith(f"mobilenet with weights=imagenet reads a file in '{tmp_path / 'keras' / 'models'}'. ")
    assert message.endswith("Delete a damaged file there and try again, or train without: weights=none.")
    assert "\n" not in message


EFFICIENTNET = """
import hashlib
library = random_weights("EfficientNetB0", "efficientnetb0_notop.h5", input_shape=(32, 32, 3))
norm = next(layer for layer in library.layers if isinstance(layer, keras.layers.Normalization))
norm.set_weights([np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]), np.array(0)])
file = models / "efficientnetb0_notop.h5"
library.save(file)
# The library knows the hash of the true file.
hashes = sys.modules[keras.applications.EfficientNetB0.__module__].WEIGHTS_HASHES
hashes["b0"] = ("", hashlib.md5(file.read_bytes()).hexdigest())
images = np.random.default_rng(3).integers(0, 256, (2, 32, 32, 3)).astype("float32")
library = keras.applications.EfficientNetB0(include_top=False, weights="imagenet", input_shape=(32, 32, 3))
expected = output(library, images)
for weights in ("imagenet", str(file)):
    for normalize in ("own", "imagenet"):
        model = build_model("efficientnetb0", input_size=32, weights=weights, normalize=normalize)
        model = keras.Model(model.input, model.get_layer("head_pool").input)
        difference = np.abs(output(model, images) - expected).max() / np.abs(expected).max()
        found[f"{Path(weights).name} {normalize}"] = float(difference)
"""


@pytest.mark.backend
def test_efficientnet_is_scaled_the_same_from_the_cache_and_from_a_file(tmp_path):
    """Its weights hold a deviation where a variance is expected, which the library makes up for in one way only.

    Its own scaling, with ImageNet's weights, is that by ImageNet's mean and deviation: `normalize` changes nothing.
    """
    found = run_with_cache(tmp_path, EFFICIENTNET)
    assert len(found) == 4
    assert all(difference < 1e-4 for difference in found.values()), found


@pytest.mark.parametrize("content", [None, b"no weights", "other"])
def test_a_file_that_is_not_of_the_backbone(tmp_path, content):
    file = tmp_path / "backbone.weights.h5"
    if content == "other":
        build_model("small", input_size=22).save_weights(file)
    elif content:
        file.write_bytes(content)
    for name in ("mobilenetv3small", "googlenet"):
        message = refused(build_model, name, input_size=32, weights=str(file))
        assert f"Received: '{file}'" in message
        if content:
            assert message.startswith(f"The weights of {name} are a file that Keras has saved of it without its ")
            assert message.endswith("Choose the file of this network.")
        else:
            assert message.startswith("weights must be none, imagenet, or a file that exists.")


@pytest.mark.parametrize("name", ["googlenet", pytest.param("densenet161", marks=pytest.mark.backend)])
def test_weights_of_the_networks_that_are_written_here_come_from_a_file(tmp_path, name):
    import keras

    model = build_model(name, input_size=32)
    features = _features(model)
    file = str(tmp_path / "backbone.weights.h5")
    features.save_weights(file)
    keras.utils.set_random_seed(2)
    other = build_model(name, input_size=32, weights=file, head="transfer")
    np.testing.assert_allclose(_output(_features(other), _images(32)), _output(features, _images(32)), atol=1e-6)
