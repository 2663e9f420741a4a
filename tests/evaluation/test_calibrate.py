"""Calibrated runs: what is put into the network and beside it, that nothing else changes, and what predict says."""

import csv
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from customcnn.backend import devices
from customcnn.data.manifest import Manifest, scan, with_group_pattern
from customcnn.data.split import check_files
from customcnn.evaluation.calibrate import calibrate
from customcnn.evaluation.evaluate import evaluate
from customcnn.images.decode import decode
from customcnn.inference.classifier import predict, probabilities
from customcnn.inference.decision import Judge, Prediction
from customcnn.inference.tta import averaged_probabilities
from customcnn.metrics.calibration import apply_temperature
from customcnn.models import build_model, get_spec
from customcnn.runs.run_dir import RunDir
from customcnn.runs.saved_model import ModelInfo, load_model, read_info, save_model
from customcnn.runs.temperature import AFTER, BEFORE, SCALE, with_temperature, without_temperature
from customcnn.training.ensemble import ensemble
from customcnn.training.train import train
from customcnn.training.warm_start import take_over
from customcnn.visualize import visualize_run
from tests.support.colors import SIZE, paint, recipe
from tests.support.commands import printed
from tests.support.errors import refused
from tests.support.folders import contents

VALIDATION = 36


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Manifest:
    """Pictures whose class is their colour, but for some of the validation part, which are labelled wrongly."""
    root = paint(
        tmp_path_factory.mktemp("colors") / "data",
        {"train/all": 12, "train/hem": 12, "validation/all": 18, "validation/hem": 18, "test/all": 6, "test/hem": 6},
    )
    for number in range(4):
        for label, other in (("all", "hem"), ("hem", "all")):
            shutil.copy(root / "train" / other / f"{number}.bmp", root / "validation" / label / f"{number}.bmp")
            file = root / "validation" / label / f"{number}.bmp"
            pixels = np.array(Image.open(file))
            pixels[0, 0] = 255  # not the same file as the one that is trained on
            Image.fromarray(pixels).save(file)
    return check_files(with_group_pattern(scan(root), r"(\w+/\w+/\d)"))[0]


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> RunDir:
    """A run of two epochs."""
    run = RunDir(tmp_path_factory.mktemp("trained") / "run")
    train(data, run, recipe(epochs=2, learning_rate=0.01))
    return run


@pytest.fixture(scope="module")
def calibrated(trained, data, tmp_path_factory) -> RunDir:
    """The same run, calibrated."""
    run = RunDir(Path(shutil.copytree(trained.path, tmp_path_factory.mktemp("calibrated") / "run")))
    calibrate(run, data, resamples=20)
    return run


@pytest.fixture
def run(trained, tmp_path) -> RunDir:
    """A copy of the run, to write into; its best network is a link to the last one, as a training may leave it."""
    run = RunDir(Path(shutil.copytree(trained.path, tmp_path / "run")))
    run.best.unlink()
    os.link(run.last, run.best)
    return run


