"""What a script and a quiet user meet: --json, --quiet, bars and colours, on every command."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from functools import partial
from pathlib import Path

import click
import pytest

from customcnn import progress
from customcnn.cli import cli, demo, main
from customcnn.cli.output import say

WITHOUT_JSON = {
    "completion": "prints a script for a shell",
    "launch": "starts train, which has its own",
    "serve": "runs until it is stopped, and answers programs itself",
}
"""Commands without --json, and why."""

TINY = ["--model", "small", "--set", "input_size=22", "--set", "batch_size=8"]

STUDY = """
title = "A small study"
published = "facts.toml"
table = "paper"
parts = ["validation"]
[shipped]
folders = ["fold_0"]
command = "prepare {data} parts"
[data.plain]
split = "own"
[[row]]
name = "small"
published.validation = { accuracy = "accuracy" }
"""

WAY: dict[str, tuple[tuple[str, ...], list[object]]] = {
    "models": ((), ["models"]),
    "summary": ((), ["summary", "small", "--input-size", 22]),
    "doctor": ((), ["doctor", "--no-measure"]),
    "samples": ((), ["samples", "cells", "--subjects", 4, "--cells", 4, "--size", 64, "--workers", 1]),
    "download": ((), ["download", "cnmc", "archive"]),
    "split": (("samples",), ["split", "cells", "parts", "--ratio", 0.5, "--by", "image", "--workers", 1]),
    "crop": (("split",), ["crop", "parts", "cropped", "--size", 60, "--workers", 1]),
    "augment": (("crop",), ["augment", "cropped", "augmented", "--count", 32, "--workers", 1]),
    "audit": (("split",), ["audit", "parts", "--workers", 1, "--page", "audit.html"]),
    "pack": (("crop",), ["pack", "cropped", "--size", 22, "--workers", 1]),
    "train": (("augment",), ["train", "augmented", *TINY, "--epochs", 2, "--out", "run"]),
    "evaluate": (("train",), ["evaluate", "run", "augmented", "--resamples", 20]),
    "predict": (("train",), ["predict", "run", "cells/all"]),
    "report": (("evaluate",), ["report", "run", "--mistakes", 1]),
    "visualize": (("train",), ["visualize", "run", "cells/all/UID_1_1_1_all.bmp", "--out", "seen"]),
    "export": (("train",), ["export", "run", "--format", "openvino"]),
    "calibrate": (("evaluate", "report"), ["calibrate", "run", "augmented", "--resamples", 20]),
    "pretrain": (("augment",), ["pretrain", "augmented", *TINY, "--epochs", 1, "--out", "start"]),
    "ensemble": (("train", "compare"), ["ensemble", "run", "other", "--out", "together"]),
    "compare": (("evaluate",), ["compare", "run", "other", "--resamples", 20]),
    "crossval": (("crop",), ["crossval", "cropped", *TINY, "--epochs", 1, "--folds", 2, "--out", "folds"]),
    "leakage": (("samples",), ["leakage", "cells", *TINY, "--epochs", 1, "--seeds", 2, "--out", "priced"]),
    "tune": (("augment",), ["tune", "augmented", "--recipe", "search.toml", "--out", "search"]),
    "reproduce": (("crop",), ["reproduce", "paper", "cropped", "--out", "again"]),
    "demo": ((), ["demo", "demo", "--epochs", 1, "--input-size", 22]),
}
"""By command: what must have run before, and its line."""

WAY["leakage"][1].extend(["--group-pattern", "cnmc", "--test", 0.25, "--ratio", 0.67])

SMALL_DEMO = partial(demo.Plan, subjects=4, new_subjects=2, cells=4, count=24)

QUICK = {
    "models",
    "summary",
    "samples",
    "download",
    "split",
    "crop",
    "augment",
    "audit",
    "pack",
    "train",
    "evaluate",
    "predict",
}

BAR = re.compile(r"(\w[\w /]*): +\d+%\|[^\r\n]*\| \d+/\d+ \[\d\d:\d\d<[\d?:]+, +(?:\?|[\d.]+)k? ?images/s\]")
"""A bar with its label, and both images per second and time left; before the first image they are unknown."""


def run(*words: object) -> tuple[int, str, str]:
    """Run a line in this process and return its status and all that went to its two streams, from libraries, too."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        kept = os.dup(1), os.dup(2)
        try:
            os.dup2(output.fileno(), 1)
            os.dup2(errors.fileno(), 2)
            with redirect_stdout(output), redirect_stderr(errors), pytest.raises(SystemExit) as ended:
                main([str(word) for word in words])
        finally:
            os.dup2(kept[0], 1)
            os.dup2(kept[1], 2)
            for one in kept:
                os.close(one)
        texts = []
        for stream in (output, errors):
            stream.flush()
            stream.seek(0)
            texts.append(stream.read())
    return int(ended.value.code or 0), texts[0], texts[1]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory) -> Callable[[str], tuple[int, str, str]]:
    """Return a function that runs a command with --json, once, after those that it needs."""
    place = tmp_path_factory.mktemp("way")
    (place / "search.toml").write_text(
        'model = "small"\ninput_size = 22\nbatch_size = 8\nepochs = 1\n[search]\nseed = [1, 2]\n'
    )
    (place / "paper").mkdir()
    (place / "paper" / "study.toml").write_text(STUDY)
    (place / "paper" / "facts.toml").write_text("[paper]\naccuracy = 0.75\n")
    (place / "paper" / "small.toml").write_text('model = "small"\ninput_size = 22\nbatch_size = 8\nepochs = 1\n')
    done: dict[str, tuple[int, str, str]] = {}
    patch = pytest.MonkeyPatch()
    patch.setattr("customcnn.data.download._fetch", lambda slug, folder: str(folder))
    patch.setattr(demo, "Plan", SMALL_DEMO)

    def get(name: str) -> tuple[int, str, str]:
        if name not in done:
            needed, words = WAY[name]
            for other in needed:
                get(other)
            patch.chdir(place)
            if name == "compare":
                run("train", "augmented", *TINY, "--epochs", 1, "--seed", 1, "--out", "other")
                run("evaluate", "other", "augmented", "--resamples", 20)
            done[name] = run(*words, "--json")
        return done[name]

    yield get
    patch.undo()


each = pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.docs) for n in WAY])


# ---------------------------------------------------------------- --json


def test_every_command_has_json_or_a_reason_not_to():
    having = {
        name
        for name, command in cli.commands.items()
        if any("--json" in parameter.opts for parameter in command.params if isinstance(parameter, click.Option))
    }
    assert having | WITHOUT_JSON.keys() >= set(cli.commands)
    assert not having & WITHOUT_JSON.keys()
    assert set(cli.commands) <= WAY.keys() | WITHOUT_JSON.keys(), "a new command is given its line here"


@each
def test_json_and_nothing_else(outcome, name):
    if name == "tune":
        pytest.importorskip("optuna")
    if name == "export":
        pytest.importorskip("openvino")
    status, output, errors = outcome(name)
    assert status == 0, errors
    found = json.loads(output)
    assert found and "\x1b" not in errors and "images/s]" not in errors
    assert not {line.partition(":")[0] for line in output.splitlines()} & {"Note", "Warning", "Epoch"}


KINDS = {
    "run": str,
    "folder": str,
    "page": str,
    "model_card": str,
    "model": str,
    "part": str,
    "monitor": str,
    "notes": list,
    "skipped": list,
    "leakages": list,
    "runs": list,
    "leakage": dict,
    "epoch": int,
    "epochs": int,
    "groups_known": bool,
}
"""What a key holds, wherever it stands at the top of a command's JSON."""


@each
def test_a_key_holds_the_same_everywhere(outcome, name):
    found = json.loads(outcome(name)[1])
    if isinstance(found, dict):
        for key, kind in KINDS.items():
            assert isinstance(found.get(key, kind()), kind), key
        for key in ("run", "folder", "page", "model_card"):
            assert key not in found or Path(found[key]).exists(), f"{key}: {found[key]}"


