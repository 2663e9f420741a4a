"""The program as a process: what it imports, and Ctrl-C before anything else is there."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

HOSTILE = ("signal", "struct", "socket", "select", "json", "tempfile", "click", "numpy", "customcnn_extra")
"""Names of modules that a command imports, and one that no other place has."""


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Return a working directory where each file leaves a mark that is imported."""
    folder = tmp_path / "here"
    folder.mkdir()
    for name in HOSTILE:
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write('{name} ')")
    return folder


def test_the_module_runs_nothing_of_the_working_directory(hostile, make_folder):
    """Neither itself nor its worker processes."""
    cells = make_folder({"a": 4, "b": 4})
    words = ["augment", str(cells), "out", "--count", "8", "--rotate", "5", "--workers", "2"]
    done = run("-m", "customcnn", *words, cwd=hostile)
    assert done.returncode == 0, done.stderr
    assert not (hostile.parent / "ran").exists()


def test_where_the_working_directory_is_gone_the_program_starts(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    code = f"import os, sys; os.rmdir({str(gone)!r}); sys.argv = ['customcnn', 'models']; sys.path[0] = '/nowhere'\n"
    done = run("-c", code + "from customcnn.__main__ import main; main()", cwd=gone)
    assert done.returncode == 0, done.stderr


CTRL_C_AT = """
import signal, sys
class Press:
    def find_spec(self, name, *rest):
        if name == {name!r}:
            sys.meta_path.remove(self)
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Press())
sys.argv = ["customcnn", "models"]
from customcnn.__main__ import main
main()
"""


@pytest.mark.parametrize("name", ["customcnn.cli", "click.core", "customcnn.models.table"])
def test_ctrl_c_while_the_program_starts_is_one_line(tmp_path, name):
    done = run("-c", CTRL_C_AT.format(name=name), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.strip() == "Stopped."
