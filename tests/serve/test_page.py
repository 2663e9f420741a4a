"""The page's own addresses: what Gradio answers there, to whom, and what it forgets."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from customcnn.inference.classifier import Classifier
from tests.support.served import GOOD, SMALL, TYPE, Client, Reply, multipart, saved_run, serving

pytest.importorskip("gradio")

from customcnn.serve.service import Service


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[tuple[Client, list[str]]]:
    run = saved_run(tmp_path_factory.mktemp("serve") / "run")
    with serving(Classifier(run), SMALL, page=True) as found:
        yield found


@pytest.fixture
def client(served) -> Iterator[Client]:
    """A client, at whose end the log tells of no fault of ours."""
    client, log = served
    log.clear()
    yield client
    assert not [line for line in log if "Error" in line]


def join(client: Client, **body: Any) -> Reply:
    """Ask for what the page asks for; the first function is that of the field."""
    whole = {"session_hash": "a-visit", "fn_index": 0, "data": [[]], **body}
    return client.ask(
        "POST", "/gradio_api/queue/join", json.dumps(whole).encode(), {"content-type": "application/json"}
    )


def drop(client: Client, session: str) -> None:
    """Drop an image, and ask about it."""
    reply = client.ask("POST", "/gradio_api/upload", multipart([("a.png", GOOD)], "files"), {"content-type": TYPE})
    files = [{"path": name, "meta": {"_type": "gradio.FileData"}} for name in reply.json]
    assert join(client, session_hash=session, data=[files]).status == 200


def fetched(client: Client, session: str) -> str:
    """Return what waits for a visit."""
    return client.get(f"/gradio_api/queue/data?session_hash={session}").body.decode()


def test_an_answer_is_fetched(client):
    drop(client, "reads")
    answer = fetched(client, "reads")
    assert "process_completed" in answer and "a.png" in answer and "Grad-CAM of" in answer


def test_an_answer_that_nobody_fetches_is_forgotten(client, monkeypatch):
    monkeypatch.setattr("customcnn.serve.answer_queue.SECONDS", 1, raising=False)
    drop(client, "never-reads")
    time.sleep(1.6)
    answer = fetched(client, "never-reads")
    assert "session_not_found" in answer and "a.png" not in answer


def test_a_fault_of_ours_is_one_line(client, served, monkeypatch, capfd):
    monkeypatch.setattr(Service, "predict", lambda *_, **__: 1 / 0)
    drop(client, "a-fault")
    assert "Something went wrong here" in fetched(client, "a-fault")
    assert any(line.startswith("Error: ZeroDivisionError at the page") for line in served[1])
    assert "Traceback" not in capfd.readouterr().err
    served[1].clear()


def test_what_the_page_does_not_ask_is_refused(client):
    for body in (
        {"fn_index": 77},
        {"fn_index": -1},
        {"fn_index": None},
        {"data": []},
        {"data": [1, 2, 3]},
        {"session_hash": "x" * 500},
        {"session_hash": ""},
        {"session_hash": None},
        {"data": "x"},
        {"data": ["x"]},
        {"data": [[{"path": "/etc/passwd"}]]},
        {"data": [{"a": 1}]},
    ):
        reply = join(client, **body)
        assert 400 <= reply.status < 500, (body, reply)


@pytest.mark.parametrize("path", ["/static/", "/assets/", "/svelte/", "/"])
def test_a_long_address_is_refused(client, path):
    for name in ("x" * 5000, "x" * 200, "%F0%9F%98%80" * 200):
        assert client.get(path + name).status == 404


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/?deep_link=abc", {}, 200),
        ("/config?deep_link=%00&page=%00", {}, 200),
        ("/", {"x-forwarded-host": "a b:c:d"}, 400),
        ("/", {"x-forwarded-host": "cells.example, 999.999.999.999"}, 400),
        ("/", {"x-forwarded-host": "[:]"}, 400),
        ("/", {"x-forwarded-host": "cells.example:8443"}, 200),
        ("/", {"x-forwarded-proto": "x y,z"}, 200),
        ("/", {"x-gradio-server": "x y"}, 200),
        ("/", {"host": "localhost:abc"}, 400),
        ("/", {"host": "localhost:99999"}, 200),
        ("/", {"host": "["}, 400),
        ("/", {"host": "[::1"}, 400),
        ("/config", {"host": "localhost:99999999"}, 400),
        ("/", {"cookie": "access-token=1; x=\x01"}, 200),
        ("/", {"accept-language": "\xff" * 99}, 200),
        ("/static/%00", {}, 404),
        ("/static/..%2f..%2fetc%2fpasswd", {}, 403),
        ("/static/img", {}, 403),
        ("/assets/", {}, 400),
        ("/gradio_api/queue/data", {}, 422),
        ("/gradio_api/upload_progress", {}, 200),
        ("/pwa_icon/9999", {}, 404),
        ("/gradio_api/heartbeat/x", {}, 404),
        ("/static/img/logo.svg", {"range": "bytes=9-1"}, 400),
        ("/static/img/logo.svg", {"range": "bytes=" + ",".join(f"{n}-{n}" for n in range(500))}, {200, 206}),
        ("/static/img/logo.svg", {"if-range": "\xff", "range": "bytes=0-1"}, 200),
        ("/gradio_api/info?serialize=x&all_endpoints=x", {}, 200),
    ],
)
def test_odd_requests_are_no_fault_of_ours(client, path, headers, status):
    reply = client.get(path, **headers)
    assert reply.status in (status if isinstance(status, set) else {status}), reply.body[:300]


@pytest.mark.parametrize("path", ["/gradio_api/queue/join", "/gradio_api/cancel", "/gradio_api/reset"])
@pytest.mark.parametrize("body", [b"", b"\xff", b"{", b"[]", b'{"session_hash": 1}', b"[" * 100_000, b'"\\ud800"'])
def test_odd_bodies_are_no_fault_of_ours(client, path, body):
    for kind in ("application/json", "text/plain", "multipart/form-data"):
        assert 400 <= client.ask("POST", path, body, {"content-type": kind}).status < 500


def test_each_address_says_which_methods_it_answers(client):
    for path, wanted in (("/predict", "POST"), ("/healthz", "GET, HEAD"), ("/gradio_api/queue/join", "POST")):
        reply = client.ask("PUT", path, b"")
        assert reply.status == 405 and reply.headers["allow"] == wanted and reply.json["detail"]
    assert client.get("/predict").status == 405
    assert client.ask("HEAD", "/healthz", b"").status == 200
    assert client.ask("OPTIONS", "/config", b"").status == 405


def test_the_docs_name_the_port(client):
    assert f"curl -F file=@cell.bmp http://127.0.0.1:{client.port}/predict" in client.get("/docs").body.decode()


OWN_PORT = "http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"origin": OWN_PORT}, True),
        ({"origin": OWN_PORT, "sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "none", "sec-fetch-mode": "navigate"}, True),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, True),
        ({"origin": "http://127.0.0.1:8000"}, False),
        ({"origin": "http://localhost:8000", "sec-fetch-site": "same-site"}, False),
        ({"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"}, False),
        ({"origin": "null"}, False),
        ({"origin": "https://evil.example"}, False),
    ],
)
def test_pages_of_other_addresses_are_kept_off(client, headers, allowed):
    headers = {name: value.format(port=client.port) for name, value in headers.items()}
    for path in ("/config", "/", "/healthz"):
        reply = client.get(path, **headers)
        assert reply.status == (200 if allowed else 403)
        assert not [name for name in reply.headers if name.startswith("access-control-")]
        assert reply.headers["cross-origin-resource-policy"] == "same-origin"


def test_a_link_of_another_page_sends_nothing(client):
    headers = {"content-type": TYPE, "sec-fetch-site": "same-site", "sec-fetch-mode": "navigate"}
    for path in ("/predict", "/gradio_api/upload"):
        assert client.ask("POST", path, multipart([("a.png", GOOD)]), headers).status == 403
