"""The command and what it writes: kinds, layers, classes, data; on networks of the table and on other backends."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from customcnn.cli.visualize import KINDS as NAMED
from customcnn.cli.visualize import STYLES as STYLES_NAMED
from customcnn.cli.visualize import visualize
from customcnn.data.manifest import Manifest, Record, scan
from customcnn.errors import CustomCNNError
from customcnn.models import build_model, get_spec, list_models
from customcnn.recipe.recipe import Recipe
from customcnn.runs.run_dir import RunDir
from customcnn.runs.saved_model import ModelInfo, save_model
from customcnn.visualize import KINDS, QUICK, Wanted, unique_names, visualize_run
from customcnn.visualize.run import ON_DATA, STYLES
from tests.support.errors import refused
from tests.support.networks import COVERED

SIZE = 24
CLASSES = ["all", "hem"]


def make_run(path: Path, model=None, *, size: int = SIZE, train: tuple[Record, ...] = ()) -> RunDir:
    """Return a run with a network that was never trained."""
    import keras

    keras.utils.set_random_seed(1)
    model = model or build_model("small", classes=2, input_size=size)
    path.mkdir(parents=True)
    run = RunDir(path)
    run.recipe.write_text(Recipe(model.name, (size, size)).to_toml())
    save_model(model, ModelInfo(model.name, CLASSES, (size, size), "all", epoch=1), run.best)
    Manifest(path, train).write(run.manifest)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunDir:
    train = tuple(Record(f"train/all/{n}.png", "all", f"s{n}", "train") for n in range(2))
    return make_run(tmp_path_factory.mktemp("runs") / "run", train=train)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Manifest:
    """Return twelve images of each class, of three subjects of four images each; a subject has its own colour."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    records = []
    for number, label in enumerate(CLASSES):
        (root / label).mkdir()
        for image in range(12):
            subject = image // 4 + 3 * number
            pixels = rng.integers(0, 60, (SIZE, SIZE, 3)) + 30 * np.array([subject, 5 - subject, 2])
            Image.fromarray(pixels.astype(np.uint8)).save(root / label / f"{image}.png")
            records.append(Record(f"{label}/{image}.png", label, f"s{subject}"))
    Manifest(root, tuple(records)).write(root / "manifest.csv")
    return scan(root)


def names(page: Path) -> list[str]:
    return sorted(path.name for path in page.parent.iterdir())


# ---------------------------------------------------------------- what is written


def test_the_command_knows_the_kinds_of_the_library():
    assert NAMED == KINDS
    assert STYLES_NAMED == STYLES
    assert set(QUICK) | set(ON_DATA) < set(KINDS)


def test_the_quick_kinds(run, data, tmp_path):
    page = visualize_run(run, [data.root / "all/0.png"], out=tmp_path / "out")
    assert names(page) == [
        "00_input.png", "00_original.png", "01_conv1.png", "02_pool1.png", "03_conv2.png", "04_pool2.png",
        "05_conv3.png", "06_pool3.png", "architecture.png", "filters-conv1.png", "filters-conv2.png", "gradcam.png",
        "index.html",
    ]  # fmt: skip
    text = page.read_text()
    headings = ["Image", "Prediction", "Grad-CAM", "Architecture", "Filters", "Activation maps"]
    places = [text.index(f">{heading}</h2>") for heading in headings]
    assert places == sorted(places)
    for picture in names(page)[:-1]:
        assert f'src="./{picture}"' in text


@pytest.mark.docs
def test_everything_at_once(run, data, tmp_path):
    wanted = Wanted(what=KINDS, data=data, seed=1)
    image = data.root / "hem/3.png"
    page = visualize_run(run, [image], out=tmp_path / "out", wanted=wanted)
    found = names(page)
    for name in ("gradcam-plus-plus.png", "occlusion.png", "sanity.png", "features.png", "exciting-conv1.png"):
        assert name in found
    numbers = json.loads((page.parent / "features.json").read_text())
    assert (numbers["images"], numbers["groups"]) == (24, 6)
    text = page.read_text()
    assert "Of these 6 groups 2 are in the training part of the run." in text
    assert "nearest neighbours" in text and "pixels of 16×16 copies" in text
    again = visualize_run(run, [image], out=tmp_path / "again", wanted=wanted)
    for name in found:
        assert (again.parent / name).read_bytes() == (page.parent / name).read_bytes(), name


