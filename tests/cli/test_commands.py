"""The command line: help, statuses, what goes to which stream, Ctrl-C, closed pipes."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

import customcnn
from customcnn.cli import cli, explain, fitted, main
from customcnn.errors import CustomCNNError
from tests.support.commands import error_line

NAMES = {
    "samples", "download", "split", "crop", "augment", "audit", "pack", "models", "summary", "pretrain", "train",
    "evaluate", "predict", "visualize", "ensemble", "crossval", "tune", "reproduce", "demo", "doctor", "report",
    "compare", "calibrate", "leakage", "completion", "launch",
}  # fmt: skip

every_command = pytest.mark.parametrize("name", sorted(cli.commands))


def process(*words: object, **options) -> subprocess.Popen:
    """Start the command line in a process of its own, which Ctrl-C stops even if the tests run in the background."""
    command = [sys.executable, "-m", "customcnn", *map(str, words)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    listens = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    return subprocess.Popen(command, **{**streams, **listens, **options})


# ---------------------------------------------------------------- help


def test_the_commands():
    assert set(cli.commands) >= NAMES


@every_command
def test_help_with_an_example(shell, name):
    for option in ("--help", "-h"):
        status, output, errors = shell(name, option)
        assert (status, errors) == (0, "")
        assert output.startswith(f"Usage: customcnn {name} ")
        assert f"Example: customcnn {name}" in output


@every_command
def test_every_option_is_explained(name):
    for parameter in cli.commands[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts[0]}"


@every_command
def test_examples_are_commands_that_exist(name):
    """The first line shows the command; the options of every line are options of the command that it names."""
    (text,) = re.findall(r"Example: ((?:.|\n)*)", cli.commands[name].help or "")
    lines = [line.split() for line in text.strip().splitlines()]
    assert lines[0][:2] == ["customcnn", name]
    for _, shown, *words in lines:
        end = words.index("--") if "--" in words else len(words)
        inner = words[end + 1 :]  # a command line of its own
        for command, given in ((shown, words[:end]), *([(inner[0], inner[1:])] if inner else [])):
            known = {option for parameter in cli.commands[command].params for option in parameter.opts}
            assert {word for word in given if word.startswith("--")} <= known


def test_the_help_of_the_whole(shell):
    status, output, errors = shell("--help")
    assert (status, errors) == (0, "")
    assert "customcnn demo" in output
    assert all(re.search(rf"^  {name} ", output, re.MULTILINE) for name in cli.commands)


def test_the_version(shell):
    assert shell("--version") == (0, f"customcnn, version {customcnn.__version__}\n", "")


def test_the_module_is_the_command(tmp_path):
    command = Path(sys.executable).with_name("customcnn")
    if not command.exists():
        pytest.skip("customcnn is not installed as a command")
    for start in ([str(command)], [sys.executable, "-m", "customcnn"]):
        done = subprocess.run([*start, "--version"], capture_output=True, text=True, check=False, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (0, f"customcnn, version {customcnn.__version__}\n")


# ---------------------------------------------------------------- wrong usage


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "Usage: customcnn [OPTIONS] COMMAND"),
        (["nosuch"], "Error: No such command 'nosuch'."),
        (["models", "--nosuch"], "Error: No such option"),
        (["models", "extra"], "Error: Got unexpected extra argument (extra)"),
        (["split"], "Error: Missing argument 'SRC'."),
        (["split", "a"], "Error: Missing argument 'DST'."),
        (["split", "a", "b", "--by", "patient"], "Error: Invalid value for '--by'"),
        (["split", "a", "b", "--ratio", "much"], "Error: Invalid value for '--ratio'"),
        (["augment", "a", "b", "--count", "2.5"], "Error: Invalid value for '--count'"),
        (["split", "a", "b", "--group-pattern", "cnmc", "--groups", "x.csv"], "exclude each other"),
        (["train", "a", "--resume", "--replace"], "Error: --resume and --replace exclude each other."),
        (["train", "a", "--precision", "float64"], "Error: Invalid value for '--precision'"),
        (["predict", "run"], "Error: Missing argument 'IMAGES...'."),
        (["evaluate", "run", "data", "--part", "exam"], "Error: Invalid value for '--part'"),
    ],
)
def test_wrong_usage(shell, words, text):
    status, output, errors = shell(*words)
    assert (status, output) == (2, "")
    assert errors.startswith("Usage: customcnn ") and text in errors
    assert "Traceback" not in errors


# ---------------------------------------------------------------- errors


def test_an_error_is_one_line_on_the_error_stream(shell, tmp_path):
    message = error_line(*shell("split", tmp_path / "no\nwhere", tmp_path / "x"))
    assert message.startswith("Data is a folder of class folders. Received: ") and message.endswith(".")


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_debug_anywhere_shows_where(place):
    words = ["split", "nowhere", "x"]
    words.insert(place, "--debug")
    with pytest.raises(CustomCNNError, match="nowhere"):
        main(words)


def test_a_traceback_with_debug_and_none_without(tmp_path):
    words = ["summary", "nosuch"]
    plain, debug = process(*words), process(*words, "--debug")
    output, errors = plain.communicate()
    assert (plain.returncode, output) == (1, "")
    assert errors.startswith("Error: The model must be one of ") and errors.count("\n") == 1
    output, errors = debug.communicate()
    assert (debug.returncode, output) == (1, "")
    assert errors.startswith("Traceback (most recent call last):")
    assert errors.splitlines()[-1].startswith("customcnn.errors.CustomCNNError: The model must be one of ")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (CustomCNNError("A rule. Received: 1. Do that."), "A rule. Received: 1. Do that."),
        (
            OSError(28, "No space left on device", "/a\nb"),
            "The system refused a file operation: No space left on device. Received: '/a\\nb'. "
            "Check the space and the permissions there.",
        ),
        (
            PermissionError(13, "Permission denied"),
            "The system refused a file operation: Permission denied. Check the space and the permissions where it "
            "writes, also in the temporary folder (the variable TMPDIR).",
        ),
        (
            OSError(errno.ENAMETOOLONG, "File name too long", "a" * 4),
            "The system refused a file operation: File name too long. Received: 'aaaa'. Give a shorter name.",
        ),
        (OSError("odd\nthing"), "Unexpected OSError: odd (use --debug to see where, and report it)"),
        (ValueError("\n one\ntwo"), "Unexpected ValueError: one (use --debug to see where, and report it)"),
        (KeyError(), "Unexpected KeyError:  (use --debug to see where, and report it)"),
    ],
)
def test_what_is_said_of_an_error(error, text):
    assert explain(error) == text


def test_what_is_said_of_too_little_memory():
    text = "Not enough memory. Use fewer --workers, or for a network a smaller batch_size or input_size."
    assert explain(MemoryError()) == text
    resource = type("ResourceExhaustedError", (Exception,), {})  # TensorFlow's; loading it takes seconds
    for error in (
        resource("{{function_node}} OOM when allocating tensor"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 4 bytes"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried 4 bytes"),
    ):
        assert explain(error) == text
    assert explain(MemoryError(), ["--out"]) == "Not enough memory. Use a smaller batch_size or input_size."


def test_a_way_out_that_the_command_lacks_is_left_out():
    message = "Class folders hold images and nothing else. Received: 'a/x.txt' (no image). Remove it or use --skip-bad."
    assert fitted(message, ["--skip-bad", "--out"]) == message
    assert fitted(message, ["--out"]) == message.replace(" or use --skip-bad", "")
    assert fitted("Put it back, or use --skip-bad.", []) == "Put it back."


# ---------------------------------------------------------------- streams, pipes, terminals


def test_results_and_nothing_else_go_to_the_output(tmp_path):
    """Without a terminal there are no bars and no colours; a warning is no result."""
    done = process("samples", tmp_path / "cells", "--subjects", 2, "--cells", 5, "--size", 64, "--workers", 1)
    output, errors = done.communicate()
    assert (done.returncode, errors) == (0, "")
    assert output == "        all  hem  all classes\nimages   10   10           20\n"
    done = process("split", tmp_path / "cells", tmp_path / "parts", "--workers", 1)
    output, errors = done.communicate()
    assert output.splitlines()[0].split() == ["all", "hem", "all", "classes"] and "\x1b" not in output
    assert re.fullmatch(r"Warning: Inflated by leakage: .*\n", errors)


def test_names_with_stray_bytes_can_be_printed(tmp_path, make_folder):
    """Under most locales Python's output refuses them: a command that has done its work would fail at its last line."""
    data = make_folder({"all": 4, os.fsdecode(b"h\xffm"): 4})
    strict = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    done = process("split", data, tmp_path / "parts", "--workers", 1, env=strict, text=False)
    output, errors = done.communicate()
    assert (done.returncode, errors.count(b"Error")) == (0, 0)
    assert output.splitlines()[1].split()[-1] == b"6"