def test_what_the_commands_on_folders_say(outcome):
    found = {name: json.loads(outcome(name)[1]) for name in ("samples", "split", "crop", "augment", "audit")}
    assert found["samples"] == {"folder": "cells", "images": {"data": {"all": 16, "hem": 16}}, "skipped": []}
    assert found["split"]["images"] == {"train": {"all": 8, "hem": 8}, "validation": {"all": 8, "hem": 8}}
    assert found["split"]["images"] == found["audit"]["images"] == found["crop"]["images"]
    (leakage,) = found["split"]["leakages"]
    assert leakage["shared_groups"] == 8 and found["split"]["notes"] == [leakage["warning"]]
    assert found["crop"]["reformatted"] == found["augment"]["converted"] == 0
    assert sum(found["augment"]["images"]["train"].values()) == 32


def test_what_was_left_out_is_told(tmp_path, make_folder):
    data = make_folder({"all": 3, "hem": 3})
    (data / "all" / "notes.txt").write_text("no image")
    status, output, errors = run("split", data, tmp_path / "parts", "--skip-bad", "--workers", 1, "--json")
    (left,) = json.loads(output)["skipped"]
    assert status == 0 and left["path"] == "all/notes.txt" and left["reason"]
    assert "Skipped: " in errors


def test_what_a_training_says(outcome):
    found = json.loads(outcome("train")[1])
    history = Path("run/history.csv").read_text().splitlines()
    best = dict(zip(history[0].split(","), history[found["epoch"]].split(","), strict=True))
    assert (found["run"], found["model"], found["epochs"]) == ("run", "small", 2)
    assert {key: str(found[key]) for key in best} == best
    assert found["notes"][0] == found["leakage"]["warning"] and len(found["notes"]) == 2


@pytest.mark.docs
def test_what_others_say(outcome):
    found = {name: json.loads(outcome(name)[1]) for name in ("ensemble", "reproduce", "demo", "report")}
    assert [member["run"] for member in found["ensemble"]["members"]] == ["run", "other"]
    (row,) = found["reproduce"]["rows"]
    assert (row["name"], row["status"], row["published"]) == ("small", "done", {"validation": {"accuracy": 0.75}})
    assert 0 <= row["measured"]["validation"]["accuracy"]["value"] <= 1
    assert [one["split"] for one in found["demo"]["runs"]] == ["image", "group"]
    assert all(0 <= one[key]["value"] <= 1 for one in found["demo"]["runs"] for key in ("accuracy", "new_subjects"))
    assert found["report"]["page"] == "run/report.html"
    pytest.importorskip("optuna")
    tuned = json.loads(outcome("tune")[1])
    assert tuned["best"] == tuned["trials"][0]["trial"] and {t["values"]["seed"] for t in tuned["trials"]} == {1, 2}


def test_an_error_leaves_the_output_empty(tmp_path):
    status, output, errors = run("split", tmp_path / "nowhere", tmp_path / "x", "--json")
    assert (status, output) == (1, "") and errors.startswith("Error: ") and errors.count("\n") == 1


# ---------------------------------------------------------------- --quiet


@pytest.mark.parametrize("place", [0, 1, 2, 5])
@pytest.mark.parametrize("flag", ["-q", "--quiet"])
def test_quiet_anywhere(tmp_path, make_folder, place, flag):
    words: list[object] = ["split", make_folder({"all": 4, "hem": 4}), tmp_path / "parts", "--workers", 1]
    words.insert(place, flag)
    status, output, errors = run(*words)
    assert (status, errors) == (0, "") and output.splitlines()[0].split() == ["all", "hem", "all", "classes"]
    assert not progress.is_quiet(), "it holds for one line"


def test_quiet_after_two_dashes_is_a_name(tmp_path):
    status, _, errors = run("split", "--", "-q", tmp_path / "x")
    assert status == 1 and "'-q'" in errors


def test_quiet_does_not_hide_leakage(outcome, tmp_path):
    outcome("split")
    words = ["split", "cells", tmp_path / "parts", "--ratio", 0.5, "--by", "image", "--workers", 1]
    loud, quiet = run(*words), run("-q", *words, "--replace")
    assert quiet[1] == loud[1]
    assert re.fullmatch(r"Warning: Inflated by leakage: .*\n", quiet[2])


