"""Ctrl-C: the command that goes on is said, where there is something to go on with."""

import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from customcnn.runs.run_dir import RunDir
from tests.support import ROOT
from tests.support.colors import paint
from tests.support.commands import error_line


@pytest.fixture
def parts(tmp_path, monkeypatch) -> Path:
    """A split folder of the smallest size, and where the command stands."""
    monkeypatch.chdir(tmp_path)
    return paint(tmp_path / "my parts", {"train/a": 2, "train/b": 2, "validation/a": 1, "validation/b": 1})


def interrupt(monkeypatch, module: str, begun: Path | None) -> None:
    """Press Ctrl-C in the library's function of a command, once it has written a file."""

    def pressed(*arguments: object, **options: object) -> None:
        if begun is not None:
            begun.parent.mkdir(parents=True, exist_ok=True)
            begun.unlink(missing_ok=True)
            begun.write_text("model = 'small'\n")
        raise KeyboardInterrupt

    name, _, function = module.rpartition(".")
    monkeypatch.setattr(sys.modules[name], function, pressed)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "customcnn train 'my parts' --model small --out run --resume"),
        (("--replace",), "customcnn train 'my parts' --model small --out run --resume"),
    ],
)
def test_the_command_that_goes_on(shell, parts, monkeypatch, words, said):
    import customcnn.training.train  # noqa: F401

    interrupt(monkeypatch, "customcnn.training.train.train", Path("run/recipe.toml"))
    if words:
        Path("run").mkdir()
        Path("run/recipe.toml").write_text("")
    status, output, errors = shell("train", "my parts", "--model", "small", "--out", "run", *words)
    assert (status, output) == (130, "")
    assert errors.split("\n") == [f"Go on with: {said}", "", "Stopped.", ""]


@pytest.mark.parametrize("old", [False, True])
def test_nothing_is_said_where_nothing_has_begun(shell, parts, monkeypatch, old):
    """Also where an older run is still there, which was to be replaced."""
    import customcnn.training.train  # noqa: F401

    interrupt(monkeypatch, "customcnn.training.train.train", None)
    if old:
        Path("run").mkdir()
        Path("run/recipe.toml").write_text("")
    status, _, errors = shell("train", "my parts", "--model", "small", "--out", "run", "--replace")
    assert (status, errors) == (130, "\nStopped.\n")


def test_a_study_goes_on_with_the_same_command(shell, parts, monkeypatch):
    import customcnn.studies.reproduce  # noqa: F401

    study = str(ROOT / "experiments/small-cnn")
    interrupt(monkeypatch, "customcnn.studies.reproduce.reproduce", Path("out/state.json"))
    status, _, errors = shell("reproduce", study, "my parts", "--out", "out")
    assert status == 130
    assert errors.split("\n") == [f"Go on with: customcnn reproduce {study} 'my parts' --out out", "", "Stopped.", ""]


def test_a_launched_training_goes_on_as_the_trainings_of_its_nodes_do(shell, parts, monkeypatch):
    import customcnn.cluster.launch

    monkeypatch.setattr(customcnn.cluster, "connect", nullcontext)
    interrupt(monkeypatch, "customcnn.cluster.launch.launch", None)
    status, _, errors = shell("launch", "--nodes", 2, "--", "train", "my parts", "--out", "run")
    assert status == 130
    said = "customcnn launch --nodes 2 -- train 'my parts' --out run --resume"
    assert errors.split("\n") == [f"Go on with: {said}", "", "Stopped.", ""]


NOTHING = "--resume goes on with a {}. Received: 'tpyo', where there is none. Check --out, or leave out --resume"


@pytest.mark.parametrize(
    ("command", "what", "more"),
    [
        ("train", "run", ()),
        ("pretrain", "run", ()),
        ("crossval", "cross-validation", ()),
        ("tune", "search", ()),
        ("leakage", "leakage experiment", ("--group-pattern", r"(\d)\.bmp")),
    ],
)
def test_a_mistyped_out_begins_nothing(shell, parts, command, what, more):
    line = shell(command, "my parts", "--model", "small", "--out", "tpyo", "--resume", *more)
    assert error_line(*line).startswith(NOTHING.format(what))
    assert not Path("tpyo").exists()


def test_fit_goes_on_with_a_run_only(parts):
    import customcnn

    with pytest.raises(customcnn.CustomCNNError, match="where there is none"):
        customcnn.fit(parts, out="tpyo", resume=True, verbose=False)
    assert not RunDir(Path("tpyo")).path.exists()