@pytest.mark.parametrize("closed", ["<&- 2>&-", "<&- >&- 2>&-"])
def test_without_standard_streams_the_work_is_done(tmp_path, make_folder, closed):
    """As in a service; a file that is opened must not take the place of a stream."""
    data = make_folder({"all": 4, "hem": 4})
    words = ["split", data, tmp_path / "parts", "--workers", 1, "--json"]
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "customcnn", *map(str, words)],
        stdout=subprocess.PIPE,
    )
    assert done.returncode == 0
    assert not done.stdout if ">&- " in closed else json.loads(done.stdout)["folder"] == str(tmp_path / "parts")
    assert (tmp_path / "parts" / "manifest.csv").read_text().count("\n") == 9


@pytest.mark.parametrize("words", [["models"], ["models", "--json"], ["--help"], ["train", "--help"]])
def test_a_reader_that_leaves_is_no_error(words):
    reader, writer = os.pipe()
    os.close(reader)
    done = process(*words, stdout=writer)
    os.close(writer)
    _, errors = done.communicate()
    assert errors == ""


def test_head(tmp_path):
    command = f"{sys.executable} -m customcnn models | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stdout.startswith("network") and done.stderr == ""


# ---------------------------------------------------------------- Ctrl-C


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c(tmp_path, workers):
    """The terminal sends it to the whole group: the workers end as well, and silently."""
    words = ["samples", "cells", "--subjects", 50, "--cells", 100, "--workers", workers]
    done = process(*words, cwd=tmp_path, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".cells.partial/*/*.bmp")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(done.pid, signal.SIGINT)
    output, errors = done.communicate(timeout=60)  # waits for the last process that holds the streams
    assert (done.returncode, output, errors.strip()) == (130, "", "Stopped.")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("delay", [0, 0.05, 0.2])