def test_several_images_have_a_page_each_and_an_index(run, data, tmp_path):
    images = [data.root / "all/0.png", data.root / "hem/0.png"]
    page = visualize_run(run, images, out=tmp_path / "out", wanted=Wanted(what=["gradcam", "diagram"]))
    assert names(page) == ["0", "0-2", "architecture.png", "index.html"]
    for name in ("0", "0-2"):
        assert names(page.parent / name / "index.html") == [
            "00_input.png",
            "00_original.png",
            "gradcam.png",
            "index.html",
        ]
        assert f'href="{name}/index.html"' in page.read_text()
    assert "Architecture" in page.read_text() and "Grad-CAM" in (page.parent / "0" / "index.html").read_text()


def test_data_alone(run, data, tmp_path):
    wanted = Wanted(data=data, limit=12, layers=["conv1"])
    page = visualize_run(run, [], out=tmp_path / "out", wanted=wanted)
    assert names(page) == [
        "architecture.png", "exciting-conv1.png", "features.json", "features.png", "filters-conv1.png", "index.html"
    ]  # fmt: skip
    assert json.loads((page.parent / "features.json").read_text())["images"] == 12


def test_groups_that_are_not_known(run, data, tmp_path):
    plain = Manifest(data.root, tuple(Record(r.path, r.label) for r in data.records))
    page = visualize_run(run, [], out=tmp_path / "out", wanted=Wanted(["features"], data=plain))
    assert "No group labels given" in page.read_text()
    assert json.loads((page.parent / "features.json").read_text())["groups"] == 0


def test_layers_and_classes(run, data, tmp_path):
    wanted = Wanted(["activations", "filters", "gradcam"], layers=["conv[23]", "pool3"], classes=["hem"])
    page = visualize_run(run, [data.root / "all/1.png"], out=tmp_path / "out", wanted=wanted)
    assert [name for name in names(page) if name[1].isdigit()] == [
        "00_input.png", "00_original.png", "01_conv2.png", "02_conv3.png", "03_pool3.png"
    ]  # fmt: skip
    assert [name for name in names(page) if name.startswith("filters")] == ["filters-conv2.png", "filters-conv3.png"]
    assert "Grad-CAM of conv2, conv3, pool3" in page.read_text()
    one = Image.open(page.parent / "gradcam.png").size
    both = visualize_run(
        run,
        [data.root / "all/1.png"],
        out=tmp_path / "both",
        wanted=Wanted(["gradcam"], layers=["conv2", "conv3", "pool3"]),
    )
    assert Image.open(both.parent / "gradcam.png").size[1] > 1.5 * one[1], "a row for each class"


def test_figure_21_draws_every_layer_with_maps(tmp_path, data):
    """As the report's loop does: also what scales and normalises; the pictures are other than those of the range."""
    import keras

    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = keras.layers.Rescaling(1 / 255, name="rescale")(image)
    x = keras.layers.Conv2D(3, 3, name="conv1")(x)
    x = keras.layers.ReLU(name="conv1_relu")(keras.layers.BatchNormalization(name="conv1_bn")(x))
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(image, keras.layers.Dense(2, activation="softmax", name="predictions")(x), name="small")
    run, file = make_run(tmp_path / "run", model), data.root / "all/0.png"
    wanted = Wanted(["activations"], style="figure-21")
    page = visualize_run(run, [file], out=tmp_path / "all", wanted=wanted)
    shown = ["01_rescale.png", "02_conv1.png", "03_conv1_bn.png", "04_conv1_relu.png"]
    assert [name for name in names(page) if name[1].isdigit()][2:] == shown
    assert "64 + 128" in page.read_text()
    wanted = Wanted(["activations"], ["*_bn"], style="figure-21")
    page = visualize_run(run, [file], out=tmp_path / "one", wanted=wanted)
    assert "01_conv1_bn.png" in names(page)
    drawn = set()
    for style in STYLES:
        page = visualize_run(run, [file], out=tmp_path / style, wanted=Wanted(["activations"], ["conv1"], style=style))
        drawn.add((page.parent / "01_conv1.png").read_bytes())
    assert len(drawn) == 2
    # Nothing but convolutions and poolings is drawn otherwise: a pattern of other layers is refused, not left out.
    for what in (["activations"], ["gradcam", "activations"]):
        message = refused(visualize_run, run, [file], out=tmp_path / "none", wanted=Wanted(what, ["*_bn"]))
        assert message == (
            "--layers names layers that --what activations draws. Received: '*_bn', which fits none of 'small'. "
            "Use --style figure-21, which draws every layer with maps, or a layer such as 'conv1'."
        )
    assert visualize_run(run, [file], out=tmp_path / "cam", wanted=Wanted(["gradcam"], ["*_bn"])).is_file()
    message = refused(visualize_run, run, [file], out=tmp_path / "none", wanted=Wanted(["filters"], ["*_relu"]))
    assert message.endswith("which fits none of 'small'. Use a layer such as 'conv1'.")
    assert not (tmp_path / "none").exists()


