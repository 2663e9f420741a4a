"""The run directory: what a saved model carries, what damage is told apart, histories to the last bit, links."""

import json
import os
import resource
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from customcnn.errors import CustomCNNError
from customcnn.metrics.conformal import Conformal
from customcnn.recipe.monitor import best_epoch
from customcnn.recipe.recipe import Recipe
from customcnn.runs.run_dir import RunDir, link_or_copy, rows_to_csv
from customcnn.runs.saved_model import INFO, ModelInfo, load_model, read_info, save_model
from tests.support.errors import refused

HISTORY = [
    {"epoch": 1, "loss": 0.1 + 0.2, "accuracy": 0.5, "val_loss": 1 / 3, "val_accuracy": 1.0},
    {"epoch": 2, "loss": 1e-17, "accuracy": 0.75, "val_loss": 5e-324, "val_accuracy": 0.875},
]
NAMED = ModelInfo("small", ["all", 'häm "x"\n'], (22, 24), "all", drawn=True, epoch=2, history=HISTORY)


@pytest.fixture(scope="module")
def model():
    """A network with weights, compiled and with an optimizer that has made a step."""
    from customcnn.models import build_model

    network = build_model("small", input_size=(22, 24))
    network.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
    network.train_on_batch(pixels(), np.array([[0.0], [1.0], [1.0]]))
    return network


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory) -> Path:
    """That network in a file, with NAMED inside."""
    path = tmp_path_factory.mktemp("saved") / "last.keras"
    save_model(model, NAMED, path)
    return path


def pixels() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (3, 22, 24, 3), dtype=np.uint8)


# ---------------------------------------------------------------- a saved model


def test_info_comes_back_without_loading_the_model(saved):
    assert read_info(saved) == NAMED
    assert isinstance(read_info(saved).input_size, tuple)
    assert [path.name for path in saved.parent.iterdir()] == ["last.keras"], "nothing is left beside it"


def test_a_calibration_comes_back_and_is_left_out_where_there_is_none(model, saved, tmp_path):
    with zipfile.ZipFile(saved) as archive:
        assert "calibration" not in json.loads(archive.read(INFO)), "files of before had none"
    stored = {"temperature": 1.5, "sets": Conformal("lac", 0.9, 1 / 3, "image", 30, None).as_dict()}
    save_model(model, replace(NAMED, calibration=stored), tmp_path / "best.keras")
    found = read_info(tmp_path / "best.keras")
    assert found.calibration == stored and replace(found, calibration=None) == NAMED


def test_reading_the_info_does_not_import_keras(saved):
    code = f"""
import sys
from pathlib import Path
from customcnn.runs.saved_model import read_info
read_info(Path({str(saved)!r}))
print(*sys.modules)
"""
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "customcnn.runs.saved_model" in modules
    assert not {"keras", "tensorflow"} & set(modules)


def test_weights_and_optimizer_come_back(model, saved):
    loaded = load_model(saved)
    assert loaded.count_params() == model.count_params()
    for old, new in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert int(loaded.optimizer.iterations.numpy()) == 1
    assert len(loaded.optimizer.variables) == len(model.optimizer.variables)
    np.testing.assert_array_equal(loaded.predict_on_batch(pixels()), model.predict_on_batch(pixels()))


def test_a_saved_model_needs_keras_alone(model, saved, tmp_path):
    np.save(tmp_path / "pixels.npy", pixels())
    code = (
        "import sys, keras, numpy as np\n"
        f"model = keras.models.load_model({str(saved)!r})\n"
        f"np.save({str(tmp_path / 'out.npy')!r}, model.predict_on_batch(np.load({str(tmp_path / 'pixels.npy')!r})))\n"
        "assert not any(name.partition('.')[0] == 'customcnn' for name in sys.modules)\n"
    )
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), model.predict_on_batch(pixels()), atol=1e-6)


def test_what_cannot_be_saved_leaves_the_old_file_as_it_was(model, saved, tmp_path):
    path = tmp_path / "last.keras"
    shutil.copyfile(saved, path)
    unsavable = ModelInfo("small", ["a", "b"], (22, 24), "b", history=[{"loss": object()}])  # type: ignore[dict-item]
    with pytest.raises(TypeError):
        save_model(model, unsavable, path)
    assert path.read_bytes() == saved.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["last.keras"]


