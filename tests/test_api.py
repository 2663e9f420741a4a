"""From Python: fit and load, explanations, lists of predictions, and that importing the package loads nothing."""

import csv
import io
import json
import pickle
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import customcnn
from customcnn import api
from customcnn.api import UNKNOWN_GROUPS, Classifier, LeakageWarning, fit, in_python, load
from customcnn.data.leakage import DRAWN
from customcnn.data.split import shares, split_by_image
from customcnn.errors import CustomCNNError
from customcnn.explain.gradcam import grad_cam, grad_cam_plus_plus, overlay
from customcnn.images.decode import decode
from customcnn.inference.decision import Prediction
from customcnn.inference.predictions import PICTURES, Predictions, as_row
from customcnn.metrics.scores import format_report
from customcnn.runs.run_dir import RunDir
from tests.support import ROOT
from tests.support.colors import SIZE, paint

QUICK = {"input_size": SIZE, "epochs": 1, "batch_size": 10, "precision": "float32", "verbose": False}


def cells(root: Path, subjects: int = 4, cells: int = 4) -> Path:
    """Paint cells with the subject in each name, as C-NMC has it."""
    paint(root, {"all": subjects * cells, "hem": subjects * cells})
    for label, letter in (("all", ""), ("hem", "H")):
        for number in range(subjects * cells):
            new = f"UID_{letter}{number // cells + 1}_{number % cells + 1}_1_{label}.bmp"
            (root / label / f"{number}.bmp").rename(root / label / new)
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Class folders with the subjects in the names."""
    return cells(tmp_path_factory.mktemp("cells") / "cells")


@pytest.fixture(scope="module")
def model(folder, tmp_path_factory) -> Classifier:
    """A network that was trained on them."""
    return fit(folder, out=tmp_path_factory.mktemp("fit") / "run", **QUICK)


@pytest.fixture
def cell(folder) -> Path:
    """One of them."""
    return folder / "all" / "UID_1_1_1_all.bmp"


def parts(run: RunDir) -> dict[str, set[str]]:
    """Return the groups of each part."""
    data = run.read_manifest()
    return {part: {record.group for record in data.part(part).records} for part in data.parts}


# ---------------------------------------------------------------- fit


def test_groups_in_the_names_are_kept_together(folder, tmp_path, recwarn):
    found = fit(folder, out=tmp_path / "run", **QUICK)
    assert isinstance(found, Classifier) and found.notes == []
    assert not [w for w in recwarn if issubclass(w.category, LeakageWarning)]
    kept = parts(found.run)
    assert set(kept) == {"train", "validation"} and not kept["train"] & kept["validation"]
    assert kept["train"] | kept["validation"] == {"1", "2", "3", "4", "H1", "H2", "H3", "H4"}
    assert all(record.sha256 for record in found.run.read_manifest().records)
    assert {path.name for path in folder.iterdir() if path.name[0] != "."} == {"all", "hem"}, "nothing moved"


def test_without_groups_images_are_split_one_by_one_with_a_warning(tmp_path):
    data = paint(tmp_path / "data", {"red": 10, "blue": 10})
    with pytest.warns(LeakageWarning, match="No group labels given") as caught:
        found = fit(data, out=tmp_path / "run", **QUICK)
    assert [Path(w.filename) for w in caught if w.category is LeakageWarning] == [Path(__file__)]
    assert found.notes == [UNKNOWN_GROUPS] == found.predict(data / "red").notes
    records = found.run.read_manifest().records
    labels = [record.label for record in records]
    assert [record.split for record in records] == split_by_image(labels, shares(0.8), 120)


@pytest.mark.kill
def test_a_split_by_image_where_groups_are_known_is_said_to_leak(folder, tmp_path):
    with pytest.warns(LeakageWarning, match=r"Inflated by leakage: .* that the network was trained on"):
        found = fit(folder, out=tmp_path / "run", by="image", ratio=0.5, **QUICK)
    assert found.notes[0].startswith("Inflated by leakage")


@pytest.mark.kill
def test_a_folder_that_is_split_stays_as_it_is(tmp_path):
    data = paint(tmp_path / "data", {"train/red": 8, "train/blue": 8, "validation/red": 4, "validation/blue": 4})
    shutil.copy(data / "train" / "red" / "0.bmp", data / "validation" / "red" / "copy.bmp")
    with pytest.warns(LeakageWarning, match="No group labels given"):
        found = fit(data, out=tmp_path / "run", **QUICK)
    counts = found.run.read_manifest().counts()
    assert (counts["train", "red"], counts["validation", "red"]) == (8, 5)


@pytest.mark.kill
def test_a_group_pattern_is_taken(tmp_path):
    data = paint(tmp_path / "data", {"red": 12, "blue": 12})
    found = fit(data, out=tmp_path / "run", group_pattern=r"/(\d)", **QUICK)
    kept = parts(found.run)
    assert not kept["train"] & kept["validation"] and found.notes == []


def test_drawn_cells_are_said_to_be_drawn(tmp_path):
    from customcnn.data.synthetic import draw_samples

    data = draw_samples(tmp_path / "cells", subjects=2, cells=2, size=48, workers=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = fit(data, out=tmp_path / "run", ratio=0.5, **QUICK)
    told = [w for w in caught if str(w.message) == DRAWN]
    assert [w.category for w in told] == [UserWarning], "a warning, but none of leakage"
    assert found.notes == [DRAWN] and parts(found.run)["train"] & {"1", "2"}, "the groups of the manifest"


@pytest.mark.kill
def test_the_same_seed_gives_the_same_network(folder, tmp_path):
    runs = [fit(folder, out=tmp_path / name, seed=seed, **QUICK).run for name, seed in (("a", 5), ("b", 5), ("c", 6))]
    histories = [run.history.read_bytes() for run in runs]
    assert histories[0] == histories[1] != histories[2]
    assert parts(runs[0]) == parts(runs[1])


@pytest.mark.kill
def test_any_key_of_a_recipe_may_be_set(folder, tmp_path):
    found = fit(folder, out=tmp_path / "run", augmentation={"flip": "both"}, learning_rate=0.01, **QUICK)
    recipe = found.run.read_recipe()
    assert (recipe.model, recipe.augmentation.flip, recipe.learning_rate, recipe.epochs) == ("small", "both", 0.01, 1)
    assert recipe.optimizer == "adam", "the network's own habit"


@pytest.mark.kill
def test_a_recipe_file_is_taken_and_settings_win(folder, tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text('model = "one-conv"\nlearning_rate = 0.5\nepochs = 7\n')
    found = fit(folder, recipe=file, out=tmp_path / "run", **QUICK)
    recipe = found.run.read_recipe()
    assert (recipe.model, recipe.learning_rate, recipe.epochs) == ("one-conv", 0.5, 1)


@pytest.mark.kill
def test_epochs_are_told_unless_quiet(folder, tmp_path, capsys):
    fit(folder, out=tmp_path / "run", **{**QUICK, "verbose": True})
    told = capsys.readouterr().out
    assert "Epoch 1/1" in told and "Best epoch 1 of 1 by val_accuracy: loss " in told
    fit(folder, out=tmp_path / "quiet", **QUICK)
    assert capsys.readouterr().out == ""


@pytest.mark.kill
def test_the_run_goes_to_runs_and_is_not_written_over(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fit(folder, **QUICK).run.path == Path("runs/small")
    with pytest.raises(CustomCNNError, match=r"Run 'runs/small' exists\."):
        fit(folder, **QUICK)
    assert len(fit(folder, **{**QUICK, "epochs": 2}, resume=True).run.read_history()) == 2
    assert len(fit(folder, **QUICK, replace=True).run.read_history()) == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"epoch": 3}, r"Received: 'epoch' in customcnn\.fit\. Did you mean epochs\?"),
        ({"model": "smal"}, "Did you mean small"),
        ({"by": "subject"}, "A split is by group, where groups are known, or by image. Received: 'subject'"),
        ({"ratio": 1.5}, "A share lies between 0 and 1"),
        ({"group_pattern": "nothing(x)"}, "A group pattern matches every path"),
        ({"input_size": 4}, "needs an input of at least"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_wrong_options_are_refused_and_leave_nothing(folder, tmp_path, options, reason):
    with pytest.raises(CustomCNNError, match=reason):
        fit(folder, out=tmp_path / "run", **{**QUICK, **options})
    assert not (tmp_path / "run").exists()


def test_a_split_by_group_needs_groups(tmp_path):
    data = paint(tmp_path / "data", {"red": 4, "blue": 4})
    with pytest.raises(CustomCNNError, match="groups unknown"):
        fit(data, out=tmp_path / "run", by="group", **QUICK)


# ---------------------------------------------------------------- load


def test_what_was_fitted_is_loaded_again(model, cell):
    for run in (model.run, model.run.path, str(model.run.path)):
        again = load(run)
        assert again.predict(cell) == model.predict(cell)
    assert load(model.run, weights="last").path == model.run.last


def test_notes_of_a_loaded_network_are_warnings_at_the_caller(model, tmp_path):
    Image.new("L", (30, 30)).save(tmp_path / "grey.png")
    with pytest.warns(UserWarning, match="converted to 8-bit RGB: 1 of mode L") as caught:
        load(model.run).predict(tmp_path / "grey.png")
    assert Path(caught[0].filename) == Path(__file__)


def test_no_run_is_refused(tmp_path):
    with pytest.raises(CustomCNNError, match="A run is a folder made by customcnn train"):
        load(tmp_path)


# ---------------------------------------------------------------- explanations


@pytest.mark.parametrize(("method", "function"), [("grad-cam", grad_cam), ("grad-cam++", grad_cam_plus_plus)])
@pytest.mark.parametrize("label", ["all", "hem"])
def test_an_explanation_is_grad_cam(model, cell, method, function, label):
    found = model.explain(cell, label, method)
    pixels = decode(cell, (SIZE, SIZE))
    heat = function(model.model, pixels, ["all", "hem"].index(label))
    np.testing.assert_array_equal(found.heat, heat)
    assert (found.heat.dtype, found.heat.shape) == (np.float32, (SIZE, SIZE))
    np.testing.assert_array_equal(found.image, pixels)
    np.testing.assert_array_equal(found.overlay, overlay(pixels, heat))
    assert (found.label, found.method) == (label, method)
    assert found.probabilities == model.predict(cell)[0].probabilities


def test_the_predicted_class_is_explained_unless_told(model, cell):
    assert model.explain(cell).label == model.predict(cell)[0].label


def test_an_image_may_come_in_any_way(model, cell):
    wanted = model.explain(cell).heat
    image = Image.open(cell)
    for way in (str(cell), cell.read_bytes(), image, np.asarray(image)):
        np.testing.assert_array_equal(model.explain(way).heat, wanted)


def test_a_layer_may_be_chosen(model, cell):
    deep, early = model.explain(cell), model.explain(cell, layer="conv1")
    assert deep.heat.shape == early.heat.shape and not np.array_equal(deep.heat, early.heat)


def test_occlusion_has_both_signs(model, cell):
    from customcnn.explain.occlusion import occlusion, signed_overlay

    found = model.explain(cell, "all", "occlusion")
    np.testing.assert_allclose(found.heat, occlusion(model.model, found.image, 0), atol=1e-6)
    np.testing.assert_array_equal(found.overlay, signed_overlay(found.image, found.heat))


def test_a_function_may_explain(model, cell):
    def red(function, image, index):
        assert function(image[None]).shape == (1, 2)
        return image[..., 0] / 255 * index

    found = model.explain(cell, "hem", red)
    np.testing.assert_allclose(found.heat, found.image[..., 0] / 255, atol=1e-6)
    assert found.method == "red"
    with pytest.raises(CustomCNNError, match=r"A map has a finite number for each pixel"):
        model.explain(cell, "hem", lambda function, image, index: image)


@pytest.mark.backend
def test_an_export_predicts_and_keras_explains(model, cell, tmp_path):
    pytest.importorskip("openvino")
    from customcnn.export import export

    shutil.copytree(model.run.path, tmp_path / "run")
    export(RunDir(tmp_path / "run"))
    found = load(tmp_path / "run")
    assert found.runtime == "openvino"
    np.testing.assert_allclose(found.explain(cell, "all").heat, model.explain(cell, "all").heat, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"label": "blast"}, r"A class of the network is explained\. Received: 'blast'; it knows 'all', 'hem'\."),
        ({"method": "lime"}, r"A method is one of grad-cam, grad-cam\+\+, occlusion, or a function\. Received: 'lime'"),
        ({"layer": "conv9"}, "Received: 'conv9'"),
        ({"layer": "conv1", "method": "occlusion"}, "A layer is for grad-cam"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "+".join(value),
)
def test_what_cannot_be_explained_is_refused(model, cell, options, reason):
    with pytest.raises(CustomCNNError, match=reason):
        model.explain(cell, **options)


def test_one_image_is_explained_at_a_time(model, cell):
    with pytest.raises(CustomCNNError, match="One image is explained at a time"):
        model.explain([cell, cell])


def test_an_explanation_shows_itself(model, cell, tmp_path):
    found = model.explain(cell)
    path = found.save(tmp_path / "why.png")
    saved = np.asarray(Image.open(path))
    times = saved.shape[0] // SIZE
    assert saved.shape[0] >= 192 and times > 1
    np.testing.assert_array_equal(saved[::times, ::times], found.beside)
    np.testing.assert_array_equal(found.beside[:, :SIZE], found.image)
    np.testing.assert_array_equal(found.beside[:, -SIZE:], found.overlay)
    assert found._repr_png_() == path.read_bytes()
    html = found._repr_html_()
    assert 'src="data:image/png;base64,' in html and f"grad-cam for {found.label}" in html
    assert repr(found).startswith("<Explanation: grad-cam for ")
    with pytest.raises(CustomCNNError, match="saved as PNG"):
        found.save(tmp_path / "why.jpg")


# ---------------------------------------------------------------- scores, the history, a representation


def test_it_scores_itself_on_the_images_of_its_training(model, tmp_path):
    found = model.evaluate(out=tmp_path / "out", resamples=5)
    validation = model.run.read_manifest().part("validation")
    assert (found.metrics["part"], found.metrics["images"]) == ("validation", len(validation.records))
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == found.metrics
    text = repr(found)
    assert text.startswith(format_report(found.metrics).splitlines()[0]) and "balanced accuracy" in text


def test_it_scores_itself_on_a_folder_and_warns(model, folder, tmp_path):
    with pytest.warns(LeakageWarning, match="that the network was trained on"):
        found = model.evaluate(folder, out=tmp_path / "out", resamples=5)
    assert found.metrics["images"] == 32 and found.notes[0] in repr(found)


def test_images_of_another_size_are_scored_with_a_warning(model, make_folder, tmp_path):
    photographs = make_folder({"all": 2, "hem": 2}, size=3 * SIZE)
    with pytest.warns(UserWarning, match="4 of 4 images are plainly of another size") as caught:
        model.evaluate(photographs, out=tmp_path / "out", resamples=2)
    assert not [w for w in caught if w.category is LeakageWarning and "another size" in str(w.message)]


def test_images_that_are_gone_cannot_be_scored(model, tmp_path):
    copy = load(shutil.copytree(model.run.path, tmp_path / "run"))
    copy.run.environment.write_text(json.dumps({"data": str(tmp_path / "nowhere")}))
    with pytest.raises(CustomCNNError, match=r"no longer in '.*nowhere' \('all/.*bmp' is missing\)\. Give a folder"):
        copy.evaluate()
    copy.run.environment.unlink()
    with pytest.raises(CustomCNNError, match=r"no environment\.json"):
        copy.evaluate()


def test_the_history_and_what_it_is(model):
    assert model.history == model.run.read_history() and [row["epoch"] for row in model.history] == [1]
    assert repr(model) == (
        f"<Classifier: small from {str(model.run.best)!r}, all or hem, {SIZE} x {SIZE} pixels, epoch 1, "
        "computed by keras>"
    )


# ---------------------------------------------------------------- errors in Python's words


def test_a_cell_that_is_run_again_says_what_to_do(model, folder):
    with pytest.raises(CustomCNNError) as caught:
        fit(folder, out=model.run.path, **QUICK)
    assert str(caught.value) == (
        f"Run {str(model.run.path)!r} exists. Use resume=True to go on with it, or replace=True to delete it."
    )


def test_errors_name_arguments_and_commands_as_they_are():
    assert in_python("--group-pattern takes one group. Received: --ratio 2. Choose another --out.") == (
        "group_pattern takes one group. Received: ratio 2. Choose another out."
    )
    command = "An export is whole. Received: 'a--b'. Export it again: customcnn export 'run' --format onnx."
    assert in_python(command) == command


def test_errors_of_a_loaded_network_name_arguments(model, folder, tmp_path):
    for call in (
        lambda: load(model.run.path, runtime="abacus"),
        lambda: model.evaluate(folder, part="test", out=tmp_path / "out"),
        lambda: model.evaluate(folder, resamples=0, out=tmp_path / "out"),
    ):
        with pytest.raises(CustomCNNError) as caught:
            call()
        assert "--" not in str(caught.value)
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- lists of predictions


CALIBRATED = Prediction(
    "a <b>,\n.bmp", "all", {"all": 0.75, "hem": 0.25}, classes=["all", "hem"], sure=False, novelty=7.25, novel=True
)


def test_a_list_of_predictions_is_a_list(model, folder):
    found = model.predict(folder / "all")
    assert isinstance(found, list) and len(found) == 16 and found == list(found)
    assert isinstance(found[0], Prediction)
    few = found[2:4]
    assert isinstance(few, Predictions) and few == list(found)[2:4]
    np.testing.assert_array_equal(few.pictures, found.pictures[2:4])
    again = pickle.loads(pickle.dumps(found))
    assert again == found and again.notes == found.notes


def test_predictions_print_as_lines(model, cell):
    found = model.predict(cell)
    shares = "  ".join(f"{label} {share:.3f}" for label, share in found[0].probabilities.items())
    assert str(found) == f"{cell}  {found[0].label}  ({shares})"
    assert str(Predictions([CALIBRATED])) == (
        "'a <b>,\\n.bmp'  all  (all 0.750  hem 0.250)  not sure: all or hem  "
        "does not look like the training images (novelty 7.2)"
    )
    assert str(Predictions()) == "no predictions"


def test_predictions_are_rows_of_csv(model, folder, tmp_path):
    found = model.predict(folder / "hem")
    rows = found.to_rows()
    assert rows[0] == {
        "file": found[0].file,
        "label": found[0].label,
        "probability_all": found[0].probabilities["all"],
        "probability_hem": found[0].probabilities["hem"],
    }
    text = found.to_csv(tmp_path / "found.csv")
    assert (tmp_path / "found.csv").read_text() == text
    assert [row["file"] for row in csv.DictReader(io.StringIO(text))] == [p.file for p in found]
    extra = {"set_all": 1, "set_hem": 1, "sure": 0, "novelty": 7.25, "novel": 1}
    assert as_row(CALIBRATED) == {
        "file": CALIBRATED.file, "label": "all", "probability_all": 0.75, "probability_hem": 0.25, **extra
    }  # fmt: skip


def test_predictions_show_themselves_as_a_table(model, folder):
    few = model.predict(folder / "all")
    html = few._repr_html_()
    assert html.count("<img ") == len(few) == html.count("<tr>") - 1
    many = model.predict([folder / "all", folder / "hem"])
    assert len(many) > PICTURES and not many.pictures and "<img" not in many._repr_html_()
    long = Predictions([*many] * 4, notes=["<careful>"])._repr_html_()
    assert long.count("<tr>") == 61 and "and 68 more" in long and "Warning: &lt;careful&gt;" in long


def test_names_are_escaped_in_the_table():
    html = Predictions([CALIBRATED])._repr_html_()
    assert "a &lt;b&gt;," in html and "<b>," not in html and "\n" not in html
    assert "not sure: all or hem" in html


# ---------------------------------------------------------------- the package's own names


def loaded_by(code: str) -> set[str]:
    """Run code in a fresh process and return the modules that it has loaded beyond a bare start."""
    report = "import sys; before = set(sys.modules)\n" + code + "\nprint(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing():
    assert loaded_by("import customcnn; dir(customcnn); customcnn.__version__") == {"customcnn"}


@pytest.mark.docs
def test_names_are_loaded_when_they_are_used():
    loaded = loaded_by("import customcnn; assert customcnn.load is customcnn.load")
    assert "customcnn.api" in loaded and not loaded & {"keras", "tensorflow", "sklearn", "matplotlib"}
    assert "sklearn" in loaded_by("from customcnn import ImageClassifier")


def test_every_public_name_is_there():
    assert set(customcnn.__all__) <= set(dir(customcnn))
    for name in customcnn.__all__:
        assert getattr(customcnn, name) is not None
    assert customcnn.load is load and customcnn.LeakageWarning is LeakageWarning
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        customcnn.nothing  # noqa: B018


@pytest.mark.docs
def test_type_checkers_see_the_names(tmp_path):
    mypy = pytest.importorskip("mypy.api")
    (tmp_path / "use.py").write_text(
        "import customcnn\nreveal_type(customcnn.load('run'))\nreveal_type(customcnn.load('run').predict('a.bmp')[0])\n"
        "reveal_type(customcnn.fit('cells').explain('a.bmp').heat.dtype)\ncustomcnn.nothing\n"
    )
    told, _, status = mypy.run(
        # With the settings and in the place of the checks of the whole package, what they know is used.
        [f"--config-file={ROOT / 'pyproject.toml'}", f"--cache-dir={ROOT / '.mypy_cache'}", str(tmp_path / "use.py")]
    )
    assert "customcnn.api.Classifier" in told and "customcnn.inference.decision.Prediction" in told
    assert 'Module has no attribute "nothing"' in told and status == 1


# ---------------------------------------------------------------- notebooks


def test_bars_are_drawn_where_the_kernel_is_a_notebook(monkeypatch, capsys):
    class ZMQInteractiveShell:
        pass

    class IPython:
        @staticmethod
        def get_ipython():
            return ZMQInteractiveShell()

    assert api.bars() is api.terminal
    monkeypatch.setitem(sys.modules, "IPython", IPython)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)  # not installed
    bar = api.bars()
    assert bar is not api.terminal
    with bar(3, "draw") as advance:
        advance(3)
    assert "draw:   0%" in capsys.readouterr().err
