"""Searches, cross-validations and studies on a Ray cluster: they come to what they come to without one."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from customcnn.cli import cli
from customcnn.cli.cluster_options import LiveTable, seat_table
from customcnn.cluster import remote_trainings as crew_module
from customcnn.cluster.ray_cluster import LostTask
from customcnn.cluster.remote_trainings import Seat, Spread
from customcnn.cluster.status_files import Board, NotShared, Post
from customcnn.data.leakage import Leakage
from customcnn.data.manifest import Manifest, scan
from customcnn.data.pack import pack
from customcnn.errors import CustomCNNError
from customcnn.io.atomic import Staging
from customcnn.model_selection import tune as module
from customcnn.model_selection.halving import Halving, goes_on, is_rung
from customcnn.model_selection.space import Space, read_space
from customcnn.model_selection.trials import Search, open_study
from customcnn.model_selection.tune import tune
from customcnn.progress import silent
from customcnn.runs.run_dir import RunDir
from customcnn.runs.series import pack_once
from customcnn.training.train import TrainResult
from tests.support import ROOT
from tests.support.colors import SIZE, paint
from tests.support.commands import error_line
from tests.support.errors import refused
from tests.support.jobs import apart

pytest.importorskip("optuna")
if find_spec("ray") is None:  # not imported here: Ray reads its variables when it is, once for all tests of a process
    pytest.skip("needs ray", allow_module_level=True)

GRID = f"""model = "small"
input_size = {SIZE}
batch_size = 10
epochs = 3

