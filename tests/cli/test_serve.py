"""The command serve: its address, its beginning and its end, and what a process of its own does not do."""

import json
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from customcnn.inference.classifier import Classifier
from customcnn.runs.run_dir import RunDir
from tests.support.commands import error_line
from tests.support.served import GOOD, TYPE, image_files, in_process, in_thread, multipart, saved_run

pytest.importorskip("gradio")

from customcnn.serve import SILENT, quiet_environment
from customcnn.serve.limits import Limits, is_loopback
from customcnn.serve.listener import listen, url

LISTENING = """
import os, sys
def heard(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        with open(os.environ["ASKED"], "a") as file:
            file.write(f"{event} {arguments}\\n")
sys.addaudithook(heard)
"""
"""A sitecustomize.py that writes down which machines a process asks for."""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunDir:
    return saved_run(tmp_path_factory.mktemp("serve") / "run")


def test_addresses():
    assert is_loopback("127.0.0.1") and is_loopback("::1") and is_loopback("localhost")
    assert not is_loopback("0.0.0.0") and not is_loopback("example.org")
    assert (
        Limits.of("127.0.0.1").rate == 0 and Limits.of("0.0.0.0").rate == 600 and Limits.of("0.0.0.0", rate=0).rate == 0
    )
    with listen("127.0.0.1", 0) as listener:
        assert url(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert listener.proto == socket.IPPROTO_TCP, "asyncio would wait with every answer for the client's word"


def test_an_address_in_use_or_of_another_machine_is_one_line(run, shell):
    with listen("127.0.0.1", 0) as listener:
        for host, port in (("127.0.0.1", listener.getsockname()[1]), ("192.0.2.1", 0)):
            message = error_line(*shell("serve", run.path, "--host", host, "--port", port))
            assert message.startswith("--host and --port name a free address ")


def test_a_missing_package_is_one_line(run, shell, monkeypatch):
    monkeypatch.setattr("customcnn.serve.NEEDS", ("json", "no_such_package"))
    assert "pip install 'customcnn[serve]'" in error_line(*shell("serve", run.path))


def test_what_keeps_it_silent_is_set_for_a_while(monkeypatch):
    monkeypatch.setenv("GRADIO_WATCH_DIRS", "x")
    before = dict(os.environ)
    with quiet_environment() as folder:
        assert SILENT.items() <= os.environ.items() and os.environ["GRADIO_TEMP_DIR"] == str(folder)
        assert "GRADIO_WATCH_DIRS" not in os.environ
    assert dict(os.environ) == before and not folder.exists()


@pytest.mark.browser
@pytest.mark.kill
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(
    ("number", "status", "options"), [(signal.SIGINT, 130, ()), (signal.SIGTERM, 143, ("--no-page",))]
)
def test_it_starts_and_ends_cleanly(run, tmp_path, monkeypatch, number, status, options):
    (tmp_path / "sitecustomize.py").write_text(LISTENING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("ASKED", str(tmp_path / "asked.txt"))
    with in_process(run, *options, home=tmp_path) as (client, process, folder):
        assert client.get("/healthz").status == 200
        assert (b"gradio-app" in client.get("/").body) == (not options)
        assert client.predict([("a.png", GOOD)]).status == 200
        process.send_signal(number)
        assert process.wait(60) == status
        assert not list(folder.iterdir())
    asked = (tmp_path / "asked.txt").read_text().splitlines()
    assert asked and [line for line in asked if "'127.0.0.1'" not in line] == [], "another machine is asked"
    log = (tmp_path / "log.txt").read_text()
    assert "Traceback" not in log and "Serving" in log.splitlines()[0]
    assert number != signal.SIGINT or log.endswith("Stopped.\n")


@pytest.mark.browser
def test_the_page_opens_no_file_and_no_address_that_a_client_names(run, tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(GOOD)
    with in_process(run, home=tmp_path) as (client, _, folder):
        events = client.get("/config").json["dependencies"]
        dropped = next(event["id"] for event in events if event["targets"][0][1] == "upload")

        def ask(path: str) -> str:
            files = [{"path": path, "url": path, "orig_name": "a.png", "meta": {"_type": "gradio.FileData"}}]
            body = json.dumps({"data": [files], "fn_index": dropped, "session_hash": "s"}).encode()
            headers = {"content-type": "application/json"}
            assert client.ask("POST", "/gradio_api/queue/join", body, headers).status == 200
            return client.get("/gradio_api/queue/data?session_hash=s").body.decode()

        for path in (str(secret), f"http://127.0.0.1:{client.port}/favicon.ico", "../secret.png"):
            assert "no longer here" in ask(path), path
        (name,) = client.ask(
            "POST", "/gradio_api/upload", multipart([("a.png", GOOD)], "files"), {"content-type": TYPE}
        ).json
        assert "cc-card" in ask(name) and "no longer here" in ask(name), "each is there once"
        assert not [path for path in folder.rglob("*") if path.is_file()]
        large = json.dumps({"data": ["x" * 1_100_000]}).encode()
        assert client.ask("POST", "/gradio_api/queue/join", large, {"content-type": "application/json"}).status in (
            400,
            413,
        )
        refused = client.ask(
            "POST", "/gradio_api/upload", multipart([("a.png", bytes(21_000_000))], "files"), {"content-type": TYPE}
        )
        assert refused.status == 413 and b"at most 20 MB" in refused.body


@pytest.mark.browser
def test_the_page_keeps_nothing_of_a_visit(run):
    with quiet_environment():
        from customcnn.serve.app import build_app
        from customcnn.serve.middleware import Guard
        from customcnn.serve.page import add_page
        from customcnn.serve.service import Service

        service = Service(Classifier(run), Limits())
        app = build_app(service)
        add_page(app, service, None, print)
        inside = app.routes[-1].app
        with in_thread(Guard(app, host="127.0.0.1")) as client:
            clicked = next(e for e in client.get("/config").json["dependencies"] if e["targets"][0][1] == "click")
            for session in "ab":
                body = json.dumps({"data": [], "fn_index": clicked["id"], "session_hash": session}).encode()
                client.ask("POST", "/gradio_api/queue/join", body, {"content-type": "application/json"})
                assert "drawn_all_1.png" in client.get(f"/gradio_api/queue/data?session_hash={session}").body.decode()
            assert not inside.state_holder.session_data and not inside.iterators
            assert not any(inside.get_blocks().pending_diff_streams.values())
        service.close()


@pytest.mark.browser
def test_an_export_answers_without_keras(run, tmp_path):
    pytest.importorskip("openvino")
    from customcnn.export import export

    files = image_files(tmp_path)
    expected = {name: Classifier(run, runtime="keras").predict([path])[0].as_dict() for name, path in files.items()}
    export(run)
    try:
        with in_process(run, "--no-page", home=tmp_path) as (client, process, _):
            assert client.get("/healthz").json["runtime"] == "openvino"
            maps = Path(f"/proc/{process.pid}/maps")
            for name, path in files.items():
                found = client.predict([(name, path.read_bytes())]).json["predictions"][0]
                shares = expected[name]["probabilities"]
                assert found["probabilities"] == pytest.approx(shares, abs=1e-4)
            assert not maps.is_file() or "libtensorflow" not in maps.read_text()
    finally:
        for path in run.path.glob("*.openvino.*"):
            path.unlink()
