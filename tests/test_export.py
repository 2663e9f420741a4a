"""Networks exported for OpenVINO: the same predictions without Keras, and no export of other weights is used."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from customcnn import runtime
from customcnn.calibration import apply_temperature
from customcnn.cli import main
from customcnn.errors import CustomCNNError
from customcnn.export import export
from customcnn.images import decode
from customcnn.models import build_model, get_spec
from customcnn.novelty import fit_novelty
from customcnn.predict import predict
from customcnn.runs import ModelInfo, RunDir, load_model, read_info, save_model
from customcnn.runtime import Exported, StaleExport, digest, export_path
from customcnn.temperature import with_temperature

pytest.importorskip("openvino")

SIZE = get_spec("small").minimum_size
IMAGES = 2 * runtime.BATCH + 3  # two full batches and a rest


def make_run(path: Path, name: str = "small", classes: int = 2, seed: int = 1, policy: str = "float32") -> RunDir:
    """Make a run of a network with random weights: export reads its best.keras only."""
    import keras

    run = RunDir(path)
    path.mkdir(exist_ok=True)
    run.recipe.write_text("")
    size = get_spec(name).minimum_size
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(policy)
    try:
        model = build_model(name, classes=classes, input_size=size)
    finally:
        keras.config.set_dtype_policy("float32")
    labels = [f"c{number}" for number in range(classes)]
    save_model(model, ModelInfo(name, labels, (size, size), labels[1] if classes == 2 else "", drawn=True), run.best)
    return run


def make_images(folder: Path, size: int = SIZE, count: int = IMAGES) -> Path:
    """Write noise of several brightnesses."""
    folder.mkdir()
    rng = np.random.default_rng(3)
    for number in range(count):
        pixels = rng.integers(0, 20 + 6 * number, (size, size + 2, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> RunDir:
    """A run with its export."""
    run = make_run(tmp_path_factory.mktemp("made") / "run")
    export(run)
    return run


@pytest.fixture
def run(made, tmp_path) -> RunDir:
    """A copy of the run, to write into."""
    return RunDir(Path(shutil.copytree(made.path, tmp_path / "run")))


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """A folder of images."""
    return make_images(tmp_path_factory.mktemp("images") / "images")


def shares(run: RunDir, images: Path, name: str, **options: object) -> np.ndarray:
    """Return the probabilities that a runtime gives, (N, classes)."""
    found = predict(run, [images], runtime=name, **options)
    assert [Path(one.file).name for one in found] == sorted(path.name for path in images.iterdir())
    return np.array([list(one.probabilities.values()) for one in found])


# ---------------------------------------------------------------- the same predictions


def test_openvino_says_what_keras_says(made, images):
    keras_says = shares(made, images, "keras")
    np.testing.assert_allclose(shares(made, images, "openvino"), keras_says, atol=1e-4)
    assert np.ptp(keras_says[:, 0]) > 0.01, "the images differ to this network: a mix-up would be seen"


def test_bfloat16_is_near(made, images):
    batch = np.stack([decode(path, (SIZE, SIZE)) for path in sorted(images.iterdir())])
    found = np.concatenate(list(Exported(made.best).compile(IMAGES, bfloat16=True)([batch[:20], batch[20:]])))
    np.testing.assert_allclose(found[:, -1], shares(made, images, "keras")[:, 1], atol=0.05)


@pytest.mark.parametrize(
    ("name", "classes", "policy"),
    [("small", 4, "float32"), ("small", 2, "mixed_bfloat16"), ("alexnet", 3, "float32"), ("googlenet", 2, "float32")],
)
def test_other_networks(tmp_path, name, classes, policy):
    run = make_run(tmp_path / "run", name, classes, policy=policy)
    export(run)
    images = make_images(tmp_path / "images", get_spec(name).minimum_size, 3)
    np.testing.assert_allclose(shares(run, images, "openvino"), shares(run, images, "keras"), atol=0.01)


def test_the_order_is_kept_whatever_the_number_of_workers(made, images):
    alone = shares(made, images, "openvino", workers=1)
    np.testing.assert_array_equal(shares(made, images, "openvino", workers=3), alone)


def test_metadata(made):
    metadata = Exported(made.best).metadata
    assert metadata == {
        "model": "small",
        "classes": ["c0", "c1"],
        "input_size": [SIZE, SIZE],
        "positive": "c1",
        "drawn": True,
        "epoch": 0,
        "sha256": digest(made.best),
    }


def test_neither_keras_nor_its_backend_is_loaded(made, images):
    code = f"""
import sys
from customcnn.cli import main
try:
    main(["predict", {str(made.path)!r}, {str(images / "00.png")!r}])
except SystemExit as end:
    assert not end.code
print("LOADED", *{{name.partition(".")[0] for name in sys.modules}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{images / '00.png'}  c")
    assert "trained on drawn cells" in done.stderr
    loaded = set(lines[-1].split()[1:])
    assert "openvino" in loaded, "auto has found the export"
    assert not loaded & {"keras", "tensorflow", "jax", "torch"}


# ---------------------------------------------------------------- an export that does not fit


def test_an_export_of_other_weights_is_not_used(run, images):
    make_run(run.path, seed=2)
    with pytest.raises(StaleExport, match=r"made from another best\.keras") as caught:
        predict(run, [images], runtime="openvino")
    assert "\n" not in str(caught.value)
    said: list[str] = []
    found = shares(run, images, "auto", say=said.append)
    np.testing.assert_array_equal(found, shares(run, images, "keras"))
    assert len(said) == 1 and said[0].startswith("Note: Keras computes this.") and "customcnn export" in said[0]
    export(run)
    np.testing.assert_allclose(shares(run, images, "openvino"), found, atol=0.01)


@pytest.mark.parametrize("suffix", [".xml", ".bin"])
@pytest.mark.parametrize("left", [0, 1 / 2])
def test_a_damaged_export_is_refused(run, images, suffix, left):
    file = export_path(run.best).with_suffix(suffix)
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * left)])
    with pytest.raises(StaleExport, match="An export is whole") as caught:
        predict(run, [images], runtime="openvino")
    assert "\n" not in str(caught.value)
    said: list[str] = []
    assert len(predict(run, [images], say=said.append)) == IMAGES
    assert len(said) == 1


