"""Connections: silent, slow and odd ones keep nobody else out, and none lasts for ever."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.support.served import Client, in_thread

pytest.importorskip("uvicorn")

from customcnn.serve import connections, server

HEAD = b"Host: 127.0.0.1\r\n"
ANSWER = bytes(30_000_000)


async def app(scope, receive, send) -> None:
    """Answers at once; /large with many bytes, /body when the whole body is there."""
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
    while scope["path"] == "/body" and (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": ANSWER if scope["path"] == "/large" else b"here"})


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with in_thread(app) as found:
        yield found


@contextmanager
def connected(client: Client, data: bytes = b"") -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as connection:
        connection.sendall(data)
        yield connection


def everything(connection: socket.socket) -> bytes:
    """Read until the server ends the connection."""
    found = []
    with suppress(ConnectionResetError):
        while more := connection.recv(1 << 20):
            found.append(more)
    return b"".join(found)


def test_silent_connections_make_room(client, monkeypatch):
    for module in (connections, server):
        monkeypatch.setattr(module, "CONNECTIONS", 8, raising=False)
    with in_thread(app) as few:
        sends = b"POST /body HTTP/1.1\r\nContent-Length: 9\r\n" + HEAD + b"\r\n"
        silent = [socket.create_connection(("127.0.0.1", few.port)) for _ in range(6)]
        for one in silent[3:]:
            one.sendall(sends)
        time.sleep(0.1)
        silent += [socket.create_connection(("127.0.0.1", few.port)) for _ in range(30)]
        assert [few.get("/").status for _ in range(3)] == [200] * 3
        for one in silent:
            one.close()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET / HT",
        b"GET / HTTP/1.1\r\n" + HEAD,
        b"GET / HTTP/1.1\r\n" + HEAD + b"\r\nGET / HT",
        b"POST /body HTTP/1.1\r\nContent-Length: 9\r\n" + HEAD + b"\r\n1234",
        b"POST / HTTP/1.1\r\nContent-Length: 9\r\n" + HEAD + b"\r\n1234",
    ],
    ids=["nothing", "half a line", "half a header", "the next one", "half a body", "half a body, answered"],
)
def test_what_does_not_go_on_is_cut_off(client, monkeypatch, data):
    for name in ("HEADER", "BODY", "AFTER"):
        monkeypatch.setattr(connections, name, 0.2, raising=False)
    with connected(client, data) as connection:
        connection.settimeout(3)
        everything(connection)


def test_who_does_not_read_is_cut_off(client, monkeypatch):
    monkeypatch.setattr(connections, "READING", 0.1, raising=False)
    request = b"GET /large HTTP/1.1\r\n" + HEAD + b"\r\n"
    with connected(client, request) as connection, pytest.raises(ConnectionError):
        for _ in range(200):
            time.sleep(0.05)
            connection.sendall(b" ")
    monkeypatch.undo()
    with connected(client, b"GET /large HTTP/1.1\r\nConnection: close\r\n" + HEAD + b"\r\n") as connection:
        assert len(everything(connection)) > len(ANSWER), "who reads gets all of it"


def chunked(size: int, many: int) -> bytes:
    head = b"POST /body HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n" + HEAD + b"\r\n"
    return head + (b"%x\r\n" % size + bytes(size) + b"\r\n") * many + b"0\r\n\r\n"


def test_bodies_in_tiny_pieces_are_refused(client):
    with connected(client) as connection:
        with suppress(ConnectionError):
            connection.sendall(chunked(1, 200_000))
        assert b" 200 " not in everything(connection)
    for size, many in ((1, 900), (100, 2000)):
        with connected(client, chunked(size, many)) as connection:
            assert everything(connection).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("path", [b"/", b"/body"])
def test_a_damaged_chunk_is_no_fault_of_ours(client, path, caplog):
    damaged = b"POST %b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" % path + HEAD + b"\r\n4\r\nabcd\r\n"
    with connected(client, damaged) as connection:
        time.sleep(0.1)
        connection.sendall(b"no number\r\n")
        everything(connection)
    assert not [record for record in caplog.records if record.name == "asyncio" or record.exc_info]
