"""The benchmarks: every goal can be started, and the race counts, compares and reports what fails."""

import importlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import race as module
from benchmarks.__main__ import GOALS, cli
from benchmarks.race import Racer, Result, race, ratio, report, table


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0)


# ---------------------------------------------------------------- racers, prepared in processes of their own


def noting(path: Path, name: str) -> Callable[[], int]:
    """Write a line when it is prepared and in every round."""

    def note(word: str) -> None:
        with path.open("a") as file:
            file.write(f"{name} {word}\n")

    def work() -> int:
        note("round")
        return 10

    note("prepared")
    return work


def seeing(variable: str) -> Callable[[], int]:
    """Do as many images as a variable of the environment says."""
    images = int(os.environ[variable])
    return lambda: images


def lacking() -> Callable[[], int]:
    import no_such_package

    return no_such_package.work


def refusing() -> Callable[[], int]:
    raise ValueError("not today\nnor tomorrow")


def stumbling() -> Callable[[], int]:
    def work() -> int:
        raise RuntimeError("in the round")

    return work


def dying() -> Callable[[], int]:
    return lambda: os._exit(3)


def stillborn() -> Callable[[], int]:
    os._exit(3)


# ---------------------------------------------------------------- goals


@pytest.mark.parametrize("goal", GOALS)
def test_every_goal_has_a_command_with_its_options(goal):
    main = importlib.import_module(f"benchmarks.{goal.replace('-', '_')}").main
    repeated = "--sizes" if goal == "scale" else "--rounds"
    assert {repeated, "--out"} <= {option for parameter in main.params for option in parameter.opts}
    done = CliRunner().invoke(cli, [goal, "--help"])
    assert done.exit_code == 0, done.output
    assert done.output.startswith("Usage: ") and repeated in done.output


def test_the_list_of_goals_and_one_that_is_unknown():
    done = CliRunner().invoke(cli, ["--help"])
    assert done.exit_code == 0 and all(text in done.output for text in GOALS.values())
    assert CliRunner().invoke(cli, ["nosuch"]).exit_code == 2


# ---------------------------------------------------------------- the race


def test_racers_take_turns_after_a_warm_up(tmp_path):
    notes = tmp_path / "notes"
    racers = [Racer(name, noting, (notes, name)) for name in ("a", "b")]
    results = race(racers, rounds=3, warmup=2)
    first = [f"{name} {word}" for name in "ab" for word in ("prepared", "round", "round")]
    assert notes.read_text().splitlines() == first + ["a round", "b round"] * 3
    assert [result.name for result in results] == ["a", "b"]
    for result in results:
        assert len(result.rates) == 3 and min(result.rates) > 0 and result.failed == ""


def test_the_environment_is_the_racers_own(monkeypatch):
    monkeypatch.setenv("RACER_IMAGES", "1")
    monkeypatch.delenv("RACER_OTHER", raising=False)
    racers = [
        Racer("given", seeing, ("RACER_OTHER",), {"RACER_OTHER": "7"}),
        Racer("inherited", seeing, ("RACER_IMAGES",)),
        Racer("missing", seeing, ("RACER_OTHER",)),
    ]
    given, inherited, missing = race(racers, rounds=1)
    assert given.rates and inherited.rates
    assert missing.failed == "KeyError: 'RACER_OTHER'", "what one racer is given does not reach the next"
    assert "RACER_OTHER" not in os.environ


@pytest.mark.parametrize(
    ("prepare", "failed"),
    [
        (lacking, "not installed: no_such_package"),
        (refusing, "ValueError: not today"),
        (stumbling, "RuntimeError: in the round"),
        (dying, "its process died"),
        (stillborn, "its process died"),
    ],
)
def test_a_racer_that_cannot_run_is_reported_and_the_others_go_on(tmp_path, prepare, failed):
    found, other = race([Racer("bad", prepare), Racer("good", noting, (tmp_path / "notes", "good"))], rounds=2)
    assert (found.rates, found.failed) == ([], failed)
    assert len(other.rates) == 2
    assert f"| bad | not run: {failed} | | |" in table([found, other], "good").splitlines()


# ---------------------------------------------------------------- figures


def test_ratio_is_the_median_of_the_rounds_ratios():
    """2, 1 and 8 times: a slow round for both does not count."""
    own, base = Result("own", [200.0, 10.0, 80.0]), Result("base", [100.0, 10.0, 10.0])
    assert ratio(own, base) == 2
    assert ratio(base, base) == 1
    assert own.median == 80


def test_the_table_by_hand():
    results = [Result("own", [2000.0, 1000.0, 3000.0]), Result("base", [1.5, 1.0, 2.0]), Result("gone", [], "why")]
    assert table(results, "base").splitlines() == [
        "| | images/s | from - to | times base |",
        "| --- | --- | --- | --- |",
        "| own | 2,000 | 1,000 - 3,000 | 1333.33 |",
        "| base | 1.5 | 1 - 2 | 1.00 |",
        "| gone | not run: why | | |",
    ]


def test_without_the_base_there_are_no_ratios():
    for rates in ([], [1.0]):  # one that died after its first round too
        died = table([Result("own", [2.0, 3.0]), Result("base", rates, "its process died")], "base")
        assert "| own | 2.5 | 2 - 3 |  |" in died.splitlines()
    lines = table([Result("own", [2.0]), Result("base", [], "not installed: x")], "base").splitlines()
    assert lines[2:] == ["| own | 2 | 2 - 2 |  |", "| base | not run: not installed: x | | |"]


def test_the_report(tmp_path, capsys):
    results = [Result("own", [2.0, 4.0]), Result("base", [1.0, 2.0])]
    report("A race", results, "base", tmp_path / "found.json", images=5)
    output = capsys.readouterr().out
    assert output.startswith("\nA race, ") and table(results, "base") in output
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["title"], found["base"], found["images"]) == ("A race", "base", 5)
    assert found["results"][0] == {"name": "own", "rates": [2.0, 4.0], "failed": ""}
    assert found["machine"]["cores"] >= 1 and "numpy" in found["machine"]["packages"]
