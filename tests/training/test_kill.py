"""Kills at random moments: the same command again ends with the same bytes, and leaves nothing beside them."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from customcnn.data.synthetic import draw_samples
from tests.support.folders import contents, stamps

pytestmark = pytest.mark.kill

KILLS = 10


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """Sixty drawn cells of 150 x 150 pixels in class folders."""
    folder = tmp_path_factory.mktemp("kill") / "cells"
    draw_samples(folder, subjects=3, cells=10, size=150, seed=4)
    return folder


@pytest.fixture(scope="module")
def many_cells(cells):
    """The same ones ten times over: a split of sixty files would end before a kill arrives."""
    folder = cells.with_name("many")
    for path in cells.rglob("*.bmp"):
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        for i in range(10):
            os.link(path, folder / path.parent.name / f"{i}-{path.name}")
    return folder


THREADED = (
    "from customcnn import cli; from customcnn.training import async_checkpoint; async_checkpoint.LARGE = 0; cli.main()"
)
"""The command line, with small networks written by a thread too, as large ones are."""


def start(*arguments, threaded=False):
    """Start `customcnn` as the leader of a process group of its own."""
    command = [sys.executable, *(["-c", THREADED] if threaded else ["-m", "customcnn"]), *map(str, arguments)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process):
    """Wait for a process; return its status and what it said."""
    _, said = process.communicate(timeout=300)
    return process.returncode, said


def run(*arguments):
    """Run a command that must succeed."""
    status, said = finish(start(*arguments))
    assert status == 0, said


def wait_until(condition, process, seconds=120):
    """Wait until a condition holds or the process ends; return how long that took."""
    began = time.monotonic()
    while not condition() and process.poll() is None:
        assert time.monotonic() - began < seconds, "the moment never came"
        time.sleep(0.001)
    return time.monotonic() - began


def kill(process):
    """Kill a process and nothing else: its workers must leave by themselves. Return whether it was still running."""
    running = process.poll() is None
    if running:
        os.kill(process.pid, signal.SIGKILL)
    finish(process)
    return running


def wait_for_group(process, seconds=20):
    """Wait until no process of a killed one's group is left."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    raise AssertionError("workers outlive the process that started them")


def moments(seed):
    """Return a random moment in each of as many equal shares of a run, shuffled: shares of its duration."""
    rng = random.Random(seed)
    shares = [(i + rng.random()) / KILLS for i in range(KILLS)]
    rng.shuffle(shares)
    return shares


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@dataclass
class Unbroken:
    """A run that nobody kills: seconds from its partial folder to its first image and to its end; what it made."""

    first: float
    ended: float
    made: dict[str, bytes]


def partial(dst):
    return dst.with_name(f".{dst.name}.partial")


def has_image(folder):
    return next(folder.rglob("*.bmp"), None) is not None


def unbroken(command, dst):
    process = start(*command)
    wait_until(partial(dst).is_dir, process)
    first = wait_until(lambda: has_image(partial(dst)) or dst.is_dir(), process)
    ended = first + wait_until(dst.is_dir, process)
    status, said = finish(process)
    assert status == 0, said
    return Unbroken(first, ended, contents(dst))


def kill_at(command, dst, whole, share, *, after_first=False):
    """Start a command and kill it at a moment of its work: a share of the time from its partial folder to its end.

    Args:
        command: what to start.
        dst: what it makes.
        whole: how long that takes.
        share: the moment, 0..1.
        after_first: take the time from the first image instead.

    Returns:
        The killed process, and whether it was still running.
    """
    process = start(*command)
    wait_until(partial(dst).is_dir, process)
    if after_first:
        wait_until(lambda: has_image(partial(dst)) or dst.is_dir(), process)
    time.sleep(share * (whole.ended - whole.first * after_first))
    return process, kill(process)


def finish_after_kill(command, dst):
    """Run a killed command again, with --replace if it had come to its end; return whether it had."""
    complete = dst.is_dir()
    if complete:
        status, said = finish(start(*command))
        assert status == 1
        assert "is not empty. Use --replace" in said
    run(*command, *(["--replace"] if complete else []))
    return complete


def test_a_killed_split_is_made_by_the_same_command_again(many_cells, tmp_path):
    whole = unbroken(["split", many_cells, tmp_path / "whole/parts"], tmp_path / "whole/parts")
    assert len(whole.made) == 601
    stopped = 0
    for i, share in enumerate(moments("split")):
        place = tmp_path / str(i)
        place.mkdir()
        dst = place / "parts"
        command = ["split", many_cells, dst]
        process, running = kill_at(command, dst, whole, share)
        stopped += running and not dst.is_dir()
        if dst.is_dir():
            assert contents(dst) == whole.made, "what has its final name is whole"
        finish_after_kill(command, dst)
        assert contents(dst) == whole.made
        assert names_in(place) == ["parts"]
        wait_for_group(process)
    print(f"\nsplit: {stopped} of {KILLS} killed at work, which takes {whole.ended:.3f} s")
    assert stopped >= KILLS // 4


