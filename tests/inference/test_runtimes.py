"""Predictions from exports: the same as Keras's, without Keras, and never from an export of other weights."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from customcnn.errors import CustomCNNError
from customcnn.export import export
from customcnn.inference.classifier import predict
from customcnn.inference.runtimes import NAMES, StaleExport, digest, export_path, get_runtime, open_exported
from customcnn.models import get_spec
from customcnn.runs.run_dir import RunDir
from tests.support.exports import IMAGES, SIZE, formats, make_images, make_run, pixels_of, shares

each_runtime = pytest.mark.parametrize("name", formats(runtimes=True))
FILES = [
    pytest.param(name.values[0], ending, marks=name.marks)
    for name in formats(runtimes=True)
    for ending in get_runtime(name.values[0]).endings
]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> RunDir:
    """A run with an export for every runtime that is installed."""
    run = make_run(tmp_path_factory.mktemp("made") / "run")
    for name in formats(runtimes=True):
        if not name.marks[0].args[0]:
            export(run, format=name.values[0])
    return run


@pytest.fixture
def run(made, tmp_path) -> RunDir:
    """A copy of the run, to write into."""
    return RunDir(Path(shutil.copytree(made.path, tmp_path / "run")))


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """A folder of images."""
    return make_images(tmp_path_factory.mktemp("images") / "images")


# ---------------------------------------------------------------- the same predictions


@each_runtime
def test_a_runtime_says_what_keras_says(made, images, name):
    keras_says = shares(made, images, "keras")
    np.testing.assert_allclose(shares(made, images, name), keras_says, atol=1e-4)
    assert np.ptp(keras_says[:, 0]) > 0.01, "the images differ to this network: a mix-up would be seen"


def test_bfloat16_is_near(made, images):
    pytest.importorskip("openvino")
    batch = pixels_of(images)
    compiled = open_exported(made.best, "openvino").compile(IMAGES, bfloat16=True)
    found = np.concatenate(list(compiled([batch[:20], batch[20:]])))
    np.testing.assert_allclose(found[:, -1], shares(made, images, "keras")[:, 1], atol=0.05)


@pytest.mark.backend
@each_runtime
@pytest.mark.parametrize(
    ("network", "classes", "policy"),
    [("small", 4, "float32"), ("small", 2, "mixed_bfloat16"), ("googlenet", 2, "float32")],
)
def test_other_networks(tmp_path, name, network, classes, policy):
    run = make_run(tmp_path / "run", network, classes, policy=policy)
    export(run, format=name)
    images = make_images(tmp_path / "images", get_spec(network).minimum_size, 3)
    np.testing.assert_allclose(shares(run, images, name), shares(run, images, "keras"), atol=0.01)


@each_runtime
def test_the_order_is_kept_whatever_the_number_of_workers(made, images, name):
    alone = shares(made, images, name, workers=1)
    np.testing.assert_allclose(shares(made, images, name, workers=3), alone, atol=1e-6)
    assert len(np.unique(alone[:, 0])) == IMAGES


@each_runtime
def test_one_image_after_many_and_many_after_one(made, images, name):
    batch = pixels_of(images)
    network = open_exported(made.best, name).compile(1)
    (one,), (many,), (again,) = ([*network([part])] for part in (batch[:1], batch, batch[:1]))
    np.testing.assert_allclose(many[:1], one, atol=1e-6)
    np.testing.assert_array_equal(again, one)


@each_runtime
def test_metadata(made, name):
    assert open_exported(made.best, name).metadata == {
        "model": "small",
        "classes": ["c0", "c1"],
        "input_size": [SIZE, SIZE],
        "positive": "c1",
        "drawn": True,
        "epoch": 0,
        "precision": "float32",
        "sha256": digest(made.best),
    }


@each_runtime
def test_neither_keras_nor_its_backend_is_loaded(made, images, name):
    code = f"""
import sys
from customcnn.cli import main
try:
    main(["predict", {str(made.path)!r}, {str(images / "00.png")!r}, "--runtime", {name!r}])
except SystemExit as end:
    assert not end.code