def test_ctrl_c_while_the_workers_start(tmp_path, delay):
    """Python is not up yet in them: what it would print is not silenced by what runs in it."""
    words = ["samples", "cells", "--subjects", 50, "--cells", 100, "--workers", 4]
    done = process(*words, cwd=tmp_path, start_new_session=True)
    children = Path(f"/proc/{done.pid}/task/{done.pid}/children")
    if not children.exists():
        pytest.skip("only Linux shows the processes")
    deadline = time.monotonic() + 60
    while len(children.read_text().split()) < 2 and time.monotonic() < deadline:  # Python's resource tracker, a worker
        time.sleep(0.001)
    time.sleep(delay)
    os.killpg(done.pid, signal.SIGINT)
    output, errors = done.communicate(timeout=60)
    assert (done.returncode, output, errors.strip()) == (130, "", "Stopped.")


@pytest.mark.kill
def test_ctrl_c_while_training(tmp_path, make_folder):
    data = make_folder({f"{part}/{label}": 8 for part in ("train", "validation") for label in ("all", "hem")})
    run = tmp_path / "run"
    words = ["train", data, "--model", "small", "--set", "input_size=22", "--epochs", 100_000, "--out", run]
    done = process(*words, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (run / "history.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(done.pid, signal.SIGINT)
    output, errors = done.communicate(timeout=60)
    assert (done.returncode, output) == (130, "")
    assert errors.rstrip().endswith("\nStopped.") and "Traceback" not in errors
    assert (run / "last.keras").exists()


def test_a_name_in_a_table_is_nothing_that_a_terminal_obeys():
    from customcnn.cli.output import table

    lines = table([["class", "images"], ["\x1b]0;OWNED\a\x1b[31mred", 3]]).splitlines()
    assert lines[1].startswith("\\x1b]0;OWNED\\x07")