def test_a_killed_replacement_leaves_the_old_or_the_new(many_cells, tmp_path):
    old, dst = tmp_path / "old", tmp_path / "place/parts"
    dst.parent.mkdir()
    run("split", many_cells, old, "--seed", 1)
    before = contents(old)
    command = ["split", many_cells, dst, "--seed", 2, "--replace"]
    whole = unbroken(command, dst)
    assert whole.made != before
    kept = 0
    for share in moments("replace"):
        shutil.rmtree(dst)
        shutil.copytree(old, dst)
        kill_at(command, dst, whole, share)
        # Between two renames of a moment the old folder has another name; the next call puts it back.
        found = contents(dst if dst.is_dir() else dst.with_name(".parts.old"))
        assert found in (before, whole.made)
        kept += found == before
        run(*command)
        assert contents(dst) == whole.made
        assert names_in(dst.parent) == ["parts"]
    print(f"\nreplace: {kept} of {KILLS} killed before the new folder took the old one's place")
    assert kept > 0


def test_a_killed_augmentation_goes_on_and_ends_with_the_same_bytes(cells, tmp_path):
    parts = tmp_path / "parts"
    run("split", cells, parts)
    options = ["--count", 300, "--seed", 7, "--brightness", 0.2]
    whole = unbroken(["augment", parts, tmp_path / "whole/augmented", *options], tmp_path / "whole/augmented")
    assert len(whole.made) == 300 + 12 + 1
    stopped, kept = 0, []
    for i, share in enumerate(moments("augment")):
        place = tmp_path / str(i)
        place.mkdir()
        dst = place / "augmented"
        work = partial(dst)
        command = ["augment", parts, dst, *options]
        # Most of the time goes by while workers start: three of four kills come after the first image.
        process, running = kill_at(command, dst, whole, share, after_first=i % 4 > 0)
        stopped += running and not dst.is_dir()
        finished = {
            name: stamp
            for name, stamp in stamps(work).items()
            if (work / ".resume.json").is_file() and name.endswith(".bmp") and "-aug" in name
        }
        complete = finish_after_kill(command, dst)
        assert contents(dst) == whole.made
        assert names_in(place) == ["augmented"]
        if not complete:
            kept.append(len(finished))
            assert finished.items() <= stamps(dst).items(), "what was finished is not written again"
        wait_for_group(process)
        shutil.rmtree(place)
    print(f"\naugment: {stopped} of {KILLS} killed at work, with so many files finished: {sorted(kept)}")
    assert stopped >= KILLS // 4
    assert sum(0 < number < 300 for number in kept) >= 3


def written_since(path, moment):
    return path.is_file() and path.stat().st_mtime > moment


def epochs_done(out):
    """Return the rows of history.csv, less its header."""
    file = out / "history.csv"
    return len(file.read_bytes().splitlines()) - 1 if file.is_file() else 0


def ends_within(process, seconds):
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def weights(path: Path) -> list[np.ndarray]:
    from customcnn.runs.saved_model import load_model

    return [np.asarray(weight) for weight in load_model(path).weights]


@pytest.mark.parametrize("threaded", [False, True], ids=["waiting", "by a thread"])
def test_a_killed_training_resumes_to_the_same_history_and_weights(cells, tmp_path, threaded):
    """So many kills are shared between the two ways of writing."""
    parts = tmp_path / "parts"
    run("split", cells, parts, "--ratio", 0.7)

    def command(out):
        return ["train", parts, "--model", "small", "--set", "input_size=62", "--epochs", 3, "--out", out]

    def resume(out):
        return ["--resume"] * (out.is_dir() and any(out.iterdir()))  # a kill may come before there is a run

    whole = tmp_path / "whole"
    process = start(*command(whole), threaded=threaded)
    before = wait_until(whole.is_dir, process)
    at_work = wait_until(lambda: False, process)
    assert finish(process)[0] == 0
    history = (whole / "history.csv").read_bytes()
    assert len(history.splitlines()) == 1 + 3
    best = weights(whole / "best.keras")

    # A chain of kills on one run, until it ends in spite of them; then the next run.
    rng = random.Random(f"train {threaded}")
    at_work = dict.fromkeys(range(4), at_work)  # seconds, by how many epochs are done when a run is resumed
    kills, chains, rows = 0, 0, []
    while kills < KILLS // 2:
        out = tmp_path / f"run{chains}"
        chains += 1
        killed, epochs = True, 0
        while killed and kills < KILLS // 2:
            started = time.time()
            process = start(*command(out), *resume(out), threaded=threaded)
            if rng.random() < 0.8:  # while it trains: after it has begun to write into the run
                wait_until(lambda out=out, started=started: written_since(out / "environment.json", started), process)
                began = time.monotonic()
                killed = not ends_within(process, rng.random() * at_work[epochs])
                if not killed:  # a resumed run is shorter, and the machine may be less busy than it was
                    at_work[epochs] = min(at_work[epochs], time.monotonic() - began)
            else:
                killed = not ends_within(process, rng.random() * before)
            kill(process)
            kills += killed
            epochs = epochs_done(out)
            rows += [epochs] * killed
        if killed:
            run(*command(out), *resume(out))
        assert (out / "history.csv").read_bytes() == history
        for one, other in zip(weights(out / "best.keras"), best, strict=True):
            np.testing.assert_array_equal(one, other)
        assert names_in(out) == names_in(whole)
        assert not list(out.glob(".*")), "no half file is left"
    print(f"\ntrain: {kills} kills in {chains} runs, epochs in history.csv at each: {rows}")
    assert {1, 2} & set(rows), "some kills come between epochs"