print("LOADED", *{{name.partition(".")[0] for name in sys.modules}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{images / '00.png'}  c")
    assert done.stderr.startswith("Warning: trained on drawn cells."), "nothing else is said"
    loaded = set(lines[-1].split()[1:])
    assert get_runtime(name).package in loaded
    assert not loaded & {"keras", "tensorflow", "jax", "torch", "onnx", "tf2onnx"}


# ---------------------------------------------------------------- an export that does not fit


@each_runtime
def test_an_export_of_other_weights_is_not_used(run, images, name):
    make_run(run.path, seed=2)
    with pytest.raises(StaleExport, match=r"made from another best\.keras") as caught:
        predict(run, [images], runtime=name)
    assert "\n" not in str(caught.value)
    assert f"--format {name}" in str(caught.value)


def test_auto_takes_keras_beside_an_export_of_other_weights(run, images):
    pytest.importorskip("openvino")
    make_run(run.path, seed=2)
    said: list[str] = []
    found = shares(run, images, "auto", say=said.append)
    np.testing.assert_array_equal(found, shares(run, images, "keras"))
    assert len(said) == 1 and said[0].startswith("Note: Keras computes this.") and "customcnn export" in said[0]
    export(run)
    np.testing.assert_allclose(shares(run, images, "auto", say=said.append), found, atol=0.01)
    assert len(said) == 1


@pytest.mark.parametrize(("name", "ending"), FILES)
@pytest.mark.parametrize("left", [0, 1 / 2])
def test_a_damaged_export_is_refused(run, images, name, ending, left):
    file = run.best.with_name(f"best{ending}")
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * left)])
    with pytest.raises(StaleExport, match="An export is whole") as caught:
        predict(run, [images], runtime=name)
    assert "\n" not in str(caught.value)
    if name == "openvino":
        said: list[str] = []
        assert len(predict(run, [images], say=said.append)) == IMAGES
        assert len(said) == 1


@pytest.mark.parametrize(("name", "ending"), FILES)
def test_one_flipped_bit_is_refused(run, images, name, ending):
    file = run.best.with_name(f"best{ending}")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x40
    file.write_bytes(data)
    with pytest.raises(StaleExport, match=rf"best{ending} has not the SHA-256 that stands in best\..*\.sha256"):
        open_exported(run.best, name)
    if name == "openvino":
        said: list[str] = []
        np.testing.assert_array_equal(shares(run, images, "auto", say=said.append), shares(run, images, "keras"))
        assert len(said) == 1 and said[0].startswith("Note: Keras computes this. An export is whole.")


@each_runtime
def test_an_export_without_checksums_is_used_and_it_is_said(run, images, name):
    path = export_path(run.best, name)
    checksums = path.with_name(f"{path.name}.sha256")
    checksums.write_text(checksums.read_text()[:9])
    with pytest.raises(StaleExport, match="An export is whole"):
        open_exported(run.best, name)
    checksums.unlink()
    said: list[str] = []
    open_exported(run.best, name, said.append)
    assert said == [
        f"Note: {str(path)!r} has no {checksums.name}, so damage to it would not be noticed. "
        f"Export it again: customcnn export {str(run.path)!r} --format {name}."
    ]


@pytest.mark.parametrize(("name", "ending"), FILES)
def test_a_missing_export(run, images, name, ending):
    run.best.with_name(f"best{ending}").unlink()
    with pytest.raises(StaleExport, match=f"best{ending}' is missing"):
        predict(run, [images], runtime=name)
    assert len(predict(run, [images])) == IMAGES


@pytest.mark.parametrize("name", NAMES)
def test_without_the_library(run, images, name, monkeypatch):
    monkeypatch.setattr("customcnn.inference.runtimes.importlib.util.find_spec", lambda package: None)
    assert len(predict(run, [images])) == IMAGES, "auto takes Keras"
    with pytest.raises(CustomCNNError, match=rf"pip install 'customcnn\[{name}\]'"):
        predict(run, [images], runtime=name)
    with pytest.raises(CustomCNNError, match=rf"pip install 'customcnn\[{name}\]'"):
        export(run, format=name)


def test_wrong_words_are_refused(run, images):
    with pytest.raises(CustomCNNError, match="--runtime is one of auto, keras, openvino, onnx, litert"):
        predict(run, [images], runtime="tensorrt")
    for name in NAMES:
        with pytest.raises(CustomCNNError, match=f"--runtime {name} computes on the CPU"):
            predict(run, [images], runtime=name, device="gpu")


def test_where_exports_lie(tmp_path):
    network = tmp_path / "best.keras"
    assert export_path(network) == tmp_path / "best.openvino.xml"
    assert [export_path(network, name).name for name in NAMES] == ["best.openvino.xml", "best.onnx", "best.tflite"]
