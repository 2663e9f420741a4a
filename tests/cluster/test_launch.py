"""`customcnn launch`: a job of real processes on a Ray cluster of two nodes, and what is killed in its middle."""

import json
import subprocess
import sys
import tempfile
from importlib.util import find_spec

import pytest
from click.testing import CliRunner

from customcnn.cli import cli
from customcnn.cluster.ray_cluster import first_line
from tests.backend.test_jax_processes import SMALL, parts, same_training  # noqa: F401
from tests.support import ROOT
from tests.support.commands import error_line
from tests.support.jobs import alone, apart, environment, finish, start

# Not importorskip: Ray looks at the environment when it is imported, and other tests of this process set it.
pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="needs ray")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["--nodes", "2", "--", "evaluate", "run"], "launch starts customcnn train. Received: evaluate."),
        (["--nodes", "2", "--", "train", "parts", "--rank", "1"], "Received: --rank."),
        (["--nodes", "2", "--", "train", "parts", "--replace", "--world=3"], "Received: --replace, --world."),
        (["--nodes", "0", "--", "train", "parts"], "0 is not in the range"),
        (["--", "train", "parts"], "Missing option '--nodes'"),
        (["--nodes", "2"], "Missing argument"),
    ],
)
def test_wrong_usage(line, message):
    found = CliRunner().invoke(cli, ["launch", *line])
    assert found.exit_code == 2
    assert message in found.output


def test_a_cluster_that_does_not_answer_is_one_line(tmp_path):
    found = alone("launch", "--nodes", 2, "--on", "127.0.0.1:1", "--", "train", tmp_path)
    message = error_line(found.returncode, found.stdout, found.stderr)
    assert message.startswith("A Ray cluster answers at --on. Received: '127.0.0.1:1'")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("it is down\nand out", "OSError: it is down"),
        (
            "Failure of the server:\n  Traceback:\n    TimeoutError: 30 s\n",
            "OSError: Failure of the server: TimeoutError: 30 s",
        ),
        ("", "OSError"),
    ],
)
def test_an_error_of_ray_in_one_line(text, line):
    assert first_line(OSError(text)) == line


def launched(kill, run, *words):
    line = [sys.executable, "-m", "tests.programs.launch_and_kill", kill, run, *words, "--out", run]
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:  # Ray wants a short name
        found = subprocess.run(
            apart(line),
            env=environment(RAY_TMPDIR=folder),
            capture_output=True,
            text=True,
            timeout=400,
            cwd=ROOT,
        )
    assert found.returncode == 0, found.stderr
    report = json.loads(found.stdout.splitlines()[-1])
    assert report["left"] == 0  # processes of the job
    return report


EPOCHS = ("--epochs", "15")  # enough of them to be met in their middle


@pytest.fixture(scope="module")
def unbroken(parts, tmp_path_factory):  # noqa: F811
    """Return the run of two processes that nobody disturbed."""
    run = tmp_path_factory.mktemp("unbroken") / "run"
    found = finish(start("train", parts, *SMALL, *EPOCHS, "--out", run))
    assert [status for status, _, _ in found] == [0, 0], found
    return run


@pytest.mark.ray
@pytest.mark.kill
@pytest.mark.parametrize("kill", ["node", "command"])
def test_a_job_comes_to_its_end_whatever_is_lost(parts, unbroken, tmp_path, kill):  # noqa: F811
    run = tmp_path / "run"
    report = launched(kill, run, "train", parts, *SMALL, *EPOCHS)
    assert report["status"] == 0, report
    assert report["ranks"] == 2
    assert "Best epoch" in report["printed"] and "Traceback" not in report["told"]
    assert ("All start again from the last checkpoint, 1 of 3 times." in report["told"]) == (kill != "command")
    assert "Resuming after epoch" in report["told"]
    same_training(run, unbroken)


@pytest.mark.ray
def test_an_error_of_the_command_is_not_tried_again(parts, tmp_path):  # noqa: F811
    report = launched("nothing", tmp_path / "run", "train", parts, *SMALL, "--set", "ema=0.9")
    assert (report["status"], report["printed"]) == (1, "")
    assert report["told"].splitlines()[-1].startswith("Error: Several processes train without ema")
    assert "start again" not in report["told"]
    assert not (tmp_path / "run").exists()