[search]
learning_rate = [0.001, 0.01]
seed = [1, 2]
"""


def space(folder: Path, text: str = GRID) -> Space:
    path = folder / "search.toml"
    path.write_text(text)
    return read_space(path, {})


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Manifest:
    sizes = {"train/all": 15, "train/hem": 15, "validation/all": 6, "validation/hem": 6}
    return scan(paint(tmp_path_factory.mktemp("trials") / "data", sizes))


# ---------------------------------------------------------------- with stand-ins for the training and for Ray


class InTurn:
    """Stands for a `Cluster` of two processors: runs a task when it is waited for, the last one first."""

    def __init__(self) -> None:
        self.lost: set[str] = set()
        self.cancelled: list[object] = []
        self.waiting: dict[int, tuple] = {}
        self.most = 0

    def submit(self, function, *arguments, cpus, gpus, fresh):
        assert fresh and (cpus, gpus) == (1, 0)
        number = len(self.waiting)
        self.waiting[number] = (function, *arguments)
        return number

    def finished(self, tasks, timeout=None):
        self.most = max(self.most, len(tasks))
        return [max(tasks)]

    def result(self, task):
        function, post, *others = self.waiting[task]
        if post.key in self.lost:
            raise LostTask(f"{post.key} is lost.")
        return function(post, *others)

    def cancel(self, tasks):
        self.cancelled += tasks


class OneByOne(InTurn):
    """The same, the first one first, each when the one before has ended."""

    def finished(self, tasks, timeout=None):
        return [min(tasks)]


class Stub:
    """Stands for `train`: its scores follow from the recipe, and after each epoch it asks whether to stop."""

    def __init__(self) -> None:
        self.trained: list[str] = []
        self.break_in = ""

    def train(self, data, run, recipe, *, resume, workers, progress, say, stop=None):
        assert resume
        self.trained.append(run.path.name)
        run.path.mkdir(exist_ok=True)
        run.recipe.write_text("")
        if run.path.name == self.break_in:
            raise KeyboardInterrupt
        if recipe.learning_rate > 1:
            raise CustomCNNError("The loss stays a finite number. Received: nan.")
        history: list[dict[str, float]] = []
        for epoch in range(1, recipe.epochs + 1):
            score = round(random.Random(f"{recipe.learning_rate} {recipe.seed}").random() + epoch / 1000, 6)
            row = {"epoch": epoch, "loss": 0.5, "accuracy": 0.5, "val_loss": 1 - score, "val_accuracy": score}
            say(f"Epoch {epoch}/{recipe.epochs}  val_accuracy {score}  (9 images/s)")
            history.append(row)
            run.write_history(history)
            if stop and epoch < recipe.epochs and stop(history):
                break
        return TrainResult(run, history, history[-1], Leakage("validation", 0, True, 0, 0, 0), [])


@pytest.fixture
def stub(monkeypatch) -> Stub:
    stub = Stub()
    monkeypatch.setattr(module, "train", stub.train)
    monkeypatch.setattr(module, "forget_networks", lambda: None)
    monkeypatch.setattr(module, "pack_once", lambda *args: None)
    monkeypatch.setattr(module.devices, "configure", lambda device: "cpu")
    monkeypatch.setattr("customcnn.plots.search.plot_trials", lambda *args, **options: None)
    monkeypatch.setattr(crew_module, "_nodes", lambda: [{"CPU": 1}, {"CPU": 1}])
    monkeypatch.setattr(crew_module, "_own_address", lambda: "10.0.0.7")
    return stub


@pytest.mark.parametrize("method", ["grid", "random"])
def test_spread_trials_come_to_the_same(stub, data, tmp_path, method):
    found = space(tmp_path)
    whole = tune(data, tmp_path / "whole", found, method=method, trials=4)
    said: list[str] = []
    result = tune(data, tmp_path / "out", found, method=method, trials=4, spread=Spread(InTurn()), say=said.append)
    assert stub.trained[4:] == [f"trial-00{n}" for n in (4, 3, 2, 1)]
    assert result.trials == whole.trials and result.best == whole.best
    for name in ("trials.csv", "best.toml"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert next(line for line in said if line.startswith("Trial 4: ")).startswith("Trial 4: begun on 10.0.0.7, ")
    assert sum(": done; best epoch 3  " in line for line in said) == 4
    assert not [*(tmp_path / "out").glob(".cluster*")]


def test_bayes_asks_for_no_more_than_can_run(stub, data, tmp_path):
    cluster = InTurn()
    text = GRID.partition("[search]")[0] + "[search]\nlearning_rate = { low = 0.001, high = 0.1 }\n"
    result = tune(data, tmp_path / "out", space(tmp_path, text), method="bayes", trials=14, spread=Spread(cluster))
    assert cluster.most == 2 and len(result.trials) == 14


def test_a_trial_that_fails_or_is_lost_is_a_row_that_says_why(stub, data, tmp_path):
    cluster = InTurn()
    cluster.lost = {"trial-002"}
    found = space(tmp_path, GRID.replace("0.01]", "0.01, 10.0]"))
    result = tune(data, tmp_path / "out", found, spread=Spread(cluster))
    errors = {trial.number: trial.error for trial in result.trials if trial.error}
    failing = {trial.number for trial in result.trials if trial.values["learning_rate"] == 10}
    assert errors.pop(2) == "trial-002 is lost."
    assert failing - {2} == set(errors) and len(result.trials) == 6


def test_a_node_that_does_not_see_the_folder_ends_the_search_and_fails_no_trial(stub, data, tmp_path, monkeypatch):
    found, out = space(tmp_path), tmp_path / "out"
    arrive = Post.arrive

    def lose(self, node):
        shutil.rmtree(self.folder)
        arrive(self, node)

    monkeypatch.setattr(Post, "arrive", lose)
    cluster = InTurn()
    with pytest.raises(NotShared) as caught:
        tune(data, out, found, spread=Spread(cluster))
    assert str(caught.value).startswith(
        f"All nodes see the folder of the results under one path. Received: {str(out)!r}, which node "
    )
    assert len(cluster.cancelled) == 3 and not stub.trained
    monkeypatch.setattr(Post, "arrive", arrive)
    assert [trial.error for trial in tune(data, out, found, resume=True).trials] == [""] * 4


def test_all_trials_that_were_broken_off_are_taken_up_again(stub, data, tmp_path):
    found = space(tmp_path)
    whole = tune(data, tmp_path / "whole", found)
    with open_study(tmp_path, "val_accuracy") as study:
        search = Search(study, found, "grid", 120)
        first = [search.next(4, range(n)) for n in range(3)]
        assert [trial.number for trial in first] == [0, 1, 2]
        # Another process, after a kill: three trials are at work in the journal, and nobody works on them.
        again = Search(study, found, "grid", 120)
        running: set[int] = set()
        while (trial := again.next(4, running)) is not None:
            running.add(trial.number)
            if trial.number < 3:
                assert trial.params == first[trial.number].params
        assert running == {0, 1, 2, 3}
        assert len(study.get_trials()) == 4
    for spread in (None, Spread(InTurn())):
        out = tmp_path / f"out-{bool(spread)}"
        stub.break_in = "trial-002"
        with pytest.raises(KeyboardInterrupt):
            tune(data, out, found, spread=Spread(InTurn()))
        stub.break_in = ""
        stub.trained.clear()
        assert tune(data, out, found, resume=True, spread=spread).trials == whole.trials
        assert sorted(stub.trained) == ["trial-001", "trial-002"], "the others have ended"
        assert (out / "trials.csv").read_bytes() == (tmp_path / "whole" / "trials.csv").read_bytes()


def test_a_cut_journal_of_several_trials_at_work_changes_nothing(stub, data, tmp_path):
    found, out = space(tmp_path), tmp_path / "out"
    whole = tune(data, out, found, spread=Spread(InTurn()))
    journal = out / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    for moment in range(len(lines)):
        journal.write_bytes(b"".join(lines[:moment]) + lines[moment][: moment % 9])
        spread = Spread(InTurn()) if moment % 2 else None
        assert tune(data, out, found, resume=True, spread=spread).trials == whole.trials, f"after line {moment}"


# ---------------------------------------------------------------- successive halving


def test_rungs_by_hand():
    assert [epoch for epoch in range(1, 100) if is_rung(epoch, 1)] == [1, 3, 9, 27, 81]
    assert [epoch for epoch in range(1, 100) if is_rung(epoch, 4)] == [4, 12, 36]


def test_who_goes_on_by_hand():
    assert goes_on(0.5, [], higher=True)
    assert goes_on(0.6, [0.5], higher=True) and not goes_on(0.4, [0.5], higher=True)
    assert goes_on(0.6, [0.6, 0.5, 0.4, 0.3, 0.2], higher=True), "as good as the second of six"
    assert goes_on(0.5, [0.6, 0.5, 0.4, 0.3, 0.2], higher=True)
    assert not goes_on(0.4, [0.6, 0.5, 0.4, 0.3, 0.2], higher=True)
    assert goes_on(0.2, [0.3, 0.4], higher=False) and not goes_on(0.4, [0.2, 0.3], higher=False)


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(0, 9), min_size=12, max_size=12), max_size=12), st.integers(1, 3), st.booleans())
def test_trials_are_stopped_where_optuna_stops_them(tmp_path_factory, curves, first, higher):
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=3)
    study = optuna.create_study(direction="maximize" if higher else "minimize", pruner=pruner)
    folder, monitor = tmp_path_factory.mktemp("rungs"), "val_accuracy" if higher else "val_loss"
    for number, curve in enumerate(curves):
        trial, history = study.ask(), []
        run = RunDir(folder / f"trial-{number}")
        run.path.mkdir()
        halving = Halving(folder, run.path.name, monitor, first)
        for epoch, value in enumerate(curve, start=1):
            history.append({"epoch": epoch, monitor: float(value)})
            run.write_history(history)
            trial.report(value, epoch)
            stopped = trial.should_prune()
            assert bool(halving(history)) == stopped == bool(halving.reason)
            if stopped:
                break


def test_stopped_trials_are_rows_and_the_same_ones_on_a_cluster(stub, data, tmp_path):
    text = GRID.replace("epochs = 3", "epochs = 9").replace("0.01]", "0.01, 0.02, 0.03, 0.04]")
    found = space(tmp_path, text)
    whole = tune(data, tmp_path / "whole", found, early_stop="asha")
    stopped = [trial for trial in whole.trials if trial.stopped]
    assert {trial.epochs for trial in stopped} <= {1, 3} and 2 <= len(stopped) < len(whole.trials) == 10
    assert all(trial.stopped.startswith("val_accuracy is not among the best third of ") for trial in stopped)
    assert not any(trial.error for trial in whole.trials) and whole.best.epochs == 9
    with (tmp_path / "whole" / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [bool(row["stopped"]) for row in rows] == [bool(trial.stopped) for trial in whole.trials]
    plain = tune(data, tmp_path / "plain", found)
    assert plain.best == whole.best, "what goes on is trained as it would be without"

    spread = tune(data, tmp_path / "out", found, early_stop="asha", spread=Spread(OneByOne()))
    assert spread.trials == whole.trials


@pytest.mark.parametrize("on_ray", [False, True])
def test_a_search_with_early_stops_that_was_cut_off_decides_as_before(stub, data, tmp_path, on_ray):
    found, out = space(tmp_path, GRID.replace("0.01]", "0.01, 0.02, 0.03]")), tmp_path / "out"
    whole = tune(data, out, found, early_stop="asha")
    assert any(trial.stopped for trial in whole.trials)
    journal = out / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    for moment in range(0, len(lines), 3):
        journal.write_bytes(b"".join(lines[:moment]))
        with open_study(out, "val_accuracy") as study:
            ended = sum(trial.state.is_finished() for trial in study.get_trials())
        for path in out.glob("trial-*"):  # a kill leaves no runs of trials to come
            if int(path.name[-3:]) > ended:
                shutil.rmtree(path)
        spread = Spread(OneByOne()) if on_ray else None
        again = tune(data, out, found, early_stop="asha", resume=True, spread=spread)
        assert again.trials == whole.trials, f"after line {moment}"


@pytest.mark.parametrize("on_ray", [False, True])
def test_bayes_learns_from_trials_that_were_stopped(stub, data, tmp_path, on_ray):
    text = GRID.partition("[search]")[0] + "[search]\nlearning_rate = { low = 0.001, high = 0.1 }\n"
    spread = Spread(InTurn()) if on_ray else None
    found = space(tmp_path, text)
    result = tune(data, tmp_path / "out", found, method="bayes", trials=14, early_stop="asha", spread=spread)
    assert len(result.trials) == 14 and any(trial.stopped for trial in result.trials)
    with open_study(tmp_path / "out", "val_accuracy") as study:
        told = [trial.intermediate_values for trial in study.get_trials()]
    assert [len(values) for values in told] == [trial.epochs for trial in result.trials]


def test_settings_of_early_stops(stub, data, tmp_path):
    with pytest.raises(CustomCNNError, match=r"A trial has an epoch at least\. Received: --min-epochs 0\. Give 1"):
        tune(data, tmp_path / "out", space(tmp_path), early_stop="asha", min_epochs=0)
    tune(data, tmp_path / "out", space(tmp_path))
    assert "early_stop" not in json.loads((tmp_path / "out" / "tune.json").read_text())
    with pytest.raises(CustomCNNError, match="Received: early_stop 'asha' where it was None, min_epochs 2 where"):
        tune(data, tmp_path / "out", space(tmp_path), early_stop="asha", min_epochs=2, resume=True)


# ---------------------------------------------------------------- the pack, the board and the table


def test_a_pack_that_another_process_makes_is_waited_for(data, monkeypatch):
    waited = []
    home = pack(data, (9, 9), workers=1).path
    assert home is not None
    kept = home.rename(home.with_name("kept"))
    with Staging(home) as work:

        def sleep(seconds: float) -> None:
            waited.append(seconds)
            if len(waited) == 2:
                for file in kept.iterdir():
                    shutil.copy(file, work)
                work.rename(home)  # as the other process does at its end

        monkeypatch.setattr("customcnn.runs.series.time.sleep", sleep)
        pack_once(data, (9, 9), 1, silent)
        work.mkdir()  # for the end of the block
        shutil.rmtree(home)
    assert len(waited) == 2


def test_what_a_task_tells_is_read_once_and_whole(tmp_path):
    with Board(tmp_path) as board:
        post = board.post("trial-001")
        assert board.news("trial-001") == []
        post.say("one")
        with post.progress(3, "epoch 1/2") as advance:
            advance(1)
        with (board.folder / "trial-001.jsonl").open("a") as file:
            file.write('["say", "two')
        assert board.news("trial-001") == [("say", "one"), ("bar", "epoch 1/2")]
        with (board.folder / "trial-001.jsonl").open("a") as file:
            file.write("\n")  # a lost node's line has no end of its own
        post.say("three")
        assert board.news("trial-001") == [("say", "three")]
    assert not [*tmp_path.iterdir()]


def test_the_table_shows_all_or_those_at_work():
    seats = [Seat("Trial 1", "seed 1"), Seat("Trial 2", "seed 22"), Seat("Trial 3", "seed 3")]
    for what, text in (("node", "10.0.0.7"), ("bar", "epoch 2/9"), ("say", "Epoch 2/9  loss 0.5  (9 images/s)")):
        seats[1].hear(what, text)
    seats[0].hear("node", "10.0.0.8")
    seats[0].text, seats[0].ended = "done", True
    assert seat_table(seats, 20) == [
        "Trial 1  seed 1   10.0.0.8       done",
        "Trial 2  seed 22  10.0.0.7  2/9  loss 0.5",
        "Trial 3  seed 3                  waiting",
        "1 of 3 done, 1 at work, 1 waiting",
    ]
    assert seat_table(seats, 3) == ["Trial 2  seed 22  10.0.0.7  2/9  loss 0.5", "1 of 3 done, 1 at work, 1 waiting"]


def test_the_table_is_drawn_over_itself_and_lines_stand_above_it(capsys):
    live = LiveTable()
    live.show([Seat("Trial 1", "")])
    live.say("Note: this.")
    live.show([Seat("Trial 1", "", ended=True, text="done")])
    erased = "\x1b[2F\x1b[J"
    first = "Trial 1        waiting\n0 of 1 done, 0 at work, 1 waiting\n"
    assert capsys.readouterr().err == (
        f"{first}{erased}Note: this.\n{first}{erased}Trial 1        done\n1 of 1 done, 0 at work, 0 waiting\n"
    )


def test_what_no_node_has(monkeypatch):
    monkeypatch.setattr(crew_module, "_nodes", lambda: [{"CPU": 2}, {"CPU": 4, "GPU": 1}])
    assert Spread(InTurn(), 4).needs() == (4, 1)
    assert Spread(InTurn(), 1, 0).needs() == (1, 0)
    assert refused(Spread(InTurn(), 8, 0).needs) == (
        "A training runs on one node. Received: --cpus 8 and --gpus 0, where the largest node has 4 and 1. "
        "Give fewer, or start a larger node."
    )


# ---------------------------------------------------------------- no cluster


def test_where_no_cluster_answers_there_is_one_line(data, tmp_path):
    found = tmp_path / "search.toml"
    found.write_text(GRID)
    line = ["tune", str(data.root), "--recipe", str(found), "--out", str(tmp_path / "out"), "--on"]
    done = subprocess.run(
        [sys.executable, "-m", "customcnn", *line, "127.0.0.1:1"], capture_output=True, text=True, check=False
    )
    message = error_line(done.returncode, done.stdout, done.stderr)
    assert message.startswith("A Ray cluster answers at --on. Received: '127.0.0.1:1' (")
    assert not (tmp_path / "out").exists()
    wrong = CliRunner().invoke(cli, [*line, "nowhere"])
    assert str(wrong.exception).startswith("--on is ray, ray://HOST:PORT or HOST:PORT. Received: 'nowhere'.")


@pytest.mark.parametrize("command", ["tune", "crossval", "reproduce"])
def test_ray_is_not_installed(data, tmp_path, monkeypatch, command):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    found = tmp_path / "search.toml"
    found.write_text(GRID if command == "tune" else GRID.partition("[search]")[0])
    study = ROOT / "experiments" / "small-cnn"
    line = [command, *([str(study)] if command == "reproduce" else []), str(data.root), "--on", "ray"]
    line += [] if command == "reproduce" else ["--recipe", str(found)]
    done = CliRunner().invoke(cli, [*line, "--out", str(tmp_path / "out")])
    assert str(done.exception) == "--on and launch need the ray package. Received: none. Install customcnn[cluster]."


# ---------------------------------------------------------------- Ray itself


@pytest.mark.ray
def test_a_crew_at_work(tmp_path):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("OMP_NUM_THREADS", None)
    done = subprocess.run(
        [sys.executable, "-m", "tests.programs.ray_tasks", tmp_path],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["found"] == {"task-1": 1, "task-2": 4} and told["error"] == "Three is no number."
    assert [line.split(" on ")[0] for line in told["said"] if line.startswith("Task 2")] == [
        "Task 2: begun",
        "Task 2: Epoch 1/1  loss 2  (1 images/s)",
        "Task 2: begun again",
        "Task 2: Epoch 1/1  loss 2  (1 images/s)",
        "Task 2: done",
    ]
    assert not [*tmp_path.iterdir()]


def command(*line: object) -> str:
    """Run a command line and return what it prints; without a cluster in this process, which has TensorFlow already."""
    if "--on" not in line:
        here = CliRunner().invoke(cli, [*map(str, line)], catch_exceptions=False)
        assert here.exit_code == 0, here.output
        return here.stdout
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    words = [sys.executable, "-m", "customcnn", *map(str, line)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    return done.stdout


def on_two_nodes(kill: str, out: Path, *line: object) -> dict:
    """Run a command on a cluster of two nodes, in a network of its own where that may be had."""
    words = apart([sys.executable, "-m", "tests.programs.two_ray_nodes", kill, out, *line])
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def same_files(one: Path, other: Path, *names: str) -> bool:
    """Tell whether the files of these names are the same in two folders."""
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def histories(runs: list[str]) -> list[str]:
    return [f"{run}/history.csv" for run in runs]


TRIALS = [f"trial-00{n}" for n in (1, 2, 3, 4)]


@pytest.fixture(scope="module")
def local(data, tmp_path_factory) -> tuple[Path, Path, str]:
    """Return the recipe of a grid of four trials, the folder of its search without Ray, and what that printed."""
    folder = tmp_path_factory.mktemp("local")
    space(folder, GRID.replace("epochs = 3", "epochs = 6"))  # long enough to be killed in the middle
    printed = command("tune", data.root, "--recipe", folder / "search.toml", "--out", folder / "out")
    return folder / "search.toml", folder / "out", printed


@pytest.mark.ray
@pytest.mark.kill
@pytest.mark.parametrize("kill", ["node", "driver"])
def test_a_grid_survives_the_loss_of_a_node_and_of_the_command(data, local, tmp_path, kill):
    found, whole, printed = local
    out = tmp_path / "out"
    done = on_two_nodes(kill, out, "tune", data.root, "--recipe", found)
    assert done["status"] == 0, done["told"]
    assert done["printed"] == printed.replace(str(whole), str(out))
    assert same_files(whole, out, "trials.csv", *histories(TRIALS))
    number = int(done["killed"][-3:])
    went_on = [f"Trial {number}: {line}" for line in ("Resuming after epoch ", "Nothing to do: 6 epochs are trained")]
    assert any(line in done["told"] for line in went_on), "what was killed went on"
    if kill == "node":
        assert f"Trial {number}: begun on 127.0.0.2" in done["told"]
        assert f"Trial {number}: begun again on 127.0.0.1" in done["told"]


@pytest.mark.ray
def test_folds_are_those_without_ray(data, tmp_path):
    (tmp_path / "recipe.toml").write_text(GRID.partition("[search]")[0])
    line = ["--recipe", tmp_path / "recipe.toml", "--folds", 2, "--resamples", 20, "--out"]
    printed = command("crossval", data.root, *line, tmp_path / "local")
    spread = command("crossval", data.root, *line, tmp_path / "ray", "--on", "ray")
    assert spread == printed.replace(str(tmp_path / "local"), str(tmp_path / "ray"))
    whole = ("folds.csv", "predictions.csv", "metrics.json")
    folds = [f"fold-{n}/{name}" for n in (1, 2) for name in ("history.csv", "metrics.json", "predictions.csv")]
    assert same_files(tmp_path / "local", tmp_path / "ray", *whole, *folds)


@pytest.mark.kill
def test_early_stops_of_real_trainings(data, tmp_path):
    space(tmp_path, GRID.replace("[0.001, 0.01]", "[0.01, 1e-7]"))
    line = ["tune", data.root, "--recipe", tmp_path / "search.toml", "--early-stop", "asha"]
    assert "Stopped early: trial" in command(*line, "--out", tmp_path / "local")
    with (tmp_path / "local" / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["trained_epochs"] for row in rows if row["stopped"]} == {"1"}
    for row in rows:
        run = RunDir(tmp_path / "local" / f"trial-00{row['trial']}")
        assert len(run.read_history()) == int(row["trained_epochs"]) and run.curves.is_file() and run.best.is_file()


@pytest.mark.ray
def test_the_price_of_a_leak_is_that_without_ray(tmp_path):
    cells = tmp_path / "cells"
    command("samples", cells, "--subjects", 6, "--cells", 4, "--size", 32)
    (tmp_path / "recipe.toml").write_text(GRID.partition("[search]")[0].replace("epochs = 3", "epochs = 1"))
    line = ["leakage", cells, "--recipe", tmp_path / "recipe.toml", "--seeds", 2, "--group-pattern", "cnmc"]
    printed = command(*line, "--out", tmp_path / "local")
    spread = command(*line, "--out", tmp_path / "ray", "--on", "ray")
    assert spread == printed.replace(str(tmp_path / "local"), str(tmp_path / "ray"))
    assert same_files(tmp_path / "local", tmp_path / "ray", "leakage.csv", "leakage.json")


STUDY = """
title = "A small study"
published = "facts.toml"
table = "paper"
parts = ["validation"]

