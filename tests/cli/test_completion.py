"""The Tab key: in the shells themselves where they are installed, and what is found for it."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from customcnn.cli import main
from customcnn.cli.completion import Bash
from customcnn.models import list_models
from customcnn.recipe.recipe import KEYS

ROOT = Path(__file__).parents[2]
LONGEST = 60  # seconds that a busy machine may take to answer

INTERACTIVE = {
    "bash": ["bash", "--noprofile", "--norc", "-i"],
    "zsh": ["zsh", "-f", "-i"],
}
READY = {
    "bash": 'bind "set enable-bracketed-paste off"; eval "$(customcnn completion bash)"; PS1="% "; echo ready$((1))',
    "zsh": "autoload -Uz compinit; compinit -u -D; zstyle ':completion:*' insert-tab false; "
    'eval "$(customcnn completion zsh)"; PS1="%% "; PROMPT_EOL_MARK=""; echo ready$((1))',
}


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    """Return an environment with the command customcnn, that of these tests, and a home of its own."""
    command = tmp_path / "bin" / "customcnn"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m customcnn "$@"\n')
    command.chmod(0o755)
    path = f"{command.parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "HOME": str(tmp_path), "TERM": "dumb", "PYTHONPATH": str(ROOT)}


class Terminal:
    """A shell that believes that someone types."""

    def __init__(self, words: list[str], environment: dict[str, str], folder: Path) -> None:
        self.ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            words, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=folder, start_new_session=True
        )
        os.close(theirs)
        self.text = ""

    def type(self, keys: str, expected: str) -> str:
        """Type, and wait until what is expected stands on the screen; return all that came meanwhile."""
        self.text = ""
        os.write(self.ours, keys.encode())
        deadline = time.monotonic() + LONGEST
        while not re.search(expected, self.text):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.ours], [], [], left)[0]:
                raise AssertionError(f"{expected!r} did not come after {keys!r}, but {self.text!r}")
            self.text += os.read(self.ours, 4096).decode(errors="replace")
            self.text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]|\x07", "", self.text)
            while re.search(r"[^\x08]\x08", self.text):
                self.text = re.sub(r"[^\x08]\x08", "", self.text)
        return self.text

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)


@pytest.fixture(params=INTERACTIVE)
def typed(request, environment, tmp_path):
    """Return a function that types a line with the Tab key in it, and gives the line as the shell then has it."""
    name = request.param
    if not shutil.which(name):
        pytest.skip(f"{name} is not installed")
    terminal = Terminal(INTERACTIVE[name], environment, tmp_path)
    terminal.type(READY[name] + "\n", "ready1")

    def complete(line: str, expected: str) -> None:
        # The line itself, echoed, with what the shell has put behind it; Ctrl-U takes it away again.
        terminal.type(line, expected)
        terminal.type("\x15echo gone$((1))\n", "gone1")

    yield complete
    terminal.close()


def test_the_tab_key(typed):
    typed("customcnn tr\t", "customcnn train ")
    typed("customcnn train --model prop\t", "--model proposed")
    typed("customcnn train --model goog\t", "--model googlenet ")
    typed("customcnn summary residu\t", "summary residual ")
    typed("customcnn train data --resu\t", "data --resume ")
    typed("customcnn train --set optim\t", "--set optimizer=")
    typed("customcnn train --set optimizer=rm\t", "optimizer=rmsprop ")
    typed("customcnn --quiet trai\t", "--quiet train ")
    typed("customcnn train --debug data --prec\t", "--debug data --precision ")


def test_the_tab_key_finds_files(typed, tmp_path):
    (tmp_path / "only-one").mkdir()
    typed("customcnn split onl\t", "split only-one")


def test_the_tab_key_finds_studies(typed, tmp_path):
    for name in ("one", "two"):
        (tmp_path / "experiments" / name).mkdir(parents=True)
        (tmp_path / "experiments" / name / "study.toml").touch()
    typed("customcnn reproduce tw\t", "reproduce experiments/two ")


def test_fish(environment, tmp_path):
    if not shutil.which("fish"):
        pytest.skip("fish is not installed")

    def complete(line: str) -> list[str]:
        script = f"customcnn completion fish | source; complete --do-complete {line!r}"
        done = subprocess.run(
            ["fish", "--no-config", "-c", script], capture_output=True, text=True, env=environment, cwd=tmp_path,
            check=True, timeout=LONGEST,
        )  # fmt: skip
        return [found.partition("\t")[0] for found in done.stdout.splitlines()]

    assert complete("customcnn tr") == ["train"]
    assert complete("customcnn train --model prop") == ["proposed", "proposed-figures"]
    found = complete("customcnn train --set optimizer=")
    assert set(found) == {f"optimizer={one}" for one in ("sgd", "adam", "adamw", "rmsprop")}


# ---------------------------------------------------------------- the command


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_says_how_to_install_it(shell, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["completion", shell])
    assert not ended.value.code
    lines = capsys.readouterr().out.splitlines()
    assert any("_CUSTOMCNN_COMPLETE" in line for line in lines)
    assert lines[-1].startswith("# To complete with the Tab key, ") and f"customcnn completion {shell}" in lines[-1]
    if shutil.which(shell):
        check = [shell, "-n"] if shell != "fish" else [shell, "--no-execute"]
        subprocess.run([*check, "/dev/stdin"], input="\n".join(lines), text=True, check=True)


def completed(words: list[str], incomplete: str, **environment: str) -> subprocess.CompletedProcess:
    """Ask for completions as the script for Bash does."""
    line = [*words, incomplete]
    asked = {"_CUSTOMCNN_COMPLETE": "bash_complete", "COMP_WORDS": "\n".join(line), "COMP_CWORD": str(len(words))}
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "customcnn"],
        capture_output=True, text=True, env={**os.environ, **asked, **environment}, check=True,
    )  # fmt: skip


def found(done: subprocess.CompletedProcess) -> list[str]:
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_every_network_is_found_and_nothing_heavy_is_imported():
    done = completed(["customcnn", "train", "data", "--model"], "")
    assert found(done) == [spec.name for spec in list_models()]
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "customcnn.models" in loaded
    assert not loaded & {"keras", "tensorflow", "jax", "torch", "scipy", "sklearn", "matplotlib"}


def test_recipe_keys_are_found_and_nothing_heavy_is_imported():
    done = completed(["customcnn", "tune", "data", "--set"], "")
    assert found(done) == [f"{key}=" for key in KEYS]
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not loaded & {"keras", "tensorflow", "jax", "torch", "scipy", "sklearn", "matplotlib"}


@pytest.mark.parametrize(
    ("words", "incomplete", "expected"),
    [
        (["--set"], "tensor", ["tensorboard=false", "tensorboard=true"]),
        (["--set"], "learning", ["learning_rate=", "learning_rate=0.0002"]),
        (["--set"], "schedule.k", [f"schedule.kind={k}" for k in ("constant", "step", "cosine", "plateau", "lra")]),
        (["--set", "model", "="], "goog", ["googlenet"]),
        (["--set", "tensorboard"], "=", ["false", "true"]),
        (["--set", "no.such.key", "="], "", []),
        (["--quiet", "--device"], "c", ["cpu"]),
    ],
)
def test_values(words, incomplete, expected):
    assert found(completed(["customcnn", "train", *words], incomplete)) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["customcnn", "train", "--set", "a"], (["train", "--set"], "a")),
        (["customcnn", "train", "--set", "a", "="], (["train", "--set"], "a=")),
        (["customcnn", "train", "--set", "a", "=", "b"], (["train", "--set"], "a=b")),
        (["customcnn", "train", ""], (["train"], "")),
        (["customcnn", ""], ([], "")),
    ],
)
def test_what_bash_tears_apart_is_put_together(monkeypatch, words, expected):
    from customcnn.cli import cli

    monkeypatch.setenv("COMP_WORDS", "\n".join(word or "''" for word in words))
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    assert Bash(cli, {}, "customcnn", "_CUSTOMCNN_COMPLETE").get_completion_args() == expected