# ---------------------------------------------------------------- damage


def not_ours(path: Path, load=read_info) -> str:
    """Return the message with which a file is refused; it is one line."""
    return refused(load, path, match=r"^.{1,999}$")


def written_by_hand(path: Path, entry: str, text: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(entry, text)
    return path


def test_a_missing_file(tmp_path):
    path = tmp_path / "x\n.keras"
    assert not_ours(path) == (
        f"A saved network is a .keras file written by customcnn. Received: {str(path)!r} "
        f"([Errno 2] No such file or directory: {str(path)!r}). Train it again."
    )
    assert not_ours(path, load_model).startswith(f"A saved network is a whole .keras file. Received: {str(path)!r} (")


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 truncated", b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_a_file_that_is_no_archive(tmp_path, content):
    path = tmp_path / "last.keras"
    path.write_bytes(content)
    assert not_ours(path).startswith(
        f"A saved network is a .keras file written by customcnn. Received: {str(path)!r} ("
    )
    assert not_ours(path, load_model).startswith(f"A saved network is a whole .keras file. Received: {str(path)!r} (")


def test_a_folder_is_no_model(tmp_path):
    assert "Is a directory" in not_ours(tmp_path)
    assert not_ours(tmp_path, load_model).startswith("A saved network is a whole .keras file.")


def test_a_model_of_somebody_else(model, tmp_path):
    path = tmp_path / "foreign.keras"
    model.save(path)
    assert not_ours(path) == (
        f"A saved network is a .keras file written by customcnn. Received: {str(path)!r} "
        f"(\"There is no item named '{INFO}' in the archive\"). Train it again."
    )


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "[]",
        "3",
        "{}",
        '{"input_size": [22, 22]}',
        '{"input_size": 22, "model": "small", "classes": ["a", "b"], "positive": "b"}',
        '{"input_size": [22, 22], "model": "small", "classes": ["a", "b"], "positive": "b", "of a later version": 1}',
        "\udcff".encode("utf-8", "surrogateescape").decode("latin-1"),
    ],
)
def test_an_info_of_another_shape(tmp_path, text):
    path = written_by_hand(tmp_path / "last.keras", INFO, text)
    assert not_ours(path).startswith("A saved network is a .keras file written by customcnn. Received: ")
    assert not_ours(path, load_model).startswith("A saved network is a whole .keras file. Received: ")


def with_info(saved: Path, path: Path, **changed: object) -> Path:
    """Write the saved network with other values in its `ModelInfo`."""
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, json.dumps({**json.loads(data), **changed}) if name == INFO else data)
    return path


SETS = {"method": "lac", "coverage": 0.9, "quantile": 0.5, "unit": "image", "images": 9, "groups": None}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", 5),
        ("classes", 5),
        ("classes", "ab"),
        ("classes", ["a"]),
        ("classes", ["a", "a"]),
        ("classes", ["a", 1]),
        ("classes", None),
        ("input_size", "ab"),
        ("input_size", [22]),
        ("input_size", [22.5, 24]),
        ("input_size", [0, 24]),
        ("input_size", [True, 24]),
        ("positive", None),
        ("positive", "neither"),
        ("drawn", "yes"),
        ("epoch", "2"),
        ("epoch", -1),
        ("history", "x"),
        ("history", [1]),
        ("history", [{"loss": "low"}]),
        ("calibration", "x"),
        ("calibration", {"temperature": "hot"}),
        ("calibration", {"sets": {"quantile": 0.5}}),
        ("calibration", {"sets": {**SETS, "quantile": "x"}}),
        ("calibration", {"sets": {**SETS, "method": "x"}}),
        ("calibration", {"sets": 5}),
        ("calibration", {"novelty": {"mean": "x"}}),
    ],
)
def test_an_info_of_wrong_types_is_refused_by_name(saved, tmp_path, key, value):
    path = with_info(saved, tmp_path / "best.keras", **{key: value})
    assert f"{str(path)!r} ({key} in its customcnn.json must be " in not_ours(path)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("input_size", [48, 48], "input_size in its customcnn.json is [48, 48], but the network takes [22, 24]"),
        ("classes", ["all", "b", "c"], "classes in its customcnn.json are 3, but the network has 1 outputs"),
    ],
)
def test_an_info_of_another_network_is_refused(saved, tmp_path, key, value, reason):
    path = with_info(saved, tmp_path / "best.keras", **{key: value})
    assert f"{str(path)!r} ({reason})" in not_ours(path, load_model)