def test_quiet_training(outcome, tmp_path):
    """Not an epoch is told, and all warnings are."""
    outcome("augment")
    words = ["train", "augmented", *TINY, "--epochs", 1]
    loud, quiet = (run(*words, "--out", tmp_path / name, *flags) for name, flags in (("a", []), ("b", ["-q"])))
    assert quiet[1].replace("b\n", "a\n") == loud[1]
    assert "Epoch 1/1" in loud[2] and "Epoch" not in quiet[2]
    assert quiet[2].splitlines() == [line for line in loud[2].splitlines() if line.startswith("Warning: ")]
    assert any("Inflated by leakage" in line for line in quiet[2].splitlines())


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("Note: it was converted.", False),
        ("Skipped: 'a'.", False),
        ("  Epoch 1/2", False),
        ("Warning: Inflated by leakage.", True),
        ("  Warning: Inflated by leakage.", True),
        ("Failed: alexnet.", True),
    ],
)
def test_what_quiet_lets_through(capsys, line, shown):
    with progress.quietly(True):
        say(line)
    assert capsys.readouterr().err == (f"{line}\n" if shown else "")
    say(line)
    assert capsys.readouterr().err == f"{line}\n"


def test_a_quiet_demo_prints_its_lesson_alone(tmp_path, monkeypatch):
    """What the commands that it runs print is not its result; their warnings are shown all the same."""
    runs = [["models"]]
    monkeypatch.setattr(demo, "commands", lambda *given: runs)
    monkeypatch.setattr(demo, "results", lambda out: ([["the lesson"]], {}))
    monkeypatch.setattr(demo, "_write_page", lambda *given: say("Warning: Inflated by leakage."))
    _, loud, _ = run("demo", tmp_path / "a")
    status, output, errors = run("demo", tmp_path / "b", "-q")
    assert status == 0 and output.startswith("\nthe lesson\n") and errors == "Warning: Inflated by leakage.\n"
    assert "$ customcnn models" in loud and "googlenet" in loud and loud.count("the lesson") == 1


# ---------------------------------------------------------------- bars and colours, on a terminal


@contextmanager
def a_terminal():
    """Give the ends of a terminal of 100 columns: ours and the program's."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    try:
        yield ours, theirs
    finally:
        os.close(ours)


def everything(ours: int) -> Iterator[bytes]:
    """Yield what a terminal receives, until no program has it open."""
    with suppress(OSError):  # Linux says so when the other side has closed
        while piece := os.read(ours, 65536):
            yield piece


def on_a_terminal(*words: object, cwd: Path, **environment: str) -> tuple[int, str]:
    """Run a line whose two streams are a terminal; return its status and what the terminal received."""
    with a_terminal() as (ours, theirs):
        command = [sys.executable, "-m", "customcnn", *map(str, words)]
        inherited = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "TQDM_DISABLE")}
        done = subprocess.Popen(command, stdout=theirs, stderr=theirs, cwd=cwd, env=inherited | environment)
        os.close(theirs)
        received = b"".join(everything(ours))
        return done.wait(), received.decode()


COLOUR = re.compile(r"\x1b\[[0-9;]*m")
RED = "\x1b[31m"


def test_a_bar_has_images_per_second_and_time_left_and_no_colour(tmp_path):
    words = ["samples", "cells", "--subjects", 2, "--cells", 10, "--size", 64, "--workers", 1]
    status, text = on_a_terminal(*words, cwd=tmp_path)
    assert status == 0
    assert {match[1] for match in BAR.finditer(text)} == {"draw"} and not COLOUR.search(text)
    assert text.startswith("\rdraw:   0%|") and re.search(r"\]\r +\r +all  hem", text), (
        "the bar is wiped away at the end"
    )
    status, text = on_a_terminal(*words, "--replace", "--quiet", cwd=tmp_path)
    assert status == 0 and not BAR.search(text) and "images/s" not in text


def test_colours_on_a_terminal_alone(tmp_path):
    cells = ["samples", "cells", "--subjects", 2, "--cells", 5, "--size", 64, "--workers", 1]
    split = ["split", "cells", "parts", "--workers", 1]
    assert on_a_terminal(*cells, cwd=tmp_path)[0] == 0
    for environment, coloured in (({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True)):
        _, text = on_a_terminal(*split, "--replace", cwd=tmp_path, **environment)
        assert "Warning: Inflated by leakage" in text and bool(COLOUR.search(text)) == coloured, environment
        _, text = on_a_terminal("summary", "nosuch", cwd=tmp_path, **environment)
        assert text.startswith(f"{RED * coloured}Error: The model must be one of"), environment
        assert bool(COLOUR.search(text)) == coloured, environment
    _, output, errors = run("summary", "nosuch")
    assert not COLOUR.search(output + errors), "no terminal, no colour"


def test_a_bar_of_slow_work_is_told_in_images_per_second(monkeypatch):
    """tqdm's own bars turn the rate around where an image takes more than a second."""
    with a_terminal() as (ours, theirs):
        with os.fdopen(theirs, "w") as stream, monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", stream)
            with progress.terminal(4, "slow") as advance:
                bar = advance.__self__
                bar._time = lambda: bar.start_t + 20  # tqdm's clock
                advance(2)
                bar.refresh()
        text = b"".join(everything(ours)).decode()
    assert "0.10 images/s" in text and "<00:20," in text


