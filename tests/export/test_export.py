"""Networks in the formats of other programs: the same probabilities, checked before anything is written."""

import json
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from customcnn.cli.export import export as command
from customcnn.data.manifest import Manifest, Record, scan
from customcnn.errors import CustomCNNError
from customcnn.export import FORMATS, TOLERANCE, Written, export, get_format
from customcnn.export.verify import IMAGES as READ
from customcnn.export.verify import compare, pictures
from customcnn.inference.runtimes import KEY, digest, open_exported
from customcnn.metrics.scores import two_columns
from customcnn.runs.run_dir import RunDir
from customcnn.runs.saved_model import load_model, read_info, save_model
from tests.support.exports import SIZE, formats, make_images, make_run, pixels_of
from tests.support.folders import contents

each_format = pytest.mark.parametrize("name", formats())
each_runtime = pytest.mark.parametrize("name", formats(runtimes=True))
SMALLER = [
    pytest.param(name.values[0], precision, marks=name.marks)
    for precision in ("float16", "int8")
    for name in formats(precision)
]


@pytest.fixture
def run(tmp_path) -> RunDir:
    """A run of a network with random weights."""
    return make_run(tmp_path / "run")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """A folder of images."""
    return make_images(tmp_path_factory.mktemp("images") / "images")


@pytest.fixture(scope="module")
def exported(tmp_path_factory, data) -> Callable[[str], Written]:
    """Return a function that gives the export of a run in a format, made when it is first asked for."""

    run = make_run(tmp_path_factory.mktemp("exported") / "run")

    @cache
    def made(name: str) -> Written:
        return export(run, format=name, data=data)

    return made


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Manifest:
    """A folder of two classes of images."""
    root = tmp_path_factory.mktemp("data")
    for label in ("c0", "c1"):
        make_images(root / label, count=20)
    return scan(root)


# ---------------------------------------------------------------- what is written


