"""A network that stays loaded: the same answers whichever way an image comes in, and what it refuses."""

import io
import os
import pickle
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from customcnn.data.manifest import scan
from customcnn.evaluation.evaluate import predict_rows
from customcnn.export import export
from customcnn.images.decode import decode
from customcnn.images.readers import quick_read, read
from customcnn.inference.classifier import Classifier, predict, probabilities
from customcnn.inference.inputs import is_several, listed
from customcnn.runs.run_dir import RunDir
from customcnn.runs.saved_model import ModelInfo, load_model, read_info, save_model
from customcnn.training.train import train
from tests.support.colors import SIZE, paint, recipe
from tests.support.errors import refused


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunDir:
    """A network of three colours, a softmax, trained for a moment."""
    root = tmp_path_factory.mktemp("colors")
    sizes = {
        f"{part}/{label}": n for part, n in (("train", 8), ("validation", 4)) for label in ("blue", "green", "red")
    }
    found = RunDir(root / "run")
    train(scan(paint(root / "data", sizes)), found, recipe(precision="float32"))
    return found


@pytest.fixture(scope="module")
def classifier(run) -> Classifier:
    """It, loaded once for all tests."""
    return Classifier(run)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """One picture in files of many kinds, none of the network's size."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(5)
    color = Image.fromarray(rng.integers(0, 256, (SIZE + 9, SIZE + 4, 3), dtype=np.uint8))
    grey = color.convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    alpha = color.copy()
    alpha.putalpha(grey)
    kinds = {
        "color.bmp": color,
        "color.jpg": color,
        "palette.gif": color.convert("P"),
        "cmyk.jpg": color.convert("CMYK"),
    }
    kinds |= {"grey.png": grey, "deep.png": deep, "alpha.png": alpha, "one.png": grey.convert("1")}
    for name, image in kinds.items():
        image.save(folder / name)
    return {name: folder / name for name in kinds}


bad_input = partial(refused, match=r"Received: .*\.$")


# ---------------------------------------------------------------- the ways in


NAMES = ["color.bmp", "color.jpg", "palette.gif", "cmyk.jpg", "grey.png", "deep.png", "alpha.png", "one.png"]


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_the_same_whichever_way_it_comes_in(classifier, files, name):
    path = files[name]
    wanted = decode(path, classifier.info.input_size)
    ways = [path, str(path), path.read_bytes(), Image.open(path), Image.open(io.BytesIO(path.read_bytes()))]
    for way in ways:
        found = classifier.pixels(way)
        assert (found.dtype, found.shape) == (np.uint8, (SIZE, SIZE, 3))
        np.testing.assert_array_equal(found, wanted)
    # Pillow loads anew what is opened anew.
    answers = classifier.predict([path, str(path), path.read_bytes(), Image.open(path)])
    assert len({tuple(answer.probabilities.values()) for answer in answers}) == 1
    assert [answer.file for answer in answers] == [str(path), str(path), "image 3", "image 4"]


def test_arrays_are_taken_as_they_are(classifier, files):
    color, grey = (np.asarray(Image.open(files[name])) for name in ("color.bmp", "grey.png"))
    np.testing.assert_array_equal(classifier.pixels(color), classifier.pixels(files["color.bmp"]))
    np.testing.assert_array_equal(classifier.pixels(grey), classifier.pixels(files["grey.png"]))
    assert classifier.predict(color)[0].probabilities == classifier.predict(files["color.bmp"])[0].probabilities
    several = np.stack([color, color[::-1], color[:, ::-1]])
    assert [p.probabilities for p in classifier.predict(several)] == [
        p.probabilities for p in classifier.predict([*several])
    ]


def test_arrays_of_any_order_in_memory(classifier, files):
    color = np.asarray(Image.open(files["color.bmp"]))
    for same in (np.asfortranarray(color), np.ascontiguousarray(color[::-1])[::-1]):
        np.testing.assert_array_equal(classifier.pixels(same), classifier.pixels(color))


def test_a_pillow_image_stays_as_it_is(classifier, files):
    image = Image.open(files["palette.gif"])
    before = (image.mode, image.size)
    classifier.predict(image)
    assert (image.mode, image.size) == before


def test_a_folder_stands_for_its_images(classifier, files, tmp_path):
    folder = tmp_path / "some"
    folder.mkdir()
    for name in ("grey.png", "color.bmp", "color.jpg"):
        shutil.copy(files[name], folder)
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "notes.txt").write_text("not an image")
    names = [str(folder / name) for name in ("color.bmp", "color.jpg", "grey.png")]
    assert [p.file for p in classifier.predict(folder)] == names
    assert [p.file for p in classifier.predict([str(folder), files["one.png"]])] == [*names, str(files["one.png"])]


def test_collections_of_any_kind(files):
    paths = [files["color.bmp"], files["grey.png"]]
    for several in (paths, tuple(paths), iter(paths), np.array([str(p) for p in paths]), np.array(paths, dtype=object)):
        assert listed(several) == paths
    pandas = pytest.importorskip("pandas")
    assert listed(pandas.Series([str(path) for path in paths])) == paths


def test_one_image_is_not_taken_for_several(files):
    pixels = np.zeros((4, 4, 3), np.uint8)
    for one in (files["grey.png"], str(files["grey.png"]), b"", Image.new("L", (3, 3)), pixels, pixels[..., 0]):
        assert not is_several(one)
    assert is_several(pixels[None]) and is_several([pixels])


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((8, 8, 3)),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8, 3), np.int64),
        np.zeros((8, 8), np.uint16),
        np.zeros((8, 8), bool),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 1), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros(8, np.uint8),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_other_arrays_are_refused(classifier, array):
    message = bad_input(classifier.pixels, array)
    assert message.startswith("An image as an array is uint8 (H, W, 3) in RGB, or (H, W) in grey, 0 to 255.")
    assert f"Received: {array.dtype} {array.shape}" in message
    bad_input(classifier.predict, [array])


@pytest.mark.parametrize("thing", [None, 7, pytest.param(object(), id="object"), [[1, 2], [3, 4]], {"a": 1}], ids=repr)
def test_other_things_are_refused(classifier, thing):
    bad_input(classifier.predict, [thing])
    bad_input(classifier.pixels, thing)


def test_pillow_images_are_refused_as_their_files_are(classifier, files, tmp_path):
    levels = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    floats = Image.fromarray(levels)
    assert "floating-point pixels" in bad_input(classifier.pixels, floats)
    wide = Image.fromarray((levels * 70_000).astype(np.int32))
    assert "beyond 16 bits" in bad_input(classifier.pixels, wide)
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    cut = tmp_path / "cut.jpg"
    data = files["color.jpg"].read_bytes()
    cut.write_bytes(data[: 3 * len(data) // 4])
    for name, image in (("float.tif", floats), ("wide.tif", wide)):
        image.save(tmp_path / name)
    for name, reason in (
        ("two.gif", "an animation"),
        ("cut.jpg", "damaged"),
        ("float.tif", "floating"),
        ("wide.tif", "16"),
    ):
        # By the same words, whether it is a file or what Pillow makes of it.
        assert reason in bad_input(classifier.predict, tmp_path / name)
        assert reason in bad_input(classifier.predict, Image.open(tmp_path / name))
    assert "without pixels" in bad_input(classifier.pixels, Image.new("RGB", (0, 5)))


def test_too_many_pixels_are_refused_before_they_are_decoded(classifier, monkeypatch):
    monkeypatch.setattr("customcnn.images.decode.MAX_PIXELS", 99)
    assert "more than 99" in bad_input(classifier.pixels, Image.new("L", (10, 10)))
    assert "more than 99" in bad_input(classifier.pixels, np.zeros((10, 10), np.uint8))


@pytest.mark.parametrize("data", [b"", b"no image", b"\x89PNG\r\n\x1a\n"], ids=["empty", "text", "a beginning"])
def test_bytes_that_are_no_image_are_refused(classifier, data):
    assert "'the bytes given'" in bad_input(classifier.predict, data)


def test_missing_files_and_empty_folders_are_refused(classifier, tmp_path):
    assert "does not exist" in bad_input(classifier.predict, tmp_path / "nowhere.bmp")
    assert "a folder without images" in bad_input(classifier.predict, str(tmp_path))
    assert "Received: none" in bad_input(classifier.predict, [])


def test_a_bad_image_costs_no_other_its_answer(classifier, files, tmp_path):
    good = [files["color.bmp"], files["grey.png"]]
    cut = tmp_path / "cut.png"
    cut.write_bytes(files["grey.png"].read_bytes()[:60])
    found = classifier.predict([good[0], cut, b"no image", good[1]], skip_bad=True)
    assert [one.file for one in found] == [str(path) for path in good] and len(found.pictures) == 2
    assert found == classifier.predict(good), "the same answers"
    (path, why), (name, other) = found.skipped
    assert path == str(cut) and why.startswith("damaged (")
    assert (name, other) == ("image 3", "not an image of a known format")
    assert pickle.loads(pickle.dumps(found)).skipped == found.skipped
    assert "'cut.png'" in bad_input(classifier.predict, [good[0], cut]).replace(str(tmp_path) + "/", "")
    nothing = classifier.predict([cut], skip_bad=True)
    assert not nothing and nothing.skipped == [(path, why)]


@pytest.mark.parametrize("function", [read, quick_read])
def test_a_named_pipe_is_not_waited_for(classifier, tmp_path, function):
    pipe = tmp_path / "cell.png"
    os.mkfifo(pipe)
    # Whoever reads it gets nothing and its end, so that a mistake fails here and does not hang.
    threading.Thread(target=lambda: os.close(os.open(pipe, os.O_WRONLY)), daemon=True).start()
    assert "cell.png', no regular file" in bad_input(function, pipe, (SIZE, SIZE))
    assert "cell.png', no regular file" in bad_input(classifier.predict, pipe)
    os.close(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))


# ---------------------------------------------------------------- a network that gives no numbers


@pytest.mark.parametrize("runtime", ["keras", "openvino"])
def test_a_network_of_nan_is_refused(run, files, tmp_path, runtime):
    if runtime != "keras":
        pytest.importorskip(runtime)
    broken = RunDir(Path(shutil.copytree(run.path, tmp_path / "run")))
    model = load_model(broken.best, whole=True)
    model.weights[-1].assign(model.weights[-1] * np.nan)
    save_model(model, read_info(broken.best), broken.best)
    if runtime != "keras":
        export(broken, format=runtime, check=False)
    network = Classifier(broken, runtime=runtime)
    several = [files["color.bmp"], files["grey.png"]]
    for function, images in (
        (network.predict, several),
        (partial(network.predict, tta=True), several),
        (network.probabilities, np.stack([network.pixels(path) for path in several])),
        (network.explain, several[0]),
    ):
        message = bad_input(function, images, match="The network has diverged")
        assert message.startswith("Probabilities are finite numbers. Received: NaN or infinite ones for")


# ---------------------------------------------------------------- images of another size


def test_images_of_another_size_than_the_training_images_are_said(run, tmp_path):
    rng = np.random.default_rng(4)
    for name, size in (("cell.png", (SIZE, SIZE)), ("photo.png", (9 * SIZE, 7 * SIZE)), ("dot.jpg", (4, SIZE))):
        Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(tmp_path / name)
    said: list[str] = []
    network = Classifier(run, say=said.append)
    assert network.info.sides == (SIZE, SIZE)
    assert network.predict(tmp_path / "cell.png").notes == [] == said
    found = network.predict([tmp_path])
    (line,) = said
    assert line.startswith(
        "Warning: 2 of 3 images are plainly of another size than the training images, whose sides have "
        f"{SIZE} pixels: {str(tmp_path / 'dot.jpg')!r} (4 x {SIZE}), {str(tmp_path / 'photo.png')!r} ({9 * SIZE} x "
    )
    assert found.notes == [line.removeprefix("Warning: ")]
    said.clear()
    photo = tmp_path / "photo.png"
    network.predict([photo.read_bytes(), Image.open(photo), np.asarray(Image.open(photo)), tmp_path / "cell.png"])
    assert said[0].startswith("Warning: 3 of 4 images") and "'image 2'" in said[0]


# ---------------------------------------------------------------- one network, many questions


def test_probabilities_are_those_of_predict(classifier, files):
    pixels = np.stack([classifier.pixels(path) for path in files.values()])
    rows = classifier.probabilities(pixels)
    assert (rows.dtype, rows.shape) == (np.float64, (len(files), 3))
    np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-12)
    found = classifier.predict([*files.values()])
    np.testing.assert_array_equal(rows, [list(p.probabilities.values()) for p in found])
    assert [p.label for p in found] == [classifier.classes[i] for i in rows.argmax(axis=1)]
    np.testing.assert_array_equal(rows, probabilities(load_model(classifier.path), pixels))


def test_a_batch_of_one_and_of_seventy_agree(classifier):
    images = np.random.default_rng(0).integers(0, 256, (70, SIZE, SIZE, 3), dtype=np.uint8)
    together = classifier.probabilities(images)
    np.testing.assert_allclose(np.concatenate([classifier.probabilities(x[None]) for x in images]), together, atol=1e-5)
    found = classifier.predict(images)  # by batches of 64
    np.testing.assert_allclose([list(p.probabilities.values()) for p in found], together, atol=1e-5)
    assert [found[0].file, found[69].file] == ["image 1", "image 70"]


def test_many_threads_get_their_own_answers(classifier):
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8) for _ in range(24)]
    wanted = [classifier.predict(image)[0].probabilities for image in images]
    with ThreadPoolExecutor(8) as pool:
        by_predict = list(pool.map(lambda image: classifier.predict(image)[0].probabilities, images))
        by_rows = list(pool.map(lambda image: classifier.probabilities(image[None])[0].tolist(), images))
    assert by_predict == wanted
    assert by_rows == [list(shares.values()) for shares in wanted]


def test_two_sigmoid_outputs_give_shares_of_one(tmp_path):
    """With random weights they do not sum to 1; the class and its share are the same whoever asks, also over views."""
    import keras

    keras.utils.set_random_seed(4)
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.Flatten()(x)
    model = keras.Model(image, keras.layers.Dense(2, activation="sigmoid", name="predictions")(x), name="tiny")
    path = tmp_path / "run"
    path.mkdir()
    save_model(model, ModelInfo(model.name, ["all", "hem"], (8, 8), "hem"), RunDir(path).best)
    RunDir(path).recipe.write_text(recipe().to_toml())
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    raw = np.asarray(model.predict_on_batch(images), np.float64)
    assert np.abs(raw.sum(axis=1) - 1).min() > 0.02
    asked = Classifier(RunDir(path))
    np.testing.assert_allclose(asked.probabilities(images), raw / raw.sum(axis=1, keepdims=True), atol=1e-6)
    for tta in (False, True):
        answers = asked.predict(list(images), tta=tta)
        wanted = predict_rows(asked.model, images, np.arange(3), tta=tta)
        np.testing.assert_allclose([list(answer.probabilities.values()) for answer in answers], wanted, atol=1e-6)


def test_the_function_predict_says_the_same(classifier, run, files):
    paths = [*files.values()]
    assert predict(run, paths) == classifier.predict(paths)


def test_the_notes_say_what_the_run_is_worth(classifier, run, tmp_path):
    assert classifier.notes == []  # nothing is shared, nothing drawn
    shutil.copytree(run.path, tmp_path / "run")
    copy = RunDir(tmp_path / "run")
    text = copy.manifest.read_text()
    copy.manifest.write_text(text.replace(",train,", ",train,same").replace(",validation,", ",validation,same"))
    assert "byte for byte" in Classifier(copy).notes[0]
    copy.manifest.unlink()
    assert Classifier(copy).notes == []
