"""Downloads: Kaggle is not reached from here, so a server of our own stands in for it, and its silence is tried too."""

import http.server
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
import tomllib
import zipfile
from pathlib import Path

import pytest

from customcnn.data.download import SOURCES, manual_steps, next_command

ROOT = Path(__file__).parents[2]
each_source = pytest.mark.parametrize("name", SOURCES)


def run(tmp_path, *words, **environment):
    """Run `customcnn download` in a process of its own, far from the user's own cache and tokens."""
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    kept = {key: value for key, value in os.environ.items() if not key.upper().endswith("_PROXY")}
    secrets = [key for key in kept if key.startswith("KAGGLE")]
    for key in secrets:
        del kept[key]
    return subprocess.run(
        [sys.executable, "-m", "customcnn", "download", *map(str, words)],
        env={**kept, "HOME": str(home), "KAGGLEHUB_CACHE": str(home / "cache"), "NO_COLOR": "1", **environment},
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )


# ---------------------------------------------------------------- what is known of the data sets


@each_source
def test_sources_agree_with_the_table_of_facts(name):
    facts = tomllib.loads((ROOT / "data_tools" / "facts.toml").read_text())[name]
    source = SOURCES[name]
    assert (source.kaggle, source.licence, source.home or source.page) == (
        facts["kaggle"],
        facts["licence"],
        facts["source"],
    )
    assert (ROOT / "data_tools" / source.script).is_file()


@each_source
def test_steps_by_hand_are_numbered_and_name_the_page_and_the_command(name):
    steps = manual_steps(name, Path("two words"))
    assert [step.partition(". ")[0] for step in steps] == ["1", "2", "3", "4"]
    assert SOURCES[name].page in steps[0]
    assert steps[2].endswith("-d 'two words'")
    assert next_command(name, Path("two words")) in steps[3]


# ---------------------------------------------------------------- where it fails


def closed_port():
    """Return a port on which nothing listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@each_source
def test_without_an_answer_there_is_one_error_and_the_steps(tmp_path, name):
    pytest.importorskip("kagglehub")
    nobody = f"http://127.0.0.1:{closed_port()}"
    started = time.monotonic()
    done = run(tmp_path, name, "archive", HTTPS_PROXY=nobody, HTTP_PROXY=nobody)
    assert time.monotonic() - started < 30
    assert (done.returncode, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    assert lines[0].endswith(SOURCES[name].page)
    assert lines[1] == (
        "Error: Kaggle answers in some seconds. Received: none from https://api.kaggle.com (ProxyError). "
        "Check the connection, or fetch the data by hand."
    )
    assert lines[2:] == manual_steps(name, Path("archive"))
    assert [path.name for path in tmp_path.iterdir()] == ["home"], "nothing half-written is left"


def test_without_kagglehub_it_says_what_to_install(tmp_path):
    (tmp_path / "kagglehub.py").write_text("raise ImportError('not here', name='kagglehub')\n")
    done = run(tmp_path, "cnmc", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.splitlines()[1] == (
        "Error: Downloads need kagglehub. Received: an environment without it (kagglehub). "
        "Run pip install 'customcnn[download]', or fetch the data by hand."
    )
    assert done.stderr.splitlines()[2:] == manual_steps("cnmc")


def test_a_destination_with_something_in_it_is_refused_before_anything_is_asked(tmp_path):
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "mine.txt").write_text("x")
    done = run(tmp_path, "cnmc", "archive")
    assert done.returncode == 1
    assert done.stderr.splitlines()[1].endswith("archive' is not empty. Use --replace to write over it.")
    assert (tmp_path / "archive" / "mine.txt").is_file()


# ---------------------------------------------------------------- where Kaggle answers: a server that stands in for it


class Kaggle(http.server.BaseHTTPRequestHandler):
    """Answers as Kaggle does for a data set of one file; `status` other than 200 refuses it."""

    status = 200
    data = b""

    def do_HEAD(self):
        self.answer(200, b"", "text/html")

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).asked.append((self.path.rpartition("/")[2], asked.get("ownerSlug"), asked.get("datasetSlug")))
        if self.status != 200:
            self.answer(self.status, json.dumps({"code": self.status, "message": "no"}).encode(), "application/json")
        elif self.path.endswith("GetDataset"):
            self.answer(200, json.dumps({"currentVersionNumber": 3}).encode(), "application/json")
        else:
            self.answer(200, self.data, "application/zip")

    def answer(self, status, data, kind):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def kaggle():
    """Return a class of requests and the environment that leads kagglehub to it: its "localhost", by way of a proxy."""
    pytest.importorskip("kagglesdk")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("images/TRAIN/EOSINOPHIL/_0_1.jpeg", b"a picture")
    handler = type("Handler", (Kaggle,), {"data": archive.getvalue(), "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    proxy = f"http://127.0.0.1:{server.server_port}"
    yield handler, {"KAGGLE_API_ENVIRONMENT": "LOCALHOST", "HTTP_PROXY": proxy, "http_proxy": proxy}
    server.shutdown()
    server.server_close()


def test_what_kaggle_sends_is_unpacked_and_the_next_command_printed(tmp_path, kaggle):
    handler, environment = kaggle
    done = run(tmp_path, "blood-cells", "archive", **environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "Fetched: archive",
        "Next, in a checkout of customcnn: python data_tools/blood_cells.py prepare archive cells",
    ]
    assert done.stderr.splitlines() == [f"Blood Cell Images, MIT: {SOURCES['blood-cells'].page}"]
    found = [path for path in (tmp_path / "archive").rglob("*") if path.is_file()]
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["archive/images/TRAIN/EOSINOPHIL/_0_1.jpeg"]
    assert found[0].read_bytes() == b"a picture"
    assert [path.name for path in (tmp_path / "archive").iterdir()] == ["images"]
    assert handler.asked == [
        ("GetDataset", "paultimothymooney", "blood-cells"),
        ("DownloadDataset", "paultimothymooney", "blood-cells"),
    ]


def test_without_a_destination_it_lies_in_kagglehubs_cache(tmp_path, kaggle):
    done = run(tmp_path, "cnmc", **kaggle[1])
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.splitlines()[0].removeprefix("Fetched: "))
    assert folder.is_relative_to(tmp_path / "home" / "cache")
    assert [path.name for path in folder.rglob("*.jpeg")] == ["_0_1.jpeg"]
    assert done.stdout.splitlines()[1].endswith(f"python data_tools/cnmc.py prepare {folder} cells")


@pytest.mark.parametrize(("status", "data"), [(403, b""), (404, b""), (500, b""), (200, b"no archive")])
def test_a_refusal_is_one_line_with_the_steps_and_leaves_nothing(tmp_path, kaggle, status, data):
    handler, environment = kaggle
    handler.status, handler.data = status, data
    done = run(tmp_path, "blood-cells", "archive", **environment)
    assert (done.returncode, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    assert lines[1].startswith("Error: Kaggle sends paultimothymooney/blood-cells. Received: ")
    assert lines[1].endswith("Try again, or fetch the data by hand.")
    assert lines[2:] == manual_steps("blood-cells", Path("archive"))
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