@pytest.mark.parametrize("name", ["model.weights.h5", INFO, "another"])
def test_an_archive_that_unpacks_to_far_more_is_refused_before_it_does(saved, tmp_path, name):
    path = tmp_path / "best.keras"
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for other in {*old.namelist()} - {name}:
            new.writestr(other, old.read(other))
        new.writestr(name, bytes(20_000_000))
    for load in (read_info, load_model):
        assert "(it would unpack to 20," in not_ours(path, load)


def test_a_full_temporary_folder_is_no_damage(saved, tiny_disk, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tiny_disk))
    message = not_ours(saved, load_model)
    assert f"{str(tiny_disk)!r} (No space left on device). Free some room there, or set TMPDIR" in message
    assert "Train it again" not in message


def test_a_file_cut_short(saved, tmp_path):
    whole = saved.read_bytes()
    path = tmp_path / "last.keras"
    for length in (1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        not_ours(path)
        not_ours(path, load_model)


def test_flipped_bytes_raise_our_error_or_none(saved, tmp_path):
    whole, path = saved.read_bytes(), tmp_path / "last.keras"
    with zipfile.ZipFile(saved) as archive:
        starts = [entry.header_offset for entry in archive.infolist()]
    places = [*range(len(whole) - 420, len(whole), 7), *(s + offset for s in starts for offset in (0, 6, 8, 30, 60))]
    places += np.random.default_rng(1).integers(len(whole), size=20).tolist()
    refused = 0
    for number, place in enumerate(places):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        for load in (read_info, load_model) if number % 4 == 0 else (read_info,):
            try:
                load(path)
            except CustomCNNError as error:
                refused += 1
                assert "\n" not in str(error)
    assert refused > 20


# ---------------------------------------------------------------- the folder


def test_the_promised_names():
    run = RunDir(Path("r"))
    found = {name: str(getattr(run, name)) for name, value in vars(RunDir).items() if isinstance(value, property)}
    assert found == {
        "recipe": "r/recipe.toml",
        "environment": "r/environment.json",
        "manifest": "r/manifest.csv",
        "history": "r/history.csv",
        "best": "r/best.keras",
        "last": "r/last.keras",
        "predictions": "r/predictions.csv",
        "metrics": "r/metrics.json",
        "curves": "r/curves.png",
        "confusion": "r/confusion.png",
        "reliability": "r/reliability.png",
        "report": "r/report.html",
        "model_card": "r/model-card.md",
        "calibration": "r/calibration.json",
        "calibration_plot": "r/calibration.png",
        "activations": "r/activations",
        "logs": "r/logs",
        "mlflow": "r/mlflow",
    }


def a_run(path: Path) -> RunDir:
    path.mkdir()
    run = RunDir(path)
    run.recipe.write_text(Recipe(epochs=3).to_toml())
    return run


def test_the_recipe_of_a_run(tmp_path):
    run = a_run(tmp_path / "run")
    assert run.read_recipe() == Recipe(epochs=3)
    run.recipe.write_text("epoch = 3")
    with pytest.raises(CustomCNNError, match=r"Received: 'epoch' in '.*/run/recipe.toml'\. Did you mean epochs\?"):
        run.read_recipe()


def test_a_class_name_with_stray_bytes_comes_back_in_the_recipe(tmp_path):
    from customcnn.io.atomic import write_text

    run = a_run(tmp_path / "run")
    recipe = Recipe(positive=os.fsdecode(b"h\xffm"))
    write_text(run.recipe, recipe.to_toml())
    assert run.read_recipe() == recipe


@pytest.mark.parametrize("content", [b"epochs = ", b"\x00", None])
def test_a_recipe_that_cannot_be_read(tmp_path, content):
    run = RunDir(tmp_path)
    if content is not None:
        run.recipe.write_bytes(content)
    assert refused(run.read_recipe).startswith(f"A run holds a recipe.toml. Received: {str(tmp_path)!r} (")


def test_clear_deletes_a_run(tmp_path):
    run = a_run(tmp_path / "run")
    run.activations.mkdir()
    (run.activations / "index.html").write_text("x")
    assert run.exists()
    run.clear()
    assert run.path.is_dir() and not any(run.path.iterdir())


def test_clear_empties_the_folder_behind_a_symlink(tmp_path):
    run = a_run(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    RunDir(tmp_path / "link").clear()
    assert not list(run.path.iterdir())


def test_clear_refuses_what_is_no_run(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "wedding.jpg").write_bytes(b"x")
    assert refused(RunDir(photos).clear) == (
        f"--replace deletes runs only. Received: {str(photos)!r}, which is no run (it has no recipe.toml). "
        "Choose another --out."
    )
    with pytest.raises(CustomCNNError, match="--replace deletes runs only"):
        RunDir(photos / "wedding.jpg").clear()
    assert (photos / "wedding.jpg").read_bytes() == b"x"


def test_clear_deletes_the_recipe_last(tmp_path):
    """Killed halfway, what is left is still a run, which --replace deletes."""
    run = a_run(tmp_path / "run")
    for name in ("a", "history.csv", "z"):
        (run.path / name).write_text("x")
    code = (
        "import sys; from customcnn.runs.run_dir import Path, RunDir\n"
        "sys.addaudithook(lambda event, a: print(Path(a[0]).name) if event in ('os.remove', 'os.rmdir') else None)\n"
        f"RunDir(Path({str(run.path)!r})).clear()"
    )
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert sorted(names[:-1]) == ["a", "history.csv", "z"]
    assert names[-1] == "recipe.toml"


def test_weights(tmp_path):
    run = a_run(tmp_path / "run")
    for which in ("best", "last"):
        assert refused(run.weights, which) == (
            f"A run holds a trained network. Received: {str(run.path)!r} without {which}.keras: no epoch has ended. "
            "Go on with customcnn train --resume."
        )
        (run.path / f"{which}.keras").write_text("x")
        assert run.weights(which) == run.path / f"{which}.keras"
    for other in (tmp_path, tmp_path / "missing\n"):
        assert refused(RunDir(other).weights) == f"A run is a folder made by customcnn train. Received: {str(other)!r}."


# ---------------------------------------------------------------- history


scores = st.floats(allow_nan=False)


@given(st.lists(st.tuples(scores, scores, scores), max_size=4))
def test_a_history_comes_back_to_the_last_bit(tmp_path_factory, epochs):
    run = RunDir(tmp_path_factory.mktemp("run"))
    keys = ("epoch", "loss", "accuracy", "val_loss")
    rows = [dict(zip(keys, (number, *values), strict=True)) for number, values in enumerate(epochs, start=1)]
    run.write_history(rows)
    found = run.read_history()
    assert [list(row.items()) for row in found] == [list(row.items()) for row in rows]
    assert all(isinstance(row["epoch"], int) for row in found)
    before = run.history.read_bytes()
    run.write_history(found)
    assert run.history.read_bytes() == before
    shutil.rmtree(run.path)


def test_a_history_by_hand(tmp_path):
    run = RunDir(tmp_path)
    assert run.read_history() == []
    run.write_history(HISTORY)
    assert run.history.read_text() == (
        "epoch,loss,accuracy,val_loss,val_accuracy\n"
        "1,0.30000000000000004,0.5,0.3333333333333333,1.0\n"
        "2,1e-17,0.75,5e-324,0.875\n"
    )
    assert run.read_history() == HISTORY


@pytest.mark.parametrize("text", ["loss\n1\n", "epoch,loss\none,2\n", "epoch,loss\n1\n", "epoch,loss\n1,x\n"])
def test_a_damaged_history(tmp_path, text):
    run = RunDir(tmp_path)
    run.history.write_text(text)
    with pytest.raises(CustomCNNError, match=r"Received: '.*history\.csv'"):
        run.read_history()


def test_rows_to_csv():
    assert rows_to_csv([]) == ""
    assert rows_to_csv([{"a": 'x "y"', "b": "1,2"}, {"a": "two\nlines", "b": 0.1}]) == (
        'a,b\n"x ""y""","1,2"\n"two\nlines",0.1\n'
    )


@pytest.mark.parametrize(
    ("monitor", "values", "best"),
    [
        ("val_accuracy", [0.5, 0.75, 0.75, 0.25], 2),
        ("val_accuracy", [0.5], 1),
        ("accuracy", [1.0, 1.0], 1),
        ("val_loss", [0.5, 0.25, 0.25, 0.75], 2),
        ("loss", [0.25, 0.5], 1),
        ("loss", [0.0, 0.0, -1.0], 3),
    ],
)
def test_the_best_epoch_is_the_first_of_the_best(monitor, values, best):
    history = [{"epoch": n, "other": -n, monitor: value} for n, value in enumerate(values, start=1)]
    assert best_epoch(history, monitor) == best


# ---------------------------------------------------------------- link_or_copy


def test_a_link_is_the_same_file(tmp_path):
    last, best = tmp_path / "last.keras", tmp_path / "best.keras"
    last.write_bytes(b"new")
    best.write_bytes(b"old")
    (tmp_path / ".best.keras.partial").write_bytes(b"left by a kill")
    link_or_copy(last, best)
    assert best.read_bytes() == b"new"
    assert best.samefile(last)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.keras", "last.keras"]
    # A new last.keras takes the name, not the bytes of the linked file.
    (tmp_path / "next").write_bytes(b"newer")
    (tmp_path / "next").replace(last)
    assert (best.read_bytes(), last.read_bytes()) == (b"new", b"newer")


@pytest.fixture
def other_disk(tmp_path):
    """A folder on another file system than tmp_path, where hard links do not reach."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system here")
    folder = memory / f"customcnn-test-{os.getpid()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def test_a_copy_where_links_do_not_reach(tmp_path, other_disk):
    (other_disk / "last.keras").write_bytes(b"new")
    link_or_copy(other_disk / "last.keras", tmp_path / "best.keras")
    assert (tmp_path / "best.keras").read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["best.keras"]


def test_a_copy_onto_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, other_disk):
    (other_disk / "last.keras").write_bytes(bytes(100_000))
    (tmp_path / "best.keras").write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            link_or_copy(other_disk / "last.keras", tmp_path / "best.keras")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "best.keras").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["best.keras"]


def test_the_info_is_json_inside_the_archive(saved):
    with zipfile.ZipFile(saved) as archive:
        assert json.loads(archive.read(INFO))["classes"] == NAMED.classes
        assert archive.testzip() is None


# ---------------------------------------------------------------- one process at a time


def test_a_run_is_locked_and_an_empty_folder_goes_again(tmp_path):
    run = RunDir(tmp_path / "runs" / "mine")
    with run.locked():
        assert refused(lambda: run.locked().__enter__()) == (
            f"A run is written by one process at a time. Received: {str(run.path)!r}, which another process is "
            "training now. Wait for it, or choose another --out."
        )
    assert not list(tmp_path.iterdir())
    with run.locked():
        run.recipe.write_text("")
    with run.locked():
        pass
    assert run.exists()


def test_a_lock_ends_with_a_killed_process(tmp_path):
    run = RunDir(tmp_path)
    code = (
        "import os; from customcnn.runs.run_dir import Path, RunDir\n"
        f"lock = RunDir(Path({str(tmp_path)!r})).locked(); lock.__enter__(); print('locked', flush=True); os.read(0, 1)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"locked\n"
        assert "which another process is training now" in refused(lambda: run.locked().__enter__())
        other.kill()
    with run.locked():
        pass


@pytest.mark.parametrize("name", ["", "tpyo"])
def test_nothing_to_go_on_with(tmp_path, name):
    run = RunDir(tmp_path / name)
    assert refused(run.require_begun) == (
        f"--resume goes on with a run. Received: {str(run.path)!r}, where there is none. "
        "Check --out, or leave out --resume to begin one."
    )
    run.path.mkdir(exist_ok=True)
    run.recipe.write_text("")
    run.require_begun()