def pictures(size: int = SIZE, count: int = 6, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def network(name: str = "small", classes: int = 2, policy: str = "float32", size: int = 0, **options: object):
    import keras

    devices.configure("cpu")
    keras.utils.set_random_seed(3)
    keras.config.set_dtype_policy(policy)
    try:
        return build_model(name, classes=classes, input_size=size or get_spec(name).minimum_size, **options)
    finally:
        keras.config.set_dtype_policy("float32")


# ---------------------------------------------------------------- the layers


@pytest.mark.parametrize(
    ("name", "classes", "policy"),
    [
        ("small", 2, "float32"),
        ("small", 3, "float32"),
        ("one-conv", 2, "mixed_bfloat16"),
        ("small", 2, "mixed_float16"),
    ],
)
@pytest.mark.parametrize("temperature", [0.3, 2.5])
def test_the_network_says_the_softmax_of_the_logarithms_over_the_temperature(name, classes, policy, temperature):
    model = network(name, classes, policy)
    images = pictures(get_spec(name).minimum_size)
    before = probabilities(model, images)
    mended = with_temperature(model, temperature)
    assert [layer.name for layer in mended.layers[-3:]] == [BEFORE, SCALE, AFTER]
    found = np.asarray(mended.predict_on_batch(images))
    assert found.dtype == np.float32 and found.shape[1] == model.output_shape[-1]
    np.testing.assert_allclose(probabilities(mended, images), apply_temperature(before, temperature), atol=2e-6)
    assert np.ptp(before[:, 0]) > 1e-4, "the images differ to this network"


def test_it_is_taken_out_again_and_never_stands_twice():
    model = network()
    images = pictures()
    before = np.asarray(model.predict_on_batch(images))
    once = with_temperature(model, 2.0)
    twice = with_temperature(once, 3.0)
    assert len(twice.layers) == len(once.layers)
    np.testing.assert_array_equal(twice.predict_on_batch(images), with_temperature(model, 3.0).predict_on_batch(images))
    np.testing.assert_array_equal(without_temperature(twice).predict_on_batch(images), before)
    assert without_temperature(model) is model


@pytest.mark.parametrize(("shape", "said"), [((1,), [0.0]), ((1,), [1.0]), ((3,), [0.0, 0.0, 1.0])])
@pytest.mark.parametrize("temperature", [0.05, 20.0])
def test_certainty_stays_finite(shape, said, temperature):
    import keras

    image = keras.Input((4, 4, 3))
    constant = keras.ops.mean(image) * 0 + keras.ops.convert_to_tensor(said, "float32")
    model = keras.Model(image, keras.ops.broadcast_to(constant, (6, *shape)))
    found = np.asarray(with_temperature(model, temperature)(pictures(4).astype("float32")))
    assert np.isfinite(found).all() and (found.round() == said).all()


def test_a_training_finds_its_outputs_and_weights_in_their_order(tmp_path):
    """LRA goes back to the weights of best.keras by their order."""
    model = network("googlenet", size=65, auxiliary=True)
    mended = with_temperature(model, 2.0)
    assert len(mended.outputs) == len(model.outputs) == 3
    save_model(mended, ModelInfo("googlenet", ["a", "b"], (65, 65), "b"), tmp_path / "best.keras")
    whole = load_model(tmp_path / "best.keras", whole=True)
    assert [output.shape for output in whole.outputs] == [output.shape for output in model.outputs]
    for one, other in zip(model.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(load_model(tmp_path / "best.keras").outputs) == 1


LOAD = """
import sys, numpy as np, keras
model = keras.models.load_model(sys.argv[1])
np.save(sys.argv[2], keras.ops.convert_to_numpy(model(np.load(sys.argv[3]).astype("float32"), training=False)))
assert not [name for name in sys.modules if name.startswith("customcnn")]
"""


@pytest.mark.backend
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
@pytest.mark.parametrize("classes", [2, 3])
def test_plain_keras_loads_it_on_every_backend(backend, classes, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    model = with_temperature(network(classes=classes), 2.5)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", pictures())
    done = subprocess.run(
        [sys.executable, "-c", LOAD, "model.keras", "out.npy", "images.npy"],
        cwd=tmp_path,
        env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), model.predict_on_batch(pictures()), atol=1e-5)


# ---------------------------------------------------------------- a run


def test_only_the_best_network_changes(run, data):
    last, info = run.last.read_bytes(), read_info(run.best)
    weights = load_model(run.best, whole=True).get_weights()
    found = calibrate(run, data, resamples=20)
    assert run.last.read_bytes() == last
    after = read_info(run.best)
    assert replace(after, calibration=None) == info and after.epoch > 0 and len(after.history) == after.epoch
    for one, other in zip(weights, load_model(run.best, whole=True).get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert after.calibration is not None
    assert after.calibration["temperature"] == found.temperature
    assert (after.calibration["part"], after.calibration["images"]) == ("validation", VALIDATION)
    assert {path.name for path in run.path.iterdir() if path.name.startswith(".")} <= {".customcnn"}
    saved = json.loads(run.calibration.read_text(), parse_constant=pytest.fail)
    assert saved == json.loads(json.dumps(found.as_dict()))
    with Image.open(run.calibration_plot) as image:
        assert min(image.size) > 300


def test_the_scores_are_those_of_evaluate(run, data, tmp_path):
    before = evaluate(run, data, part="validation", out=tmp_path / "before", resamples=5).metrics
    found = calibrate(run, data, resamples=20)
    after = evaluate(run, data, part="validation", out=tmp_path / "after", resamples=5).metrics
    values = [found.before["log_loss"]["value"], found.after["log_loss"]["value"]]
    assert values == pytest.approx([_value(before["log_loss"]), _value(after["log_loss"])], abs=1e-4)
    assert values[1] < values[0], "wrong labels: the network was too sure"
    assert found.temperature > 1
    assert before["errors"] == after["errors"]
    assert found.accuracy[0] == found.accuracy[1] == pytest.approx(before["accuracy"]["value"])


def _value(score: object) -> float:
    return score["value"] if isinstance(score, dict) else score


def test_a_second_calibration_replaces_the_first(run, data):
    one = calibrate(run, data, resamples=5, coverage=0.7)
    layers = len(load_model(run.best).layers)
    two = calibrate(run, data, resamples=5)
    assert two.temperature == pytest.approx(one.temperature, rel=1e-4)
    assert len(load_model(run.best).layers) == layers
    assert read_info(run.best).calibration["sets"]["coverage"] == 0.9


def test_a_pack_is_not_needed(run, data):
    # float32 kernels may take the batches in another order
    one, two = (calibrate(run, data, resamples=5, no_pack=choice) for choice in (False, True))
    assert one.temperature == pytest.approx(two.temperature, rel=1e-4)


def test_half_precision_stays(data, tmp_path):
    run = RunDir(tmp_path / "run")
    train(data, run, recipe(precision="bfloat16"))
    calibrate(run, data, resamples=5)
    assert "mixed_bfloat16" in {layer.dtype_policy.name for layer in load_model(run.best, whole=True).layers}
    with zipfile.ZipFile(run.best) as archive:
        config = archive.read("config.json").decode()
    assert '"mixed_bfloat16"' in config and f'"{SCALE}"' in config


@pytest.mark.kill
def test_a_training_goes_on_as_if_nothing_was(trained, data, tmp_path):
    runs = [RunDir(Path(shutil.copytree(trained.path, tmp_path / name))) for name in ("plain", "mended")]
    calibrate(runs[1], data, resamples=5)
    for run in runs:
        train(data, run, recipe(epochs=3, learning_rate=0.01), resume=True)
    assert runs[0].history.read_text() == runs[1].history.read_text()
    for one, other in zip(*(load_model(run.last).get_weights() for run in runs), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_failure_leaves_the_network_as_it_was(run, data, monkeypatch):
    before = contents(run.path)

    def fails(model, info, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("customcnn.evaluation.calibrate.save_model", fails)
    with pytest.raises(OSError, match="No space"):
        calibrate(run, data, resamples=5)
    assert contents(run.path) == before


def test_the_training_part_is_refused(run, data):
    assert "not trained on" in refused(calibrate, run, data, part="train")


def test_other_data_is_refused(run, data, make_folder):
    assert "knows 'all', 'hem'" in refused(calibrate, run, scan(make_folder({"dog": 3})))
    assert "has 'train', 'validation', 'test'" not in refused(calibrate, run, data.part("test"), part="validation")
    assert "--coverage 7" in refused(calibrate, run, data, coverage=7.0)
    assert "--novelty 0" in refused(calibrate, run, data, novelty=0.0)
    assert "--resamples 0" in refused(calibrate, run, data, resamples=0)
    assert read_info(run.best).calibration is None


def test_what_is_shared_is_said(run, data):
    records = tuple(replace(record, group=f"g{n % 5}") for n, record in enumerate(data.records))
    found = calibrate(run, replace(data, records=records), resamples=5)
    assert len(found.notes) == 1 and found.notes[0].startswith("Inflated by leakage: 36 of 36 validation images")
    assert found.sets.unit == "image" and found.sets.groups == 5, "five groups cannot promise .9"


def test_a_folder_that_is_not_split_and_has_few_images(run, data, make_folder):
    found = calibrate(run, scan(make_folder({"all": 3, "hem": 4}, size=SIZE)), resamples=5)
    assert (found.part, found.novelty, found.covered_groups) == ("given", None, None)
    assert "novelty" not in read_info(run.best).calibration
    (one,) = predict(run, [data.root / "test/all/0.bmp"])
    assert one.novelty is None and one.novel is None and one.classes is not None


# ---------------------------------------------------------------- commands that meet a calibrated run


def test_layers_are_taken_over_from_it(trained, calibrated):
    found = [take_over(network(), run.best, ["all", "hem"]) for run in (trained, calibrated)]
    assert found[0].taken == found[1].taken and not found[1].left


def test_an_ensemble_of_calibrated_members(calibrated, trained, data, tmp_path):
    out = RunDir(tmp_path / "both")
    ensemble([calibrated, trained], out, weigh="equal")
    image = data.root / "test/all/0.bmp"
    one, two, both = (predict(run, [image])[0] for run in (calibrated, trained, out))
    expected = (one.probabilities["all"] + two.probabilities["all"]) / 2
    assert both.probabilities["all"] == pytest.approx(expected, abs=1e-4)
    assert both.classes is None, "the sets of its members are not its own"
    assert calibrate(out, data, resamples=5).temperature > 0


def test_pictures_of_it(trained, calibrated, data, tmp_path):
    image = data.root / "test/all/0.bmp"
    maps = [visualize_run(run, [image], out=tmp_path / run.path.parent.name).parent for run in (trained, calibrated)]
    names = [sorted(path.name for path in folder.glob("*.png")) for folder in maps]
    assert names[0] == names[1] and len(names[0]) > 3
    for name in names[0]:
        assert (maps[0] / name).read_bytes() == (maps[1] / name).read_bytes()


def test_grad_cam_of_it(trained, calibrated, data):
    from customcnn.explain.gradcam import grad_cam

    image = decode(data.root / "test/all/0.bmp", (SIZE, SIZE))
    one, other = (grad_cam(load_model(run.best), image, 1) for run in (trained, calibrated))
    np.testing.assert_allclose(one, other, atol=1e-5)


# ---------------------------------------------------------------- predictions


def test_a_judge_by_hand():
    info = ModelInfo("small", ["a", "b"], (22, 22), "b")
    assert Judge.of(info) == Judge(["a", "b"])
    plain = Judge.of(info).judge("x", np.array([0.4, 0.6]))
    assert plain == Prediction("x", "b", {"a": 0.4, "b": 0.6})
    assert plain.as_dict() == {"file": "x", "label": "b", "probabilities": {"a": 0.4, "b": 0.6}}
    sets = {"method": "lac", "coverage": 0.9, "quantile": 0.5, "unit": "image", "images": 9, "groups": None}
    judge = Judge.of(replace(info, calibration={"temperature": 2.0, "sets": sets}))
    for shares, chosen in (([0.4, 0.6], ["b"]), ([0.5, 0.5], ["a", "b"])):
        found = judge.judge("x", np.array(shares))
        assert (found.classes, found.sure, found.novel) == (chosen, len(chosen) == 1, None)
        assert found.as_dict()["set"] == chosen and "novel" not in found.as_dict()
    three = judge.judge("x", np.array([0.45, 0.1]))
    assert (three.classes, three.sure) == ([], False)


def test_predictions_of_a_calibrated_run(calibrated, data, tmp_path):
    folder = data.root / "test/all"
    found = predict(calibrated, [folder])
    info = read_info(calibrated.best).calibration
    for one in found:
        inside = [label for label, value in one.probabilities.items() if 1 - value <= info["sets"]["quantile"]]
        assert (one.classes, one.sure) == (inside, len(inside) == 1)
        assert one.novel == (one.novelty > info["novelty"]["limit"])
    assert np.mean([one.novel for one in found]) < 0.5
    blank = tmp_path / "blank.png"
    Image.new("RGB", (SIZE, SIZE), "white").save(blank)
    (one,) = predict(calibrated, [blank])
    assert one.novel and one.novelty > 2 * info["novelty"]["limit"]


def test_the_last_network_is_not_calibrated(calibrated, data):
    (one,) = predict(calibrated, [data.root / "test/all/0.bmp"], weights="last")
    assert (one.classes, one.sure, one.novelty, one.novel) == (None, None, None, None)


def test_the_mean_over_the_views(calibrated, data):
    files = sorted((data.root / "test/hem").iterdir())
    model = load_model(calibrated.best)
    images = np.stack([decode(file, (SIZE, SIZE)) for file in files])
    expected = averaged_probabilities(lambda batch: probabilities(model, batch), images)
    said: list[str] = []
    found = predict(calibrated, files, tta=True, say=said.append)
    np.testing.assert_allclose([list(one.probabilities.values()) for one in found], expected, atol=1e-5)
    assert said == ["Note: the sets of classes were fitted without --tta; their coverage is not promised with it."]
    plain = predict(calibrated, files, say=said.append)
    assert [one.novelty for one in plain] == [one.novelty for one in found]
    assert any(one.probabilities != other.probabilities for one, other in zip(plain, found, strict=True))


# ---------------------------------------------------------------- the commands


def test_the_command(run, data, shell):
    out, err = printed(*shell("calibrate", run.path, data.root, "--group-pattern", r"(\w+/\w+/\d)", "--resamples", 20))
    lines = out.splitlines()
    assert lines[0] == "36 images of 20 groups, part: validation"
    assert [line.split("  ")[0] for line in lines[2:6]] == ["log loss", "ECE", "Brier score", "accuracy"]
    assert lines[6].startswith("temperature ") and lines[6].endswith("the network was too sure of itself")
    assert "sets (lac) for new groups, coverage 0.9" in out and "mean over their groups" in out
    assert "99.0% of images like these are to lie below" in out
    assert "evaluate on another part" in err and "Warning" not in err


def test_the_command_as_json_without_groups(run, data, shell):
    (run.path / "best.openvino.xml").write_text("")
    out, err = printed(
        *shell("calibrate", run.path, data.root, "--json", "--resamples", 5, "--sets", "aps", "--positive", "hem")
    )
    found = json.loads(out)
    assert found["sets"]["method"] == "aps" and found["part"] == "validation"
    assert found["before"]["positive_class"]["name"] == found["after"]["positive_class"]["name"] == "hem"
    assert read_info(run.best).positive == "all", "the network keeps its own"
    assert "the export is of the network before" in err and "no group labels given" in err


def test_predict_prints_what_it_is_not_sure_of(calibrated, trained, data, tmp_path, shell):
    blank = tmp_path / "blank.png"
    Image.new("RGB", (SIZE, SIZE), "white").save(blank)
    folder = data.root / "test/all"
    out, _ = printed(*shell("predict", calibrated.path, blank, folder))
    lines = ["does not look like the training images (novelty " in line for line in out.splitlines()]
    assert lines[0] and not all(lines)
    out, _ = printed(*shell("predict", calibrated.path, blank, folder, "--format", "csv", "--tta"))
    first, *others = csv.DictReader(io.StringIO(out))
    added = ["set_all", "set_hem", "sure", "novelty", "novel"]
    assert list(first) == ["file", "label", "probability_all", "probability_hem", *added]
    assert [int(row["novel"]) for row in (first, *others)] == [int(line) for line in lines]
    out, _ = printed(*shell("predict", calibrated.path, folder, "--json"))
    assert set(json.loads(out)["predictions"][0]) == {
        *("file", "label", "probabilities"), *("set", "sure", "novelty", "novel")
    }  # fmt: skip
    out, _ = printed(*shell("predict", trained.path, folder, "--format", "csv"))
    assert out.splitlines()[0] == "file,label,probability_all,probability_hem"


def test_not_sure_in_words(run, data, shell):
    info = read_info(run.best)
    sets = {"method": "lac", "coverage": 0.9, "quantile": 1.0, "unit": "image", "images": 9, "groups": None}
    image = data.root / "test/all/0.bmp"
    for quantile, words in ((1.0, "not sure: all or hem"), (-1.0, "not sure: no class fits")):
        stored = {"temperature": 1.0, "sets": {**sets, "quantile": quantile}}
        save_model(load_model(run.best), replace(info, calibration=stored), run.best)
        out, _ = printed(*shell("predict", run.path, image))
        assert out.rstrip().endswith(f")  {words}")
