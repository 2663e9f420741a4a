"""The server: its answers are those of predict, and whatever comes in, it says in one line what is wrong with it."""

import asyncio
import json
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from customcnn.cli import main
from customcnn.inference.classifier import Classifier
from customcnn.runs.run_dir import RunDir
from tests.support.served import (
    GOOD,
    SMALL,
    TYPE,
    Client,
    Reply,
    bomb,
    image_files,
    multipart,
    png,
    same,
    saved_run,
    serving,
)

pytest.importorskip("gradio")

from customcnn.serve.limits import Limits, Rate, Refused
from customcnn.serve.middleware import is_known
from customcnn.serve.multipart import plain_name
from customcnn.serve.service import Service


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunDir:
    return saved_run(tmp_path_factory.mktemp("serve") / "run")


@pytest.fixture(scope="module")
def classifier(run) -> Classifier:
    return Classifier(run)


@pytest.fixture(scope="module")
def served(classifier) -> Iterator[tuple[Client, list[str]]]:
    with serving(classifier) as found:
        yield found


@pytest.fixture(scope="module")
def client(served) -> Client:
    return served[0]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    return image_files(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def expected(classifier, files) -> dict[str, dict]:
    """What predict says of them, by name."""
    return {name: classifier.predict([path])[0].as_dict() for name, path in files.items()}


def refusal(reply: Reply, status: int) -> str:
    """Return the line of a refusal of that status."""
    assert reply.status == status, reply.body
    assert reply.headers["content-type"] == "application/json"
    line = reply.json["detail"]
    assert line and "\n" not in line
    return line


# ---------------------------------------------------------------- answers


def test_each_image_is_answered_as_predict_answers_it(client, files, expected):
    for name, path in files.items():
        reply = client.predict([(name, path.read_bytes())])
        assert reply.status == 200 and list(reply.json) == ["predictions", "warnings", "notes"]
        assert same(reply.json["predictions"][0], expected[name]), name


def test_both_verdicts_are_in_these_tests(expected):
    assert {found["sure"] for found in expected.values()} == {True, False}


def test_the_json_is_that_of_the_command(client, run, files, capsys):
    name, path = next(iter(files.items()))
    with pytest.raises(SystemExit):
        main(["predict", str(run.path), str(path), "--json"])
    told = json.loads(capsys.readouterr().out)["predictions"][0]
    assert same(client.predict([(name, path.read_bytes())]).json["predictions"][0], told)


def test_several_images_come_back_in_their_order(client, files, expected):
    names = list(files)[4:9]
    reply = client.predict([(name, files[name].read_bytes()) for name in names])
    assert [found["file"] for found in reply.json["predictions"]] == names
    assert all(same(found, expected[name]) for found, name in zip(reply.json["predictions"], names, strict=True))
    assert reply.json["notes"] == ["Note: converted to 8-bit RGB: 1 of mode L."]
    assert reply.json["warnings"] == ["Drawn cells, not patients: this score says nothing about leukemia."]


def test_many_at_once_get_the_answers_of_one(client, files, expected):
    names = [*files] * 4
    with ThreadPoolExecutor(20) as pool:
        replies = pool.map(lambda name: client.predict([(name, files[name].read_bytes())]), names)
        assert all(same(r.json["predictions"][0], expected[n]) for n, r in zip(names, replies, strict=True))


def test_what_looks_like_none_of_the_known_images_is_said(client):
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    found = client.predict([("noise.png", png(noise))]).json["predictions"][0]
    assert found["novel"] is True and found["novelty"] > 1


def test_without_calibration_nothing_is_said_about_it(tmp_path, files):
    with serving(Classifier(saved_run(tmp_path / "plain", calibrated=False))) as (client, _):
        reply = client.predict([("a.png", files["cell 0.png"].read_bytes())])
    assert list(reply.json["predictions"][0]) == ["file", "label", "probabilities"]


def test_health_docs_and_report(client, run):
    assert client.get("/healthz").json == {
        "status": "ok",
        "model": "small",
        "classes": ["all", "hem"],
        "runtime": "keras",
        "version": client.get("/openapi.json").json["info"]["version"],
    }
    assert "customcnn report" in refusal(client.get("/report"), 404)
    run.report.write_text("<p>the report ä</p>", "utf-8")
    try:
        reply = client.get("/report")
        assert reply.status == 200 and reply.body.decode() == "<p>the report ä</p>"
    finally:
        run.report.unlink()


def test_the_docs_describe_the_api_and_load_nothing(client):
    description = client.get("/openapi.json").json
    assert set(description["paths"]) == {"/predict", "/healthz", "/report"}
    content = description["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert list(content) == ["multipart/form-data"]
    page = client.get("/docs").body.decode()
    assert "POST /predict" in page and "probabilities" in page and "not-a-medical" not in page
    assert "<script" not in page and not re.search(r"(?:src|href)=\"(?!/|#|data:)", page)


def test_every_answer_keeps_the_browser_here(client):
    for path in ("/healthz", "/docs", "/nothing"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'self';")
        assert headers["x-content-type-options"] == "nosniff" and "server" not in headers


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "an empty file"),
        (b"this is no image", "not an image"),
        (GOOD[:200], "damaged"),
        (bomb(), "pixels"),
        (bomb(9000), "pixels"),
        (b"%PDF-1.7 something", "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
    ],
)
def test_what_is_no_image_is_refused(client, data, why):
    reply = client.predict([("x.png", data)])
    assert why in refusal(reply, 422) and "'x.png'" in reply.json["detail"]
    assert [bad["file"] for bad in reply.json["images"]] == ["x.png"]


def test_one_bad_image_and_none_is_answered(client):
    reply = client.predict([("a.png", GOOD), ("b.png", b"no"), ("c.png", b"")])
    assert refusal(reply, 422).endswith("And 1 more.")
    assert [bad["file"] for bad in reply.json["images"]] == ["b.png", "c.png"]


def test_size_and_number_are_limited(client):
    assert "at most 0.2 MB" in refusal(client.predict([("large.png", bytes(200_001))]), 413)
    assert "at most 5 images" in refusal(client.predict([("a.png", GOOD)] * 6), 413)
    assert "at most 1 MB" in refusal(client.predict([("a.png", bytes(150_000))] * 10), 413)
    assert client.predict([("exact.png", bytes(200_000))]).status == 422, "so large it may be"


def test_a_body_of_unknown_length_is_counted(client):
    def pieces(count: int) -> Iterator[bytes]:
        yield multipart([("a.png", b"")], end=False)[:-2]
        for _ in range(count):
            yield bytes(50_000)

    headers = {"content-type": TYPE, "transfer-encoding": "chunked"}
    assert "at most 0.2 MB" in refusal(client.ask("POST", "/predict", pieces(8), headers), 413)
    one = (part for part in (multipart([("a.png", GOOD)])[:100], multipart([("a.png", GOOD)])[100:]))
    assert client.ask("POST", "/predict", one, headers).status == 200


def test_who_waits_for_a_word_is_refused_before_the_body(client):
    with socket.create_connection(("127.0.0.1", client.port)) as connection:
        head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {TYPE}\r\nContent-Length: 30000000\r\n"
        connection.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_drips_is_refused(client, monkeypatch):
    monkeypatch.setattr("customcnn.serve.multipart.IDLE", 0.3)
    monkeypatch.setattr("customcnn.serve.multipart.LEAST_RATE", 10**6, raising=False)
    monkeypatch.setattr("customcnn.serve.middleware.SMALL_SECONDS", 0.3, raising=False)

    def drips() -> Iterator[bytes]:
        yield multipart([("a.png", b"")], end=False)[:-2]
        for _ in range(20):
            time.sleep(0.1)
            yield bytes(100)

    headers = {"content-type": TYPE, "transfer-encoding": "chunked"}
    for path in ("/predict", "/gradio_api/queue/join"):
        assert "Received" in refusal(client.ask("POST", path, drips(), headers), 408)


@pytest.mark.parametrize(
    "kind", ["application/json", "image/png", "text/plain", "multipart/form-data", "", "multipart/mixed; boundary=x"]
)
def test_other_types_are_refused(client, kind):
    reply = client.ask("POST", "/predict", multipart([("a.png", GOOD)]), {"content-type": kind} if kind else {})
    assert "multipart/form-data" in refusal(reply, 415)


def test_other_bodies_are_refused(client):
    def send(body: bytes) -> Reply:
        return client.ask("POST", "/predict", body, {"content-type": TYPE})

    assert "'picture'" in refusal(send(multipart([("a.png", GOOD)], "picture")), 422)
    assert "whole" in refusal(send(multipart([("a.png", GOOD)], end=False)), 400)
    assert "whole" in refusal(send(b""), 400)
    assert "whole" in refusal(send(b"not multipart at all" * 50), 400)
    assert "fields" in refusal(send(multipart([("", b"")] * 1001, "x")), 413)
    assert refusal(client.ask("PUT", "/predict", b""), 405)
    assert refusal(client.get("/predict"), 405)


@given(st.binary(max_size=400), st.integers(0, 400), st.booleans())
def test_no_body_breaks_it(client, junk, place, good):
    body = multipart([("a.png", GOOD if good else b"x")])
    body = body[:place] + junk + body[place:]
    reply = client.ask("POST", "/predict", body, {"content-type": TYPE})
    assert reply.status in (200, 400, 413, 422)
    assert reply.status == 200 or refusal(reply, reply.status)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("../../../etc/passwd", "passwd"),
        ("C:\\cells\\a.png", "a.png"),
        ("/absolute/cell.png", "cell.png"),
        ("..", "image 1"),
        ("", "image 1"),
        ("a\tb.png", "a\\tb.png"),
        ("nul\0.png", "nul\\x00.png"),
        ("<script>alert(1)<b>.png", "<script>alert(1)<b>.png"),
        ("Zelle ä 細胞.png", "Zelle ä 細胞.png"),
        ("rtl\u202egnp.exe", "rtl\\u202egnp.exe"),
        ("x" * 500, "x" * 119 + "…"),
    ],
)
def test_names_are_only_names(client, given, shown):
    assert plain_name(given, 1) == shown
    if "\0" not in given:
        assert client.predict([(given, GOOD)]).json["predictions"][0]["file"] == shown