@pytest.mark.parametrize("suffix", [".xml", ".bin"])
def test_a_missing_export(run, images, suffix):
    export_path(run.best).with_suffix(suffix).unlink()
    with pytest.raises(StaleExport, match="is missing"):
        predict(run, [images], runtime="openvino")
    assert len(predict(run, [images])) == IMAGES


def test_without_openvino_keras_computes(run, images, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr("customcnn.runtime.importlib.util.find_spec", lambda name: None)
    assert len(predict(run, [images])) == IMAGES
    with pytest.raises(CustomCNNError, match=r"customcnn\[openvino\]"):
        predict(run, [images], runtime="openvino")
    with pytest.raises(CustomCNNError, match=r"customcnn\[openvino\]"):
        export(run)


def test_wrong_words_are_refused(run, images):
    with pytest.raises(CustomCNNError, match="--runtime is one of"):
        predict(run, [images], runtime="onnx")
    with pytest.raises(CustomCNNError, match="--format is one of"):
        export(run, format="onnx")
    with pytest.raises(CustomCNNError, match="computes on the CPU"):
        predict(run, [images], runtime="openvino", device="gpu")


# ---------------------------------------------------------------- writing


def test_a_failed_export_leaves_what_was_there(run, monkeypatch):
    import openvino

    before = {path.name: path.read_bytes() for path in run.path.iterdir()}

    def fails(model, path, **options):
        Path(path).write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(openvino, "save_model", fails)
    with pytest.raises(OSError, match="No space"):
        export(run)
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == before


def test_a_kill_between_the_two_files_leaves_no_export(run, monkeypatch):
    replace = Path.replace

    def killed(self, target):
        if self.suffix == ".xml":
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        export(run)
    assert not export_path(run.best).exists()
    with pytest.raises(StaleExport, match="is missing"):
        Exported(run.best)


def test_the_commands(run, images, capsys):
    with pytest.raises(SystemExit) as end:
        main(["export", str(run.path)])
    assert not end.value.code
    assert capsys.readouterr().out == f"Export: {run.path / 'best.openvino.xml'}\n"
    assert sorted(path.name for path in run.path.iterdir() if not path.name.endswith((".toml", ".keras"))) == [
        "best.openvino.bin",
        "best.openvino.xml",
    ]
    with pytest.raises(SystemExit) as end:
        main(["predict", str(run.path), str(images), "--json", "--runtime", "openvino"])
    assert not end.value.code
    assert len(json.loads(capsys.readouterr().out)["predictions"]) == IMAGES


def test_an_export_needs_tensorflow(run):
    pytest.importorskip("torch")
    done = subprocess.run(
        [sys.executable, "-m", "customcnn", "export", str(run.path)],
        env={**os.environ, "KERAS_BACKEND": "torch"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Set it to tensorflow" in done.stderr


# ---------------------------------------------------------------- a calibrated run


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory, images) -> RunDir:
    """A run with a temperature, sets and a limit of novelty, and its export."""
    run = make_run(tmp_path_factory.mktemp("calibrated") / "run")
    pixels = np.stack([decode(path, (SIZE, SIZE)) for path in sorted(images.iterdir())])
    sets = {"method": "lac", "coverage": 0.9, "quantile": 0.6, "unit": "image", "images": 35, "groups": None}
    stored = {"temperature": 0.4, "sets": sets, "novelty": fit_novelty(pixels).as_dict()}
    model = with_temperature(load_model(run.best), 0.4)
    save_model(model, replace(read_info(run.best), calibration=stored), run.best)
    export(run)
    return run


@pytest.mark.parametrize("tta", [False, True])
def test_an_export_of_a_calibrated_run_says_what_keras_says(calibrated, made, images, tta):
    ours, theirs = (predict(calibrated, [images], runtime=name, tta=tta) for name in ("openvino", "keras"))
    for one, other in zip(ours, theirs, strict=True):
        assert list(one.probabilities.values()) == pytest.approx(list(other.probabilities.values()), abs=1e-4)
        near = any(abs(value - 0.4) < 1e-3 for value in other.probabilities.values())
        assert near or (one.classes, one.sure) == (other.classes, other.sure)
        assert (one.novelty, one.novel) == (other.novelty, other.novel) and one.novelty is not None
    plain = np.array([list(one.probabilities.values()) for one in predict(made, [images], runtime="openvino")])
    cooled = np.array([list(one.probabilities.values()) for one in ours])
    if not tta:
        np.testing.assert_allclose(cooled, apply_temperature(plain, 0.4), atol=1e-4)


def test_the_metadata_of_a_calibrated_run(calibrated):
    stored = Exported(calibrated.best).metadata["calibration"]
    assert stored == read_info(calibrated.best).calibration
    assert stored["temperature"] == 0.4 and set(stored) == {"temperature", "sets", "novelty"}