def test_images_excite_filters_without_data(run, data, tmp_path):
    page = visualize_run(run, [data.root / "all"], out=tmp_path / "out", wanted=Wanted(["exciting"], layers=["conv1"]))
    assert "exciting-conv1.png" in names(page)


@pytest.mark.docs
def test_an_ensemble(run, data, tmp_path):
    from customcnn.training.ensemble import ensemble

    other = make_run(tmp_path / "other", build_model("residual", input_size=32), size=32)
    both = RunDir(tmp_path / "both")
    ensemble([run, other], both, weigh="equal")
    page = visualize_run(both, [data.root / "all/0.png"], wanted=Wanted([*QUICK, "exciting", "features"], data=data))
    found = names(page)
    assert {"architecture.png", "architecture-member1_small.png", "architecture-member2_residual.png"} <= set(found)
    assert "filters-member1_small_conv1.png" in found and "filters-member2_residual_stem.png" in found
    assert "features.png" in found and "gradcam.png" in found
    wanted = Wanted(["gradcam", "exciting"], layers=["member2_residual/stage4*"])
    assert visualize_run(both, [data.root / "all/0.png"], out=tmp_path / "x", wanted=wanted).is_file()


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("images", "wanted", "text"),
    [
        (["all/0.png"], {"layers": ["conv9"]}, "Received: 'conv9', which fits none of 'small'. Near are 'conv"),
        (["all/0.png"], {"classes": ["cat"]}, "Received: 'cat'; it knows 'all', 'hem'."),
        (["all/0.png"], {"what": ["dream"]}, "Received: 'dream'. Choose one."),
        (["all/0.png"], {"what": ["features"]}, "Received: --what features without --data."),
        (["all/0.png"], {"style": "figure-22"}, "--style is one of range, figure-21. Received: 'figure-22'."),
        (
            ["all/0.png"],
            {"what": ["gradcam"], "style": "figure-21"},
            "--style is of activation maps. Received: figure-21 without them. Add --what activations.",
        ),
        (
            ["all/0.png"],
            {"layers": ["conv1", "pool1"], "what": ["filters"]},
            "Received: 'pool1', which fits none of 'small'.",
        ),
        (["all/0.png"], {"limit": 0}, "--limit is at least 1. Received: 0."),
        ([], {}, "Received: none. Name one."),
    ],
)
def test_what_cannot_be_shown(run, data, tmp_path, images, wanted, text):
    named = [data.root / name for name in images]
    assert text in refused(visualize_run, run, named, out=tmp_path / "out", wanted=Wanted(**wanted))
    assert not (tmp_path / "out").exists()


def test_kinds_of_images_need_images(run, data, tmp_path):
    with pytest.raises(CustomCNNError, match=r"--what occlusion shows images\. Received: none\."):
        visualize_run(run, [], out=tmp_path / "out", wanted=Wanted(["occlusion"], data=data))


def test_data_of_other_classes_and_too_few(run, data, tmp_path):
    strange = Manifest(data.root, (Record("all/0.png", "cat"),))
    with pytest.raises(CustomCNNError, match=r"classes of the run\. Received: 'cat'"):
        visualize_run(run, [], out=tmp_path / "out", wanted=Wanted(data=strange))
    with pytest.raises(CustomCNNError, match=r"needs 10 images or more\. Received: 3\."):
        visualize_run(run, [], out=tmp_path / "out", wanted=Wanted(data=data, limit=3))
    assert not (tmp_path / "out").exists(), "nothing half-written"


