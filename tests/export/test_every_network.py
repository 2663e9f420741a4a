"""Exports of calibrated networks, of ensembles, of every network of the table; and what ONNX needs, by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from customcnn.data.manifest import scan
from customcnn.export import TOLERANCE, export
from customcnn.inference.classifier import predict
from customcnn.inference.runtimes import open_exported
from customcnn.metrics.calibration import apply_temperature
from customcnn.metrics.out_of_distribution import fit_novelty
from customcnn.models import list_models
from customcnn.runs.run_dir import RunDir
from customcnn.runs.saved_model import ModelInfo, load_model, read_info, save_model
from customcnn.runs.temperature import with_temperature
from customcnn.training.ensemble import soft_vote
from tests.support.exports import SIZE, formats, make_images, make_run, pixels_of, shares
from tests.support.networks import COVERED


def quick_in_onnx(**which: bool) -> list[pytest.ParameterSet]:
    """Return the formats; all but ONNX take long."""
    return [
        name if name.values[0] == "onnx" else pytest.param(name.values[0], marks=[*name.marks, pytest.mark.backend])
        for name in formats(**which)
    ]


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """A folder of images."""
    return make_images(tmp_path_factory.mktemp("images") / "images")


# ---------------------------------------------------------------- calibrated runs, and ensembles


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory, images) -> RunDir:
    """A run with a temperature, sets and a limit of novelty."""
    run = make_run(tmp_path_factory.mktemp("calibrated") / "run")
    pixels = pixels_of(images)
    sets = {"method": "lac", "coverage": 0.9, "quantile": 0.6, "unit": "image", "images": 35, "groups": None}
    stored = {"temperature": 0.4, "sets": sets, "novelty": fit_novelty(pixels).as_dict()}
    model = with_temperature(load_model(run.best), 0.4)
    save_model(model, replace(read_info(run.best), calibration=stored), run.best)
    return run


@pytest.mark.parametrize("name", quick_in_onnx(runtimes=True))
def test_an_export_of_a_calibrated_run_says_what_keras_says(calibrated, images, name, tmp_path):
    export(calibrated, format=name)
    stored = open_exported(calibrated.best, name).metadata["calibration"]
    assert stored == read_info(calibrated.best).calibration and stored["temperature"] == 0.4
    for tta in (False, True):
        ours, theirs = (predict(calibrated, [images], runtime=one, tta=tta) for one in (name, "keras"))
        for one, other in zip(ours, theirs, strict=True):
            assert list(one.probabilities.values()) == pytest.approx(list(other.probabilities.values()), abs=1e-4)
            near = any(abs(value - 0.4) < 1e-3 for value in other.probabilities.values())
            assert near or (one.classes, one.sure) == (other.classes, other.sure)
            assert (one.novelty, one.novel) == (other.novelty, other.novel) and one.novelty is not None
    plain = shares(make_run(tmp_path / "plain"), images, "keras")
    np.testing.assert_allclose(shares(calibrated, images, name), apply_temperature(plain, 0.4), atol=1e-4)


@pytest.mark.parametrize("name", formats("int8"))
def test_a_temperature_in_int8(calibrated, name, tmp_path):
    make_images(tmp_path / "data" / "c0")
    written = export(calibrated, format=name, precision="int8", data=scan(tmp_path / "data"))
    assert written.difference <= TOLERANCE["int8"]


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("temperature", [None, 0.4, 3.0])
def test_a_temperature_before_the_softmax_is_one_behind_it(tmp_path, images, classes, temperature):
    from customcnn.export.litert import logits_first

    model = load_model(make_run(tmp_path / "run", classes=classes).best)
    if temperature:
        model = with_temperature(model, temperature)
    batch = pixels_of(images)
    truth = model.predict_on_batch(batch)
    base, last = logits_first(model)
    logits = base(batch)
    assert float(abs(np.asarray(logits)).max()) > 1 or float(np.asarray(logits).min()) < 0, "no probabilities"
    np.testing.assert_allclose(np.asarray(last(logits)), truth, atol=1e-6)


def test_a_temperature_stays_behind_two_sigmoids():
    """Their shares to the power of 1 / T are no sigmoids of scaled logits."""
    import keras

    from customcnn.export.litert import logits_first

    image = keras.Input((2, 2, 3))
    x = keras.layers.Rescaling(1 / 255)(image)
    dense = keras.layers.Dense(2, activation="sigmoid", name="predictions")
    model = with_temperature(keras.Model(image, dense(keras.layers.Flatten()(x))), 3.0)
    batch = np.random.default_rng(0).integers(0, 256, (4, 2, 2, 3)).astype("float32")
    truth = model.predict_on_batch(batch)
    np.testing.assert_allclose(truth.sum(axis=1), 1, atol=1e-6)
    base, last = logits_first(model)
    np.testing.assert_allclose(np.asarray(last(base(batch))), truth, atol=1e-6)


def make_ensemble(path: Path, sizes: tuple[int, int]) -> RunDir:
    """Make a run of two networks that see an image at these sizes."""
    import keras

    from customcnn.models import build_model

    keras.utils.set_random_seed(5)
    members = [
        build_model("small", classes=2, input_size=sizes[0]),
        build_model("small", classes=2, input_size=sizes[1]),
    ]
    run = RunDir(path)
    path.mkdir()
    run.recipe.write_text("")
    size = (max(sizes), max(sizes))
    save_model(soft_vote(members, [0.25, 0.75], size), ModelInfo("ensemble", ["c0", "c1"], size, "c1"), run.best)
    return run


@pytest.mark.parametrize("name", quick_in_onnx())
def test_an_ensemble_of_two_sizes(tmp_path, name):
    """The smaller member sees the image resized, by an operation that most formats lack."""
    written = export(make_ensemble(tmp_path / "run", (SIZE, SIZE + 13)), format=name)
    assert written.difference < 1e-4


def test_resizing_by_matrices_is_what_keras_does():
    import keras

    from customcnn.export.tf_function import plain_operations

    rng = np.random.default_rng(0)
    batch = rng.integers(0, 256, (2, 31, 44, 3)).astype(np.float32)
    layer = keras.layers.Resizing(17, 20, interpolation="bilinear", antialias=True, data_format="channels_last")
    image = keras.Input((31, 44, 3))
    model = keras.Model(image, layer(image))
    truth = np.asarray(model(batch))
    plain_operations(model)
    np.testing.assert_allclose(np.asarray(model(batch)), truth, atol=1e-3)
    assert np.ptp(truth) > 50


# ---------------------------------------------------------------- ONNX by hand


def graph_of(*nodes: tuple[str, list[str], str]):
    """Return an ONNX graph of (operation, inputs, output), each node named by its output."""
    from onnx import TensorProto, helper

    made = [helper.make_node(kind, inputs, [output], output) for kind, inputs, output in nodes]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in ("image", nodes[-1][2])]
    return helper.make_graph(made, "graph", ends[:1], ends[1:])


def test_what_lies_outside_of_the_weighted_operations():
    """Two convolutions with a pooling and a sum between them; a scaling before, a softmax behind."""
    pytest.importorskip("onnx")
    from customcnn.export.onnx import outside

    graph = graph_of(
        ("Mul", ["image", "scale"], "scaled"),
        ("Conv", ["scaled", "w"], "one"),
        ("MaxPool", ["one"], "pooled"),
        ("Add", ["pooled", "one"], "sum"),
        ("Conv", ["sum", "v"], "two"),
        ("Add", ["two", "bias"], "logits"),
        ("Softmax", ["logits"], "probabilities"),
    )
    assert outside(graph) == ["scaled", "logits", "probabilities"]


def test_large_weights_are_halved_small_and_huge_ones_stay():
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    from customcnn.export.onnx import halve

    rng = np.random.default_rng(0)
    weights = {"large": rng.normal(size=2000), "small": rng.normal(size=10), "huge": np.full(2000, 1e6)}
    graph = graph_of(("Identity", ["image"], "out"))
    del graph.node[:]
    graph.node.append(onnx.helper.make_node("Concat", list(weights), ["out"], "join", axis=0))
    graph.initializer.extend(onnx.numpy_helper.from_array(v.astype(np.float32), name) for name, v in weights.items())
    del graph.input[:]
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    halve(model)
    onnx.checker.check_model(model)
    kinds = {weight.name: weight.data_type for weight in model.graph.initializer}
    half, whole = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    assert kinds == {"large_float16": half, "small": whole, "huge": whole}
    (out,) = runtime.InferenceSession(model.SerializeToString()).run(None, {})
    expected = [weights["large"].astype(np.float16), weights["small"], weights["huge"]]
    np.testing.assert_allclose(out, np.concatenate(expected).astype(np.float32), rtol=1e-6)


# ---------------------------------------------------------------- every network


NETWORKS = [spec.name for spec in list_models() if spec.name not in COVERED]
IN_TURN = [
    pytest.param(name.values[0], network, marks=name.marks)
    for place, network in enumerate(NETWORKS)
    for turn, name in enumerate(formats(runtimes=True))
    if turn == place % 3 or (network, name.values[0]) == ("efficientnetb0", "onnx")
]
"""Each network in one format: all of them in all formats would take half an hour.

EfficientNet goes to ONNX in any case: its normalisation layer keeps tensors, which the converter once took for inputs.
"""


@pytest.mark.backend
@pytest.mark.parametrize(("name", "network"), IN_TURN)
def test_every_network_of_the_table(tmp_path, name, network):
    written = export(make_run(tmp_path / "run", network), format=name)
    assert written.difference < 1e-4
    assert open_exported(written.path.with_name("best.keras"), name).metadata["model"] == network