LONG: tuple[tuple[list[object], set[str]], ...] = (
    (["samples", "bar-cells", "--subjects", 4, "--cells", 4, "--size", 64, "--workers", 1], {"draw"}),
    (["split", "bar-cells", "bar-parts", "--ratio", 0.5, "--workers", 1], {"check", "split"}),
    (["crop", "bar-parts", "bar-cropped", "--size", 60, "--workers", 1], {"crop"}),
    (["augment", "bar-cropped", "bar-augmented", "--count", 32, "--workers", 1], {"augment"}),
    (["audit", "bar-parts", "--workers", 1], {"hash"}),
    (
        ["train", "bar-augmented", *TINY, "--epochs", 2, "--out", "bar-run"],
        {"pack", "epoch 1/2", "epoch 2/2"},
    ),
    (["evaluate", "bar-run", "bar-augmented", "--resamples", 20, "--no-report"], {"evaluate"}),
    (["predict", "bar-run", "bar-cells/all"], {"predict"}),
    (["visualize", "bar-run", "bar-cells/all/UID_1_1_1_all.bmp"], {"visualize"}),
    (["calibrate", "bar-run", "bar-augmented", "--resamples", 20], {"evaluate"}),
    (["pretrain", "bar-augmented", *TINY, "--epochs", 1, "--out", "bar-start"], {"epoch 1/1"}),
    (
        ["crossval", "bar-cropped", *TINY, "--epochs", 1, "--folds", 2, "--out", "bar-folds"],
        {"pack", "epoch 1/1", "evaluate"},
    ),
    ([*WAY["reproduce"][1][:-1], "bar-again"], {"epoch 1/1", "evaluate"}),
)
"""Lines of long work, and the bars that they are to draw."""


@pytest.mark.docs
def test_long_work_has_a_bar(outcome, monkeypatch):
    outcome("crop")
    for words, labels in LONG:
        status, text = with_a_terminal_for_errors(monkeypatch, *words)
        assert status == 0, text
        assert {match[1] for match in BAR.finditer(text)} >= labels, words
        assert not COLOUR.sub("", "".join(match[0] for match in BAR.finditer(text))).count("\x1b"), words


def with_a_terminal_for_errors(monkeypatch, *words: object) -> tuple[int, str]:
    """Run a line in this process, its error stream a terminal; return its status and what the terminal received."""
    received: list[bytes] = []
    with a_terminal() as (ours, theirs):
        reader = threading.Thread(target=lambda: received.extend(everything(ours)))
        reader.start()
        with os.fdopen(theirs, "w") as stream, monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
            patch.setattr(sys, "stderr", stream)
            main([str(word) for word in words])
        reader.join()
    return int(ended.value.code or 0), b"".join(received).decode()