def test_there_is_nothing_else(client):
    paths = ["/nothing", "/report/../../etc/passwd", "/predict/", "/file=/etc/passwd", "/gradio_api/file=/etc/passwd"]
    paths += ["/gradio_api/proxy=https://example.com", "/gradio_api/runs", "/monitoring", "/gradio_api/vibe-edit"]
    for path in paths:
        assert "nothing here" in refusal(client.get(path), 404) and not is_known(path)


def test_only_this_machines_names_are_answered(client):
    assert client.get("/healthz", host="localhost:1").status == 200
    assert client.get("/healthz", host="[::1]:1").status == 200
    assert "127.0.0.1" in refusal(client.get("/healthz", host="evil.example"), 400)
    assert "other sites" in refusal(client.predict([("a.png", GOOD)], **{"sec-fetch-site": "cross-site"}), 403)


def test_the_rate_is_limited(classifier):
    with serving(classifier, Limits(rate=3)) as (client, _):
        replies = [client.predict([("a.png", GOOD)]) for _ in range(4)]
        assert [reply.status for reply in replies] == [200, 200, 200, 429]
        assert 0 < int(replies[3].headers["retry-after"]) <= 21
        assert client.get("/healthz").status == 200, "what makes no work is not counted"


def test_a_rate_by_hand():
    now = [0.0]
    rate = Rate(60, lambda: now[0])
    assert [rate.seconds_to_wait("a") for _ in range(60)] == [0] * 60
    assert rate.seconds_to_wait("a") == pytest.approx(1)
    assert rate.seconds_to_wait("b") == 0
    now[0] = 0.5
    assert rate.seconds_to_wait("a") == pytest.approx(0.5)
    now[0] = 1.0
    assert rate.seconds_to_wait("a") == 0


