"""Searches: their tables, their trials with a stand-in for the training, kills at every line, and real trainings."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from click.testing import CliRunner

from customcnn.cli import cli
from customcnn.data.leakage import Leakage
from customcnn.data.manifest import Manifest, scan
from customcnn.errors import CustomCNNError
from customcnn.model_selection import tune as module
from customcnn.model_selection.space import Axis, Space, read_space
from customcnn.model_selection.trials import METHODS
from customcnn.model_selection.tune import TuneResult, tune
from customcnn.plots.search import plot_trials, trials_figure
from customcnn.recipe.recipe import Recipe, flat, load_recipe, read_recipe
from customcnn.runs.run_dir import RunDir
from customcnn.training.train import TrainResult
from tests.support.colors import SIZE, paint
from tests.support.errors import refused

pytest.importorskip("optuna")

ROOT = Path(__file__).parents[2]
HEAD = f'model = "small"\ninput_size = {SIZE}\nbatch_size = 10\nepochs = 1\n'
CHOICES = "[search]\nlearning_rate = [0.001, 0.01, 0.1]\ndropout = [0.0, 0.5]\n"
RANGES = """[search]
learning_rate = { low = 1e-5, high = 0.1, log = true }
dropout = { low = 0.0, high = 0.5 }
batch_size = { low = 4, high = 64 }
optimizer = ["adam", "sgd"]
"""


def write(folder: Path, text: str, head: str = HEAD) -> Path:
    path = folder / "search.toml"
    path.write_text(f"{head}\n{text}")
    return path


def space(folder: Path, text: str = CHOICES, **settings: object) -> Space:
    return read_space(write(folder, text), settings)


# ---------------------------------------------------------------- the table [search]


def test_choices_and_ranges_by_hand(tmp_path):
    found = space(
        tmp_path, RANGES + 'input_size = [22, [24, 26]]\nfreeze = ["none", 2]\naugmentation.rotate = [0, 15]\n'
    )
    assert found.axes == (
        Axis("learning_rate", (), 1e-5, 0.1, True),
        Axis("dropout", (), 0.0, 0.5),
        Axis("batch_size", (), 4, 64),
        Axis("optimizer", ("adam", "sgd")),
        Axis("input_size", (22, (24, 26))),
        Axis("freeze", ("none", "2")),
        Axis("augmentation.rotate", (0.0, 15.0)),
    )
    assert [type(axis.low) for axis in found.axes[:3]] == [float, float, int]
    assert found.axes[4].names == [22, "[24, 26]"]
    assert found.size is None and space(tmp_path).size == 6


def test_the_tables_of_a_recipe_may_be_searched_in_either_way_of_writing(tmp_path):
    axis = Axis("augmentation.rotate", (), 0.0, 30.0)
    assert space(tmp_path, "[search]\naugmentation.rotate = { low = 0, high = 30 }\n").axes == (axis,)
    assert space(tmp_path, '[search]\n"augmentation.rotate" = { low = 0, high = 30 }\n').axes == (axis,)
    assert space(tmp_path, "[search.augmentation]\nrotate = { low = 0, high = 30 }\n").axes == (axis,)


def test_the_recipe_of_a_trial(tmp_path):
    found = read_space(write(tmp_path, CHOICES), {"epochs": 3, "sampling.class_weights": "balanced"})
    recipe = found.recipe({"learning_rate": 0.1, "dropout": 0.5})
    wanted = {"model": "small", "input_size": SIZE, "batch_size": 10, "epochs": 3, "learning_rate": 0.1, "dropout": 0.5}
    assert recipe == load_recipe(None, {**wanted, "sampling.class_weights": "balanced"})


def test_a_searched_network_brings_its_habits_along(tmp_path):
    found = read_space(write(tmp_path, '[search]\nmodel = ["small", "proposed"]\n', "epochs = 2\n"), {})
    assert found.recipe({"model": "small"}) == load_recipe(None, {"model": "small", "epochs": 2})
    assert found.recipe({"model": "proposed"}) == load_recipe(None, {"model": "proposed", "epochs": 2})
    assert found.recipe({"model": "small"}).optimizer == "adam" != found.recipe({"model": "proposed"}).optimizer


def test_what_the_command_line_sets_is_not_searched(tmp_path):
    assert [axis.key for axis in space(tmp_path, dropout=0.1).axes] == ["learning_rate"]
    assert refused(space, tmp_path, dropout=0.1, learning_rate=0.1) == (
        f"A search has a key to search. Received: {str(tmp_path / 'search.toml')!r}, all of whose keys the command "
        "line sets. Leave one out."
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "A search is told by a table [search] in the recipe. Received: {} without one. "),
        ("[search]\n", "A search is told by a table [search] in the recipe. Received: {} without one. "),
        ("[search]\nlearn = [1]\n", "A recipe has known keys only. Received: 'learn' in [search] of {}. "),
        (
            "[search]\nlearn = {low = 1, high = 2}\n",
            "A recipe has known keys only. Received: 'learn' in [search] of {}.",
        ),
        ("[search]\nepochs = [0.5]\n", "Recipe key epochs is a whole number. Received: 0.5 in [search] of {}."),
        ("[search]\nepochs = [0]\n", "Recipe key epochs: 1 or more. Received: 0."),
        ("[search]\nmodel = ['smal']\n", "The model must be one of "),
        (
            "[search]\nepochs = 5\n",
            "A searched key has a list of choices, or a range. Received: epochs = 5 in [search]",
        ),
        ("[search]\nepochs = []\n", "A searched key has a list of choices, or a range. Received: epochs = [] in "),
        ("[search]\ndropout = [0, 0.0]\n", "A choice stands once. Received: dropout = [0, 0.0] in [search] of {}. "),
        ("[search]\nmonitor = ['loss']\n", "All trials have the same monitor. Received: monitor in [search] of {}. "),
        (
            "[search]\nepochs = {low = 2}\n",
            "A range is {{ low = ..., high = ..., log = true or false }}, with low below",
        ),
        ("[search]\nepochs = {low = 2, high = 4, step = 1}\n", "A range is {{ low = ..., high = ..., log = "),
        (
            "[search]\nepochs = {low = 4, high = 4}\n",
            "A range is {{ low = ..., high = ..., log = true or false }}, with",
        ),
        ("[search]\nl2 = {low = 0.0, high = 1.0, log = true}\n", "A range is {{ low = ..., high = ..., log = true or"),
        (
            "[search]\nepochs = {low = 1.5, high = 4}\n",
            "Recipe key epochs is a whole number. Received: 1.5 in [search]",
        ),
        ("[search]\ndropout = {low = 0.0, high = 1.5}\n", "Recipe key dropout: 0 <= dropout < 1. Received: 1.5."),
        ("[search]\nloss = {low = 0.0, high = 1.5}\n", "Recipe key loss is text. Received: 0.0 in [search] of {}."),
        ("[search]\nfreeze = {low = 1, high = 3}\n", "A range is for a number. Received: freeze in [search] of {}. "),
        ("search = 3\n", "A search is told by a table [search] in the recipe. Received: {} without one. "),
    ],
)
def test_tables_that_tell_no_search(tmp_path, text, message):
    assert message.format(repr(str(tmp_path / "search.toml"))) in refused(space, tmp_path, text)


def test_the_file_of_a_search_is_no_recipe(tmp_path):
    path = write(tmp_path, CHOICES)
    assert refused(load_recipe, path, {}) == (
        f"A recipe is one training. Received: {str(path)!r} with a table [search], which is for customcnn tune. "
        "Use that command, or take the table out."
    )


def test_the_grid_of_the_study():
    import tomllib

    study = tomllib.loads((ROOT / "experiments" / "published.toml").read_text())["small_cnn"]["grid_search"]
    found = read_space(ROOT / "experiments" / "small-cnn" / "grid.toml", {})
    wanted = {"epochs": "epochs", "learning_rate": "learning_rate", "dropout": "dropout_rate"}
    assert {axis.key: list(axis.choices) for axis in found.axes} == {key: study[name] for key, name in wanted.items()}
    assert found.size == 27


# ---------------------------------------------------------------- searches with a stand-in for the training


class Stub:
    """Stands for `train`: scores a recipe by its keys, and remembers what it trained."""

    def __init__(self) -> None:
        self.trained: list[tuple[str, Recipe]] = []
        self.break_in = ""
        self.fails = lambda recipe: None

    def train(self, data, run, recipe, *, resume, workers, progress, say):
        assert resume
        self.trained.append((run.path.name, recipe))
        run.path.mkdir(exist_ok=True)
        if self.break_in == run.path.name:
            raise KeyboardInterrupt
        if error := self.fails(recipe):
            raise error
        accuracy = round(1 - abs(recipe.learning_rate - 0.01) - recipe.dropout / 10 + recipe.batch_size / 1000, 6)
        best = {"epoch": 1, "loss": 0.5, "accuracy": 0.5, "val_loss": 1 - accuracy, "val_accuracy": accuracy}
        return TrainResult(run, [best], best, Leakage("validation", 0, True, 0, 0, 0), [])


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Manifest:
    sizes = {"train/all": 3, "train/hem": 3, "validation/all": 2, "validation/hem": 2}
    return scan(paint(tmp_path_factory.mktemp("tune") / "data", sizes))


@pytest.fixture
def stub(monkeypatch) -> Stub:
    """Without Keras and without pictures, which take longer than all the rest."""
    stub = Stub()
    monkeypatch.setattr(module, "train", stub.train)
    monkeypatch.setattr(module, "forget_networks", lambda: None)
    monkeypatch.setattr(module.devices, "configure", lambda device: "cpu")
    monkeypatch.setattr("customcnn.plots.search.plot_trials", lambda *args, **options: None)
    return stub


def texts(method: str) -> str:
    return CHOICES if method == "grid" else RANGES


def values(result: TuneResult) -> list[dict]:
    return [dict(trial.values) for trial in result.trials]


def test_a_grid_takes_every_combination_once(stub, data, tmp_path):
    said: list[str] = []
    result = tune(data, tmp_path / "search", space(tmp_path), say=said.append)
    pairs = {(rate, dropout) for rate in (0.001, 0.01, 0.1) for dropout in (0.0, 0.5)}
    assert {(v["learning_rate"], v["dropout"]) for v in values(result)} == pairs
    assert len(result.trials) == 6
    assert [name for name, _ in stub.trained] == [f"trial-00{n}" for n in range(1, 7)]
    assert result.best.values == {"learning_rate": 0.01, "dropout": 0.0}
    assert said[0].startswith("Trial 1 of 6: learning_rate ") and len(said) == 6
    names = {path.name for path in (tmp_path / "search").iterdir() if path.is_file()}
    assert names == {"tune.json", "journal.log", "trials.csv", "best.toml"}


def test_trials_differ_by_what_is_searched_alone(stub, data, tmp_path):
    tune(data, tmp_path / "search", space(tmp_path))
    recipes = [flat(recipe) for _, recipe in stub.trained]
    differing = {key for key in recipes[0] if len({str(recipe[key]) for recipe in recipes}) > 1}
    assert differing == {"learning_rate", "dropout"}


def test_best_toml_is_the_recipe_of_the_best(stub, data, tmp_path):
    found = space(tmp_path)
    result = tune(data, tmp_path / "search", found)
    path = tmp_path / "search" / "best.toml"
    assert load_recipe(path, {}) == found.recipe(result.best.values) == stub.trained[result.best.number - 1][1]
    assert path.read_text().startswith(
        f"# The best of 6 trials of customcnn tune: trial {result.best.number}, val_accuracy 1.0100 in epoch 1.\n"
    )


def test_the_table_is_sorted_by_trial(stub, data, tmp_path):
    result = tune(data, tmp_path / "search", space(tmp_path))
    with (tmp_path / "search" / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "trial", "learning_rate", "dropout", "best_epoch", "loss", "accuracy", "val_loss", "val_accuracy",
        "trained_epochs", "error",
    ]  # fmt: skip
    assert [row["trial"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert [float(row["val_accuracy"]) for row in rows] == [trial.scores["val_accuracy"] for trial in result.trials]


def test_the_monitor_decides_and_the_first_of_equals_wins(stub, data, tmp_path):
    path = write(tmp_path, "[search]\nseed = [1, 2, 3]\n", HEAD + 'monitor = "val_loss"\n')
    result = tune(data, tmp_path / "search", read_space(path, {}))
    assert (result.monitor, result.best.number) == ("val_loss", 1)
    low = tune(data, tmp_path / "low", read_space(write(tmp_path, CHOICES, HEAD + 'monitor = "val_loss"\n'), {}))
    losses = [trial.scores["val_loss"] for trial in low.ranking]
    assert losses == sorted(losses) and low.best == low.ranking[0]


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_trials(stub, data, tmp_path, method):
    found = space(tmp_path, texts(method))
    first, again, other = (
        values(tune(data, tmp_path / str(i), found, method=method, trials=14, seed=seed))
        for i, seed in enumerate((1, 1, 2))
    )
    assert first == again != other


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_ranges_are_kept_and_filled(stub, data, tmp_path, method):
    found = values(tune(data, tmp_path / "search", space(tmp_path, RANGES), method=method, trials=40))
    rates = [v["learning_rate"] for v in found]
    assert all(1e-5 <= rate <= 0.1 for rate in rates) and len(set(rates)) == 40
    if method == "random":
        assert sum(rate < 1e-3 for rate in rates) > 10, "drawn on a logarithmic scale"
    assert all(type(v["batch_size"]) is int and 4 <= v["batch_size"] <= 64 for v in found)
    assert {v["optimizer"] for v in found} == {"adam", "sgd"}


def test_bayes_comes_closer_than_chance(stub, data, tmp_path):
    """Its trials after the first ten are better on average than those before."""
    text = "[search]\ndropout = { low = 0.0, high = 0.9 }\n"
    result = tune(data, tmp_path / "search", space(tmp_path, text), method="bayes", trials=30)
    scores = [trial.scores["val_accuracy"] for trial in result.trials]
    assert sum(scores[10:]) / 20 > sum(scores[:10]) / 10


def test_fewer_trials_than_the_grid_are_its_first(stub, data, tmp_path):
    whole = values(tune(data, tmp_path / "whole", space(tmp_path)))
    assert values(tune(data, tmp_path / "part", space(tmp_path), trials=4)) == whole[:4]
    # More may be asked for when it is resumed.
    assert values(tune(data, tmp_path / "part", space(tmp_path), trials=99, resume=True)) == whole


def test_trials_that_fail_are_rows_that_say_why(stub, data, tmp_path):
    class ResourceExhaustedError(Exception):
        pass

    def fails(recipe):
        if recipe.learning_rate == 0.1:
            return CustomCNNError("The loss stays a finite number. Received: nan.")
        if recipe.learning_rate == 0.001 and recipe.dropout:
            return RuntimeError("all elements of input should be between 0 and 1\nException raised from x.cpp")
        return ResourceExhaustedError("OOM") if recipe.dropout else None

    stub.fails = fails
    said: list[str] = []
    result = tune(data, tmp_path / "search", space(tmp_path), say=said.append)
    assert len(result.trials) == 6 and [bool(trial.error) for trial in result.ranking] == [False] * 2 + [True] * 4
    reasons = {trial.error for trial in result.trials if trial.error}
    assert reasons == {
        "The loss stays a finite number. Received: nan.",
        "Not enough memory (ResourceExhaustedError). Search among smaller batch_size or input_size.",
        "RuntimeError: all elements of input should be between 0 and 1",
    }
    with (tmp_path / "search" / "trials.csv").open(newline="") as file:
        failed = [row for row in csv.DictReader(file) if row["error"]]
    assert len(failed) == 4 and {row["val_accuracy"] for row in failed} == {""}
    assert sum("failed: " in line for line in said) == 4
    before = len(stub.trained)
    assert tune(data, tmp_path / "search", space(tmp_path), resume=True) == result
    assert len(stub.trained) == before, "what failed is not tried again"


def test_bayes_keeps_away_from_where_trials_fail(stub, data, tmp_path):
    stub.fails = lambda recipe: CustomCNNError("nan") if recipe.learning_rate > 0.05 else None
    text = "[search]\nlearning_rate = { low = 0.0001, high = 0.1 }\n"
    result = tune(data, tmp_path / "search", space(tmp_path, text), method="bayes", trials=30)
    assert sum(bool(trial.error) for trial in result.trials[10:]) <= 4


def test_where_all_fail_there_is_an_error(stub, data, tmp_path):
    stub.fails = lambda recipe: CustomCNNError("small needs an input of at least 22 x 22 pixels.")
    assert refused(tune, data, tmp_path / "search", space(tmp_path)) == (
        "A search has a trial that does not fail. Received: 6 that failed, the first so: "
        "small needs an input of at least 22 x 22 pixels."
    )
    assert not (tmp_path / "search" / "best.toml").exists()


def test_other_errors_end_the_search(stub, data, tmp_path):
    stub.fails = lambda recipe: OSError(28, "No space left on device")
    with pytest.raises(OSError, match="No space"):
        tune(data, tmp_path / "search", space(tmp_path))
    stub.fails = lambda recipe: None
    assert len(tune(data, tmp_path / "search", space(tmp_path), resume=True).trials) == 6


# ---------------------------------------------------------------- kills


@pytest.mark.parametrize("method", METHODS)
def test_an_interrupted_trial_is_resumed(stub, data, tmp_path, method):
    found = space(tmp_path, texts(method))
    whole = tune(data, tmp_path / "whole", found, method=method, trials=6)
    recipes = list(stub.trained)
    stub.trained.clear()
    stub.break_in = "trial-003"
    with pytest.raises(KeyboardInterrupt):
        tune(data, tmp_path / "search", found, method=method, trials=6)
    assert [name for name, _ in stub.trained] == ["trial-001", "trial-002", "trial-003"]
    stub.break_in = ""
    stub.trained.clear()
    result = tune(data, tmp_path / "search", found, method=method, trials=6, resume=True)
    assert stub.trained == recipes[2:], "the third again, then the rest"
    assert result.trials == whole.trials
    assert (tmp_path / "search" / "trials.csv").read_bytes() == (tmp_path / "whole" / "trials.csv").read_bytes()


@pytest.mark.parametrize("method", METHODS)
def test_a_kill_at_any_line_of_the_journal_changes_nothing(stub, data, tmp_path, method):
    """A journal cut off after every line, and in the middle of one, is what a kill leaves at that moment."""
    found = space(tmp_path, texts(method))
    count = 6 if method == "grid" else 12
    whole = tune(data, tmp_path / "search", found, method=method, trials=count)
    journal = tmp_path / "search" / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    moments = range(len(lines)) if method == "grid" else range(len(lines) // 2, len(lines), 3)
    for moment in moments:
        journal.write_bytes(b"".join(lines[:moment]) + lines[moment][: moment % 9])
        result = tune(data, tmp_path / "search", found, method=method, trials=count, resume=True)
        assert result.trials == whole.trials, f"killed after line {moment}"


@pytest.mark.kill
def test_a_killed_search_goes_on(data, tmp_path):
    path = write(tmp_path, "[search]\nlearning_rate = [0.001, 0.01]\nepochs = [2, 3]\n")

    def start(out, *more):
        line = [sys.executable, "-m", "customcnn", "tune", data.root, "--recipe", path, "--out", out, *more]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
        return subprocess.Popen(
            [str(word) for word in line], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    whole, out = tmp_path / "whole", tmp_path / "search"
    printed, errors = start(whole).communicate(timeout=300)
    assert (whole / "best.toml").is_file(), errors
    for trial in ("trial-002", "trial-003"):  # killed after an epoch of the one, and again in the other
        process = start(out, *["--resume"] * out.exists())
        while process.poll() is None and not (out / trial / "history.csv").is_file():
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    finished = (out / "trial-001" / "last.keras").stat().st_mtime_ns
    again, errors = start(out, "--resume").communicate(timeout=300)
    assert again == printed.replace(str(whole), str(out)), errors
    assert (out / "trial-001" / "last.keras").stat().st_mtime_ns == finished
    assert (out / "trials.csv").read_bytes() == (whole / "trials.csv").read_bytes()
    for number in (1, 2, 3, 4):
        histories = [folder / f"trial-00{number}" / "history.csv" for folder in (whole, out)]
        assert histories[0].read_bytes() == histories[1].read_bytes()


# ---------------------------------------------------------------- refused


def test_what_stands_in_the_way(stub, data, tmp_path):
    out = tmp_path / "search"
    tune(data, out, space(tmp_path))
    assert refused(tune, data, out, space(tmp_path)) == (
        f"Search {str(out)!r} exists. Use --resume to go on with it, or --replace to delete it."
    )
    text = "[search]\nlearning_rate = [0.001]\n"
    assert refused(tune, data, out, space(tmp_path, text), method="random", resume=True) == (
        "A search is resumed with its own settings. Received: method 'random' where it was 'grid', "
        "search.learning_rate [0.001] where it was [0.001, 0.01, 0.1], search.dropout None where it was [0.0, 0.5]. "
        "Choose another --out."
    )
    assert "outside the folder of the images" in refused(tune, data, data.root, space(tmp_path), replace_old=True)
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "wedding.jpg").touch()
    assert refused(tune, data, photos, space(tmp_path), replace_old=True) == (
        f"--replace deletes a search only. Received: {str(photos)!r}, which is none (it has no tune.json). "
        "Choose another --out."
    )
    before = len(stub.trained)
    tune(data, out, space(tmp_path), replace_old=True)
    assert len(stub.trained) == before + 6


def test_what_is_no_trials_fault_ends_the_search_before_it_begins(stub, data, tmp_path, make_folder):
    found = space(tmp_path, RANGES)
    assert refused(tune, data, tmp_path / "out", found) == (
        "A grid is made of lists of choices. Received: a range for learning_rate, dropout, batch_size in "
        f"{str(tmp_path / 'search.toml')!r}. Give a list, or --method random or bayes."
    )
    whole = make_folder({"all": 2, "hem": 2}, "whole")
    assert refused(tune, scan(whole), tmp_path / "out", space(tmp_path)) == (
        f"A search needs train and validation folders. Received: {str(whole)!r} without train. "
        "Make them with customcnn split."
    )
    parts = make_folder({f"{part}/{label}": 2 for part in ("train", "validation") for label in ("all", "hem")}, "parts")
    (parts / "train" / "all" / "0.bmp").write_text("x")
    assert "train/all/0.bmp', not an image" in refused(tune, scan(parts), tmp_path / "out", space(tmp_path))
    assert "Received: --trials 0. Give more." in refused(tune, data, tmp_path / "out", space(tmp_path), trials=0)
    with pytest.raises(ValueError, match="grid, random, bayes"):
        tune(data, tmp_path / "out", space(tmp_path), method="luck")
    assert not (tmp_path / "out").exists()


def test_optuna_is_not_installed(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert refused(tune, data, tmp_path / "out", space(tmp_path)) == (
        "A search needs the optuna package. Received: none. Install customcnn[tune]."
    )


# ---------------------------------------------------------------- the command, the picture


def test_the_command_prints_the_best_first(stub, data, tmp_path):
    stub.fails = lambda recipe: CustomCNNError("nan") if recipe.learning_rate == 0.1 else None
    out = tmp_path / "search"
    line = ["tune", str(data.root), "--recipe", str(write(tmp_path, CHOICES)), "--out", str(out)]
    first = CliRunner().invoke(cli, line)
    assert first.exit_code == 0, first.output
    lines = first.stdout.splitlines()
    assert lines[0].split() == [
        "trial",
        "learning_rate",
        "dropout",
        "epoch",
        "loss",
        "accuracy",
        "val_loss",
        "val_accuracy",
    ]
    scores = [float(line.split()[-1]) for line in lines[1:5]]
    assert scores == sorted(scores, reverse=True)
    assert [line.split(": ")[1] for line in lines[5:7]] == ["nan", "nan"]
    best = lines[1].split()
    assert lines[7] == (f"Best of 6 by val_accuracy, 1.0100 in epoch 1: trial {best[0]}, learning_rate 0.01, dropout 0")
    assert lines[8] == f"Recipe: {out / 'best.toml'}"
    assert "a test part would be free of that choice" in first.stderr
    assert "optuna" not in first.stderr.lower()
    # Resumed without its file: all is as it was begun.
    again = CliRunner().invoke(cli, ["tune", str(data.root), "--out", str(out), "--resume"])
    assert again.stdout == first.stdout
    other = str(tmp_path / "other")
    none = CliRunner().invoke(cli, ["tune", str(data.root), "--out", other])
    assert "Received: no --recipe." in str(none.exception)
    none = CliRunner().invoke(cli, [*line[:-1], other, "--resume"])
    assert str(none.exception) == (
        f"--resume goes on with a search. Received: {other!r}, where there is none. "
        "Check --out, or leave out --resume to begin one."
    )
    assert CliRunner().invoke(cli, [*line, "--resume", "--replace"]).exit_code == 2


def test_the_command_leaves_out_what_it_sets(stub, data, tmp_path):
    line = ["tune", str(data.root), "--recipe", str(write(tmp_path, CHOICES)), "--out", str(tmp_path / "search")]
    line += ["--set", "dropout=0.25", "--epochs", "7", "--method", "random", "--trials", "2"]
    assert CliRunner().invoke(cli, line).exit_code == 0
    assert {(recipe.dropout, recipe.epochs) for _, recipe in stub.trained} == {(0.25, 7)}
    settings = json.loads((tmp_path / "search" / "tune.json").read_text())
    assert list(settings["search"]) == ["learning_rate"] and settings["trials"] == 2


def test_a_picture_of_trials_by_hand():
    rows = [{"rate": 0.001, "epochs": 5}, {"rate": 0.1, "epochs": 10}, {"rate": 0.01, "epochs": 10}]
    figure = trials_figure(
        rows, [0.5, None, 0.75], {"rate": None, "epochs": (5, 10)}, "val_accuracy", logarithmic=["rate"]
    )
    rate, epochs = figure.axes
    assert (rate.get_xscale(), epochs.get_xscale()) == ("log", "linear")
    dots, crosses, ring = rate.lines
    assert (list(dots.get_xdata()), list(dots.get_ydata())) == ([0.001, 0.01], [0.5, 0.75])
    assert list(crosses.get_xdata()) == [0.1]
    assert (list(ring.get_xdata()), list(ring.get_ydata())) == ([0.01], [0.75])
    assert [text.get_text() for text in epochs.get_xticklabels()] == ["5", "10"]
    ring = trials_figure(rows, [0.5, None, 0.75], {"rate": None}, "val_loss").axes[0].lines[-1]
    assert list(ring.get_ydata()) == [0.5], "the lowest loss is best"
    with pytest.raises(ValueError, match="needs a searched key"):
        trials_figure(rows, [0.5, None, 0.75], {}, "val_loss")


@pytest.mark.parametrize("scores", [[0.5, 0.6, 0.75], [None, None, None]])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_picture_finds_room_for_its_panels(tmp_path, scores, count):
    rows = [dict.fromkeys("abcd", value) for value in (1, 2, 3)]
    axes = {key: (1, 2, 3) if key in "ac" else None for key in "abcd"[:count]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_trials(rows, scores, axes, "val_loss", tmp_path / "trials.png", title="a title", notes=["a note"])
    figure = trials_figure(rows, scores, axes, "val_loss", title="a title", notes=["a note"])
    figure.draw_without_rendering()
    for panel in figure.axes[:count]:
        box = panel.get_position()
        assert box.width > 0.6 / min(count, 3) and box.y1 < 0.88, "below the title"


# ---------------------------------------------------------------- real trainings


@pytest.mark.kill
def test_trials_are_plain_trainings_and_one_that_diverges_is_a_row(data, tmp_path):
    from customcnn.training.train import train

    path = write(tmp_path, "[search]\nlearning_rate = [0.001, 1e8]\n")
    result = tune(data, tmp_path / "search", read_space(path, {}))
    (diverged,) = [trial for trial in result.trials if trial.error]
    assert diverged.values == {"learning_rate": 1e8}
    assert diverged.error.startswith("The loss stays a finite number. Received: ")
    assert result.best.values == {"learning_rate": 0.001}
    plain = train(data, RunDir(tmp_path / "plain"), load_recipe(tmp_path / "search" / "best.toml", {}))
    assert plain.history == RunDir(tmp_path / "search" / f"trial-00{result.best.number}").read_history()
    assert result.best.scores["val_loss"] == plain.best["val_loss"]
    assert (tmp_path / "search" / "trials.png").read_bytes().startswith(b"\x89PNG")
    assert "search" not in read_recipe(tmp_path / "search" / "best.toml")