@each_format
def test_an_export_says_what_keras_says(exported, images, name):
    written = exported(name)
    network = written.path.with_name("best.keras")
    batch = pixels_of(images)
    truth = two_columns(load_model(network).predict_on_batch(batch))
    assert written.images == written.same == 10 and written.difference < 1e-4
    assert (written.format, written.precision, written.tolerance) == (name, "float32", 0.001)
    found = compare(get_format(name), written.path, batch, truth)
    assert found.difference < 1e-4 and found.same == len(batch)
    own = [network.with_name(f"best{ending}") for ending in get_format(name).endings]
    parts = [part for place in own for part in (contents(place).values() if place.is_dir() else [place.read_bytes()])]
    assert written.size == sum(map(len, parts))
    assert not [path for path in network.parent.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(("name", "precision"), SMALLER)
def test_a_lower_precision_is_smaller_and_near(run, exported, data, name, precision):
    whole = exported(name)
    written = export(run, format=name, precision=precision, data=data)
    assert written.path.name == whole.path.name
    assert written.size < whole.size * (0.55 if precision == "float16" else 0.4)
    assert 0 < written.difference <= TOLERANCE[precision]
    assert open_exported(run.best, name).metadata["precision"] == precision


def test_every_precision_has_a_tolerance():
    assert {precision for row in FORMATS for precision in row.precisions} == set(TOLERANCE)
    assert len({row.name for row in FORMATS}) == len({row.endings[0] for row in FORMATS}) == len(FORMATS)


def test_where_each_format_keeps_the_class_names(exported):
    found = {name.values[0]: exported(name.values[0]).path for name in formats() if not name.marks[0].args[0]}
    best = found["keras"].with_name("best.keras")
    assert read_info(found["keras"]) == replace(read_info(best), history=[])
    texts = [(found["saved-model"] / "assets.extra" / "customcnn.json").read_text()]
    if "onnx" in found:
        import onnx

        model = onnx.load_model(found["onnx"])
        texts += [entry.value for entry in model.metadata_props if entry.key == KEY]
        assert [value.name for value in model.graph.input] == ["image"]
        assert [value.name for value in model.graph.output] == ["probabilities"]
    if "litert" in found:
        with zipfile.ZipFile(found["litert"]) as archive:
            texts.append(archive.read("customcnn.json").decode())
            assert archive.read("labels.txt").decode() == "c0\nc1\n"
    assert len(texts) == len(found) - 1 - ("openvino" in found)
    for text in texts:
        metadata = json.loads(text)
        assert metadata["classes"] == ["c0", "c1"] and metadata["sha256"] == digest(best)


def test_the_keras_export_has_no_optimizer_and_is_float32(tmp_path):
    import keras

    run = make_run(tmp_path / "run", policy="mixed_bfloat16")
    model = load_model(run.best, whole=True)
    model.compile("adam", "binary_crossentropy")
    model.train_on_batch(np.zeros((2, SIZE, SIZE, 3), np.uint8), np.zeros((2, 1)))
    save_model(model, read_info(run.best), run.best)
    written = export(run, format="keras")
    assert written.size < run.best.stat().st_size / 2
    plain = keras.models.load_model(written.path)
    assert getattr(plain, "optimizer", None) is None
    assert {layer.dtype_policy.name for layer in plain.layers} == {"float32"}


def test_a_second_export_takes_the_place_of_the_first(run):
    first = export(run, format="saved-model", check=False)
    (first.path / "stray").write_text("")
    make_run(run.path, seed=2)
    second = export(run, format="saved-model", check=False)
    assert second.path == first.path and not (second.path / "stray").exists()
    metadata = json.loads((second.path / "assets.extra" / "customcnn.json").read_text())
    assert metadata["sha256"] == digest(run.best)


# ---------------------------------------------------------------- the check


def other_weights(monkeypatch, scale: float) -> None:
    """Let whatever is written as keras have its first weights multiplied."""
    from customcnn.export.keras import write

    def wrong(job, target):
        job.model.weights[0].assign(job.model.weights[0] * scale)
        write(job, target)

    monkeypatch.setattr("customcnn.export.keras.write", wrong)


@pytest.mark.parametrize("scale", [-3.0, float("nan")])
def test_an_export_that_says_something_else_is_refused(run, data, monkeypatch, scale):
    before = contents(run.path)
    other_weights(monkeypatch, scale)
    with pytest.raises(CustomCNNError, match=r"to 0\.001\. Received: keras, .* differs by .* Use --no-check") as caught:
        export(run, format="keras", data=data)
    assert "\n" not in str(caught.value)
    assert contents(run.path) == before
    assert export(run, format="keras", check=False).path.is_file()


def test_an_export_that_gives_other_classes_is_refused(run, data, monkeypatch):
    """A network that is never sure: the other class for every image, and no probability far off."""
    from customcnn.export.keras import write

    def mirrored(job, target):
        for weight in job.model.get_layer("predictions").weights:
            weight.assign(-weight)
        write(job, target)

    monkeypatch.setattr("customcnn.export.keras.write", mirrored)
    monkeypatch.setitem(TOLERANCE, "float32", 0.9)
    before = contents(run.path)
    with pytest.raises(CustomCNNError, match=r"Received: keras, with another class for 10 of 10\. Nothing was written"):
        export(run, format="keras", data=data)
    assert contents(run.path) == before


@each_format
def test_an_export_has_checksums_that_other_programs_read(exported, name):
    target = exported(name).path
    own = [target.with_name(f"best{ending}") for ending in get_format(name).endings]
    files = [file for place in own for file in (place.rglob("*") if place.is_dir() else [place]) if file.is_file()]
    checksums = target.with_name(f"{target.name}.sha256")
    assert len(checksums.read_text().splitlines()) == len(files)
    subprocess.run(["sha256sum", "--check", "--strict", checksums.name], cwd=target.parent, check=True)


def test_without_images_drawn_cells_are_used_and_it_is_said(run, data):
    said: list[str] = []
    export(run, format="keras", say=said.append)
    assert len(said) == 1 and "drawn cells" in said[0] and "--data" in said[0]
    export(run, format="keras", data=data, say=said.append)
    assert len(said) == 1


def test_the_images_are_those_of_the_training(tmp_path, make_folder):
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    root = make_folder({"train/c0": 90, "train/c1": 90, "validation/c0": 9, "validation/c1": 9})
    seen = scan(root)
    assert not pictures(run, (8, 8), None, needed=False).real
    with pytest.raises(CustomCNNError, match=r"int8 measures .* Give a folder of such images by --data"):
        pictures(run, (8, 8), None, needed=True)
    seen.write(run.manifest)
    run.environment.write_text(json.dumps({"data": str(root)}))
    own = pictures(run, (8, 8), None, needed=True)
    given = pictures(run, (8, 8), seen, needed=True)
    assert own.real and len(own.checked) == READ // 4 and len(own.measured) == READ - READ // 4
    np.testing.assert_array_equal(own.checked, given.checked)
    both = {pixels.tobytes() for part in (own.checked, own.measured) for pixels in part}
    assert len(both) == READ, "no image is both measured and checked with"
    training = {pixels.tobytes() for pixels in _pixels(root / "train")}
    assert both <= training
    (root / "train" / "c0" / "0.bmp").unlink()
    assert not pictures(run, (8, 8), None, needed=False).real


def _pixels(folder: Path) -> np.ndarray:
    return np.concatenate([pixels_of(label, 8) for label in sorted(folder.iterdir())])


def test_one_image_is_checked_and_measured(make_folder):
    found = pictures(RunDir(Path("nowhere")), (8, 8), scan(make_folder({"c0": 1, "c1": 0} | {"c1": 1})), needed=True)
    assert len(found.checked) == len(found.measured) == 1
    manifest = Manifest(Path("nowhere"), (Record("c0/0.bmp", "c0"),))
    with pytest.raises(CustomCNNError):
        pictures(RunDir(Path("nowhere")), (8, 8), manifest, needed=False)


# ---------------------------------------------------------------- what is refused


def test_wrong_words_are_refused(run):
    with pytest.raises(CustomCNNError, match="--format is one of keras, saved-model, onnx, litert, openvino"):
        export(run, format="h5")
    with pytest.raises(CustomCNNError, match=r"openvino is written in float32 or float16\. .* has it: onnx, litert"):
        export(run, format="openvino", precision="int8")


@each_runtime
def test_int8_needs_images(run, name):
    if "int8" in {row.name: row.precisions for row in FORMATS}[name]:
        with pytest.raises(CustomCNNError, match="--data"):
            export(run, format=name, precision="int8", check=False)


def test_what_a_format_lacks_is_one_line(run, monkeypatch):
    def lacks(job, target):
        raise ValueError("Unsupported op: Foo\nat the first\n")

    monkeypatch.setattr("customcnn.export.keras.write", lacks)
    before = contents(run.path)
    with pytest.raises(
        CustomCNNError, match=r"keras in float32 \(ValueError: Unsupported op: Foo at the first\)"
    ) as caught:
        export(run, format="keras")
    assert "\n" not in str(caught.value)
    assert contents(run.path) == before


@pytest.fixture
def tiny(monkeypatch) -> None:
    """Let openvino be given a network that only passes on: files are what is looked at."""
    openvino = pytest.importorskip("openvino")
    from openvino import opset13

    def convert(model):
        image = opset13.parameter([-1], openvino.Type.f32)
        return openvino.Model([opset13.relu(image)], [image])

    monkeypatch.setattr("customcnn.export.openvino.convert", convert)


def test_a_failed_export_leaves_what_was_there(run, tiny, monkeypatch):
    import openvino

    export(run, check=False)
    before = contents(run.path)

    def fails(model, path, **options):
        Path(path).write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(openvino, "save_model", fails)
    with pytest.raises(OSError, match="No space"):
        export(run, check=False)
    assert contents(run.path) == before


def test_a_kill_between_the_two_files_leaves_no_export(run, tiny, monkeypatch):
    export(run, check=False)
    move = Path.replace

    def killed(self, target):
        if self.suffix == ".xml":
            raise KeyboardInterrupt
        return move(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        export(run, check=False)
    with pytest.raises(CustomCNNError, match="is missing"):
        open_exported(run.best, "openvino")


def test_an_export_needs_tensorflow(run, monkeypatch):
    monkeypatch.setattr("customcnn.backend.devices.backend", lambda: "torch")
    with pytest.raises(CustomCNNError, match=r"KERAS_BACKEND=torch\. Set it to tensorflow"):
        export(run, format="keras")


# ---------------------------------------------------------------- the command


def test_the_command(run, data):
    done = CliRunner().invoke(command, [str(run.path), "--format", "keras", "--data", str(data.root)])
    assert done.exit_code == 0, done.output
    first, second, third = done.output.splitlines()
    assert first == f"Export: {run.path / 'best.export.keras'}"
    assert second.startswith("Size: ") and second.endswith(" MB, float32")
    assert third.startswith("Check: 10 images, 10 with the class that Keras gives") and "(at most 0.001)" in third
    done = CliRunner().invoke(command, [str(run.path), "--format", "keras", "--no-check", "--json"])
    found = json.loads(done.output)
    assert found["path"].endswith("best.export.keras") and found["difference"] is None
    assert CliRunner().invoke(command, [str(run.path), "--format", "h5"]).exit_code == 2