def test_unique_names():
    assert unique_names([Path("a/x.png"), Path("b/x.bmp"), Path(".hidden"), Path("ü q.png")]) == [
        "x", "x-2", "hidden", "_q"
    ]  # fmt: skip


# ---------------------------------------------------------------- the command


def test_the_command(run, data, tmp_path):
    image = str(data.root / "all/0.png")
    words = [
        str(run.path),
        image,
        "--gradcam",
        "--what",
        "gradcam++",
        "--layers",
        "conv3",
        "--out",
        str(tmp_path / "o"),
    ]
    done = CliRunner().invoke(visualize, words, catch_exceptions=False)
    assert done.output == f"Page: {tmp_path / 'o' / 'index.html'}\n"
    assert names(tmp_path / "o" / "x") == [
        "00_input.png", "00_original.png", "gradcam-plus-plus.png", "gradcam.png", "index.html"
    ]  # fmt: skip
    words = [str(run.path), "--data", str(data.root), "--what", "diagram", "--json", "--out", str(tmp_path / "j")]
    found = json.loads(CliRunner().invoke(visualize, words, catch_exceptions=False).output)
    assert found["files"] == [str(tmp_path / "j" / "architecture.png")]


def test_the_command_without_images_and_data(run):
    done = CliRunner().invoke(visualize, [str(run.path)])
    assert done.exit_code == 2 and "Name an image, or give --data." in done.output


def test_all_without_data_leaves_features_out(run, data, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        "customcnn.visualize.visualize_run", lambda *args, **kinds: seen.update(kinds) or tmp_path / "p"
    )
    CliRunner().invoke(
        visualize, [str(run.path), str(data.root / "all/0.png"), "--what", "all"], catch_exceptions=False
    )
    assert set(seen["wanted"].what) == set(KINDS) - {"features"}
    CliRunner().invoke(visualize, [str(run.path), "--data", str(data.root), "--what", "all"], catch_exceptions=False)
    assert set(seen["wanted"].what) == {"exciting", "features", "filters", "diagram"}
    assert isinstance(visualize, click.Command)


# ---------------------------------------------------------------- every network, every backend

QUICK_NETWORKS = ("residual", "one-conv")
EVERY = [spec.name for spec in list_models() if spec.name not in COVERED]


@pytest.mark.parametrize(
    "name", [name if name in QUICK_NETWORKS else pytest.param(name, marks=pytest.mark.backend) for name in EVERY]
)
def test_every_network_of_the_table(name, data):
    """What lies under the pictures, on one small image: maps at any layer, features, filters, receptive fields."""
    from customcnn.explain.gradcam import GradCam, cam_layers
    from customcnn.explain.graph import depths
    from customcnn.visualize.embedding import features
    from customcnn.visualize.filters import filter_picture, kernels
    from customcnn.visualize.top_activations import exciting

    size = max(get_spec(name).minimum_size, 32)
    model = build_model(name, classes=3, input_size=size)
    images = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    layers = cam_layers(model)
    for layer in (layers[0], layers[len(layers) // 2], GradCam(model).layer):
        heat = GradCam(model, layer, plus_plus=True)(images[0], 2)
        assert heat.shape == (size, size) and np.isfinite(heat).all() and 0 <= heat.min() <= heat.max() <= 1
    assert set(depths(model)) <= set(layers)
    assert np.isfinite(features(model, images)).all()
    found = kernels(model)
    assert found[0].colored and filter_picture(found[0])[0].ndim == 3
    excited = exciting(model, images, [found[0].name, found[-1].name], filters=2)
    for one in (one for some in excited.values() for one in some):
        for top, left, bottom, right in (peak.box for peak in one.peaks):
            assert 0 <= top < bottom <= size and 0 <= left < right <= size


@pytest.mark.backend
def test_networks_of_the_table_on_torch():
    """On JAX it takes ten times as long, compiling: KERAS_BACKEND=jax does it by hand."""
    pytest.importorskip("torch")
    names = ("alexnet", "googlenet", "efficientnetb0", "convnexttiny")
    chosen = ["-m", "", "-k", f"network_of_the_table and ({' or '.join(names)})"]
    command = [sys.executable, "-m", "pytest", "-q", *chosen, __file__]
    ran = subprocess.run(command, env={**os.environ, "KERAS_BACKEND": "torch"}, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-3000:]
    assert f"{len(names)} passed" in ran.stdout