[data.plain]

[[row]]
name = "first"

[[row]]
name = "second"
"""


@pytest.mark.ray
def test_rows_of_a_study_are_those_without_ray(data, tmp_path):
    folder = tmp_path / "paper"
    folder.mkdir()
    (folder / "facts.toml").write_text("[paper]\nx = 1\n")
    (folder / "study.toml").write_text(STUDY)
    for name, dropout in (("first", 0.0), ("second", 0.5)):
        text = GRID.partition("[search]")[0].replace("epochs = 3", "epochs = 2")
        (folder / f"{name}.toml").write_text(f"{text}dropout = {dropout}\n")
    rows = []
    for place, more in (("local", []), ("ray", ["--on", "ray"])):
        found = json.loads(command("reproduce", folder, data.root, "--out", tmp_path / place, *more, "--json"))
        rows.append([{**row, "run": ""} for row in found["rows"]])
    assert rows[0] == rows[1] and [row["status"] for row in rows[0]] == ["done", "done"]
    runs = histories(["runs/first", "runs/second"])
    assert same_files(tmp_path / "local", tmp_path / "ray", *runs, "runs/first/predictions.csv")


@pytest.mark.ray
@pytest.mark.kill
def test_ctrl_c_stops_all_trainings_and_leaves_what_can_be_resumed(data, local, tmp_path):
    found, whole, _ = local
    out = tmp_path / "out"
    line = ["tune", str(data.root), "--recipe", str(found), "--out", str(out), "--on", "ray"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(
        [sys.executable, "-m", "customcnn", *line],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # however the tests were started
    )
    while process.poll() is None and not [*out.glob("trial-*/history.csv")]:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 130, errors
    assert not (out / "trials.csv").exists() or len((out / "trials.csv").read_text().splitlines()) < 5
    command("tune", data.root, "--out", out, "--resume")
    assert same_files(whole, out, "trials.csv", *histories(TRIALS))