def test_the_log_has_no_names(classifier):
    with serving(classifier) as (client, log):
        client.predict([("patient-meier.png", GOOD)])
        client.predict([("patient-meier.png", b"broken")])
        client.get("/patient-meier.png")
    assert len(log) == 3 and not [line for line in log if "meier" in line]
    assert re.fullmatch(r"\d\d:\d\d:\d\d POST /predict 200 \d+ ms", log[0])
    assert "422" in log[1] and "GET an unknown address 404" in log[2]


def test_a_fault_of_our_own_is_one_line_too(classifier, monkeypatch):
    with serving(classifier) as (client, log):
        monkeypatch.setattr(Service, "predict", lambda *_: 1 / 0)
        assert "log" in refusal(client.predict([("a.png", GOOD)]), 500)
        monkeypatch.undo()
        assert client.predict([("a.png", GOOD)]).status == 200
    assert log[0].startswith("Error: ZeroDivisionError at POST /predict")


def test_large_bodies_wait_for_a_place(classifier, monkeypatch):
    monkeypatch.setattr("customcnn.serve.service.PATIENCE", 0.05)

    async def all_at_once() -> None:
        service = Service(classifier, SMALL)
        try:
            async with service.place(2_000_000), service.place(None), service.place(2_000_000), service.place(None):
                async with service.place(999):
                    pass
                with pytest.raises(Refused) as refused:
                    async with service.place(None):
                        pass
                assert refused.value.status == 503 and refused.value.after
            async with service.place(None):
                pass
        finally:
            service.close()

    asyncio.run(all_at_once())
